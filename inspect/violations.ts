/** Violations out of what the decoder found, and of claims that the map of preserved memory does not meet. */
import type { Fault } from '../abi/fault.ts'
import { hex } from '../abi/memory.ts'
import type { Violation } from './rule.ts'
import type { Subject } from './subject.ts'
import { type Unmet, unmet } from './unmet.ts'

/** A decoder's fault as a rule's violation. */
export function violationOf(fault: Fault): Violation {
  const { path, pa, length, message, expected, found, via } = fault
  return {
    path,
    pa,
    length,
    message,
    via,
    ...(expected !== undefined && { expected }),
    ...(found !== undefined && { found }),
  }
}

/** Violations for the claims of a rule that the map does not meet. */
export function* unmetViolations(subject: Subject, rule: string): Generator<Violation> {
  for (const { group, index, pfn, problem, unit: holder } of unmet(subject, rule)) {
    yield {
      path: group.path,
      pa: group.pointer(index),
      length: 8,
      via: group.via,
      message: `${group.what} at ${hex(subject.address(pfn))} is ${PROBLEMS[problem]}`,
      expected: group.pages === undefined ? 'the head of a unit' : `${group.pages} preserved pages`,
      found: holder ? `a unit of order ${holder.order} at ${hex(subject.address(holder.pfn))}` : 'no unit',
      step: group.step ?? 0,
    }
  }
}

const PROBLEMS: Readonly<Record<Unmet['problem'], string>> = {
  missing: 'not preserved',
  inside: 'inside of a larger unit',
  order: 'preserved with another order',
}
