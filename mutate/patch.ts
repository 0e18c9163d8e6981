/**
 * Patches: bytes to be put at physical addresses, and memory as it looks with them. Where the image holds
 * no memory, the pages that are written appear, with zeros around what is written.
 */
import { type FilePosition, type PhysAddr, type PhysicalMemory, type PhysRange, phys } from '../abi/memory.ts'

export interface Patch {
  readonly pa: PhysAddr
  readonly bytes: Uint8Array
}

/** Grain at which memory appears, and at which patches are found; larger pages are written whole. */
const PAGE = 4096n

const pageOf = (pa: bigint): bigint => pa - (pa % PAGE)

/** A view of memory with patches over it; of two that overlap the later one lies on top. */
export class PatchedView implements PhysicalMemory {
  readonly ranges: readonly PhysRange[]
  readonly #base: PhysicalMemory
  /** The patches of each page that has some, in their order. */
  readonly #patches = new Map<bigint, Patch[]>()
  /** Starts of the pages that appear, ascending. */
  readonly #fresh: ReadonlySet<bigint>

  constructor(base: PhysicalMemory, patches: readonly Patch[]) {
    this.#base = base
    for (const patch of patches) {
      for (const page of pagesOf(patch)) {
        const others = this.#patches.get(page)
        if (others) others.push(patch)
        else this.#patches.set(page, [patch])
      }
    }
    const absent = [...this.#patches.keys()].filter((page) => !isPresent(base, page))
    this.#fresh = new Set(absent.sort((a, b) => (a < b ? -1 : 1)))
    this.ranges = withPages(base.ranges, [...this.#fresh])
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    let present = 0
    while (present < out.length) {
      const at = pa + BigInt(present)
      const read = this.#base.read(phys(at), out.subarray(present))
      present += read
      if (read > 0) continue
      const page = pageOf(at)
      if (!this.#fresh.has(page)) break
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
    if (this.#fresh.has(pageOf(pa))) return { state: 'present', until: pageOf(pa) + PAGE }
    for (const start of this.#fresh) {
      if (start > pa) return start < below.until ? { ...below, until: start } : below
    }
    return below
  }

  filePosition(pa: PhysAddr): FilePosition | undefined {
    return this.#base.filePosition(pa)
  }

  #overlay(pa: bigint, out: Uint8Array): void {
    if (this.#patches.size === 0) return
    const end = pa + BigInt(out.length)
    for (let page = pageOf(pa); page < end; page += PAGE) {
      for (const patch of this.#patches.get(page) ?? []) {
        const from = greatest(patch.pa, page, pa)
        const to = least(patch.pa + BigInt(patch.bytes.length), page + PAGE, end)
        if (from >= to) continue
        out.set(patch.bytes.subarray(Number(from - patch.pa), Number(to - patch.pa)), Number(from - pa))
      }
    }
  }
}

const greatest = (...values: readonly bigint[]): bigint => values.reduce((a, b) => (a > b ? a : b))
const least = (...values: readonly bigint[]): bigint => values.reduce((a, b) => (a < b ? a : b))

function pagesOf({ pa, bytes }: Patch): readonly bigint[] {
  const pages: bigint[] = []
  for (let page = pageOf(pa); page < pa + BigInt(bytes.length); page += PAGE) pages.push(page)
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
