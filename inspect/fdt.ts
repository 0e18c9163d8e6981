/**
 * Defensive reader of flattened device trees: every check of libfdt's fdt_check_header() and
 * fdt_check_full(), one fault per cause, and whatever can still be read behind it.
 *
 * Works on the bytes of one blob; offsets are relative to its first byte. Values are left as bytes:
 * their byte order is the business of their schema.
 */
import type { FaultCode } from '../abi/fault.ts'
import {
  FDT_FIRST_SUPPORTED_VERSION,
  FDT_MAGIC,
  FDT_RESERVE_ALIGN,
  FDT_TAG_ALIGN,
  FDT_VERSION,
  FdtTag,
  fdtHeader,
  fdtProperty,
  fdtReserveEntry,
  MAX_FDT_DEPTH,
  MAX_FDT_NAME_BYTES,
  MAX_FDT_TOTALSIZE,
} from '../abi/fdt.ts'
import type { Target } from '../abi/layout.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import type { Infer } from '../abi/schema.ts'
import { decodeStruct } from './record.ts'
import { decodeText } from './text.ts'

export interface FdtProperty {
  /** Undefined where the name lies outside the strings block or the blob was cut before it. */
  readonly name: string | undefined
  readonly nameOffset: number
  /** Offset of the PROP token. */
  readonly offset: number
  /** Offset of the value; the value is 4-byte aligned only. */
  readonly valueOffset: number
  readonly value: Uint8Array
}

export interface FdtNode {
  readonly name: string
  readonly nameBytes: Uint8Array
  /** Offset of the BEGIN_NODE token. */
  readonly offset: number
  /** Offset of the name. */
  readonly nameOffset: number
  /** Offset behind the END_NODE token, or where reading stopped. */
  end: number
  /** The bytes at hand end inside of this node. */
  cut: boolean
  readonly properties: FdtProperty[]
  readonly children: FdtNode[]
}

export interface FdtFault {
  readonly code: FaultCode
  readonly offset: number
  readonly length: number
  readonly message: string
  readonly expected: string
  readonly found: string
  /** Names of the nodes down to the place, the root left out. */
  readonly nodes: readonly string[]
}

/** One token or gap of the structure block and its neighbours, for annotation. */
export interface FdtPiece {
  readonly offset: number
  readonly length: number
  readonly label: string
  readonly text: string
}

export interface Fdt {
  readonly header: Infer<typeof fdtHeader>
  readonly bytes: Uint8Array
  /** Undefined where not even the root could be read. */
  readonly root: FdtNode | undefined
  readonly faults: readonly FdtFault[]
  /** Names and structure in the order of their bytes, without gaps between them; read anew each time. */
  readonly pieces: () => readonly FdtPiece[]
  /** Whether the strings block lies behind the end of the bytes at hand. */
  readonly stringsCut: boolean
}

/** Faults kept of one blob, which can have one for each token. */
export const MAX_FDT_FAULTS = 1000

/** Header and structure sizes do not depend on the page size. */
const ANY: Target = { pageSize: 4096 }
const HEADER_SIZE = layoutOf(fdtHeader, ANY).size
const PROPERTY_SIZE = layoutOf(fdtProperty, ANY).size
const RESERVE_SIZE = layoutOf(fdtReserveEntry, ANY).size
const MAGIC_SIZE = fieldOf(fdtHeader, 'magic', ANY).size
const RESERVE_LENGTH_AT = fieldOf(fdtReserveEntry, 'size', ANY).offset

/** Bytes that a blob claims in its header; undefined where there is no FDT header. */
export function fdtTotalSize(head: Uint8Array): number | undefined {
  if (head.length < HEADER_SIZE) return undefined
  const header = decodeStruct(fdtHeader, head.subarray(0, HEADER_SIZE), ANY)
  return header.magic === FDT_MAGIC ? header.totalsize : undefined
}

export const FDT_HEADER_SIZE = HEADER_SIZE

/** Whether the bytes begin with the magic number of an FDT. */
export function hasFdtMagic(head: Uint8Array): boolean {
  if (head.length < MAGIC_SIZE) return false
  return new DataView(head.buffer, head.byteOffset, MAGIC_SIZE).getUint32(0) === FDT_MAGIC
}

/** Reads a blob as far as it goes. `bytes` may be shorter than the header claims; that is a fault. */
export function readFdt(bytes: Uint8Array): Fdt {
  return new FdtReader(bytes).read()
}

function piecesOf(bytes: Uint8Array): readonly FdtPiece[] {
  const pieces: FdtPiece[] = []
  new FdtReader(bytes, pieces).read()
  return pieces
}

class FdtReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #faults: FdtFault[] = []
  /** Undefined where nobody wants them: there are several for each node and property. */
  readonly #pieces: FdtPiece[] | undefined
  readonly #open: FdtNode[] = []
  readonly #names = new Map<number, string>()
  #header: Infer<typeof fdtHeader>
  #stringsCut = false
  /** End of the structure block, or of the bytes at hand. */
  #end = 0

  constructor(bytes: Uint8Array, pieces?: FdtPiece[]) {
    this.#bytes = bytes
    this.#pieces = pieces
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const head = new Uint8Array(HEADER_SIZE)
    head.set(bytes.subarray(0, HEADER_SIZE))
    this.#header = decodeStruct(fdtHeader, head, ANY)
  }

  read(): Fdt {
    const usable = this.#checkHeader()
    const root = usable ? this.#readStructure() : undefined
    return {
      header: this.#header,
      bytes: this.#bytes,
      root,
      faults: this.#faults,
      pieces: () => piecesOf(this.#bytes),
      stringsCut: this.#stringsCut,
    }
  }

  #fault(
    code: FaultCode,
    offset: number,
    length: number,
    message: string,
    expected: string,
    found: string,
  ): void {
    if (this.#faults.length >= MAX_FDT_FAULTS) return
    const nodes = this.#open.slice(1).map((node) => node.name)
    this.#faults.push({ code, offset, length, message, expected, found, nodes })
  }

  #headerFault(code: FaultCode, field: keyof Infer<typeof fdtHeader>, expected: string): void {
    const { offset, size } = fieldOf(fdtHeader, field, ANY)
    const found = field === 'magic' ? `0x${this.#header.magic.toString(16)}` : String(this.#header[field])
    this.#fault(code, offset, size, `FDT header: ${field} is ${found}`, expected, found)
  }

  /** fdt_check_header(); returns whether the structure block can be looked at. */
  #checkHeader(): boolean {
    const { magic, version, last_comp_version, off_dt_struct } = this.#header
    if (this.#bytes.length < HEADER_SIZE) {
      const found = `${this.#bytes.length} bytes`
      this.#fault('FDT_TRUNCATED', 0, this.#bytes.length, 'FDT header is cut', `${HEADER_SIZE} bytes`, found)
      return false
    }
    if (magic !== FDT_MAGIC) {
      this.#headerFault('FDT_MAGIC', 'magic', `0x${FDT_MAGIC.toString(16)}`)
      return false
    }
    if (version < FDT_FIRST_SUPPORTED_VERSION || last_comp_version > version) {
      this.#headerFault(
        'FDT_VERSION',
        'version',
        `${FDT_FIRST_SUPPORTED_VERSION} or above, and at least last_comp_version`,
      )
    }
    if (last_comp_version > FDT_VERSION) {
      this.#headerFault('FDT_VERSION', 'last_comp_version', `at most ${FDT_VERSION}`)
    }
    this.#checkBlocks()
    this.#checkLength()
    if (off_dt_struct % FDT_TAG_ALIGN !== 0) return false
    return off_dt_struct >= HEADER_SIZE && off_dt_struct < this.#bytes.length
  }

  /** The blob and its three blocks: where they start and end. */
  #checkBlocks(): void {
    const { totalsize, off_mem_rsvmap, off_dt_strings, size_dt_strings, off_dt_struct } = this.#header
    if (totalsize < HEADER_SIZE || totalsize > MAX_FDT_TOTALSIZE) {
      this.#headerFault('FDT_HEADER', 'totalsize', `${HEADER_SIZE} to ${MAX_FDT_TOTALSIZE}`)
    }
    if (off_mem_rsvmap % FDT_RESERVE_ALIGN !== 0 || !this.#inside(off_mem_rsvmap, RESERVE_SIZE)) {
      this.#headerFault('FDT_HEADER', 'off_mem_rsvmap', `a multiple of ${FDT_RESERVE_ALIGN} inside totalsize`)
    } else this.#checkReserveEnd(off_mem_rsvmap)
    if (!this.#inside(off_dt_strings, size_dt_strings)) {
      this.#headerFault('FDT_HEADER', 'off_dt_strings', 'a strings block inside totalsize')
    }
    if (off_dt_struct % FDT_TAG_ALIGN !== 0 || !this.#inside(off_dt_struct, this.#structureSize())) {
      const expected = `a multiple of ${FDT_TAG_ALIGN}, a structure block inside totalsize`
      this.#headerFault('FDT_HEADER', 'off_dt_struct', expected)
    }
  }

  /** fdt_num_mem_rsv(): an entry of size 0 ends the reservation block. */
  #checkReserveEnd(start: number): void {
    const end = Math.min(this.#header.totalsize, this.#bytes.length)
    let at = start
    for (; at + RESERVE_SIZE <= end; at += RESERVE_SIZE) {
      if (this.#view.getBigUint64(at + RESERVE_LENGTH_AT) === 0n) return
    }
    if (end < this.#header.totalsize) return
    const message = 'the memory reservation block does not end'
    const expected = 'an entry of size 0 inside totalsize'
    this.#fault(
      'FDT_TRUNCATED',
      start,
      at - start,
      message,
      expected,
      `${(at - start) / RESERVE_SIZE} entries`,
    )
  }

  /** Whether the bytes at hand are all that the header claims. */
  #checkLength(): void {
    const { totalsize, off_dt_strings, size_dt_strings } = this.#header
    const { length } = this.#bytes
    if (totalsize <= length) return
    const expected = `${totalsize} bytes (totalsize)`
    this.#fault('FDT_TRUNCATED', length, 0, 'the blob is cut', expected, `${length} bytes`)
    this.#stringsCut = off_dt_strings + size_dt_strings > length
  }

  #inside(offset: number, length: number): boolean {
    return offset >= HEADER_SIZE && offset + length <= this.#header.totalsize
  }

  /** Bytes of the structure block that the header claims; it says so from version 17 on only. */
  #structureSize(): number {
    const { version, size_dt_struct, totalsize, off_dt_struct } = this.#header
    return version >= FDT_VERSION ? size_dt_struct : Math.max(0, totalsize - off_dt_struct)
  }

  #readStructure(): FdtNode | undefined {
    const { off_dt_struct } = this.#header
    const claimed = off_dt_struct + this.#structureSize()
    const end = Math.min(claimed, this.#bytes.length)
    this.#end = end
    let root: FdtNode | undefined
    let at = off_dt_struct
    while (at + FDT_TAG_ALIGN <= end) {
      const tag = this.#view.getUint32(at)
      if (tag === FdtTag.BEGIN_NODE && this.#open.length === 0 && root) {
        this.#structureFault(at, 'a second root node', 'FDT_END')
        return root
      }
      const next = this.#readToken(tag, at, end)
      root ??= this.#open[0]
      if (next === undefined) return this.#cutOpenNodes(at, root)
      at = next
      if (tag !== FdtTag.END) continue
      if (this.#open.length > 0)
        this.#structureFault(at - FDT_TAG_ALIGN, 'FDT_END inside a node', 'FDT_END_NODE')
      else if (!root) this.#structureFault(at - FDT_TAG_ALIGN, 'FDT_END before any node', 'FDT_BEGIN_NODE')
      return this.#cutOpenNodes(at, root)
    }
    if (claimed <= this.#bytes.length)
      this.#structureFault(at, 'the structure block ends without FDT_END', 'FDT_END')
    return this.#cutOpenNodes(at, root)
  }

  #cutOpenNodes(at: number, root: FdtNode | undefined): FdtNode | undefined {
    for (const node of this.#open) {
      node.end = at
      node.cut = true
    }
    return root
  }

  #structureFault(offset: number, found: string, expected: string): void {
    this.#fault('FDT_STRUCTURE', offset, FDT_TAG_ALIGN, `structure block: ${found}`, expected, found)
  }

  /** Reads one token; returns the offset behind it, undefined where reading cannot go on. */
  #readToken(tag: number, at: number, end: number): number | undefined {
    switch (tag) {
      case FdtTag.BEGIN_NODE:
        return this.#beginNode(at, end)
      case FdtTag.END_NODE:
        return this.#endNode(at)
      case FdtTag.PROP:
        return this.#property(at, end)
      case FdtTag.NOP:
      case FdtTag.END:
        this.#piece(at, FDT_TAG_ALIGN, tag === FdtTag.NOP ? 'FDT_NOP' : 'FDT_END', '')
        return at + FDT_TAG_ALIGN
      default:
        this.#structureFault(at, `unknown token 0x${tag.toString(16)}`, 'a token 1, 2, 3, 4 or 9')
        return undefined
    }
  }

  #beginNode(at: number, end: number): number | undefined {
    const start = at + FDT_TAG_ALIGN
    const nul = this.#bytes.subarray(start, end).indexOf(0)
    if (nul < 0) {
      this.#fault(
        'FDT_TRUNCATED',
        start,
        end - start,
        'node name without NUL',
        'a NUL',
        'end of the structure block',
      )
      return undefined
    }
    const nameBytes = this.#bytes.subarray(start, start + Math.min(nul, MAX_FDT_NAME_BYTES))
    if (nul > MAX_FDT_NAME_BYTES) this.#nameFault(start, 'node', `${nul} bytes`)
    const node: FdtNode = {
      name: decodeText(nameBytes),
      nameBytes,
      offset: at,
      nameOffset: start,
      end: at,
      cut: false,
      properties: [],
      children: [],
    }
    if (this.#open.length >= MAX_FDT_DEPTH) {
      this.#fault(
        'FDT_DEPTH',
        at,
        FDT_TAG_ALIGN,
        'nodes nested too deep',
        `at most ${MAX_FDT_DEPTH}`,
        node.name,
      )
      return undefined
    }
    if (this.#open.length === 0 && nul > 0)
      this.#structureFault(start, `a root node named '${node.name}'`, 'an empty name')
    this.#open.at(-1)?.children.push(node)
    this.#open.push(node)
    const behind = alignTag(start + nul + 1)
    this.#piece(at, FDT_TAG_ALIGN, 'FDT_BEGIN_NODE', '')
    this.#piece(start, nul + 1, 'node name', node.name === '' ? '(root)' : node.name)
    this.#padding(start + nul + 1, behind)
    return behind
  }

  #endNode(at: number): number | undefined {
    const node = this.#open.pop()
    if (!node) {
      this.#structureFault(at, 'FDT_END_NODE outside of a node', 'FDT_BEGIN_NODE or FDT_END')
      return undefined
    }
    node.end = at + FDT_TAG_ALIGN
    this.#piece(at, FDT_TAG_ALIGN, 'FDT_END_NODE', node.name)
    return node.end
  }

  #property(at: number, end: number): number | undefined {
    const node = this.#open.at(-1)
    if (!node) {
      this.#structureFault(at, 'a property outside of a node', 'FDT_BEGIN_NODE')
      return undefined
    }
    if (node.children.length > 0)
      this.#structureFault(at, 'a property behind a child node', 'properties first')
    if (at + PROPERTY_SIZE > end) {
      this.#fault(
        'FDT_TRUNCATED',
        at,
        end - at,
        'property head is cut',
        `${PROPERTY_SIZE} bytes`,
        `${end - at} bytes`,
      )
      return undefined
    }
    const head = decodeStruct(fdtProperty, this.#bytes.subarray(at, at + PROPERTY_SIZE), ANY)
    const valueOffset = at + PROPERTY_SIZE
    if (valueOffset + head.len > end) {
      const found = `${end - valueOffset} bytes`
      this.#fault(
        'FDT_TRUNCATED',
        valueOffset,
        end - valueOffset,
        'property value is cut',
        `${head.len} bytes`,
        found,
      )
      return undefined
    }
    const value = this.#bytes.subarray(valueOffset, valueOffset + head.len)
    const name = this.#string(head.nameoff, at)
    node.properties.push({ name, nameOffset: head.nameoff, offset: at, valueOffset, value })
    const behind = alignTag(valueOffset + head.len)
    this.#piece(at, FDT_TAG_ALIGN, 'FDT_PROP', name ?? `(name at strings offset ${head.nameoff})`)
    this.#piece(at + FDT_TAG_ALIGN, FDT_TAG_ALIGN, 'property length', String(head.len))
    this.#piece(
      at + 2 * FDT_TAG_ALIGN,
      FDT_TAG_ALIGN,
      'property name offset',
      `${head.nameoff} (${name ?? 'not in the blob'})`,
    )
    this.#piece(valueOffset, head.len, 'property value', name ?? '')
    this.#padding(valueOffset + head.len, behind)
    return behind
  }

  #string(offset: number, at: number): string | undefined {
    const known = this.#names.get(offset)
    if (known !== undefined) return known
    const { off_dt_strings, size_dt_strings } = this.#header
    const block = this.#bytes.subarray(off_dt_strings, off_dt_strings + size_dt_strings)
    const bytes = block.subarray(offset, offset + MAX_FDT_NAME_BYTES + 1)
    const nul = bytes.indexOf(0)
    if (nul >= 0) {
      const name = decodeText(bytes)
      this.#names.set(offset, name)
      return name
    }
    if (bytes.length > MAX_FDT_NAME_BYTES) this.#nameFault(at, 'property', 'no NUL there')
    if (this.#stringsCut || bytes.length > MAX_FDT_NAME_BYTES) return undefined
    const found = `offset ${offset} of a block of ${size_dt_strings} bytes`
    this.#fault(
      'FDT_STRING',
      at,
      PROPERTY_SIZE,
      'property name outside of the strings block',
      'a NUL-terminated string',
      found,
    )
    return undefined
  }

  #nameFault(offset: number, what: string, found: string): void {
    const expected = `at most ${MAX_FDT_NAME_BYTES} bytes`
    this.#fault('FDT_STRING', offset, FDT_TAG_ALIGN, `${what} name is too long`, expected, found)
  }

  #piece(offset: number, length: number, label: string, text: string): void {
    if (length > 0) this.#pieces?.push({ offset, length, label, text })
  }

  #padding(from: number, to: number): void {
    this.#piece(from, Math.min(to, this.#end) - from, 'padding', '')
  }
}

function alignTag(offset: number): number {
  return Math.ceil(offset / FDT_TAG_ALIGN) * FDT_TAG_ALIGN
}
