/**
 * Writer of preserved vmalloc memory: the array's pages, the chain of chunk pages that lists them, the
 * values of the descriptor, and the folios that the array's records name.
 *
 * Mirrors kho_preserve_vmalloc() (kernel/liveupdate/kexec_handover.c) and memfd_luo_preserve_folios()
 * (mm/memfd_luo.c). A chunk follows as soon as one is full, even if nothing is left to put into it.
 */
import type { Path } from '../abi/fault.ts'
import { vmallocChunkCapacity } from '../abi/kho-vmalloc.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { VmallocEdge } from '../abi/schema.ts'
import { elementSize, writeElements } from './elements.ts'
import { writeFolios } from './folios.ts'
import type { Content, VmallocList } from './handover.ts'
import type { RunTable } from './runs.ts'
import type { Site } from './site.ts'
import { largestOrder, splitPages, type UnitRun, unitBytes, unitRun } from './units.ts'
import { encodeStruct } from './write.ts'

/** Most bytes of one array: 64 GiB lists the folios of a file of 16 TiB in pages of 4K. */
const MAX_ARRAY_BYTES = 2 ** 36

/** The descriptor's fields, as far as the list decides them, and the number of its elements. */
export interface WrittenVmalloc {
  readonly first: bigint
  readonly total_pages: number
  readonly count: bigint
}

/** Writes a list and what its records name; `content` is laid into the folios. */
export function writeVmalloc(
  site: Site,
  edge: VmallocEdge,
  list: VmallocList<string>,
  content: Content | undefined,
  path: Path,
): WrittenVmalloc {
  const nothing = { first: list.first ?? 0n, total_pages: list.total_pages ?? 0, count: 0n }
  const order = list.order ?? 0
  if (!list.records) return nothing
  if (order > largestOrder(site.target.pageSize)) {
    site.report([...path, 'order'], `a group of order ${order} is larger than memory`)
    return nothing
  }
  if (list.records.total * elementSize(edge.element, site.target) > MAX_ARRAY_BYTES) {
    site.report(
      path,
      `${list.records.total} records are more than an array of ${MAX_ARRAY_BYTES} bytes holds`,
    )
    return nothing
  }
  const records = writeFolios(site, edge.element, list.records, content, path)
  const bytes = records.total * elementSize(edge.element, site.target)
  const nrGroups = Math.max(Math.ceil(bytes / unitBytes(order, site.target.pageSize)), list.pages?.total ?? 0)
  if (nrGroups === 0) return nothing
  if (nrGroups * unitBytes(order, site.target.pageSize) > MAX_ARRAY_BYTES) {
    site.report(path, `${nrGroups} groups of 2^${order} pages are more than ${MAX_ARRAY_BYTES} bytes`)
    return nothing
  }
  const groups = placeGroups(site, list, nrGroups, order, path)
  if (groups && !site.surveying) writePages(site, edge, records, groups, order, path)
  const first = writeChunks(site, edge, list, groups, nrGroups, path)
  return {
    first: list.first ?? first ?? 0n,
    total_pages: list.total_pages ?? nrGroups * 2 ** order,
    count: BigInt(records.total),
  }
}

/** The first page of each group of 2^order pages: those that are given, then new ones; undefined in the survey or without room. */
function placeGroups(
  site: Site,
  list: VmallocList<string>,
  nrGroups: number,
  order: number,
  path: Path,
): BigUint64Array | undefined {
  const groups = new BigUint64Array(nrGroups)
  let filled = 0
  const add = (start: bigint, count: number, step: number): void => {
    for (let at = 0; at < count; at++) groups[filled++] = start + BigInt(at) * BigInt(step)
  }
  for (let at = 0; list.pages && at < list.pages.length; at++) {
    const { start, count, step } = unitRun(list.pages, at)
    add(start, count, step)
    preserveGroups(site, { start, order, count, step })
  }
  if (filled === nrGroups) return groups
  const placed = site.units(order, nrGroups - filled, path)
  if (!placed) return undefined
  for (const { start, count } of placed) add(start, count, unitBytes(order, site.target.pageSize))
  return groups
}

/** Each group is preserved as pages: one unit if it is aligned to its size. */
function preserveGroups(site: Site, groups: UnitRun): void {
  const bytes = BigInt(unitBytes(groups.order, site.target.pageSize))
  if (groups.start % bytes === 0n && BigInt(groups.step) % bytes === 0n) {
    site.preserve(groups)
    return
  }
  for (let at = 0; at < groups.count; at++) {
    const start = groups.start + BigInt(at) * BigInt(groups.step)
    const pages = bytes / BigInt(site.target.pageSize)
    for (const run of splitPages(start, pages, site.target.pageSize)) site.preserve(run)
  }
}

/** Writes the elements into their pages; what lies behind the last element is zero. */
function writePages(
  site: Site,
  edge: VmallocEdge,
  records: RunTable<string>,
  groups: BigUint64Array,
  order: number,
  path: Path,
): void {
  const { pageSize } = site.target
  const groupBytes = unitBytes(order, pageSize)
  const length = records.total * elementSize(edge.element, site.target)
  const pageOf = (position: number): bigint => {
    const group = groups[Math.floor(position / groupBytes)] ?? 0n
    return group + BigInt(position % groupBytes) - BigInt(position % pageSize)
  }
  for (let at = 0; at < length; at += pageSize) {
    const pa = pageOf(at)
    if (!site.checkRam(pa, BigInt(pageSize), path)) return
    site.memory.page(phys(pa))
  }
  for (const [group, start] of groups.entries()) {
    const used =
      Math.ceil(Math.min(groupBytes, Math.max(0, length - group * groupBytes)) / pageSize) * pageSize
    if (used < groupBytes) site.clear(start + BigInt(used), BigInt(groupBytes - used))
  }
  let position = 0
  writeElements(site, edge.element, records, path, (bytes) => {
    for (let done = 0; done < bytes.length; ) {
      const offset = position % pageSize
      const part = Math.min(bytes.length - done, pageSize - offset)
      site.memory.page(phys(pageOf(position))).set(bytes.subarray(done, done + part), offset)
      done += part
      position += part
    }
  })
}

/** Writes the chunk pages; returns the address of the first. */
function writeChunks(
  site: Site,
  edge: VmallocEdge,
  list: VmallocList<string>,
  groups: BigUint64Array | undefined,
  nrGroups: number,
  path: Path,
): PhysAddr | undefined {
  const capacity = vmallocChunkCapacity(edge.chunk, site.target)
  const given = list.chunks ?? []
  const nrChunks = Math.max(Math.floor(nrGroups / capacity) + 1, given.length)
  const places: (PhysAddr | undefined)[] = []
  for (let index = 0; index < nrChunks; index++) {
    places.push(site.unit(given[index], 0, [...path, 'chunks', { index }]))
  }
  if (!groups) return undefined
  for (const [index, place] of places.entries()) {
    const chunk = {
      hdr: { next: places[index + 1] ?? phys(0) },
      phys: [...groups.subarray(index * capacity, (index + 1) * capacity)],
    }
    site.write(place, encodeStruct(edge.chunk, chunk, site.target), path)
  }
  return places[0]
}
