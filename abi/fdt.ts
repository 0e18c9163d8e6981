/**
 * Flattened device tree container, version 17: header, memory reservation block, structure tokens.
 *
 * KHO uses it as an envelope only: the container is big-endian, the values inside KHO's properties are
 * not. Source: scripts/dtc/libfdt/fdt.h and libfdt.h.
 */
import { struct, u32be, u64be } from './schema.ts'

export const FDT_MAGIC = 0xd00dfeed
/** ~FDT_MAGIC: a blob that is still being written, front to back. */
export const FDT_SW_MAGIC = 0x2ff20112
export const FDT_VERSION = 17
export const FDT_LAST_COMPATIBLE_VERSION = 16
/** Oldest version that libfdt still reads (FDT_FIRST_SUPPORTED_VERSION). */
export const FDT_FIRST_SUPPORTED_VERSION = 2
/** The version that introduced size_dt_struct, and with it limits for offsets into both blocks. */
export const FDT_SIZED_VERSION = 17
/** Nodes of versions before this are named by their whole path, and long values are aligned to 8 bytes. */
export const FDT_LEAF_NAMES_VERSION = 16
/** Values that are aligned in those versions have this many bytes or more. */
export const FDT_ALIGNED_VALUE = 8
/** Alignment in bytes of the memory reservation block and of the blob itself. */
export const FDT_RESERVE_ALIGN = 8
/** Alignment in bytes of structure tokens and property values (FDT_TAGSIZE). */
export const FDT_TAG_ALIGN = 4

/** Nested deeper than this, a node is a fault; libfdt itself goes as deep as an int counts. */
export const MAX_FDT_DEPTH = 64
/** A name with more bytes is a fault and cut; libfdt has no limit, KHO's own names are far shorter. */
export const MAX_FDT_NAME_BYTES = 255
/** INT_MAX, as fdt_check_header() demands. */
export const MAX_FDT_TOTALSIZE = 0x7fff_ffff

/** Structure block tokens. */
export const FdtTag = {
  BEGIN_NODE: 1,
  END_NODE: 2,
  PROP: 3,
  NOP: 4,
  END: 9,
} as const

const source = 'scripts/dtc/libfdt/fdt.h'

export const fdtHeader = struct(
  'fdt_header',
  { doc: 'Header of a flattened device tree; every field big-endian.', source },
  {
    magic: u32be('0xd00dfeed.', { show: 'hex', only: FDT_MAGIC }),
    totalsize: u32be('Bytes of the whole blob; after fdt_pack() exact, so odd values are normal.'),
    off_dt_struct: u32be('Offset in bytes of the structure block.'),
    off_dt_strings: u32be('Offset in bytes of the strings block.'),
    off_mem_rsvmap: u32be('Offset in bytes of the memory reservation block.'),
    version: u32be('Format version.'),
    last_comp_version: u32be('Oldest version a reader may know to read this blob.'),
    boot_cpuid_phys: u32be('Physical id of the boot CPU; 0 in KHO.'),
    size_dt_strings: u32be('Bytes of the strings block.'),
    size_dt_struct: u32be('Bytes of the structure block.'),
  },
)

const WORD = 4
const HEADER_WORDS: readonly (readonly [until: number, words: number])[] = [
  [1, 7],
  [2, 8],
  [16, 9],
]

/** fdt_header_size_(): bytes of the header in a version. */
export function fdtHeaderSize(version: number): number {
  const words = HEADER_WORDS.find(([until]) => version <= until)?.[1]
  return WORD * (words ?? Object.keys(fdtHeader.fields).length)
}

export const fdtReserveEntry = struct(
  'fdt_reserve_entry',
  { doc: 'One entry of the memory reservation block; an all-zero one ends it.', source },
  {
    address: u64be('Physical address.', { show: 'hex' }),
    size: u64be('Bytes.'),
  },
)

/** What precedes a property value: the PROP token, then these two words. */
export const fdtProperty = struct(
  'fdt_property',
  { doc: 'Head of a property in the structure block.', source },
  {
    tag: u32be('FDT_PROP.', { only: FdtTag.PROP }),
    len: u32be('Bytes of the value, before padding to 4.'),
    nameoff: u32be('Offset in bytes of the name in the strings block.'),
  },
)

/** What libfdt answers instead of an offset or 0 (FDT_ERR_*, negative). */
export const FDT_ERR = {
  NOTFOUND: -1,
  EXISTS: -2,
  NOSPACE: -3,
  BADOFFSET: -4,
  BADSTATE: -7,
  TRUNCATED: -8,
  BADMAGIC: -9,
  BADVERSION: -10,
  BADSTRUCTURE: -11,
  ALIGNMENT: -19,
} as const
