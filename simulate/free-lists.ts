/**
 * Free memory by order, as the buddy allocator keeps it: blocks are split from the lowest free ranges on
 * demand, and join with their buddies when they come back.
 *
 * Source: mm/page_alloc.c: __rmqueue_smallest(), __free_one_page().
 */
import type { FrameSpans } from '../encode/frame-ranges.ts'

/** Free blocks of one order; the one that was freed last is taken first. */
class FreeList {
  readonly #members = new Set<number>()
  /** May name blocks that joined with their buddy since. */
  readonly #stack: number[] = []

  push(frame: number): void {
    this.#members.add(frame)
    this.#stack.push(frame)
  }

  remove(frame: number): boolean {
    return this.#members.delete(frame)
  }

  pop(): number | undefined {
    for (let frame = this.#stack.pop(); frame !== undefined; frame = this.#stack.pop()) {
      if (this.#members.delete(frame)) return frame
    }
    return undefined
  }
}

export class FreeLists {
  readonly maxOrder: number
  readonly #lists: readonly FreeList[]
  /** Ranges of which the first `#opened` were handed out, and of the next all below `#next`. */
  readonly #fresh: FrameSpans
  #opened = 0
  #next = 0

  constructor(maxOrder: number, free: FrameSpans) {
    this.maxOrder = maxOrder
    this.#lists = Array.from({ length: maxOrder + 1 }, () => new FreeList())
    this.#fresh = free
  }

  /** First frame of a free block of 2^order pages; undefined if there is none. */
  take(order: number): number | undefined {
    for (let found = order; found <= this.maxOrder; found++) {
      const frame = this.#lists[found]?.pop()
      if (frame !== undefined) return this.#split(frame, found, order)
    }
    return this.#takeFresh(order)
  }

  /** Gives a block back; one above the largest order comes back in pieces. */
  give(frame: number, order: number): void {
    if (order > this.maxOrder) {
      const pieces = 2 ** (order - this.maxOrder)
      for (let piece = 0; piece < pieces; piece++) {
        this.give(frame + piece * 2 ** this.maxOrder, this.maxOrder)
      }
      return
    }
    let [start, size] = [frame, order]
    for (; size < this.maxOrder; size++) {
      const pages = 2 ** size
      const buddy = (start / pages) % 2 === 0 ? start + pages : start - pages
      if (!this.#lists[size]?.remove(buddy)) break
      start = Math.min(start, buddy)
    }
    this.#lists[size]?.push(start)
  }

  /** The lower half goes on, the upper halves become free. */
  #split(frame: number, from: number, to: number): number {
    for (let order = from - 1; order >= to; order--) this.#lists[order]?.push(frame + 2 ** order)
    return frame
  }

  #takeFresh(order: number): number | undefined {
    while (this.#opened < this.#fresh.length) {
      const frame = Math.max(this.#next, this.#fresh.start(this.#opened))
      const end = this.#fresh.end(this.#opened)
      const size = largestBlock(frame, end, this.maxOrder)
      this.#next = frame + 2 ** size
      if (this.#next >= end) this.#opened++
      if (size >= order) return this.#split(frame, size, order)
      this.#lists[size]?.push(frame)
    }
    return undefined
  }
}

/** Largest aligned block at the start of a range. */
function largestBlock(start: number, end: number, maxOrder: number): number {
  let order = 0
  while (order < maxOrder && start % 2 ** (order + 1) === 0 && start + 2 ** (order + 1) <= end) order++
  return order
}
