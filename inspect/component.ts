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
  IntType,
  ObjectEdge,
  StructType,
  VmallocEdge,
} from '../abi/schema.ts'
import type { BlockStorage, ElementBytes, Elements, Pointer, UnitStorage, WalkContext } from './chain.ts'
import { leaveRest, reach, walkArray, walkBlocks } from './chain.ts'
import { behind, type Place, within } from './faults.ts'
import { readBytes } from './read.ts'
import { decodeStruct } from './record.ts'
import { decodeText } from './text.ts'
import type { Node, RecordNode, ValueNode } from './tree.ts'
import { type VmallocDescriptor, walkVmalloc } from './vmalloc.ts'

export type Values = Readonly<Record<string, unknown>>

/** A record that stands for an object: where links of its fields, nested or not, are hung. */
export interface Owner {
  readonly place: Place
  readonly children: Node[]
  readonly links: (() => void)[]
}

/** Decodes the struct at an address into a record, links followed; undefined, with a fault, where it is missing. */
function decodeObject(
  context: WalkContext,
  struct: StructType,
  pa: PhysAddr,
  segment: string,
  place: Place,
  pointer: Pointer,
): RecordNode | undefined {
  const { size } = layoutOf(struct, context.target)
  if (pa === 0n) {
    context.faults.add(place, 'ADDRESS_NULL', nullPointer(pointer, segment))
    return undefined
  }
  if (!reach(context, pa, `the record ${segment}`, place, pointer)) return undefined
  if (context.budget.takeRecords(1) === 0) {
    leaveRest(context, pa, size, place)
    return undefined
  }
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
  let isAwaited = false
  for (const { name, type, offset, size } of layoutOf(struct, target).fields) {
    const pa = phys(element.pa + BigInt(offset))
    if (type.kind === 'struct') {
      const bytes = element.bytes.subarray(offset, offset + size)
      const nested = decodeRecord(context, type, { pa, bytes }, name, within(place, name), owner)
      children.push(nested)
      if (type.to?.kind !== 'vmalloc') continue
      linkVmalloc(context, owner, children, nested, type.to, values)
      isAwaited = outer !== undefined
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
    // There can be half a million records, and an array that grew has room for many more than these.
    children: isAwaited ? children : children.slice(),
  }
}

export function linkPointer(
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
): Node | undefined {
  const listPlace = within(place, edge.as)
  const found = walkBlocks(context, edge, pa, listPlace, pointer)
  const total = edge.total === undefined ? undefined : (values[edge.total] as bigint)
  if (total !== undefined && found.complete && total !== BigInt(found.elements.length)) {
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
  // Where not even the first block could be read, nothing is known of the list.
  const isThere = pa === 0n || found.storage.blocks.length > 0
  return isThere ? listOf(context, edge, found, pa, listPlace, pointer) : undefined
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
  return decodeObject(context, edge.type, pa, edge.as, objectPlace, pointer)
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
  const record = decodeObject(context, version.root, pa, fileHandlers.key, recordPlace, pointer)
  return record && { ...record, version: version.id }
}

/**
 * Follows an embedded kho_vmalloc once the record beside it is complete; the result hangs on the
 * descriptor. Where the count beside it is missing nothing says what the memory holds.
 */
export function linkVmalloc(
  context: WalkContext,
  owner: Owner,
  siblings: Node[],
  descriptor: RecordNode,
  edge: VmallocEdge,
  values: Values,
): void {
  owner.links.push(() => {
    const counted = values[edge.count] as bigint | number | undefined
    if (counted === undefined) return
    const count = BigInt(counted)
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
