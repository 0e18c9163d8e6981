/**
 * The kernel's address space: where it maps all memory and the struct pages of it, and what an access to
 * an address that is not mapped leads to. Without KASLR; x86_64 with four levels of page tables, arm64
 * with 52 bits of virtual addresses.
 *
 * Sources: arch/arm64/include/asm/memory.h, esr.h, sparsemem.h, arch/arm64/mm/init.c: arm64_memblock_init();
 * arch/x86/include/asm/page_64_types.h, pgtable_64_types.h, sparsemem.h (Linux 6.17.8 to 7.3.4); Arm
 * Architecture Reference Manual, D8.2: levels of translation; consoles of 6.19.11 to 7.3.4.
 */
import { sectionSize } from './kho-map.ts'
import { type PageSize, pageShift } from './layout.ts'
import type { Architecture } from './machine.ts'

export interface VirtualRange {
  readonly start: bigint
  /** Exclusive, at most 2^64. */
  readonly end: bigint
}

export interface AddressSpace {
  readonly arch: Architecture
  readonly pageSize: PageSize
  /** PHYS_OFFSET: the physical address that the linear map starts with. */
  readonly physicalStart: bigint
  /** PAGE_OFFSET: where the linear map starts. */
  readonly linearMap: bigint
  /** VMEMMAP_START: struct page of the page at `physicalStart`. */
  readonly structPages: bigint
}

/** sizeof(struct page), and where its member `private` stands. */
const STRUCT_PAGE_BYTES = 64n
export const STRUCT_PAGE_PRIVATE = 0x28n

const WORD = 64
const MIB = 1n << 20n
const GIB = 1n << 30n
const ALL = 1n << 64n

/** ARM64_VA_BITS */
const VA_BITS = 52
/** Level of arm64's page tables that maps single pages. */
const LAST_LEVEL = 3

interface Arm64Pages {
  /** ARM64_MEMSTART_ALIGN */
  readonly memstartAlign: bigint
  /** VA_BITS_MIN with VA_BITS of 52 */
  readonly minVaBits: number
}

const arm64Pages: Readonly<Record<PageSize, Arm64Pages>> = {
  4096: { memstartAlign: GIB, minVaBits: 48 },
  16384: { memstartAlign: GIB, minVaBits: 47 },
  65536: { memstartAlign: GIB / 2n, minVaBits: 48 },
}

/** The address space of a kernel on a machine whose RAM starts at `ramStart`. */
export function addressSpace(arch: Architecture, pageSize: PageSize, ramStart: bigint): AddressSpace {
  if (arch === 'x86_64') {
    const [linearMap, structPages] = [0xffff_8880_0000_0000n, 0xffff_ea00_0000_0000n]
    return { arch, pageSize, physicalStart: 0n, linearMap, structPages }
  }
  const { memstartAlign } = arm64Pages[pageSize]
  const linearMap = ALL - (1n << BigInt(VA_BITS))
  const bytes = ((arm64LinearEnd(pageSize) - linearMap) / BigInt(pageSize)) * STRUCT_PAGE_BYTES
  const physicalStart = ramStart - (ramStart % memstartAlign)
  return { arch, pageSize, physicalStart, linearMap, structPages: ALL - GIB - bytes }
}

/** MODULES_VADDR, which is _PAGE_END(VA_BITS_MIN): modules follow the linear map. */
function arm64LinearEnd(pageSize: PageSize): bigint {
  return ALL - (1n << BigInt(arm64Pages[pageSize].minVaBits - 1))
}

/** phys_to_virt(): arm64 lays the bits of the start over the address, whatever it is. */
export function linearAddress({ arch, physicalStart, linearMap }: AddressSpace, pa: bigint): bigint {
  const offset = BigInt.asUintN(WORD, pa - physicalStart)
  return arch === 'arm64' ? offset | linearMap : BigInt.asUintN(WORD, linearMap + offset)
}

/**
 * The memory that phys_to_virt() leads to: of an address that does not fit into the linear map, arm64 drops
 * the bits above it, so that several addresses lead to the same place.
 */
export function reachedThroughMap(space: AddressSpace, pa: bigint): bigint {
  return BigInt.asUintN(WORD, linearAddress(space, pa) - space.linearMap + space.physicalStart)
}

/** pfn_to_page(), `at` bytes in. */
export function structPageAddress(
  { pageSize, physicalStart, structPages }: AddressSpace,
  frame: bigint,
  at: bigint,
): bigint {
  const index = frame - physicalStart / BigInt(pageSize)
  return BigInt.asUintN(WORD, structPages + index * STRUCT_PAGE_BYTES + at)
}

/** FIXADDR_TOP, and roughly how far the fixmap reaches below: the device tree's 2 MiB and early_ioremap(). */
const FIXADDR_TOP = ALL - 8n * MIB
const FIXMAP_BYTES = 4n * MIB
/** MODULES_VSIZE: the kernel itself stands behind the modules. */
const MODULES_BYTES = 2n * GIB

/** What arm64 maps for RAM and for itself; of the kernel's own image and of vmalloc() only that they start here. */
export function mappedRanges(space: AddressSpace, ram: readonly VirtualRange[]): readonly VirtualRange[] {
  const { pageSize } = space
  const section = sectionSize(pageSize)
  const image = arm64LinearEnd(pageSize) + MODULES_BYTES
  return [
    ...ram.map(({ start, end }) => rangeOf(linearAddress(space, start), end - start)),
    ...ram.map(({ start, end }) => {
      const [first, last] = [start - (start % section), end + ((section - (end % section)) % section)]
      const bytes = ((last - first) / BigInt(pageSize)) * STRUCT_PAGE_BYTES
      return rangeOf(structPageAddress(space, first / BigInt(pageSize), 0n), bytes)
    }),
    rangeOf(image, BigInt(pageSize)),
    rangeOf(FIXADDR_TOP - FIXMAP_BYTES, FIXMAP_BYTES),
  ]
}

function rangeOf(start: bigint, bytes: bigint): VirtualRange {
  return { start, end: start + bytes }
}

/**
 * Level of arm64's page tables at which the walk for an address ends that is not mapped: -1 to 3 with pages
 * of 4 KiB, 0 to 3 with 16 KiB, 1 to 3 with 64 KiB. Addresses that belong to neither half count as level 0,
 * and a kernel without a process maps nothing in the lower half.
 */
export function translationLevel(
  pageSize: PageSize,
  address: bigint,
  mapped: readonly VirtualRange[],
): number {
  const top = address >> BigInt(VA_BITS)
  if (top !== 0n && top !== ALL / (1n << BigInt(VA_BITS)) - 1n) return 0
  const page = pageShift(pageSize)
  // A table is one page of entries of 8 bytes.
  const index = page - 3
  let level = LAST_LEVEL + 1 - Math.ceil((VA_BITS - page) / index)
  for (; level < LAST_LEVEL; level++) {
    const bytes = 1n << BigInt(page + (LAST_LEVEL - level) * index)
    const start = address - (address % bytes)
    if (!mapped.some((range) => range.start < start + bytes && start < range.end)) return level
  }
  return LAST_LEVEL
}

/** ESR_ELx_EC_DABT_CUR with ESR_ELx_IL: a data abort from the kernel itself. */
const DATA_ABORT = (0x25n << 26n) | (1n << 25n)
const WNR = 1n << 6n
const FSC_FAULT = 0x04
const FSC_FAULT_NL = 0x2c

/** ESR_EL1 of a translation fault: ESR_ELx_FSC_FAULT_L() of the level, and whether it was a write. */
export function faultSyndrome(level: number, isWrite: boolean): bigint {
  const status = (level < 0 ? FSC_FAULT_NL : FSC_FAULT) + level
  return DATA_ABORT | (isWrite ? WNR : 0n) | BigInt(status)
}

const CANONICAL_BITS = 48

/** Whether x86_64 has such addresses at all: others are no page faults. */
export function isCanonical(address: bigint): boolean {
  return BigInt.asUintN(WORD, BigInt.asIntN(CANONICAL_BITS, address)) === address
}
