/**
 * Patches: bytes to be put at physical addresses, and memory as it looks with them. Where the image holds
 * no memory, the pages that are written appear, with zeros around what is written.
 */
import { type FilePosition, type PhysAddr, type PhysicalMemory, type PhysRange, phys } from '../abi/memory.ts'

export interface Patch {
  readonly pa: PhysAddr
  readonly bytes: Uint8Array
}

/** Grain at which memory appears; larger pages are written whole. */
const PAGE = 4096n

/** A view of memory with patches over it; of two that overlap the later one lies on top. */
export class PatchedView implements PhysicalMemory {
  readonly ranges: readonly PhysRange[]
  readonly #base: PhysicalMemory
  readonly #patches: readonly Patch[]
  /** Starts of the pages that appear, ascending. */
  readonly #fresh: readonly bigint[]

  constructor(base: PhysicalMemory, patches: readonly Patch[]) {
    this.#base = base
    this.#patches = patches
    const pages = new Set(patches.flatMap(pagesOf).filter((page) => !isPresent(base, page)))
    this.#fresh = [...pages].sort((a, b) => (a < b ? -1 : 1))
    this.ranges = withPages(base.ranges, this.#fresh)
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    let present = 0
    while (present < out.length) {
      const at = pa + BigInt(present)
      const read = this.#base.read(phys(at), out.subarray(present))
      present += read
      if (read > 0) continue
      const page = this.#freshAt(at)
      if (page === undefined) break
      const end = Math.min(out.length, present + Number(page + PAGE - at))
      out.fill(0, present, end)
      present = end
    }
    this.#overlay(pa, out.subarray(0, present))
    return present
  }

  presence(pa: PhysAddr): ReturnType<PhysicalMemory['presence']> {
    const below = this.#base.presence(pa)
    if (below.state === 'present') return below
    const page = this.#freshAt(pa)
    if (page !== undefined) return { state: 'present', until: page + PAGE }
    const next = this.#fresh.find((start) => start > pa)
    return next !== undefined && next < below.until ? { ...below, until: next } : below
  }

  filePosition(pa: PhysAddr): FilePosition | undefined {
    return this.#base.filePosition(pa)
  }

  #freshAt(pa: bigint): bigint | undefined {
    return this.#fresh.find((start) => start <= pa && pa < start + PAGE)
  }

  #overlay(pa: bigint, out: Uint8Array): void {
    const end = pa + BigInt(out.length)
    for (const { pa: start, bytes } of this.#patches) {
      const stop = start + BigInt(bytes.length)
      if (start >= end || stop <= pa) continue
      const from = start > pa ? start : pa
      const to = stop < end ? stop : end
      out.set(bytes.subarray(Number(from - start), Number(to - start)), Number(from - pa))
    }
  }
}

function pagesOf({ pa, bytes }: Patch): readonly bigint[] {
  const pages: bigint[] = []
  for (let page = pa - (pa % PAGE); page < pa + BigInt(bytes.length); page += PAGE) pages.push(page)
  return pages
}

function isPresent(memory: PhysicalMemory, page: bigint): boolean {
  return memory.presence(phys(page)).state === 'present'
}

/** Ranges with the pages in them or joined to them. */
function withPages(ranges: readonly PhysRange[], pages: readonly bigint[]): readonly PhysRange[] {
  if (pages.length === 0) return ranges
  const added = pages.map((start) => ({ start: phys(start), end: start + PAGE }))
  const joined: PhysRange[] = []
  for (const range of [...ranges, ...added].sort((a, b) => (a.start < b.start ? -1 : 1))) {
    const last = joined.at(-1)
    if (!last || range.start > last.end) joined.push(range)
    else if (range.end > last.end) joined[joined.length - 1] = { start: last.start, end: range.end }
  }
  return joined
}
