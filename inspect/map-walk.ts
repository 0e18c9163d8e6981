/**
 * Walkers over both forms of the map of preserved memory. No pointer, order or count is trusted; no
 * page is visited twice.
 *
 * Mirrors kho_mem_deserialize() (kho-v1) and kho_radix_walk_tree() (kho-v2 and later).
 */
import {
  decodeRadixKey,
  khoserMemBitmapPtr,
  type khoserMemChunk,
  losesOrder0Marker,
  type RadixShape,
  radixShape,
} from '../abi/kho-map.ts'
import { countOf, fieldOf, layoutOf, pageShift, type Target } from '../abi/layout.ts'
import { hex, type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import type { ArrayType, ChunksEdge, Infer, RadixEdge } from '../abi/schema.ts'
import { MAX_MAP_RUNS, MAX_MAP_STEPS, MAX_TRUSTED_RUNS, MAX_TRUSTED_STEPS } from './budget.ts'
import { behind, type FaultList, type Place } from './faults.ts'
import { type MapPage, PreservedMap, type Window } from './map.ts'
import { readBytes } from './read.ts'
import { decodeStruct } from './record.ts'

/** Collects pages and windows while a map is walked; refuses to visit a page twice, or more than are sane. */
class MapBuilder {
  readonly #context: MapContext
  readonly pages: MapPage[] = []
  readonly windows = new Map<number, Window[]>()
  /** Pages that pointers lead to but the image does not hold. */
  readonly missing: MapPage[] = []
  /** Whether the walk has cost all that it may. */
  isSpent = false
  readonly #visited = new Map<bigint, MapPage>()
  #steps = 0
  #runs = 0

  constructor(context: MapContext) {
    this.#context = context
  }

  /** Registers a page; false, with a fault, where it is misaligned or was reached before. */
  visit(page: MapPage, boundary: number, place: Place, pointer: PhysAddr): boolean {
    const { isTrusting } = this.#context
    const limit = isTrusting ? MAX_TRUSTED_STEPS : MAX_MAP_STEPS
    this.#steps += 1
    if (this.#steps > limit) this.#spend(place, pointer, `${limit} pages`)
    if (this.isSpent || !this.aligned(page.pa, boundary, place, pointer)) return false
    if (isTrusting) return true
    const before = this.#visited.get(page.pa)
    if (!before) {
      this.#visited.set(page.pa, page)
      return true
    }
    const cycle = page.role === 'chunk' && before.role === 'chunk'
    this.#context.faults.add(place, cycle ? 'CHAIN_CYCLE' : 'REACHED_TWICE', {
      pa: pointer,
      length: 8,
      message: cycle ? 'the chain of chunks of the map leads back' : 'page of the map reached twice',
      expected: 'each page of the map once',
      found: `${hex(page.pa)}, reached before as ${before.role} of level ${before.level}`,
    })
    return false
  }

  /** Whether an address can be followed; a fault where it is misaligned. */
  aligned(target: bigint, boundary: number, place: Place, pointer: PhysAddr): boolean {
    if (target % BigInt(boundary) === 0n || this.#context.isTrusting) return true
    this.#context.faults.add(place, 'ADDRESS_MISALIGNED', {
      pa: pointer,
      length: 8,
      message: `address ${hex(target)} in the map of preserved memory is misaligned`,
      expected: `a multiple of ${boundary}`,
      found: hex(target),
    })
    return false
  }

  /** Reads a page that was registered; undefined, with a fault, where the image lacks it. */
  read(page: MapPage, place: Place): Uint8Array | undefined {
    const read = readBytes(this.#context.memory, page.pa, page.length)
    if ('unreadable' in read) {
      this.#context.faults.addUnreadable(place, page.length, read.unreadable)
      this.missing.push(page)
      return undefined
    }
    if (page.role === 'bitmap' || page.role === 'leaf') {
      this.#runs += countRuns(read.bytes)
      const limit = this.#context.isTrusting ? MAX_TRUSTED_RUNS : MAX_MAP_RUNS
      if (this.#runs > limit) this.#spend(place, page.pa, `${limit} runs of units`)
      if (this.isSpent) return undefined
    }
    this.pages.push(page)
    return read.bytes
  }

  add(order: number, window: Window): void {
    if (window.bits <= 0) return
    const list = this.windows.get(order) ?? []
    this.windows.set(order, list)
    list.push(window)
  }

  #spend(place: Place, pa: PhysAddr, expected: string): void {
    if (this.isSpent) return
    this.isSpent = true
    this.#context.faults.add(place, 'CHAIN_LIMIT', {
      pa,
      length: 8,
      message: 'the map of preserved memory is larger than is walked',
      expected: `at most ${expected}`,
      found: 'more',
    })
  }
}

/** Runs of set bits in a bitmap. */
function countRuns(bytes: Uint8Array): number {
  const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let runs = 0
  let carry = 0
  for (let at = 0; at < bytes.length; at += 4) {
    const word = words.getUint32(at, true)
    for (let starts = word & ~((word << 1) | carry); starts !== 0; starts &= starts - 1) runs += 1
    carry = word >>> 31
  }
  return runs
}

export interface MapContext {
  readonly memory: PhysicalMemory
  readonly target: Target
  readonly faults: FaultList
  /** Whether pages are followed that are misaligned, or were reached before, as the kernel does. */
  readonly isTrusting?: boolean
}

/** Walks the map that `pointer` (stored at `pointer.pa`) leads to. Address 0 is an empty map. */
export function walkMap(
  context: MapContext,
  edge: ChunksEdge | RadixEdge,
  root: bigint,
  place: Place,
  pointerPa: PhysAddr,
): PreservedMap {
  const builder = new MapBuilder(context)
  if (root !== 0n) {
    if (edge.kind === 'chunks') walkChunks(context, builder, edge, phys(root), place, pointerPa)
    else new RadixWalk(context, builder, edge).walk(phys(root), place, pointerPa)
  }
  return new PreservedMap(context.memory, context.target, edge, builder)
}

/** Bitmaps of 512 bytes come from kmalloc(). */
const BITMAP_ALIGN = 8

type Chunk = Infer<typeof khoserMemChunk>

function walkChunks(
  context: MapContext,
  builder: MapBuilder,
  edge: ChunksEdge,
  first: PhysAddr,
  start: Place,
  startPointer: PhysAddr,
): void {
  const { target, faults } = context
  const shift = pageShift(target.pageSize)
  const entries = fieldOf(edge.chunk, 'bitmaps', target)
  const capacity = countOf(entries.type as ArrayType, target, entries.offset)
  const entrySize = entries.size / capacity
  const header = fieldOf(edge.chunk, 'hdr', target)
  const nextPath = [...start.path, 'next']
  let pa = first
  let place = start
  let pointerPa = startPointer
  while (pa !== 0n) {
    const page: MapPage = { pa, length: target.pageSize, role: 'chunk', level: 1, prefix: 0n }
    if (!builder.visit(page, target.pageSize, place, pointerPa)) return
    const bytes = builder.read(page, place)
    if (!bytes) return
    const chunk = decodeStruct(edge.chunk, bytes, target) as Chunk
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
    place = behind(start, { path: nextPath, pa: pointerPa }, chunk.hdr.next)
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
  const { target } = context
  const { size } = layoutOf(edge.bitmap, target)
  const shift = pageShift(target.pageSize)
  const pointerPa = phys(entryPa + BigInt(fieldOf(khoserMemBitmapPtr, 'bitmap', target).offset))
  if (!builder.aligned(entry.phys_start, target.pageSize, place, entryPa)) return
  if (entry.bitmap === 0n) {
    const message = 'entry of the map without a bitmap'
    const details = { pa: pointerPa, length: 8, message, expected: 'an address', found: '0x0' }
    context.faults.add(place, 'ADDRESS_NULL', details)
    return
  }
  const page: MapPage = {
    pa: phys(entry.bitmap),
    length: size,
    role: 'bitmap',
    level: order,
    prefix: entry.phys_start,
  }
  if (!builder.visit(page, BITMAP_ALIGN, place, pointerPa)) return
  const inside = behind(place, { path: [...place.path, 'bitmap'], pa: pointerPa }, entry.bitmap)
  if (!builder.read(page, inside)) return
  const basePfn = Number(entry.phys_start >> BigInt(shift))
  const room = Math.floor((2 ** (64 - shift) - basePfn) / 2 ** order)
  builder.add(order, { basePfn, bitmap: page.pa, length: size, firstBit: 0, bits: Math.min(size * 8, room) })
}

/** Depth-first walk over a radix tree; the shape bounds the recursion, the visited set the work. */
class RadixWalk {
  readonly #context: MapContext
  readonly #builder: MapBuilder
  readonly #edge: RadixEdge
  readonly #shape: RadixShape

  constructor(context: MapContext, builder: MapBuilder, edge: RadixEdge) {
    this.#context = context
    this.#builder = builder
    this.#edge = edge
    this.#shape = radixShape(edge, context.target)
  }

  walk(root: PhysAddr, place: Place, pointerPa: PhysAddr): void {
    this.#visit(root, this.#shape.depth - 1, 0n, place, pointerPa)
  }

  #visit(pa: PhysAddr, level: number, prefix: bigint, place: Place, pointerPa: PhysAddr): void {
    const { target } = this.#context
    const role = level === 0 ? 'leaf' : 'node'
    const length = layoutOf(level === 0 ? this.#edge.leaf : this.#edge.node, target).size
    const page: MapPage = { pa, length, role, level, prefix }
    if (!this.#builder.visit(page, target.pageSize, place, pointerPa)) return
    const bytes = this.#builder.read(page, place)
    if (!bytes) return
    if (level === 0) this.#leaf(pa, prefix, bytes, place)
    else this.#node(pa, level, prefix, bytes, place)
  }

  #node(pa: PhysAddr, level: number, prefix: bigint, bytes: Uint8Array, place: Place): void {
    const table = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let index = 0; index < bytes.length / 8 && !this.#builder.isSpent; index++) {
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
    const window = { bitmap: pa, length: bytes.length }
    const bits = 2 ** leafLog2
    const firstKey = prefix << BigInt(leafLog2)
    if (firstKey !== 0n || losesOrder0Marker(this.#shape)) {
      const first = decodeRadixKey(firstKey, this.#shape, pageSize)
      if (!first) {
        this.#badKey(pa, place, `key ${hex(firstKey)} has no place for an order`)
        return
      }
      const basePfn = Number(first.pa / BigInt(pageSize))
      this.#builder.add(first.order, { ...window, basePfn, firstBit: 0, bits })
      return
    }
    if ((bytes[0] as number) & 1) this.#badKey(pa, place, 'key 0 is set, which has no marker bit')
    if ((bytes[0] as number) & 2)
      this.#badKey(pa, place, 'key 1 is set, which would be all memory there can be')
    for (let marker = 1; marker < leafLog2; marker++) {
      const order = order0Log2 - marker
      this.#builder.add(order, { ...window, basePfn: 0, firstBit: 2 ** marker, bits: 2 ** marker })
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
