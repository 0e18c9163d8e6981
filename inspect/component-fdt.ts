/**
 * Schema-driven decoding of FDT nodes: declared properties and children become records of the tree, the
 * edges of their pointers are followed, what the blob has beyond its declaration is kept raw.
 */
import type { PathSegment } from '../abi/fault.ts'
import { layoutOf, type Target } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import type { FdtNodeType, IntType, PropertyType, TextType } from '../abi/schema.ts'
import type { WalkContext } from './chain.ts'
import { decodeRecord, linkPointer, linkVmalloc, type Owner, readInt, type Values } from './component.ts'
import { type Place, within } from './faults.ts'
import type { FdtNode, FdtProperty } from './fdt.ts'
import { beforeNul, decodeText } from './text.ts'
import type { Node, RawNode, RecordNode, ValueNode } from './tree.ts'

/** A node on its way into the tree. */
interface Into {
  readonly place: Place
  readonly owner: Owner
  readonly children: Node[]
  /** Values of the properties so far, for lengths and counts that others name. */
  readonly values: Record<string, unknown>
}

/** Decodes the nodes of one blob. */
export class FdtDecoder {
  readonly #context: WalkContext
  readonly #base: PhysAddr
  readonly #listHome: Place | undefined

  /** `base` is the blob's address; `listHome` is where a list of children hangs, if not on its parent. */
  constructor(context: WalkContext, base: PhysAddr, listHome?: Place) {
    this.#context = context
    this.#base = base
    this.#listHome = listHome
  }

  /** Declared properties and children first, in declared order, then what the blob has beyond them. */
  decode(type: FdtNodeType, node: FdtNode, segment: PathSegment, place: Place, outer?: Owner): RecordNode {
    const children: Node[] = []
    const owner = outer ?? { place, children, links: [] }
    const into: Into = { place, owner, children, values: {} }
    for (const [name, property] of Object.entries(type.properties)) {
      const stored = node.properties.find((candidate) => candidate.name === name)
      if (stored) this.#property(property, stored, name, into)
      else this.#missing('PROPERTY_MISSING', `property ${name}`, node, within(place, keyOf(property, name)))
    }
    for (const stored of node.properties) {
      if (!declares(type.properties, stored.name)) children.push(this.#rawProperty(stored))
    }
    this.#children(type, node, into)
    if (!outer) for (const follow of owner.links) follow()
    distinguish(children)
    return { kind: 'record', segment, ...this.#extent(node), type, doc: type.doc, children }
  }

  /** A node without a declaration: names and raw values, all the way down. */
  undeclared(node: FdtNode): RecordNode {
    const properties = node.properties.map((property) => this.#rawProperty(property))
    const children = [...properties, ...node.children.map((inner) => this.undeclared(inner))]
    distinguish(children)
    const doc = 'Node without a declaration.'
    return { kind: 'record', segment: node.name, ...this.#extent(node), type: undefined, doc, children }
  }

  #at(offset: number): PhysAddr {
    return phys(this.#base + BigInt(offset))
  }

  #extent(node: FdtNode): { readonly pa: PhysAddr; readonly length: number } {
    return { pa: this.#at(node.offset), length: node.end - node.offset }
  }

  #rawProperty(stored: FdtProperty): RawNode {
    const segment = stored.name ?? `property@${stored.nameOffset}`
    const doc = 'Property without a declaration.'
    const { length } = stored.value
    return { kind: 'raw', segment, pa: this.#at(stored.valueOffset), length, doc, bytes: stored.value }
  }

  /** In a node that the image cuts off, nothing says that the missing part was not there. */
  #missing(code: 'PROPERTY_MISSING' | 'NODE_MISSING', what: string, node: FdtNode, place: Place): void {
    this.#context.faults.add(place, code, {
      pa: this.#at(node.offset),
      length: 4,
      severity: node.cut ? 'warning' : 'error',
      message: `${what} is missing`,
      expected: what,
      found: node.cut ? 'the image cuts the node' : 'it is not there',
    })
  }

  #property(type: PropertyType, stored: FdtProperty, name: string, into: Into): void {
    const { children, place, owner, values } = into
    const pa = this.#at(stored.valueOffset)
    const { length } = stored.value
    const key = keyOf(type, name)
    const expected = expectedLength(type, values, this.#context.target)
    if (expected !== undefined && length !== expected) {
      const message = `property ${name} has the wrong length`
      const details = { pa, length, message, expected: `${expected} bytes`, found: `${length} bytes` }
      this.#context.faults.add(within(place, key), 'PROPERTY_LENGTH', details)
      return
    }
    if (type.kind === 'int') {
      const value = readInt(type, stored.value)
      values[name] = value
      children.push({ kind: 'value', segment: key, pa, length, type, value })
      this.#checkOnly(type, value, within(place, key), pa)
      const pointer = { path: [...place.path, key], pa }
      if (type.to) linkPointer(this.#context, owner, type.to, BigInt(value), pointer, values)
    } else if (type.kind === 'struct') {
      const nested = decodeRecord(
        this.#context,
        type,
        { pa, bytes: stored.value },
        key,
        within(place, key),
        owner,
      )
      children.push(nested)
      if (type.to?.kind === 'vmalloc')
        linkVmalloc(this.#context, { ...owner, place }, children, nested, type.to, values)
    } else {
      children.push({ kind: 'value', segment: key, pa, length, type, value: stored.value })
      if (type.kind === 'compatible') this.#checkCompatible(type.value, stored.value, within(place, key), pa)
    }
  }

  #checkCompatible(expected: string, value: Uint8Array, place: Place, pa: PhysAddr): void {
    const found = stringList(value)
    if (found.includes(expected)) return
    const message = `compatible is '${found.join("', '")}'`
    this.#context.faults.add(place, 'COMPATIBLE_UNKNOWN', {
      pa,
      length: value.length,
      message,
      expected,
      found: found.join(', '),
    })
  }

  /** A field with only one allowed value that holds another. */
  #checkOnly(type: IntType, value: number | bigint, place: Place, pa: PhysAddr): void {
    if (type.only === undefined || BigInt(value) === BigInt(type.only)) return
    const message = `unexpected value ${hex(value)}`
    this.#context.faults.add(place, 'VALUE_UNEXPECTED', {
      pa,
      length: type.bytes,
      message,
      expected: hex(type.only),
      found: hex(value),
    })
  }

  #children(type: FdtNodeType, node: FdtNode, { place, owner, children }: Into): void {
    for (const [name, childType] of Object.entries(type.children ?? {})) {
      const stored = node.children.find((candidate) => candidate.name === name)
      if (stored) children.push(this.decode(childType, stored, name, within(place, name), owner))
      else this.#missing('NODE_MISSING', `node ${name}`, node, within(place, name))
    }
    const others = node.children.filter(({ name }) => !declares(type.children, name))
    if (type.each) children.push(this.#each(type.each, others, node, this.#listHome ?? place))
    else for (const other of others) children.push(this.undeclared(other))
  }

  #each(
    each: NonNullable<FdtNodeType['each']>,
    nodes: readonly FdtNode[],
    parent: FdtNode,
    place: Place,
  ): Node {
    const uses = new Map<string, number>()
    for (const { name } of nodes) uses.set(name, (uses.get(name) ?? 0) + 1)
    const items = nodes.map((node, index) => {
      const segment: PathSegment = uses.get(node.name) === 1 ? { index, key: node.name } : { index }
      const record = this.decode(each.node, node, segment, within(place, each.as, segment))
      return { ...record, children: [this.#nodeName(node), ...record.children] }
    })
    return { kind: 'list', segment: each.as, ...this.#extent(parent), doc: each.node.doc, items }
  }

  #nodeName(node: FdtNode): ValueNode {
    const length = node.nameBytes.length + 1
    const type: TextType = { kind: 'text', bytes: length, doc: 'Name of the node.' }
    return {
      kind: 'value',
      segment: 'name',
      pa: this.#at(node.nameOffset),
      length,
      type,
      value: node.nameBytes,
    }
  }
}

/** Key of a property in the decoded tree. */
function keyOf(type: PropertyType, name: string): string {
  return ('key' in type && type.key) || name
}

/** Whether a name out of an FDT is a declared one, and not one that every object has. */
function declares(declared: object | undefined, name: string | undefined): boolean {
  return declared !== undefined && name !== undefined && Object.hasOwn(declared, name)
}

/** Gives what no declaration names a key of its own: `name#2` where the name is taken. */
export function distinguish(children: Node[]): void {
  const isLoose = (node: Node): boolean =>
    node.kind === 'raw' || (node.kind === 'record' && node.type === undefined)
  const uses = new Map<PathSegment, number>()
  for (const node of children) if (!isLoose(node)) uses.set(node.segment, 1)
  for (const [i, node] of children.entries()) {
    if (!isLoose(node)) continue
    const count = (uses.get(node.segment) ?? 0) + 1
    uses.set(node.segment, count)
    if (count > 1) children[i] = { ...node, segment: `${node.segment}#${count}` }
  }
}

function expectedLength(type: PropertyType, values: Values, target: Target): number | undefined {
  if (type.kind === 'int') return type.bytes
  if (type.kind === 'struct') return layoutOf(type, target).size
  if (type.kind === 'inline-array') return Number(values[type.count] ?? 0) * type.element.bytes
  return undefined
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
  if (!type.each) count += node.children.filter(({ name }) => !declares(type.children, name)).length
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
