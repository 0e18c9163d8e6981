/**
 * memfd live-update ABI: what one preserved memfd leaves for the next kernel.
 *
 * Source: include/linux/kho/abi/memfd.h, mm/memfd_luo.c. memfd-v1: Linux 6.19 and 7.0; memfd-v2:
 * Linux 7.1 and later. Reached from `luo_file_ser.data` when `luo_file_ser.compatible` names it.
 */
import { vmallocOf } from './kho-vmalloc.ts'
import { bitfields, packed, u32le, u64le } from './schema.ts'

const source = 'include/linux/kho/abi/memfd.h'

/** MEMFD_LUO_FOLIO_*: state of the folio when it was preserved. */
export const memfdFolioFlags = { DIRTY: 1, UPTODATE: 2 } as const

/** F_SEAL_*, include/uapi/linux/fcntl.h; together MEMFD_LUO_ALL_SEALS. */
export const memfdSeals = {
  SEAL: 0x01,
  SHRINK: 0x02,
  GROW: 0x04,
  WRITE: 0x08,
  FUTURE_WRITE: 0x10,
  EXEC: 0x20,
} as const

/** What memfd_add_seals() adds to F_SEAL_EXEC where the file may be executed, as a new one may (F_ALL_EXEC). */
export const SEALS_WITH_EXEC =
  memfdSeals.SHRINK | memfdSeals.GROW | memfdSeals.WRITE | memfdSeals.FUTURE_WRITE

/** Bits 0 to 51 of the first word are the frame number, 52 to 63 the flags. */
export const memfdFolio = packed(
  'memfd_luo_folio_ser',
  { doc: 'One folio of a preserved memfd.', source },
  {
    ...bitfields(u64le('Frame number and flags.'), {
      pfn: [
        0,
        52,
        "Frame number of the folio's first page; 0 is a hole.",
        { show: 'hex', measures: 'frame' },
      ],
      flags: [52, 12, 'State of the folio.', { flags: memfdFolioFlags }],
    }),
    index: u64le('Page offset of the folio within the file.', { measures: 'page-index' }),
  },
)

const folios = vmallocOf(memfdFolio, { item: 'folio', count: 'nr_folios' })

export const memfdV1 = packed(
  'memfd_luo_ser',
  { doc: 'A preserved memfd.', source },
  {
    pos: u64le('File position (f_pos).', { default: 0 }),
    size: u64le('File size (i_size).', { show: 'bytes' }),
    nr_folios: u64le('Entries of `folios`.'),
    folios,
  },
)

/** memfd-v2 (commit 8a552d68a86e) inserts `seals` and `flags` before `nr_folios`. */
export const memfdV2 = packed(
  'memfd_luo_ser',
  { doc: 'A preserved memfd with its seals.', source },
  {
    pos: u64le('File position (f_pos).', { default: 0 }),
    size: u64le('File size (i_size).', { show: 'bytes' }),
    seals: u32le('Seals in force; a bit outside MEMFD_LUO_ALL_SEALS is refused.', {
      flags: memfdSeals,
      default: 0,
    }),
    flags: u32le('None defined; not looked at.', { default: 0 }),
    nr_folios: u64le('Entries of `folios`.'),
    folios,
  },
)
