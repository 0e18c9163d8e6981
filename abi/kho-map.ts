/**
 * The map of preserved memory: which units of 2^order pages the old kernel keeps for the new one.
 *
 * kho-v1 stores a chain of chunks of bitmaps, one bitmap per order and window of memory, in two sizes
 * that nothing in the image tells apart. kho-v2 and later store a radix tree whose keys hold order and
 * frame number. Sources: kernel/kexec_handover.c (6.16 to 6.18), kernel/liveupdate/kexec_handover.c,
 * include/linux/kho_radix_tree.h, include/linux/kho/abi/kexec_handover.h.
 */
import type { PageSize, Target } from './layout.ts'
import { layoutOf, pageShift } from './layout.ts'
import { type PhysAddr, phys } from './memory.ts'
import type { ChunksEdge, RadixEdge } from './schema.ts'
import { array, bitmap, pa64le, struct, u32le } from './schema.ts'

const v1Source = 'kernel/kexec_handover.c'

export const khoserMemBitmapPtr = struct(
  'khoser_mem_bitmap_ptr',
  { doc: 'One bitmap of a chunk and the memory that it describes.', source: v1Source },
  {
    phys_start: pa64le('Physical address that bit 0 stands for.'),
    bitmap: pa64le('Address of the bitmap.'),
  },
)

export const khoserMemChunkHdr = struct(
  'khoser_mem_chunk_hdr',
  { doc: 'Head of a chunk of the kho-v1 map.', source: v1Source },
  {
    next: pa64le('Next chunk, 0 at the end.'),
    order: u32le('Order of every bit of this chunk: a unit is 2^order pages.', { ctype: 'unsigned int' }),
    num_elms: u32le('Valid entries of `bitmaps`.', { ctype: 'unsigned int' }),
  },
)

export const khoserMemChunk = struct(
  'khoser_mem_chunk',
  { doc: 'A page of the kho-v1 map; not preserved itself.', source: v1Source },
  {
    hdr: khoserMemChunkHdr,
    bitmaps: array(khoserMemBitmapPtr, 'page', 'Bitmaps, ascending by phys_start.'),
  },
)

/** Linux 6.16 to 6.17.8: PRESERVE_BITS = 512 * 8, from kmalloc. */
export const khoMemPhysBits512 = struct(
  'kho_mem_phys_bits',
  { doc: 'Bitmap of preserved units, 4096 bits.', source: v1Source },
  { preserve: bitmap(512, 'Bit b: the unit at phys_start + (b << (order + PAGE_SHIFT)) is preserved.') },
)

/** Linux 6.17.9 to 7.0 (commit a2fff99f92da): PRESERVE_BITS = PAGE_SIZE * 8, one page. */
export const khoMemPhysBitsPage = struct(
  'kho_mem_phys_bits',
  { doc: 'Bitmap of preserved units, one page.', source: v1Source },
  { preserve: bitmap('page', 'Bit b: the unit at phys_start + (b << (order + PAGE_SHIFT)) is preserved.') },
)

export const chunks512: ChunksEdge = { kind: 'chunks', chunk: khoserMemChunk, bitmap: khoMemPhysBits512 }
export const chunksPage: ChunksEdge = { kind: 'chunks', chunk: khoserMemChunk, bitmap: khoMemPhysBitsPage }

const radixSource = 'include/linux/kho/abi/kexec_handover.h'

export const khoRadixNode = struct(
  'kho_radix_node',
  { doc: 'Inner node of the radix tree, one page; not preserved itself.', source: radixSource },
  { table: array(pa64le('Child, 0 if absent.', { ctype: 'u64' }), 'page', 'Children by index.') },
)

export const khoRadixLeaf = struct(
  'kho_radix_leaf',
  { doc: 'Leaf of the radix tree, one page of key bits; not preserved itself.', source: radixSource },
  { bitmap: bitmap('page', 'Bit b: the key (table bits of the path, b) is preserved.') },
)

/** kho-v2 and kho-v3 up to 7.1-rc5: the depth left the order-0 marker bit out of account. */
export const radixOrder0Position: RadixEdge = {
  kind: 'radix',
  node: khoRadixNode,
  leaf: khoRadixLeaf,
  keyBits: 'order-0-position',
}

/** From commit d64b0372760e on (7.1): at 16K pages one level more, the others unchanged. */
export const radixKeyWidth: RadixEdge = {
  kind: 'radix',
  node: khoRadixNode,
  leaf: khoRadixLeaf,
  keyBits: 'key-width',
}

/**
 * Where the tree is too shallow to store the marker of order-0 keys (16K pages, radixOrder0Position), a
 * key whose top bit lies below this position is taken as an order-0 frame number that lost its marker:
 * units above order 14 (256 MiB) and memory above 1 PiB are thereby ruled out.
 */
export const LOST_MARKER_BELOW = 36

/** Shape of a radix tree for a page size. */
export interface RadixShape {
  /** Bit position of the marker of an order-0 key: 64 - PAGE_SHIFT (KHO_ORDER_0_LOG2). */
  readonly order0Log2: number
  /** log2 of the entries of a node (KHO_TABLE_SIZE_LOG2). */
  readonly tableLog2: number
  /** log2 of the bits of a leaf (KHO_BITMAP_SIZE_LOG2). */
  readonly leafLog2: number
  /** Levels, the leaf counted (KHO_TREE_MAX_DEPTH). */
  readonly depth: number
}

/** Derives a tree's shape from its declaration, as the macros in kho_radix_tree.h do. */
export function radixShape(edge: RadixEdge, target: Target): RadixShape {
  const order0Log2 = 64 - pageShift(target.pageSize)
  const tableLog2 = Math.log2(layoutOf(edge.node, target).size / 8)
  const leafLog2 = Math.log2(layoutOf(edge.leaf, target).size * 8)
  const keyBits = edge.keyBits === 'key-width' ? order0Log2 + 1 : order0Log2
  return { order0Log2, tableLog2, leafLog2, depth: Math.ceil((keyBits - leafLog2) / tableLog2) + 1 }
}

/** A key of the tree: marker bit 1 << (64 - PAGE_SHIFT - order), below it the unit's number. */
export function radixKey(pa: bigint, order: number, pageSize: PageSize): bigint {
  const shift = BigInt(pageShift(pageSize) + order)
  return (1n << (64n - shift)) | (pa >> shift)
}

/** Whether a tree of this shape is too shallow to store the marker of order-0 keys. */
export function losesOrder0Marker({ leafLog2, tableLog2, depth, order0Log2 }: RadixShape): boolean {
  return leafLog2 + (depth - 1) * tableLog2 <= order0Log2
}

/**
 * Order and address of a key as stored; undefined for a key without a place for its order: 0, or a top
 * bit above the marker of order 0. Mirrors kho_radix_decode_key(), and repairs lost markers.
 */
export function decodeRadixKey(
  key: bigint,
  shape: RadixShape,
  pageSize: PageSize,
): { pa: PhysAddr; order: number } | undefined {
  const topBit = key === 0n ? -1 : key.toString(2).length - 1
  if (losesOrder0Marker(shape) && topBit < LOST_MARKER_BELOW) {
    return { pa: phys(key << BigInt(pageShift(pageSize))), order: 0 }
  }
  const order = shape.order0Log2 - topBit
  if (topBit < 0 || order < 0) return undefined
  return { pa: phys(key << BigInt(pageShift(pageSize) + order)), order }
}

/**
 * Memory that has struct pages or has none as a whole (SECTION_SIZE_BITS): 128 MiB, 512 MiB at 64K pages.
 * Writing the struct page of a frame in a section without RAM is a wild write.
 */
export function sectionSize(pageSize: PageSize): bigint {
  return pageSize === 65536 ? 1n << 29n : 1n << 27n
}
