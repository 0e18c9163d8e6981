/**
 * What is known of the machine's RAM. An image need not hold all of it, and what it leaves out it may not
 * even mention, so only what lies outside of everything known is taken for no memory at all.
 */
import { sectionSize } from '../abi/kho-map.ts'
import type { PageSize } from '../abi/layout.ts'
import type { PhysRange } from '../abi/memory.ts'

/** From the first to the last section of memory that anything is known of. */
export class KnownMemory {
  readonly start: bigint
  readonly end: bigint

  constructor(ranges: readonly PhysRange[], pageSize: PageSize) {
    const section = sectionSize(pageSize)
    let start: bigint | undefined
    let end = 0n
    for (const range of ranges) {
      if (range.start >= range.end) continue
      if (start === undefined || range.start < start) start = range.start
      if (range.end > end) end = range.end
    }
    this.start = ((start ?? 0n) / section) * section
    this.end = ((end + section - 1n) / section) * section
  }

  /** Whether there may be RAM at an address. */
  mayHold(pa: bigint): boolean {
    return pa >= this.start && pa < this.end
  }
}
