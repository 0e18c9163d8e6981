/**
 * KHO blocks: chains of preserved pages of fixed-size entries, grown and shrunk while entries come and
 * go, filled at the reboot, and restored by the next kernel.
 *
 * Source: kernel/liveupdate/kho_block.c (Linux 7.2, 7.3).
 */
import { blockCapacity } from '../abi/kho-block.ts'
import { layoutOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { BlocksEdge } from '../abi/schema.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { LuoContext } from './luo-context.ts'
import { readStored, writeFields } from './stored.ts'

const NONE = phys(0)

/** struct kho_block_set */
export class BlockSet {
  readonly #context: LuoContext
  readonly edge: BlocksEdge
  readonly capacity: number
  readonly #blocks: PhysAddr[] = []
  #head = NONE
  /** Blocks of the previous kernel are given back in another way. */
  #incoming = false

  constructor(context: LuoContext, edge: BlocksEdge) {
    this.#context = context
    this.edge = edge
    this.capacity = blockCapacity(edge, context.target)
  }

  /** kho_block_set_head_pa() */
  get head(): PhysAddr {
    return this.#head
  }

  get blocks(): readonly PhysAddr[] {
    return this.#blocks
  }

  /** kho_block_set_grow(): room for `count` entries. */
  grow(count: number): Answer {
    if (this.#incoming) {
      this.#context.warn('kernel/liveupdate/kho_block.c', 'kho_block_set_grow')
      return new Failure('EINVAL')
    }
    const before = this.#blocks.length
    while (count > this.#blocks.length * this.capacity) {
      const answer = this.#growOne()
      if (!failed(answer)) continue
      while (this.#blocks.length > before) this.#shrinkOne()
      return answer
    }
  }

  /** kho_block_set_shrink(): gives back the blocks that `count` entries do not need. */
  shrink(count: number): void {
    while (this.#blocks.length > 0 && count <= (this.#blocks.length - 1) * this.capacity) this.#shrinkOne()
  }

  /** kho_block_set_restore() */
  restore(head: PhysAddr): Answer {
    this.#incoming = true
    if (head === NONE) return
    const first = this.#context.ram.physToVirt(head)
    if (this.#isCyclic(first)) return new Failure('EINVAL')
    let next = first
    while (next !== NONE) {
      const block = this.#read(next)
      const answer = this.#adopt(next, block.count)
      if (failed(answer)) {
        this.destroy()
        this.#freeChain(next)
        return answer
      }
      next = this.#pointer(block.next)
    }
  }

  /** kho_block_set_destroy() */
  destroy(): void {
    for (const block of this.#blocks) this.#free(block)
    this.#blocks.length = 0
    this.#head = NONE
  }

  /** kho_block_set_clear() */
  clear(): void {
    const { ram, target } = this.#context
    const header = layoutOf(this.edge.header, target).size
    for (const block of this.#blocks) {
      this.writeCount(block, 0)
      ram.write(phys(block + BigInt(header)), new Uint8Array(target.pageSize - header))
    }
  }

  /** kho_block_set_it_init() */
  cursor(): BlockCursor {
    return new BlockCursor(this, this.#context)
  }

  readCount(block: PhysAddr): bigint {
    return this.#read(block).count
  }

  writeCount(block: PhysAddr, count: number): void {
    writeFields(this.#context, this.edge.header, block, { count })
  }

  #growOne(): Answer {
    const block = this.#context.kho.allocPreserve(this.#context.target.pageSize)
    if (failed(block)) return block
    const answer = this.#add(block)
    if (failed(answer)) this.#free(block)
    return answer
  }

  #shrinkOne(): void {
    const last = this.#blocks.pop()
    if (last === undefined) return
    this.#free(last)
    const newLast = this.#blocks.at(-1)
    if (newLast === undefined) this.#head = NONE
    else this.#link(newLast, NONE)
  }

  #adopt(block: PhysAddr, count: bigint): Answer {
    if (count === 0n || count > BigInt(this.capacity)) {
      this.#context.say('KHO_BLOCK_COUNT', count)
      return new Failure('EINVAL')
    }
    return this.#add(block)
  }

  /** kho_block_add() */
  #add(block: PhysAddr): Answer {
    if (this.#blocks.length >= this.edge.maxBlocks) return new Failure('ENOSPC')
    const object = this.#context.pages.allocObject()
    if (failed(object)) return object
    const last = this.#blocks.at(-1)
    this.#blocks.push(block)
    if (last === undefined) this.#head = block
    else this.#link(last, block)
  }

  /** kho_block_set_is_cyclic(): two pointers, one twice as fast; gives up after as many steps as there may be blocks. */
  #isCyclic(head: PhysAddr): boolean {
    let fast = head
    let slow = head
    for (let steps = 0; steps < this.edge.maxBlocks; steps++) {
      fast = this.#next(fast)
      if (fast === NONE || this.#next(fast) === NONE) return false
      fast = this.#next(fast)
      slow = this.#next(slow)
      if (slow === fast) break
    }
    this.#context.say('KHO_BLOCK_CYCLE')
    return true
  }

  #freeChain(first: PhysAddr): void {
    for (let next = first; next !== NONE; ) {
      const block = next
      next = this.#next(block)
      this.#free(block)
    }
  }

  #free(block: PhysAddr): void {
    if (this.#incoming) this.#context.kho.restoreFree(block)
    else this.#context.kho.unpreserveFree(block)
  }

  #read(block: PhysAddr): { readonly next: bigint; readonly count: bigint } {
    const { next, count } = readStored(this.#context, this.edge.header, block)
    return { next: next as bigint, count: count as bigint }
  }

  #next(block: PhysAddr): PhysAddr {
    return this.#pointer(this.#read(block).next)
  }

  #pointer(stored: bigint): PhysAddr {
    return stored === 0n ? NONE : this.#context.ram.physToVirt(stored)
  }

  #link(block: PhysAddr, next: PhysAddr): void {
    writeFields(this.#context, this.edge.header, block, { next })
  }
}

/** struct kho_block_set_it: a place between entries. */
export class BlockCursor {
  readonly #set: BlockSet
  readonly #headerSize: number
  readonly #entrySize: number
  #block = 0
  #index = 0

  constructor(set: BlockSet, { target }: Pick<LuoContext, 'target'>) {
    this.#set = set
    this.#headerSize = layoutOf(set.edge.header, target).size
    this.#entrySize = layoutOf(set.edge.element, target).size
  }

  /** kho_block_set_it_reserve_entry(): the next slot to write; undefined if all are used. */
  reserve(): PhysAddr | undefined {
    if (!this.#enter(this.#set.capacity)) return undefined
    const entry = this.#entry(this.#index++)
    this.#set.writeCount(this.#set.blocks[this.#block] as PhysAddr, this.#index)
    return entry
  }

  /** kho_block_set_it_read_entry(): the next entry that was written. */
  read(): PhysAddr | undefined {
    const block = this.#set.blocks[this.#block]
    if (block === undefined || !this.#enter(Number(this.#set.readCount(block)))) return undefined
    return this.#entry(this.#index++)
  }

  /** kho_block_set_it_prev(): the slot before. */
  previous(): PhysAddr | undefined {
    if (this.#set.blocks.length === 0) return undefined
    if (this.#index === 0) {
      if (this.#block === 0) return undefined
      this.#block--
      this.#index = this.#set.capacity
    }
    return this.#entry(--this.#index)
  }

  /** Goes on to the next block behind the last of `count` entries. */
  #enter(count: number): boolean {
    if (this.#set.blocks.length === 0) return false
    if (this.#index !== count) return true
    if (this.#block + 1 === this.#set.blocks.length) return false
    this.#block++
    this.#index = 0
    return true
  }

  #entry(index: number): PhysAddr {
    const block = this.#set.blocks[this.#block] as PhysAddr
    return phys(block + BigInt(this.#headerSize + index * this.#entrySize))
  }
}
