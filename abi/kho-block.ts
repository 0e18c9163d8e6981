/**
 * KHO blocks: chains of preserved pages that hold fixed-size entries.
 *
 * Source: include/linux/kho/abi/block.h, kernel/liveupdate/kho_block.c. Linux 7.2 and later; part of
 * the contract that kho-v4 names.
 */
import type { Target } from './layout.ts'
import { layoutOf } from './layout.ts'
import type { BlocksEdge, StructType } from './schema.ts'
import { pa64le, packed, u64le } from './schema.ts'

/** KHO_MAX_BLOCKS: a longer chain is refused with -ENOSPC. */
export const KHO_MAX_BLOCKS = 10_000

export const khoBlockHeader = packed(
  'kho_block_header_ser',
  { doc: 'Head of a block of entries.', source: 'include/linux/kho/abi/block.h' },
  {
    next: pa64le('Next block, 0 at the end.', { ctype: 'u64' }),
    count: u64le('Entries in this block, at least 1.'),
  },
)

/** Declares a chain of blocks of `element`. */
export function blocksOf(
  element: StructType,
  link: { as: string; naturalKey: string; total?: string },
): BlocksEdge {
  return { kind: 'blocks', header: khoBlockHeader, element, maxBlocks: KHO_MAX_BLOCKS, ...link }
}

/** Entries that fit into one block: (PAGE_SIZE - 16) / entry size. */
export function blockCapacity(edge: BlocksEdge, target: Target): number {
  const room = target.pageSize - layoutOf(edge.header, target).size
  return Math.floor(room / layoutOf(edge.element, target).size)
}
