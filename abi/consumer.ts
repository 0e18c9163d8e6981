/**
 * What the next kernel demands of a handover: every check of its readers, the line it logs, the error it
 * returns and what becomes of the handover.
 *
 * Sources: kernel/kexec_handover.c (6.17.8), kernel/liveupdate/kexec_handover.c (6.19.11, 7.1.13, 7.3.4),
 * mm/memblock.c, lib/test_kho.c; Linux 7.0 as far as known from a tree based on it.
 */
import type { Check } from './check.ts'
import { luoChecks, memfdChecks } from './consumer-luo.ts'

const early = { component: 'kho', by: 'kho_populate()', outcome: 'no-handover', since: 'linux-6.16' } as const

const khoChecks: readonly Check[] = [
  {
    ...early,
    id: 'KHO_FDT_MAPPED',
    at: '/',
    demand: 'value',
    doc: 'The root FDT can be mapped (at most 256 KiB).',
    message: 'setup: failed to memremap FDT (0x%llx)',
    errno: 'EFAULT',
  },
  {
    ...early,
    id: 'KHO_FDT_HEADER',
    at: '/',
    demand: 'value',
    doc: 'fdt_check_header() accepts the header.',
    message: 'setup: handover FDT (0x%llx) is invalid: %d',
    errno: 'EINVAL',
  },
  {
    ...early,
    id: 'KHO_COMPATIBLE',
    at: '/',
    demand: 'contract',
    doc: "The root's compatible list holds the one string that this kernel knows.",
    message: "setup: handover FDT (0x%llx) is incompatible with '%s': %d",
    errno: 'EINVAL',
  },
  {
    id: 'KHO_MAP_PROPERTY',
    component: 'kho',
    at: '/:preserved-memory-map',
    demand: 'present',
    doc: 'The map of preserved memory is named; else nothing is reserved, and the subsystems go on.',
    since: 'linux-6.16',
    until: 'linux-6.18',
    message: 'failed to get preserved memory bitmaps',
    level: 'err',
    outcome: 'corrupts',
    by: 'kho_mem_deserialize()',
  },
  {
    ...early,
    id: 'KHO_MAP_PROPERTY',
    at: '/:preserved-memory-map',
    demand: 'present',
    doc: 'The map of preserved memory is named.',
    since: 'linux-6.19',
    until: 'linux-7.0',
    message: 'failed to get preserved memory bitmaps',
    level: 'err',
    errno: 'ENOENT',
  },
  {
    ...early,
    id: 'KHO_MAP_PROPERTY',
    at: '/:preserved-memory-map',
    demand: 'present',
    doc: 'The map of preserved memory is named.',
    since: 'kho-v2',
    message: 'failed to get preserved memory map',
    level: 'err',
    errno: 'ENOENT',
  },
  {
    ...early,
    id: 'KHO_MAP_ADDRESS',
    at: '/:preserved-memory-map',
    demand: 'non-zero',
    doc: 'The map has an address; before 6.19 address 0 was an empty map.',
    since: 'linux-6.19',
    errno: 'ENOENT',
  },
  {
    ...early,
    id: 'KHO_SCRATCH_MAPPED',
    at: '/',
    demand: 'value',
    doc: 'The scratch array can be mapped (at most 256 KiB).',
    message: 'setup: failed to memremap scratch (phys=0x%llx, len=%lld)',
    errno: 'EFAULT',
  },
  {
    ...early,
    id: 'KHO_SCRATCH_MARKED',
    at: '/',
    demand: 'value',
    doc: 'memblock takes each scratch area; areas added before a failure stay added.',
    message: 'failed to mark the scratch region 0x%pa+0x%pa: %pe',
  },
  ...['fdt', 'preserved-data'].map(
    (property, index): Check => ({
      id: 'KHO_SUBTREE_ADDRESS',
      component: 'kho',
      at: `/*:${property}`,
      demand: 'present',
      doc: "The subsystem's address has 8 bytes; what happens otherwise is up to the subsystem.",
      since: index === 0 ? 'linux-6.16' : 'kho-v2',
      ...(index === 0 ? { until: 'linux-7.0' } : {}),
      errno: 'EINVAL',
      outcome: 'loses',
      by: 'kho_retrieve_subtree()',
    }),
  ),
  {
    id: 'KHO_BLOB_SIZE',
    component: 'kho',
    at: '/*:blob-size',
    demand: 'present',
    doc: "The blob's size has 8 bytes; what happens otherwise is up to the subsystem.",
    since: 'linux-7.1',
    message: "broken KHO subnode '%s': missing or invalid blob-size property",
    errno: 'EINVAL',
    outcome: 'loses',
    by: 'kho_retrieve_subtree()',
  },
]

const revive = {
  component: 'memblock',
  outcome: 'loses',
  by: 'reserve_mem_kho_revive()',
  since: 'linux-6.16',
} as const

const memblockChecks: readonly Check[] = [
  {
    ...revive,
    id: 'MEMBLOCK_SUBTREE',
    at: '',
    demand: 'present',
    doc: 'The subtree, if there is one, can be retrieved.',
    message: "failed to retrieve FDT '%s' from KHO: %d",
  },
  {
    ...revive,
    id: 'MEMBLOCK_COMPATIBLE',
    at: '/',
    demand: 'contract',
    doc: "The root's compatible list holds the one string that this kernel knows.",
    message: "FDT '%s' is incompatible with '%s': %d",
  },
  {
    ...revive,
    id: 'RESERVE_MEM_NODE',
    at: '/*',
    demand: 'present',
    doc: 'A region of that name is there.',
    message: "FDT '%s' has no child '%s': %d",
  },
  {
    ...revive,
    id: 'RESERVE_MEM_COMPATIBLE',
    at: '/*',
    demand: 'contract',
    doc: 'Its compatible list holds the one string that this kernel knows.',
    message: "Node '%s' is incompatible with '%s': %d",
  },
  {
    ...revive,
    id: 'RESERVE_MEM_START',
    at: '/*:start',
    demand: 'present',
    doc: 'It has 8 bytes; nothing is logged.',
  },
  {
    ...revive,
    id: 'RESERVE_MEM_SIZE',
    at: '/*:size',
    demand: 'present',
    doc: 'It has 8 bytes; nothing is logged.',
  },
  {
    ...revive,
    id: 'RESERVE_MEM_ALIGNMENT',
    at: '/*:start',
    demand: 'value',
    doc: 'The region has the alignment that the new command line asks for.',
    message: "KHO reserve-mem '%s' has wrong alignment (0x%lx, 0x%lx)",
  },
  {
    ...revive,
    id: 'RESERVE_MEM_SAME_SIZE',
    at: '/*:size',
    demand: 'value',
    doc: 'The region has the size that the new command line asks for.',
    message: "KHO reserve-mem '%s' has wrong size (0x%lx != 0x%lx)",
  },
]

const metadata = {
  component: 'kexec-metadata',
  outcome: 'loses',
  by: 'kho_in_kexec_metadata()',
  since: 'kho-v2',
} as const
const test = { component: 'kho-test', outcome: 'loses', errno: 'EINVAL', since: 'linux-6.17' } as const

const otherChecks: readonly Check[] = [
  {
    ...metadata,
    id: 'METADATA_VERSION',
    at: 'kho_kexec_metadata.version',
    demand: 'contract',
    doc: 'The version is the one that this kernel knows; never fatal.',
    message: 'kexec-metadata version %u not supported (expected %u)',
  },
  {
    ...metadata,
    id: 'METADATA_SIZE',
    at: 'kho_kexec_metadata',
    demand: 'present',
    doc: 'blob-size is at least the size of the struct; more is accepted.',
    message: 'kexec-metadata blob too small for v%u (%zu < %zu)',
  },
  {
    ...test,
    id: 'KHO_TEST_COMPATIBLE',
    at: '/',
    demand: 'contract',
    doc: "The root's compatible list holds the one string that this kernel knows.",
    by: 'kho_test_restore()',
  },
  {
    ...test,
    id: 'KHO_TEST_MAGIC',
    at: '/:magic',
    demand: 'value',
    doc: 'It is KHO_TEST_MAGIC.',
    by: 'kho_test_restore()',
  },
  ...['nr_folios', 'csum', 'folios_info'].map(
    (property): Check => ({
      ...test,
      id: `KHO_TEST_${property.toUpperCase()}`,
      at: `/data:${property}`,
      demand: 'present',
      doc: 'It has exactly the declared length.',
      by: 'kho_test_restore_data()',
    }),
  ),
  {
    ...test,
    id: 'KHO_TEST_SUM',
    at: '/data:csum',
    demand: 'value',
    doc: 'It is the sum of all folios.',
    by: 'kho_test_restore_data()',
  },
]

/** Every check, by component in the order in which a booting kernel makes them. */
export const checks: readonly Check[] = [
  ...khoChecks,
  ...memblockChecks,
  ...luoChecks,
  ...memfdChecks,
  ...otherChecks,
]
