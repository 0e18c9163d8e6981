/**
 * All claims of a handover by address: ranges of frames in typed arrays, sorted once, so that who claims
 * a page, and who else, is found by bisection.
 */
import type { ClaimGroup } from './claim.ts'
import type { UnitRun } from './map.ts'
import type { UnitIndex } from './unit-index.ts'

/** A frame that two claims share. */
export interface SharedFrame {
  readonly pfn: number
  readonly one: ClaimGroup
  readonly other: ClaimGroup
}

export class ClaimList {
  readonly #groups: readonly ClaimGroup[]
  /** Ascending by first frame. */
  readonly #starts: Float64Array
  readonly #ends: Float64Array
  /** Largest end up to and with each claim. */
  readonly #reach: Float64Array
  readonly #owners: Uint32Array

  constructor(groups: readonly ClaimGroup[], units: UnitIndex) {
    const total = groups.reduce((sum, { pfns }) => sum + pfns.length, 0)
    const starts = new Float64Array(total)
    const ends = new Float64Array(total)
    const owners = new Uint32Array(total)
    let at = 0
    for (const [owner, { pfns, pages }] of groups.entries()) {
      for (const pfn of pfns) {
        starts[at] = pfn
        ends[at] = pfn + (pages ?? 2 ** (units.orderAt(pfn) ?? 0))
        owners[at] = owner
        at += 1
      }
    }
    const order = new Uint32Array(total).map((_, i) => i)
    order.sort((a, b) => (starts[a] as number) - (starts[b] as number) || a - b)
    this.#groups = groups
    this.#starts = Float64Array.from(order, (i) => starts[i] as number)
    this.#ends = Float64Array.from(order, (i) => ends[i] as number)
    this.#owners = Uint32Array.from(order, (i) => owners[i] as number)
    this.#reach = new Float64Array(total)
    let reach = 0
    for (let i = 0; i < total; i++) {
      reach = Math.max(reach, this.#ends[i] as number)
      this.#reach[i] = reach
    }
  }

  /** Whether anything in a range of frames is claimed. */
  holds(from: number, to: number): boolean {
    const last = this.#countBelow(to) - 1
    return last >= 0 && (this.#reach[last] as number) > from
  }

  /** Claims in a range of frames, by their first frames. */
  *within(from: number, to: number): Generator<{ readonly group: ClaimGroup; readonly pfn: number }> {
    for (
      let i = this.#firstReaching(from);
      i < this.#starts.length && (this.#starts[i] as number) < to;
      i++
    ) {
      if ((this.#ends[i] as number) <= from) continue
      yield { group: this.#groups[this.#owners[i] as number] as ClaimGroup, pfn: this.#starts[i] as number }
    }
  }

  /** Frames that two claims share, the later claim in the order of the groups as the other one. */
  *shared(): Generator<SharedFrame> {
    let widest = 0
    for (let i = 1; i < this.#starts.length; i++) {
      const start = this.#starts[i] as number
      if (start < (this.#ends[widest] as number)) {
        const [one, other] = [this.#owners[widest] as number, this.#owners[i] as number].sort((a, b) => a - b)
        yield {
          pfn: start,
          one: this.#groups[one as number] as ClaimGroup,
          other: this.#groups[other as number] as ClaimGroup,
        }
      }
      if ((this.#ends[i] as number) > (this.#ends[widest] as number)) widest = i
    }
  }

  /** Pages of a run of units that nothing claims, whole units only, and the first of them. */
  unclaimedIn({ pfn, count, order }: UnitRun): {
    readonly pages: number
    readonly first: number | undefined
  } {
    const size = 2 ** order
    const end = pfn + count * size
    let pages = 0
    let first: number | undefined
    const skip = (from: number, to: number): void => {
      const units = Math.floor((to - from) / size)
      if (units <= 0) return
      first ??= from
      pages += units * size
    }
    let at = pfn
    for (
      let i = this.#firstReaching(pfn);
      i < this.#starts.length && (this.#starts[i] as number) < end;
      i++
    ) {
      const start = this.#starts[i] as number
      if (start > at) skip(at, pfn + Math.floor((start - pfn) / size) * size)
      const behind = pfn + Math.ceil(((this.#ends[i] as number) - pfn) / size) * size
      if (behind > at) at = behind
    }
    if (at < end) skip(at, end)
    return { pages, first }
  }

  /** Claims that start below a frame. */
  #countBelow(pfn: number): number {
    let low = 0
    let high = this.#starts.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#starts[middle] as number) < pfn) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The first claim from which on one may reach beyond a frame. */
  #firstReaching(pfn: number): number {
    let low = 0
    let high = this.#reach.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#reach[middle] as number) <= pfn) low = middle + 1
      else high = middle
    }
    return low
  }
}
