/**
 * From a decoded image to a handover document that carries the addresses: the only place where decoder
 * and encoder meet, so that neither knows the other.
 */
import { FDT_RESERVE_ALIGN, fdtHeader } from '../abi/fdt.ts'
import type { khoserMemChunk } from '../abi/kho-map.ts'
import { radixShape } from '../abi/kho-map.ts'
import { layoutOf, orderOf, pageShift } from '../abi/layout.ts'
import { phys } from '../abi/memory.ts'
import { componentOfSubtree, components, type ReleaseVersions } from '../abi/registry.ts'
import type { ChunksEdge, Infer, StructType } from '../abi/schema.ts'
import {
  type Block,
  type FdtTree,
  HANDOVER_SCHEMA,
  type HandoverDocument,
  type MapChunk,
  type Preserved,
  type RadixPage,
  type RecordList,
  type Scratch,
  type Subtree,
  type Text,
  type VmallocList,
} from '../encode/handover.ts'
import { RunTable } from '../encode/runs.ts'
import { pushUnits, type UnitTable, unitBytes } from '../encode/units.ts'
import { columnOf } from '../inspect/columns.ts'
import type { Handover } from '../inspect/decode.ts'
import type { FdtNode } from '../inspect/fdt.ts'
import type { MapPage, PreservedMap } from '../inspect/map.ts'
import { readStruct } from '../inspect/read.ts'
import { decodeText } from '../inspect/text.ts'
import {
  child,
  childrenOf,
  itemsAt,
  type ListNode,
  type Node,
  numberAt,
  type RecordNode,
  type ValueNode,
} from '../inspect/tree.ts'
import type { VmallocArray } from '../inspect/vmalloc.ts'

/** Everything that was decoded, with its addresses. What lies behind a fault is a bare link. */
export function documentOf(handover: Handover): HandoverDocument {
  return new DocumentWriter(handover).document()
}

type Plain = Record<string, unknown>

class DocumentWriter {
  readonly #handover: Handover
  readonly #map: PreservedMap | undefined

  constructor(handover: Handover) {
    this.#handover = handover
    const preserved = child(handover.tree, 'preserved')
    this.#map = preserved?.kind === 'preserved' ? preserved.map : undefined
  }

  document(): HandoverDocument {
    const { tree, target, memory } = this.#handover
    const scratch = this.#scratch()
    const memoryMap = numberAt(child(tree, 'kho'), 'memory_map')
    return {
      schema: HANDOVER_SCHEMA,
      page_size: target.pageSize,
      versions: this.#versions(),
      ram: memory.ranges.map(({ start, end }) => ({ start, size: end - start })),
      ...(scratch && { scratch }),
      root: {
        at: this.#handover.fdt ?? 0n,
        style: this.#style(),
        ...(this.#map ? {} : { memory_map: BigInt(memoryMap ?? 0n) }),
      },
      subtrees: itemsAt(tree, 'subtrees').map((item) => this.#subtree(item)),
      preserved: this.#map ? this.#preserved(this.#map) : null,
    }
  }

  #versions(): ReleaseVersions {
    const found: Record<string, string> = {}
    for (const { name, key } of components) {
      const node = child(this.#handover.tree, key)
      if (node?.kind === 'record' && node.version !== undefined) found[name] = node.version
    }
    return found
  }

  #scratch(): Scratch | undefined {
    const list = child(this.#handover.tree, 'scratch')
    if (!list) return undefined
    const areas = childrenOf(list).map((area) => ({
      addr: BigInt(numberAt(area, 'addr') ?? 0n),
      size: BigInt(numberAt(area, 'size') ?? 0n),
    }))
    return { ...(list.length > 0 && { at: list.pa as bigint }), areas }
  }

  /** The sequential writer aligns what follows the header to a reservation entry, edits in place do not. */
  #style(): 'sequential' | 'edited' {
    const root = this.#handover.fdts.find(({ path }) => path === 'kho')
    const { size } = layoutOf(fdtHeader, this.#handover.target)
    const packed = Math.ceil(size / FDT_RESERVE_ALIGN) * FDT_RESERVE_ALIGN
    return root?.fdt.header.off_mem_rsvmap === packed ? 'edited' : 'sequential'
  }

  #subtree(item: Node): Subtree {
    const name = textOf((child(item, 'name') as ValueNode).value as Uint8Array)
    const at = numberAt(item, 'phys')
    const body = this.#body(item, typeof name === 'string' ? name : '')
    const size = numberAt(item, 'size')
    const subtree: Subtree = { name, ...(at !== undefined && { at: BigInt(at) }), ...body.fields }
    const order = at === undefined ? undefined : this.#orderAt(BigInt(at), body.length)
    return {
      ...subtree,
      ...(order !== undefined && { order }),
      ...(size !== undefined && BigInt(size) !== BigInt(body.length) && { size: BigInt(size) }),
    }
  }

  /** Order of the unit that holds a blob, where it is not the smallest that would. */
  #orderAt(pa: bigint, length: number): number | undefined {
    const { pageSize } = this.#handover.target
    const unit = this.#map?.unitAt(Number(pa >> BigInt(pageShift(pageSize))))
    return unit && length > 0 && unit.order !== orderOf(length, pageSize) ? unit.order : undefined
  }

  #body(item: Node, name: string): { readonly fields: Partial<Subtree>; readonly length: number } {
    const component = componentOfSubtree(name)
    const node = component ? child(this.#handover.tree, component.key) : child(item, 'blob')
    if (!node) return { fields: {}, length: 0 }
    if (component && node.kind === 'record' && node.version !== undefined) {
      return { fields: { [component.key]: this.#record(node) } as Partial<Subtree>, length: node.length }
    }
    const placed = this.#handover.fdts.find(({ pa }) => pa === node.pa)
    if (placed?.fdt.root) return { fields: { fdt: fdtTree(placed.fdt.root) }, length: node.length }
    return node.kind === 'raw'
      ? { fields: { bytes: this.#bytes(node.pa, node.length) }, length: node.length }
      : { fields: {}, length: 0 }
  }

  #bytes(pa: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    return bytes.subarray(0, this.#handover.memory.read(phys(pa), bytes))
  }

  /** Stored fields and linked objects under the names of the tree; pointers are left to what they link. */
  #record(node: RecordNode): Plain {
    const plain: Plain = {}
    for (const inner of node.children) {
      const name = String(inner.segment)
      if (inner.kind === 'value') Object.assign(plain, this.#value(inner, name))
      else if (inner.kind === 'list') Object.assign(plain, this.#list(inner))
      else if (inner.kind === 'record') Object.assign(plain, this.#inner(inner, name))
    }
    if (plain.memfd !== undefined) delete plain.data
    return withoutDerived(plain, node)
  }

  /** What stands inside of a record: an embedded descriptor, a linked object, or fields of its own. */
  #inner(node: RecordNode, name: string): Plain {
    if (node.type?.kind === 'struct' && node.type.to?.kind === 'vmalloc')
      return { [name]: this.#vmalloc(node) }
    if (node.version !== undefined) return { [name]: { at: node.pa, ...this.#record(node) } }
    return this.#record(node)
  }

  #value({ type, value }: ValueNode, name: string): Plain {
    if (type.kind === 'compatible') return {}
    if (type.kind === 'inline-array') return { [name]: inlineList(value as Uint8Array) }
    if (value instanceof Uint8Array) return { [name]: textOf(value) }
    if (type.kind !== 'int' || !type.to || type.to.kind === 'region' || type.to.kind === 'handler')
      return { [name]: value }
    return 'as' in type.to && value !== 0n ? { [type.to.as]: { at: value } } : {}
  }

  #list(list: ListNode): Plain {
    const name = String(list.segment)
    const { storage } = list
    const entries = list.items.map((item) => (item.kind === 'record' ? this.#record(item) : {}))
    if (!storage) return list.pa === 0n ? {} : { [name]: { entries } }
    if (storage.kind === 'unit') {
      const counted = storage.header && storage.count !== BigInt(entries.length)
      return { [name]: { at: storage.pa, entries, ...(counted && { count: storage.count }) } }
    }
    if (storage.blocks.length === 0) return {}
    return {
      [name]: { blocks: blocksOf(storage.blocks, entries.length), entries } satisfies RecordList<Plain>,
    }
  }

  /** An array in vmalloc memory; only the descriptor where the image does not hold all of it. */
  #vmalloc(descriptor: RecordNode): Plain | undefined {
    const stored = Object.fromEntries(
      descriptor.children.map((node) => [node.segment, (node as ValueNode).value]),
    )
    const { bulk } = descriptor
    if (!bulk) return stored.first === 0n && stored.total_pages === 0 ? undefined : stored
    const records = this.#records(bulk)
    if (records.total !== bulk.count || bulk.count !== bulk.available) return stored
    const { flags, order, total_pages: total } = bulk.descriptor
    const whole = bulk.groups.length * 2 ** order
    return {
      records,
      chunks: [...bulk.chunks],
      pages: this.#pages(bulk),
      flags,
      order,
      ...(total !== whole && { total_pages: total }),
    } satisfies VmallocList<string>
  }

  #pages(bulk: VmallocArray): UnitTable {
    const table: UnitTable = new RunTable(['start'])
    for (const start of bulk.groups) table.append(bulk.descriptor.order, { start })
    return table
  }

  /** The elements in runs. A folio's order is what lies between its index and the next one's. */
  #records(bulk: VmallocArray): RunTable {
    const { element } = bulk
    if (element.kind === 'int') {
      const values: RunTable = new RunTable(['value'])
      for (const { value } of bulk.values()) values.append(0, { value: BigInt(value as bigint) })
      return values
    }
    return this.#folioRecords(bulk, element)
  }

  #folioRecords(bulk: VmallocArray, element: StructType): RunTable {
    const fields = Object.keys(element.fields)
    const table = new RunTable(fields)
    const columns = fields.map((field) => columnOf(element, field, bulk.target))
    const indexAt = fields.indexOf('index')
    const run = new RunBuilder(table, fields)
    let pending: readonly number[] | undefined
    for (const { count, bytes } of bulk.pieces()) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      for (let i = 0; i < count; i++) {
        const record = columns.map((column) => column(view, i * bulk.elementSize))
        if (pending)
          run.add(pending, this.#orderBetween(pending[indexAt] as number, record[indexAt] as number))
        pending = record
      }
    }
    if (pending) run.add(pending, this.#map?.unitAt(pending[fields.indexOf('pfn')] as number)?.order ?? 0)
    run.flush()
    return table
  }

  #orderBetween(index: number, next: number): number {
    const order = Math.log2(next - index)
    return Number.isInteger(order) ? order : 0
  }

  #preserved(map: PreservedMap): Preserved {
    const units: UnitTable = new RunTable(['start'])
    const { pageSize } = this.#handover.target
    for (const { pfn, order, count } of map.allRuns()) {
      pushUnits(units, {
        start: BigInt(pfn) * BigInt(pageSize),
        order,
        count,
        step: unitBytes(order, pageSize),
      })
    }
    if (map.edge.kind === 'radix')
      return { units, nodes: map.pages.map((page) => this.#radixPage(map, page)) }
    const { chunk } = map.edge
    const chunks = map.pages.filter(({ role }) => role === 'chunk')
    return { units, chunks: chunks.flatMap(({ pa }) => this.#chunk(chunk, pa)) }
  }

  #radixPage(map: PreservedMap, { pa, level, prefix }: MapPage): RadixPage {
    const { edge } = map
    if (edge.kind !== 'radix') return { at: pa, path: [] }
    const { depth, tableLog2 } = radixShape(edge, this.#handover.target)
    const steps = depth - 1 - level
    const mask = (1n << BigInt(tableLog2)) - 1n
    const path = Array.from({ length: steps }, (_, i) =>
      Number((prefix >> BigInt((steps - 1 - i) * tableLog2)) & mask),
    )
    return { at: pa, path }
  }

  #chunk(struct: ChunksEdge['chunk'], pa: bigint): readonly MapChunk[] {
    const read = readStruct(this.#handover.memory, struct, phys(pa), this.#handover.target)
    if ('unreadable' in read) return []
    const { hdr, bitmaps } = read.value as Infer<typeof khoserMemChunk>
    const held = bitmaps.slice(0, hdr.num_elms)
    return [
      {
        at: pa,
        order: hdr.order,
        bitmaps: held.map(({ phys_start, bitmap }) => ({ phys_start, at: bitmap })),
        ...(hdr.num_elms !== held.length && { num_elms: hdr.num_elms }),
      },
    ]
  }
}

/** Joins records that continue each other in every field, without an object per record. */
class RunBuilder {
  readonly #table: RunTable
  readonly #fields: readonly string[]
  #start: readonly number[] = []
  #last: readonly number[] = []
  #step: readonly number[] = []
  #order = 0
  #count = 0

  constructor(table: RunTable, fields: readonly string[]) {
    this.#table = table
    this.#fields = fields
  }

  add(record: readonly number[], order: number): void {
    if (this.#count > 0 && order === this.#order && this.#continues(record)) {
      this.#last = record
      this.#count += 1
      return
    }
    this.flush()
    this.#start = record
    this.#last = record
    this.#order = order
    this.#count = 1
  }

  flush(): void {
    if (this.#count === 0) return
    const named = <V>(of: (at: number) => V): Record<string, V> =>
      Object.fromEntries(this.#fields.map((field, at) => [field, of(at)]))
    this.#table.push({
      count: this.#count,
      order: this.#order,
      start: named((at) => BigInt(this.#start[at] as number)),
      step: named((at) => (this.#count > 1 ? (this.#step[at] as number) : 0)),
    })
    this.#count = 0
  }

  /** The second record sets the step. */
  #continues(record: readonly number[]): boolean {
    if (this.#count === 1) {
      this.#step = record.map((value, at) => value - (this.#last[at] as number))
      return true
    }
    return record.every((value, at) => value - (this.#last[at] as number) === this.#step[at])
  }
}

function blocksOf(
  blocks: readonly { readonly pa: bigint; readonly count: bigint }[],
  total: number,
): readonly Block[] {
  let left = total
  return blocks.map(({ pa, count }) => {
    const entries = Math.min(left, Number(count))
    left -= entries
    return { at: pa, entries, ...(BigInt(entries) !== count && { count }) }
  })
}

/** Leaves out what the encoder derives: counts that agree with their lists, and the version's own contract. */
function withoutDerived(plain: Plain, node: RecordNode): Plain {
  const kept = { ...plain }
  for (const [count, list] of countsOf(node)) {
    const length = lengthOf(plain[list])
    if (kept[count] !== undefined && BigInt(kept[count] as bigint) === BigInt(length)) delete kept[count]
  }
  const component = components.find(({ key }) => key === node.segment)
  const version = component?.versions.find(({ id }) => id === node.version)
  if (version?.place.kind === 'field') delete kept[version.place.field]
  return kept
}

function lengthOf(list: unknown): number {
  const { entries, records } = (list ?? {}) as { entries?: readonly unknown[]; records?: RunTable }
  return records?.total ?? entries?.length ?? 0
}

/** Fields that count a list of the same object, with the list's name. */
function countsOf(node: RecordNode): readonly (readonly [count: string, list: string])[] {
  const pairs: (readonly [string, string])[] = []
  const properties = node.type?.kind === 'struct' ? node.type.fields : (node.type?.properties ?? {})
  for (const [name, type] of Object.entries(properties)) {
    if (type.kind === 'inline-array') pairs.push([type.count, name])
    if (type.kind === 'struct' && type.to?.kind === 'vmalloc') pairs.push([type.to.count, name])
    if (type.kind !== 'int') continue
    if (type.to?.kind === 'array' && !type.to.header) pairs.push([type.to.count, type.to.as])
    if (type.to?.kind === 'blocks' && type.to.total !== undefined) pairs.push([type.to.total, type.to.as])
  }
  for (const inner of node.children) {
    if (inner.kind === 'record' && inner.version === undefined) pairs.push(...countsOf(inner))
  }
  return pairs
}

function inlineList(value: Uint8Array): VmallocList<'value'> {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength)
  const records: RunTable<'value'> = new RunTable(['value'])
  for (let at = 0; at + 8 <= value.length; at += 8) records.append(0, { value: view.getBigUint64(at, true) })
  return { records }
}

/** Text as a string where that says all of it: valid UTF-8, one NUL, nothing but zeros behind it. */
function textOf(bytes: Uint8Array): Text {
  const text = decodeText(bytes)
  const encoded = new TextEncoder().encode(text)
  const same = encoded.every((byte, at) => byte === bytes[at])
  return same && bytes.subarray(encoded.length).every((byte) => byte === 0) ? text : bytes.slice()
}

function fdtTree(node: FdtNode): FdtTree {
  return {
    name: textOf(node.nameBytes),
    properties: node.properties.map(({ name, value }) => ({ name: name ?? '', value: value.slice() })),
    children: node.children.map(fdtTree),
  }
}
