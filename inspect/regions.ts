/**
 * Regions: the byte ranges that were decoded, each an exact partition into named spans. What explains
 * an address or annotates a hex dump comes from here.
 *
 * Regions are made from the tree when they are asked for; nothing is stored per byte or per record.
 */
import type { Path } from '../abi/fault.ts'
import { formatPath } from '../abi/fault.ts'
import { fdtHeader, fdtReserveEntry } from '../abi/fdt.ts'
import { countOf, type FieldLayout, layoutOf, type Target } from '../abi/layout.ts'
import { hex, type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import type { ArrayType, StructType } from '../abi/schema.ts'
import { readInt } from './component.ts'
import type { Handover } from './decode.ts'
import type { Fdt } from './fdt.ts'
import type { MapPage, PreservedMap } from './map.ts'
import { readLeading } from './read.ts'
import { decodeStruct } from './record.ts'
import { quoted, showNumber, showScalar } from './scalar.ts'
import type { PlacedFdt } from './subtree.ts'
import { childrenOf, type ListNode, type Node, type RecordNode } from './tree.ts'
import type { VmallocArray } from './vmalloc.ts'

/** Bytes with one meaning. */
export interface Span {
  readonly pa: PhysAddr
  readonly length: number
  /** Path in the decoded tree where there is one, else the structure's own words. */
  readonly path: string
  readonly value: string
  /** Padding, unused room, left-over bytes: nothing is stored there. */
  readonly gap?: boolean
}

export interface Region {
  readonly pa: PhysAddr
  readonly length: number
  readonly path: string
  /** What the region is, in the kernel's words: `struct memfd_luo_ser`. */
  readonly title: string
  /** Spans that cover the region exactly, in order. */
  readonly spans: () => readonly Span[]
}

/** All regions of a handover that touch `[start, end)`, ascending by address. */
export function regionsIn(handover: Handover, start: bigint, end: bigint): readonly Region[] {
  const found: Region[] = []
  for (const region of allRegions(handover, start, end)) {
    if (region.pa < end && region.pa + BigInt(region.length) > start) found.push(region)
  }
  return found.sort((a, b) => (a.pa < b.pa ? -1 : a.pa > b.pa ? 1 : 0))
}

/** Every region; bulk ones only as far as they touch the range. */
function* allRegions(handover: Handover, start: bigint, end: bigint): Generator<Region> {
  for (const placed of handover.fdts) yield fdtRegion(placed, handover.tree)
  yield* nodeRegions(handover, handover.tree, [], start, end)
}

function* nodeRegions(
  handover: Handover,
  node: Node,
  path: Path,
  start: bigint,
  end: bigint,
): Generator<Region> {
  const { memory, target } = handover
  if (node.kind === 'preserved') {
    for (const page of node.map.pages) yield mapRegion(memory, target, node.map, page)
    return
  }
  if (node.kind === 'record' && node.bulk) yield* bulkRegions(memory, target, node.bulk, path, start, end)
  if (node.kind === 'record' && isStandalone(node)) yield structRegion(memory, target, node, path)
  if (node.kind === 'list') yield* listRegions(memory, target, node, path)
  for (const inner of childrenOf(node)) {
    const inList = node.kind === 'list' && node.storage !== undefined
    yield* nodeRegions(handover, inList ? linksOnly(inner) : inner, [...path, inner.segment], start, end)
  }
}

/** A struct that is not part of an FDT, a list's page or another struct. */
function isStandalone(node: RecordNode): boolean {
  return node.type?.kind === 'struct' && node.length > 0 && node.version !== undefined
}

/** An element whose own bytes are covered by its list's pages. */
function linksOnly(node: Node): Node {
  return node.kind === 'record' ? { ...node, length: 0 } : node
}

function structRegion(memory: PhysicalMemory, target: Target, node: RecordNode, path: Path): Region {
  const struct = node.type as StructType
  const { pa, length } = node
  const text = formatPath(path)
  return {
    pa,
    length,
    path: text,
    title: `struct ${struct.name}`,
    spans: () => structSpans(memory, target, struct, pa, path),
  }
}

/** Says what a word of a bitmap stands for; `bit` is the number of its lowest bit. */
type WordText = (word: bigint, bit: number) => string

/**
 * The fields of a struct as spans: nested structs and arrays flattened, bitmaps word by word, padding
 * named; values as far as the image holds them.
 */
function structSpans(
  memory: PhysicalMemory,
  target: Target,
  struct: StructType,
  pa: PhysAddr,
  path: Path,
  wordText: WordText = hex,
): Span[] {
  const layout = layoutOf(struct, target)
  const bytes = readLeading(memory, pa, layout.size)
  const complete = bytes.length === layout.size
  const values = complete ? (decodeStruct(struct, bytes, target) as Record<string, unknown>) : undefined
  const spans: Span[] = []
  for (const field of layout.fields) {
    const { type, offset, size, name } = field
    const at = phys(pa + BigInt(offset))
    if (type.kind === 'struct') spans.push(...structSpans(memory, target, type, at, [...path, name]))
    else if (type.kind === 'array')
      spans.push(...arraySpans(memory, target, type, field, at, [...path, name]))
    else if (type.kind === 'bitmap')
      spans.push(...bitmapSpans(bytes.subarray(offset, offset + size), at, [...path, name], wordText))
    else {
      const shared = layout.fields.filter((other) => other.offset === offset)
      if (shared[0] !== field) continue
      const label = shared.map((other) => other.name).join('+')
      const value = shared.map((other) => fieldValue(other, values)).join(', ')
      spans.push({ pa: at, length: size, path: formatPath([...path, label]), value })
    }
  }
  for (const { offset, size } of layout.padding) {
    spans.push({
      pa: phys(pa + BigInt(offset)),
      length: size,
      path: `padding of ${struct.name}`,
      value: '',
      gap: true,
    })
  }
  return spans.sort((a, b) => Number(a.pa - b.pa))
}

function arraySpans(
  memory: PhysicalMemory,
  target: Target,
  type: ArrayType,
  field: FieldLayout,
  pa: PhysAddr,
  path: Path,
): Span[] {
  const { element } = type
  const count = countOf(type, target, field.offset)
  const size = field.size / count
  const spans: Span[] = []
  for (let index = 0; index < count; index++) {
    const at = phys(pa + BigInt(index * size))
    const place = [...path, { index }]
    if (element.kind === 'struct') spans.push(...structSpans(memory, target, element, at, place))
    else {
      const bytes = readLeading(memory, at, size)
      const stored = bytes.length < size ? undefined : readInt(element, bytes)
      const value = stored === undefined ? 'not in the image' : showScalar(element, stored)
      spans.push({
        pa: at,
        length: size,
        path: formatPath(place),
        value,
        ...(stored === 0n && { gap: true }),
      })
    }
  }
  return spans
}

function bitmapSpans(bytes: Uint8Array, pa: PhysAddr, path: Path, wordText: WordText): Span[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const text = formatPath(path)
  return Array.from({ length: Math.floor(bytes.length / 8) }, (_, index) => {
    const bit = index * 64
    const word = view.getBigUint64(index * 8, true)
    const span = { pa: phys(pa + BigInt(index * 8)), length: 8, path: `${text} bits ${bit} to ${bit + 63}` }
    return { ...span, value: wordText(word, bit), ...(word === 0n && { gap: true }) }
  })
}

function fieldValue(field: FieldLayout, values: Record<string, unknown> | undefined): string {
  const { type, name } = field
  const value = values?.[name] as number | bigint | Uint8Array | undefined
  if (value === undefined) return 'not in the image'
  if (type.kind === 'bits') return `${name} ${showScalar(type, value)}`
  return type.kind === 'int' || type.kind === 'text' ? showScalar(type, value) : `${field.size} bytes`
}

/** Header, elements and unused room of the pages that hold a list. */
function* listRegions(memory: PhysicalMemory, target: Target, node: ListNode, path: Path): Generator<Region> {
  const { storage } = node
  if (!storage) return
  const text = formatPath(path)
  if (storage.kind === 'unit') {
    const region = {
      pa: storage.pa,
      length: storage.length,
      path: text,
      title: `array of ${node.items.length} ${text}`,
    }
    yield { ...region, spans: () => pageSpans(memory, target, region, storage.header, node.items, path) }
    return
  }
  let first = 0
  for (const [index, block] of storage.blocks.entries()) {
    const items = node.items.slice(
      first,
      first + Number(block.count > BigInt(node.items.length) ? 0n : block.count),
    )
    first += items.length
    const region = { pa: block.pa, length: storage.length, path: text, title: `block ${index} of ${text}` }
    yield { ...region, spans: () => pageSpans(memory, target, region, storage.header, items, path) }
  }
}

function pageSpans(
  memory: PhysicalMemory,
  target: Target,
  region: { pa: PhysAddr; length: number; title: string },
  header: StructType | undefined,
  items: readonly Node[],
  path: Path,
): Span[] {
  const spans: Span[] = header ? structSpans(memory, target, header, region.pa, [header.name]) : []
  for (const item of items) {
    if (item.kind !== 'record' || item.type?.kind !== 'struct') continue
    spans.push(...structSpans(memory, target, item.type, item.pa, [...path, item.segment]))
  }
  return withGaps(spans, region, `unused room of ${region.title}`)
}

/** Fills what spans leave uncovered with named gaps, so that they cover the region exactly. */
function withGaps(spans: readonly Span[], region: { pa: PhysAddr; length: number }, name: string): Span[] {
  const covered: Span[] = []
  let at: bigint = region.pa
  const end = region.pa + BigInt(region.length)
  const gapTo = (until: bigint): void => {
    if (until > at)
      covered.push({ pa: phys(at), length: Number(until - at), path: name, value: '', gap: true })
  }
  for (const span of [...spans].sort((a, b) => (a.pa < b.pa ? -1 : 1))) {
    if (span.pa < at || span.pa + BigInt(span.length) > end) continue
    gapTo(span.pa)
    covered.push(span)
    at = span.pa + BigInt(span.length)
  }
  gapTo(end)
  return covered
}

function fdtRegion({ path, pa, fdt }: PlacedFdt, tree: Node): Region {
  const region = { pa, length: fdt.bytes.length, path, title: `FDT of ${path}` }
  const spans = (): Span[] => {
    const values: Span[] = []
    collectValues(tree, [], pa, pa + BigInt(region.length), values)
    return withGaps(fdtSpans(fdt, pa, path, values), region, 'unused room of the FDT')
  }
  return { ...region, spans }
}

/** The stored scalars that lie in a range, as spans. */
function collectValues(node: Node, path: Path, start: bigint, end: bigint, into: Span[]): void {
  if (node.kind === 'value' && node.pa >= start && node.pa < end) {
    const { pa, length } = node
    into.push({ pa, length, path: formatPath(path), value: showScalar(node.type, node.value) })
  }
  for (const inner of childrenOf(node)) collectValues(inner, [...path, inner.segment], start, end, into)
}

/** Layouts of the FDT container do not depend on the page size. */
const ANY_PAGE: Target = { pageSize: 4096 }

function fdtSpans(fdt: Fdt, pa: PhysAddr, path: string, values: readonly Span[]): Span[] {
  const { header, bytes } = fdt
  const at = (offset: number): PhysAddr => phys(pa + BigInt(offset))
  const spans: Span[] = layoutOf(fdtHeader, ANY_PAGE).fields.map(({ name, offset, size, type }) => ({
    pa: at(offset),
    length: size,
    path: `${path} fdt_header.${name}`,
    value: type.kind === 'int' ? showScalar(type, header[name as keyof typeof header]) : '',
  }))
  for (const span of reserveSpans(fdt, pa, path)) spans.push(span)
  const storedIn = inTurn(values)
  for (const { offset, length, label, text } of fdt.pieces()) {
    const stored = label === 'property value' ? storedIn(at(offset), length) : []
    const gap = label === 'padding'
    if (stored.length > 0) spans.push(...stored)
    else spans.push({ pa: at(offset), length, path: `${path} ${label}`, value: text, ...(gap && { gap }) })
  }
  const { off_dt_strings: from, size_dt_strings: size } = header
  for (let start = from; start < Math.min(from + size, bytes.length); ) {
    const nul = bytes.subarray(start, from + size).indexOf(0)
    const length = nul < 0 ? Math.min(from + size, bytes.length) - start : nul + 1
    const value = quoted(
      Buffer.from(bytes.subarray(start, start + length - (nul < 0 ? 0 : 1))).toString('latin1'),
    )
    spans.push({ pa: at(start), length, path: `${path} string at ${start - from}`, value })
    start += length
  }
  return spans
}

/** Hands out the spans inside of one range after the other; ranges must ascend. */
function inTurn(spans: readonly Span[]): (start: bigint, length: number) => readonly Span[] {
  const sorted = spans.toSorted((a, b) => (a.pa < b.pa ? -1 : a.pa > b.pa ? 1 : 0))
  let next = 0
  return (start, length) => {
    const isBefore = (span: Span | undefined): boolean => span !== undefined && span.pa < start
    const isInside = (span: Span | undefined): boolean =>
      span !== undefined && span.pa + BigInt(span.length) <= start + BigInt(length)
    while (isBefore(sorted[next])) next += 1
    const first = next
    while (isInside(sorted[next])) next += 1
    return sorted.slice(first, next)
  }
}

function reserveSpans(fdt: Fdt, pa: PhysAddr, path: string): Span[] {
  const { size } = layoutOf(fdtReserveEntry, ANY_PAGE)
  const spans: Span[] = []
  const end = Math.min(fdt.header.off_dt_struct, fdt.bytes.length)
  for (let at = fdt.header.off_mem_rsvmap; at + size <= end; at += size) {
    const entry = decodeStruct(fdtReserveEntry, fdt.bytes.subarray(at, at + size), ANY_PAGE)
    const last = entry.address === 0n && entry.size === 0n
    const value = last
      ? 'end of the reservation block'
      : `${hex(entry.address)}, ${showNumber(entry.size, 'bytes')}`
    spans.push({ pa: phys(pa + BigInt(at)), length: size, path: `${path} fdt_reserve_entry`, value })
    if (last) break
  }
  return spans
}

function* bulkRegions(
  memory: PhysicalMemory,
  target: Target,
  bulk: VmallocArray,
  path: Path,
  start: bigint,
  end: bigint,
): Generator<Region> {
  const text = formatPath(path)
  for (const [index, pa] of bulk.chunks.entries()) {
    const region = { pa, length: target.pageSize, path: text, title: `vmalloc chunk ${index} of ${text}` }
    const place = [...path, 'chunks', { index }]
    yield { ...region, spans: () => structSpans(memory, target, bulk.chunk, pa, place) }
  }
  for (const [group, groupPa] of bulk.groups.entries()) {
    if (groupPa < end && groupPa + BigInt(bulk.groupBytes) > start)
      yield* groupRegions(bulk, group, path, start, end)
  }
}

/** The pages of one group of 2^order pages that touch the range, as far as they hold elements, and the rest. */
function* groupRegions(
  bulk: VmallocArray,
  group: number,
  path: Path,
  start: bigint,
  end: bigint,
): Generator<Region> {
  const { pageSize } = bulk.target
  const text = formatPath(path)
  const groupPa = bulk.groups[group] as bigint
  const pagesBefore = (group * bulk.groupBytes) / pageSize
  const usedPages = Math.ceil((bulk.available * bulk.elementSize) / pageSize) - pagesBefore
  const used = Math.max(0, Math.min(bulk.groupBytes / pageSize, usedPages))
  const first = start > groupPa ? Number((start - groupPa) / BigInt(pageSize)) : 0
  for (let page = first; page < used; page++) {
    const pa = phys(groupPa + BigInt(page * pageSize))
    if (pa >= end) return
    const index = pagesBefore + page
    const region = { pa, length: pageSize, path: text, title: `page ${index} of ${text}` }
    yield { ...region, spans: () => elementSpans(bulk, region, index, path) }
  }
  const rest = { pa: phys(groupPa + BigInt(used * pageSize)), length: bulk.groupBytes - used * pageSize }
  if (rest.length === 0 || rest.pa >= end) return
  const region = { ...rest, path: text, title: `unused pages of ${text}` }
  yield { ...region, spans: () => withGaps([], region, region.title) }
}

function elementSpans(
  bulk: VmallocArray,
  region: { pa: PhysAddr; length: number; title: string },
  page: number,
  path: Path,
): Span[] {
  const perPage = region.length / bulk.elementSize
  const spans: Span[] = []
  for (let index = page * perPage; index < Math.min(bulk.available, (page + 1) * perPage); index++) {
    const value = Object.entries(bulk.valueAt(index) ?? {}).map(
      ([name, number]) => `${name} ${fieldText(bulk, name, number)}`,
    )
    const place = formatPath([...path.slice(0, -1), `${bulk.item}_list`, { index }])
    spans.push({ pa: bulk.addressOf(index), length: bulk.elementSize, path: place, value: value.join(', ') })
  }
  return withGaps(spans, region, `unused room of ${region.title}`)
}

function fieldText(bulk: VmallocArray, name: string, value: number | bigint): string {
  const type = bulk.element.kind === 'struct' ? bulk.element.fields[name] : bulk.element
  return type?.kind === 'int' || type?.kind === 'bits' ? showScalar(type, value) : String(value)
}

/** A page of the map: pointers word by word, bitmaps by the units that each word stands for. */
function mapRegion(memory: PhysicalMemory, target: Target, map: PreservedMap, page: MapPage): Region {
  const { pa, length, role, level } = page
  const struct = map.structOf(page)
  const inTree = role === 'leaf' || role === 'node'
  const title = inTree
    ? `radix ${role} of level ${level}, struct ${struct.name}`
    : `map ${role}, struct ${struct.name}`
  const units: WordText = (word, bit) => unitsText(map, page, word, bit)
  return {
    pa,
    length,
    path: 'preserved',
    title,
    spans: () => structSpans(memory, target, struct, pa, [struct.name], units),
  }
}

/** `3 units of order 0 from 0x1ff0000`, or `no unit`. */
function unitsText(map: PreservedMap, page: MapPage, word: bigint, bit: number): string {
  if (word === 0n) return 'no unit'
  const ones = word.toString(2).split('1').length - 1
  const lowest = (word & -word).toString(2).length - 1
  const unit = map.unitOf(page, bit + lowest)
  if (!unit) return `${ones} bits without a meaning`
  return `${ones} unit${ones === 1 ? '' : 's'} of order ${unit.order} from ${hex(unit.pa)}`
}
