/**
 * The preserved units by address: runs of units per order in typed arrays, found by bisection. Where
 * units overlap, the one counts that the kernel walks last, as its order is what the page then holds.
 */
import type { PreservedMap } from './map.ts'

export interface Unit {
  readonly pfn: number
  readonly order: number
}

interface OrderRuns {
  readonly order: number
  /** First frame of each run, ascending. */
  readonly starts: Float64Array
  /** Units of each run. */
  readonly counts: Float64Array
}

export class UnitIndex {
  /** In the order in which the kernel walks the map, the last one first. */
  readonly #orders: readonly OrderRuns[]

  constructor(map: PreservedMap | undefined) {
    const orders = map ? map.orders.map((order) => runsOf(map, order)) : []
    this.#orders = map?.edge.kind === 'chunks' ? orders.reverse() : orders
  }

  /** The order of the unit whose head is this frame; undefined where no unit starts there. */
  orderAt(pfn: number): number | undefined {
    return this.#orders.find((runs) => {
      const start = runStart(runs, pfn)
      return start !== undefined && (pfn - start) % 2 ** runs.order === 0
    })?.order
  }

  /** The unit that holds a frame. */
  unitAt(pfn: number): Unit | undefined {
    for (const runs of this.#orders) {
      const start = runStart(runs, pfn)
      if (start === undefined) continue
      const size = 2 ** runs.order
      return { pfn: start + Math.floor((pfn - start) / size) * size, order: runs.order }
    }
    return undefined
  }
}

function runsOf(map: PreservedMap, order: number): OrderRuns {
  const starts: number[] = []
  const counts: number[] = []
  for (const { pfn, count } of map.runs(order)) {
    starts.push(pfn)
    counts.push(count)
  }
  return { order, starts: Float64Array.from(starts), counts: Float64Array.from(counts) }
}

/** First frame of the run that holds a frame. */
function runStart({ order, starts, counts }: OrderRuns, pfn: number): number | undefined {
  let low = 0
  let high = starts.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((starts[middle] as number) <= pfn) low = middle + 1
    else high = middle
  }
  if (low === 0) return undefined
  const start = starts[low - 1] as number
  return pfn < start + (counts[low - 1] as number) * 2 ** order ? start : undefined
}
