/** The root FDT: its header and structure, its properties, and the nodes of the subsystems. */

import type { Fault } from '../abi/fault.ts'
import { componentByName, formatContract } from '../abi/registry.ts'
import { type Rule, refuses, type Violation } from './rule.ts'

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

export const khoRules: readonly Rule[] = [
  refuses({
    id: 'KHO_COMPATIBLE',
    stage: 'populate',
    check: function* ({ handover, kernel, faults }) {
      const known = componentByName('kho').versions.find(({ id }) => id === kernel.versions.kho)
      if (!known) return
      const contract = formatContract(known.contract)
      const log = [handover.fdt ?? 0n, contract, 1]
      for (const fault of faults.take('COMPATIBLE_UNKNOWN', 'kho'))
        yield { ...violationOf(fault), hides: '', log }
    },
  }),
]
