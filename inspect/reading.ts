/**
 * Choosing a reading: neither the page size nor the form of the map is in the image, so every form
 * that the root's compatible string allows is tried at every page size, and the one that the evidence
 * speaks for is taken. What spoke for and against each is kept, to be shown.
 */
import type { PageSize, Target } from '../abi/layout.ts'
import { layoutOf, PAGE_SIZES, pageShift } from '../abi/layout.ts'
import type { PhysAddr, PhysicalMemory, PhysRange } from '../abi/memory.ts'
import { hex } from '../abi/memory.ts'
import type { ComponentVersion } from '../abi/registry.ts'
import type { ChunksEdge, FdtNodeType, RadixEdge } from '../abi/schema.ts'
import { FaultList, type Place } from './faults.ts'
import type { PreservedMap } from './map.ts'
import { walkMap } from './map-walk.ts'

/** What is known about a handover before its map is read. */
export interface MapFacts {
  /** Undefined where nobody knows where the root FDT lies. */
  readonly fdt: PhysAddr | undefined
  /** Address in the map property, and where that is stored. */
  readonly root: bigint
  readonly rootPa: PhysAddr
  /** Start of each subsystem's blob; all of them are preserved memory. */
  readonly blobs: readonly PhysAddr[]
  readonly scratch: readonly PhysRange[]
}

export interface Reading {
  readonly target: Target
  readonly version: ComponentVersion
  readonly map: PreservedMap
  readonly faults: FaultList
  readonly score: number
  /** What speaks for (+) and against (-) this reading, the weightiest first. */
  readonly reasons: readonly string[]
}

/** The edge from the root FDT to the map, found in the declaration. */
export function mapEdge(
  version: ComponentVersion,
): { readonly property: string; readonly edge: ChunksEdge | RadixEdge } | undefined {
  const { properties } = version.root as FdtNodeType
  for (const [property, type] of Object.entries(properties)) {
    if (type.kind !== 'int') continue
    if (type.to?.kind === 'chunks' || type.to?.kind === 'radix') return { property, edge: type.to }
  }
  return undefined
}

/** Tries all readings; best first. Readings of the same bytes in the same way are kept once, the later version's. */
export function tryReadings(
  memory: PhysicalMemory,
  versions: readonly ComponentVersion[],
  pageSizes: readonly PageSize[],
  facts: MapFacts,
  place: Place,
): readonly Reading[] {
  const readings: Reading[] = []
  for (const pageSize of pageSizes) {
    for (const version of [...versions].reverse()) {
      readings.push(tryReading(memory, version, { pageSize }, facts, place))
    }
  }
  return readings.sort((a, b) => b.score - a.score)
}

export function pageSizesToTry(known: PageSize | undefined): readonly PageSize[] {
  return known ? [known] : PAGE_SIZES
}

function tryReading(
  memory: PhysicalMemory,
  version: ComponentVersion,
  target: Target,
  facts: MapFacts,
  place: Place,
): Reading {
  const faults = new FaultList(memory)
  const edge = mapEdge(version)?.edge as ChunksEdge | RadixEdge
  const map = walkMap({ memory, target, faults }, edge, facts.root, place, facts.rootPa)
  const judged: { readonly points: number; readonly reason: string }[] = []
  const judge = (points: number, reason: string): void => {
    judged.push({ points, reason })
  }
  judgeWalk(faults, judge)
  judgeAlignment(target, facts, judge)
  judgePreserved(map, target, facts, judge)
  judgeRam(memory, map, judge)
  if (edge.kind === 'chunks') judgeBitmaps(map, edge, target, judge)
  judged.sort((a, b) => Math.abs(b.points) - Math.abs(a.points))
  const score = judged.reduce((sum, { points }) => sum + points, 0)
  const reasons = judged.map(({ points, reason }) => `${points > 0 ? '+' : '-'} ${reason}`)
  return { target, version, map, faults, score, reasons }
}

type Judge = (points: number, reason: string) => void

/** One wrong pointer in the right reading can meet as many faults as a wrong reading, so their number says little. */
function judgeWalk(faults: FaultList, judge: Judge): void {
  const found = faults.list()
  const broken = found.filter((fault) => fault.severity === 'error')
  const missing = found.length - broken.length
  if (broken.length > 0)
    judge(
      -20 - Math.min(broken.length, 20),
      `the walk meets ${count(broken.length, 'fault')}: ${broken[0]?.message}`,
    )
  if (missing > 0) judge(-2 * Math.min(missing, 20), `${count(missing, 'page')} of the map not in the image`)
}

/** The root FDT and the blobs of the kernel's own subsystems have pages of their own. */
function judgeAlignment({ pageSize }: Target, { fdt, blobs }: MapFacts, judge: Judge): void {
  const isInside = (pa: bigint): boolean => pa % BigInt(pageSize) !== 0n
  if (fdt !== undefined && isInside(fdt)) judge(-50, `the root FDT ${hex(fdt)} does not start at a page`)
  const inside = blobs.filter(isInside)
  if (inside.length > 0)
    judge(-20 * inside.length, `${count(inside.length, 'subsystem blob')} not at the start of a page`)
}

/** The root FDT's page and each blob's first page are preserved in every sound image; scratch never is. */
function judgePreserved(map: PreservedMap, target: Target, facts: MapFacts, judge: Judge): void {
  const shift = BigInt(pageShift(target.pageSize))
  const isUnit = (pa: bigint): boolean =>
    pa % BigInt(target.pageSize) === 0n && map.has(Number(pa >> shift), 0)
  if (facts.fdt === undefined) return
  if (isUnit(facts.fdt)) judge(20, `the root FDT's page ${hex(facts.fdt)} is preserved`)
  else judge(-20, `the root FDT's page ${hex(facts.fdt)} is not preserved as a unit of order 0`)
  const known = facts.blobs.filter((pa) => map.unitAt(Number(pa >> shift)) !== undefined)
  if (known.length > 0)
    judge(5 * known.length, `${known.length} of ${facts.blobs.length} subsystem blobs are preserved`)
  if (known.length < facts.blobs.length) {
    judge(
      -5 * (facts.blobs.length - known.length),
      `${count(facts.blobs.length - known.length, 'subsystem blob')} not preserved`,
    )
  }
  const inScratch = facts.scratch.length > 0 ? unitsIn(map, facts.scratch) : 0
  if (inScratch > 0)
    judge(-10 * Math.min(inScratch, 10), `${count(inScratch, 'preserved run')} in scratch areas`)
}

/** What lies behind the last RAM that the image describes is out of place, although a trimmed image may end early. */
function judgeRam(memory: PhysicalMemory, map: PreservedMap, judge: Judge): void {
  const end = memory.ranges.at(-1)?.end ?? 0n
  let beyond = 0
  for (const extent of map.extents()) if (extent.end > end) beyond += 1
  if (beyond > 0)
    judge(-Math.min(beyond, 15), `${count(beyond, 'preserved extent')} beyond the last memory of the image`)
}

function unitsIn(map: PreservedMap, ranges: readonly PhysRange[]): number {
  let hits = 0
  for (const extent of map.extents()) {
    if (ranges.some((range) => extent.start < range.end && range.start < extent.end)) hits += 1
  }
  return hits
}

/** Bitmap addresses and windows: what only one of the two bitmap sizes of kho-v1 can explain. */
function judgeBitmaps(map: PreservedMap, edge: ChunksEdge, target: Target, judge: Judge): void {
  // Where a bitmap lies says what size it has, whether the image holds it or not.
  const bitmaps = [...map.pages, ...map.missing].filter((page) => page.role === 'bitmap')
  const { size } = layoutOf(edge.bitmap, target)
  const unaligned = bitmaps.filter((page) => page.pa % BigInt(size) !== 0n).length
  const wholePages = bitmaps.filter((page) => page.pa % BigInt(target.pageSize) === 0n).length
  if (unaligned > 0) judge(-50, `${count(unaligned, 'bitmap')} not aligned to ${size} bytes`)
  else if (size === target.pageSize && bitmaps.length > 0)
    judge(3 * Math.min(wholePages, 20), `every bitmap is page-aligned`)
  const overlaps = map.overlappingWindows()
  if (overlaps > 0)
    judge(-50, `${count(overlaps, 'bitmap')} of ${size} bytes would reach into the next one's memory`)
  const offGrid = map.windowsOffGrid()
  if (offGrid > 0) judge(-50, `${count(offGrid, 'bitmap')} of ${size} bytes would start inside of a window`)
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`
}
