/**
 * vmalloc memory behind a kho_vmalloc descriptor: the chain of its chunk pages, the groups of pages that
 * they list, and a reader of the elements in them. Elements never become objects in bulk.
 *
 * Mirrors kho_restore_vmalloc() (kernel/liveupdate/kexec_handover.c).
 */

import type { FaultCode } from '../abi/fault.ts'
import { khoVmalloc, vmallocChunkCapacity } from '../abi/kho-vmalloc.ts'
import { fieldOf, layoutOf, type Target } from '../abi/layout.ts'
import type { PhysAddr, PhysicalMemory } from '../abi/memory.ts'
import { hex, phys } from '../abi/memory.ts'
import type { IntType, StructType, VmallocEdge } from '../abi/schema.ts'
import { MAX_ELEMENTS } from './budget.ts'
import { Chain, type Pointer, type WalkContext } from './chain.ts'
import { exactColumnOf } from './columns.ts'
import type { Place } from './faults.ts'
import { readBytes } from './read.ts'
import { decodeStruct } from './record.ts'

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
  /** The chain of chunks was followed to its end. */
  readonly complete: boolean
  readonly elementSize: number
  readonly #memory: PhysicalMemory
  /** Bytes of one group. */
  readonly groupBytes: number

  constructor(
    memory: PhysicalMemory,
    target: Target,
    link: { edge: VmallocEdge; descriptor: VmallocDescriptor; count: number; complete: boolean },
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
    this.complete = link.complete
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

  /** Every element that the image holds, in order. */
  *values(): Generator<ElementValue> {
    const { element } = this
    const fields = element.kind === 'struct' ? Object.keys(element.fields) : []
    const words =
      element.kind === 'struct' ? fields.map((field) => exactColumnOf(element, field, this.target)) : []
    for (const { count, bytes } of this.pieces()) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      for (let at = 0; at < count * this.elementSize; at += this.elementSize) {
        if (words.length === 0) yield this.decode(bytes.subarray(at, at + this.elementSize))
        else {
          const value: Record<string, number | bigint> = {}
          for (const [i, word] of words.entries()) value[fields[i] as string] = word(view, at)
          yield value
        }
      }
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
 * before, or beyond what `total_pages` needs, at a group that cannot be one, and at a total that does not
 * come out even. Groups that the image lacks are kept, with one fault for all of them.
 */
export function walkVmalloc(
  context: WalkContext,
  edge: VmallocEdge,
  descriptor: VmallocDescriptor,
  count: bigint,
  place: Place,
  pointer: Pointer,
): VmallocArray | undefined {
  const fault = (code: FaultCode, message: string, expected: string, found: string): void =>
    context.faults.add(place, code, { pa: pointer.pa, length: DESCRIPTOR_SIZE, message, expected, found })
  const { order, total_pages: totalPages, first } = descriptor
  if (order > MAX_ORDER) {
    fault('ORDER_RANGE', 'vmalloc groups of an impossible order', `at most ${MAX_ORDER}`, String(order))
    return undefined
  }
  const wanted = Math.floor(totalPages / 2 ** order)
  const list = new GroupCollector(context, edge, order, wanted, place, pointer)
  const complete = list.walk(phys(first))
  if (complete && (list.found !== wanted || totalPages % 2 ** order !== 0)) {
    const found = `${list.found} groups of order ${order} in ${list.chunks.length} chunks`
    const expected = `total_pages ${totalPages} in groups of order ${order}`
    fault('VMALLOC_PAGES', 'the chunks do not hold what total_pages says', expected, found)
  }
  const shown = count > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(count)
  const link = { edge, descriptor, count: shown, complete }
  const arrayOf = (groups: BigUint64Array): VmallocArray =>
    new VmallocArray(context.memory, context.target, link, list.chunks, groups)
  const array = arrayOf(list.groups)
  const repeated = firstReached(context, array)
  if (repeated) {
    const found = `${hex(repeated.group)}, already ${repeated.before}`
    const message = `group ${repeated.index} of a vmalloc area was reached before`
    fault('REACHED_TWICE', message, 'memory of its own', found)
    return arrayOf(array.groups.subarray(0, repeated.index))
  }
  if (complete && array.available < shown) {
    const message = 'more elements than the memory behind the descriptor holds'
    fault('COUNT_MISMATCH', message, `room for ${edge.count} ${count}`, `room for ${array.available}`)
  }
  if (context.budget.takeElements(array.available) < array.available) {
    const expected = `at most ${MAX_ELEMENTS} elements in all vmalloc areas`
    fault('CHAIN_LIMIT', 'more elements than are looked at', expected, `${array.available} more`)
    return arrayOf(array.groups.subarray(0, 0))
  }
  reportMissing(context, array, place)
  return array
}

/** Largest order for which the kernel's shift of a 32-bit 1 is defined. */
const MAX_ORDER = 31
const DESCRIPTOR_SIZE = layoutOf(khoVmalloc, { pageSize: 4096 }).size
const ADDRESS_SPACE = 1n << 64n

/** Goes along the chunks and collects the addresses of the groups in one column. */
class GroupCollector {
  readonly #context: WalkContext
  readonly #edge: VmallocEdge
  readonly #groupBytes: number
  readonly #wanted: number
  readonly #place: Place
  readonly #chain: Chain
  #groups: BigUint64Array
  readonly chunks: PhysAddr[] = []
  /** Groups that the chunks list; more than are wanted are only counted. */
  found = 0

  constructor(
    context: WalkContext,
    edge: VmallocEdge,
    order: number,
    wanted: number,
    place: Place,
    pointer: Pointer,
  ) {
    const capacity = vmallocChunkCapacity(edge.chunk, context.target)
    const maxPages = Math.floor(wanted / capacity) + 1
    const shape = { page: 'chunk', of: 'a vmalloc area', maxPages, why: `its ${wanted} groups need` }
    this.#context = context
    this.#edge = edge
    this.#groupBytes = context.target.pageSize * 2 ** order
    this.#wanted = wanted
    this.#place = place
    this.#chain = new Chain(context, shape, place, pointer)
    this.#groups = new BigUint64Array(Math.min(wanted, capacity))
  }

  get groups(): BigUint64Array {
    return this.#groups.subarray(0, Math.min(this.found, this.#wanted))
  }

  /** Whether nothing stopped the walk before the end of the chain. */
  walk(first: PhysAddr): boolean {
    const { memory, target, faults } = this.#context
    const next = fieldOf(this.#edge.chunk, 'hdr', target).offset
    for (let pa = first; pa !== 0n; ) {
      if (!this.#chain.enter(pa)) return false
      const read = readBytes(memory, pa, target.pageSize)
      if ('unreadable' in read) {
        faults.addUnreadable(this.#chain.place, target.pageSize, read.unreadable)
        return false
      }
      this.chunks.push(pa)
      const view = new DataView(read.bytes.buffer)
      if (!this.#collect(pa, view)) return false
      const path = [...this.#place.path, 'chunks', { index: this.chunks.length - 1 }, 'next']
      this.#chain.leave({ path, pa: phys(pa + BigInt(next)) })
      pa = phys(view.getBigUint64(next, true))
    }
    return true
  }

  /** The groups of one chunk; false, with a fault, at an address where no group can be. */
  #collect(chunk: PhysAddr, view: DataView): boolean {
    const { target, faults } = this.#context
    const slots = fieldOf(this.#edge.chunk, 'phys', target)
    for (let at = slots.offset; at < slots.offset + slots.size; at += 8) {
      const group = view.getBigUint64(at, true)
      if (group === 0n) return true
      const misaligned = group % BigInt(target.pageSize) !== 0n
      if (misaligned || group + BigInt(this.#groupBytes) > ADDRESS_SPACE) {
        faults.add(this.#chain.place, misaligned ? 'ADDRESS_MISALIGNED' : 'ADDRESS_OVERFLOW', {
          pa: phys(chunk + BigInt(at)),
          length: 8,
          message: `group ${this.found} of a vmalloc area cannot be at ${hex(group)}`,
          expected: `${this.#groupBytes} bytes at a multiple of ${target.pageSize}`,
          found: hex(group),
        })
        return false
      }
      this.#keep(group)
    }
    return true
  }

  /** The column doubles up to the size wanted; it never grows faster than what was read from the image. */
  #keep(group: bigint): void {
    if (this.found < this.#wanted) {
      if (this.found === this.#groups.length) {
        const larger = new BigUint64Array(Math.min(this.#wanted, this.#groups.length * 2))
        larger.set(this.#groups)
        this.#groups = larger
      }
      this.#groups[this.found] = group
    }
    this.found += 1
  }
}

/** Registers the groups; the first whose address was reached before ends that, and is returned. */
function firstReached(
  { reached }: WalkContext,
  { groups }: VmallocArray,
): { readonly index: number; readonly group: bigint; readonly before: string } | undefined {
  for (const [index, group] of groups.entries()) {
    const before = reached.get(group)
    if (before !== undefined) return { index, group, before }
    reached.set(group, 'a group of a vmalloc area')
  }
  return undefined
}

/** One fault for all groups whose elements the image does not hold. */
function reportMissing({ memory, faults }: WalkContext, array: VmallocArray, place: Place): void {
  const { groups, groupBytes } = array
  const used = array.available * array.elementSize
  let first: bigint | undefined
  let count = 0
  for (let i = 0; i * groupBytes < used; i++) {
    const missing = firstMissing(memory, groups[i] as bigint, Math.min(groupBytes, used - i * groupBytes))
    if (missing === undefined) continue
    first ??= missing
    count += 1
  }
  if (first === undefined) return
  const read = readBytes(memory, phys(first), 1)
  if (!('unreadable' in read)) return
  const expected = `${groups.length} groups of pages of the ${array.item} array`
  const found = `${count} of them missing; ${read.unreadable.found}`
  faults.addUnreadable(place, count * groupBytes, { ...read.unreadable, expected, found })
}

/** The first byte of a range that is not present. */
function firstMissing(memory: PhysicalMemory, start: bigint, length: number): bigint | undefined {
  for (let at = start; at < start + BigInt(length); ) {
    const { state, until } = memory.presence(phys(at))
    if (state !== 'present') return at
    at = until
  }
  return undefined
}
