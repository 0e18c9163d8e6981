/** Claims that the map of preserved memory does not meet. */
import type { ClaimGroup } from './claim.ts'
import type { Subject } from './subject.ts'

/** A claim that the map does not meet. */
export interface Unmet {
  readonly group: ClaimGroup
  readonly index: number
  readonly pfn: number
  /** `missing`: not preserved. `inside`: part of a larger unit, not its head. `order`: a unit of another order. */
  readonly problem: 'missing' | 'inside' | 'order'
  /** The unit that holds the frame. */
  readonly unit?: { readonly pfn: number; readonly order: number }
}

/** The claims of one rule that the map does not meet; none where parts of the map are not known. */
export function* unmet(subject: Subject, rule: string): Generator<Unmet> {
  const { map } = subject
  if (!map || map.missing.length > 0) return
  for (const group of subject.claims) {
    if (group.rule !== rule) continue
    for (let index = 0; index < group.pfns.length; index++) {
      const pfn = group.pfns[index] as number
      const problem = problemOf(subject, group, pfn)
      if (problem) yield { group, index, pfn, ...problem }
    }
  }
}

function problemOf(
  { units }: Subject,
  { pages, restore }: ClaimGroup,
  pfn: number,
): Pick<Unmet, 'problem' | 'unit'> | undefined {
  if (restore !== 'folio') return runProblem(units, pfn, pages ?? 1, restore)
  const order = units.orderAt(pfn)
  if (order === undefined) {
    const unit = units.unitAt(pfn)
    return unit ? { problem: 'inside', unit } : { problem: 'missing' }
  }
  if (pages === undefined || 2 ** order === pages) return undefined
  return { problem: 'order', unit: { pfn, order } }
}

/** A run of pages: covered without a gap, and if it is to be restored, by exactly the units of the split. */
function runProblem(
  units: Subject['units'],
  first: number,
  pages: number,
  restore: 'pages' | 'read',
): Pick<Unmet, 'problem' | 'unit'> | undefined {
  for (let pfn = first; pfn < first + pages; ) {
    const unit = units.unitAt(pfn)
    if (!unit) return { problem: 'missing' }
    if (restore === 'read') {
      pfn = unit.pfn + 2 ** unit.order
      continue
    }
    const order = splitOrder(pfn, first + pages - pfn)
    if (units.orderAt(pfn) !== order) return { problem: unit.pfn === pfn ? 'order' : 'inside', unit }
    pfn += 2 ** order
  }
  return undefined
}

/** Order of the first unit into which kho_preserve_pages() splits a run: min(alignment, room). */
export function splitOrder(pfn: number, pages: number): number {
  let order = Math.floor(Math.log2(pages))
  while (order > 0 && pfn % 2 ** order !== 0) order -= 1
  return order
}
