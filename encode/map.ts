/**
 * Writers of the map of preserved memory: chunks of bitmaps (kho-v1) and the radix tree (kho-v2 and later).
 *
 * Pages of the map are not preserved themselves. Mirrors kho_mem_serialize() (kernel/kexec_handover.c) and
 * kho_radix_add_key() (kernel/liveupdate/kexec_handover.c).
 */
import type { Path } from '../abi/fault.ts'
import { radixKey, radixShape } from '../abi/kho-map.ts'
import { countOf, fieldOf, layoutOf, pageShift } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import type { ArrayType, ChunksEdge, RadixEdge } from '../abi/schema.ts'
import { setBits } from './bits.ts'
import type { MapChunk, RadixPage } from './handover.ts'
import type { Site } from './site.ts'
import { largestOrder, neighbourRuns, type UnitRun, type UnitTable, unitBytes, unitRun } from './units.ts'
import { encodeStruct } from './write.ts'

/** Most bytes of a map: at 4K pages the bits of order 0 for 8 TiB in one piece. */
const MAX_MAP_BYTES = 2 ** 28

/** Nothing is written of a map that is too large. */
function tooLarge(site: Site, path: Path): PhysAddr {
  site.report(path, `the map of these units takes more than ${MAX_MAP_BYTES} bytes`)
  return phys(0)
}

/** All units of several tables in runs of neighbours; one that is not aligned to its size is a problem. */
function* alignedRuns(site: Site, tables: readonly UnitTable[], path: Path): Generator<UnitRun> {
  const { pageSize } = site.target
  for (const table of tables) {
    for (let at = 0; at < table.length; at++) {
      for (const run of neighbourRuns(unitRun(table, at), pageSize)) {
        if (run.order > largestOrder(pageSize)) {
          site.report(path, `a unit of order ${run.order} is larger than memory`)
        } else if (run.start % BigInt(unitBytes(run.order, pageSize)) === 0n) yield run
        else site.report(path, `${hex(run.start)} is not aligned to a unit of order ${run.order}`)
      }
    }
  }
}

/** One bitmap of the kho-v1 map while it is filled. */
interface Window {
  readonly physStart: bigint
  readonly at: bigint | undefined
  readonly bits: Uint8Array
}

interface OpenChunk {
  readonly at: bigint | undefined
  readonly order: number
  readonly windows: Window[]
  readonly nrElements: number | undefined
}

/**
 * Writes a kho-v1 map: the given chunks in their order, then what the units need beyond them. Without
 * given chunks orders and bitmaps ascend, as in the kernel. Returns the first chunk's address, 0 if
 * nothing is preserved.
 */
export function writeChunkMap(
  site: Site,
  edge: ChunksEdge,
  tables: readonly UnitTable[],
  given: readonly MapChunk[],
  path: Path,
): PhysAddr {
  const bitmapBytes = layoutOf(edge.bitmap, site.target).size
  const chunks: OpenChunk[] = given.map(({ at, order, bitmaps, num_elms }) => ({
    at,
    order,
    nrElements: num_elms,
    windows: bitmaps.map((bitmap) => ({
      physStart: bitmap.phys_start,
      at: bitmap.at,
      bits: new Uint8Array(bitmapBytes),
    })),
  }))
  if (!site.surveying && !fillWindows(site, edge, chunks, alignedRuns(site, tables, path))) {
    return tooLarge(site, path)
  }
  const places = chunks.map((chunk, index) => site.page(chunk.at, [...path, 'chunks', { index }]))
  for (const [index, chunk] of chunks.entries()) {
    const inside = [...path, 'chunks', { index }]
    const bitmaps = chunk.windows.map(({ physStart, at, bits }) => {
      const bitmap = site.piece(at, bitmapBytes, inside)
      site.write(bitmap, bits, inside)
      return { phys_start: physStart, bitmap: bitmap ?? 0n }
    })
    const hdr = {
      next: places[index + 1] ?? 0n,
      order: chunk.order,
      num_elms: chunk.nrElements ?? bitmaps.length,
    }
    site.write(
      places[index],
      encodeStruct(edge.chunk, { hdr, bitmaps }, site.target, site.problems, inside),
      inside,
    )
  }
  return places[0] ?? phys(0)
}

/** Sets the units' bits; opens bitmaps and chunks for those that no given one covers. False if they are too many. */
function fillWindows(site: Site, edge: ChunksEdge, chunks: OpenChunk[], runs: Iterable<UnitRun>): boolean {
  const windowBits = layoutOf(edge.bitmap, site.target).size * 8
  let bytes = 0
  const orders = new Map<number, WindowsOfOrder>()
  for (const run of runs) {
    const unit = BigInt(unitBytes(run.order, site.target.pageSize))
    const windows = orders.get(run.order) ?? new WindowsOfOrder(chunks, run.order, unit, windowBits)
    orders.set(run.order, windows)
    for (let done = 0; done < run.count; ) {
      if (bytes > MAX_MAP_BYTES) return false
      const start = run.start + BigInt(done) * unit
      const before = windows.nrOpened
      const window = windows.covering(start)
      bytes += ((windows.nrOpened - before) * windowBits) / 8
      const bit = Number((start - window.physStart) / unit)
      const part = Math.min(run.count - done, windowBits - bit)
      setBits(window.bits, bit, part)
      done += part
    }
  }
  const field = fieldOf(edge.chunk, 'bitmaps', site.target)
  const capacity = countOf(field.type as ArrayType, site.target, field.offset)
  for (const order of [...orders.keys()].sort((a, b) => a - b)) {
    for (const window of orders.get(order)?.opened() ?? []) roomFor(chunks, order, capacity).push(window)
  }
  return true
}

/** The bitmaps of one order by the memory that they cover. */
class WindowsOfOrder {
  readonly #bits: number
  /** Bytes of memory that one bitmap covers. */
  readonly #span: bigint
  readonly #aligned = new Map<bigint, Window>()
  /** Given ones that start where the kernel would not let them. */
  readonly #odd: Window[] = []
  readonly #opened: Window[] = []

  constructor(chunks: readonly OpenChunk[], order: number, unit: bigint, bits: number) {
    this.#bits = bits
    this.#span = unit * BigInt(bits)
    for (const chunk of chunks) {
      if (chunk.order !== order) continue
      for (const window of chunk.windows) {
        if (window.physStart % this.#span === 0n) this.#aligned.set(window.physStart, window)
        else this.#odd.push(window)
      }
    }
  }

  covering(pa: bigint): Window {
    const physStart = pa - (pa % this.#span)
    const known =
      this.#aligned.get(physStart) ??
      this.#odd.find((window) => window.physStart <= pa && pa < window.physStart + this.#span)
    if (known) return known
    const window = { physStart, at: undefined, bits: new Uint8Array(this.#bits / 8) }
    this.#aligned.set(physStart, window)
    this.#opened.push(window)
    return window
  }

  get nrOpened(): number {
    return this.#opened.length
  }

  /** Those that no given chunk holds, ascending. */
  opened(): readonly Window[] {
    return this.#opened.toSorted((a, b) => (a.physStart < b.physStart ? -1 : 1))
  }
}

/** The bitmaps of the last chunk of an order if it has room, else of a new chunk. */
function roomFor(chunks: OpenChunk[], order: number, capacity: number): Window[] {
  const last = chunks.findLast((chunk) => chunk.order === order)
  if (last && last.nrElements === undefined && last.windows.length < capacity) return last.windows
  const chunk: OpenChunk = { at: undefined, order, nrElements: undefined, windows: [] }
  chunks.push(chunk)
  return chunk.windows
}

/** One page of the radix tree while it is filled. */
interface OpenNode {
  readonly path: readonly number[]
  readonly at: bigint | undefined
  readonly children: Map<number, OpenNode>
  /** Of a leaf. */
  readonly bits: Uint8Array | undefined
}

/**
 * Writes a radix tree: the given pages, empty ones included, and what the units need beyond them. Returns
 * the root's address.
 */
export function writeRadixMap(
  site: Site,
  edge: RadixEdge,
  tables: readonly UnitTable[],
  given: readonly RadixPage[],
  path: Path,
): PhysAddr {
  const tree = new RadixTree(site, edge, given)
  for (const { path: indexes } of given) {
    if (!tree.reach(indexes)) site.report([...path, 'nodes', indexes.join('/')], tree.shapeMessage)
  }
  for (const run of site.surveying ? [] : alignedRuns(site, tables, path)) {
    if (!tree.add(run)) return tooLarge(site, path)
  }
  return tree.write(tree.root, [...path, 'nodes']) ?? phys(0)
}

class RadixTree {
  readonly root: OpenNode
  readonly #site: Site
  readonly #edge: RadixEdge
  readonly #given: ReadonlyMap<string, bigint | undefined>
  readonly #leafLog2: number
  readonly #tableLog2: number
  readonly #depth: number
  #nrPages = 0
  #lastLeaf: { prefix: bigint; bits: Uint8Array } | undefined

  constructor(site: Site, edge: RadixEdge, given: readonly RadixPage[]) {
    const { leafLog2, tableLog2, depth } = radixShape(edge, site.target)
    this.#site = site
    this.#edge = edge
    this.#leafLog2 = leafLog2
    this.#tableLog2 = tableLog2
    this.#depth = depth
    this.#given = new Map(given.map(({ path, at }) => [path.join('/'), at]))
    this.root = this.#open([])
  }

  get shapeMessage(): string {
    return `a tree of ${this.#depth} levels has at most ${this.#depth - 1} indexes below ${2 ** this.#tableLog2}`
  }

  /** Opens the nodes down to the given indexes; undefined if the tree has no such place. */
  reach(indexes: readonly number[]): OpenNode | undefined {
    if (indexes.length >= this.#depth) return undefined
    let node = this.root
    for (const index of indexes) {
      if (!Number.isInteger(index) || index < 0 || index >= 2 ** this.#tableLog2) return undefined
      const child = node.children.get(index) ?? this.#open([...node.path, index])
      node.children.set(index, child)
      node = child
    }
    return node
  }

  /** Sets the bits of a run's keys, which are as consecutive as its units. False if they are too many. */
  add({ start, order, count }: UnitRun): boolean {
    const leafBits = 2 ** this.#leafLog2
    const unit = BigInt(pageShift(this.#site.target.pageSize) + order)
    for (let done = 0; done < count; ) {
      if (this.#nrPages * this.#site.target.pageSize > MAX_MAP_BYTES) return false
      const key = radixKey(start + (BigInt(done) << unit), order, this.#site.target.pageSize)
      const bit = Number(key % BigInt(leafBits))
      const part = Math.min(count - done, leafBits - bit)
      setBits(this.#leaf(key >> BigInt(this.#leafLog2)), bit, part)
      done += part
    }
    return true
  }

  /** Writes a node after its children; returns its address. */
  write(node: OpenNode, path: Path): PhysAddr | undefined {
    const inside = [...path, node.path.join('/')]
    const pa = this.#site.page(node.at, inside)
    if (node.bits) {
      const leaf = fieldOf(this.#edge.leaf, 'bitmap', this.#site.target)
      this.#site.write(
        pa,
        encodeStruct(this.#edge.leaf, { [leaf.name]: node.bits }, this.#site.target),
        inside,
      )
      return pa
    }
    const table: bigint[] = new Array(2 ** this.#tableLog2).fill(0n)
    for (const [index, child] of node.children) table[index] = this.write(child, path) ?? 0n
    this.#site.write(pa, encodeStruct(this.#edge.node, { table }, this.#site.target), inside)
    return pa
  }

  #leaf(prefix: bigint): Uint8Array {
    if (this.#lastLeaf?.prefix === prefix) return this.#lastLeaf.bits
    const indexes: number[] = []
    for (let level = this.#depth - 1; level > 0; level--) {
      indexes.push(Number((prefix >> BigInt((level - 1) * this.#tableLog2)) % BigInt(2 ** this.#tableLog2)))
    }
    const bits = this.reach(indexes)?.bits as Uint8Array
    this.#lastLeaf = { prefix, bits }
    return bits
  }

  #open(path: readonly number[]): OpenNode {
    this.#nrPages++
    const isLeaf = path.length === this.#depth - 1
    const bits = isLeaf ? new Uint8Array(layoutOf(this.#edge.leaf, this.#site.target).size) : undefined
    return { path, at: this.#given.get(path.join('/')), children: new Map(), bits }
  }
}
