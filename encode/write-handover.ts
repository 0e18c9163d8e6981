/**
 * A handover document to memory: every object at its address or at a new one, the map of what is
 * preserved, the root FDT, and what the boot entry says.
 */
import { KHO_SCRATCH_ARRAY_ALIGN, type khoData, khoScratch } from '../abi/boot.ts'
import type { Path } from '../abi/fault.ts'
import { layoutOf, orderOf } from '../abi/layout.ts'
import { type PhysAddr, type PhysRange, phys } from '../abi/memory.ts'
import {
  type Component,
  type ComponentVersion,
  componentByName,
  components,
  versionById,
} from '../abi/registry.ts'
import type { ChunksEdge, FdtNodeType, Infer, IntType, PropertyType, RadixEdge } from '../abi/schema.ts'
import { contentSource } from './content.ts'
import { type BuiltFdt, buildFdt } from './fdt.ts'
import type { FdtTree, HandoverDocument, Scratch, Subtree } from './handover.ts'
import { writeChunkMap, writeRadixMap } from './map.ts'
import type { SparseMemory } from './memory.ts'
import { contractField, encodeNode, encodeRecord, type RecordContext } from './record.ts'
import { Site } from './site.ts'
import { textBytes, textLabel } from './text.ts'
import { type UnitTable, unitBytes, unitRun } from './units.ts'
import { type EncodeProblem, encodeInt, encodeStruct, viewOf } from './write.ts'

export interface WrittenHandover {
  readonly memory: SparseMemory
  /** All units that the map says are preserved, in no order. */
  readonly preserved: readonly UnitTable[]
  /** What the new kernel is told: the descriptor of a KHO note, the payload of SETUP_KEXEC_KHO. */
  readonly boot: Infer<typeof khoData>
  /** Empty if the whole document was written. */
  readonly problems: readonly EncodeProblem[]
}

/**
 * Writes a whole handover.
 *
 * What cannot be written is a problem with its path; the rest is written all the same. The same document
 * gives the same bytes, always.
 */
export function writeHandover(document: HandoverDocument): WrittenHandover {
  const scratch = document.scratch?.areas ?? []
  const site = new Site({
    pageSize: document.page_size,
    ram: document.ram?.map(({ start, size }) => rangeOf(start, size)),
    reserved: [
      ...scratch.map(({ addr, size }) => rangeOf(addr, size)),
      ...(document.reserved ?? []).map(({ start, size }) => rangeOf(start, size)),
    ],
  })
  const context = { site, versions: document.versions }
  writeParts(context, document)
  site.endSurvey()
  const boot = writeParts(context, document)
  return { memory: site.memory, preserved: preservedTables(site, document), boot, problems: site.problems }
}

function rangeOf(start: bigint, size: bigint): PhysRange {
  return { start: phys(start), end: start + size }
}

function writeParts(context: RecordContext, document: HandoverDocument): Infer<typeof khoData> {
  const { site } = context
  const fdt = site.unit(document.root.at, 0, ['kho', 'fdt'])
  const blobs = document.subtrees.map((subtree, index) => writeBlob(context, subtree, index))
  for (const { start, size } of document.preserved?.ranges ?? []) site.preserveRange(start, size)
  const version = versionOf(context, componentByName('kho'))
  const map = writeMap(context, document, version)
  writeRoot(context, document, version, { fdt, map, blobs })
  const scratchArray = writeScratch(site, document.scratch)
  site.finish()
  for (const [index, { at, content }] of (document.contents ?? []).entries()) {
    const { length, fill } = contentSource(content)
    site.claim(at, length)
    if (site.surveying || !site.checkRam(at, length, ['contents', { index }])) continue
    layContent(site, at, length, fill)
  }
  return {
    fdt_addr: fdt ?? 0n,
    fdt_size: document.root.fdt_size ?? BigInt(document.page_size),
    scratch_addr: scratchArray,
    scratch_size: BigInt((document.scratch?.areas ?? []).length * layoutOf(khoScratch, site.target).size),
  }
}

/** Over what is written so far: pages that are written already are changed, others are computed when read. */
function layContent(
  site: Site,
  at: bigint,
  length: bigint,
  fill: (offset: bigint, out: Uint8Array) => void,
): void {
  site.memory.generate(rangeOf(at, length), (pa, out) => fill(pa - at, out))
  const size = BigInt(site.target.pageSize)
  for (const page of site.memory.writtenPages(at, at + length)) {
    const from = page > at ? page : at
    const to = page + size < at + length ? page + size : at + length
    fill(from - at, site.memory.page(page).subarray(Number(from - page), Number(to - page)))
  }
}

/** Largest buffer in which an FDT that nobody declares is made. */
const MAX_FDT_BUFFER = 2 ** 20

/** What the node of a subtree says of its blob. */
interface Blob {
  readonly name: Subtree['name']
  readonly pa: bigint
  readonly size: bigint
}

function writeBlob(context: RecordContext, subtree: Subtree, index: number): Blob {
  const { site } = context
  const { name, at, size } = subtree
  const path = ['subtrees', { index, key: textLabel(name) }]
  const body = blobBody(context, subtree, path)
  if (!body) {
    if (at === undefined) site.report(path, 'a subtree needs a component, fdt, bytes or an address')
    return { name, pa: at ?? 0n, size: size ?? 0n }
  }
  if (at === 0n) return { name, pa: 0n, size: size ?? BigInt(body.totalsize) }
  const order = subtree.order ?? orderOf(body.buffer.length, site.target.pageSize)
  const unit = unitBytes(order, site.target.pageSize)
  if (body.totalsize > unit) {
    site.report([...path, 'order'], `${body.totalsize} bytes do not fit a unit of order ${order}`)
  }
  const pa = site.unit(at, order, path)
  site.write(pa, body.buffer.subarray(0, unit), path, Math.min(body.totalsize, unit))
  if (pa !== undefined) site.clear(pa, BigInt(unit))
  return { name, pa: pa ?? 0n, size: size ?? BigInt(body.totalsize) }
}

function blobBody(context: RecordContext, subtree: Subtree, path: Path): BuiltFdt | undefined {
  const { pageSize } = context.site.target
  const records = subtree as unknown as Readonly<Record<string, unknown>>
  const component = components.find(
    ({ key, subtree: node }) => node !== undefined && records[key] !== undefined,
  )
  if (component) return componentBody(context, component, records[component.key])
  if (subtree.bytes) return { buffer: subtree.bytes, totalsize: subtree.bytes.length }
  if (!subtree.fdt) return undefined
  const buffer = Math.min(unitBytes(subtree.order ?? 0, pageSize), MAX_FDT_BUFFER)
  const built = buildFdt(subtree.fdt, 'sequential', buffer)
  if (!built) context.site.report(path, 'the FDT does not fit its unit; give a larger order')
  return built ?? { buffer: new Uint8Array(pageSize), totalsize: 0 }
}

function componentBody(context: RecordContext, component: Component, record: unknown): BuiltFdt {
  const { site } = context
  const path = [component.key]
  const version = versionOf(context, component)
  if (!version) return { buffer: new Uint8Array(), totalsize: 0 }
  if (version.root.kind === 'struct') {
    const buffer = encodeRecord(context, version.root, record, path, contractField(version))
    return { buffer, totalsize: buffer.length }
  }
  const tree = encodeNode(context, version.root, '', record, path)
  const built = buildFdt(tree, 'sequential', bufferBytes(site, version.root, tree))
  if (!built) site.report(path, 'the FDT does not fit into one page')
  return built ?? { buffer: new Uint8Array(site.target.pageSize), totalsize: 0 }
}

/** The buffer in which the kernel makes a component's FDT. */
function bufferBytes(site: Site, { slack }: FdtNodeType, tree: FdtTree): number {
  const { pageSize } = site.target
  return slack ? pageSize + slack.bytes * propertyNumber(tree, slack.count) : pageSize
}

/** A number of 32 bits in a property, wherever in the tree it stands. */
function propertyNumber(tree: FdtTree, name: string): number {
  const property = tree.properties.find((one) => one.name === name)
  if (property) return viewOf(property.value).getUint32(0, true)
  return tree.children.reduce((found, child) => found || propertyNumber(child, name), 0)
}

function versionOf({ site, versions }: RecordContext, component: Component): ComponentVersion | undefined {
  const id = versions[component.name]
  const version = id === undefined ? undefined : versionById(id)
  if (version && component.versions.includes(version)) return version
  const known = component.versions.map((one) => one.id).join(', ')
  site.report(['versions', component.name], `${id ?? 'nothing'} is said, expected one of ${known}`)
  return undefined
}

function writeMap(
  context: RecordContext,
  document: HandoverDocument,
  version: ComponentVersion | undefined,
): bigint {
  const { site } = context
  const { preserved, root } = document
  const edge = mapEdge(version)
  if (preserved === null || !edge) return root.memory_map ?? 0n
  if (preserved?.units && site.surveying) preserveAll(site, preserved.units)
  const tables = preservedTables(site, document)
  const path = ['preserved']
  const written =
    edge.kind === 'chunks'
      ? writeChunkMap(site, edge, tables, preserved?.chunks ?? [], path)
      : writeRadixMap(site, edge, tables, preserved?.nodes ?? [], path)
  return root.memory_map ?? written
}

function preservedTables(site: Site, { preserved }: HandoverDocument): readonly UnitTable[] {
  return preserved?.units ? [preserved.units, site.placed] : [site.preserved]
}

function preserveAll(site: Site, units: UnitTable): void {
  for (let run = 0; run < units.length; run++) site.preserve(unitRun(units, run))
}

function mapEdge(version: ComponentVersion | undefined): ChunksEdge | RadixEdge | undefined {
  if (version?.root.kind !== 'fdt-node') return undefined
  for (const type of Object.values(version.root.properties)) {
    const edge = type.kind === 'int' ? type.to : undefined
    if (edge?.kind === 'chunks' || edge?.kind === 'radix') return edge
  }
  return undefined
}

/** What the root FDT points to, and where it stands itself. */
interface RootLinks {
  readonly fdt: PhysAddr | undefined
  readonly map: bigint
  readonly blobs: readonly Blob[]
}

function writeRoot(
  context: RecordContext,
  document: HandoverDocument,
  version: ComponentVersion | undefined,
  { fdt, map, blobs }: RootLinks,
): void {
  const { site } = context
  if (version?.root.kind !== 'fdt-node') return
  const { properties, each, style: usual } = version.root
  const style = document.root.style ?? usual ?? 'sequential'
  const children = blobs.map((blob) => {
    const stored = nodeProperties(site, each?.node.properties ?? {}, (type) => blobValue(type, blob))
    return { name: blob.name, properties: style === 'edited' ? stored.toReversed() : stored, children: [] }
  })
  const tree: FdtTree = { name: '', properties: nodeProperties(site, properties, () => map), children }
  const built = buildFdt(tree, style, site.target.pageSize)
  if (built) site.write(fdt, built.buffer, ['kho', 'fdt'])
  else site.report(['subtrees'], `the root FDT with ${blobs.length} subtrees does not fit into one page`)
}

/** Properties in the order in which the kernel writes them. */
function nodeProperties(
  site: Site,
  types: Readonly<Record<string, PropertyType>>,
  value: (type: IntType) => bigint,
): FdtTree['properties'] {
  return Object.entries(types).flatMap(([name, type]) => {
    if (type.kind === 'compatible') return [{ name, value: textBytes(`${type.value}\0`) }]
    return type.kind === 'int' ? [{ name, value: encodeInt(type, value(type), site.problems, [name]) }] : []
  })
}

function blobValue(type: IntType, blob: Blob): bigint {
  return type.to ? blob.pa : blob.size
}

/**
 * The array of scratch areas: at its address, else where kexec puts a segment that is placed top down, in
 * the first area that has room.
 */
function writeScratch(site: Site, scratch: Scratch | undefined): bigint {
  if (!scratch || scratch.areas.length === 0) return scratch?.at ?? 0n
  const size = layoutOf(khoScratch, site.target).size
  const bytes = new Uint8Array(scratch.areas.length * size)
  for (const [index, area] of scratch.areas.entries()) {
    const path = ['scratch', 'areas', { index }]
    bytes.set(encodeStruct(khoScratch, area, site.target, site.problems, path), index * size)
  }
  const align = BigInt(KHO_SCRATCH_ARRAY_ALIGN)
  const slots = scratch.areas.map((area) => {
    const top = area.addr + area.size - BigInt(bytes.length)
    return { start: top - (top % align), area }
  })
  const at = scratch.at ?? slots.find(({ start, area }) => start >= area.addr)?.start
  if (at === undefined) site.report(['scratch'], `no area has room for the array of ${bytes.length} bytes`)
  site.write(at === undefined ? undefined : phys(at), bytes, ['scratch'])
  return at ?? 0n
}
