/**
 * Ranges of page frames, in columns: a machine can have a million single pages in use, each far from the
 * next. Frames are numbers: a frame number has at most 52 bits.
 */

export interface FrameRange {
  readonly start: number
  readonly end: number
}

/** Sorted, disjoint ranges. Neighbours may touch: RAM of two nodes does. */
export class FrameSpans implements Iterable<FrameRange> {
  readonly #starts: Float64Array
  readonly #ends: Float64Array

  constructor(starts: Float64Array, ends: Float64Array) {
    this.#starts = starts
    this.#ends = ends
  }

  static of(ranges: readonly FrameRange[]): FrameSpans {
    return new FrameSpans(
      Float64Array.from(ranges, ({ start }) => start),
      Float64Array.from(ranges, ({ end }) => end),
    )
  }

  get length(): number {
    return this.#starts.length
  }

  /** Where range number `at` starts; past the last one nothing does. */
  start(at: number): number {
    return this.#starts[at] ?? Number.POSITIVE_INFINITY
  }

  end(at: number): number {
    return this.#ends[at] ?? Number.POSITIVE_INFINITY
  }

  /** Frames in all ranges. */
  get frames(): number {
    let sum = 0
    for (let at = 0; at < this.length; at++) sum += this.end(at) - this.start(at)
    return sum
  }

  *[Symbol.iterator](): Generator<FrameRange> {
    for (let at = 0; at < this.length; at++) yield { start: this.start(at), end: this.end(at) }
  }

  /** What is in none of the other ranges. */
  without(taken: FrameSpans): FrameSpans {
    const rest = new Columns()
    let next = 0
    for (let index = 0; index < this.length; index++) {
      const end = this.end(index)
      let at = this.start(index)
      while (taken.end(next) <= at) next++
      for (let hole = next; taken.start(hole) < end; hole++) {
        if (taken.start(hole) > at) rest.push(at, taken.start(hole))
        at = Math.max(at, taken.end(hole))
      }
      if (at < end) rest.push(at, end)
    }
    return rest.spans()
  }

  /** What is in one of the other ranges, too. */
  within(others: FrameSpans): FrameSpans {
    return this.without(this.without(others))
  }
}

/** Ranges in any order, that may overlap. */
export class FrameRanges {
  #columns = new Columns()
  #merged: FrameSpans | undefined

  /** Goes on the last range where it follows it. */
  add(start: number, end: number): void {
    if (end <= start) return
    if (this.#merged) this.#columns = Columns.after(this.#merged)
    this.#merged = undefined
    if (!this.#columns.extend(start, end)) this.#columns.push(start, end)
  }

  /** Sorted, and joined where they touch. */
  merged(): FrameSpans {
    if (this.#merged) return this.#merged
    const { starts, ends } = this.#columns.sorted()
    const merged = new Columns()
    // Where as many have ended as have started there is a gap, whichever ends belong to which starts.
    let from = 0
    for (let at = 0; at < starts.length; at++) {
      if ((starts[at + 1] ?? Number.POSITIVE_INFINITY) <= (ends[at] as number)) continue
      merged.push(starts[from] as number, ends[at] as number)
      from = at + 1
    }
    this.#merged = merged.spans()
    this.#columns = new Columns(0)
    return this.#merged
  }
}

/** Starts and ends, growing. */
class Columns {
  #starts: Float64Array
  #ends: Float64Array
  #length = 0

  constructor(room = 16) {
    this.#starts = new Float64Array(room)
    this.#ends = new Float64Array(room)
  }

  static after(spans: FrameSpans): Columns {
    const columns = new Columns(2 * spans.length + 1)
    for (let at = 0; at < spans.length; at++) columns.push(spans.start(at), spans.end(at))
    return columns
  }

  push(start: number, end: number): void {
    if (this.#length === this.#starts.length) {
      this.#starts = doubled(this.#starts)
      this.#ends = doubled(this.#ends)
    }
    this.#starts[this.#length] = start
    this.#ends[this.#length] = end
    this.#length++
  }

  /** Whether the last range goes on here, and now does. */
  extend(start: number, end: number): boolean {
    if (this.#length === 0 || this.#ends[this.#length - 1] !== start) return false
    this.#ends[this.#length - 1] = end
    return true
  }

  /** Each column for itself; nothing is to be added any more. */
  sorted(): { readonly starts: Float64Array; readonly ends: Float64Array } {
    const starts = this.#starts.subarray(0, this.#length).sort()
    return { starts, ends: this.#ends.subarray(0, this.#length).sort() }
  }

  /** As they are, in arrays of their size. */
  spans(): FrameSpans {
    return new FrameSpans(this.#starts.slice(0, this.#length), this.#ends.slice(0, this.#length))
  }
}

function doubled(column: Float64Array): Float64Array {
  const larger = new Float64Array(Math.max(16, column.length * 2))
  larger.set(column)
  return larger
}
