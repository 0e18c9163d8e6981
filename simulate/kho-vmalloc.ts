/**
 * KHO's functions for vmalloc memory: a chain of preserved chunk pages that lists the groups of pages.
 *
 * Source: kernel/liveupdate/kexec_handover.c: kho_preserve_vmalloc(), kho_unpreserve_vmalloc(),
 * kho_restore_vmalloc().
 */
import { khoVmallocChunk, khoVmallocHdr, vmallocChunkCapacity, vmallocFlags } from '../abi/kho-vmalloc.ts'
import { fieldOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { KernelBase } from './context.ts'
import type { KhoApi, KhoVmallocValue, VmallocArea } from './core.ts'

const SUPPORTED_FLAGS = vmallocFlags.ALLOC | vmallocFlags.HUGE_VMAP
/** kvmalloc() takes at most INT_MAX bytes for the array of page pointers, 8 bytes each. */
const MAX_POINTERS = 0x7fff_ffff / 8

export class KhoVmalloc {
  readonly #kernel: KernelBase
  readonly #kho: KhoApi
  readonly #capacity: number
  readonly #nextAt: number
  readonly #physAt: number

  constructor(kernel: KernelBase, kho: KhoApi) {
    this.#kernel = kernel
    this.#kho = kho
    this.#capacity = vmallocChunkCapacity(khoVmallocChunk, kernel.target)
    this.#nextAt = fieldOf(khoVmallocHdr, 'next', kernel.target).offset
    this.#physAt = fieldOf(khoVmallocChunk, 'phys', kernel.target).offset
  }

  /** vmalloc() of pages in groups of 2^order, each page on its own. */
  allocate(bytes: number, order = 0): Answer<VmallocArea> {
    const { pages, target } = this.#kernel
    const groups = Math.ceil(bytes / (target.pageSize * 2 ** order))
    if (groups === 0) return new Failure('ENOMEM')
    const found: PhysAddr[] = []
    for (let at = 0; at < groups; at++) {
      const group = pages.alloc(order)
      if (failed(group)) {
        this.free({ pages: found, order, flags: vmallocFlags.ALLOC, nrPages: found.length * 2 ** order })
        return group
      }
      pages.split(group)
      found.push(group)
    }
    return { pages: found, order, flags: vmallocFlags.ALLOC, nrPages: groups * 2 ** order }
  }

  free({ pages: groups, order }: VmallocArea): void {
    const { pages, target } = this.#kernel
    for (const group of groups) {
      for (let at = 0; at < 2 ** order; at++) pages.put(phys(group + BigInt(at * target.pageSize)))
    }
  }

  preserve(area: VmallocArea): Answer<KhoVmallocValue> {
    if ((area.flags & ~SUPPORTED_FLAGS) !== 0) return new Failure('EOPNOTSUPP')
    const first = this.#newChunk()
    if (failed(first)) return new Failure('ENOMEM')
    const value = { first, total_pages: area.nrPages, flags: area.flags, order: area.order }
    const failure = this.#list(first, area)
    if (!failed(failure)) return value
    // The descriptor's order is filled in last, so that the rollback goes by the zero in it.
    this.unpreserve({ ...value, order: 0 })
    return failure
  }

  #list(first: PhysAddr, { pages: groups, order }: VmallocArea): Answer {
    let chunk = first
    let index = 0
    for (const group of groups) {
      const failure = this.#kho.preservePages(group, 2 ** order)
      if (failed(failure)) return failure
      this.#view(chunk).setBigUint64(this.#physAt + 8 * index++, group, true)
      if (index < this.#capacity) continue
      const next = this.#newChunk()
      if (failed(next)) return new Failure('ENOMEM')
      this.#view(chunk).setBigUint64(this.#nextAt, next, true)
      chunk = next
      index = 0
    }
  }

  unpreserve(value: KhoVmallocValue): void {
    for (let chunk = phys(value.first); chunk !== 0n; ) {
      this.#kho.unpreservePages(chunk, 1)
      for (const group of this.#groups(chunk)) this.#kho.unpreservePages(group, 2 ** value.order)
      const next = this.#next(chunk)
      this.#kernel.pages.put(chunk)
      chunk = next
    }
  }

  /** Undefined where the kernel returns NULL; what was restored until then is lost. */
  restore(value: KhoVmallocValue): VmallocArea | undefined {
    const { total_pages: total, order } = value
    if (total > MAX_POINTERS) return undefined
    // `1 << order` of a 32-bit 1: the processor takes five bits of the order.
    const step = 2 ** (order & 31)
    const found: PhysAddr[] = []
    for (let chunk = this.#pointer(value.first); chunk !== 0n; ) {
      for (const group of this.#groups(chunk)) {
        if ((found.length + 1) * step > total) return undefined
        if (this.#kho.restorePages(group, step) === undefined) return undefined
        found.push(phys(group - (group % BigInt(this.#kernel.target.pageSize))))
      }
      const next = this.#next(chunk)
      if (this.#kho.restorePages(chunk, 1) === undefined) return undefined
      this.#kernel.pages.put(chunk)
      chunk = next
    }
    if (total === 0 || found.length * step !== total) return undefined
    return { pages: found, order, flags: value.flags & SUPPORTED_FLAGS, nrPages: total }
  }

  #newChunk(): Answer<PhysAddr> {
    const chunk = this.#kernel.pages.alloc(0)
    if (failed(chunk)) return chunk
    const failure = this.#kho.preservePages(chunk, 1)
    if (!failed(failure)) return chunk
    this.#kernel.pages.put(chunk)
    return failure
  }

  /** Addresses of a chunk up to the first zero. */
  #groups(chunk: PhysAddr): readonly PhysAddr[] {
    const { ram, target } = this.#kernel
    const bytes = ram.read(chunk, target.pageSize, this.#physAt)
    const view = new DataView(bytes.buffer)
    const groups: PhysAddr[] = []
    for (let index = 0; index < this.#capacity; index++) {
      const group = view.getBigUint64(this.#physAt + 8 * index, true)
      if (group === 0n) break
      groups.push(phys(group))
    }
    return groups
  }

  #next(chunk: PhysAddr): PhysAddr {
    const bytes = this.#kernel.ram.read(phys(chunk + BigInt(this.#nextAt)), 8)
    return this.#pointer(new DataView(bytes.buffer).getBigUint64(0, true))
  }

  /** KHOSER_LOAD_PTR() */
  #pointer(stored: bigint): PhysAddr {
    return stored === 0n ? phys(0) : this.#kernel.ram.physToVirt(stored)
  }

  #view(chunk: PhysAddr): DataView {
    const page = this.#kernel.ram.page(chunk)
    return new DataView(page.buffer, page.byteOffset)
  }
}
