/**
 * kho-v1: bitmaps of preserved memory by order and window, and the chain of chunks that lists them once
 * finalize has been asked for.
 *
 * Source: kernel/kexec_handover.c: __kho_preserve_order(), kho_mem_serialize(), kho_mem_deserialize().
 */
import { khoserMemBitmapPtr, khoserMemChunk, khoserMemChunkHdr } from '../abi/kho-map.ts'
import type { Target } from '../abi/layout.ts'
import { countOf, fieldOf, layoutOf, pageShift } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { ArrayType, ChunksEdge, StructType } from '../abi/schema.ts'
import { writeStruct } from '../encode/write.ts'
import { decodeStruct } from '../inspect/record.ts'
import { type Answer, failed } from './answer.ts'
import { WildAccess } from './crash.ts'
import type { MissingPart, PreservedMap } from './preserved-map.ts'
import type { MachineRam } from './ram.ts'
import { forEachBit, type UnitVisitor, WalkBudget } from './units.ts'

export interface ChunkStore {
  readonly ram: MachineRam
  readonly target: Target
  readonly edge: ChunksEdge
}

/** Where the memory of bitmaps and chunks comes from: kmalloc() of less than a page, or whole pages. */
export interface MapMemory {
  /** `by` is the kernel's function that asks. */
  allocate(bytes: number, by: string): Answer<PhysAddr>
  free(pa: PhysAddr, bytes: number): void
}

export class ChunkMap implements PreservedMap {
  readonly #store: ChunkStore
  readonly #memory: MapMemory
  readonly #bitmapBytes: number
  /** Bitmaps by order and number of the window. */
  readonly #orders = new Map<number, Map<number, PhysAddr>>()
  #chunks: PhysAddr[] = []
  /** First chunk of the serialized map. */
  root: PhysAddr | undefined

  constructor(store: ChunkStore, memory: MapMemory) {
    this.#store = store
    this.#memory = memory
    this.#bitmapBytes = layoutOf(store.edge.bitmap, store.target).size
  }

  preserve(frame: number, order: number): Answer {
    const unit = Math.floor(frame / 2 ** order)
    const window = Math.floor(unit / (this.#bitmapBytes * 8))
    const windows = this.#orders.get(order) ?? new Map<number, PhysAddr>()
    this.#orders.set(order, windows)
    const bitmap = windows.get(window) ?? this.#memory.allocate(this.#bitmapBytes, 'xa_load_or_alloc')
    if (failed(bitmap)) return bitmap
    windows.set(window, bitmap)
    this.#setBit(bitmap, unit, true)
  }

  unpreserve(frame: number, order: number): MissingPart | undefined {
    const windows = this.#orders.get(order)
    if (!windows) return 'order'
    const unit = Math.floor(frame / 2 ** order)
    const bitmap = windows.get(Math.floor(unit / (this.#bitmapBytes * 8)))
    if (bitmap === undefined) return 'bitmap'
    this.#setBit(bitmap, unit, false)
  }

  /** kho_mem_serialize(): a new chain replaces the old one; on failure the old one stays. */
  serialize(): Answer<PhysAddr | undefined> {
    const chunks: PhysAddr[] = []
    for (const [order, windows] of byNumber(this.#orders)) {
      const bitmaps = byNumber(windows)
      for (let done = 0; done === 0 || done < bitmaps.length; done += this.#chunkCapacity()) {
        const chunk = this.#memory.allocate(this.#chunkBytes(), 'new_chunk')
        if (failed(chunk)) {
          this.#freeChunks(chunks)
          return chunk
        }
        chunks.push(chunk)
        this.#writeChunk(chunk, order, bitmaps.slice(done, done + this.#chunkCapacity()))
      }
    }
    this.#link(chunks)
    this.#freeChunks(this.#chunks)
    this.#chunks = chunks
    this.root = chunks[0]
    return this.root
  }

  /** kho_abort(): forgets what was preserved. */
  destroy(): void {
    for (const windows of this.#orders.values()) {
      for (const bitmap of windows.values()) this.#memory.free(bitmap, this.#bitmapBytes)
    }
    this.#orders.clear()
    this.#freeChunks(this.#chunks)
    this.#chunks = []
    this.root = undefined
  }

  *ownPages(): Generator<PhysAddr> {
    const size = BigInt(this.#store.target.pageSize)
    const seen = new Set<bigint>()
    const bitmaps = [...this.#orders.values()].flatMap((windows) => [...windows.values()])
    for (const pa of [...this.#chunks, ...bitmaps]) {
      const page = (pa / size) * size
      if (!seen.has(page)) yield phys(page)
      seen.add(page)
    }
  }

  #setBit(bitmap: PhysAddr, unit: number, value: boolean): void {
    const bit = unit % (this.#bitmapBytes * 8)
    const page = this.#store.ram.page(bitmap)
    const at = (Number(bitmap) % page.length) + Math.floor(bit / 8)
    const mask = 1 << (bit % 8)
    page[at] = value ? (page[at] as number) | mask : (page[at] as number) & ~mask
  }

  #chunkBytes(): number {
    return layoutOf(this.#store.edge.chunk, this.#store.target).size
  }

  #chunkCapacity(): number {
    return chunkCapacity(this.#store.edge.chunk, this.#store.target)
  }

  #writeChunk(chunk: PhysAddr, order: number, bitmaps: readonly (readonly [number, PhysAddr])[]): void {
    const { ram, target } = this.#store
    const step = BigInt(this.#bitmapBytes * 8) << BigInt(order + pageShift(target.pageSize))
    const value = {
      hdr: { next: 0n, order, num_elms: bitmaps.length },
      bitmaps: bitmaps.map(([window, bitmap]) => ({ phys_start: BigInt(window) * step, bitmap })),
    }
    writeStruct(ram.page(chunk), 0, khoserMemChunk, value, target)
  }

  #link(chunks: readonly PhysAddr[]): void {
    const { ram, target } = this.#store
    const at = fieldOf(khoserMemChunkHdr, 'next', target).offset
    chunks.slice(1).forEach((next, index) => {
      new DataView(ram.page(chunks[index] as PhysAddr).buffer).setBigUint64(at, next, true)
    })
  }

  #freeChunks(chunks: readonly PhysAddr[]): void {
    for (const chunk of chunks) this.#memory.free(chunk, this.#chunkBytes())
  }
}

/** kho_mem_deserialize() over what the old kernel left: counts and pointers are taken as they are. */
export function walkChunks({ ram, target, edge }: ChunkStore, first: PhysAddr, visit: UnitVisitor): void {
  const headerBytes = layoutOf(khoserMemChunkHdr, target).size
  const elementBytes = layoutOf(khoserMemBitmapPtr, target).size
  const bitmapBytes = layoutOf(edge.bitmap, target).size
  const shift = pageShift(target.pageSize)
  const bitmapAt = fieldOf(khoserMemBitmapPtr, 'bitmap', target).offset
  const numberAt = fieldOf(khoserMemChunkHdr, 'num_elms', target).offset
  const budget = new WalkBudget()
  for (let next: bigint = first; next !== 0n; ) {
    const chunk = ram.physToVirt(next)
    budget.page(chunk)
    const hdr = decodeStruct(khoserMemChunkHdr, ram.read(chunk, headerBytes, numberAt), target)
    const start = chunk + BigInt(headerBytes)
    for (let index = 0; index < hdr.num_elms; index++) {
      const at = phys(start + BigInt(index * elementBytes))
      const entry = decodeStruct(khoserMemBitmapPtr, ram.read(at, elementBytes, bitmapAt), target)
      // KHOSER_LOAD_PTR() of 0 is NULL, wherever RAM starts.
      if (entry.bitmap === 0n) throw new WildAccess('no bitmap', { to: 'null', offset: 0 })
      forEachBit(ram.read(ram.physToVirt(entry.bitmap), bitmapBytes), (bit) => {
        budget.unit()
        visit(frameOf(entry.phys_start, bit, hdr.order, shift), hdr.order)
      })
    }
    next = hdr.next
  }
}

/** `phys_start + (bit << (order + PAGE_SHIFT))` in 64 bits; the processor takes six bits of the shift. */
function frameOf(start: bigint, bit: number, order: number, shift: number): number {
  const offset = BigInt(bit) << BigInt((order + shift) & 63)
  return Number(BigInt.asUintN(64, start + offset) >> BigInt(shift))
}

function chunkCapacity(chunk: StructType, target: Target): number {
  const { type, offset } = fieldOf(chunk, 'bitmaps', target)
  return countOf(type as ArrayType, target, offset)
}

function byNumber<T>(map: ReadonlyMap<number, T>): (readonly [number, T])[] {
  return [...map].sort(([a], [b]) => a - b)
}
