/**
 * File-lifecycle-bound objects: global state that is preserved with the first file that depends on it
 * and finished with the last.
 *
 * Source: kernel/liveupdate/luo_flb.c (Linux 7.0, 7.1, 7.2, 7.3; 6.19 has none).
 */

import { firstIndex } from '../abi/bisect.ts'
import type { Errno } from '../abi/errno.ts'
import type { KernelTraits } from '../abi/kernel-traits.ts'
import { layoutOf } from '../abi/layout.ts'
import { arrayCapacity } from '../abi/limits.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { ArrayEdge, StructType } from '../abi/schema.ts'
import { type Answer, Failure, failed } from './answer.ts'
import { Counter, KernelModule, Refcount, type References } from './kernel-module.ts'
import type { LuoContext } from './luo-context.ts'
import { readStored, textEquals, writeFields } from './stored.ts'

/** struct liveupdate_flb_op_args */
export interface FlbArguments {
  readonly flb: Flb
  data: bigint
  /** The live object; undefined is the kernel's NULL. */
  obj: unknown
}

/** struct liveupdate_flb_ops; all are needed for registration. */
export interface FlbOps {
  preserve?(args: FlbArguments): Answer
  unpreserve?(args: FlbArguments): void
  retrieve?(args: FlbArguments): Answer
  finish?(args: FlbArguments): void
}

/** struct liveupdate_flb */
export interface Flb {
  readonly compatible: string
  readonly ops: FlbOps
  readonly owner?: KernelModule
}

/** struct luo_flb_private */
interface FlbState {
  readonly flb: Flb
  readonly owner: KernelModule
  readonly outgoing: { readonly count: References; data: bigint; obj: unknown }
  readonly incoming: { readonly count: References; data: bigint; obj: unknown; finished: boolean }
  /** 0: not tried; 1: retrieved; else the error. */
  retrieved: 0 | 1 | Failure
  users: number
}

/** Entries looked at behind a count that no writer leaves; then nothing stops the search but the end of RAM. */
const MAX_SEARCH = 1 << 20
/** As far as `i` counts. */
const MAX_INDEX = 2 ** 31

const ENODATA: Errno = 'ENODATA'

export class Flbs {
  readonly #context: LuoContext
  readonly #traits: KernelTraits
  readonly #edge: ArrayEdge
  readonly #header: StructType
  readonly #states = new Map<Flb, FlbState>()
  /** Registered ones in the order of their registration. */
  readonly #registered: FlbState[] = []
  /** Dependencies of each file handler, in the order of registration. */
  readonly #links = new Map<object, Flb[]>()
  #incoming: PhysAddr | undefined
  #outgoing: PhysAddr | undefined

  constructor(context: LuoContext, traits: KernelTraits, edge: ArrayEdge) {
    this.#context = context
    this.#traits = traits
    this.#edge = edge
    this.#header = edge.header as StructType
  }

  /** luo_flb_setup_outgoing(): the page that the next kernel reads. */
  setupOutgoing(): Answer<PhysAddr> {
    const pages = 1 << this.#edge.order
    const page = this.#context.kho.allocPreserve(pages * this.#context.target.pageSize)
    if (failed(page)) return page
    writeFields(this.#context, this.#header, page, { pgcnt: pages })
    this.#outgoing = page
    return page
  }

  /** luo_flb_setup_incoming() */
  setupIncoming(page: PhysAddr): void {
    this.#incoming = page
  }

  /** liveupdate_register_flb(); the handler is registered. */
  register(handler: object, flb: Flb): Answer {
    const { ops } = flb
    if (!ops.preserve || !ops.unpreserve || !ops.retrieve || !ops.finish) {
      this.#context.warn('kernel/liveupdate/luo_flb.c', 'liveupdate_register_flb')
      return new Failure('EINVAL')
    }
    const links = this.#linksOf(handler)
    if (links.includes(flb)) return new Failure('EEXIST')
    const state = this.#stateOf(flb)
    if (state.users === 0) {
      const { target } = this.#context
      if (this.#registered.length === arrayCapacity(this.#edge, target)) return new Failure('ENOSPC')
      if (this.#registered.some((other) => other.flb.compatible === flb.compatible)) {
        return new Failure('EEXIST')
      }
      if (!this.#traits.registersAnytime && !state.owner.tryGet()) return new Failure('EAGAIN')
      this.#registered.push(state)
    }
    state.users++
    links.push(flb)
  }

  /** liveupdate_unregister_flb(); one that is not linked is an error up to 7.0, later a warning. */
  unregister(handler: object & { readonly compatible: string }, flb: Flb): Answer {
    const links = this.#linksOf(handler)
    const at = links.indexOf(flb)
    if (at < 0) {
      if (!this.#traits.registersAnytime) return new Failure('ENOENT')
      this.#context.say('LUO_FLB_UNREGISTERED', flb.compatible, handler.compatible)
      return
    }
    links.splice(at, 1)
    const state = this.#stateOf(flb)
    state.users--
    if (state.users > 0) return
    this.#registered.splice(this.#registered.indexOf(state), 1)
    if (!this.#traits.registersAnytime) state.owner.put()
  }

  /** Whether a file handler depends on any. */
  hasLinks(handler: object): boolean {
    return this.#linksOf(handler).length > 0
  }

  /** luo_flb_unregister_all() */
  unregisterAll(handler: object & { readonly compatible: string }): void {
    for (const flb of [...this.#linksOf(handler)]) this.unregister(handler, flb)
  }

  /** luo_flb_file_preserve(): before a file of the handler is; what was done is undone on an error. */
  filePreserve(handler: object): Answer {
    const links = this.#linksOf(handler)
    for (const [index, flb] of links.entries()) {
      const answer = this.#preserveOne(this.#stateOf(flb))
      if (!failed(answer)) continue
      for (const done of links.slice(0, index).toReversed()) this.putOutgoing(done)
      return answer
    }
  }

  /** luo_flb_file_unpreserve() */
  fileUnpreserve(handler: object): void {
    for (const flb of this.#linksOf(handler).toReversed()) this.putOutgoing(flb)
  }

  /** luo_flb_file_finish() */
  fileFinish(handler: object): void {
    for (const flb of this.#linksOf(handler).toReversed()) this.#putIncoming(flb)
  }

  /** liveupdate_flb_get_incoming(): the object, retrieved on the first call, with a reference where they count. */
  getIncoming(flb: Flb): Answer<unknown> {
    const state = this.#stateOf(flb)
    if (state.incoming.obj === undefined) {
      const answer = this.#retrieveOne(state)
      if (failed(answer)) return answer
    }
    if (this.#traits.countsFlbReferences) state.incoming.count.increment()
    return state.incoming.obj
  }

  /** liveupdate_flb_put_incoming(), where there is one. */
  putIncoming(flb: Flb): Answer {
    if (!this.#traits.countsFlbReferences) return new Failure('EOPNOTSUPP')
    this.#putIncoming(flb)
  }

  /** luo_flb_file_finish_one() */
  #putIncoming(flb: Flb): void {
    const state = this.#stateOf(flb)
    if (!state.incoming.count.decrementAndTest()) return
    if (state.retrieved !== 1 && failed(this.#retrieveOne(state))) {
      this.#context.warn('kernel/liveupdate/luo_flb.c', 'liveupdate_flb_put_incoming')
      return
    }
    flb.ops.finish?.({ flb, data: 0n, obj: state.incoming.obj })
    state.incoming.data = 0n
    state.incoming.obj = undefined
    state.incoming.finished = true
    this.#unpin(state.owner)
  }

  /** liveupdate_flb_get_outgoing(); with a reference from Linux 7.2 on, and only if it is preserved. */
  getOutgoing(flb: Flb): Answer<unknown> {
    const { outgoing } = this.#stateOf(flb)
    if (!this.#traits.countsFlbUsers) return outgoing.obj
    if (outgoing.obj === undefined) return new Failure('ENOENT')
    outgoing.count.increment()
    return outgoing.obj
  }

  /** liveupdate_flb_put_outgoing() */
  putOutgoing(flb: Flb): void {
    const { outgoing, owner } = this.#stateOf(flb)
    if (!outgoing.count.decrementAndTest()) return
    flb.ops.unpreserve?.({ flb, data: outgoing.data, obj: outgoing.obj })
    outgoing.data = 0n
    outgoing.obj = undefined
    this.#unpin(owner)
  }

  /** References to what this kernel preserves, as the reboot would write them. */
  outgoingCount(flb: Flb): number {
    return this.#stateOf(flb).outgoing.count.read()
  }

  /** References that are left to what the previous kernel preserved. */
  incomingCount(flb: Flb): number {
    return this.#stateOf(flb).incoming.count.read()
  }

  /** luo_flb_serialize(): those with references, in the order of registration. */
  serialize(): void {
    const page = this.#outgoing
    if (page === undefined) return
    let written = 0
    for (const { flb, outgoing } of this.#registered) {
      const count = outgoing.count.read()
      if (count <= 0) continue
      const name = new TextEncoder().encode(flb.compatible)
      writeFields(this.#context, this.#edge.element, this.#entry(page, written), {
        name,
        data: outgoing.data,
        count,
      })
      written++
    }
    writeFields(this.#context, this.#header, page, { count: written })
  }

  #preserveOne({ flb, owner, outgoing }: FlbState): Answer {
    if (outgoing.count.read() !== 0) {
      outgoing.count.increment()
      return
    }
    if (!this.#pin(owner)) return new Failure('ENODEV')
    const args: FlbArguments = { flb, data: 0n, obj: undefined }
    const answer = flb.ops.preserve?.(args)
    if (failed(answer)) {
      this.#unpin(owner)
      return answer
    }
    outgoing.data = args.data
    outgoing.obj = args.obj
    outgoing.count.set(1)
  }

  /** Up to 7.0 the module is pinned from registration on. */
  #pin(owner: KernelModule): boolean {
    return !this.#traits.registersAnytime || owner.tryGet()
  }

  #unpin(owner: KernelModule): void {
    if (this.#traits.registersAnytime) owner.put()
  }

  /** luo_flb_retrieve_one() */
  #retrieveOne(state: FlbState): Answer {
    const { flb, incoming, owner } = state
    if (incoming.finished) return new Failure(ENODATA)
    if (state.retrieved === 1) return
    if (state.retrieved !== 0 && this.#traits.countsFlbUsers) return state.retrieved
    if (this.#incoming === undefined) return new Failure(ENODATA)
    const entry = this.#find(this.#incoming, flb.compatible)
    if (entry === undefined) return new Failure('ENOENT')
    const { data, count } = readStored(this.#context, this.#edge.element, entry)
    incoming.data = data as bigint
    incoming.count.set(Number(BigInt.asIntN(32, count as bigint)))
    if (!this.#pin(owner)) return new Failure('ENODEV')
    const args: FlbArguments = { flb, data: incoming.data, obj: undefined }
    const answer = flb.ops.retrieve?.(args)
    if (failed(answer)) {
      state.retrieved = answer
      this.#unpin(owner)
      return answer
    }
    incoming.obj = args.obj
    state.retrieved = 1
  }

  /** The search ends at the stored count only, wherever that leads; `count` is compared as an int. */
  #find(page: PhysAddr, compatible: string): PhysAddr | undefined {
    const { count } = readStored(this.#context, this.#header, page, 'count')
    const isCounted = (index: number): boolean => BigInt(index) < (count as bigint)
    const isNamed = (index: number): boolean =>
      textEquals(this.#context, this.#entry(page, index), compatible)
    for (let index = 0; index < MAX_SEARCH && isCounted(index); index++) {
      if (isNamed(index)) return this.#entry(page, index)
    }
    const outside = this.#firstOutside(page)
    return isCounted(outside) && isNamed(outside) ? this.#entry(page, outside) : undefined
  }

  /** The first entry that begins behind the RAM that the page is in. */
  #firstOutside(page: PhysAddr): number {
    const { ram } = this.#context
    return firstIndex(MAX_INDEX, (at) => !ram.contains(page, Number(this.#entry(page, at) - page) + 1))
  }

  #entry(page: PhysAddr, index: number): PhysAddr {
    const { target } = this.#context
    const at = layoutOf(this.#header, target).size + index * layoutOf(this.#edge.element, target).size
    return phys(page + BigInt(at))
  }

  #linksOf(handler: object): Flb[] {
    const known = this.#links.get(handler) ?? []
    this.#links.set(handler, known)
    return known
  }

  /** luo_flb_get_private() */
  #stateOf(flb: Flb): FlbState {
    const known = this.#states.get(flb)
    if (known) return known
    const warn = (text: string): void => this.#context.warn('lib/refcount.c', 'refcount_warn_saturate', text)
    const newCount = (): References => (this.#traits.countsFlbReferences ? new Refcount(warn) : new Counter())
    const state: FlbState = {
      flb,
      owner: flb.owner ?? new KernelModule(),
      outgoing: { count: newCount(), data: 0n, obj: undefined },
      incoming: { count: newCount(), data: 0n, obj: undefined, finished: false },
      retrieved: 0,
      users: 0,
    }
    this.#states.set(flb, state)
    return state
  }
}
