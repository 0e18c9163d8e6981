/**
 * Patches: bytes to be put at physical addresses, and memory as it looks with them. A patch never makes
 * memory appear that the image does not hold.
 */
import type { FilePosition, PhysAddr, PhysicalMemory, PhysRange } from '../abi/memory.ts'

export interface Patch {
  readonly pa: PhysAddr
  readonly bytes: Uint8Array
}

/** A view of memory with patches over it; of two that overlap the later one lies on top. */
export class PatchedView implements PhysicalMemory {
  readonly #base: PhysicalMemory
  readonly #patches: readonly Patch[]

  constructor(base: PhysicalMemory, patches: readonly Patch[]) {
    this.#base = base
    this.#patches = patches
  }

  get ranges(): readonly PhysRange[] {
    return this.#base.ranges
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    const present = this.#base.read(pa, out)
    const end = pa + BigInt(present)
    for (const { pa: start, bytes } of this.#patches) {
      const stop = start + BigInt(bytes.length)
      if (start >= end || stop <= pa) continue
      const from = start > pa ? start : pa
      const to = stop < end ? stop : end
      out.set(bytes.subarray(Number(from - start), Number(to - start)), Number(from - pa))
    }
    return present
  }

  presence(pa: PhysAddr): ReturnType<PhysicalMemory['presence']> {
    return this.#base.presence(pa)
  }

  /** Where the unpatched byte stands: the place to change in a copy of the file. */
  filePosition(pa: PhysAddr): FilePosition | undefined {
    return this.#base.filePosition(pa)
  }
}
