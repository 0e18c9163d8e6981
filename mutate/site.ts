/**
 * Where faults are made: a decoded handover with everything that a fault needs to find a place and to
 * say what is put there. A place that the handover does not have makes a fault unfit, never an error.
 */
import { khoserMemBitmapPtr, khoserMemChunkHdr, radixKey, radixShape } from '../abi/kho-map.ts'
import { fieldOf, layoutOf, pageShift, type Target } from '../abi/layout.ts'
import { hex, type PhysAddr, type PhysRange, phys } from '../abi/memory.ts'
import type { ChunksEdge } from '../abi/schema.ts'
import { scratchRanges } from '../inspect/boot-entry.ts'
import type { Handover } from '../inspect/decode.ts'
import type { MapPage, PreservedMap } from '../inspect/map.ts'
import { readLeading } from '../inspect/read.ts'
import type { TargetKernel } from '../inspect/target-kernel.ts'
import { child, childrenOf, type Node, type RecordNode, type ValueNode } from '../inspect/tree.ts'
import type { Change, Unfit } from './change.ts'
import { FdtSite } from './fdt-site.ts'
import type { Patch } from './patch.ts'

/** A unit of preserved memory: its head's address. */
export interface PlacedUnit {
  readonly pa: bigint
  readonly order: number
}

/** Places at which free memory is looked for. */
const GRAINS = 4096n

export class Site {
  readonly handover: Handover
  /** The kernel for which the image is to be wrong. */
  readonly kernel: TargetKernel

  constructor(handover: Handover, kernel: TargetKernel) {
    this.handover = handover
    this.kernel = kernel
  }

  get target(): Target {
    return this.handover.target
  }

  get pageSize(): bigint {
    return BigInt(this.target.pageSize)
  }

  /**
   * All nodes at a path; `*` stands for every element of a list, `luo.sessions[*].files[*].memfd`.
   * Keys are plain ones.
   */
  nodes(pattern: string): readonly Node[] {
    return nodesBelow(this.handover.tree, pattern)
  }

  /** The node at a path below another one. */
  below(node: Node, pattern: string): Node | undefined {
    return nodesBelow(node, pattern)[0]
  }

  /** A field of the node of a subsystem in the root FDT. */
  subtreeField(name: string, field: 'name' | 'phys' | 'size'): Node | undefined {
    const node = this.records('subtrees[*]').find(
      ({ segment }) => typeof segment === 'object' && segment.key === name,
    )
    return child(node, field)
  }

  /** The first node at a path for which a condition holds. */
  node(pattern: string, holds: (node: Node) => boolean = () => true): Node | undefined {
    return this.nodes(pattern).find(holds)
  }

  /** Records at a path. */
  records(pattern: string): readonly RecordNode[] {
    return this.nodes(pattern).filter((node) => node.kind === 'record')
  }

  /** The stored numbers at a path, as they are. */
  number(pattern: string): bigint | undefined {
    const node = this.node(pattern)
    return node && storedNumber(node)
  }

  /** Puts a value into a field: the first one at a path, or a node of its own. */
  set(where: string | Node | undefined, value: bigint | number | string | Uint8Array): Change {
    const node = typeof where === 'string' ? this.node(where) : where
    if (node?.kind !== 'value') return noSuch(where)
    return [{ pa: node.pa, bytes: bytesFor(node, value) }]
  }

  /** Changes a stored number. */
  alter(where: string | Node | undefined, change: (value: bigint) => bigint): Change {
    const node = typeof where === 'string' ? this.node(where) : where
    const value = node && storedNumber(node)
    return value === undefined ? noSuch(where) : this.set(node, change(value))
  }

  /** Puts bytes anywhere; pages that the image does not hold appear. */
  write(pa: bigint, bytes: Uint8Array): readonly Patch[] {
    return [{ pa: phys(pa), bytes }]
  }

  /** Puts a little-endian word of 8 or 4 bytes somewhere. */
  word(pa: bigint, value: bigint, size: 8 | 4 = 8): readonly Patch[] {
    return this.write(pa, littleEndian(value, size))
  }

  /**
   * Pages between the first and the last byte of the image that it does not hold, that nothing preserves
   * and that lie in no scratch area: free memory of the machine.
   */
  freePages(count: number): readonly bigint[] {
    const { memory } = this.handover
    const found: bigint[] = []
    const end = memory.ranges.at(-1)?.end ?? 0n
    const grain = (end / this.pageSize / GRAINS) * this.pageSize || this.pageSize
    for (let pa: bigint = memory.ranges[0]?.start ?? 0n; pa < end && found.length < count; pa += grain) {
      const page = pa - (pa % this.pageSize)
      if (this.#isFree(page)) found.push(page)
    }
    return found
  }

  /** So many free pages in a row. Of the first one the map has the lowest bit of a byte. */
  freeRun(count: number): bigint | undefined {
    const { ranges } = this.handover.memory
    const step = this.pageSize * 8n
    const after = (pa: bigint): bigint => pa - (pa % step) + step
    const end = (ranges.at(-1)?.end ?? 0n) - BigInt(count) * this.pageSize
    for (let start = after(ranges[0]?.start ?? 0n); start <= end; ) {
      const taken = pagesFrom(start, count, this.pageSize).findLast((page) => !this.#isFree(page))
      if (taken === undefined) return start
      start = after(taken)
    }
    return undefined
  }

  #isFree(page: bigint): boolean {
    const isHeld = this.handover.memory.presence(phys(page)).state === 'present'
    return page > 0n && !isHeld && !this.unitAt(page) && !this.#isScratch(page)
  }

  /** The scratch areas, where they are known. */
  get scratch(): readonly PhysRange[] {
    const list = child(this.handover.tree, 'scratch')
    return list?.kind === 'list' ? scratchRanges(list) : []
  }

  #isScratch(pa: bigint): boolean {
    return this.scratch.some(({ start, end }) => pa >= start && pa < end)
  }

  /** The 64-bit word at an address; undefined where the image holds none. */
  wordAt(pa: bigint): bigint | undefined {
    const bytes = this.bytesAt(pa, 8)
    return bytes && new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)
  }

  bytesAt(pa: bigint, length: number): Uint8Array | undefined {
    const bytes = readLeading(this.handover.memory, phys(pa), length)
    return bytes.length === length ? bytes : undefined
  }

  /** An FDT of the handover (`kho`, `memblock`, `luo`, `kho_test`) and what can be changed in it. */
  fdt(path: string): FdtSite | Unfit {
    const placed = this.handover.fdts.find((one) => one.path === path)
    return placed?.fdt.root ? new FdtSite(placed) : { unfit: `there is no FDT ${path} in this handover` }
  }

  get map(): PreservedMap | undefined {
    const node = child(this.handover.tree, 'preserved')
    return node?.kind === 'preserved' ? node.map : undefined
  }

  /** The unit that holds an address. */
  unitAt(pa: bigint): PlacedUnit | undefined {
    const unit = this.map?.unitAt(Number(pa / this.pageSize))
    return unit && { pa: BigInt(unit.pfn) * this.pageSize, order: unit.order }
  }

  /** All units of an order, the first ones only. */
  unitsOf(order: number, limit = 1000): readonly PlacedUnit[] {
    const units: PlacedUnit[] = []
    for (const { pfn, count } of this.map?.runs(order) ?? []) {
      for (let i = 0; i < count && units.length < limit; i++) {
        units.push({ pa: BigInt(pfn + i * 2 ** order) * this.pageSize, order })
      }
    }
    return units
  }

  /** Takes the unit that holds an address out of the map. */
  unpreserve(pa: bigint | undefined): Change {
    const unit = pa === undefined ? undefined : this.unitAt(pa)
    return unit ? this.#setBit(unit, false) : { unfit: 'nothing of this kind is preserved' }
  }

  /** Puts a unit into the map, which grows where it has no bitmap for it. */
  preserve(unit: PlacedUnit): Change {
    const { map } = this
    if (!map || this.bitOf(unit)) return this.#setBit(unit, true)
    if (map.edge.kind === 'radix') return this.setKey(radixKey(unit.pa, unit.order, this.target.pageSize))
    return this.#addChunk(
      map.edge,
      map.pages.findLast(({ role }) => role === 'chunk'),
      unit,
    )
  }

  /** Puts pages in a row, found by `freeRun`, into the map, each as a unit. */
  preserveRun(start: bigint, count: number): Change {
    const patches: Patch[] = []
    for (let first = 0; first < count; first += 8) {
      const place = this.bitOf({ pa: start + BigInt(first) * this.pageSize, order: 0 })
      if (place?.mask !== 1) return { unfit: `the map has no room for ${count} pages at ${hex(start)}` }
      patches.push({ pa: place.pa, bytes: Uint8Array.of(2 ** Math.min(8, count - first) - 1) })
    }
    return patches
  }

  /** A further chunk with one bitmap, in which one bit is set. */
  #addChunk(edge: ChunksEdge, last: MapPage | undefined, { pa, order }: PlacedUnit): Change {
    const [chunk, bitmap] = this.freePages(2)
    if (!last || chunk === undefined || bitmap === undefined) return { unfit: 'there is no free memory' }
    const at = (field: keyof (typeof khoserMemChunkHdr)['fields']): bigint =>
      chunk + BigInt(fieldOf(khoserMemChunkHdr, field, this.target).offset)
    const entry = (field: keyof (typeof khoserMemBitmapPtr)['fields']): bigint =>
      BigInt(fieldOf(khoserMemBitmapPtr, field, this.target).offset)
    const first = chunk + BigInt(layoutOf(khoserMemChunkHdr, this.target).size)
    const unitBytes = this.pageSize << BigInt(order)
    const window = unitBytes * BigInt(layoutOf(edge.bitmap, this.target).size * 8)
    const bit = Number((pa % window) / unitBytes)
    return [
      ...this.word(last.pa, chunk),
      ...this.#zeros(chunk),
      ...this.word(at('order'), BigInt(order), 4),
      ...this.word(at('num_elms'), 1n, 4),
      ...this.word(first + entry('phys_start'), pa - (pa % window)),
      ...this.word(first + entry('bitmap'), bitmap),
      ...this.#zeros(bitmap),
      ...this.write(bitmap + BigInt(bit >>> 3), Uint8Array.of(1 << (bit & 7))),
    ]
  }

  /** Sets a key of the radix tree, whether it means anything or not; its nodes are made where there are none. */
  setKey(key: bigint): Change {
    const { map } = this
    if (map?.edge.kind !== 'radix') return { unfit: 'its map is no radix tree' }
    const { depth, tableLog2, leafLog2 } = radixShape(map.edge, this.target)
    const fresh = [...this.freePages(depth)]
    const patches: Patch[] = []
    let node: bigint = this.number('kho.memory_map') ?? 0n
    let isFresh = false
    for (let level = depth - 1; level > 0; level--) {
      const index = (key >> BigInt(leafLog2 + (level - 1) * tableLog2)) % (1n << BigInt(tableLog2))
      const entry = node + index * 8n
      const next: bigint = isFresh ? 0n : (this.wordAt(entry) ?? 0n)
      const page: bigint | undefined = next === 0n ? fresh.pop() : next
      if (page === undefined) return { unfit: 'there is no free memory' }
      if (next === 0n) patches.push(...this.word(entry, page), ...this.#zeros(page))
      isFresh ||= next === 0n
      node = page
    }
    const bit = key % (1n << BigInt(leafLog2))
    const at = node + (bit >> 3n)
    const old = isFresh ? 0 : (this.bytesAt(at, 1)?.[0] ?? 0)
    return [...patches, ...this.write(at, Uint8Array.of(old | (1 << Number(bit & 7n))))]
  }

  #zeros(page: bigint): readonly Patch[] {
    return this.write(page, new Uint8Array(this.target.pageSize))
  }

  /** Whether the map can take a unit that it does not hold yet. */
  canPreserve(unit: PlacedUnit): boolean {
    return !this.unitAt(unit.pa) && (this.map?.edge.kind === 'radix' || this.bitOf(unit) !== undefined)
  }

  /** Where the map has the bit of a unit, if one of its pages has room for it. */
  bitOf({ pa, order }: PlacedUnit): { readonly pa: PhysAddr; readonly mask: number } | undefined {
    const { map } = this
    for (const page of map?.pages ?? []) {
      const bit = this.#bitIn(map as PreservedMap, page, pa, order)
      if (bit !== undefined) return { pa: phys(page.pa + (bit >> 3n)), mask: 1 << Number(bit & 7n) }
    }
    return undefined
  }

  #setBit(unit: PlacedUnit, set: boolean): Change {
    const place = this.bitOf(unit)
    const byte = place && this.bytesAt(place.pa, 1)?.[0]
    if (!place || byte === undefined)
      return { unfit: `the map has no room for order ${unit.order} at ${hex(unit.pa)}` }
    return [{ pa: place.pa, bytes: Uint8Array.of(set ? byte | place.mask : byte & ~place.mask) }]
  }

  /** Number of the bit that stands for a unit in a page of the map. */
  #bitIn({ edge }: PreservedMap, page: MapPage, pa: bigint, order: number): bigint | undefined {
    if (edge.kind === 'radix') {
      if (page.role !== 'leaf') return undefined
      const key = radixKey(pa, order, this.target.pageSize)
      const bits = BigInt(radixShape(edge, this.target).leafLog2)
      return key >> bits === page.prefix ? key & ((1n << bits) - 1n) : undefined
    }
    if (page.role !== 'bitmap' || page.level !== order) return undefined
    const bit = (pa - page.prefix) >> BigInt(pageShift(this.target.pageSize) + order)
    return bit >= 0n && bit < BigInt(page.length) * 8n ? bit : undefined
  }
}

export function pagesFrom(start: bigint, count: number, pageSize: bigint): readonly bigint[] {
  return Array.from({ length: count }, (_, i) => start + BigInt(i) * pageSize)
}

function nodesBelow(root: Node, pattern: string): readonly Node[] {
  let found: readonly Node[] = [root]
  for (const step of pattern.split(/\.|(?=\[\*\])/)) {
    found = found.flatMap((node) => (step === '[*]' ? itemsOf(node) : (child(node, step) ?? [])))
  }
  return found
}

function itemsOf(node: Node): readonly Node[] {
  return node.kind === 'list' ? childrenOf(node) : []
}

function storedNumber(node: Node): bigint | undefined {
  if (node.kind !== 'value' || node.value instanceof Uint8Array) return undefined
  return BigInt(node.value)
}

function noSuch(where: string | Node | undefined): Unfit {
  return { unfit: typeof where === 'string' ? `this handover has no ${where}` : 'there is no such field' }
}

/** The bytes of a field that holds a value: numbers in its byte order, text filled up with NUL. */
function bytesFor({ type, length }: ValueNode, value: bigint | number | string | Uint8Array): Uint8Array {
  if (typeof value === 'bigint' || typeof value === 'number') {
    const bytes = littleEndian(BigInt(value), length)
    return type.kind === 'int' && type.order === 'be' ? bytes.reverse() : bytes
  }
  const bytes = new Uint8Array(length)
  bytes.set((typeof value === 'string' ? new TextEncoder().encode(value) : value).subarray(0, length))
  return bytes
}

export function littleEndian(value: bigint, size: number): Uint8Array {
  let rest = BigInt.asUintN(size * 8, value)
  return Uint8Array.from({ length: size }, () => {
    const byte = Number(rest & 0xffn)
    rest >>= 8n
    return byte
  })
}
