/**
 * Memory that is written: it costs what is written to it, and large contents can be given as a function
 * of the address.
 */
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
