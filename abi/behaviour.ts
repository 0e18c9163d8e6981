/**
 * What changed from release to release without a change of the bytes' layout: what the old kernel
 * leaves, what the new one does with it, and what userspace sees. These look like changes of the ABI and
 * mostly are none; a comparison lists them beside the ABI's own.
 *
 * Sources: kernel/kexec_handover.c, kernel/liveupdate/, mm/memblock.c, mm/memfd_luo.c of the releases
 * named; commits by their mainline id.
 */
import type { ComponentName } from './registry.ts'

export interface Behaviour {
  readonly component: ComponentName
  /** First release that behaves so. */
  readonly since: string
  /** Who behaves so: the kernel that hands over, the one that takes over, or its interface to userspace. */
  readonly side: 'producer' | 'consumer' | 'userspace'
  readonly doc: string
  /** Contents can get lost without any check noticing. */
  readonly loses?: true
}

export const behaviours: readonly Behaviour[] = [
  {
    component: 'kho',
    since: 'linux-6.17.9',
    side: 'producer',
    doc: "The map's pages come from the page allocator (commit a2fff99f92da).",
  },
  {
    component: 'kho',
    since: 'linux-6.18',
    side: 'producer',
    doc: 'kho_preserve_pages() replaces kho_preserve_phys().',
  },
  {
    component: 'kho',
    since: 'linux-6.18',
    side: 'consumer',
    doc: 'A page is restored only if page->private holds a magic number: only once, and only if it was preserved.',
  },
  {
    component: 'memblock',
    since: 'linux-6.18',
    side: 'producer',
    doc: 'The tail of a region that is not a multiple of the page size is not preserved; before, finalize failed.',
    loses: true,
  },
  {
    component: 'kho',
    since: 'linux-6.19',
    side: 'producer',
    doc: 'The root FDT is built early and edited in place: subnodes in reverse order of registration, packed.',
  },
  {
    component: 'kho',
    since: 'linux-6.19',
    side: 'producer',
    doc: 'Writing debugfs kho/out/finalize is optional; a map that was never finalized has address 0.',
  },
  {
    component: 'kho',
    since: 'linux-6.19',
    side: 'producer',
    doc: 'Only nodes with memory get a scratch area of their own.',
  },
  {
    component: 'kho',
    since: 'linux-6.19',
    side: 'consumer',
    doc: 'The folio of the root FDT is no longer taken back.',
  },
  {
    component: 'kho',
    since: 'linux-7.0',
    side: 'producer',
    doc: 'A subsystem node whose property does not fit is removed again.',
  },
  {
    component: 'kho',
    since: 'kho-v2',
    side: 'producer',
    doc: 'The map is live; the finalize step is gone.',
  },
  {
    component: 'kho',
    since: 'kho-v2',
    side: 'consumer',
    doc: 'Units of an order above MAX_PAGE_ORDER are restored, too.',
  },
  {
    component: 'kho',
    since: 'linux-7.1',
    side: 'producer',
    doc: 'A blob need not be an FDT.',
  },
  {
    component: 'kho',
    since: 'linux-7.1',
    side: 'producer',
    doc: 'A run of pages that crosses NUMA nodes is split into more, smaller units.',
  },
  {
    component: 'luo',
    since: 'linux-7.1',
    side: 'userspace',
    doc: 'Preserving the same file twice is refused with EBUSY.',
  },
  {
    component: 'luo',
    since: 'linux-7.1',
    side: 'userspace',
    doc: 'Session names are checked, and that a session is on the right side of the reboot.',
  },
  {
    component: 'kho',
    since: 'linux-7.2',
    side: 'producer',
    doc: 'Scratch areas are aligned to PAGE_SIZE << MAX_PAGE_ORDER.',
  },
  {
    component: 'luo',
    since: 'linux-7.2',
    side: 'producer',
    doc: "An FLB's count may include references of the kernel itself.",
  },
  {
    component: 'luo',
    since: 'linux-7.2',
    side: 'userspace',
    doc: 'LIVEUPDATE_SESSION_GET_NAME (0x43).',
  },
  {
    component: 'kho',
    since: 'linux-7.3',
    side: 'producer',
    doc: 'A key wider than KHO_RADIX_KEY_WIDTH is refused on insertion with ERANGE; the constant has a new name.',
  },
  {
    component: 'kho',
    since: 'linux-7.3',
    side: 'consumer',
    doc: 'Blocks of 1 GiB without preserved units and tree nodes become scratch.',
  },
]
