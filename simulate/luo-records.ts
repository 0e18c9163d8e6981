/**
 * Where LUO keeps the records of sessions and files until the next kernel reads them: in arrays of fixed
 * size (luo-v1), or in chains of KHO blocks (luo-v5). Which one, the edge of the declaration says.
 *
 * Source: kernel/liveupdate/luo_{session,file}.c (Linux 6.19.11 and 7.1.13; 7.3.4).
 */
import type { Errno } from '../abi/errno.ts'
import { layoutOf } from '../abi/layout.ts'
import { arrayCapacity } from '../abi/limits.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { ArrayEdge, BlocksEdge, StructType } from '../abi/schema.ts'
import { type Answer, Failure, failed } from './answer.ts'
import { type BlockCursor, BlockSet } from './kho-block.ts'
import type { LuoContext } from './luo-context.ts'
import { readStored, writeFields } from './stored.ts'

const NONE = phys(0)

/** A place between records that are written. */
export type RecordCursor = Pick<BlockCursor, 'reserve' | 'previous'>

/** Records of the files of one session, of this kernel or of the one before. */
export interface FileRecords {
  readonly element: StructType
  /** Address for the session's record. */
  readonly head: PhysAddr
  readonly isEmpty: boolean
  /** Whether the reader goes by the stored count; else by what it finds. */
  readonly trustsCount: boolean
  /** What freeze() answers without a slot, which should not happen. */
  readonly noRoom: Errno
  /** Whether there can be `count` files; asked before the file is looked at. */
  admit(count: number): Answer
  /** Gets memory for them; asked behind that. */
  allocate(): Answer
  shrink(count: number): void
  /** Memory of this kernel is not needed any more. */
  release(): void
  /** Memory that came from the previous kernel is not needed any more. */
  giveBack(): void
  clear(): void
  cursor(): Pick<RecordCursor, 'reserve'>
  /** Takes over what the previous kernel left. */
  incoming(head: PhysAddr, count: bigint): Answer<Iterable<PhysAddr>>
}

/** Records of the sessions that this kernel creates. */
export interface OutgoingSessions {
  readonly element: StructType
  admit(count: number): Answer
  shrink(count: number): void
  cursor(): RecordCursor
  /** Serialization begins: what the next kernel found before, it finds no more. */
  withdraw(): void
  /** Serialization went well. */
  publish(count: number): void
}

/** Records of the sessions that the previous kernel left. */
export interface IncomingSessions {
  readonly element: StructType
  records(): Iterable<PhysAddr>
  /** Everything is read; `whole`: without an error. */
  giveBack(whole: boolean): void
}

export function fileRecords(context: LuoContext, edge: ArrayEdge | BlocksEdge): FileRecords {
  return edge.kind === 'blocks' ? new FileBlocks(context, edge) : new FileArea(context, edge)
}

/** Slots of an array, one after the other. */
class ArrayCursor implements RecordCursor {
  readonly #first: PhysAddr
  readonly #size: number
  #index = 0

  constructor(first: PhysAddr, size: number) {
    this.#first = first
    this.#size = size
  }

  reserve(): PhysAddr {
    return this.#at(this.#index++)
  }

  previous(): PhysAddr {
    return this.#at(--this.#index)
  }

  #at(index: number): PhysAddr {
    return phys(this.#first + BigInt(index * this.#size))
  }
}

function* takeRecords(cursor: ArrayCursor, count: bigint): Generator<PhysAddr> {
  for (let index = 0n; index < count; index++) yield cursor.reserve()
}

/** One unit of 2^order pages with a fixed number of slots. */
class FileArea implements FileRecords {
  readonly trustsCount = true
  readonly noRoom = 'EINVAL'
  readonly #context: LuoContext
  readonly #edge: ArrayEdge
  #area = NONE

  constructor(context: LuoContext, edge: ArrayEdge) {
    this.#context = context
    this.#edge = edge
  }

  get element(): StructType {
    return this.#edge.element
  }

  get head(): PhysAddr {
    return this.#area
  }

  /** Only blocks are looked at when a session is freed. */
  get isEmpty(): boolean {
    return true
  }

  admit(count: number): Answer {
    if (count > arrayCapacity(this.#edge, this.#context.target)) return new Failure('ENOSPC')
  }

  allocate(): Answer {
    if (this.#area !== NONE) return
    const area = this.#context.kho.allocPreserve(areaBytes(this.#context, this.#edge))
    if (failed(area)) return area
    this.#area = area
  }

  shrink(): void {}

  release(): void {
    if (this.#area !== NONE) this.#context.kho.unpreserveFree(this.#area)
    this.#area = NONE
  }

  giveBack(): void {
    if (this.#area !== NONE) this.#context.kho.restoreFree(this.#area)
    this.#area = NONE
  }

  clear(): void {
    this.#context.ram.clear(this.#area, areaBytes(this.#context, this.#edge))
  }

  cursor(): ArrayCursor {
    return new ArrayCursor(this.#area, layoutOf(this.element, this.#context.target).size)
  }

  incoming(head: PhysAddr, count: bigint): Iterable<PhysAddr> {
    this.#area = this.#context.ram.physToVirt(head)
    return takeRecords(this.cursor(), count)
  }
}

class FileBlocks implements FileRecords {
  readonly trustsCount = false
  readonly noRoom = 'ENOSPC'
  readonly #set: BlockSet

  constructor(context: LuoContext, edge: BlocksEdge) {
    this.#set = new BlockSet(context, edge)
  }

  get element(): StructType {
    return this.#set.edge.element
  }

  get head(): PhysAddr {
    return this.#set.head
  }

  get isEmpty(): boolean {
    return this.#set.blocks.length === 0
  }

  admit(count: number): Answer {
    return this.#set.grow(count)
  }

  allocate(): void {}

  shrink(count: number): void {
    this.#set.shrink(count)
  }

  release(): void {
    this.#set.destroy()
  }

  giveBack(): void {
    this.#set.destroy()
  }

  clear(): void {
    this.#set.clear()
  }

  cursor(): BlockCursor {
    return this.#set.cursor()
  }

  incoming(head: PhysAddr): Answer<Iterable<PhysAddr>> {
    const answer = this.#set.restore(head)
    return failed(answer) ? answer : readRecords(this.#set)
  }
}

function* readRecords(set: BlockSet): Generator<PhysAddr> {
  const cursor = set.cursor()
  for (let record = cursor.read(); record !== undefined; record = cursor.read()) yield record
}

function areaBytes({ target }: LuoContext, edge: ArrayEdge): number {
  return target.pageSize * 2 ** edge.order
}

/** luo-v1: the whole array is there from the start, its count is written at the reboot. */
export class SessionArray implements OutgoingSessions, IncomingSessions {
  readonly #context: LuoContext
  readonly #edge: ArrayEdge
  readonly #header: StructType
  readonly area: PhysAddr

  constructor(context: LuoContext, edge: ArrayEdge, area: PhysAddr) {
    this.#context = context
    this.#edge = edge
    this.#header = edge.header as StructType
    this.area = area
  }

  /** luo_session_setup_outgoing() */
  static create(context: LuoContext, edge: ArrayEdge): Answer<SessionArray> {
    const area = context.kho.allocPreserve(areaBytes(context, edge))
    return failed(area) ? area : new SessionArray(context, edge, area)
  }

  get element(): StructType {
    return this.#edge.element
  }

  admit(count: number): Answer {
    if (count > arrayCapacity(this.#edge, this.#context.target)) return new Failure('ENOMEM')
  }

  shrink(): void {}

  cursor(): ArrayCursor {
    const { target } = this.#context
    const first = phys(this.area + BigInt(layoutOf(this.#header, target).size))
    return new ArrayCursor(first, layoutOf(this.element, target).size)
  }

  /** The count stays what the last serialization made it. */
  withdraw(): void {}

  publish(count: number): void {
    writeFields(this.#context, this.#header, this.area, { count })
  }

  *records(): Generator<PhysAddr> {
    const { count } = readStored(this.#context, this.#header, this.area)
    yield* takeRecords(this.cursor(), BigInt.asUintN(64, count as bigint))
  }

  giveBack(whole: boolean): void {
    if (whole) this.#context.kho.restoreFree(this.area)
  }
}

/** luo-v5: blocks come and go with the sessions; where the first one is, is written at the reboot. */
export class SessionBlocks implements OutgoingSessions, IncomingSessions {
  readonly #set: BlockSet
  readonly #publish: (head: PhysAddr) => void

  /** `publish` writes the address of the first block where the next kernel finds it. */
  constructor(context: LuoContext, edge: BlocksEdge, publish: (head: PhysAddr) => void = () => {}) {
    this.#set = new BlockSet(context, edge)
    this.#publish = publish
  }

  get element(): StructType {
    return this.#set.edge.element
  }

  admit(count: number): Answer {
    return this.#set.grow(count)
  }

  shrink(count: number): void {
    this.#set.shrink(count)
  }

  cursor(): BlockCursor {
    return this.#set.cursor()
  }

  withdraw(): void {
    this.#publish(NONE)
  }

  publish(count: number): void {
    if (count > 0) this.#publish(this.#set.head)
  }

  /** luo_session_setup_incoming() */
  restore(head: PhysAddr): Answer {
    return this.#set.restore(head)
  }

  records(): Iterable<PhysAddr> {
    return readRecords(this.#set)
  }

  giveBack(): void {
    this.#set.destroy()
  }
}
