/**
 * The map of preserved memory, read into columns: for every order the windows of memory that a bitmap
 * describes. Neither units nor extents are kept; they are streamed out of the bitmaps when asked for,
 * so that memory grows with the map's pages and not with what they describe.
 */
import { decodeRadixKey, radixShape } from '../abi/kho-map.ts'
import { pageShift, type Target } from '../abi/layout.ts'
import { type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import type { ChunksEdge, RadixEdge, StructType } from '../abi/schema.ts'

/** A page of the map: where it lies, what it is, and how deep. */
export interface MapPage {
  readonly pa: PhysAddr
  readonly length: number
  readonly role: 'chunk' | 'bitmap' | 'node' | 'leaf'
  /** Radix: level (leaf 0) and key prefix of the page. Bitmaps: order and phys_start. */
  readonly level: number
  readonly prefix: bigint
}

/** Part of one bitmap in which bit `firstBit + i` stands for the unit at `basePfn + (i << order)`. */
export interface Window {
  readonly basePfn: number
  readonly bitmap: PhysAddr
  /** Bytes of the bitmap. */
  readonly length: number
  readonly firstBit: number
  readonly bits: number
}

/** Units side by side: `count` units of `order` from frame `pfn` on. */
export interface UnitRun {
  readonly order: number
  readonly pfn: number
  readonly count: number
}

export interface Extent {
  readonly start: bigint
  readonly end: bigint
}

export interface PreservedSummary {
  readonly entries: number
  readonly bytes: bigint
  /** Units per order, ascending. */
  readonly byOrder: ReadonlyMap<number, number>
  readonly extentCount: number
  readonly firstExtent: Extent | undefined
  readonly lastExtent: Extent | undefined
}

/** What a walk over the map collected. */
export interface WalkedMap {
  readonly pages: readonly MapPage[]
  readonly windows: ReadonlyMap<number, Window[]>
  readonly missing: readonly MapPage[]
}

/** Windows of one order do not overlap in a sound map; in others this many are asked for one unit. */
const OVERLAPPING_WINDOWS = 8

export class PreservedMap {
  readonly pages: readonly MapPage[]
  /** Pages of the map that the image does not hold: what they list is not known. */
  readonly missing: readonly MapPage[]
  readonly pageSize: number
  readonly edge: ChunksEdge | RadixEdge
  /** Orders that the map has room for, ascending; not each of them has units. */
  readonly orders: readonly number[]
  readonly #target: Target
  readonly #memory: PhysicalMemory
  readonly #windows: ReadonlyMap<number, readonly Window[]>
  #summary: PreservedSummary | undefined

  constructor(
    memory: PhysicalMemory,
    target: Target,
    edge: ChunksEdge | RadixEdge,
    { pages, windows, missing }: WalkedMap,
  ) {
    this.pages = pages
    this.missing = missing
    this.pageSize = target.pageSize
    this.edge = edge
    this.#target = target
    this.#memory = memory
    for (const list of windows.values()) list.sort((a, b) => a.basePfn - b.basePfn)
    this.#windows = windows
    this.orders = [...windows.keys()].sort((a, b) => a - b)
  }

  /** Units of one order, ascending by address, joined where they touch. */
  *runs(order: number): Generator<UnitRun> {
    let pfn = 0
    let count = 0
    for (const window of this.#windows.get(order) ?? []) {
      for (const [first, bits] of bitRuns(this.#bitmap(window), window.firstBit, window.bits)) {
        const start = window.basePfn + first * 2 ** order
        if (count > 0 && start === pfn + count * 2 ** order) {
          count += bits
          continue
        }
        if (count > 0) yield { order, pfn, count }
        pfn = start
        count = bits
      }
    }
    if (count > 0) yield { order, pfn, count }
  }

  /** All units as runs, ascending by address over all orders. */
  *allRuns(): Generator<UnitRun> {
    const sources = this.orders.map((order) => this.runs(order))
    const heads = sources.map((source) => source.next())
    for (;;) {
      let least = -1
      for (let i = 0; i < heads.length; i++) {
        const head = heads[i] as IteratorResult<UnitRun>
        if (head.done) continue
        if (least < 0 || head.value.pfn < (heads[least] as IteratorYieldResult<UnitRun>).value.pfn) least = i
      }
      if (least < 0) return
      yield (heads[least] as IteratorYieldResult<UnitRun>).value
      heads[least] = (sources[least] as Generator<UnitRun>).next()
    }
  }

  /** Extents of preserved memory, ascending: runs of any order joined where one ends where the next starts. */
  *extents(): Generator<Extent> {
    for (const { pfn, end } of this.#joinedRuns()) yield this.#extent(pfn, end)
  }

  *#joinedRuns(): Generator<{ readonly pfn: number; readonly end: number }> {
    let pfn = 0
    let end = -1
    for (const run of this.allRuns()) {
      if (run.pfn !== end) {
        if (end >= 0) yield { pfn, end }
        pfn = run.pfn
      }
      end = run.pfn + run.count * 2 ** run.order
    }
    if (end >= 0) yield { pfn, end }
  }

  #extent(pfn: number, end: number): Extent {
    return { start: this.#bytes(pfn), end: this.#bytes(end) }
  }

  #bytes(pages: number): bigint {
    return BigInt(pages) * BigInt(this.pageSize)
  }

  summary(): PreservedSummary {
    this.#summary ??= this.#summarize()
    return this.#summary
  }

  #summarize(): PreservedSummary {
    const byOrder = new Map<number, number>()
    let entries = 0
    let bytes = 0n
    for (const order of this.orders) {
      const count = (this.#windows.get(order) ?? []).reduce(
        (sum, window) => sum + countBits(this.#bitmap(window), window.firstBit, window.bits),
        0,
      )
      if (count === 0) continue
      byOrder.set(order, count)
      entries += count
      bytes += BigInt(count) * (BigInt(this.pageSize) << BigInt(order))
    }
    let extentCount = 0
    let firstExtent: Extent | undefined
    let last: { readonly pfn: number; readonly end: number } | undefined
    for (const joined of this.#joinedRuns()) {
      firstExtent ??= this.#extent(joined.pfn, joined.end)
      last = joined
      extentCount += 1
    }
    const lastExtent = last && this.#extent(last.pfn, last.end)
    return { entries, bytes, byOrder, extentCount, firstExtent, lastExtent }
  }

  /** Whether the unit of exactly this order at this frame is preserved. */
  has(pfn: number, order: number): boolean {
    const windows = this.#windows.get(order) ?? []
    let low = 0
    let high = windows.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((windows[middle] as Window).basePfn <= pfn) low = middle + 1
      else high = middle
    }
    for (let i = low - 1; i >= Math.max(0, low - OVERLAPPING_WINDOWS); i--) {
      const window = windows[i] as Window
      const bit = (pfn - window.basePfn) / 2 ** order
      if (bit >= window.bits) return false
      if (!Number.isInteger(bit)) continue
      const at = window.firstBit + bit
      if (((this.#bitmap(window)[at >>> 3] as number) >>> (at & 7)) & 1) return true
    }
    return false
  }

  /** The unit that holds a frame, of whatever order; undefined where the frame is not preserved. */
  unitAt(pfn: number): { readonly pfn: number; readonly order: number } | undefined {
    for (const order of this.orders) {
      const head = Math.floor(pfn / 2 ** order) * 2 ** order
      if (this.has(head, order)) return { pfn: head, order }
    }
    return undefined
  }

  /** Windows that reach into the next one of their order; the kernel makes none. */
  overlappingWindows(): number {
    return this.#count(
      (window, next, order) => next !== undefined && window.basePfn + window.bits * 2 ** order > next.basePfn,
    )
  }

  /** Windows that do not start at a multiple of what they cover; the kernel makes none. */
  windowsOffGrid(): number {
    return this.#count((window, _next, order) => window.basePfn % (window.length * 8 * 2 ** order) !== 0)
  }

  #count(test: (window: Window, next: Window | undefined, order: number) => boolean): number {
    let hits = 0
    for (const [order, windows] of this.#windows) {
      windows.forEach((window, i) => {
        if (test(window, windows[i + 1], order)) hits += 1
      })
    }
    return hits
  }

  /** The declared struct of a page of the map. */
  structOf(page: MapPage): StructType {
    const { edge } = this
    if (edge.kind === 'chunks') return page.role === 'chunk' ? edge.chunk : edge.bitmap
    return page.role === 'leaf' ? edge.leaf : edge.node
  }

  /** The unit that a bit of a bitmap or leaf stands for; undefined where the key has no meaning. */
  unitOf(page: MapPage, bit: number): { readonly pa: PhysAddr; readonly order: number } | undefined {
    const shift = BigInt(pageShift(this.#target.pageSize))
    if (this.edge.kind === 'chunks') {
      return { pa: phys(page.prefix + (BigInt(bit) << (BigInt(page.level) + shift))), order: page.level }
    }
    const shape = radixShape(this.edge, this.#target)
    const key = (page.prefix << BigInt(shape.leafLog2)) | BigInt(bit)
    return decodeRadixKey(key, shape, this.#target.pageSize)
  }

  /** A bitmap's bytes; missing ones (reported when the map was walked) are left out as zeros. */
  #bitmap(window: Window): Uint8Array {
    if (this.#cached?.pa !== window.bitmap) {
      const bytes = new Uint8Array(window.length)
      this.#memory.read(window.bitmap, bytes)
      this.#cached = { pa: window.bitmap, bytes }
    }
    return this.#cached.bytes
  }

  #cached: { pa: PhysAddr; bytes: Uint8Array } | undefined
}

/** Number of set bits among `bits` from `firstBit` on. */
function countBits(bytes: Uint8Array, firstBit: number, bits: number): number {
  let count = 0
  for (let bit = firstBit; bit < firstBit + bits; ) {
    const room = Math.min(8 - (bit & 7), firstBit + bits - bit)
    const mask = ((1 << room) - 1) << (bit & 7)
    const set = (bytes[bit >>> 3] as number) & mask
    if (set === 0xff) count += 8
    else for (let rest = set; rest !== 0; rest &= rest - 1) count += 1
    bit += room
  }
  return count
}

/** Runs of set bits as [first, length], counted from `firstBit`. */
function* bitRuns(bytes: Uint8Array, firstBit: number, bits: number): Generator<[number, number]> {
  const end = firstBit + bits
  for (let bit = nextBit(bytes, firstBit, end, 1); bit < end; ) {
    const after = nextBit(bytes, bit, end, 0)
    yield [bit - firstBit, after - bit]
    bit = nextBit(bytes, after, end, 1)
  }
}

/** The first bit of that value between `from` and `end`; `end` where there is none. */
function nextBit(bytes: Uint8Array, from: number, end: number, value: 0 | 1): number {
  const others = value === 1 ? 0 : 0xff
  for (let bit = from; bit < end; bit = (bit | 7) + 1) {
    const found = ((bytes[bit >>> 3] as number) ^ others) >>> (bit & 7)
    if (found !== 0) return Math.min(end, bit + 31 - Math.clz32(found & -found))
  }
  return end
}
