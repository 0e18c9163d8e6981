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
import { invariant } from '../abi/fault.ts'
import {
  FDT_ERR,
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
import { fieldOf, layoutOf, type Target } from '../abi/layout.ts'
import type { FdtStyle } from '../abi/schema.ts'
import type { FdtTree, Text } from './handover.ts'
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

/**
 * Edits of an FDT within its buffer, call for call as kho_add_subtree() and kho_remove_subtree() make
 * them. Node offsets count from the start of the structure block; errors are negative.
 */
export class FdtEditor {
  readonly #writer: FdtWriter
  readonly #buffer: Uint8Array

  /** fdt_open_into() with the buffer's length as the new size. The tree must be well-formed. */
  constructor(buffer: Uint8Array) {
    this.#buffer = buffer
    this.#writer = FdtWriter.load(buffer)
    this.#writer.open()
  }

  /** fdt_add_subnode() below the root; the new node's offset. */
  addSubnode(name: Text): number {
    if (this.#writer.findChild(textBytes(name)) !== undefined) return FDT_ERR.EXISTS
    return this.#writer.addChild(0, textBytes(name)) ?? FDT_ERR.NOSPACE
  }

  /** fdt_setprop() of a property that the node does not have yet. */
  addProperty(node: number, name: Text, value: Uint8Array): number {
    return this.#writer.addProperty(node, textBytes(name), value) ? 0 : FDT_ERR.NOSPACE
  }

  /** fdt_del_node(); the names of its properties stay. */
  deleteNode(node: number): void {
    this.#writer.deleteNode(node)
  }

  /** fdt_pack(). */
  pack(): void {
    this.#writer.pack()
    this.#writer.storeHeader()
  }

  /** Overwrites the value of one of the root's properties, whose length stays (fdt_getprop_w()). */
  setRootValue(name: Text, value: Uint8Array): void {
    const at = this.#writer.findRootValue(textBytes(name))
    invariant(at !== undefined, 'the root has no such property')
    this.#buffer.set(value, at)
  }

  /** Offsets of the root's children, in their order. */
  children(): readonly number[] {
    return this.#writer.childrenOfRoot()
  }

  /** fdt_getprop(). */
  property(node: number, name: Text): Uint8Array | undefined {
    return this.#writer.valueOf(node, textBytes(name))
  }
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
  constructor(size: number, buffer: Uint8Array = new Uint8Array(size)) {
    this.#buffer = buffer
    this.#view = viewOf(this.#buffer)
    this.#reserveOffset = alignUp(HEADER_SIZE, RESERVE_SIZE)
    this.#structOffset = this.#reserveOffset + RESERVE_SIZE
    this.#stringsOffset = size
    this.#totalSize = size
    this.#full = this.#structOffset > size
  }

  /** Goes on with a tree that a writer stored before. */
  static load(buffer: Uint8Array): FdtWriter {
    const writer = new FdtWriter(buffer.length, buffer)
    const word = (name: string): number => writer.#view.getUint32(fieldOf(fdtHeader, name, anyTarget).offset)
    writer.#reserveOffset = word('off_mem_rsvmap')
    writer.#structOffset = word('off_dt_struct')
    writer.#structSize = word('size_dt_struct')
    writer.#stringsOffset = word('off_dt_strings')
    writer.#stringsSize = word('size_dt_strings')
    writer.#totalSize = word('totalsize')
    return writer
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
    const offset = this.addChild(parent, textBytes(node.name))
    if (offset === undefined) this.#full = true
    if (offset === undefined) return
    for (const property of node.properties.toReversed()) {
      if (!this.addProperty(offset, textBytes(property.name), property.value)) this.#full = true
    }
    for (const child of node.children.toReversed()) this.insertNode(offset, child)
  }

  /** The offset of a new node without properties; undefined, with nothing changed, if there is no room. */
  addChild(parent: number, name: Uint8Array): number | undefined {
    const offset = this.#behindProperties(parent)
    const nameSize = alignUp(name.length + 1, FDT_TAG_ALIGN)
    const at = this.#insert(offset, FDT_TAG_ALIGN + nameSize + FDT_TAG_ALIGN)
    if (at === undefined) return undefined
    this.#view.setUint32(at, FdtTag.BEGIN_NODE)
    this.#buffer.fill(0, at + FDT_TAG_ALIGN, at + FDT_TAG_ALIGN + nameSize)
    this.#buffer.set(name, at + FDT_TAG_ALIGN)
    this.#view.setUint32(at + FDT_TAG_ALIGN + nameSize, FdtTag.END_NODE)
    return offset
  }

  /** Puts a property in front of the others of its node; false, with nothing changed, if there is no room. */
  addProperty(node: number, name: Uint8Array, value: Uint8Array): boolean {
    const start = this.#structOffset + node + FDT_TAG_ALIGN
    const nameSize = alignUp(this.#buffer.indexOf(0, start) - start + 1, FDT_TAG_ALIGN)
    return this.#insertProperty(node + FDT_TAG_ALIGN + nameSize, name, value)
  }

  deleteNode(node: number): void {
    const at = this.#structOffset + node
    const length = this.#endOfNode(at) - at
    this.#buffer.copyWithin(at, at + length, this.#stringsOffset + this.#stringsSize)
    this.#structSize -= length
    this.#stringsOffset -= length
  }

  childrenOfRoot(): readonly number[] {
    const offsets: number[] = []
    let at = this.#structOffset + this.#behindProperties(0)
    while (this.#view.getUint32(at) === FdtTag.BEGIN_NODE) {
      offsets.push(at - this.#structOffset)
      at = this.#endOfNode(at)
    }
    return offsets
  }

  findChild(name: Uint8Array): number | undefined {
    return this.childrenOfRoot().find((offset) => {
      const at = this.#structOffset + offset + FDT_TAG_ALIGN
      return this.#buffer[at + name.length] === 0 && this.#holds(at, name)
    })
  }

  valueOf(node: number, name: Uint8Array): Uint8Array | undefined {
    const at = this.#findValue(node, name)
    if (at === undefined) return undefined
    return this.#buffer.slice(at, at + this.#view.getUint32(at - PROPERTY_SIZE + FDT_TAG_ALIGN))
  }

  findRootValue(name: Uint8Array): number | undefined {
    return this.#findValue(0, name)
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
    this.storeHeader()
    return { buffer: this.#buffer, totalsize: this.#totalSize }
  }

  storeHeader(): void {
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

  /** The property goes right behind its node's name; a new name is taken back if the property has no room. */
  #insertProperty(offset: number, name: Uint8Array, value: Uint8Array): boolean {
    const known = this.#findName(this.#stringsOffset, name)
    const nameOffset = known ?? this.#stringsSize
    const namesBefore = this.#stringsSize
    if (known === undefined) {
      const at = this.#stringsOffset + this.#stringsSize
      if (at + name.length + 1 > this.#totalSize) return false
      this.#buffer.set(name, at)
      this.#buffer[at + name.length] = 0
      this.#stringsSize += name.length + 1
    }
    const at = this.#insert(offset, PROPERTY_SIZE + alignUp(value.length, FDT_TAG_ALIGN))
    if (at !== undefined) this.#putProperty(at, value, nameOffset)
    else this.#stringsSize = namesBefore
    return at !== undefined
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
    if (this.#full || end + length > this.#totalSize) return undefined
    const at = this.#structOffset + offset
    this.#buffer.copyWithin(at + length, at, end)
    this.#structSize += length
    this.#stringsOffset += length
    return at
  }

  /** Offset in the buffer behind the node that begins at `at`. */
  #endOfNode(at: number): number {
    let next = this.#structOffset + this.#behindProperties(at - this.#structOffset)
    while (this.#view.getUint32(next) === FdtTag.BEGIN_NODE) next = this.#endOfNode(next)
    return next + FDT_TAG_ALIGN
  }

  /** Offset in the buffer of a property's value. */
  #findValue(node: number, name: Uint8Array): number | undefined {
    const start = this.#structOffset + node + FDT_TAG_ALIGN
    let at = start + alignUp(this.#buffer.indexOf(0, start) - start + 1, FDT_TAG_ALIGN)
    for (; this.#view.getUint32(at) === FdtTag.PROP; at = this.#behindProperty(at)) {
      const nameAt = this.#stringsOffset + this.#nameOffset(at)
      if (this.#buffer[nameAt + name.length] === 0 && this.#holds(nameAt, name)) return at + PROPERTY_SIZE
    }
    return undefined
  }

  #behindProperty(at: number): number {
    return at + PROPERTY_SIZE + alignUp(this.#view.getUint32(at + FDT_TAG_ALIGN), FDT_TAG_ALIGN)
  }

  #holds(at: number, bytes: Uint8Array): boolean {
    return bytes.every((byte, index) => this.#buffer[at + index] === byte)
  }

  /** Offset in the structure block behind the properties of the node at `offset`. */
  #behindProperties(offset: number): number {
    let at = this.#structOffset + offset + FDT_TAG_ALIGN
    at += alignUp(this.#buffer.indexOf(0, at) - at + 1, FDT_TAG_ALIGN)
    while (this.#view.getUint32(at) === FdtTag.PROP) at = this.#behindProperty(at)
    return at - this.#structOffset
  }

  /** Offset of a name in the strings block; a name that ends another one shares its bytes. */
  #findName(strings: number, name: Uint8Array): number | undefined {
    const last = strings + this.#stringsSize - name.length - 1
    for (let at = strings; at <= last; at++) {
      if (this.#buffer[at + name.length] === 0 && this.#holds(at, name)) return at - strings
    }
    return undefined
  }
}
