/**
 * What the folio records of a memfd add up to, in one pass over the columns.
 */
import { columnOf } from './columns.ts'
import type { PreservedMap } from './map.ts'
import type { VmallocArray } from './vmalloc.ts'

/**
 * Folios per order, ascending. A folio reaches up to the next one's index; the last one's order is that
 * of its preserved unit. Where the next one is not known or does not say (a gap in the file), the unit says.
 */
export function folioOrders(bulk: VmallocArray, map: PreservedMap): ReadonlyMap<number, number> {
  const counts = new Map<number, number>()
  if (bulk.element.kind !== 'struct') return counts
  const indexOf = columnOf(bulk.element, 'index', bulk.target)
  const pfnOf = columnOf(bulk.element, 'pfn', bulk.target)
  let pfn = 0
  let index = -1
  let following = 0
  const countFolio = (nextIndex: number): void => {
    if (index < 0 || pfn === 0) return
    const pages = nextIndex - index
    const order = pages > 0 && Number.isInteger(Math.log2(pages)) ? Math.log2(pages) : map.unitAt(pfn)?.order
    if (order !== undefined) counts.set(order, (counts.get(order) ?? 0) + 1)
  }
  for (const piece of bulk.pieces()) {
    if (piece.index !== following) {
      countFolio(-1)
      index = -1
    }
    following = piece.index + piece.count
    const view = new DataView(piece.bytes.buffer, piece.bytes.byteOffset, piece.bytes.byteLength)
    for (let i = 0; i < piece.count; i++) {
      const offset = i * bulk.elementSize
      const next = indexOf(view, offset)
      countFolio(next)
      index = next
      pfn = pfnOf(view, offset)
    }
  }
  countFolio(-1)
  return new Map([...counts].sort(([a], [b]) => a - b))
}
