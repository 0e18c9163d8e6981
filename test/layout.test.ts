/** Every struct of the C headers, as a C compiler lays it out, against what the declarations say. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import * as abi from '../abi/index.ts'
import { layoutOf, PAGE_SIZES, type PageSize } from '../abi/layout.ts'
import type { FieldType, StructType } from '../abi/schema.ts'
import { ROOT } from './support/images.ts'

type PerPage = number | Record<string, number>

interface MeasuredField {
  readonly name: string
  readonly offset: PerPage
  readonly size: PerPage
  readonly count?: PerPage
  readonly bit_offset?: number
  readonly bit_width?: number
}

interface Measured {
  readonly kernel_name: string
  readonly packed: boolean
  readonly sizeof: PerPage
  readonly align: number
  readonly fields: readonly MeasuredField[]
}

const { structs } = JSON.parse(readFileSync(`${ROOT}fixtures/layouts/layouts.json`, 'utf8')) as {
  structs: Record<string, Measured>
}

/** Structs inside of others: declared by functions, as what they point to differs per version. */
const session = abi.luoV5.fields.sessions_pa.to
const sessionStruct = session?.kind === 'blocks' ? session.element : undefined

const declared: Record<string, StructType | undefined> = {
  setup_data: abi.setupData,
  kho_data: abi.khoData,
  kho_scratch: abi.khoScratch,
  khoser_mem_bitmap_ptr: abi.khoserMemBitmapPtr,
  khoser_mem_chunk_hdr: abi.khoserMemChunkHdr,
  khoser_mem_chunk: abi.khoserMemChunk,
  kho_mem_phys_bits_512: abi.khoMemPhysBits512,
  kho_mem_phys_bits_page: abi.khoMemPhysBitsPage,
  kho_radix_node: abi.khoRadixNode,
  kho_radix_leaf: abi.khoRadixLeaf,
  kho_vmalloc: abi.memfdV2.fields.folios,
  kho_vmalloc_hdr: abi.khoVmallocHdr,
  kho_vmalloc_chunk: abi.khoVmallocChunk,
  kho_block_header_ser: abi.khoBlockHeader,
  kho_kexec_metadata: abi.khoKexecMetadata,
  luo_file_ser: abi.luoFileSer,
  luo_file_set_ser: sessionStruct?.fields.file_set_ser as StructType,
  luo_session_header_ser: abi.luoSessionHeaderSer,
  luo_session_ser: sessionStruct,
  luo_session_ser_v1: abi.luoSessionSerV1,
  luo_flb_header_ser: abi.luoFlbHeaderSer,
  luo_flb_ser: abi.luoFlbSer,
  luo_ser_v2: abi.luoSerV2,
  luo_ser: abi.luoV5,
  memfd_luo_folio_ser: abi.memfdFolio,
  memfd_luo_ser_v1: abi.memfdV1,
  memfd_luo_ser_v2: abi.memfdV2,
  liveupdate_ioctl_create_session: abi.liveupdateIoctlCreateSession,
  liveupdate_ioctl_retrieve_session: abi.liveupdateIoctlRetrieveSession,
  liveupdate_session_preserve_fd: abi.liveupdateSessionPreserveFd,
  liveupdate_session_retrieve_fd: abi.liveupdateSessionRetrieveFd,
  liveupdate_session_finish: abi.liveupdateSessionFinish,
  liveupdate_session_get_name: abi.liveupdateSessionGetName,
}

function at(value: PerPage, pageSize: PageSize): number {
  return typeof value === 'number' ? value : (value[String(pageSize)] as number)
}

/** Elements of an array; the header's bitmaps are arrays of u64, ours are bits. */
function elements(type: FieldType, size: number, target: { pageSize: PageSize }): number | undefined {
  if (type.kind === 'array')
    return abi.countOf(type, target, 0) === 0 ? undefined : size / abi.sizeOf(type.element, target)
  if (type.kind === 'bitmap') return size / 8
  return type.kind === 'text' ? size : undefined
}

describe.each(PAGE_SIZES)('at a page size of %d bytes', (pageSize) => {
  test.each(Object.entries(structs))('%s is laid out as the C compiler says', (name, measured) => {
    const struct = declared[name]
    if (!struct) throw new Error(`struct ${name} has no declaration`)
    const target = { pageSize }
    const layout = layoutOf(struct, target)
    const { size, align, fields } = layout
    const found = {
      kernel_name: struct.name,
      packed: struct.packed,
      sizeof: size,
      align,
      fields: fields.map(({ name, type, offset, size }) => ({
        name,
        offset,
        size,
        count: elements(type, size, target),
        bit_offset: type.kind === 'bits' ? type.shift : undefined,
        bit_width: type.kind === 'bits' ? type.width : undefined,
      })),
    }
    const expected = {
      kernel_name: measured.kernel_name,
      packed: measured.packed,
      sizeof: at(measured.sizeof, pageSize),
      align: measured.align,
      fields: measured.fields.map((field) => ({
        name: field.name,
        offset: at(field.offset, pageSize),
        size: at(field.size, pageSize),
        count: field.count === undefined ? undefined : at(field.count, pageSize),
        bit_offset: field.bit_offset,
        bit_width: field.bit_width,
      })),
    }
    expect(found).toEqual(expected)
  })
})

const { constants_by_page_size: constants } = JSON.parse(
  readFileSync(`${ROOT}fixtures/layouts/layouts.json`, 'utf8'),
) as { constants_by_page_size: Record<string, PerPage> }

test.each(PAGE_SIZES)(
  'the constants derived from the declarations at %d bytes are those of the headers',
  (pageSize) => {
    const target = { pageSize }
    const corrected = abi.radixShape(abi.radixKeyWidth, target)
    const first = abi.radixShape(abi.radixOrder0Position, target)
    const sessions = session?.kind === 'blocks' ? abi.blockCapacity(session, target) : 0
    const found = {
      KHO_ORDER_0_LOG2: corrected.order0Log2,
      KHO_TABLE_SIZE_LOG2: corrected.tableLog2,
      KHO_BITMAP_SIZE_LOG2: corrected.leafLog2,
      KHO_TREE_MAX_DEPTH: corrected.depth,
      KHO_TREE_MAX_DEPTH_without_plus1: first.depth,
      KHO_VMALLOC_SIZE: abi.vmallocChunkCapacity(abi.khoVmallocChunk, target),
      sessions_per_block: sessions,
    }
    const expected = Object.fromEntries(
      Object.keys(found).map((name) => [name, at(constants[name] as PerPage, pageSize)]),
    )
    expect(found).toEqual(expected)
  },
)
