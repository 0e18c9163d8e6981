/**
 * memblock: memory before there is a page allocator. It hands out the highest free address, in a kernel
 * that took over only from scratch memory, and says in the end what is left for the page allocator.
 *
 * Source: mm/memblock.c.
 */
import { type PhysAddr, phys } from '../abi/memory.ts'
import { type FrameRange, FrameRanges, FrameSpans } from '../encode/frame-ranges.ts'
import type { MachineRam } from './ram.ts'

export interface EarlyRequest {
  readonly bytes: bigint
  readonly align: bigint
  /** Exclusive upper limit of addresses. */
  readonly limit?: bigint
  readonly node?: number
}

/** A reserved region with the flag RSV_KERN. */
interface KernelRegion {
  readonly start: bigint
  readonly end: bigint
  readonly node: number | undefined
}

export class EarlyMemory {
  readonly #ram: MachineRam
  readonly #reserved = new FrameRanges()
  readonly #kernel: KernelRegion[] = []
  readonly #scratch = new FrameRanges()
  /** memblock_set_kho_scratch_only() */
  scratchOnly = false

  constructor(ram: MachineRam) {
    this.#ram = ram
    this.#reserved.add(0, 1)
  }

  /** Keeps all pages that the range touches. */
  reserve(start: bigint, bytes: bigint): void {
    const { start: first, end } = this.#frames(start, bytes)
    if (end > first) this.#reserved.add(first, end)
  }

  /** Keeps what the kernel takes for itself; without a node for no one in particular. */
  reserveKern(start: bigint, bytes: bigint, node?: number): void {
    this.reserve(start, bytes)
    this.#kernel.push({ start, end: start + bytes, node })
  }

  /** memblock_reserved_kern_size(): what the kernel took for itself, below a limit or of one node. */
  reservedKernSize({ limit, node }: { readonly limit?: bigint; readonly node?: number } = {}): bigint {
    let total = 0n
    for (const region of this.#kernel) {
      if (node !== undefined && region.node !== node) continue
      const end = limit !== undefined && region.end > limit ? limit : region.end
      if (end > region.start) total += end - region.start
    }
    return total
  }

  reserveFrames(first: number, end: number): void {
    this.#reserved.add(first, end)
  }

  markScratch(start: bigint, bytes: bigint): void {
    const { start: first, end } = this.#frames(start, bytes)
    if (end > first) this.#scratch.add(first, end)
  }

  /** memblock_phys_alloc(); undefined if nothing is free. */
  allocate({ bytes, align, limit, node }: EarlyRequest): PhysAddr | undefined {
    const size = BigInt(this.#ram.pageSize)
    const grain = align > size ? align : size
    const allowed = this.scratchOnly ? this.free().within(this.scratch()) : this.free()
    for (let at = allowed.length - 1; at >= 0; at--) {
      const here = this.#ram.rangeOf({ start: allowed.start(at), end: allowed.end(at) })
      if (node !== undefined && this.#ram.nodeOf(here.start) !== node) continue
      const top = limit !== undefined && here.end > limit ? limit : here.end
      if (top - here.start < bytes) continue
      const start = ((top - bytes) / grain) * grain
      if (start < here.start) continue
      this.reserveKern(start, bytes, node)
      return phys(start)
    }
    return undefined
  }

  /** RAM that nobody has reserved; no range crosses nodes. */
  free(): FrameSpans {
    const size = BigInt(this.#ram.pageSize)
    const ram = this.#ram.ranges.map(({ start, end }) => ({
      start: Number((start + size - 1n) / size),
      end: Number(end / size),
    }))
    return FrameSpans.of(ram).without(this.reserved())
  }

  reserved(): FrameSpans {
    return this.#reserved.merged()
  }

  scratch(): FrameSpans {
    return this.#scratch.merged()
  }

  #frames(start: bigint, bytes: bigint): FrameRange {
    const size = BigInt(this.#ram.pageSize)
    const last = this.#ram.ranges.at(-1)?.end ?? 0n
    const end = start + bytes < last ? start + bytes : last
    return { start: Number(start / size), end: Number((end + size - 1n) / size) }
  }
}
