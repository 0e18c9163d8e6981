/**
 * What the code of a release does that its formats do not say: one table, so that nothing else asks for a
 * release by name.
 *
 * Sources: kernel/kexec_handover.c (6.17.8), kernel/liveupdate/, mm/memfd_luo.c (6.19.11, 7.1.13, 7.3.4),
 * mm/memblock.c, mm/shmem.c, lib/test_kho.c; what lies between these releases: the changes listed in
 * abi/behaviour.ts.
 */
import { appliesTo, type Span } from './check.ts'

export interface TraitSpan extends Span {
  /** Of a stable series that began without it: the first update in which it was seen. */
  readonly updates?: Readonly<Record<string, number>>
}

const TRAITS = {
  /** kho_init() is a late_initcall and the root FDT comes with finalize; later fs_initcall, edited in place. */
  buildsAtFinalize: { since: 'linux-6.16', until: 'linux-6.18' },
  /** After finalize nothing more can be preserved. */
  locksAtFinalize: { since: 'linux-6.16', until: 'linux-6.18' },
  /** That is looked at for each unit; before, ahead of everything else. */
  locksUnits: { since: 'linux-6.18', until: 'linux-6.18' },
  /** debugfs kho/out/finalize takes 0 for an abort, and refuses to repeat itself. */
  togglesFinalize: { since: 'linux-6.16', until: 'linux-6.18' },
  /** debugfs kho/out/finalize is there; written non-zero it (re)writes the map. */
  hasFinalize: { since: 'linux-6.16', until: 'linux-7.0' },
  /** The root FDT's own page is taken back. */
  restoresRootFdt: { since: 'linux-6.16', until: 'linux-6.18' },
  /** kho_preserve_pages() instead of kho_preserve_phys(), which takes whole pages only. */
  preservesPages: { since: 'linux-6.18' },
  /** It and its counterparts take an unsigned int. */
  narrowCounts: { since: 'linux-6.18', until: 'linux-6.19' },
  hasVmalloc: { since: 'linux-6.18' },
  /** page->private holds a magic number beside the order. */
  checksMagic: { since: 'linux-6.18' },
  /** Units above MAX_PAGE_ORDER are not restored. */
  limitsOrder: { since: 'linux-6.16', until: 'linux-7.0' },
  /** unpreserve of something unknown warns; before, its loop never ended. */
  warnsOfUnknown: { since: 'linux-6.17.9' },
  /** And leaves what follows of the range as it is. */
  endsAtUnknown: { since: 'linux-6.17.9', until: 'linux-6.18' },
  /** A map at address 0 is refused in kho_populate(). */
  demandsMap: { since: 'linux-6.19' },
  /** The map's property is looked up again when it is walked. */
  looksTwice: { since: 'kho-v2', until: 'linux-7.2' },
  /** With CONFIG_KEXEC_HANDOVER_DEBUG: nothing inside scratch memory is preserved, nor does kho-v1's map lie there. */
  checksScratch: { since: 'linux-6.17.9' },
  /** The node stays when its property has no room, and libfdt's code is the answer. */
  keepsEmptyNode: { since: 'linux-6.19', until: 'linux-6.19' },
  /** A unit lies in one NUMA node. */
  splitsAtNodes: { since: 'linux-7.1' },
  /** The size of a unit is computed as an int when it is reserved. */
  narrowUnits: { since: 'linux-6.16', until: 'linux-7.1' },
  /** Keys wider than KHO_RADIX_KEY_WIDTH are refused. */
  checksKeyWidth: { since: 'linux-7.3' },
  /** kho_radix_add_key() and kho_radix_destroy_tree(); before, kho_init() frees no more of a tree than its root. */
  destroysTree: { since: 'linux-7.3' },
  /** Blocks of 1 GiB without preserved memory serve as scratch memory. */
  extendsScratch: { since: 'linux-7.3' },
  /** fdt_check_header() asks for the alignment of the blocks (libfdt of dtc 1.7.2-62). */
  alignsFdtBlocks: { since: 'linux-7.0' },
  /** kho_scratch= takes a size of 0 if not all are, and nothing behind the sizes. */
  strictScratchSizes: { since: 'linux-6.19' },
  /** `kho=` has a default in the configuration. */
  hasDefault: { since: 'linux-6.19' },
  /** lib/test_kho.c does nothing without KHO. */
  testNeedsKho: { since: 'linux-6.19' },
  /** Session names that are empty or fill the field without a NUL are refused. */
  checksNames: { since: 'kho-v2', updates: { 'linux-7.1': 13 } },
  /** An ioctl on a session of the wrong side of the reboot is refused. */
  checksSides: { since: 'kho-v2', updates: { 'linux-7.1': 13 } },
  /** What is preserved, or retrieved and not yet finished, is known by its identity. */
  knowsPreserved: { since: 'kho-v2' },
  /** After a successful serialization every operation on sessions blocks. */
  keepsLock: { since: 'kho-v2', updates: { 'linux-7.1': 13 } },
  /** What fails of a session's files while they are deserialized is no error; later it is that of every open. */
  dropsErrors: { since: 'linux-6.19', until: 'linux-6.19' },
  /** The name of a handler that nobody registered is printed as far as its field goes. */
  boundsNames: { since: 'linux-7.0' },
  /** File handlers and FLBs may be registered while there are sessions; modules are pinned file by file. */
  registersAnytime: { since: 'kho-v2' },
  /** An FLB that is looked up is held by who asked, and counted by a refcount_t. */
  countsFlbReferences: { since: 'kho-v2', updates: { 'linux-7.1': 13 } },
  /** A file that failed to be retrieved is not tried again. */
  keepsRetrieveError: { since: 'linux-6.19', updates: { 'linux-6.19': 11 } },
  /** kexec with preserve_context leaves LUO alone. */
  skipsPreserveContext: { since: 'kho-v2', updates: { 'linux-7.1': 13 } },
  /** FINISH demands that its reserved word is zero. */
  checksReserved: { since: 'linux-7.2' },
  /** A failed retrieve() of an FLB is not tried again; its outgoing object can be held by the kernel. */
  countsFlbUsers: { since: 'linux-7.2' },
  /** memfd: the exec seal pulls in the others before pins are looked for, not after. */
  sealsExecFirst: { since: 'kho-v2' },
  /** tmpfs: a write is tried in pieces of the largest folio, where mounts without large folios took pages. */
  writesLargeFolios: { since: 'linux-7.3' },
  /** memfd: what cannot be inserted does not keep the folios behind it from being freed. */
  freesRest: { since: 'kho-v2' },
  /** memfd: a folio that is not to be had is an error behind others too; before, the answer is theirs. */
  failsForLaterFolio: { since: 'kho-v2' },
} as const satisfies Readonly<Record<string, TraitSpan>>

export type KernelTrait = keyof typeof TRAITS
export type KernelTraits = Readonly<Record<KernelTrait, boolean>>

/** From which release to which. */
export function traitSpan(trait: KernelTrait): TraitSpan {
  return TRAITS[trait]
}

/** What a release does, in its newest update that is known or in the one that the version names. */
export function kernelTraits(release: string, version = ''): KernelTraits {
  const [, series, digits] = /^(\d+\.\d+)\.(\d+)/.exec(version) ?? []
  const update = `linux-${series}` === release ? Number(digits) : Number.POSITIVE_INFINITY
  const entries = Object.entries(TRAITS).map(([trait, span]: [string, TraitSpan]) => [
    trait,
    appliesTo(span, release) && update >= (span.updates?.[release] ?? 0),
  ])
  return Object.fromEntries(entries) as KernelTraits
}
