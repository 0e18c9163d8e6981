/**
 * Physical memory made of pieces of files: what flat raw, ELF core, LiME and debugfs images come down
 * to. Extents are sorted and disjoint, so that a lookup is a bisection.
 */
import { firstIndex } from '../abi/bisect.ts'
import { MAX_OVERLAPPING_SEGMENTS } from '../abi/container.ts'
import type { Architecture } from '../abi/machine.ts'
import type { FilePosition, PhysAddr, PhysicalMemory, PhysRange, Presence } from '../abi/memory.ts'
import { phys } from '../abi/memory.ts'
import type { Note } from './image-notes.ts'
import { type ByteSource, describeEnd, type Problem } from './image-source.ts'

/** A run of physical memory: bytes of a source, or (without one) left out of the image for a reason. */
export interface Extent {
  readonly start: bigint
  /** Exclusive, at most 2^64. */
  readonly end: bigint
  readonly source?: ByteSource
  /** Of `start`, in the source. */
  readonly offset: number
  readonly reason?: string
  /** Left out not by the dumper, but because the file is too short. */
  readonly lost?: boolean
}

/** What the opener of a container format returns. */
export interface OpenedMemory<M extends PhysicalMemory = SegmentMemory> {
  readonly memory: M
  readonly notes: readonly Note[]
  /** What a reader should know: damage, leftovers, things ignored. One line each. */
  readonly warnings: readonly string[]
  /** The machine that was dumped, where the container says it and KHO exists there. */
  readonly architecture?: Architecture | undefined
}

const ADDRESS_SPACE = 1n << 64n
/** Grain at which an unreadable byte is taken to spoil its neighbours. */
const PROBE_PAGE = 4096n

/** Exclusive end of a run, which is cut where the address space ends. */
export function endOf(start: bigint, length: bigint): bigint {
  return start + length < ADDRESS_SPACE ? start + length : ADDRESS_SPACE
}

/**
 * The extents of `length` bytes at `start` that a container says are at `offset` of its source: as far
 * as the source reaches present, the rest excluded.
 */
export function extentsOf(source: ByteSource, start: bigint, length: bigint, offset: number): Extent[] {
  const end = endOf(start, length)
  const held = source.size === undefined ? end - start : BigInt(Math.max(0, source.size - offset))
  const edge = start + held < end ? start + held : end
  const extents: Extent[] = []
  if (edge > start) extents.push({ start, end: edge, source, offset })
  if (edge < end) {
    const reason = `${source.name}: ${describeEnd(source)}, before this memory`
    extents.push({ start: edge, end, offset: 0, reason, lost: true })
  }
  return extents
}

/**
 * Makes extents disjoint: what is present goes before what is left out, and of several that are
 * present the first given wins. Returns them sorted, and how many present ones were cut or dropped;
 * undefined if they overlap and are too many to be put in order.
 */
export function arrangeExtents(extents: readonly Extent[]): Arranged | undefined {
  const sorted = extents
    .filter((extent) => extent.end > extent.start)
    .sort((a, b) => compare(a.start, b.start))
  if (sorted.every((extent, index) => index === 0 || extent.start >= (sorted[index - 1] as Extent).end)) {
    return { arranged: sorted, overlaps: 0 }
  }
  if (sorted.length > MAX_OVERLAPPING_SEGMENTS) return undefined
  const present = extents.filter((extent) => extent.source)
  return paint([...present, ...extents.filter((extent) => !extent.source)], present.length)
}

/**
 * The arranged extents of a container as memory. Each byte of a file is one byte of memory: a file whose
 * headers say otherwise would take far longer to read than its size tells.
 */
export function memoryOf(
  source: ByteSource,
  extents: readonly Extent[],
): Omit<OpenedMemory, 'notes'> | Problem {
  const sorted = arrangeExtents(extents)
  if (!sorted)
    return {
      problem: `${source.name}: ${extents.length} segments that overlap in physical memory; at most ${MAX_OVERLAPPING_SEGMENTS} are put in order`,
    }
  const { arranged, overlaps } = sorted
  const held = arranged.reduce((sum, { source, start, end }) => (source ? sum + (end - start) : sum), 0n)
  if (source.size !== undefined && held > BigInt(source.size)) {
    return {
      problem: `${source.name}: its segments have ${held} bytes in the file, which has ${source.size}`,
    }
  }
  const warnings: string[] = []
  const lost = arranged.reduce((sum, extent) => (extent.lost ? sum + (extent.end - extent.start) : sum), 0n)
  if (lost > 0n)
    warnings.push(`${source.name}: is cut off: ${describeEnd(source)}, ${lost} bytes of memory early`)
  if (overlaps > 0) {
    warnings.push(
      `${source.name}: ${overlaps} segments overlap earlier ones in physical memory; the first of each counts`,
    )
  }
  return { memory: new SegmentMemory(arranged), warnings }
}

interface Arranged {
  readonly arranged: Extent[]
  readonly overlaps: number
}

/** Paints extents in order of precedence on the line cut at all their ends; a painted stretch stays. */
function paint(extents: readonly Extent[], nrPresent: number): Arranged {
  const cuts = [...new Set(extents.flatMap((extent) => [extent.start, extent.end]))].sort(compare)
  const indexOf = new Map(cuts.map((cut, index) => [cut, index]))
  const owner = new Int32Array(cuts.length).fill(-1)
  const nextFree = Int32Array.from(cuts, (_, index) => index)
  const findFree = (from: number): number => {
    let free = from
    while (nextFree[free] !== free) {
      nextFree[free] = nextFree[nextFree[free] as number] as number
      free = nextFree[free] as number
    }
    return free
  }
  let overlaps = 0
  extents.forEach((extent, precedence) => {
    const end = indexOf.get(extent.end) as number
    let stretch = indexOf.get(extent.start) as number
    let whole = true
    for (; stretch < end; stretch += 1) {
      const free = findFree(stretch)
      whole &&= free === stretch
      if (free >= end) break
      owner[free] = precedence
      nextFree[free] = free + 1
      stretch = free
    }
    if (!whole && precedence < nrPresent) overlaps += 1
  })
  return { arranged: collectStretches(extents, cuts, owner), overlaps }
}

function collectStretches(extents: readonly Extent[], cuts: readonly bigint[], owner: Int32Array): Extent[] {
  const arranged: Extent[] = []
  let from = 0
  for (let index = 1; index < cuts.length; index += 1) {
    if (owner[index] === owner[from]) continue
    const extent = extents[owner[from] as number]
    const start = cuts[from] as bigint
    if (extent)
      arranged.push({
        ...extent,
        start,
        end: cuts[index] as bigint,
        offset: extent.offset + Number(start - extent.start),
      })
    from = index
  }
  return arranged
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0
}

export class SegmentMemory implements PhysicalMemory {
  #extents: readonly Extent[] = []
  #ranges: readonly PhysRange[] = []
  /** Index of the extent found last: reads tend to go on where the one before ended. */
  #recent = 0

  /** Takes extents as `arrangeExtents` returns them. */
  constructor(extents: readonly Extent[]) {
    this.replaceExtents(extents)
  }

  get extents(): readonly Extent[] {
    return this.#extents
  }

  get ranges(): readonly PhysRange[] {
    return this.#ranges
  }

  replaceExtents(extents: readonly Extent[]): void {
    this.#extents = extents
    this.#ranges = mergeRanges(extents)
    this.#recent = 0
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    let done = 0
    let at: bigint = pa
    while (done < out.length) {
      const extent = this.#find(at)
      if (!extent?.source) break
      const room = extent.end - at
      const want = room < BigInt(out.length - done) ? Number(room) : out.length - done
      const got = extent.source.read(
        extent.offset + Number(at - extent.start),
        out.subarray(done, done + want),
      )
      done += got
      at += BigInt(got)
      if (got < want) break
    }
    return done
  }

  presence(pa: PhysAddr): { state: Presence; until: bigint; reason?: string } {
    const extent = this.#find(pa)
    if (!extent) return { state: 'hole', until: this.#nextStart(pa) }
    const { source, end, reason } = extent
    if (!source) return { state: 'excluded', until: end, ...(reason && { reason }) }
    if (this.read(pa, new Uint8Array(1)) === 1) return { state: 'present', until: end }
    // Behind the end of a file nothing follows; behind a page that cannot be read others may.
    const page = (pa / PROBE_PAGE + 1n) * PROBE_PAGE
    const until = source.failure !== undefined && page < end ? page : end
    return {
      state: 'excluded',
      until,
      reason: source.failure ?? `${source.name}: ${describeEnd(source)} earlier than it said`,
    }
  }

  filePosition(pa: PhysAddr): FilePosition | undefined {
    const extent = this.#find(pa)
    return extent?.source?.position(extent.offset + Number(pa - extent.start))
  }

  /** The extent that holds `pa`. */
  #find(pa: bigint): Extent | undefined {
    for (const index of [this.#recent, this.#recent + 1]) {
      const extent = this.#extents[index]
      if (extent && extent.start <= pa && pa < extent.end) {
        this.#recent = index
        return extent
      }
    }
    const index = this.#bisect(pa)
    const extent = this.#extents[index]
    if (!extent || pa >= extent.end) return undefined
    this.#recent = index
    return extent
  }

  /** Index of the last extent that starts at or below `pa`; -1 if there is none. */
  #bisect(pa: bigint): number {
    return firstIndex(this.#extents.length, (index) => (this.#extents[index] as Extent).start > pa) - 1
  }

  #nextStart(pa: bigint): bigint {
    return this.#extents[this.#bisect(pa) + 1]?.start ?? ADDRESS_SPACE
  }
}

function mergeRanges(extents: readonly Extent[]): PhysRange[] {
  const ranges: { start: PhysAddr; end: bigint }[] = []
  for (const extent of extents) {
    const last = ranges.at(-1)
    if (last && last.end === extent.start) last.end = extent.end
    else ranges.push({ start: phys(extent.start), end: extent.end })
  }
  return ranges
}
