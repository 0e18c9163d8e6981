/**
 * libfdt's readers as the kernel calls them on what the old kernel left, with their answers: offsets and
 * values, or negative codes.
 *
 * Source: scripts/dtc/libfdt/fdt.c, fdt_ro.c. The tree itself is read by the shared reader of FDTs.
 */
import {
  FDT_ERR,
  FDT_FIRST_SUPPORTED_VERSION,
  FDT_MAGIC,
  FDT_RESERVE_ALIGN,
  FDT_TAG_ALIGN,
  FDT_VERSION,
  fdtHeader,
  MAX_FDT_TOTALSIZE,
} from '../abi/fdt.ts'
import { fieldOf, type Target } from '../abi/layout.ts'
import type { PhysAddr } from '../abi/memory.ts'
import type { Infer } from '../abi/schema.ts'
import { FDT_HEADER_SIZE, type FdtNode, fdtTotalSize, readFdt } from '../inspect/fdt.ts'
import { decodeStruct } from '../inspect/record.ts'
import type { Ram } from './core.ts'

export type { FdtNode }

const ANY: Target = { pageSize: 4096 }
/** KHO's trees take a few pages at most. */
const MAX_FDT_BYTES = 1 << 24

/** fdt_check_header(): 0, or why the kernel cannot use the blob. `alignsBlocks`: blocks must stand aligned. */
export function checkHeader(ram: Ram, pa: PhysAddr, alignsBlocks: boolean): number {
  if (Number(pa) % FDT_RESERVE_ALIGN !== 0) return FDT_ERR.ALIGNMENT
  const header = decodeStruct(fdtHeader, ram.read(pa, FDT_HEADER_SIZE), ANY)
  if (header.magic !== FDT_MAGIC) return FDT_ERR.BADMAGIC
  const { version, last_comp_version, totalsize } = header
  if (version < FDT_FIRST_SUPPORTED_VERSION || last_comp_version > FDT_VERSION) return FDT_ERR.BADVERSION
  if (version < last_comp_version) return FDT_ERR.BADVERSION
  if (totalsize < FDT_HEADER_SIZE || totalsize > MAX_FDT_TOTALSIZE) return FDT_ERR.TRUNCATED
  const { off_mem_rsvmap, off_dt_struct } = header
  const isAligned = off_mem_rsvmap % FDT_RESERVE_ALIGN === 0 && off_dt_struct % FDT_TAG_ALIGN === 0
  if (alignsBlocks && !isAligned) return FDT_ERR.ALIGNMENT
  return blocksLieInside(header) ? 0 : FDT_ERR.TRUNCATED
}

function blocksLieInside(header: Infer<typeof fdtHeader>): boolean {
  const { totalsize, version } = header
  const { off_mem_rsvmap, off_dt_struct, size_dt_struct, off_dt_strings, size_dt_strings } = header
  const inside = (offset: number, length: number): boolean =>
    offset >= FDT_HEADER_SIZE && offset + length <= totalsize
  return (
    inside(off_mem_rsvmap, 0) &&
    inside(off_dt_struct, version >= FDT_VERSION ? size_dt_struct : 0) &&
    inside(off_dt_strings, size_dt_strings)
  )
}

/** A tree in which every look-up fails. */
const NAMELESS: FdtNode = {
  name: '',
  nameBytes: new Uint8Array(0),
  offset: 0,
  nameOffset: 0,
  end: 0,
  cut: false,
  properties: [],
  children: [],
}

/** fdt_offset_ptr() is the first that looks at a tree, and asks where its structure stands. */
const FIRST_OFFSET = fieldOf(fdtHeader, 'off_dt_struct', ANY).offset

/** The tree at an address; undefined where it does not start with a node. */
export function fdtAt(ram: Ram, pa: PhysAddr): FdtNode | undefined {
  const total = fdtTotalSize(ram.read(pa, FDT_HEADER_SIZE, FIRST_OFFSET))
  // fdt_ro_probe_() is asked for every name; it takes one byte less than fdt_check_header().
  if (total === undefined || total === MAX_FDT_TOTALSIZE) return NAMELESS
  let length = Math.min(total, MAX_FDT_BYTES)
  // libfdt looks at what the tree uses only, however much the header claims.
  while (!ram.contains(pa, length)) length = Math.floor(length / 2)
  return readFdt(ram.read(pa, length)).root
}

/** fdt_getprop() */
export function getProperty(node: FdtNode, name: string): Uint8Array | undefined {
  return node.properties.find((property) => property.name === name)?.value
}

/** A property of exactly 8 bytes as a number; KHO keeps them in the order of the processor. */
export function getWord(node: FdtNode, name: string): bigint | undefined {
  const value = getProperty(node, name)
  return value?.length === 8 ? new DataView(value.buffer, value.byteOffset).getBigUint64(0, true) : undefined
}

/** fdt_subnode_offset(): a name without `@` also finds a node with a unit address. */
export function subnode(node: FdtNode, name: string): FdtNode | undefined {
  return node.children.find((child) => {
    const hasUnit = !name.includes('@') && child.name.startsWith(`${name}@`)
    return child.name === name || hasUnit
  })
}

/** What fdt_getprop() answers where the property is not found: properties are looked for up to the first child. */
export function missingProperty({ cut, children }: FdtNode): number {
  return cut && children.length === 0 ? FDT_ERR.BADSTRUCTURE : FDT_ERR.NOTFOUND
}

/** fdt_node_check_compatible(): 0, 1 where the list does not hold the string, or why there is no list. */
export function checkCompatible(node: FdtNode | undefined, wanted: string): number {
  if (!node) return FDT_ERR.BADOFFSET
  const list = getProperty(node, 'compatible')
  if (!list) return missingProperty(node)
  const texts = new TextDecoder('latin1').decode(list).split('\0').slice(0, -1)
  return texts.includes(wanted) ? 0 : 1
}
