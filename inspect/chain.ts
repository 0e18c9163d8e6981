/**
 * Walkers of linked and counted structures: arrays in one unit of pages, chains of KHO blocks. Each
 * gives the places of its elements; none trusts a count or a pointer.
 *
 * Mirrors kho_block_set_restore() (kernel/liveupdate/kho_block.c), luo_session_deserialize().
 */
import type { khoBlockHeader } from '../abi/kho-block.ts'
import { blockCapacity } from '../abi/kho-block.ts'
import { fieldOf, layoutOf, type Target } from '../abi/layout.ts'
import { arrayCapacity } from '../abi/limits.ts'
import type { PhysAddr, PhysicalMemory } from '../abi/memory.ts'
import { hex, phys } from '../abi/memory.ts'
import type { ArrayEdge, BlocksEdge, Infer, StructType } from '../abi/schema.ts'
import { type Budget, MAX_RECORDS } from './budget.ts'
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
  /** Whether nothing stopped the walk before its end. */
  readonly complete: boolean
}

/** What walkers share: memory, target, faults, the pages that were reached already, and what may still be spent. */
export interface WalkContext {
  readonly memory: PhysicalMemory
  readonly target: Target
  readonly faults: FaultList
  /** What was reached, by the address at which it starts; nothing is reached twice. */
  readonly reached: Map<bigint, string>
  readonly budget: Budget
}

/**
 * Registers the address that a structure starts at; false, with a fault on the pointer, where it is
 * misaligned or was reached before. No two structures of the kernel share one.
 */
export function reach(
  context: WalkContext,
  pa: PhysAddr,
  what: string,
  place: Place,
  pointer: Pointer,
  boundary: number = context.target.pageSize,
): boolean {
  if (pa % BigInt(boundary) !== 0n) {
    context.faults.add(place, 'ADDRESS_MISALIGNED', {
      pa: pointer.pa,
      length: 8,
      message: `${what} at ${hex(pa)} does not start at a page`,
      expected: `a multiple of ${boundary}`,
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

/** What a chain is made of, and how long it may be. */
interface ChainShape {
  /** One page's name: `block`. */
  readonly page: string
  /** What the chain is for: `sessions`. */
  readonly of: string
  readonly maxPages: number
  readonly why: string
}

/** The way along a chain of pages, each of which points to the next. */
export class Chain {
  readonly #context: WalkContext
  readonly #shape: ChainShape
  readonly #indexes = new Map<bigint, number>()
  #from: Pointer
  /** The place of the first page; those of the others are behind it and the pointer to them. */
  #head: Place | undefined
  /** The place of the page entered last. */
  place: Place

  constructor(context: WalkContext, shape: ChainShape, place: Place, pointer: Pointer) {
    this.#context = context
    this.#shape = shape
    this.#from = pointer
    this.place = place
  }

  /** Goes to the next page; false, with a fault on the pointer, where the chain must not be followed. */
  enter(pa: PhysAddr): boolean {
    const { faults } = this.#context
    const { page, of, maxPages, why } = this.#shape
    const index = this.#indexes.size
    this.place = behind(this.#head ?? this.place, this.#from, pa)
    this.#head ??= this.place
    const before = this.#indexes.get(pa)
    if (before !== undefined) {
      faults.add(this.place, 'CHAIN_CYCLE', {
        pa: this.#from.pa,
        length: 8,
        message: `${page} ${index - 1} of ${of} leads back to ${page} ${before}`,
        expected: `0x0 or the address of a further ${page}`,
        found: hex(pa),
      })
      return false
    }
    if (index >= maxPages) {
      faults.add(this.place, 'CHAIN_LIMIT', {
        pa: this.#from.pa,
        length: 8,
        message: `the chain of ${of} is longer than ${why}`,
        expected: `at most ${maxPages} ${page}s`,
        found: `a further ${page} at ${hex(pa)}`,
      })
      return false
    }
    if (!reach(this.#context, pa, `${page} ${index} of ${of}`, this.place, this.#from)) return false
    this.#indexes.set(pa, index)
    return true
  }

  /** Says which pointer leads on from the page entered last. */
  leave(pointer: Pointer): void {
    this.#from = pointer
  }
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
  const capacity = arrayCapacity(edge, target)
  const fits = count <= BigInt(capacity)
  if (!fits) {
    faults.add(inside, 'COUNT_RANGE', {
      pa: edge.header ? phys(pa + BigInt(fieldOf(edge.header, edge.count, target).offset)) : pointer.pa,
      length: 8,
      message: `the array of ${edge.as} claims ${count} elements`,
      expected: `at most ${capacity}`,
      found: String(count),
    })
  }
  const wanted = fits ? Number(count) : capacity
  const found = elementsIn(
    context,
    edge.element,
    phys(pa + BigInt(headerSize)),
    { from: 0, count: wanted },
    inside,
  )
  const length = target.pageSize << edge.order
  const storage = { kind: 'unit', pa, length, order: edge.order, header: edge.header, count } as const
  return { storage, elements: found, complete: fits && found.length === wanted }
}

/**
 * Elements side by side, number `from` of their list and the ones after it; ends with a fault at the
 * first that the image does not hold whole, or that is more than one decoding is to hold.
 */
export function elementsIn(
  context: WalkContext,
  element: StructType,
  pa: PhysAddr,
  { from, count }: { readonly from: number; readonly count: number },
  place: Place,
): readonly ElementBytes[] {
  const { size } = layoutOf(element, context.target)
  const bytes = readLeading(context.memory, pa, count * size)
  const whole = Math.floor(bytes.length / size)
  if (whole < count) {
    const missing = readBytes(context.memory, phys(pa + BigInt(whole * size)), size)
    const at = from + whole === 0 ? place : within(place, { index: from + whole })
    if ('unreadable' in missing) context.faults.addUnreadable(at, (count - whole) * size, missing.unreadable)
  }
  const granted = context.budget.takeRecords(whole)
  if (granted < whole) {
    const further = within(place, { index: from + granted })
    leaveRest(context, phys(pa + BigInt(granted * size)), (whole - granted) * size, further)
  }
  return Array.from({ length: granted }, (_, index) => ({
    pa: phys(pa + BigInt(index * size)),
    bytes: bytes.subarray(index * size, (index + 1) * size),
  }))
}

/** Says that what is at `pa` is left out, because the handover has more than one decoding is to hold. */
export function leaveRest({ faults }: WalkContext, pa: PhysAddr, length: number, place: Place): void {
  const message = 'the handover has more records than are decoded'
  const expected = `at most ${MAX_RECORDS} in all`
  faults.add(place, 'CHAIN_LIMIT', { pa, length, message, expected, found: 'further ones' })
}

/**
 * Walks a chain of KHO blocks from the first block's address; 0 is an empty set. A block outside the
 * image, a count above the block's room, or a block reached before ends the walk with a fault, where the
 * kernel would refuse the whole set; a count of zero is a fault, too, but the walk goes on.
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
  const shape = { page: 'block', of: edge.as, maxPages: edge.maxBlocks, why: 'the kernel takes' }
  const chain = new Chain(context, shape, place, pointer)
  const blocks: { pa: PhysAddr; next: bigint; count: bigint }[] = []
  const elements: ElementBytes[] = []
  const storage = { kind: 'blocks', blocks, length: target.pageSize, header: edge.header } as const
  let complete = true
  for (let pa = first; pa !== 0n; ) {
    if (context.budget.isSpent) leaveRest(context, pa, target.pageSize, chain.place)
    if (context.budget.isSpent || !chain.enter(pa)) return { storage, elements, complete: false }
    const read = readBytes(memory, pa, headerSize)
    if ('unreadable' in read) {
      faults.addUnreadable(chain.place, target.pageSize, read.unreadable)
      return { storage, elements, complete: false }
    }
    const header = decodeStruct(edge.header, read.bytes, target) as Infer<typeof khoBlockHeader>
    blocks.push({ pa, ...header })
    if (!checkBlockCount(context, edge, blocks, chain.place)) return { storage, elements, complete: false }
    const wanted = { from: elements.length, count: Number(header.count) }
    const found = elementsIn(context, edge.element, phys(pa + BigInt(headerSize)), wanted, chain.place)
    for (const element of found) elements.push(element)
    complete &&= found.length === wanted.count
    chain.leave({
      path: [...place.path, { index: blocks.length - 1 }, 'next'],
      pa: phys(pa + BigInt(fieldOf(edge.header, 'next', target).offset)),
    })
    pa = phys(header.next)
  }
  return { storage, elements, complete }
}

/** Judges the count of the last of the blocks; false where it is no number of elements at all. */
function checkBlockCount(
  { target, faults }: WalkContext,
  edge: BlocksEdge,
  blocks: BlockStorage['blocks'],
  place: Place,
): boolean {
  const { pa, count } = blocks.at(-1) as BlockStorage['blocks'][number]
  const capacity = blockCapacity(edge, target)
  const fits = count <= BigInt(capacity)
  if (fits && count > 0n) return true
  faults.add(place, fits ? 'COUNT_ZERO' : 'COUNT_RANGE', {
    pa: phys(pa + BigInt(fieldOf(edge.header, 'count', target).offset)),
    length: 8,
    message: `block ${blocks.length - 1} of ${edge.as} at ${hex(pa)} has count ${count}`,
    expected: `1 to ${capacity}`,
    found: String(count),
  })
  return fits
}
