/**
 * Subsystems' blobs: an FDT or a struct, by what the declared versions of the component say; blobs that
 * nothing here knows stay raw.
 */
import { layoutOf, type Target } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { type Component, type ComponentVersion, satisfies, versionsFor } from '../abi/registry.ts'
import type { FdtNodeType } from '../abi/schema.ts'
import { MAX_FDT_BYTES } from './budget.ts'
import type { WalkContext } from './chain.ts'
import { decodeRecord } from './component.ts'
import { compatiblesOf, FdtDecoder, misfit } from './component-fdt.ts'
import { type Place, within } from './faults.ts'
import { FDT_HEADER_SIZE, type Fdt, fdtTotalSize, hasFdtMagic, readFdt } from './fdt.ts'
import { readBytes, readLeading } from './read.ts'
import { decodeStruct } from './record.ts'
import { decodeText } from './text.ts'
import type { Node, RawNode } from './tree.ts'

/** An FDT of the handover, for annotation. */
export interface PlacedFdt {
  readonly path: string
  readonly pa: PhysAddr
  readonly fdt: Fdt
}

/** A blob as the root FDT tells of it. */
export interface Blob {
  /** Undefined for a subsystem that nothing here knows. */
  readonly component: Component | undefined
  /** Key in the decoded tree. */
  readonly key: string
  readonly pa: PhysAddr
  /** `blob-size`, where the version has it. */
  readonly size: number | bigint | undefined
  readonly place: Place
}

const ADDRESS_SPACE = 1n << 64n
/** Longer than any memory; lengths are plain numbers. */
const MAX_LENGTH = BigInt(Number.MAX_SAFE_INTEGER)
/** Bytes shown of a blob that nothing here knows. */
const RAW_BYTES = 256

/**
 * Reads an FDT as far as the image holds it, at most `limit` bytes; its own faults become faults at
 * `place`. That the image cuts it is a warning, as the handover itself may be sound; that it is longer
 * than the limit is none of the image's doing.
 */
export function readPlacedFdt(
  context: WalkContext,
  pa: PhysAddr,
  limit: number,
  place: Place,
  placeOfNode: (nodes: readonly string[]) => Place = (nodes) => within(place, ...nodes),
): Fdt | undefined {
  const head = readLeading(context.memory, pa, FDT_HEADER_SIZE)
  if (head.length === 0) {
    unreadable(context, pa, place)
    return undefined
  }
  const claimed = fdtTotalSize(head) ?? FDT_HEADER_SIZE
  const wanted = Math.min(Math.max(claimed, FDT_HEADER_SIZE), limit, context.budget.fdtBytes)
  const bytes = readLeading(context.memory, pa, wanted)
  context.budget.spendFdtBytes(bytes.length)
  const fdt = readFdt(bytes)
  for (const { code, offset, length, message, expected, found, nodes } of fdt.faults) {
    const at = phys(pa + BigInt(offset))
    const severity = code === 'FDT_TRUNCATED' && bytes.length < wanted ? 'warning' : 'error'
    context.faults.add(nodes.length === 0 ? place : placeOfNode(nodes), code, {
      pa: at,
      length,
      severity,
      message,
      expected,
      found,
    })
  }
  return fdt
}

/** Where faults of nodes hang whose names are those of list elements: `memblock.reserve_mem[trace]`. */
export function listedNode(place: Place, list: string): (nodes: readonly string[]) => Place {
  return ([name = '', ...below]) => within(place, list, { index: 0, key: name }, ...below)
}

function unreadable(context: WalkContext, pa: PhysAddr, place: Place): void {
  const read = readBytes(context.memory, pa, FDT_HEADER_SIZE)
  if ('unreadable' in read) context.faults.addUnreadable(place, FDT_HEADER_SIZE, read.unreadable)
}

/** Decodes one blob; undefined, with a fault, where it is missing or says it is of no known version. */
export function decodeBlob(context: WalkContext, blob: Blob, fdts: PlacedFdt[]): Node | undefined {
  const { component, pa, place } = blob
  const head = readLeading(context.memory, pa, FDT_HEADER_SIZE)
  if (head.length === 0) {
    unreadable(context, pa, place)
    return undefined
  }
  const kinds = component?.versions.map((version) => version.place.kind) ?? []
  if (hasFdtMagic(head) && (!component || kinds.includes('fdt-compatible')))
    return decodeFdtBlob(context, blob, fdts)
  if (component && kinds.includes('field')) return decodeStructBlob(context, component, blob)
  if (component) blobUnknown(context, component, blob, 'no FDT')
  return rawBlob(context, blob)
}

/** The first bytes of a blob that nothing here can decode. */
function rawBlob(context: WalkContext, { key, pa, size, place }: Blob): RawNode {
  const bytes = readLeading(context.memory, pa, Math.min(Number(size ?? RAW_BYTES), RAW_BYTES))
  const room = ADDRESS_SPACE - pa < MAX_LENGTH ? ADDRESS_SPACE - pa : MAX_LENGTH
  const fits = size === undefined || BigInt(size) <= room
  if (!fits) {
    const expected = `at most ${room} bytes`
    const message = 'the blob cannot be that long'
    context.faults.add(place, 'BLOB_SIZE', { pa, length: 8, message, expected, found: `${size} bytes` })
  }
  const length = fits && size !== undefined ? Number(size) : bytes.length
  return { kind: 'raw', segment: key, pa, length, doc: 'Blob without a declaration.', bytes }
}

function decodeFdtBlob(context: WalkContext, blob: Blob, fdts: PlacedFdt[]): Node | undefined {
  const { component, key, pa, size, place } = blob
  const root = component?.versions[0]?.root
  const list = root?.kind === 'fdt-node' ? root.each?.as : undefined
  const placeOfNode = list === undefined ? undefined : listedNode(place, list)
  const fdt = readPlacedFdt(context, pa, MAX_FDT_BYTES, place, placeOfNode)
  if (fdt) fdts.push({ path: key, pa, fdt })
  if (!fdt?.root) return undefined
  const { totalsize } = fdt.header
  if (size !== undefined && BigInt(size) !== BigInt(totalsize)) {
    context.faults.add(place, 'BLOB_SIZE', {
      pa,
      length: 8,
      severity: 'warning',
      message: 'blob-size and the totalsize of the FDT disagree',
      expected: `${totalsize} bytes (totalsize)`,
      found: `${size} bytes`,
    })
  }
  const strings = compatiblesOf(fdt.root)
  const named = (component?.versions ?? []).filter((version) =>
    strings.some((text) => satisfies(version.contract, text)),
  )
  const version = leastMisfit(named, fdt, context.target)
  const decoder = new FdtDecoder(context, pa)
  if (!version) {
    if (component) blobUnknown(context, component, blob, `compatible '${strings.join("', '")}'`)
    return { ...decoder.undeclared(fdt.root), segment: key, length: fdt.bytes.length }
  }
  const record = decoder.decode(version.root as FdtNodeType, fdt.root, key, place)
  return { ...record, pa, length: fdt.bytes.length, version: version.id }
}

/** Of several versions under one string the one that the nodes fit best; the later where both do. */
function leastMisfit(
  versions: readonly ComponentVersion[],
  fdt: Fdt,
  target: Target,
): ComponentVersion | undefined {
  let best: ComponentVersion | undefined
  let least = Number.POSITIVE_INFINITY
  for (const version of versions) {
    const distance =
      version.root.kind === 'fdt-node' && fdt.root ? misfit(version.root, fdt.root, target) : least
    if (distance <= least) {
      least = distance
      best = version
    }
  }
  return best
}

function decodeStructBlob(context: WalkContext, component: Component, blob: Blob): Node | undefined {
  const { key, pa, size, place } = blob
  let found = 'nothing readable'
  for (const version of component.versions) {
    const { place: where, root } = version
    if (where.kind !== 'field' || root.kind !== 'struct') continue
    const length = layoutOf(root, context.target).size
    const read = readBytes(context.memory, pa, length)
    if ('unreadable' in read) {
      context.faults.addUnreadable(place, length, read.unreadable)
      return undefined
    }
    const value = (decodeStruct(root, read.bytes, context.target) as Record<string, unknown>)[where.field]
    const contract = value instanceof Uint8Array ? decodeText(value) : (value as number)
    found = `${where.field} ${typeof contract === 'string' ? `'${contract}'` : contract}`
    if (!versionsFor(component, contract).includes(version)) continue
    if (size !== undefined && BigInt(size) < BigInt(length)) {
      const message = `the blob is too small for ${version.id}`
      const details = { pa, length, message, expected: `${length} bytes`, found: `${size} bytes` }
      context.faults.add(place, 'BLOB_SIZE', details)
      return undefined
    }
    return { ...decodeRecord(context, root, { pa, bytes: read.bytes }, key, place), version: version.id }
  }
  blobUnknown(context, component, blob, found)
  return undefined
}

function blobUnknown(context: WalkContext, component: Component, { pa, place }: Blob, found: string): void {
  context.faults.add(place, 'COMPATIBLE_UNKNOWN', {
    pa,
    length: 8,
    message: `${component.name}: the blob at ${hex(pa)} says ${found}`,
    expected: component.versions.map((version) => version.id).join(', '),
    found,
  })
}
