/**
 * Walkers of linked and counted structures: arrays in one unit of pages, chains of KHO blocks, vmalloc
 * memory behind a descriptor. Each gives the places of its elements; none trusts a count or a pointer.
 *
 * Mirrors kho_block_set_restore() (kernel/liveupdate/kho_block.c), luo_session_deserialize(),
 * kho_restore_vmalloc() (kernel/liveupdate/kexec_handover.c).
 */

import type { khoBlockHeader } from '../abi/kho-block.ts'
import { blockCapacity } from '../abi/kho-block.ts'
import { vmallocChunkCapacity } from '../abi/kho-vmalloc.ts'
import { fieldOf, layoutOf, type Target } from '../abi/layout.ts'
import type { PhysAddr, PhysicalMemory } from '../abi/memory.ts'
import { hex, phys } from '../abi/memory.ts'
import type { ArrayEdge, BlocksEdge, Infer, IntType, StructType, VmallocEdge } from '../abi/schema.ts'
import type { FaultList, Place } from './faults.ts'
import { behind, within } from './faults.ts'
import { readBytes, readLeading } from './read.ts'
import { decodeStruct } from './record.ts'

/** A stored pointer: the path of its field and where it stands. */
export interface Pointer {
  readonly path: Place['path']
  readonly pa: PhysAddr
}

/** The one unit of pages that holds an array, and its header if it has one. */
export interface UnitStorage {
  readonly kind: 'unit'
  readonly pa: PhysAddr
  readonly length: number
  readonly order: number
  readonly header: StructType | undefined
  readonly count: bigint
}

/** The blocks of a chain, in order. */
export interface BlockStorage {
  readonly kind: 'blocks'
  readonly blocks: readonly { readonly pa: PhysAddr; readonly next: bigint; readonly count: bigint }[]
  readonly length: number
  readonly header: StructType
}

/** Where one element lies, and its bytes. */
export interface ElementBytes {
  readonly pa: PhysAddr
  readonly bytes: Uint8Array
}

export interface Elements<S> {
  readonly storage: S
  readonly elements: readonly ElementBytes[]
}

/** What walkers share: memory, target, faults, and the pages that were reached already. */
export interface WalkContext {
  readonly memory: PhysicalMemory
  readonly target: Target
  readonly faults: FaultList
  /** Paths of the structures by the address of their first page; no structure is reached twice. */
  readonly reached: Map<bigint, string>
}

/** Registers a structure's page; false, with a fault on the pointer, where it is misaligned or was reached before. */
function reach(context: WalkContext, pa: PhysAddr, what: string, place: Place, pointer: Pointer): boolean {
  if (pa % BigInt(context.target.pageSize) !== 0n) {
    context.faults.add(place, 'ADDRESS_MISALIGNED', {
      pa: pointer.pa,
      length: 8,
      message: `${what} at ${hex(pa)} does not start at a page`,
      expected: `a multiple of ${context.target.pageSize}`,
      found: hex(pa),
    })
    return false
  }
  const before = context.reached.get(pa)
  if (before !== undefined) {
    context.faults.add(place, 'REACHED_TWICE', {
      pa: pointer.pa,
      length: 8,
      message: `${what} at ${hex(pa)} was reached before`,
      expected: 'memory of its own',
      found: `${hex(pa)}, already ${before}`,
    })
    return false
  }
  context.reached.set(pa, what)
  return true
}

/**
 * Reads the elements of an array of one unit. A count beyond the unit's room is a fault; the elements
 * that fit are still read. Elements in pages that the image lacks end the array with a fault.
 */
export function walkArray(
  context: WalkContext,
  edge: ArrayEdge,
  pa: PhysAddr,
  countBeside: bigint,
  place: Place,
  pointer: Pointer,
): Elements<UnitStorage> | undefined {
  const { memory, target, faults } = context
  const inside = behind(place, pointer, pa)
  if (!reach(context, pa, `the array of ${edge.as}`, inside, pointer)) return undefined
  const length = target.pageSize << edge.order
  const elementSize = layoutOf(edge.element, target).size
  const headerSize = edge.header ? layoutOf(edge.header, target).size : 0
  let count = countBeside
  if (edge.header) {
    const read = readBytes(memory, pa, headerSize)
    if ('unreadable' in read) {
      faults.addUnreadable(inside, headerSize, read.unreadable)
      return undefined
    }
    count = (decodeStruct(edge.header, read.bytes, target) as Record<string, bigint>)[edge.count] as bigint
  }
  const capacity = Math.floor((length - headerSize) / elementSize)
  if (count > BigInt(capacity)) {
    faults.add(inside, 'COUNT_RANGE', {
      pa: edge.header ? phys(pa + BigInt(fieldOf(edge.header, edge.count, target).offset)) : pointer.pa,
      length: 8,
      message: `the array of ${edge.as} claims ${count} elements`,
      expected: `at most ${capacity}`,
      found: String(count),
    })
  }
  const wanted = count > BigInt(capacity) ? capacity : Number(count)
  const elements = elementsIn(context, phys(pa + BigInt(headerSize)), wanted, elementSize, inside)
  return { storage: { kind: 'unit', pa, length, order: edge.order, header: edge.header, count }, elements }
}

/** Elements side by side; ends with a fault at the first that the image does not hold whole. */
function elementsIn(
  context: WalkContext,
  pa: PhysAddr,
  count: number,
  size: number,
  place: Place,
): readonly ElementBytes[] {
  const bytes = readLeading(context.memory, pa, count * size)
  const whole = Math.floor(bytes.length / size)
  if (whole < count) {
    const missing = readBytes(context.memory, phys(pa + BigInt(whole * size)), size)
    const at = within(place, { index: whole })
    if ('unreadable' in missing) context.faults.addUnreadable(at, (count - whole) * size, missing.unreadable)
  }
  return Array.from({ length: Math.min(whole, count) }, (_, index) => ({
    pa: phys(pa + BigInt(index * size)),
    bytes: bytes.subarray(index * size, (index + 1) * size),
  }))
}

/**
 * Walks a chain of KHO blocks from the first block's address; 0 is an empty set. A block outside the
 * image, a count of zero or above the block's room, or a block reached before ends the walk with a
 * fault, where the kernel would refuse the whole set.
 */
export function walkBlocks(
  context: WalkContext,
  edge: BlocksEdge,
  first: PhysAddr,
  place: Place,
  pointer: Pointer,
): Elements<BlockStorage> {
  const { memory, target, faults } = context
  const headerSize = layoutOf(edge.header, target).size
  const elementSize = layoutOf(edge.element, target).size
  const capacity = blockCapacity(edge, target)
  const blocks: { pa: PhysAddr; next: bigint; count: bigint }[] = []
  const elements: ElementBytes[] = []
  const result = {
    storage: { kind: 'blocks' as const, blocks, length: target.pageSize, header: edge.header },
    elements,
  }
  let inside = place
  let from = pointer
  for (let pa = first; pa !== 0n; ) {
    inside = behind(inside, from, pa)
    if (blocks.length >= edge.maxBlocks) {
      faults.add(inside, 'CHAIN_LIMIT', {
        pa: from.pa,
        length: 8,
        message: `the chain of ${edge.as} is longer than the kernel takes`,
        expected: `at most ${edge.maxBlocks} blocks`,
        found: `a further block at ${hex(pa)}`,
      })
      return result
    }
    if (
      blocks.some((block) => block.pa === pa) ||
      !reach(context, pa, `block ${blocks.length} of ${edge.as}`, inside, from)
    ) {
      return result
    }
    const read = readBytes(memory, pa, headerSize)
    if ('unreadable' in read) {
      faults.addUnreadable(inside, target.pageSize, read.unreadable)
      return result
    }
    const header = decodeStruct(edge.header, read.bytes, target) as Infer<typeof khoBlockHeader>
    blocks.push({ pa, ...header })
    if (header.count === 0n || header.count > BigInt(capacity)) {
      const zero = header.count === 0n
      faults.add(inside, zero ? 'COUNT_ZERO' : 'COUNT_RANGE', {
        pa: phys(pa + BigInt(fieldOf(edge.header, 'count', target).offset)),
        length: 8,
        message: `block ${blocks.length - 1} of ${edge.as} at ${hex(pa)} has count ${header.count}`,
        expected: `1 to ${capacity}`,
        found: String(header.count),
      })
      if (!zero) return result
    }
    elements.push(
      ...elementsIn(context, phys(pa + BigInt(headerSize)), Number(header.count), elementSize, inside),
    )
    from = {
      path: [...place.path, { index: blocks.length - 1 }, 'next'],
      pa: phys(pa + BigInt(fieldOf(edge.header, 'next', target).offset)),
    }
    pa = phys(header.next)
  }
  return result
}

/** The descriptor as stored. */
export interface VmallocDescriptor {
  readonly first: bigint
  readonly total_pages: number
  readonly flags: number
  readonly order: number
}

/** A decoded element: numbers by field name. */
export type ElementValue = Readonly<Record<string, number | bigint>>

/** vmalloc memory that was followed: chunk pages, groups of pages, and a reader of its elements. */
export class VmallocArray {
  readonly descriptor: VmallocDescriptor
  readonly element: StructType | IntType
  /** What one element is called. */
  readonly item: string
  readonly target: Target
  /** Struct of the chunk pages. */
  readonly chunk: StructType
  readonly chunks: readonly PhysAddr[]
  /** Address of each group of 2^order pages. */
  readonly groups: BigUint64Array
  /** Elements that the record beside the descriptor counts. */
  readonly count: number
  readonly elementSize: number
  readonly #memory: PhysicalMemory
  /** Bytes of one group. */
  readonly groupBytes: number

  constructor(
    memory: PhysicalMemory,
    target: Target,
    link: { edge: VmallocEdge; descriptor: VmallocDescriptor; count: number },
    chunks: readonly PhysAddr[],
    groups: BigUint64Array,
  ) {
    this.#memory = memory
    this.descriptor = link.descriptor
    this.element = link.edge.element
    this.item = link.edge.item
    this.target = target
    this.chunk = link.edge.chunk
    this.count = link.count
    this.chunks = chunks
    this.groups = groups
    this.elementSize = this.element.kind === 'int' ? this.element.bytes : layoutOf(this.element, target).size
    this.groupBytes = target.pageSize * 2 ** link.descriptor.order
  }

  /** Elements for which there is memory; at most `count`. */
  get available(): number {
    return Math.min(this.count, Math.floor((this.groups.length * this.groupBytes) / this.elementSize))
  }

  /** Where element `index` starts; elements do not cross a page's end, as their size divides it. */
  addressOf(index: number): PhysAddr {
    const offset = index * this.elementSize
    const group = this.groups[Math.floor(offset / this.groupBytes)] as bigint
    return phys(group + BigInt(offset % this.groupBytes))
  }

  /** One element, decoded; undefined where the image does not hold it. */
  valueAt(index: number): ElementValue | undefined {
    const read = readBytes(this.#memory, this.addressOf(index), this.elementSize)
    return 'bytes' in read ? this.decode(read.bytes) : undefined
  }

  /** Decodes one element's bytes: the fields of a struct, or `value` for a bare word. */
  decode(bytes: Uint8Array): ElementValue {
    if (this.element.kind === 'struct') return decodeStruct(this.element, bytes, this.target) as ElementValue
    return {
      value: new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, this.element.order === 'le'),
    }
  }

  /** Every element that the image holds, in order; for output, not for bulk work. */
  *values(): Generator<ElementValue> {
    for (const { count, bytes } of this.pieces()) {
      for (let i = 0; i < count; i++)
        yield this.decode(bytes.subarray(i * this.elementSize, (i + 1) * this.elementSize))
    }
  }

  /**
   * Streams the elements in pieces of one buffer that is reused: `bytes` holds `count` elements from
   * `index` on. Groups that the image lacks are left out; the index tells.
   */
  *pieces(): Generator<{ readonly index: number; readonly count: number; readonly bytes: Uint8Array }> {
    const perGroup = this.groupBytes / this.elementSize
    const buffer = new Uint8Array(Math.min(this.groupBytes, 1 << 20))
    for (let group = 0; group < this.groups.length; group++) {
      for (let offset = 0; offset < this.groupBytes; offset += buffer.length) {
        const index = group * perGroup + offset / this.elementSize
        const count = Math.min(buffer.length / this.elementSize, this.count - index)
        if (count <= 0) return
        const wanted = buffer.subarray(0, count * this.elementSize)
        const present = this.#memory.read(phys((this.groups[group] as bigint) + BigInt(offset)), wanted)
        if (present >= wanted.length) yield { index, count, bytes: wanted }
      }
    }
  }
}

/**
 * Follows a kho_vmalloc descriptor: chunk by chunk, each address one group of 2^order pages. A zero
 * slot ends only its chunk, as for the kernel. Stops with a fault at a chunk that is missing, reached
 * before, or beyond what `total_pages` needs, and at a total that does not come out even.
 */
export function walkVmalloc(
  context: WalkContext,
  edge: VmallocEdge,
  descriptor: VmallocDescriptor,
  count: bigint,
  place: Place,
  pointer: Pointer,
): VmallocArray | undefined {
  const { memory, target, faults } = context
  const fault = (
    code: 'ORDER_RANGE' | 'VMALLOC_PAGES' | 'COUNT_MISMATCH',
    message: string,
    expected: string,
    found: string,
  ): void => faults.add(place, code, { pa: pointer.pa, length: 16, message, expected, found })
  if (descriptor.order >= 32) {
    fault('ORDER_RANGE', 'vmalloc groups of an impossible order', 'below 32', String(descriptor.order))
    return undefined
  }
  const groups = Math.floor(descriptor.total_pages / 2 ** descriptor.order)
  const list = collectGroups(context, edge, phys(descriptor.first), groups, place, pointer)
  if (list.complete && (list.found !== groups || descriptor.total_pages % 2 ** descriptor.order !== 0)) {
    const found = `${list.found} groups of order ${descriptor.order} in ${list.chunks.length} chunks`
    const expected = `total_pages ${descriptor.total_pages} in groups of order ${descriptor.order}`
    fault('VMALLOC_PAGES', 'the chunks do not hold what total_pages says', expected, found)
  }
  const shown = count > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(count)
  const link = { edge, descriptor, count: shown }
  const array = new VmallocArray(memory, target, link, list.chunks, list.groups)
  if (list.complete && array.available < shown) {
    const expected = `room for ${edge.count} ${count}`
    fault(
      'COUNT_MISMATCH',
      `more elements than the memory behind the descriptor holds`,
      expected,
      `room for ${array.available}`,
    )
  }
  return array
}

function collectGroups(
  context: WalkContext,
  edge: VmallocEdge,
  first: PhysAddr,
  wanted: number,
  place: Place,
  pointer: Pointer,
): { chunks: PhysAddr[]; groups: BigUint64Array; found: number; complete: boolean } {
  const { memory, target, faults } = context
  const slots = fieldOf(edge.chunk, 'phys', target)
  const capacity = vmallocChunkCapacity(edge.chunk, target)
  const maxChunks = Math.floor(wanted / capacity) + 1
  const chunks: PhysAddr[] = []
  let groups = new BigUint64Array(Math.min(wanted, capacity))
  let found = 0
  let complete = true
  let inside = place
  let from = pointer
  for (let pa = first; pa !== 0n; ) {
    inside = behind(inside, from, pa)
    if (chunks.length >= maxChunks) {
      const expected = `${maxChunks} chunks for ${wanted} groups`
      const message = 'the chain of vmalloc chunks is longer than total_pages needs'
      faults.add(inside, 'CHAIN_LIMIT', {
        pa: from.pa,
        length: 8,
        message,
        expected,
        found: `a further chunk at ${hex(pa)}`,
      })
      break
    }
    if (!reach(context, pa, `chunk ${chunks.length} of a vmalloc area`, inside, from)) {
      complete = false
      break
    }
    const read = readBytes(memory, pa, target.pageSize)
    if ('unreadable' in read) {
      faults.addUnreadable(inside, target.pageSize, read.unreadable)
      complete = false
      break
    }
    chunks.push(pa)
    const view = new DataView(read.bytes.buffer)
    for (let slot = 0; slot < capacity; slot++) {
      const group = view.getBigUint64(slots.offset + slot * 8, true)
      if (group === 0n) break
      if (found < wanted) {
        if (found === groups.length) groups = grown(groups, wanted)
        groups[found] = group
      }
      found += 1
    }
    from = { path: [...place.path, 'chunks', { index: chunks.length - 1 }, 'next'], pa }
    pa = phys(view.getBigUint64(0, true))
  }
  return { chunks, groups: groups.subarray(0, Math.min(found, wanted)), found, complete }
}

/** Doubles a column up to the size wanted; it never grows faster than what was read from the image. */
function grown(column: BigUint64Array, wanted: number): BigUint64Array<ArrayBuffer> {
  const larger = new BigUint64Array(Math.min(wanted, column.length * 2))
  larger.set(column)
  return larger
}
