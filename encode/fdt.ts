/**
 * Flattened device trees as libfdt lays them out, byte for byte, in the order in which the kernel calls it.
 *
 * KHO makes its FDTs in two ways. The sequential writer (fdt_create() to fdt_finish()) collects property
 * names from the buffer's end downwards, so that the newest comes first. In-place edits (fdt_open_into(),
 * fdt_add_subnode(), fdt_setprop(), fdt_pack()) push what is there aside: a new node goes in front of its
 * siblings, a new property in front of the others, a new name to the end. Both leave remains of their work
 * behind the tree, and these stand in real images, too.
 *
 * Source: scripts/dtc/libfdt/fdt_sw.c, fdt_rw.c.
 */
import {
  FDT_LAST_COMPATIBLE_VERSION,
  FDT_MAGIC,
  FDT_RESERVE_ALIGN,
  FDT_TAG_ALIGN,
  FDT_VERSION,
  FdtTag,
  fdtHeader,
  fdtProperty,
  fdtReserveEntry,
} from '../abi/fdt.ts'
import { layoutOf, type Target } from '../abi/layout.ts'
import type { FdtStyle } from '../abi/schema.ts'
import type { FdtTree } from './handover.ts'
import { textBytes } from './text.ts'
import { viewOf, writeStruct } from './write.ts'

/** An FDT in its buffer: `totalsize` bytes of tree, behind them what the writer left there. */
export interface BuiltFdt {
  readonly buffer: Uint8Array
  readonly totalsize: number
}

/**
 * Builds an FDT in a buffer of `size` bytes, in the order of `tree`; undefined if it does not fit.
 *
 * The root of an edited tree is written sequentially with its properties, then each child is added the
 * way kho_add_subtree() does: last of `tree` first, and its last property first.
 */
export function buildFdt(tree: FdtTree, style: FdtStyle, size: number): BuiltFdt | undefined {
  const writer = new FdtWriter(size)
  if (style === 'sequential') {
    writer.writeNode(tree)
    writer.finish()
  } else {
    writer.writeNode({ ...tree, children: [] })
    writer.finish()
    for (const child of tree.children.toReversed()) {
      writer.open()
      writer.insertNode(0, child)
      writer.pack()
    }
  }
  return writer.built()
}

/** These are the same for every page size. */
const anyTarget: Target = { pageSize: 4096 }
const HEADER_SIZE = layoutOf(fdtHeader, anyTarget).size
const RESERVE_SIZE = layoutOf(fdtReserveEntry, anyTarget).size
const PROPERTY_SIZE = layoutOf(fdtProperty, anyTarget).size

function alignUp(offset: number, align: number): number {
  return Math.ceil(offset / align) * align
}

/** One buffer and the offsets that the header holds. Once something does not fit, nothing more happens. */
class FdtWriter {
  readonly #buffer: Uint8Array
  readonly #view: DataView
  #full: boolean
  #reserveOffset: number
  #structOffset: number
  #structSize = 0
  #stringsOffset: number
  #stringsSize = 0
  #totalSize: number
  /** Property heads written so far, by offset in the buffer: their name offsets count from the buffer's end. */
  readonly #unresolved: number[] = []

  /** fdt_create() and fdt_finish_reservemap(), with an empty memory reservation block. */
  constructor(size: number) {
    this.#buffer = new Uint8Array(size)
    this.#view = viewOf(this.#buffer)
    this.#reserveOffset = alignUp(HEADER_SIZE, RESERVE_SIZE)
    this.#structOffset = this.#reserveOffset + RESERVE_SIZE
    this.#stringsOffset = size
    this.#totalSize = size
    this.#full = this.#structOffset > size
  }

  /** fdt_begin_node(), fdt_property() for each property, the children, fdt_end_node(). */
  writeNode(node: FdtTree): void {
    const name = textBytes(node.name)
    const at = this.#grab(FDT_TAG_ALIGN + alignUp(name.length + 1, FDT_TAG_ALIGN))
    if (at === undefined) return
    this.#view.setUint32(at, FdtTag.BEGIN_NODE)
    this.#buffer.set(name, at + FDT_TAG_ALIGN)
    for (const property of node.properties) this.#writeProperty(textBytes(property.name), property.value)
    for (const child of node.children) this.writeNode(child)
    this.#writeTag(FdtTag.END_NODE)
  }

  /** fdt_finish(): moves the names behind the structure block and gives the properties their final offsets. */
  finish(): void {
    this.#writeTag(FdtTag.END)
    if (this.#full) return
    const strings = this.#totalSize - this.#stringsSize
    this.#stringsOffset = this.#structOffset + this.#structSize
    this.#buffer.copyWithin(this.#stringsOffset, strings, strings + this.#stringsSize)
    for (const at of this.#unresolved) this.#setNameOffset(at, this.#stringsSize - this.#nameOffset(at))
    this.#totalSize = this.#stringsOffset + this.#stringsSize
  }

  /** fdt_open_into() within the same buffer. */
  open(): void {
    this.#totalSize = this.#buffer.length
  }

  /** fdt_add_subnode() to the node at `parent` in the structure block, then fdt_setprop(). */
  insertNode(parent: number, node: FdtTree): void {
    const name = textBytes(node.name)
    const offset = this.#behindProperties(parent)
    const nameSize = alignUp(name.length + 1, FDT_TAG_ALIGN)
    const at = this.#insert(offset, FDT_TAG_ALIGN + nameSize + FDT_TAG_ALIGN)
    if (at === undefined) return
    this.#view.setUint32(at, FdtTag.BEGIN_NODE)
    this.#buffer.fill(0, at + FDT_TAG_ALIGN, at + FDT_TAG_ALIGN + nameSize)
    this.#buffer.set(name, at + FDT_TAG_ALIGN)
    this.#view.setUint32(at + FDT_TAG_ALIGN + nameSize, FdtTag.END_NODE)
    for (const property of node.properties.toReversed()) {
      this.#insertProperty(offset + FDT_TAG_ALIGN + nameSize, textBytes(property.name), property.value)
    }
    for (const child of node.children.toReversed()) this.insertNode(offset, child)
  }

  /** fdt_pack(): closes the gaps between the blocks. */
  pack(): void {
    if (this.#full) return
    const reserve = alignUp(HEADER_SIZE, FDT_RESERVE_ALIGN)
    const struct = reserve + RESERVE_SIZE
    const strings = struct + this.#structSize
    this.#buffer.copyWithin(reserve, this.#reserveOffset, this.#reserveOffset + RESERVE_SIZE)
    this.#buffer.copyWithin(struct, this.#structOffset, this.#structOffset + this.#structSize)
    this.#buffer.copyWithin(strings, this.#stringsOffset, this.#stringsOffset + this.#stringsSize)
    this.#reserveOffset = reserve
    this.#structOffset = struct
    this.#stringsOffset = strings
    this.#totalSize = strings + this.#stringsSize
  }

  built(): BuiltFdt | undefined {
    if (this.#full) return undefined
    const header = {
      magic: FDT_MAGIC,
      totalsize: this.#totalSize,
      off_dt_struct: this.#structOffset,
      off_dt_strings: this.#stringsOffset,
      off_mem_rsvmap: this.#reserveOffset,
      version: FDT_VERSION,
      last_comp_version: FDT_LAST_COMPATIBLE_VERSION,
      boot_cpuid_phys: 0,
      size_dt_strings: this.#stringsSize,
      size_dt_struct: this.#structSize,
    }
    writeStruct(this.#buffer, 0, fdtHeader, header, anyTarget)
    return { buffer: this.#buffer, totalsize: this.#totalSize }
  }

  /** The next bytes of the structure block; the names at the end of the buffer bound it. */
  #grab(length: number): number | undefined {
    const at = this.#structOffset + this.#structSize
    if (this.#full || at + length > this.#totalSize - this.#stringsSize) {
      this.#full = true
      return undefined
    }
    this.#structSize += length
    return at
  }

  #writeTag(tag: number): void {
    const at = this.#grab(FDT_TAG_ALIGN)
    if (at !== undefined) this.#view.setUint32(at, tag)
  }

  /** The name offset is stored as the distance from the buffer's end until finish() turns it round. */
  #writeProperty(name: Uint8Array, value: Uint8Array): void {
    const known = this.#findName(this.#totalSize - this.#stringsSize, name)
    const fromEnd = known === undefined ? this.#stringsSize + name.length + 1 : this.#stringsSize - known
    if (known === undefined) {
      const at = this.#totalSize - fromEnd
      if (at < this.#structOffset + this.#structSize) this.#full = true
      if (this.#full) return
      this.#buffer.set(name, at)
      this.#buffer[at + name.length] = 0
      this.#stringsSize = fromEnd
    }
    const at = this.#grab(PROPERTY_SIZE + alignUp(value.length, FDT_TAG_ALIGN))
    if (at === undefined) return
    this.#putProperty(at, value, fromEnd)
    this.#unresolved.push(at)
  }

  /** The property goes right behind its node's name, before the properties that are there. */
  #insertProperty(offset: number, name: Uint8Array, value: Uint8Array): void {
    const known = this.#findName(this.#stringsOffset, name)
    const nameOffset = known ?? this.#stringsSize
    if (known === undefined) {
      const at = this.#stringsOffset + this.#stringsSize
      if (at + name.length + 1 > this.#totalSize) this.#full = true
      if (this.#full) return
      this.#buffer.set(name, at)
      this.#buffer[at + name.length] = 0
      this.#stringsSize += name.length + 1
    }
    const at = this.#insert(offset, PROPERTY_SIZE + alignUp(value.length, FDT_TAG_ALIGN))
    if (at !== undefined) this.#putProperty(at, value, nameOffset)
  }

  #putProperty(at: number, value: Uint8Array, nameoff: number): void {
    writeStruct(this.#buffer, at, fdtProperty, { tag: FdtTag.PROP, len: value.length, nameoff }, anyTarget)
    this.#buffer.set(value, at + PROPERTY_SIZE)
  }

  #nameOffset(property: number): number {
    return this.#view.getUint32(property + PROPERTY_SIZE - FDT_TAG_ALIGN)
  }

  #setNameOffset(property: number, offset: number): void {
    this.#view.setUint32(property + PROPERTY_SIZE - FDT_TAG_ALIGN, offset)
  }

  /** Makes room in the structure block by moving all that follows, names included. */
  #insert(offset: number, length: number): number | undefined {
    const end = this.#stringsOffset + this.#stringsSize
    if (this.#full || end + length > this.#totalSize) {
      this.#full = true
      return undefined
    }
    const at = this.#structOffset + offset
    this.#buffer.copyWithin(at + length, at, end)
    this.#structSize += length
    this.#stringsOffset += length
    return at
  }

  /** Offset in the structure block behind the properties of the node at `offset`. */
  #behindProperties(offset: number): number {
    let at = this.#structOffset + offset + FDT_TAG_ALIGN
    at += alignUp(this.#buffer.indexOf(0, at) - at + 1, FDT_TAG_ALIGN)
    while (this.#view.getUint32(at) === FdtTag.PROP) {
      at += PROPERTY_SIZE + alignUp(this.#view.getUint32(at + FDT_TAG_ALIGN), FDT_TAG_ALIGN)
    }
    return at - this.#structOffset
  }

  /** Offset of a name in the strings block; a name that ends another one shares its bytes. */
  #findName(strings: number, name: Uint8Array): number | undefined {
    const last = strings + this.#stringsSize - name.length - 1
    for (let at = strings; at <= last; at++) {
      if (
        this.#buffer[at + name.length] === 0 &&
        name.every((byte, index) => this.#buffer[at + index] === byte)
      ) {
        return at - strings
      }
    }
    return undefined
  }
}
