/**
 * A deterministic page allocator: it hands out the lowest free unit of 2^order pages that is aligned to
 * its own size.
 */
import { invariant } from '../abi/fault.ts'
import type { PageSize } from '../abi/layout.ts'
import { type PhysAddr, type PhysRange, phys } from '../abi/memory.ts'
import { type FrameRange, FrameRanges, FrameSpans } from './frame-ranges.ts'
import { mergeRanges } from './memory.ts'

/** Pages are cut off its start. */
interface FreeRange {
  start: number
  end: number
}

/**
 * Hands out free pages of RAM, lowest address first. What is taken has to be said before the first
 * page is handed out. Page 0 is never given: address 0 means "none" in every link.
 */
export class PageAllocator {
  readonly pageSize: PageSize
  readonly #ram: readonly PhysRange[]
  readonly #taken = new FrameRanges()
  #free: FreeRange[] | undefined

  constructor(pageSize: PageSize, ram: readonly PhysRange[]) {
    this.pageSize = pageSize
    this.#ram = mergeRanges(ram)
  }

  /** Keeps every page that holds a byte of the range from being handed out. */
  reserve(range: PhysRange): void {
    invariant(!this.#free, 'memory was reserved after pages were handed out')
    const size = BigInt(this.pageSize)
    this.#taken.add(Number(range.start / size), Number((range.end + size - 1n) / size))
  }

  /** One unit of 2^order pages; undefined if no free one is left. */
  allocate(order: number): PhysAddr | undefined {
    return this.allocateUnits(order, 1)?.[0]?.start
  }

  /** `count` units as runs of neighbours, lowest first; undefined, with nothing taken, if there are too few. */
  allocateUnits(
    order: number,
    count: number,
  ): readonly { readonly start: PhysAddr; readonly count: number }[] | undefined {
    if (count > 1 && this.freeUnits(order) < count) return undefined
    const pages = 2 ** order
    const runs: { start: PhysAddr; count: number }[] = []
    let missing = count
    for (let at = 0; missing > 0; at++) {
      const range = this.#freeList()[at]
      if (!range) return undefined
      const run = Math.min(missing, unitsIn(range, pages))
      if (run === 0) continue
      const start = alignUp(range.start, pages)
      runs.push({ start: this.#address(start), count: run })
      missing -= run
      at += this.#take(at, start, start + run * pages) - 1
    }
    return runs
  }

  /** `pages` neighbouring pages, the first aligned to `align` bytes; undefined if there is no such gap. */
  allocateRange(pages: number, align = this.pageSize as number): PhysAddr | undefined {
    const alignPages = Math.max(1, align / this.pageSize)
    for (const [at, range] of this.#freeList().entries()) {
      const start = alignUp(range.start, alignPages)
      if (start + pages > range.end) continue
      this.#take(at, start, start + pages)
      return this.#address(start)
    }
    return undefined
  }

  /** Units of 2^order pages that are still free. */
  freeUnits(order: number): number {
    const pages = 2 ** order
    return this.#freeList().reduce((sum, range) => sum + unitsIn(range, pages), 0)
  }

  #address(frame: number): PhysAddr {
    return phys(BigInt(frame) * BigInt(this.pageSize))
  }

  /** Cuts frames out of a free range; returns how many free ranges stand in its place. */
  #take(at: number, start: number, end: number): number {
    const range = this.#freeList()[at] as FreeRange
    const left = [
      { start: range.start, end: start },
      { start: end, end: range.end },
    ].filter((rest) => rest.end > rest.start)
    if (left.length === 1) Object.assign(range, left[0])
    else this.#freeList().splice(at, 1, ...left)
    return left.length
  }

  #freeList(): FreeRange[] {
    this.#free ??= this.#computeFree()
    return this.#free
  }

  #computeFree(): FreeRange[] {
    const size = BigInt(this.pageSize)
    this.#taken.add(0, 1)
    const ram = this.#ram.map(({ start, end }) => ({
      start: Number((start + size - 1n) / size),
      end: Number(end / size),
    }))
    return [...FrameSpans.of(ram).without(this.#taken.merged())]
  }
}

function unitsIn(range: FrameRange, pages: number): number {
  return Math.max(0, Math.floor((range.end - alignUp(range.start, pages)) / pages))
}

/** Exact beyond 32 bits: frame numbers are doubles. */
function alignUp(frame: number, pages: number): number {
  return Math.ceil(frame / pages) * pages
}
