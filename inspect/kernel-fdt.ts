/**
 * A flattened device tree as the kernel's libfdt sees it: what its read-only functions answer for these
 * very bytes, right or wrong. The decoder (fdt.ts) reads what can be read; this says what a kernel finds.
 *
 * Mirrors scripts/dtc/libfdt/fdt.c and fdt_ro.c without any FDT_ASSUME_*.
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
import { layoutOf } from '../abi/layout.ts'
import type { Infer } from '../abi/schema.ts'
import { decodeStruct } from './record.ts'

/** Sizes of an FDT's parts do not depend on the page size. */
const ANY = { pageSize: 4096 } as const
const PROPERTY_SIZE = layoutOf(fdtProperty, ANY).size
const V17_SIZE = layoutOf(fdtHeader, ANY).size
/** A node without properties: its begin, a name of up to 3 bytes, its end. */
const LEAST_NODE = 3 * FDT_TAG_ALIGN

export interface KernelProperty {
  readonly value: Uint8Array
  /** Offset of the value in the blob. */
  readonly offset: number
}

export class KernelFdt {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #header: Infer<typeof fdtHeader>
  readonly #aligned: boolean

  /** The bytes from the blob's address on, all that `totalsize` claims or the kernel maps. */
  constructor(bytes: Uint8Array, address: bigint) {
    const whole = new Uint8Array(Math.max(bytes.length, V17_SIZE))
    whole.set(bytes)
    this.#bytes = whole
    this.#view = new DataView(whole.buffer)
    this.#header = decodeStruct(fdtHeader, whole.subarray(0, V17_SIZE), ANY)
    this.#aligned = address % BigInt(FDT_RESERVE_ALIGN) === 0n
  }

  /** fdt_check_header(): 0, or the error. Whether it asks for the alignment of the blocks is told by the release. */
  checkHeader(asksAlignment: boolean): number {
    const { magic, totalsize, version, last_comp_version, off_mem_rsvmap, off_dt_struct } = this.#header
    if (!this.#aligned) return FDT_ERR.ALIGNMENT
    if (magic !== FDT_MAGIC) return FDT_ERR.BADMAGIC
    if (version < FDT_FIRST_SUPPORTED_VERSION || last_comp_version > FDT_VERSION) return FDT_ERR.BADVERSION
    if (version < last_comp_version) return FDT_ERR.BADVERSION
    const size = fdtHeaderSize(version)
    if (totalsize < size || totalsize > MAX_FDT_TOTALSIZE) return FDT_ERR.TRUNCATED
    const isAligned = off_mem_rsvmap % FDT_RESERVE_ALIGN === 0 && off_dt_struct % FDT_TAG_ALIGN === 0
    if (asksAlignment && !isAligned) return FDT_ERR.ALIGNMENT
    const inside = (start: number, length: number): boolean => start >= size && start + length <= totalsize
    const { size_dt_struct, off_dt_strings, size_dt_strings } = this.#header
    const structure = version < FDT_SIZED_VERSION ? 0 : size_dt_struct
    const fits =
      inside(off_mem_rsvmap, 0) && inside(off_dt_struct, structure) && inside(off_dt_strings, size_dt_strings)
    return fits ? 0 : FDT_ERR.TRUNCATED
  }

  /** fdt_ro_probe_(): what every reading function looks at first. */
  #probe(): number {
    const { magic, totalsize, version, last_comp_version } = this.#header
    if (!this.#aligned) return FDT_ERR.ALIGNMENT
    if (magic === FDT_SW_MAGIC) {
      if (this.#header.size_dt_struct === 0) return FDT_ERR.BADSTATE
    } else if (magic !== FDT_MAGIC) return FDT_ERR.BADMAGIC
    else if (version < FDT_FIRST_SUPPORTED_VERSION || last_comp_version > FDT_VERSION)
      return FDT_ERR.BADVERSION
    return totalsize < MAX_FDT_TOTALSIZE ? 0 : FDT_ERR.TRUNCATED
  }

  /** fdt_subnode_offset(): the first child of that name, with or without a unit address. */
  subnode(parent: number, name: string): number {
    const error = this.#probe()
    if (error < 0) return error
    for (const node of this.subnodes(parent)) {
      if (node < 0) return node
      const found = this.nodeName(node)
      if (found === name || (!name.includes('@') && found?.startsWith(`${name}@`))) return node
    }
    return FDT_ERR.NOTFOUND
  }

  /** Offsets of the children, as fdt_next_node() comes to them; where it cannot go on, its error is the last. */
  *subnodes(parent: number): Generator<number> {
    let depth = 0
    let at = this.#nodeEnd(parent)
    while (at >= 0) {
      const { tag, next } = this.#token(at)
      if (tag === FdtTag.BEGIN_NODE) {
        depth += 1
        if (depth === 1) yield at
      } else if (tag === FdtTag.END_NODE) {
        depth -= 1
        if (depth < 0) return
      } else if (tag === FdtTag.END) {
        yield next < 0 ? next : FDT_ERR.NOTFOUND
        return
      }
      at = next
    }
    yield at
  }

  /** Whether there is room for a node behind the place where reading the nodes ends: nobody finds that one. */
  hasRest(): boolean {
    let depth = 0
    let at = 0
    do {
      const { tag, next } = this.#token(at)
      if (tag === FdtTag.BEGIN_NODE) depth += 1
      else if (tag === FdtTag.END_NODE) depth -= 1
      else if (next < 0 || tag === FdtTag.END) break
      at = next
    } while (depth > 0)
    return this.#header.version >= FDT_SIZED_VERSION && this.#holds(at, LEAST_NODE + FDT_TAG_ALIGN)
  }

  /** fdt_get_name(): before version 16 what stands behind the last slash; undefined where there is none. */
  nodeName(node: number): string | undefined {
    const start = this.#header.off_dt_struct + node + FDT_TAG_ALIGN
    const name = latin1(this.#bytes.subarray(start, this.#bytes.indexOf(0, start)))
    if (this.#header.version >= FDT_LEAF_NAMES_VERSION) return name
    const slash = name.lastIndexOf('/')
    return slash < 0 ? undefined : name.slice(slash + 1)
  }

  /** fdt_getprop(): the first property of that name, or the error. */
  property(node: number, name: string): KernelProperty | number {
    for (let at = this.#nodeEnd(node); ; ) {
      if (at < 0) return at
      const { tag, next } = this.#token(at)
      if (tag === FdtTag.END) return next < 0 ? next : FDT_ERR.BADSTRUCTURE
      if (tag === FdtTag.PROP && this.#isString(this.#word(at + 2 * FDT_TAG_ALIGN), name))
        return this.#value(at)
      if (tag !== FdtTag.PROP && tag !== FdtTag.NOP) return FDT_ERR.NOTFOUND
      at = next
    }
  }

  /** The 64-bit word of a property that has exactly 8 bytes. */
  word64(node: number, name: string): bigint | undefined {
    const property = this.property(node, name)
    if (typeof property === 'number' || property.value.length !== 8) return undefined
    const { buffer, byteOffset } = property.value
    return new DataView(buffer, byteOffset).getBigUint64(0, true)
  }

  /** fdt_node_check_compatible(): 0 where the list has the string, 1 where not, or the error. */
  checkCompatible(node: number, wanted: string): number {
    const property = this.property(node, 'compatible')
    if (typeof property === 'number') return property
    // fdt_stringlist_contains() compares the NUL, too, also where it lies behind the value's end.
    const whole = `${wanted}\0`
    const text = latin1(this.#bytes.subarray(property.offset, property.offset + property.value.length + 1))
    for (let at = 0; at + wanted.length <= property.value.length; ) {
      if (text.startsWith(whole, at)) return 0
      const nul = text.indexOf('\0', at)
      if (nul < 0 || nul >= property.value.length) return 1
      at = nul + 1
    }
    return 1
  }

  #value(at: number): KernelProperty {
    const length = this.#word(at + FDT_TAG_ALIGN)
    const offset = this.#header.off_dt_struct + this.#valueAt(at, length)
    return { value: this.#bytes.slice(offset, offset + length), offset }
  }

  /** Offset of a property's value in the structure block; before version 16 a long one is aligned to 8 bytes. */
  #valueAt(property: number, length: number): number {
    const at = property + PROPERTY_SIZE
    const isOld = this.#header.version < FDT_LEAF_NAMES_VERSION
    return isOld && length >= FDT_ALIGNED_VALUE && at % FDT_ALIGNED_VALUE !== 0 ? at + FDT_TAG_ALIGN : at
  }

  /** Behind the head of a node; an error where there is none. */
  #nodeEnd(node: number): number {
    const { tag, next } = this.#token(node)
    return tag === FdtTag.BEGIN_NODE ? next : FDT_ERR.BADOFFSET
  }

  /** fdt_next_tag() */
  #token(start: number): { readonly tag: number; readonly next: number } {
    const premature = { tag: FdtTag.END, next: FDT_ERR.BADSTRUCTURE }
    if (!this.#holds(start, FDT_TAG_ALIGN)) return { tag: FdtTag.END, next: FDT_ERR.TRUNCATED }
    const tag = this.#word(start)
    let end = start + FDT_TAG_ALIGN
    if (tag === FdtTag.BEGIN_NODE) {
      const nul = this.#bytes.indexOf(0, this.#header.off_dt_struct + end)
      if (nul < 0) return premature
      end = nul + 1 - this.#header.off_dt_struct
    } else if (tag === FdtTag.PROP) {
      if (!this.#holds(end, FDT_TAG_ALIGN)) return premature
      const length = this.#word(end)
      end = this.#valueAt(start, length) + length
    } else if (tag !== FdtTag.END_NODE && tag !== FdtTag.NOP && tag !== FdtTag.END) return premature
    if (!this.#holds(start, end - start)) return premature
    return { tag, next: Math.ceil(end / FDT_TAG_ALIGN) * FDT_TAG_ALIGN }
  }

  /** fdt_offset_ptr() */
  #holds(offset: number, length: number): boolean {
    const { off_dt_struct, size_dt_struct, totalsize, version } = this.#header
    const end = off_dt_struct + offset + length
    if (end > totalsize || end > this.#bytes.length) return false
    return version < FDT_SIZED_VERSION || offset + length <= size_dt_struct
  }

  #word(offset: number): number {
    return this.#view.getUint32(this.#header.off_dt_struct + offset)
  }

  /** Whether fdt_get_string() finds just this string. */
  #isString(offset: number, wanted: string): boolean {
    if (this.#probe() < 0) return false
    const { magic, off_dt_strings, size_dt_strings, totalsize, version } = this.#header
    // Of an unfinished blob offsets are negative, and reach up to the strings' end.
    const isUnfinished = magic === FDT_SW_MAGIC
    const signed = offset | 0
    if (isUnfinished ? signed >= 0 || -signed > size_dt_strings : signed < 0) return false
    const limit = isUnfinished ? off_dt_strings : off_dt_strings + size_dt_strings
    const room = isUnfinished || version >= FDT_SIZED_VERSION ? Math.min(totalsize, limit) : totalsize
    const start = (off_dt_strings + signed) >>> 0
    if (start + wanted.length >= Math.min(room, this.#bytes.length)) return false
    for (let at = 0; at < wanted.length; at++) {
      if (this.#bytes[start + at] !== wanted.charCodeAt(at)) return false
    }
    return this.#bytes[start + wanted.length] === 0
  }
}

/** Bytes as text without any interpretation, to be compared. */
function latin1(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += String.fromCharCode(byte)
  return text
}
