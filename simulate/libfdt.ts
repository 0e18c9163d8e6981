/**
 * libfdt's readers as the kernel calls them on what the old kernel left, with their answers: offsets and
 * values, or negative codes. Only what the kernel looks at is read, and nothing of it is checked before.
 *
 * Source: scripts/dtc/libfdt/fdt.c, fdt_ro.c without any FDT_ASSUME_* (Linux 6.17.8 to 7.3.4).
 */
import {
  FDT_ALIGNED_VALUE,
  FDT_ERR,
  FDT_FIRST_SUPPORTED_VERSION,
  FDT_LEAF_NAMES_VERSION,
  FDT_MAGIC,
  FDT_RESERVE_ALIGN,
  FDT_SIZED_VERSION,
  FDT_SW_MAGIC,
  FDT_TAG_ALIGN,
  FDT_VERSION,
  FdtTag,
  fdtHeader,
  fdtHeaderSize,
  fdtProperty,
  MAX_FDT_TOTALSIZE,
} from '../abi/fdt.ts'
import { fieldOf, layoutOf, type Target } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { decodeText } from '../inspect/text.ts'
import type { Ram } from './core.ts'

const ANY: Target = { pageSize: 4096 }
const PROPERTY_SIZE = layoutOf(fdtProperty, ANY).size
const LEN_AT = fieldOf(fdtProperty, 'len', ANY).offset
const NAMEOFF_AT = fieldOf(fdtProperty, 'nameoff', ANY).offset
/** What is read one after the other is taken from memory in pieces, none of which crosses a page. */
const PIECE = 4096
const [AT, SLASH] = ['@', '/'].map((character) => character.charCodeAt(0)) as [number, number]

/** A node: where it begins in the structure block of a blob. */
export interface FdtNode {
  readonly blob: Blob
  readonly offset: number
}

interface Token {
  readonly tag: number
  /** Offset of the next one, or why there is none. */
  readonly next: number
}

interface Step {
  readonly at: number
  readonly depth: number
}

/** The blob at an address. */
class Blob {
  readonly #ram: Ram
  readonly #pa: PhysAddr
  readonly #fields = new Map<string, number>()
  /** The piece read last, and its offset. */
  #piece: Uint8Array | undefined
  #pieceAt = 0

  constructor(ram: Ram, pa: PhysAddr) {
    this.#ram = ram
    this.#pa = pa
  }

  /** fdt_check_header(): 0, or why the kernel cannot use the blob. */
  checkHeader(alignsBlocks: boolean): number {
    if (!this.#isAligned) return FDT_ERR.ALIGNMENT
    if (this.#header('magic') !== FDT_MAGIC) return FDT_ERR.BADMAGIC
    const version = this.#header('version')
    if (!this.#isKnownVersion || version < this.#header('last_comp_version')) return FDT_ERR.BADVERSION
    const totalsize = this.#header('totalsize')
    if (totalsize < fdtHeaderSize(version) || totalsize > MAX_FDT_TOTALSIZE) return FDT_ERR.TRUNCATED
    const [reserved, structure] = [this.#header('off_mem_rsvmap'), this.#header('off_dt_struct')]
    const isAligned = reserved % FDT_RESERVE_ALIGN === 0 && structure % FDT_TAG_ALIGN === 0
    if (alignsBlocks && !isAligned) return FDT_ERR.ALIGNMENT
    const inside = (offset: number, length: number): boolean =>
      offset >= fdtHeaderSize(version) && offset + length <= totalsize
    const blocksLieInside =
      inside(reserved, 0) &&
      inside(structure, this.#hasSizes ? this.#header('size_dt_struct') : 0) &&
      inside(this.#header('off_dt_strings'), this.#header('size_dt_strings'))
    return blocksLieInside ? 0 : FDT_ERR.TRUNCATED
  }

  /** fdt_subnode_offset(): a name without `@` also finds a node with a unit address. */
  subnode(parent: number, name: string): number {
    const error = this.#probe()
    if (error < 0) return error
    let step: Step = { at: parent, depth: 0 }
    while (step.at >= 0 && step.depth >= 0) {
      if (step.depth === 1 && this.#isNamed(step.at, name)) return step.at
      step = this.#nextNode(step)
    }
    return step.depth < 0 ? FDT_ERR.NOTFOUND : step.at
  }

  /** fdt_for_each_subnode() */
  *subnodes(parent: number): Generator<number> {
    let step = this.#nextNode({ at: parent, depth: 0 })
    while (step.at >= 0 && step.depth > 0) {
      if (step.depth === 1) yield step.at
      step = this.#nextNode(step)
    }
  }

  /** fdt_get_name(); undefined is the kernel's NULL. */
  name(node: number): Uint8Array | undefined {
    if (this.#probe() < 0) return undefined
    const end = this.#nodeEnd(node)
    if (end < 0) return undefined
    const name = this.#structure(node + FDT_TAG_ALIGN, end - node - FDT_TAG_ALIGN)
    const whole = name.subarray(0, name.indexOf(0))
    if (this.#hasLeafNames) return whole
    const slash = whole.lastIndexOf(SLASH)
    return slash < 0 ? undefined : whole.subarray(slash + 1)
  }

  /** fdt_getprop(): the first property of that name, or why there is none. */
  property(node: number, name: string): FdtValue | number {
    const wanted = new TextEncoder().encode(`${name}\0`)
    let at = this.#nodeEnd(node)
    if (at >= 0) at = this.#propertyFrom(at)
    while (at >= 0) {
      if (this.#isString(this.#word(at + NAMEOFF_AT), wanted)) return this.#value(at)
      at = this.#propertyFrom(this.#token(at).next)
    }
    return at
  }

  /** fdt_node_check_compatible(): 0, 1 where the list does not hold the string, or why there is no list. */
  checkCompatible(node: number, wanted: string): number {
    const list = this.property(node, 'compatible')
    if (typeof list === 'number') return list
    const text = new TextEncoder().encode(`${wanted}\0`)
    for (let at = list.start; at + wanted.length <= list.start + list.length; ) {
      // The NUL is compared as well, also where it lies behind the list.
      if (this.#equals(at, text)) return 0
      const nul = this.#nul(at, list.start + list.length)
      if (nul === undefined) return 1
      at = nul + 1
    }
    return 1
  }

  /** Bytes at an offset in the blob. */
  read(at: number, length: number): Uint8Array {
    return this.#ram.read(phys(this.#pa + BigInt(at)), length)
  }

  /** Bytes at an offset in the structure block. */
  #structure(offset: number, length: number): Uint8Array {
    return this.read(this.#header('off_dt_struct') + offset, length)
  }

  #header(field: keyof typeof fdtHeader.fields): number {
    const known = this.#fields.get(field)
    if (known !== undefined) return known
    const value = wordOf(this.read(fieldOf(fdtHeader, field, ANY).offset, FDT_TAG_ALIGN))
    this.#fields.set(field, value)
    return value
  }

  get #isAligned(): boolean {
    return this.#pa % BigInt(FDT_RESERVE_ALIGN) === 0n
  }

  get #isKnownVersion(): boolean {
    const isOld = this.#header('version') < FDT_FIRST_SUPPORTED_VERSION
    return !isOld && this.#header('last_comp_version') <= FDT_VERSION
  }

  get #hasSizes(): boolean {
    return this.#header('version') >= FDT_SIZED_VERSION
  }

  get #hasLeafNames(): boolean {
    return this.#header('version') >= FDT_LEAF_NAMES_VERSION
  }

  /** fdt_ro_probe_(): what those that want a name look at first; 0 or an error. */
  #probe(): number {
    if (!this.#isAligned) return FDT_ERR.ALIGNMENT
    const magic = this.#header('magic')
    if (magic === FDT_MAGIC && !this.#isKnownVersion) return FDT_ERR.BADVERSION
    if (magic === FDT_SW_MAGIC && this.#header('size_dt_struct') === 0) return FDT_ERR.BADSTATE
    if (magic !== FDT_MAGIC && magic !== FDT_SW_MAGIC) return FDT_ERR.BADMAGIC
    return this.#header('totalsize') < MAX_FDT_TOTALSIZE ? 0 : FDT_ERR.TRUNCATED
  }

  /** fdt_next_node() */
  #nextNode({ at, depth }: Step): Step {
    let next = this.#nodeEnd(at)
    if (next < 0) return { at: next, depth }
    let below = depth
    for (;;) {
      const token = this.#token(next)
      if (token.tag === FdtTag.BEGIN_NODE) return { at: next, depth: below + 1 }
      if (token.tag === FdtTag.END)
        return { at: token.next < 0 ? token.next : FDT_ERR.NOTFOUND, depth: below }
      if (token.tag === FdtTag.END_NODE && --below < 0) return { at: token.next, depth: below }
      next = token.next
    }
  }

  /** fdt_check_node_offset_(): behind the head of a node. */
  #nodeEnd(node: number): number {
    const { tag, next } = this.#token(node)
    return tag === FdtTag.BEGIN_NODE ? next : FDT_ERR.BADOFFSET
  }

  /** nextprop_() */
  #propertyFrom(start: number): number {
    for (let at = start; ; ) {
      const { tag, next } = this.#token(at)
      if (tag === FdtTag.PROP) return at
      if (tag === FdtTag.END) return next < 0 ? next : FDT_ERR.BADSTRUCTURE
      if (tag !== FdtTag.NOP) return FDT_ERR.NOTFOUND
      at = next
    }
  }

  /** fdt_next_tag() */
  #token(start: number): Token {
    if (!this.#holds(start, FDT_TAG_ALIGN)) return { tag: FdtTag.END, next: FDT_ERR.TRUNCATED }
    const tag = this.#word(start)
    const end = this.#tokenEnd(tag, start)
    if (end === undefined || !this.#holds(start, end - start)) {
      return { tag: FdtTag.END, next: FDT_ERR.BADSTRUCTURE }
    }
    return { tag, next: Math.ceil(end / FDT_TAG_ALIGN) * FDT_TAG_ALIGN }
  }

  #tokenEnd(tag: number, start: number): number | undefined {
    const behind = start + FDT_TAG_ALIGN
    if (tag === FdtTag.END_NODE || tag === FdtTag.NOP || tag === FdtTag.END) return behind
    if (tag === FdtTag.BEGIN_NODE) {
      const base = this.#header('off_dt_struct')
      const nul = this.#nul(base + behind, base + this.#structureEnd)
      return nul === undefined ? undefined : nul + 1 - base
    }
    if (tag !== FdtTag.PROP || !this.#holds(behind, FDT_TAG_ALIGN)) return undefined
    const length = this.#word(start + LEN_AT)
    if (behind + length >= MAX_FDT_TOTALSIZE) return undefined
    return this.#valueAt(start, length) + length
  }

  /** Offset of a property's value in the structure block. */
  #valueAt(property: number, length: number): number {
    const at = property + PROPERTY_SIZE
    const isAligned = this.#hasLeafNames || length < FDT_ALIGNED_VALUE || at % FDT_ALIGNED_VALUE === 0
    return isAligned ? at : at + FDT_TAG_ALIGN
  }

  #value(property: number): FdtValue {
    const length = this.#word(property + LEN_AT)
    return new FdtValue(this, this.#header('off_dt_struct') + this.#valueAt(property, length), length)
  }

  /** fdt_offset_ptr(): whether the bytes lie in the structure block. */
  #holds(offset: number, length: number): boolean {
    return offset >= 0 && offset + length <= this.#structureEnd
  }

  /** Offset in the structure block at which it ends for fdt_offset_ptr(). */
  get #structureEnd(): number {
    const start = this.#header('off_dt_struct')
    const room = this.#header('totalsize') - start
    return this.#hasSizes ? Math.min(room, this.#header('size_dt_struct')) : room
  }

  #word(offset: number): number {
    const at = this.#header('off_dt_struct') + offset
    const piece = this.#pieceWith(at)
    const inPiece = at - this.#pieceAt
    const isWhole = inPiece + FDT_TAG_ALIGN <= PIECE
    return wordOf(isWhole ? piece.subarray(inPiece, inPiece + FDT_TAG_ALIGN) : this.read(at, FDT_TAG_ALIGN))
  }

  /** The piece that holds the byte at an offset; where there is none, the kernel dies of this byte. */
  #pieceWith(at: number): Uint8Array {
    const known = this.#piece
    if (known && at >= this.#pieceAt && at < this.#pieceAt + PIECE) return known
    this.read(at, 1)
    this.#pieceAt = at - ((Number(this.#pa % BigInt(PIECE)) + at) % PIECE)
    this.#piece = this.read(this.#pieceAt, PIECE)
    return this.#piece
  }

  /** Whether fdt_nodename_eq_() finds the node to have this name. */
  #isNamed(node: number, wanted: string): boolean {
    const name = this.name(node)
    const text = new TextEncoder().encode(wanted)
    if (!name || text.some((byte, at) => name[at] !== byte)) return false
    const next = name[text.length]
    return next === undefined || (next === AT && !text.includes(AT))
  }

  /** Whether fdt_get_string() finds just this string; it is given with its NUL. */
  #isString(offset: number, wanted: Uint8Array): boolean {
    if (this.#probe() < 0) return false
    const at = (offset + this.#header('off_dt_strings')) % 2 ** 32
    let room = this.#header('totalsize') - at
    const size = this.#header('size_dt_strings')
    if (this.#header('magic') === FDT_SW_MAGIC) {
      // Strings are appended in front of the last one, at negative offsets.
      const before = 2 ** 32 - offset
      if (before > 2 ** 31 || before > size) return false
      room = Math.min(room, before)
    } else {
      if (offset >= 2 ** 31) return false
      if (this.#hasSizes) room = Math.min(room, size - offset)
    }
    return wanted.length <= room && this.#equals(at, wanted)
  }

  /** memcmp() */
  #equals(at: number, wanted: Uint8Array): boolean {
    return wanted.every((byte, index) => this.read(at + index, 1)[0] === byte)
  }

  /** memchr() of a NUL. */
  #nul(start: number, end: number): number | undefined {
    for (let at = start; at < end; at = this.#pieceAt + PIECE) {
      const nul = this.#pieceWith(at).indexOf(0, at - this.#pieceAt)
      if (nul >= 0) return this.#pieceAt + nul < end ? this.#pieceAt + nul : undefined
    }
    return undefined
  }
}

/** A property as fdt_getprop() answers it: the length that it claims, and its bytes where they are asked for. */
export class FdtValue {
  readonly start: number
  readonly length: number
  readonly #blob: Blob

  constructor(blob: Blob, start: number, length: number) {
    this.#blob = blob
    this.start = start
    this.length = length
  }

  get bytes(): Uint8Array {
    return this.#blob.read(this.start, this.length)
  }
}

function wordOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0)
}

/** fdt_check_header(): 0, or why the kernel cannot use the blob. `alignsBlocks`: blocks must stand aligned. */
export function checkHeader(ram: Ram, pa: PhysAddr, alignsBlocks: boolean): number {
  return new Blob(ram, pa).checkHeader(alignsBlocks)
}

/** The root of the tree at an address, whatever there is. */
export function fdtAt(ram: Ram, pa: PhysAddr): FdtNode {
  return { blob: new Blob(ram, pa), offset: 0 }
}

/** fdt_getprop() where its error is of no interest. */
export function getProperty(node: FdtNode, name: string): FdtValue | undefined {
  const found = findProperty(node, name)
  return typeof found === 'number' ? undefined : found
}

/** fdt_getprop(): the first property of that name, or why there is none. */
export function findProperty({ blob, offset }: FdtNode, name: string): FdtValue | number {
  return blob.property(offset, name)
}

/** A property of exactly 8 bytes as a number; KHO keeps them in the order of the processor. */
export function getWord(node: FdtNode, name: string): bigint | undefined {
  const value = getProperty(node, name)
  return value?.length === 8 ? new DataView(value.bytes.buffer).getBigUint64(0, true) : undefined
}

/** fdt_subnode_offset() where its error is of no interest. */
export function subnode(node: FdtNode, name: string): FdtNode | undefined {
  const found = findSubnode(node, name)
  return typeof found === 'number' ? undefined : found
}

/** fdt_subnode_offset(): the node of that name, or why there is none. */
export function findSubnode({ blob, offset }: FdtNode, name: string): FdtNode | number {
  const found = blob.subnode(offset, name)
  return found < 0 ? found : { blob, offset: found }
}

/** fdt_for_each_subnode() */
export function* subnodes({ blob, offset }: FdtNode): Generator<FdtNode> {
  for (const found of blob.subnodes(offset)) yield { blob, offset: found }
}

/** fdt_get_name() as printk() shows it. */
export function nodeName({ blob, offset }: FdtNode): string {
  const name = blob.name(offset)
  return name ? decodeText(name) : '(null)'
}

/** fdt_node_check_compatible(): 0, 1 where the list does not hold the string, or why there is no list. */
export function checkCompatible({ blob, offset }: FdtNode, wanted: string): number {
  return blob.checkCompatible(offset, wanted)
}
