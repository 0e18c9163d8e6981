/**
 * The page allocator of a simulated kernel: folios with reference counts, what is preserved and not yet
 * taken back, failures on demand, and an account of every page.
 *
 * Sources: mm/page_alloc.c; kho_restore_page() in kernel/liveupdate/kexec_handover.c.
 */
import type { PageSize } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { FrameSpans } from '../encode/frame-ranges.ts'
import { type Answer, Failure } from './answer.ts'
import type { Pages } from './core.ts'
import { KernelOops } from './crash.ts'
import { FrameTable } from './frames.ts'
import { FreeLists } from './free-lists.ts'
import type { MachineRam } from './ram.ts'

/** Pages by what has become of them; the sum is all RAM. */
export interface Census {
  readonly total: number
  readonly free: number
  readonly allocated: number
  /** Taken over from the old kernel, and nobody has asked for them yet. */
  readonly preserved: number
  readonly scratch: number
  /** Firmware, memory of the early kernel, reserve_mem regions, what overlaps. */
  readonly reserved: number
}

export interface Allocation {
  readonly pa: PhysAddr
  readonly order: number
  readonly refs: number
}

export interface PageBudget {
  readonly free: FrameSpans
  readonly scratchPages: number
  readonly preservedPages: number
  readonly totalPages: number
}

/** Allocations that fail on demand. */
class Shortage {
  #in = Number.POSITIVE_INFINITY
  #times = 0

  /** Makes the n-th allocation from now fail (1 is the next), and `times` in a row. */
  plan(n: number, times: number): void {
    this.#in = n
    this.#times = times
  }

  get isToCome(): boolean {
    return this.#times > 0
  }

  /** Counts an allocation; whether it fails. */
  strikes(): boolean {
    this.#in--
    if (this.#in > 0 || this.#times === 0) return false
    this.#times--
    return true
  }
}

export class SimulatedPages implements Pages {
  readonly pageSize: PageSize
  readonly maxOrder: number
  readonly #ram: MachineRam
  readonly #frames = new FrameTable()
  #lists: FreeLists
  #budget: PageBudget
  #free = 0
  #allocated = 0
  #preserved = 0
  readonly #pageShortage = new Shortage()
  readonly #objectShortage = new Shortage()

  constructor(ram: MachineRam, maxOrder: number) {
    this.#ram = ram
    this.pageSize = ram.pageSize
    this.maxOrder = maxOrder
    const free = FrameSpans.of([])
    this.#lists = new FreeLists(maxOrder, free)
    this.#budget = { free, scratchPages: 0, preservedPages: 0, totalPages: 0 }
  }

  /** memblock_free_all(): from now on memory can be had. */
  open(budget: PageBudget): void {
    this.#budget = budget
    this.#lists = new FreeLists(this.maxOrder, budget.free)
    this.#free = budget.free.frames
    this.#preserved += budget.preservedPages
  }

  /** Scratch memory that nobody needs becomes ordinary memory: free_reserved_area(). */
  release(start: number, end: number): void {
    for (let frame = start; frame < end; frame++) this.#lists.give(frame, 0)
    this.#free += end - start
    this.#budget = { ...this.#budget, scratchPages: this.#budget.scratchPages - (end - start) }
  }

  /** Makes the n-th allocation from now fail (1 is the next), and `times` in a row. */
  failAt(n: number, times = 1): void {
    this.#pageShortage.plan(n, times)
  }

  /** The same for objects of kmalloc(). */
  failObjectAt(n: number, times = 1): void {
    this.#objectShortage.plan(n, times)
  }

  /** An allocation that is to fail was not asked for yet. */
  get isToFail(): boolean {
    return this.#pageShortage.isToCome
  }

  alloc(order: number): Answer<PhysAddr> {
    if (this.#pageShortage.strikes() || order > this.maxOrder) return new Failure('ENOMEM')
    const frame = this.#lists.take(order)
    if (frame === undefined) return new Failure('ENOMEM')
    const pages = 2 ** order
    const pa = phys(frame * this.pageSize)
    this.#frames.set(frame, order, 1)
    this.#free -= pages
    this.#allocated += pages
    this.#ram.clear(pa, pages * this.pageSize)
    return pa
  }

  allocObject(): Answer {
    if (this.#objectShortage.strikes()) return new Failure('ENOMEM')
  }

  get(head: PhysAddr): void {
    const frame = this.#folio(head)
    this.#frames.set(frame, this.#frames.order(frame), this.#frames.refs(frame) + 1)
  }

  put(head: PhysAddr): void {
    const frame = this.#folio(head)
    const order = this.#frames.order(frame)
    const refs = this.#frames.refs(frame) - 1
    if (refs > 0) {
      this.#frames.set(frame, order, refs)
      return
    }
    this.#frames.set(frame, 0, 0)
    this.#lists.give(frame, order)
    this.#free += 2 ** order
    this.#allocated -= 2 ** order
  }

  /** split_page(): every page of a folio becomes one of its own. */
  split(head: PhysAddr): void {
    const frame = this.#folio(head)
    const pages = 2 ** this.#frames.order(frame)
    for (let at = 0; at < pages; at++) this.#frames.set(frame + at, 0, 1)
  }

  orderOf(pa: PhysAddr): number | undefined {
    const frame = this.#frameOf(pa)
    return this.#frames.refs(frame) > 0 ? this.#frames.order(frame) : undefined
  }

  refsOf(pa: PhysAddr): number {
    return this.#frames.refs(this.#frameOf(pa))
  }

  /** page->private of a unit's first page: magic and order. */
  markPreserved(frame: number, order: number): void {
    this.#frames.setUnit(frame, order)
  }

  /** Order of the preserved unit that starts at `pa`; undefined where none starts, or no more. */
  preservedOrder(pa: PhysAddr): number | undefined {
    return this.#frames.unit(this.#frameOf(pa))
  }

  /** A unit becomes a folio with one reference, or as many pages of their own. */
  adopt(pa: PhysAddr, order: number, as: 'folio' | 'pages'): void {
    const frame = this.#frameOf(pa)
    const pages = 2 ** order
    // A page of an overlapping unit that was taken back before counts once.
    const isNew = this.#frames.refs(frame) === 0
    if (isNew && this.#frames.unit(frame) !== undefined) this.#preserved -= pages
    if (isNew) this.#allocated += pages
    this.#frames.clearUnits(frame, as === 'folio' ? frame + pages : frame + 1)
    if (as === 'folio') this.#frames.set(frame, order, 1)
    else for (let at = 0; at < pages; at++) this.#frames.set(frame + at, 0, 1)
  }

  census(): Census {
    const { totalPages, scratchPages } = this.#budget
    const known = this.#free + this.#allocated + this.#preserved + scratchPages
    return {
      total: totalPages,
      free: this.#free,
      allocated: this.#allocated,
      preserved: this.#preserved,
      scratch: scratchPages,
      reserved: totalPages - known,
    }
  }

  /** Every folio that somebody holds, ascending. */
  *allocations(): Generator<Allocation> {
    for (const frame of this.#frames.starts('folio')) {
      const pa = phys(frame * this.pageSize)
      yield { pa, order: this.#frames.order(frame), refs: this.#frames.refs(frame) }
    }
  }

  /** Preserved units that nobody has taken back. */
  *preservedUnits(): Generator<{ readonly pa: PhysAddr; readonly order: number }> {
    for (const frame of this.#frames.starts('unit')) {
      yield { pa: phys(frame * this.pageSize), order: this.#frames.unit(frame) ?? 0 }
    }
  }

  #folio(head: PhysAddr): number {
    const frame = this.#frameOf(head)
    if (this.#frames.refs(frame) === 0) {
      throw new KernelOops(`bad page state: no folio starts at ${hex(head)}`)
    }
    return frame
  }

  #frameOf(pa: PhysAddr): number {
    return Math.floor(Number(pa) / this.pageSize)
  }
}
