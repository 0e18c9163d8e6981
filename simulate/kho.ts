/**
 * KHO of one kernel: what it preserves for the next, and what it took over.
 *
 * Source: kernel/kexec_handover.c (6.17.8), kernel/liveupdate/kexec_handover.c (6.19.11, 7.1.13, 7.3.4).
 */
import type { ScratchSizes } from '../abi/early-parameters.ts'
import { orderOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { KernelBase } from './context.ts'
import type { KhoApi, KhoVmallocValue, Subtree, VmallocArea } from './core.ts'
import type { EarlyMemory } from './early-memory.ts'
import { KhoIncoming } from './kho-incoming.ts'
import { KhoOutgoing } from './kho-outgoing.ts'
import { KhoVmalloc } from './kho-vmalloc.ts'
import { reserveScratch, type ScratchArea, scratchArrayBytes } from './scratch.ts'
import { splitFrames } from './units.ts'

export class Kho implements KhoApi {
  readonly incoming: KhoIncoming
  readonly outgoing: KhoOutgoing
  readonly finalize: (() => Answer) | undefined
  readonly #kernel: KernelBase
  readonly #vmalloc: KhoVmalloc
  #enabled: boolean
  #scratch: readonly ScratchArea[] = []

  constructor(kernel: KernelBase, early: EarlyMemory, enabled: boolean) {
    this.#kernel = kernel
    this.#enabled = enabled
    this.incoming = new KhoIncoming(kernel, early)
    this.#vmalloc = new KhoVmalloc(kernel, this)
    this.outgoing = new KhoOutgoing(kernel, this, (page, by) =>
      this.#refuseScratch(page, kernel.target.pageSize, by),
    )
    const { hasFinalize, togglesFinalize } = kernel.spec.traits
    if (hasFinalize && !togglesFinalize) this.finalize = () => this.outgoing.finalize()
  }

  get enabled(): boolean {
    return this.#enabled
  }

  get isKhoBoot(): boolean {
    return this.incoming.fdt !== undefined
  }

  /** Scratch areas in the order of their array. */
  get scratch(): readonly ScratchArea[] {
    return this.#scratch
  }

  /** kho_memory_init(): takes over what is preserved, or reserves scratch areas. */
  initMemory(early: EarlyMemory, sizes: ScratchSizes): void {
    if (this.incoming.scratch) {
      this.#scratch = this.incoming.scratch
      this.incoming.retrieveMap()
    } else if (this.#enabled) this.#reserveScratch(early, sizes)
  }

  #reserveScratch(early: EarlyMemory, sizes: ScratchSizes): void {
    const areas = reserveScratch(this.#kernel, early, sizes)
    this.#enabled = areas !== undefined
    this.#scratch = areas ?? []
    for (const { addr, size } of this.#scratch) early.markScratch(addr, size)
    early.allocate({ bytes: BigInt(scratchArrayBytes(this.#kernel, this.#scratch.length)), align: 1n })
  }

  /** kho_init(): without memory for it KHO is off, and the scratch areas become ordinary memory. */
  init(): void {
    if (!this.#enabled) return
    if (failed(this.outgoing.init())) {
      this.#enabled = false
      this.#freeScratch()
    } else if (this.#kernel.config.debugfs && this.isKhoBoot) this.incoming.exposeInDebugfs()
  }

  #freeScratch(): void {
    const { pages, target } = this.#kernel
    for (const { addr, size } of this.#scratch) {
      pages.release(Number(addr) / target.pageSize, Number(addr + size) / target.pageSize)
    }
    this.#scratch = []
  }

  preserveFolio(head: PhysAddr): Answer {
    const order = this.#kernel.pages.orderOf(head) ?? 0
    return (
      this.#refusal(head, this.#kernel.target.pageSize * 2 ** order, 'kho_preserve_folio') ??
      this.outgoing.preserve(this.#frame(head), order)
    )
  }

  unpreserveFolio(head: PhysAddr): void {
    this.outgoing.unpreserve(this.#frame(head), this.#kernel.pages.orderOf(head) ?? 0)
  }

  preservePages(pa: PhysAddr, nrPages: number): Answer {
    const pages = this.#count(nrPages)
    const bytes = this.#count(pages * this.#kernel.target.pageSize)
    const function_ = this.#kernel.spec.traits.preservesPages ? 'kho_preserve_pages' : 'kho_preserve_phys'
    const refusal = this.#refusal(pa, bytes, function_)
    if (refusal) return refusal
    const first = this.#frame(pa)
    for (const [frame, order] of this.#split(first, first + pages)) {
      const failure = this.outgoing.preserve(frame, order)
      if (!failed(failure)) continue
      this.#forgetRange(first, frame)
      return failure
    }
  }

  /** A number of pages, or what it makes in bytes, in the type that the release has for it. */
  #count(value: number): number {
    return this.#kernel.spec.traits.narrowCounts ? value >>> 0 : value
  }

  /** kho_preserve_phys() (6.16, 6.17): whole pages only. */
  preservePhys(pa: PhysAddr, bytes: bigint): Answer {
    const size = BigInt(this.#kernel.target.pageSize)
    if (this.outgoing.isLocked) return new Failure('EBUSY')
    if (pa % size !== 0n || bytes % size !== 0n) return new Failure('EINVAL')
    return this.preservePages(pa, Number(bytes / size))
  }

  unpreservePages(pa: PhysAddr, nrPages: number): void {
    const first = this.#frame(pa)
    this.#forgetRange(first, first + this.#count(nrPages))
  }

  /** Why something cannot be preserved at all. */
  #refusal(pa: PhysAddr, bytes: number, function_: string): Failure | undefined {
    const { locksUnits } = this.#kernel.spec.traits
    if (this.outgoing.isLocked && !locksUnits) return new Failure('EBUSY')
    return this.#refuseScratch(pa, bytes, function_)
  }

  #refuseScratch(pa: PhysAddr, bytes: number, function_: string): Failure | undefined {
    const { spec, config, log } = this.#kernel
    if (!config.debug || !spec.traits.checksScratch || !this.overlapsScratch(pa, bytes)) return undefined
    log.warn(spec.source, function_)
    return new Failure('EINVAL')
  }

  /** kho_scratch_overlap() */
  overlapsScratch(pa: PhysAddr, bytes: number): boolean {
    const end = pa + BigInt(bytes)
    return this.#scratch.some(({ addr, size }) => pa < addr + size && end > addr)
  }

  #split(first: number, end: number): ReturnType<typeof splitFrames> {
    const { ram, spec, target } = this.#kernel
    if (!spec.traits.splitsAtNodes || ram.hasOneNode) return splitFrames(first, end)
    return splitFrames(first, end, (frame) => ram.nodeOf(phys(frame * target.pageSize)))
  }

  #forgetRange(first: number, end: number): void {
    for (const [frame, order] of this.#split(first, end)) {
      const isKnown = this.outgoing.unpreserve(frame, order)
      if (!isKnown && this.#kernel.spec.traits.endsAtUnknown) return
    }
  }

  restoreFolio(pa: PhysAddr): PhysAddr | undefined {
    return this.incoming.restorePage(pa, 'folio') === undefined ? undefined : pa
  }

  restorePages(pa: PhysAddr, nrPages: number): PhysAddr | undefined {
    return this.incoming.restorePages(pa, this.#count(nrPages))
  }

  preserveVmalloc(area: VmallocArea): Answer<KhoVmallocValue> {
    return this.#vmalloc.preserve(area)
  }

  unpreserveVmalloc(value: KhoVmallocValue): void {
    this.#vmalloc.unpreserve(value)
  }

  restoreVmalloc(value: KhoVmallocValue): VmallocArea | undefined {
    return this.#vmalloc.restore(value)
  }

  freeVmalloc(area: VmallocArea): void {
    this.#vmalloc.free(area)
  }

  allocVmalloc(bytes: number, order = 0): Answer<VmallocArea> {
    return this.#vmalloc.allocate(bytes, order)
  }

  allocPreserve(bytes: number): Answer<PhysAddr> {
    const { pages, target } = this.#kernel
    if (bytes === 0) return new Failure('EINVAL')
    const order = orderOf(bytes, target.pageSize)
    if (order > pages.maxOrder) return new Failure('E2BIG')
    const head = pages.alloc(order)
    if (failed(head)) return head
    const failure = this.preserveFolio(head)
    if (!failed(failure)) return head
    pages.put(head)
    return failure
  }

  unpreserveFree(pa: PhysAddr): void {
    this.unpreserveFolio(pa)
    this.#kernel.pages.put(pa)
  }

  restoreFree(pa: PhysAddr): void {
    const folio = this.restoreFolio(pa)
    if (folio === undefined) this.#kernel.log.warn(this.#kernel.spec.source, 'kho_restore_free')
    else this.#kernel.pages.put(folio)
  }

  addSubtree(name: string, pa: PhysAddr, size: number): Answer {
    return this.outgoing.addSubtree(name, pa, size)
  }

  removeSubtree(pa: PhysAddr): void {
    this.outgoing.removeSubtree(pa)
  }

  retrieveSubtree(name: string): Answer<Subtree> {
    return this.incoming.retrieveSubtree(name)
  }

  #frame(pa: PhysAddr): number {
    return Math.floor(Number(pa) / this.#kernel.target.pageSize)
  }
}
