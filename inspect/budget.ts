/**
 * What one decoding may cost. Counts and pointers are checked one by one where they are followed; this
 * bounds what they add up to, so that no image, however it is made, takes all memory or never ends.
 */

/** Structs that become records of the tree; the kernel takes 510,000 sessions at most. */
export const MAX_RECORDS = 600_000
/** Elements of vmalloc areas, which never become records: as many as the 4K folios of 1 TiB. */
export const MAX_ELEMENTS = 1 << 28
/** Pointers of the map of preserved memory that are followed: leaves for 64 TiB of 4K pages. */
export const MAX_MAP_STEPS = 1 << 19
/** The same where pages are followed again and again, as a kernel would that does not look. */
export const MAX_TRUSTED_STEPS = 1 << 11
export const MAX_TRUSTED_RUNS = 1 << 16
/** Runs of neighbouring units in the map; their number, not that of the units, is what a pass over it costs. */
export const MAX_MAP_RUNS = 1 << 24
/** Bytes of FDTs in all; the kernel's own have a page or a few, and each node costs many times its bytes. */
export const MAX_FDT_BYTES = 4 * 1024 * 1024
/** Bytes of the KHO test's folios: what it preserves, unless it is told otherwise, with pages of 64K. */
export const MAX_SUMMED_BYTES = 1 << 30

export class Budget {
  #records = MAX_RECORDS
  #elements = MAX_ELEMENTS
  #fdtBytes = MAX_FDT_BYTES

  /** Takes up to `count` records; returns how many may still be made. */
  takeRecords(count: number): number {
    const granted = Math.min(count, this.#records)
    this.#records -= granted
    return granted
  }

  /** Whether no record may be made any more. */
  get isSpent(): boolean {
    return this.#records === 0
  }

  /** Takes up to `count` elements of a vmalloc area. */
  takeElements(count: number): number {
    const granted = Math.min(count, this.#elements)
    this.#elements -= granted
    return granted
  }

  /** Bytes of FDTs that may still be parsed. */
  get fdtBytes(): number {
    return this.#fdtBytes
  }

  spendFdtBytes(length: number): void {
    this.#fdtBytes -= length
  }
}
