/**
 * Schema-driven encoding of records: the flat record of an object becomes its struct or FDT nodes, with
 * all that its links lead to. No version is named here; a declaration says what is derived and what is
 * linked.
 *
 * A record is flat: fields of nested structs, child nodes and linked single structs stand side by side
 * under their own names, linked lists under the name of their edge.
 */
import { invariant, type Path } from '../abi/fault.ts'
import { layoutOf, orderOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { ComponentVersion, ReleaseVersions } from '../abi/registry.ts'
import { components, satisfies } from '../abi/registry.ts'
import type {
  Edge,
  FdtNodeType,
  FieldType,
  HandlerEdge,
  IntType,
  PropertyType,
  StructType,
  VmallocEdge,
} from '../abi/schema.ts'
import { writeArray, writeBlocks } from './chain.ts'
import { contentSource } from './content.ts'
import { writeElements } from './elements.ts'
import { writeFolios } from './folios.ts'
import type { Content, FdtTree, Placed, RecordList, Text, VmallocList } from './handover.ts'
import type { RunTable } from './runs.ts'
import type { Site } from './site.ts'
import { textBytes, textLabel } from './text.ts'
import { writeVmalloc } from './vmalloc.ts'
import { type Encodable, encodeInt, encodeStruct, type FieldValue } from './write.ts'

/** A record by the kernel's names. */
export type Fields = Readonly<Record<string, unknown>>

/** What encoding a record depends on besides its schema. */
export interface RecordContext {
  readonly site: Site
  readonly versions: ReleaseVersions
}

/** One object's record while it is encoded: what it says, and which of that was used. */
interface Owner {
  readonly record: Fields
  readonly used: Set<string>
  readonly path: Path
  /** Values that the version itself fixes, such as its version string. */
  readonly fixed: Fields
}

/** Encodes a record by a struct; everything that it links is placed and written. */
export function encodeRecord(
  context: RecordContext,
  struct: StructType,
  record: unknown,
  path: Path,
  fixed: Fields = {},
): Uint8Array {
  const owner = ownerOf(record, path, fixed)
  const value = structValue(context, struct, owner)
  reportUnused(context, owner, struct.name)
  return encodeStruct(struct, value, context.site.target, context.site.problems, path)
}

/** Turns a record into the tree of an FDT; everything that it links is placed and written. */
export function encodeNode(
  context: RecordContext,
  node: FdtNodeType,
  name: Text,
  record: unknown,
  path: Path,
): FdtTree {
  const owner = ownerOf(record, path, {})
  const tree = nodeTree(context, node, name, owner)
  reportUnused(context, owner, 'the node')
  return tree
}

/** The value that a version's own declaration gives the field that holds its contract. */
export function contractField({ contract, place }: ComponentVersion): Fields {
  if (place.kind !== 'field') return {}
  invariant(
    contract.kind === 'string' || contract.kind === 'integer',
    'a struct says its version in one value',
  )
  return { [place.field]: contract.value }
}

function ownerOf(record: unknown, path: Path, fixed: Fields): Owner {
  const fields = typeof record === 'object' && record !== null ? (record as Fields) : {}
  return { record: fields, used: new Set(['at']), path, fixed }
}

function reportUnused(context: RecordContext, { record, used, path }: Owner, what: string): void {
  for (const [name, value] of Object.entries(record)) {
    if (!used.has(name) && value !== undefined)
      context.site.report([...path, name], `${what} has no such field`)
  }
}

/** The fields of a struct, or the properties of a node: links first, since they say the counts. */
function fieldValues(
  context: RecordContext,
  fields: Readonly<Record<string, FieldType | PropertyType>>,
  owner: Owner,
): Readonly<Record<string, FieldValue>> {
  const values: Record<string, FieldValue> = {}
  const counts = new Map<string, bigint>()
  for (const [name, type] of Object.entries(fields)) {
    const value = linkValue(context, name, type, owner, counts)
    if (value !== undefined) values[name] = value
  }
  for (const [name, type] of Object.entries(fields)) {
    values[name] ??= plainValue(context, name, type, owner, counts)
  }
  return values
}

function linkValue(
  context: RecordContext,
  name: string,
  type: FieldType | PropertyType,
  owner: Owner,
  counts: Map<string, bigint>,
): FieldValue | undefined {
  if (type.kind === 'struct' && type.to?.kind === 'vmalloc') {
    return vmallocValue(context, name, type, type.to, owner, counts)
  }
  if (type.kind === 'inline-array') {
    const list = take<VmallocList<string>>(owner, name)
    counts.set(type.count, BigInt(list?.records?.total ?? 0))
    return inlineElements(context.site, type.element, list?.records, [...owner.path, name])
  }
  if (type.kind === 'int' && type.to)
    return pointerValue(context, type.key ?? name, type, type.to, owner, counts)
  return undefined
}

function plainValue(
  context: RecordContext,
  name: string,
  type: FieldType | PropertyType,
  owner: Owner,
  counts: ReadonlyMap<string, bigint>,
): FieldValue {
  switch (type.kind) {
    case 'struct':
      return structValue(context, type, owner)
    case 'compatible':
      return textBytes(`${type.value}\0`)
    case 'int':
    case 'bits': {
      const key = (type.kind === 'int' && type.key) || name
      const only = type.kind === 'int' ? (type.only ?? type.default) : undefined
      const value =
        take<FieldValue>(owner, key) ?? counts.get(name) ?? (owner.fixed[name] as FieldValue) ?? only
      if (value === undefined) context.site.report([...owner.path, key], 'this field is needed')
      return value ?? 0n
    }
    default: {
      const value = take<FieldValue>(owner, name) ?? (owner.fixed[name] as FieldValue | undefined)
      if (value === undefined) context.site.report([...owner.path, name], 'this field is needed')
      return value ?? new Uint8Array()
    }
  }
}

function structValue<S extends StructType>(context: RecordContext, struct: S, owner: Owner): Encodable<S> {
  return fieldValues(context, struct.fields, owner) as Encodable<S>
}

function nodeTree(context: RecordContext, node: FdtNodeType, name: Text, owner: Owner): FdtTree {
  const values = fieldValues(context, node.properties, owner)
  const { site } = context
  const properties = Object.entries(node.properties).map(([property, type]) => ({
    name: property,
    value: propertyBytes(site, type, values[property] ?? 0n, [...owner.path, property]),
  }))
  const children = Object.entries(node.children ?? {}).map(([child, type]) =>
    nodeTree(context, type, child, owner),
  )
  if (node.each) {
    const list = take<RecordList<Fields>>(owner, node.each.as)
    for (const [index, entry] of (list?.entries ?? []).entries()) {
      children.push(listedNode(context, node.each.node, entry, [...owner.path, node.each.as], index))
    }
  }
  return { name, properties, children }
}

function listedNode(
  context: RecordContext,
  node: FdtNodeType,
  { name, ...record }: Fields,
  path: Path,
  index: number,
): FdtTree {
  const known = typeof name === 'string' || name instanceof Uint8Array
  const place = [...path, known ? { index, key: textLabel(name) } : { index }]
  if (!known) context.site.report([...place, 'name'], 'this node needs a name')
  return encodeNode(context, node, known ? name : '', record, place)
}

function propertyBytes(site: Site, type: PropertyType, value: FieldValue, path: Path): Uint8Array {
  if (value instanceof Uint8Array) return value
  if (type.kind === 'int') return encodeInt(type, value, site.problems, path)
  invariant(type.kind === 'struct', `a property of kind ${type.kind} has no bytes`)
  return encodeStruct(type, value as Encodable<StructType>, site.target, site.problems, path)
}

/** Reads a field of the record and marks it as used. */
function take<V>(owner: Owner, name: string): V | undefined {
  owner.used.add(name)
  return owner.record[name] as V | undefined
}

function pointerValue(
  context: RecordContext,
  key: string,
  type: IntType,
  edge: Edge,
  owner: Owner,
  counts: Map<string, bigint>,
): bigint {
  const { site } = context
  const encode = (struct: StructType, record: unknown, path: Path) =>
    encodeRecord(context, struct, record, path)
  switch (edge.kind) {
    case 'array': {
      const list = take<RecordList<unknown>>(owner, edge.as)
      const link = writeArray(site, edge, list, encode, [...owner.path, edge.as])
      if (!edge.header) counts.set(edge.count, link.count)
      return link.pa
    }
    case 'blocks': {
      const list = take<RecordList<unknown>>(owner, edge.as)
      const link = writeBlocks(site, edge, list, encode, [...owner.path, edge.as])
      if (edge.total) counts.set(edge.total, link.count)
      return link.pa
    }
    case 'object': {
      const placed = take<Placed>(owner, edge.as)
      const bytes = encodeStruct(
        edge.type,
        structValue(context, edge.type, owner),
        site.target,
        site.problems,
        owner.path,
      )
      return writeUnit(site, bytes, placed?.at, edge.order, [...owner.path, edge.as])
    }
    case 'handler':
      return handlerValue(context, key, edge, owner)
    case 'region':
      return regionValue(context, key, edge.size, owner)
    default:
      invariant(false, `${type.doc} links a ${edge.kind} that no record holds`)
  }
}

/** Puts an object's bytes at the start of its unit; the rest of the unit is zero, as the kernel leaves it. */
function writeUnit(
  site: Site,
  bytes: Uint8Array,
  at: bigint | undefined,
  order: number,
  path: Path,
): PhysAddr {
  if (at === 0n) return phys(0)
  const pa = site.unit(at, order, path)
  if (site.surveying) return pa ?? phys(0)
  const unit = new Uint8Array(site.target.pageSize * 2 ** order)
  unit.set(bytes.subarray(0, unit.length))
  site.write(pa, unit, path, Math.min(bytes.length, unit.length))
  return pa ?? phys(0)
}

/** The handle of a file: the address of its handler's record, or the opaque number that the document gives. */
function handlerValue(context: RecordContext, key: string, edge: HandlerEdge, owner: Owner): bigint {
  const { site, versions } = context
  const data = take<bigint>(owner, key)
  const compatible = owner.record[edge.by] as Text | undefined
  const handler = compatible === undefined ? undefined : handlerFor(textLabel(compatible), versions)
  const record = handler && take<Placed>(owner, handler.key)
  if (!handler || !record) {
    const wanted = handler ? `${handler.key} or ${key}` : key
    if (data === undefined) site.report([...owner.path, key], `a file needs ${wanted}`)
    return data ?? 0n
  }
  const path = [...owner.path, handler.key]
  invariant(handler.version.root.kind === 'struct', 'a handler keeps its state in a struct')
  const bytes = encodeRecord(context, handler.version.root, record, path)
  const at = record.at ?? data
  const pa = writeUnit(site, bytes, at, orderOf(bytes.length, site.target.pageSize), path)
  return data ?? pa
}

/** The component and version that a file's compatible string names; among several forms the document's own. */
export function handlerFor(
  compatible: string,
  chosen: ReleaseVersions,
): { readonly key: string; readonly version: ComponentVersion } | undefined {
  for (const { name, key, versions } of components) {
    const fitting = versions.filter(
      ({ place, contract }) => place.kind === 'referrer' && satisfies(contract, compatible),
    )
    const version = fitting.find(({ id }) => id === chosen[name]) ?? fitting.at(-1)
    if (version) return { key, version }
  }
  return undefined
}

/** A region at its own address, or in new memory of its size. */
function regionValue(context: RecordContext, key: string, size: string, owner: Owner): bigint {
  const { site } = context
  const path = [...owner.path, key]
  const at = take<bigint>(owner, key)
  const content = take<Content>(owner, 'content')
  const length = (owner.record[size] as bigint | undefined) ?? 0n
  if (at !== undefined) {
    site.claim(at, length)
    site.preservePages(at, length)
  }
  const start = at ?? (length > 0n ? site.range(length, path) : undefined) ?? 0n
  if (content && !site.surveying && start !== 0n && site.checkRam(start, length, path)) {
    const source = contentSource(content)
    site.fill(start, length, (pa, out) => source.fill(pa - start, out))
  }
  return start
}

function vmallocValue(
  context: RecordContext,
  name: string,
  struct: StructType,
  edge: VmallocEdge,
  owner: Owner,
  counts: Map<string, bigint>,
): FieldValue {
  const list = take<VmallocList<string>>(owner, name)
  const content = take<Content>(owner, 'content')
  const path = [...owner.path, name]
  const empty = list === undefined || (list.records?.total === 0 && list.first === undefined)
  const written = list && writeVmalloc(context.site, edge, list, content, path)
  counts.set(edge.count, written?.count ?? 0n)
  const fields: Record<string, FieldValue> = {}
  for (const { name: field, type } of layoutOf(struct, context.site.target).fields) {
    const given = (list as Fields | undefined)?.[field] as FieldValue | undefined
    const derived = (written as Fields | undefined)?.[field] as FieldValue | undefined
    const usual = type.kind === 'int' && !empty ? type.default : undefined
    fields[field] = given ?? derived ?? usual ?? 0n
  }
  return fields
}

/** Elements that stand in the property itself, and the folios that they name. */
function inlineElements(
  site: Site,
  element: IntType,
  records: RunTable<string> | undefined,
  path: Path,
): Uint8Array {
  if (!records) return new Uint8Array()
  const stored = writeFolios(site, element, records, undefined, path)
  const bytes = new Uint8Array(stored.total * element.bytes)
  let filled = 0
  writeElements(site, element, stored, path, (part) => {
    bytes.set(part, filled)
    filled += part.length
  })
  return bytes
}
