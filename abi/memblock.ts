/**
 * memblock: the regions of the `reserve_mem=` parameter, kept across kexec.
 *
 * Source: mm/memblock.c: prepare_kho_fdt(), reserve_mem_kho_revive(); include/linux/kho/abi/memblock.h.
 * Unchanged since Linux 6.16.
 */
import { compatible, fdtNode, pointer, u64le } from './schema.ts'

/** RESERVE_MEM_MAX_ENTRIES */
export const RESERVE_MEM_MAX_ENTRIES = 8
/** RESERVE_MEM_NAME_SIZE, the NUL counted. */
export const RESERVE_MEM_NAME_SIZE = 16
/** The least alignment of a region; L1_CACHE_BYTES of x86_64 and arm64. */
export const SMP_CACHE_BYTES = 64n

const source = 'include/linux/kho/abi/memblock.h'

export const reserveMemV1 = fdtNode({
  doc: 'One reserve_mem region; the node has its name.',
  source,
  properties: {
    compatible: compatible('reserve-mem-v1'),
    start: pointer({ kind: 'region', size: 'size' }, 'Physical address of the region.', {
      ctype: 'phys_addr_t',
    }),
    size: u64le('Bytes of the region.', { show: 'bytes', ctype: 'phys_addr_t' }),
  },
})

export const memblockV1 = fdtNode({
  doc: 'Regions reserved by name on the kernel command line.',
  source,
  properties: { compatible: compatible('memblock-v1') },
  each: { as: 'reserve_mem', node: reserveMemV1 },
})
