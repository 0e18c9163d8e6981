/**
 * The machine below a handover: what an architecture and the usual kernel configuration fix about
 * memory, and where the old kernel puts its scratch areas.
 *
 * Sources: ARCH_FORCE_MAX_ORDER in arch/arm64/Kconfig; include/linux/pageblock-flags.h: pageblock_order
 * with CONFIG_TRANSPARENT_HUGEPAGE; include/linux/pagemap.h: MAX_PAGECACHE_ORDER;
 * kernel/liveupdate/kexec_handover.c: kho_reserve_scratch() of Linux 6.17.8 to 7.3.4.
 */
import type { PageSize } from './layout.ts'
import { componentByName } from './registry.ts'

export const ARCHITECTURES = ['x86_64', 'arm64'] as const
export type Architecture = (typeof ARCHITECTURES)[number]

export interface Machine {
  readonly pageSizes: readonly PageSize[]
  /** Where RAM starts: 0 on a PC, 1 GiB on QEMU's arm64 machine `virt`. */
  readonly ramStart: bigint
  /** Firmware and boot code use the start of RAM; nothing is handed over in there. */
  readonly firmwareBytes: bigint
}

const MIB = 1n << 20n

export const machines: Readonly<Record<Architecture, Machine>> = {
  x86_64: { pageSizes: [4096], ramStart: 0n, firmwareBytes: MIB },
  arm64: { pageSizes: [4096, 16384, 65536], ramStart: 0x4000_0000n, firmwareBytes: 2n * MIB },
}

export interface MemoryOrders {
  /** MAX_PAGE_ORDER: the largest unit of the page allocator. */
  readonly largest: number
  /** pageblock_order: CMA_MIN_ALIGNMENT_BYTES as an order. */
  readonly pageblock: number
  /** MAX_PAGECACHE_ORDER: the largest folio of a memfd. */
  readonly pageCache: number
}

/** By page size; the architectures agree where they share one. */
export const memoryOrders: Readonly<Record<PageSize, MemoryOrders>> = {
  4096: { largest: 10, pageblock: 9, pageCache: 9 },
  16384: { largest: 11, pageblock: 11, pageCache: 11 },
  65536: { largest: 13, pageblock: 13, pageCache: 11 },
}

/** One area in low memory, one for any use, one for each node with memory. */
export const MIN_SCRATCH_AREAS = 3

const LOW_MEMORY_END = 1n << 32n

/**
 * ARCH_LOW_ADDRESS_LIMIT: end of the memory that the first scratch area is taken from. arm64 takes it from
 * anywhere if RAM starts above (arch/arm64/mm/init.c: max_zone_phys()).
 */
export function lowMemoryEnd(arch: Architecture, ramStart: bigint): bigint | undefined {
  return arch === 'arm64' && ramStart >= LOW_MEMORY_END ? undefined : LOW_MEMORY_END
}

export interface ScratchRules {
  /** Bytes that the start of every area is a multiple of. */
  readonly align: bigint
  /** Whether sizes are rounded up to that, too; older kernels take them as they are given. */
  readonly roundsSizes: boolean
}

/** The first version of KHO whose kernels do so. */
const ROUNDED_SINCE = 'kho-v2'
const ALIGNED_TO_LARGEST_SINCE = 'kho-v4'

/**
 * How the kernel that speaks a version of KHO places its scratch areas: from Linux 7.2 (kho-v4) on at
 * multiples of the largest unit of the page allocator, before at those of a pageblock.
 */
export function scratchRules(khoVersion: string, pageSize: PageSize): ScratchRules {
  const versions = componentByName('kho').versions.map(({ id }) => id)
  const isSince = (first: string): boolean => versions.indexOf(khoVersion) >= versions.indexOf(first)
  const { largest, pageblock } = memoryOrders[pageSize]
  const order = isSince(ALIGNED_TO_LARGEST_SINCE) ? largest : pageblock
  return { align: BigInt(pageSize) << BigInt(order), roundsSizes: isSince(ROUNDED_SINCE) }
}

/** MAX_LFS_FILESIZE: the largest file size and position, 2^63 - 1. */
export const MAX_FILE_SIZE = (1n << 63n) - 1n

/** memfd_luo_preserve() takes at most UINT_MAX pages (7.1 and later); memfd_pin_folios() never more. */
export const MAX_MEMFD_PAGES = 0xffff_ffffn
