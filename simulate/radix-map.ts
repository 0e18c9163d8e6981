/**
 * kho-v2 and later: the radix tree of preserved memory, edited where the next kernel finds it.
 *
 * Source: kernel/liveupdate/kexec_handover.c: kho_radix_add_key(), kho_radix_del_key(),
 * kho_radix_walk_tree(). Keys have at most 53 bits, so that they are exact as numbers.
 */
import { type RadixShape, radixShape } from '../abi/kho-map.ts'
import type { Target } from '../abi/layout.ts'
import { layoutOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { RadixEdge } from '../abi/schema.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { Pages } from './core.ts'
import type { MissingPart, PreservedMap } from './preserved-map.ts'
import type { MachineRam } from './ram.ts'
import { forEachBit, log2Floor, type UnitVisitor, WalkBudget } from './units.ts'

/** What a tree is stored in and how. */
export interface RadixStore {
  readonly ram: MachineRam
  readonly target: Target
  readonly edge: RadixEdge
}

export class RadixMap implements PreservedMap {
  readonly root: PhysAddr
  readonly #ram: MachineRam
  readonly #pages: Pages
  readonly #shape: RadixShape
  readonly #checksWidth: boolean
  /** Leaf of the last key: most keys follow each other. */
  #lastPath = -1
  #lastLeaf: Uint8Array | undefined

  private constructor(store: RadixStore, pages: Pages, root: PhysAddr, checksWidth: boolean) {
    this.#ram = store.ram
    this.#pages = pages
    this.#shape = radixShape(store.edge, store.target)
    this.#checksWidth = checksWidth
    this.root = root
  }

  static create(store: RadixStore, pages: Pages, checksWidth: boolean): Answer<RadixMap> {
    const root = pages.alloc(0)
    return failed(root) ? root : new RadixMap(store, pages, root, checksWidth)
  }

  preserve(frame: number, order: number): Answer {
    const key = this.#key(frame, order)
    if (this.#isTooWide(key)) return new Failure('ERANGE')
    const leaf = this.#leaf(key) ?? this.#grow(key)
    if (failed(leaf)) return leaf
    const bit = key % 2 ** this.#shape.leafLog2
    leaf[bit >> 3] = (leaf[bit >> 3] as number) | (1 << (bit & 7))
  }

  unpreserve(frame: number, order: number): MissingPart | undefined {
    const key = this.#key(frame, order)
    if (this.#isTooWide(key)) return
    const leaf = this.#leaf(key)
    if (!leaf) return 'node'
    const bit = key % 2 ** this.#shape.leafLog2
    leaf[bit >> 3] = (leaf[bit >> 3] as number) & ~(1 << (bit & 7))
  }

  destroy(): void {
    for (const pa of [...this.ownPages()]) this.#pages.put(pa)
    this.#lastPath = -1
  }

  *ownPages(): Generator<PhysAddr> {
    yield* this.#below(this.root, this.#shape.depth - 1)
  }

  *#below(pa: PhysAddr, level: number, budget = new WalkBudget()): Generator<PhysAddr> {
    budget.page(pa)
    if (level > 0)
      for (const [, child] of children(this.#ram, pa)) yield* this.#below(child, level - 1, budget)
    yield pa
  }

  #isTooWide(key: number): boolean {
    return this.#checksWidth && key >= 2 ** (this.#shape.order0Log2 + 1)
  }

  #key(frame: number, order: number): number {
    return 2 ** (this.#shape.order0Log2 - order) + Math.floor(frame / 2 ** order)
  }

  #index(key: number, level: number): number {
    const { leafLog2, tableLog2 } = this.#shape
    return Math.floor(key / 2 ** (leafLog2 + (level - 1) * tableLog2)) % 2 ** tableLog2
  }

  /** The leaf of a key; undefined where the tree does not reach down to it. */
  #leaf(key: number): Uint8Array | undefined {
    const path = Math.floor(key / 2 ** this.#shape.leafLog2)
    if (path === this.#lastPath) return this.#lastLeaf
    let node = this.root
    for (let level = this.#shape.depth - 1; level > 0; level--) {
      const child = childAt(this.#ram.page(node), this.#index(key, level))
      if (child === 0n) return undefined
      node = phys(child)
    }
    return this.#remember(path, node)
  }

  #remember(path: number, leaf: PhysAddr): Uint8Array {
    this.#lastPath = path
    this.#lastLeaf = this.#ram.page(leaf)
    return this.#lastLeaf
  }

  /** Adds the nodes that a key's path lacks; all of them go again if one cannot be had. */
  #grow(key: number): Answer<Uint8Array> {
    const added: PhysAddr[] = []
    let anchor: { readonly table: Uint8Array; readonly index: number } | undefined
    let node = this.root
    for (let level = this.#shape.depth - 1; level > 0; level--) {
      const table = this.#ram.page(node)
      const index = this.#index(key, level)
      const child = childAt(table, index)
      if (child !== 0n) {
        node = phys(child)
        continue
      }
      const fresh = this.#pages.alloc(0)
      if (failed(fresh)) {
        for (const pa of added) this.#pages.put(pa)
        if (anchor) setChild(anchor.table, anchor.index, 0n)
        return fresh
      }
      setChild(table, index, fresh)
      anchor ??= { table, index }
      added.push(fresh)
      node = fresh
    }
    return this.#remember(Math.floor(key / 2 ** this.#shape.leafLog2), node)
  }
}

/** What a walk tells of: units, and the pages of the tree itself. */
export interface RadixVisitor {
  readonly unit?: UnitVisitor
  readonly node?: (pa: PhysAddr) => void
}

/**
 * kho_radix_walk_tree() over what the old kernel left: pointers are followed wherever they lead, only the
 * depth bounds the walk.
 */
export function walkRadix({ ram, target, edge }: RadixStore, root: PhysAddr, visitor: RadixVisitor): void {
  const shape = radixShape(edge, target)
  const { leafLog2, tableLog2, order0Log2 } = shape
  const budget = new WalkBudget()
  const walk = (stored: bigint, level: number, key: number): void => {
    const pa = ram.physToVirt(stored)
    budget.page(pa)
    visitor.node?.(pa)
    if (level === 0) {
      if (!visitor.unit) return
      const { unit } = visitor
      forEachBit(ram.read(pa, layoutOf(edge.leaf, target).size), (bit) => {
        budget.unit()
        const found = key + bit
        const top = found === 0 ? -1 : log2Floor(found)
        const order = order0Log2 - top
        // Key 0 has no marker bit; one above that of order 0 gives the kernel a shift below a page.
        unit(found === 0 ? 0 : Math.floor((found - 2 ** top) * 2 ** order), order)
      })
      return
    }
    for (const [index, child] of children(ram, pa)) {
      walk(child, level - 1, key + index * 2 ** (leafLog2 + (level - 1) * tableLog2))
    }
  }
  walk(root, shape.depth - 1, 0)
}

const POINTER_BYTES = 8

/** Pointers of a table that lead somewhere. */
function* children(ram: MachineRam, pa: PhysAddr): Generator<readonly [index: number, child: PhysAddr]> {
  const table = ram.read(pa, ram.pageSize)
  const words = new Uint32Array(table.buffer)
  for (let index = 0; index < table.length / POINTER_BYTES; index++) {
    // Most pointers lead nowhere, and zero is the same in any byte order.
    if (words[2 * index] === 0 && words[2 * index + 1] === 0) continue
    yield [index, phys(childAt(table, index))]
  }
}

function childAt(table: Uint8Array, index: number): bigint {
  return new DataView(table.buffer, table.byteOffset).getBigUint64(index * POINTER_BYTES, true)
}

function setChild(table: Uint8Array, index: number, pa: bigint): void {
  new DataView(table.buffer, table.byteOffset).setBigUint64(index * POINTER_BYTES, pa, true)
}
