/** Bisection over anything sorted: columns, ranges, extents. */

/** The first index from 0 to `length` for which `holds` is true, and all after it; `length` if none. */
export function firstIndex(length: number, holds: (index: number) => boolean): number {
  let low = 0
  let high = length
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if (holds(middle)) high = middle
    else low = middle + 1
  }
  return low
}
