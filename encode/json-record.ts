/**
 * Records in JSON, by the same declarations as their bytes: which keys a record has, which of them may be
 * left out because something else decides them, and what stands behind its links.
 */
import { invariant } from '../abi/fault.ts'
import { layoutOf, type Target } from '../abi/layout.ts'
import type { ComponentVersion, ReleaseVersions } from '../abi/registry.ts'
import type {
  BitsType,
  Edge,
  FdtNodeType,
  FieldType,
  IntType,
  PropertyType,
  StructType,
  VmallocEdge,
} from '../abi/schema.ts'
import { measuring } from './elements.ts'
import type { Block, Placed, RecordList, VmallocList } from './handover.ts'
import {
  address,
  type Codec,
  count,
  hexBytes,
  list,
  type Member,
  object,
  optional,
  required,
  text,
  u32,
  u64,
} from './json-codec.ts'
import { content } from './json-content.ts'
import { recordRuns, unitRuns } from './json-runs.ts'
import { type Fields, handlerFor } from './record.ts'
import { textLabel } from './text.ts'

export interface RecordOptions {
  readonly target: Target
  readonly versions: ReleaseVersions
}

/** The keys of one object's record, and the field that names its handler if it has one. */
interface Keys {
  readonly members: Record<string, Member>
  handledBy?: string
}

/** The record of a component or a file's handler, keyed as its version declares it. */
export function versionRecord({ root, place }: ComponentVersion, options: RecordOptions): Codec<Fields> {
  const keys: Keys = { members: place.kind === 'referrer' ? { at: optional(address) } : {} }
  if (root.kind === 'fdt-node') addNode(keys, root, options)
  else addFields(keys, root.fields, options, place.kind === 'field' ? place.field : undefined)
  return recordOf(keys, options)
}

function recordOf({ members, handledBy }: Keys, options: RecordOptions): Codec<Fields> {
  if (handledBy === undefined) return object<Fields>(() => members)
  return object<Fields>((record) => {
    const name = record[handledBy]
    const known = typeof name === 'string' || name instanceof Uint8Array
    const handler = known ? handlerFor(textLabel(name), options.versions) : undefined
    if (!handler) return members
    return { ...members, [handler.key]: optional(versionRecord(handler.version, options)) }
  })
}

function elementRecord(element: StructType, options: RecordOptions): Codec<Fields> {
  const keys: Keys = { members: {} }
  addFields(keys, element.fields, options)
  return recordOf(keys, options)
}

function addNode(keys: Keys, node: FdtNodeType, options: RecordOptions): void {
  addFields(keys, node.properties, options)
  for (const child of Object.values(node.children ?? {})) addNode(keys, child, options)
  if (!node.each) return
  const inner: Keys = { members: { name: required(text) } }
  addNode(inner, node.each.node, options)
  keys.members[node.each.as] = optional(recordList(recordOf(inner, options), {}))
}

function addFields(
  keys: Keys,
  fields: Readonly<Record<string, FieldType | PropertyType>>,
  options: RecordOptions,
  contract?: string,
): void {
  const derived = new Set([contract, ...Object.values(fields).flatMap(countOf)])
  for (const [name, type] of Object.entries(fields)) {
    if (type.kind === 'compatible') continue
    if (type.kind === 'struct' && type.to?.kind === 'vmalloc') addVmalloc(keys, name, type, type.to, options)
    else if (type.kind === 'struct') addFields(keys, type.fields, options)
    else if (type.kind === 'int' && type.to) addLink(keys, type.key ?? name, type.to, options)
    else if (type.kind === 'inline-array') {
      const records = recordRuns(type.element, options.target)
      keys.members[name] = optional(
        object<Pick<VmallocList<string>, 'records'>>({ records: required(records) }),
      )
    } else {
      const key = (type.kind === 'int' && type.key) || name
      const given = type.kind === 'int' && (type.only ?? type.default) !== undefined
      keys.members[key] =
        given || derived.has(name) ? optional(scalar(type, options)) : required(scalar(type, options))
    }
  }
}

/** The field whose number follows from what a link leads to. */
function countOf(type: FieldType | PropertyType): readonly string[] {
  if (type.kind === 'inline-array') return [type.count]
  const edge = type.kind === 'int' || type.kind === 'struct' ? type.to : undefined
  if (edge?.kind === 'array') return edge.header ? [] : [edge.count]
  if (edge?.kind === 'blocks') return edge.total === undefined ? [] : [edge.total]
  return edge?.kind === 'vmalloc' ? [edge.count] : []
}

/** The codec of one field; that its value fits it is the schema's matter, not the compiler's. */
function scalar(type: Exclude<FieldType, StructType>, options: RecordOptions): Codec<never> {
  let codec: unknown = hexBytes
  if (type.kind === 'text') codec = text
  else if (isWord(type)) codec = word(type)
  else if (type.kind === 'array') {
    const { element } = type
    const each: unknown = element.kind === 'struct' ? elementRecord(element, options) : word(element)
    codec = list(each as Codec<never>)
  }
  return codec as Codec<never>
}

function isWord(type: FieldType): type is IntType | BitsType {
  return type.kind === 'int' || type.kind === 'bits'
}

function word(type: IntType | BitsType): Codec<bigint> | Codec<number> {
  const { bytes } = type.kind === 'bits' ? type.word : type
  return bytes === 8 ? u64(type.show) : u32(type.show)
}

function addLink(keys: Keys, key: string, edge: Edge, options: RecordOptions): void {
  const { members } = keys
  switch (edge.kind) {
    case 'array':
      members[edge.as] = optional(
        recordList(elementRecord(edge.element, options), headerMembers(edge, options)),
      )
      return
    case 'blocks':
      members[edge.as] = optional(
        recordList(elementRecord(edge.element, options), { blocks: optional(list(block)) }),
      )
      return
    case 'object':
      members[edge.as] = optional(object<Placed>({ at: optional(address) }))
      addFields(keys, edge.type.fields, options)
      return
    case 'handler':
      members[key] = optional(address)
      keys.handledBy = edge.by
      return
    case 'region':
      members[key] = optional(address)
      members.content = optional(content)
      return
    default:
      invariant(false, `no record links a ${edge.kind}`)
  }
}

const block = object<Block>({
  at: optional(address),
  entries: required(count()),
  count: optional(u64('dec')),
})

/** The other fields of an array's header. */
function headerMembers(
  edge: Extract<Edge, { kind: 'array' }>,
  options: RecordOptions,
): Readonly<Record<string, Member>> {
  const keys: Keys = { members: {} }
  if (edge.header) addFields(keys, edge.header.fields, options)
  return { ...keys.members, ...(edge.header ? { [edge.count]: optional(u64('dec')) } : {}) }
}

/** A list of records: its entries alone where there is nothing else to say, else an object with `entries`. */
function recordList(entry: Codec<Fields>, more: Readonly<Record<string, Member>>): Codec<RecordList<Fields>> {
  const entries = list(entry)
  const full = object<RecordList<Fields>>(() => ({
    at: optional(address),
    ...more,
    entries: optional(entries),
  }))
  return {
    parse(json, path, problems) {
      if (!Array.isArray(json)) return full.parse(json, path, problems)
      const parsed = entries.parse(json, path, problems)
      return parsed && { entries: parsed }
    },
    print(value) {
      const { entries: plain, ...rest } = value
      const bare = plain && Object.values(rest).every((field) => field === undefined)
      return bare ? entries.print(plain) : full.print(value)
    },
  }
}

function addVmalloc(
  keys: Keys,
  name: string,
  descriptor: StructType,
  edge: VmallocEdge,
  options: RecordOptions,
): void {
  const members: Record<string, Member> = {}
  for (const { name: field, type } of layoutOf(descriptor, options.target).fields) {
    if (isWord(type)) members[field] = optional(word(type) as Codec<bigint>)
  }
  members.chunks = optional(list(address))
  members.pages = optional(unitRuns(options.target.pageSize))
  members.records = optional(recordRuns(edge.element, options.target))
  keys.members[name] = optional(object<VmallocList<string>>(() => members))
  if (measuring(edge.element, options.target, 'page-index')) keys.members.content = optional(content)
}
