/**
 * The map of preserved memory, read into columns: for every order the windows of memory that a bitmap
 * describes. Neither units nor extents are kept; they are streamed out of the bitmaps when asked for,
 * so that memory grows with the map's pages and not with what they describe.
 *
 * Mirrors kho_mem_deserialize() (kho-v1) and kho_radix_walk_tree() (kho-v2 and later).
 */
import {
  decodeRadixKey,
  khoserMemBitmapPtr,
  type khoserMemChunk,
  LOST_MARKER_BELOW,
  type RadixShape,
  radixShape,
} from '../abi/kho-map.ts'
import type { Target } from '../abi/layout.ts'
import { countOf, fieldOf, layoutOf, pageShift } from '../abi/layout.ts'
import type { PhysAddr, PhysicalMemory } from '../abi/memory.ts'
import { hex, phys } from '../abi/memory.ts'
import type { ArrayType, ChunksEdge, Infer, RadixEdge } from '../abi/schema.ts'
import type { FaultList, Place } from './faults.ts'
import { behind } from './faults.ts'
import { readBytes } from './read.ts'
import { decodeStruct } from './record.ts'

/** Frame numbers are at most 52 bits wide, so plain numbers hold them exactly. */
const MAX_PFN = 2 ** 52

/** A page of the map: where it lies, what it is, and how deep. */
export interface MapPage {
  readonly pa: PhysAddr
  readonly length: number
  readonly role: 'chunk' | 'bitmap' | 'node' | 'leaf'
  /** Radix: level (leaf 0) and key prefix of the page. Chunks: order and phys_start of a bitmap. */
  readonly level: number
  readonly prefix: bigint
}

/** Part of one bitmap in which bit `firstBit + i` stands for the unit at `basePfn + (i << order)`. */
interface Window {
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

export class PreservedMap {
  readonly pages: readonly MapPage[]
  readonly pageSize: number
  readonly #memory: PhysicalMemory
  readonly #windows: ReadonlyMap<number, readonly Window[]>
  #summary: PreservedSummary | undefined

  constructor(memory: PhysicalMemory, target: Target, pages: MapPage[], windows: Map<number, Window[]>) {
    this.pages = pages
    this.pageSize = target.pageSize
    this.#memory = memory
    for (const list of windows.values()) list.sort((a, b) => a.basePfn - b.basePfn)
    this.#windows = windows
  }

  /** Orders that the map has room for, ascending; not each of them has units. */
  get orders(): readonly number[] {
    return [...this.#windows.keys()].sort((a, b) => a - b)
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
    let start = 0
    let end = -1
    const extent = (): Extent => ({ start: this.#bytes(start), end: this.#bytes(end) })
    for (const run of this.allRuns()) {
      const runEnd = run.pfn + run.count * 2 ** run.order
      if (run.pfn === end) {
        end = runEnd
        continue
      }
      if (end >= 0) yield extent()
      start = run.pfn
      end = runEnd
    }
    if (end >= 0) yield extent()
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
      let count = 0
      for (const run of this.runs(order)) count += run.count
      if (count === 0) continue
      byOrder.set(order, count)
      entries += count
      bytes += BigInt(count) * (BigInt(this.pageSize) << BigInt(order))
    }
    let extentCount = 0
    let firstExtent: Extent | undefined
    let lastExtent: Extent | undefined
    for (const extent of this.extents()) {
      firstExtent ??= extent
      lastExtent = extent
      extentCount += 1
    }
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
    for (let i = low - 1; i >= 0; i--) {
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

/** Runs of set bits as [first, length], counted from `firstBit`. */
function* bitRuns(bytes: Uint8Array, firstBit: number, bits: number): Generator<[number, number]> {
  const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const wordAt = (bit: number): number =>
    (bit >>> 3) + 4 <= bytes.length ? words.getUint32(bit >>> 3, true) : (bytes[bit >>> 3] as number)
  const end = firstBit + bits
  let start = -1
  let bit = firstBit
  while (bit < end) {
    if ((bit & 31) === 0 && bit + 32 <= end) {
      const word = wordAt(bit)
      if (word === 0 || word === 0xffff_ffff) {
        if (word === 0 && start >= 0) {
          yield [start - firstBit, bit - start]
          start = -1
        } else if (word !== 0 && start < 0) start = bit
        bit += 32
        continue
      }
    }
    const set = ((bytes[bit >>> 3] as number) >>> (bit & 7)) & 1
    if (set && start < 0) start = bit
    if (!set && start >= 0) {
      yield [start - firstBit, bit - start]
      start = -1
    }
    bit += 1
  }
  if (start >= 0) yield [start - firstBit, end - start]
}

/** Collects pages and windows while a map is walked, and refuses to visit a page twice. */
class MapBuilder {
  readonly pages: MapPage[] = []
  readonly windows = new Map<number, Window[]>()
  readonly #visited = new Map<bigint, MapPage>()

  /** Registers a page; false, with a fault, where it was reached before. */
  visit(page: MapPage, place: Place, pointer: PhysAddr, faults: FaultList): boolean {
    const before = this.#visited.get(page.pa)
    if (before) {
      const found = `${hex(page.pa)}, reached before as ${before.role} of level ${before.level}`
      faults.add(place, 'REACHED_TWICE', {
        pa: pointer,
        length: 8,
        message: 'page of the map reached twice',
        expected: 'each page of the map once',
        found,
      })
      return false
    }
    this.#visited.set(page.pa, page)
    this.pages.push(page)
    return true
  }

  add(order: number, window: Window): void {
    if (window.bits <= 0) return
    const list = this.windows.get(order) ?? []
    this.windows.set(order, list)
    list.push(window)
  }
}

export interface MapContext {
  readonly memory: PhysicalMemory
  readonly target: Target
  readonly faults: FaultList
}

/** Walks the map that `pointer` (stored at `pointer.pa`) leads to. Address 0 is an empty map. */
export function walkMap(
  context: MapContext,
  edge: ChunksEdge | RadixEdge,
  root: bigint,
  place: Place,
  pointerPa: PhysAddr,
): PreservedMap {
  const builder = new MapBuilder()
  if (root !== 0n) {
    if (edge.kind === 'chunks') walkChunks(context, builder, edge, phys(root), place, pointerPa)
    else new RadixWalk(context, builder, edge).walk(phys(root), place, pointerPa)
  }
  return new PreservedMap(context.memory, context.target, builder.pages, builder.windows)
}

function aligned(
  context: MapContext,
  target: bigint,
  boundary: number,
  place: Place,
  pointerPa: PhysAddr,
): boolean {
  if (target % BigInt(boundary) === 0n) return true
  context.faults.add(place, 'ADDRESS_MISALIGNED', {
    pa: pointerPa,
    length: 8,
    message: `address ${hex(target)} in the map of preserved memory is misaligned`,
    expected: `a multiple of ${boundary}`,
    found: hex(target),
  })
  return false
}

type Chunk = Infer<typeof khoserMemChunk>

function walkChunks(
  context: MapContext,
  builder: MapBuilder,
  edge: ChunksEdge,
  first: PhysAddr,
  start: Place,
  startPointer: PhysAddr,
): void {
  const { memory, target, faults } = context
  const shift = pageShift(target.pageSize)
  const entries = fieldOf(edge.chunk, 'bitmaps', target)
  const capacity = countOf(entries.type as ArrayType, target, entries.offset)
  const entrySize = entries.size / capacity
  const header = fieldOf(edge.chunk, 'hdr', target)
  let pa = first
  let place = start
  let pointerPa = startPointer
  while (pa !== 0n) {
    if (!aligned(context, pa, target.pageSize, place, pointerPa)) return
    const page: MapPage = { pa, length: target.pageSize, role: 'chunk', level: 1, prefix: 0n }
    if (!builder.visit(page, place, pointerPa, faults)) return
    const read = readBytes(memory, pa, target.pageSize)
    if ('unreadable' in read) return faults.addUnreadable(place, target.pageSize, read.unreadable)
    const chunk = decodeStruct(edge.chunk, read.bytes, target) as Chunk
    const { order, num_elms: count } = chunk.hdr
    const headerPa = phys(pa + BigInt(header.offset))
    if (order + shift >= 64) {
      faults.add(place, 'ORDER_RANGE', {
        pa: headerPa,
        length: header.size,
        message: `chunk at ${hex(pa)} has order ${order}`,
        expected: `below ${64 - shift}`,
        found: String(order),
      })
      return
    }
    if (count > capacity) {
      faults.add(place, 'COUNT_RANGE', {
        pa: headerPa,
        length: header.size,
        message: `chunk at ${hex(pa)} claims ${count} bitmaps`,
        expected: `at most ${capacity}`,
        found: String(count),
      })
      return
    }
    for (let i = 0; i < count; i++) {
      const at = phys(pa + BigInt(entries.offset + i * entrySize))
      addBitmap(context, builder, edge, chunk.bitmaps[i] as Chunk['bitmaps'][number], order, place, at)
    }
    pointerPa = headerPa
    place = behind(place, { path: [...place.path, 'next'], pa: pointerPa }, chunk.hdr.next)
    pa = phys(chunk.hdr.next)
  }
}

function addBitmap(
  context: MapContext,
  builder: MapBuilder,
  edge: ChunksEdge,
  entry: { phys_start: bigint; bitmap: bigint },
  order: number,
  place: Place,
  entryPa: PhysAddr,
): void {
  const { memory, target, faults } = context
  const { size } = layoutOf(edge.bitmap, target)
  const shift = pageShift(target.pageSize)
  const pointerPa = phys(entryPa + BigInt(fieldOf(khoserMemBitmapPtr, 'bitmap', target).offset))
  if (!aligned(context, entry.phys_start, target.pageSize, place, entryPa)) return
  if (!aligned(context, entry.bitmap, Math.min(size, 8), place, pointerPa)) return
  const page: MapPage = {
    pa: phys(entry.bitmap),
    length: size,
    role: 'bitmap',
    level: 0,
    prefix: entry.phys_start,
  }
  if (!builder.visit(page, place, pointerPa, faults)) return
  const inside = behind(place, { path: [...place.path, 'bitmap'], pa: pointerPa }, entry.bitmap)
  const read = readBytes(memory, page.pa, size)
  if ('unreadable' in read) return faults.addUnreadable(inside, size, read.unreadable)
  const basePfn = Number(entry.phys_start >> BigInt(shift))
  const room = Math.floor((MAX_PFN - basePfn) / 2 ** order)
  builder.add(order, { basePfn, bitmap: page.pa, length: size, firstBit: 0, bits: Math.min(size * 8, room) })
}

/** Depth-first walk over a radix tree; the shape bounds the recursion, the visited set the work. */
class RadixWalk {
  readonly #context: MapContext
  readonly #builder: MapBuilder
  readonly #edge: RadixEdge
  readonly #shape: RadixShape
  readonly #lostMarker: boolean

  constructor(context: MapContext, builder: MapBuilder, edge: RadixEdge) {
    this.#context = context
    this.#builder = builder
    this.#edge = edge
    this.#shape = radixShape(edge, context.target)
    const { leafLog2, tableLog2, depth, order0Log2 } = this.#shape
    this.#lostMarker = leafLog2 + (depth - 1) * tableLog2 <= order0Log2
  }

  walk(root: PhysAddr, place: Place, pointerPa: PhysAddr): void {
    this.#visit(root, this.#shape.depth - 1, 0n, place, pointerPa)
  }

  #visit(pa: PhysAddr, level: number, prefix: bigint, place: Place, pointerPa: PhysAddr): void {
    const { memory, target, faults } = this.#context
    const role = level === 0 ? 'leaf' : 'node'
    const length = layoutOf(level === 0 ? this.#edge.leaf : this.#edge.node, target).size
    if (!aligned(this.#context, pa, target.pageSize, place, pointerPa)) return
    const page: MapPage = { pa, length, role, level, prefix }
    if (!this.#builder.visit(page, place, pointerPa, faults)) return
    const read = readBytes(memory, pa, length)
    if ('unreadable' in read) return faults.addUnreadable(place, length, read.unreadable)
    if (level === 0) this.#leaf(pa, prefix, read.bytes, place)
    else this.#node(pa, level, prefix, read.bytes, place)
  }

  #node(pa: PhysAddr, level: number, prefix: bigint, bytes: Uint8Array, place: Place): void {
    const table = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let index = 0; index < bytes.length / 8; index++) {
      if (table.getUint32(index * 8, true) === 0 && table.getUint32(index * 8 + 4, true) === 0) continue
      const target = table.getBigUint64(index * 8, true)
      const pointerPa = phys(pa + BigInt(index * 8))
      const next = behind(place, { path: [...place.path, `level${level}`, { index }], pa: pointerPa }, target)
      const childPrefix = (prefix << BigInt(this.#shape.tableLog2)) | BigInt(index)
      this.#visit(phys(target), level - 1, childPrefix, next, pointerPa)
    }
  }

  /** Splits a leaf into windows of one order each: one, except where the marker bit lies inside the leaf. */
  #leaf(pa: PhysAddr, prefix: bigint, bytes: Uint8Array, place: Place): void {
    const { leafLog2, order0Log2 } = this.#shape
    const { pageSize } = this.#context.target
    const { length } = bytes
    const bits = 2 ** leafLog2
    const firstKey = prefix << BigInt(leafLog2)
    const topBit = firstKey === 0n ? leafLog2 : firstKey.toString(2).length - 1
    if (this.#lostMarker && topBit < LOST_MARKER_BELOW) {
      this.#builder.add(0, { basePfn: Number(firstKey), bitmap: pa, length, firstBit: 0, bits })
      return
    }
    if (firstKey !== 0n) {
      const first = decodeRadixKey(firstKey, pageSize)
      if (!first) return this.#badKey(pa, place, `key ${hex(firstKey)} has no place for an order`)
      const basePfn = Number(first.pa / BigInt(pageSize))
      this.#builder.add(first.order, { basePfn, bitmap: pa, length, firstBit: 0, bits })
      return
    }
    if ((bytes[0] as number) & 1) this.#badKey(pa, place, 'key 0 is set, which has no marker bit')
    for (let marker = 0; marker < leafLog2; marker++) {
      const order = order0Log2 - marker
      this.#builder.add(order, { basePfn: 0, bitmap: pa, length, firstBit: 2 ** marker, bits: 2 ** marker })
    }
  }

  #badKey(pa: PhysAddr, place: Place, found: string): void {
    const expected = `a key with its marker bit at ${this.#shape.order0Log2} or below`
    this.#context.faults.add(place, 'RADIX_KEY', {
      pa,
      length: 8,
      message: `leaf of the radix tree at ${hex(pa)} holds an impossible key`,
      expected,
      found,
    })
  }
}
