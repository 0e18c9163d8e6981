/**
 * Memory that is written: sparse physical memory and a deterministic page allocator.
 *
 * SparseMemory costs what is written to it; large contents can be given as a function of the address.
 * The allocator hands out the lowest free unit of 2^order pages that is aligned to its own size.
 */
import { invariant } from '../abi/fault.ts'
import type { PageSize } from '../abi/layout.ts'
import type { FilePosition, PhysAddr, PhysicalMemory, PhysRange, Presence } from '../abi/memory.ts'
import { phys } from '../abi/memory.ts'

/** Fills `out` with the bytes from physical address `pa` on; `out` is zeroed and never crosses a page. */
export type PageFill = (pa: PhysAddr, out: Uint8Array) => void

interface Generated {
  readonly start: bigint
  readonly end: bigint
  readonly fill: PageFill
  /** How many were given before it. */
  readonly turn: number
  /** Largest end of this range and all that start before it. */
  reach: bigint
}

/** Physical memory of pages that appear when they are written. RAM that nobody wrote reads as zeros. */
export class SparseMemory implements PhysicalMemory {
  readonly pageSize: PageSize
  readonly #ram: readonly PhysRange[] | undefined
  readonly #pages = new Map<number, Uint8Array>()
  /** By start, if indexed. */
  readonly #generated: Generated[] = []
  #indexed = true
  #extents: readonly PhysRange[] | undefined

  /** Without `ram` there is RAM exactly where something was written. */
  constructor(pageSize: PageSize, ram?: readonly PhysRange[]) {
    this.pageSize = pageSize
    this.#ram = ram && mergeRanges(ram)
  }

  get ranges(): readonly PhysRange[] {
    return this.#ram ?? this.extents()
  }

  /** Whether no RAM was declared, so that anything may be written anywhere. */
  get openEnded(): boolean {
    return this.#ram === undefined
  }

  /** What was written or is generated, in whole pages, sorted and merged. */
  extents(): readonly PhysRange[] {
    this.#extents ??= mergeRanges([...this.#writtenPages(), ...this.#generatedPages()])
    return this.#extents
  }

  write(pa: PhysAddr, bytes: Uint8Array): void {
    let done = 0
    while (done < bytes.length) {
      const at = phys(pa + BigInt(done))
      const offset = Number(at % BigInt(this.pageSize))
      const length = Math.min(bytes.length - done, this.pageSize - offset)
      this.page(at).set(bytes.subarray(done, done + length), offset)
      done += length
    }
  }

  /** The bytes of the page that holds `pa`, to be written in place. */
  page(pa: PhysAddr): Uint8Array {
    const number = Number(pa / BigInt(this.pageSize))
    const known = this.#pages.get(number)
    if (known) return known
    const page = new Uint8Array(this.pageSize)
    const start = pa - (pa % BigInt(this.pageSize))
    this.#generateInto(phys(start), page)
    this.#pages.set(number, page)
    this.#extents = undefined
    return page
  }

  /** Starts of the pages between two addresses that were written to, in no order. */
  *writtenPages(start: bigint, end: bigint): Generator<PhysAddr> {
    const size = BigInt(this.pageSize)
    const first = Number(start / size)
    const last = Number((end - 1n) / size)
    if (last - first < this.#pages.size) {
      for (let number = first; number <= last; number++) {
        if (this.#pages.has(number)) yield phys(BigInt(number) * size)
      }
      return
    }
    for (const number of this.#pages.keys()) {
      if (first <= number && number <= last) yield phys(BigInt(number) * size)
    }
  }

  /**
   * Gives a range contents that are computed when they are read. Where ranges overlap the later one
   * lies on top; pages that are written, before or after, keep what was written.
   */
  generate(range: PhysRange, fill: PageFill): void {
    if (range.end <= range.start) return
    this.#generated.push({ ...range, fill, turn: this.#generated.length, reach: range.end })
    this.#indexed = false
    this.#extents = undefined
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    let done = 0
    while (done < out.length) {
      const at = pa + BigInt(done)
      if (at >= 1n << 64n) break
      const { state, until } = this.presence(phys(at))
      if (state !== 'present') break
      const inPage = this.pageSize - Number(at % BigInt(this.pageSize))
      const length = Math.min(out.length - done, inPage, Number(until - at))
      this.#readWithinPage(phys(at), out.subarray(done, done + length))
      done += length
    }
    return done
  }

  presence(pa: PhysAddr): { readonly state: Presence; readonly until: bigint } {
    const { ranges } = this
    let low = 0
    let high = ranges.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((ranges[middle] as PhysRange).end <= pa) low = middle + 1
      else high = middle
    }
    const range = ranges[low]
    if (!range) return { state: 'hole', until: 1n << 64n }
    return range.start <= pa ? { state: 'present', until: range.end } : { state: 'hole', until: range.start }
  }

  filePosition(): FilePosition | undefined {
    return undefined
  }

  #readWithinPage(pa: PhysAddr, out: Uint8Array): void {
    const offset = Number(pa % BigInt(this.pageSize))
    const page = this.#pages.get(Number(pa / BigInt(this.pageSize)))
    if (page) {
      out.set(page.subarray(offset, offset + out.length))
      return
    }
    out.fill(0)
    this.#generateInto(pa, out)
  }

  #generateInto(pa: PhysAddr, out: Uint8Array): void {
    const end = pa + BigInt(out.length)
    if (!this.#indexed) this.#index()
    let at = this.#generatedFrom(end)
    const covering: Generated[] = []
    while (at-- > 0) {
      const entry = this.#generated[at] as Generated
      if (entry.reach <= pa) break
      if (entry.end > pa) covering.push(entry)
    }
    covering.sort((a, b) => a.turn - b.turn)
    for (const { start, end: stop, fill } of covering) {
      const from = start > pa ? start : pa
      const to = stop < end ? stop : end
      fill(phys(from), out.subarray(Number(from - pa), Number(to - pa)))
    }
  }

  #index(): void {
    this.#generated.sort((a, b) => (a.start < b.start ? -1 : Number(a.start > b.start)))
    let reach = 0n
    for (const entry of this.#generated) {
      if (entry.end > reach) reach = entry.end
      entry.reach = reach
    }
    this.#indexed = true
  }

  /** Index of the first generated range that starts at `pa` or later. */
  #generatedFrom(pa: bigint): number {
    let low = 0
    let high = this.#generated.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#generated[middle] as Generated).start < pa) low = middle + 1
      else high = middle
    }
    return low
  }

  *#writtenPages(): Generator<PhysRange> {
    const size = BigInt(this.pageSize)
    let start = -1
    let end = -1
    for (const number of Float64Array.from(this.#pages.keys()).sort()) {
      if (number !== end) {
        if (end > start) yield { start: phys(BigInt(start) * size), end: BigInt(end) * size }
        start = number
      }
      end = number + 1
    }
    if (end > start) yield { start: phys(BigInt(start) * size), end: BigInt(end) * size }
  }

  *#generatedPages(): Generator<PhysRange> {
    const size = BigInt(this.pageSize)
    for (const { start, end } of this.#generated) {
      yield { start: phys(start - (start % size)), end: ((end + size - 1n) / size) * size }
    }
  }
}

/** Sorts ranges by start and joins those that touch or overlap. */
export function mergeRanges(ranges: Iterable<PhysRange>): PhysRange[] {
  const merged: { start: PhysAddr; end: bigint }[] = []
  for (const { start, end } of [...ranges].sort((a, b) =>
    a.start < b.start ? -1 : Number(a.start > b.start),
  )) {
    const last = merged.at(-1)
    if (!last || start > last.end) {
      if (end > start) merged.push({ start, end })
    } else if (end > last.end) last.end = end
  }
  return merged
}

/** Free pages, as numbers: a frame number has at most 52 bits. */
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
  readonly #taken: PhysRange[] = []
  #free: FreeRange[] | undefined

  constructor(pageSize: PageSize, ram: readonly PhysRange[]) {
    this.pageSize = pageSize
    this.#ram = mergeRanges(ram)
  }

  /** Keeps every page that holds a byte of the range from being handed out. */
  reserve(range: PhysRange): void {
    invariant(!this.#free, 'memory was reserved after pages were handed out')
    this.#taken.push(range)
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
    const pageZero = { start: phys(0), end: size }
    const taken = mergeRanges([...this.#taken, pageZero])
    const free: FreeRange[] = []
    let next = 0
    for (const range of this.#ram) {
      const end = Number(range.end / size)
      let start = Number((range.start + size - 1n) / size)
      while (next < taken.length && Number((taken[next] as PhysRange).end) <= Number(range.start)) next++
      for (let at = next; at < taken.length; at++) {
        const hole = taken[at] as PhysRange
        const holeStart = Number(hole.start / size)
        if (holeStart >= end) break
        if (holeStart > start) free.push({ start, end: holeStart })
        start = Math.max(start, Number((hole.end + size - 1n) / size))
      }
      if (start < end) free.push({ start, end })
    }
    return free
  }
}

function unitsIn(range: FreeRange, pages: number): number {
  return Math.max(0, Math.floor((range.end - alignUp(range.start, pages)) / pages))
}

/** Exact beyond 32 bits: frame numbers are doubles. */
function alignUp(frame: number, pages: number): number {
  return Math.ceil(frame / pages) * pages
}
