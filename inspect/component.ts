/**
 * Schema-driven decoding of one component: its structs and FDT nodes become records of the tree, the
 * edges of its pointers are followed, and what they lead to hangs on the nearest record that stands for
 * an object.
 */
import type { PathSegment } from '../abi/fault.ts'
import { fieldOf, layoutOf, type Target } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName, versionsFor } from '../abi/registry.ts'
import type {
  ArrayEdge,
  BlocksEdge,
  Edge,
  FdtNodeType,
  IntType,
  ObjectEdge,
  PropertyType,
  StructType,
  TextType,
  VmallocEdge,
} from '../abi/schema.ts'
import type {
  BlockStorage,
  ElementBytes,
  Elements,
  Pointer,
  UnitStorage,
  VmallocDescriptor,
  WalkContext,
} from './chain.ts'
import { walkArray, walkBlocks, walkVmalloc } from './chain.ts'
import { behind, type Place, within } from './faults.ts'
import type { FdtNode, FdtProperty } from './fdt.ts'
import { readBytes } from './read.ts'
import { decodeStruct } from './record.ts'
import { beforeNul, decodeText } from './text.ts'
import type { Node, RecordNode, ValueNode } from './tree.ts'

type Values = Readonly<Record<string, unknown>>

/** A record that stands for an object: where links of its fields, nested or not, are hung. */
interface Owner {
  readonly place: Place
  readonly children: Node[]
  readonly links: (() => void)[]
}

/** Decodes the struct at an address into a record, links followed; undefined, with a fault, where it is missing. */
export function decodeObject(
  context: WalkContext,
  struct: StructType,
  pa: PhysAddr,
  segment: PathSegment,
  place: Place,
): RecordNode | undefined {
  const { size } = layoutOf(struct, context.target)
  const read = readBytes(context.memory, pa, size)
  if ('unreadable' in read) {
    context.faults.addUnreadable(place, size, read.unreadable)
    return undefined
  }
  return decodeRecord(context, struct, { pa, bytes: read.bytes }, segment, place)
}

/** Decodes a struct whose bytes are at hand. `place` is the record's own. */
export function decodeRecord(
  context: WalkContext,
  struct: StructType,
  element: ElementBytes,
  segment: PathSegment,
  place: Place,
  outer?: Owner,
): RecordNode {
  const { target } = context
  const values = decodeStruct(struct, element.bytes, target) as Values
  const children: Node[] = []
  const owner = outer ?? { place, children, links: [] }
  for (const { name, type, offset, size } of layoutOf(struct, target).fields) {
    const pa = phys(element.pa + BigInt(offset))
    const bytes = element.bytes.subarray(offset, offset + size)
    if (type.kind === 'struct') {
      const nested = decodeRecord(context, type, { pa, bytes }, name, within(place, name), owner)
      children.push(nested)
      if (type.to?.kind === 'vmalloc') linkVmalloc(context, owner, children, nested, type.to, values)
    } else if (type.kind === 'int' || type.kind === 'bits' || type.kind === 'text') {
      const key = (type.kind === 'int' && type.key) || name
      const value = values[name] as ValueNode['value']
      children.push({ kind: 'value', segment: key, pa, length: size, type, value })
      if (type.kind === 'int' && type.to) {
        linkPointer(context, owner, type.to, value as bigint, { path: [...place.path, key], pa }, values)
      }
    }
  }
  if (!outer) for (const follow of owner.links) follow()
  return {
    kind: 'record',
    segment,
    pa: element.pa,
    length: element.bytes.length,
    type: struct,
    doc: struct.doc,
    children,
  }
}

function linkPointer(
  context: WalkContext,
  owner: Owner,
  edge: Edge,
  target: bigint,
  pointer: Pointer,
  values: Values,
): void {
  owner.links.push(() => {
    const node = follow(context, edge, target, owner.place, pointer, values)
    if (node) owner.children.push(node)
  })
}

/** Follows one pointer; undefined where it leads nowhere, or to what is not part of the tree. */
function follow(
  context: WalkContext,
  edge: Edge,
  target: bigint,
  place: Place,
  pointer: Pointer,
  values: Values,
): Node | undefined {
  const pa = phys(target)
  switch (edge.kind) {
    case 'array':
      return followArray(context, edge, pa, place, pointer, values)
    case 'blocks':
      return followBlocks(context, edge, pa, place, pointer, values)
    case 'object':
      return followObject(context, edge, pa, place, pointer)
    case 'handler':
      return followHandler(context, values[edge.by] as Uint8Array, pa, place, pointer)
    default:
      return undefined
  }
}

function followArray(
  context: WalkContext,
  edge: ArrayEdge,
  pa: PhysAddr,
  place: Place,
  pointer: Pointer,
  values: Values,
): Node | undefined {
  const count = edge.header ? 0n : (values[edge.count] as bigint)
  const listPlace = within(place, edge.as)
  if (pa === 0n) {
    if (count !== 0n) context.faults.add(listPlace, 'LINK_EMPTY', emptyLink(pointer, edge.as, count))
    if (edge.header) context.faults.add(listPlace, 'ADDRESS_NULL', nullPointer(pointer, edge.as))
    return edge.header ? undefined : list(edge.as, edge.element, pa, [])
  }
  const found = walkArray(context, edge, pa, count, listPlace, pointer)
  return found && listOf(context, edge, found, pa, within(place, edge.as), pointer)
}

function followBlocks(
  context: WalkContext,
  edge: BlocksEdge,
  pa: PhysAddr,
  place: Place,
  pointer: Pointer,
  values: Values,
): Node {
  const listPlace = within(place, edge.as)
  const found = walkBlocks(context, edge, pa, listPlace, pointer)
  const total = edge.total === undefined ? undefined : (values[edge.total] as bigint)
  if (total !== undefined && total !== BigInt(found.elements.length)) {
    if (pa === 0n) context.faults.add(listPlace, 'LINK_EMPTY', emptyLink(pointer, edge.as, total))
    else {
      context.faults.add(listPlace, 'COUNT_MISMATCH', {
        pa: pointer.pa,
        length: 8,
        message: `${edge.as}: the count beside the pointer and the blocks disagree`,
        expected: `${total} entries`,
        found: `${found.elements.length} entries in ${found.storage.blocks.length} blocks`,
      })
    }
  }
  return listOf(context, edge, found, pa, listPlace, pointer)
}

function emptyLink(pointer: Pointer, what: string, count: bigint) {
  const message = `${what}: the pointer is 0 although ${count} are counted`
  return { pa: pointer.pa, length: 8, message, expected: 'an address', found: '0x0' }
}

function nullPointer(pointer: Pointer, what: string) {
  return {
    pa: pointer.pa,
    length: 8,
    message: `${what}: the pointer is 0`,
    expected: 'an address',
    found: '0x0',
  }
}

function list(as: string, element: StructType, pa: PhysAddr, items: Node[]): Node {
  return { kind: 'list', segment: as, pa, length: 0, doc: element.doc, items }
}

/** Decodes the elements of a list; each gets its natural key where that names it alone. */
function listOf(
  context: WalkContext,
  edge: ArrayEdge | BlocksEdge,
  found: Elements<UnitStorage | BlockStorage>,
  pa: PhysAddr,
  place: Place,
  pointer: Pointer,
): Node {
  const keys = naturalKeys(edge, found.elements, context.target)
  const inside = behind(place, pointer, pa)
  const items = found.elements.map((element, index) => {
    const key = keys[index]
    const segment: PathSegment = key === undefined ? { index } : { index, key }
    return decodeRecord(context, edge.element, element, segment, within(inside, segment))
  })
  return {
    ...list(edge.as, edge.element, pa, items),
    length: found.storage.length,
    storage: found.storage,
  } as Node
}

function naturalKeys(
  edge: ArrayEdge | BlocksEdge,
  elements: readonly ElementBytes[],
  target: Target,
): readonly (string | undefined)[] {
  const field = fieldOf(edge.element, edge.naturalKey, target)
  const keys = elements.map(({ bytes }) => {
    const part = bytes.subarray(field.offset, field.offset + field.size)
    if (field.type.kind === 'text') return decodeText(part)
    return hex(new DataView(part.buffer, part.byteOffset, part.byteLength).getBigUint64(0, true))
  })
  const uses = new Map<string, number>()
  for (const key of keys) uses.set(key, (uses.get(key) ?? 0) + 1)
  return keys.map((key) => (uses.get(key) === 1 ? key : undefined))
}

function followObject(
  context: WalkContext,
  edge: ObjectEdge,
  pa: PhysAddr,
  place: Place,
  pointer: Pointer,
): Node | undefined {
  const objectPlace = behind(within(place, edge.as), pointer, pa)
  if (pa !== 0n) return decodeObject(context, edge.type, pa, edge.as, objectPlace)
  context.faults.add(objectPlace, 'ADDRESS_NULL', nullPointer(pointer, edge.as))
  return undefined
}

const fileHandlers = componentByName('memfd')

/** Decodes what a file handler left, by the handler's compatible string; unknown handlers stay opaque. */
function followHandler(
  context: WalkContext,
  compatible: Uint8Array,
  pa: PhysAddr,
  place: Place,
  pointer: Pointer,
): Node | undefined {
  const name = decodeText(compatible)
  const version = versionsFor(fileHandlers, name)[0]
  if (version?.root.kind !== 'struct') {
    const known = fileHandlers.versions.map((candidate) => candidate.id).join(', ')
    context.faults.add(place, 'COMPATIBLE_UNKNOWN', {
      pa: place.path.length > 0 ? pointer.pa : pa,
      length: 8,
      severity: 'note',
      message: `no decoder for files of handler '${name}'; its data is an opaque handle`,
      expected: known,
      found: name,
    })
    return undefined
  }
  const recordPlace = behind(within(place, fileHandlers.key), pointer, pa)
  if (pa === 0n) {
    context.faults.add(recordPlace, 'ADDRESS_NULL', nullPointer(pointer, fileHandlers.key))
    return undefined
  }
  const record = decodeObject(context, version.root, pa, fileHandlers.key, recordPlace)
  return record && { ...record, version: version.id }
}

/** Follows an embedded kho_vmalloc once the record beside it is complete; the result hangs on the descriptor. */
function linkVmalloc(
  context: WalkContext,
  owner: Owner,
  siblings: Node[],
  descriptor: RecordNode,
  edge: VmallocEdge,
  values: Values,
): void {
  owner.links.push(() => {
    const count = BigInt(values[edge.count] as bigint | number)
    const stored = Object.fromEntries(
      descriptor.children.map((node) => [node.segment, (node as ValueNode).value]),
    ) as unknown as VmallocDescriptor
    if (stored.first === 0n && count === 0n) return
    const name = descriptor.segment as string
    const place = within(owner.place, name)
    const pointer: Pointer = { path: [...place.path, 'first'], pa: descriptor.pa }
    const bulk = walkVmalloc(context, edge, stored, count, place, pointer)
    if (bulk) siblings[siblings.indexOf(descriptor)] = { ...descriptor, bulk }
  })
}

/** Base address of a blob, and how to turn its offsets into addresses. */
export interface FdtBase {
  readonly pa: PhysAddr
}

/**
 * Decodes an FDT node by its declaration: declared properties and children first, in declared order,
 * then what the blob has beyond them, raw.
 */
export function decodeFdtNode(
  context: WalkContext,
  type: FdtNodeType,
  node: FdtNode,
  base: FdtBase,
  segment: PathSegment,
  place: Place,
  outer?: Owner,
): RecordNode {
  const children: Node[] = []
  const owner = outer ?? { place, children, links: [] }
  const values: Record<string, unknown> = {}
  const at = (offset: number): PhysAddr => phys(base.pa + BigInt(offset))
  for (const [name, property] of Object.entries(type.properties)) {
    const stored = node.properties.find((candidate) => candidate.name === name)
    if (!stored) missingProperty(context, place, name, at(node.offset))
    else decodeProperty(context, property, stored, { name, values, children, owner, place, base })
  }
  for (const stored of node.properties) {
    if (stored.name !== undefined && type.properties[stored.name]) continue
    const key = stored.name ?? `property@${stored.nameOffset}`
    children.push({
      kind: 'raw',
      segment: key,
      pa: at(stored.valueOffset),
      length: stored.value.length,
      doc: 'Property that the declared format does not have.',
      bytes: stored.value,
    })
  }
  decodeChildren(context, type, node, base, place, children, owner)
  if (!outer) for (const followLink of owner.links) followLink()
  const length = node.end - node.offset
  return { kind: 'record', segment, pa: at(node.offset), length, type, doc: type.doc, children }
}

function missingProperty(context: WalkContext, place: Place, name: string, pa: PhysAddr): void {
  context.faults.add(within(place, name), 'PROPERTY_MISSING', {
    pa,
    length: 4,
    message: `property ${name} is missing`,
    expected: name,
    found: 'no such property',
  })
}

interface PropertyContext {
  readonly name: string
  readonly values: Record<string, unknown>
  readonly children: Node[]
  readonly owner: Owner
  readonly place: Place
  readonly base: FdtBase
}

function decodeProperty(
  context: WalkContext,
  type: PropertyType,
  stored: FdtProperty,
  into: PropertyContext,
): void {
  const { name, children, owner, place, values } = into
  const pa = phys(into.base.pa + BigInt(stored.valueOffset))
  const key = ('key' in type && type.key) || name
  const expected = expectedLength(type, values, context.target)
  if (expected !== undefined && stored.value.length !== expected) {
    context.faults.add(within(place, key), 'PROPERTY_LENGTH', {
      pa,
      length: stored.value.length,
      message: `property ${name} has the wrong length`,
      expected: `${expected} bytes`,
      found: `${stored.value.length} bytes`,
    })
    return
  }
  if (type.kind === 'int') {
    const value = readInt(type, stored.value)
    values[name] = value
    children.push({ kind: 'value', segment: key, pa, length: stored.value.length, type, value })
    checkOnly(context, type, value, within(place, key), pa)
    if (type.to)
      linkPointer(context, owner, type.to, BigInt(value), { path: [...place.path, key], pa }, values)
  } else if (type.kind === 'struct') {
    const nested = decodeRecord(context, type, { pa, bytes: stored.value }, key, within(place, key), owner)
    children.push(nested)
    if (type.to?.kind === 'vmalloc')
      linkVmalloc(context, { ...owner, place }, children, nested, type.to, values)
  } else {
    children.push({ kind: 'value', segment: key, pa, length: stored.value.length, type, value: stored.value })
    if (type.kind === 'compatible') checkCompatible(context, type.value, stored.value, within(place, key), pa)
  }
}

function checkCompatible(
  context: WalkContext,
  expected: string,
  value: Uint8Array,
  place: Place,
  pa: PhysAddr,
): void {
  const found = stringList(value)
  if (found.includes(expected)) return
  context.faults.add(place, 'COMPATIBLE_UNKNOWN', {
    pa,
    length: value.length,
    message: `compatible is '${found.join("', '")}'`,
    expected,
    found: found.join(', '),
  })
}

/** A field with only one allowed value that holds another. */
function checkOnly(
  context: WalkContext,
  type: IntType,
  value: number | bigint,
  place: Place,
  pa: PhysAddr,
): void {
  if (type.only === undefined || BigInt(value) === BigInt(type.only)) return
  context.faults.add(place, 'VALUE_UNEXPECTED', {
    pa,
    length: type.bytes,
    message: `unexpected value ${hex(value)}`,
    expected: hex(type.only),
    found: hex(value),
  })
}

function expectedLength(type: PropertyType, values: Values, target: Target): number | undefined {
  if (type.kind === 'int') return type.bytes
  if (type.kind === 'struct') return layoutOf(type, target).size
  if (type.kind === 'inline-array') return Number(values[type.count] ?? 0) * type.element.bytes
  return undefined
}

/** A stored word in its own byte order; `bytes` holds at least its size. */
export function readInt(type: IntType, bytes: Uint8Array): number | bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const little = type.order === 'le'
  switch (type.bytes) {
    case 1:
      return view.getUint8(0)
    case 2:
      return view.getUint16(0, little)
    case 4:
      return view.getUint32(0, little)
    case 8:
      return view.getBigUint64(0, little)
  }
}

function decodeChildren(
  context: WalkContext,
  type: FdtNodeType,
  node: FdtNode,
  base: FdtBase,
  place: Place,
  children: Node[],
  owner: Owner,
): void {
  for (const [name, childType] of Object.entries(type.children ?? {})) {
    const stored = node.children.find((candidate) => candidate.name === name)
    if (stored) {
      children.push(decodeFdtNode(context, childType, stored, base, name, within(place, name), owner))
      continue
    }
    context.faults.add(within(place, name), 'NODE_MISSING', {
      pa: phys(base.pa + BigInt(node.offset)),
      length: 4,
      message: `node ${name} is missing`,
      expected: name,
      found: 'no such node',
    })
  }
  const others = node.children.filter((candidate) => !type.children?.[candidate.name])
  if (type.each) children.push(decodeEach(context, type.each, others, base, place, node))
  else for (const other of others) children.push(undeclaredNode(other, base))
}

function decodeEach(
  context: WalkContext,
  each: { readonly as: string; readonly node: FdtNodeType },
  nodes: readonly FdtNode[],
  base: FdtBase,
  place: Place,
  parent: FdtNode,
): Node {
  const uses = new Map<string, number>()
  for (const { name } of nodes) uses.set(name, (uses.get(name) ?? 0) + 1)
  const items = nodes.map((node, index) => {
    const segment: PathSegment = uses.get(node.name) === 1 ? { index, key: node.name } : { index }
    const record = decodeFdtNode(context, each.node, node, base, segment, within(place, each.as, segment))
    return { ...record, children: [nodeName(node, base), ...record.children] }
  })
  const pa = phys(base.pa + BigInt(parent.offset))
  return { kind: 'list', segment: each.as, pa, length: parent.end - parent.offset, doc: each.node.doc, items }
}

function nodeName(node: FdtNode, base: FdtBase): ValueNode {
  const length = node.nameBytes.length + 1
  const type: TextType = { kind: 'text', bytes: length, doc: 'Name of the node.' }
  const pa = phys(base.pa + BigInt(node.offset + 4))
  return { kind: 'value', segment: 'name', pa, length, type, value: node.nameBytes }
}

/** A node without a declaration: names and raw values, all the way down. */
export function undeclaredNode(node: FdtNode, base: FdtBase): RecordNode {
  const at = (offset: number): PhysAddr => phys(base.pa + BigInt(offset))
  const properties: Node[] = node.properties.map((property) => ({
    kind: 'raw',
    segment: property.name ?? `property@${property.nameOffset}`,
    pa: at(property.valueOffset),
    length: property.value.length,
    doc: 'Property without a declaration.',
    bytes: property.value,
  }))
  return {
    kind: 'record',
    segment: node.name,
    pa: at(node.offset),
    length: node.end - node.offset,
    type: undefined,
    doc: 'Node without a declaration.',
    children: [...properties, ...node.children.map((inner) => undeclaredNode(inner, base))],
  }
}

/** How far an FDT node is from a declaration: 0 where it fits, one per thing missing, wrong or undeclared. */
export function misfit(type: FdtNodeType, node: FdtNode, target: Target): number {
  let count = 0
  const values: Record<string, unknown> = {}
  for (const [name, property] of Object.entries(type.properties)) {
    const stored = node.properties.find((candidate) => candidate.name === name)
    if (!stored || !fitsProperty(property, stored.value, values, target)) count += 1
    else if (property.kind === 'int') values[name] = readInt(property, stored.value)
  }
  for (const [name, childType] of Object.entries(type.children ?? {})) {
    const stored = node.children.find((candidate) => candidate.name === name)
    count += stored ? misfit(childType, stored, target) : 1
  }
  if (!type.each) count += node.children.filter((candidate) => !type.children?.[candidate.name]).length
  return count
}

function fitsProperty(type: PropertyType, value: Uint8Array, values: Values, target: Target): boolean {
  const expected = expectedLength(type, values, target)
  if (expected !== undefined && value.length !== expected) return false
  return type.kind !== 'compatible' || stringList(value).includes(type.value)
}

/** The strings of a `compatible` property, which may be a list. */
export function stringList(value: Uint8Array): readonly string[] {
  const strings: string[] = []
  for (let at = 0; at < value.length; ) {
    const content = beforeNul(value.subarray(at))
    strings.push(decodeText(content))
    at += content.length + 1
  }
  return strings
}

/** The `compatible` strings of a node; none where it has no such property. */
export function compatiblesOf(node: FdtNode | undefined): readonly string[] {
  const property = node?.properties.find((candidate) => candidate.name === 'compatible')
  return property ? stringList(property.value) : []
}
