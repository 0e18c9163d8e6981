/** Rules of memory that the kernel takes back or only reads: is it preserved, and as it will be taken? */
import type { Outcome } from '../abi/check.ts'
import { formatPath, type Path } from '../abi/fault.ts'
import { hex, phys } from '../abi/memory.ts'
import type { Rule, Stage, Violation } from './rule.ts'
import type { Subject } from './subject.ts'
import { childrenOf, type Node } from './tree.ts'
import { type Unmet, unmet } from './unmet.ts'

/** What becomes of the owner where the memory is preserved, and not as a unit of its own. */
export interface OtherUnits {
  /** Part of a larger unit: kho_restore_page() finds no mark at it. */
  readonly inside: Outcome
  /** The head of a unit of another order. */
  readonly order: Outcome
  /** When the kernel follows the pointer; where no memory is, it goes no further. Not told where it only looks up the page. */
  readonly read?: Stage
}

/** Memory that is read before it is given back: content is safe, the page is lost. */
export function readAt(read: Stage): OtherUnits {
  return { inside: 'takes-over', order: 'takes-over', read }
}

/** Parts that a finding may harm are listed up to this number. */
const AFFECTED = 1000

/** The places at which a claim is not met, one for each group. */
export function preserved(id: string, others: OtherUnits): Rule['check'] {
  return function* (subject) {
    const groups = new Map<Unmet['group'], Unmet[]>()
    for (const found of unmet(subject, id)) {
      const list = groups.get(found.group) ?? []
      groups.set(found.group, list)
      if (list.length < 2) list.push(found)
    }
    for (const [, [first, second]] of groups)
      if (first) yield violationFor(subject, first, second !== undefined, others)
  }
}

function violationFor(
  subject: Subject,
  { group, index, pfn, problem, unit }: Unmet,
  hasMore: boolean,
  others: OtherUnits,
): Violation {
  const pointer = group.pointer(index)
  const address = subject.address(pfn)
  const pages = group.pages === undefined ? '' : `, ${group.pages} pages`
  const found = unit ? `${hex(subject.address(unit.pfn))} of order ${unit.order}` : hex(phys(address))
  return {
    path: group.path,
    pa: pointer,
    length: 8,
    via: group.via,
    ...(group.step !== undefined && { step: group.step }),
    message: `${group.what}${group.pfns.length > 1 ? ` ${index}` : ''} ${PROBLEMS[problem]}${hasMore ? ', nor are others' : ''}`,
    expected: `a preserved unit at ${hex(address)}${pages}`,
    found,
    affects: partsBelow(subject, group.path),
    ...(problem === 'missing' ? whereNothingIs(subject, address, others) : otherUnit(others[problem])),
  }
}

function otherUnit(outcome: Outcome): Partial<Violation> {
  return { outcome, severity: outcome === 'takes-over' ? 'warning' : 'error' }
}

/** A pointer to where no memory is kills whoever follows it. */
function whereNothingIs({ known }: Subject, address: bigint, { read }: OtherUnits): Partial<Violation> {
  if (read === undefined || known.mayHold(address)) return {}
  return { outcome: 'corrupts', ends: true, stage: read }
}

const PROBLEMS: Readonly<Record<Unmet['problem'], string>> = {
  missing: 'is not preserved',
  inside: 'is not preserved as a unit of its own',
  order: 'is not preserved with this order',
}

/** Paths of the parts below a place: what hangs on memory that is lost. */
export function partsBelow({ handover }: Subject, path: string): readonly string[] {
  const paths: string[] = []
  const visit = (node: Node, at: Path): void => {
    if (paths.length >= AFFECTED) return
    const printed = formatPath(at)
    if (typeof node.segment === 'object' && printed.startsWith(path)) paths.push(printed)
    const lists = childrenOf(node).filter(({ kind }) => kind === 'list' || kind === 'record')
    if (path.startsWith(printed) || printed.startsWith(path))
      for (const inner of lists) visit(inner, [...at, inner.segment])
  }
  for (const node of handover.tree.children) visit(node, [node.segment])
  return paths
}
