/**
 * kho_vmalloc: preserved vmalloc memory, a descriptor embedded by value and a chain of chunk pages.
 *
 * Source: include/linux/kho/abi/kexec_handover.h (6.18: include/linux/kexec_handover.h). Linux 6.18
 * and later; versioned by the root FDT's compatible string.
 */
import type { Target } from './layout.ts'
import { countOf, fieldOf } from './layout.ts'
import type { ArrayType, IntType, StructType, VmallocEdge } from './schema.ts'
import { array, pa64le, struct, u16le, u32le } from './schema.ts'

const source = 'include/linux/kho/abi/kexec_handover.h'

/** KHO_VMALLOC_*: what the area was allocated with. Readers drop unknown bits. */
export const vmallocFlags = { ALLOC: 1, HUGE_VMAP: 2 } as const

export const khoVmallocHdr = struct(
  'kho_vmalloc_hdr',
  { doc: 'Head of a chunk page.', source },
  { next: pa64le('Next chunk, 0 at the end.') },
)

export const khoVmallocChunk = struct(
  'kho_vmalloc_chunk',
  { doc: 'A page of addresses; one preserved page itself.', source },
  {
    hdr: khoVmallocHdr,
    phys: array(
      pa64le('First page of a group of 2^order pages; 0 ends the list within this chunk.'),
      'page',
      'Pages of the area, in order.',
    ),
  },
)

/** The descriptor as such, wherever it is embedded. */
export const khoVmalloc = struct(
  'kho_vmalloc',
  { doc: 'Descriptor of preserved vmalloc memory.', source },
  {
    first: pa64le('First chunk, 0 if there is no memory.'),
    total_pages: u32le('Base pages of the area, not entries.', { ctype: 'unsigned int' }),
    flags: u16le('How the area was allocated.', {
      flags: vmallocFlags,
      default: vmallocFlags.ALLOC,
      ctype: 'unsigned short',
    }),
    order: u16le('Order of each group of pages.', { default: 0, ctype: 'unsigned short' }),
  },
)

/** Declares a descriptor whose memory holds `count` elements; `item` names one of them. */
export function vmallocOf(element: StructType | IntType, link: { item: string; count: string }) {
  const to: VmallocEdge = { kind: 'vmalloc', chunk: khoVmallocChunk, element, ...link }
  return { ...khoVmalloc, to }
}

/** Addresses per chunk: 511, 2047 or 8191 (KHO_VMALLOC_SIZE). */
export function vmallocChunkCapacity(chunk: StructType, target: Target): number {
  const field = fieldOf(chunk, 'phys', target)
  return countOf(field.type as ArrayType, target, field.offset)
}
