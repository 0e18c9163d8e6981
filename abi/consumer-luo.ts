/**
 * The checks of the live update orchestrator and of its file handlers.
 *
 * Sources: kernel/liveupdate/luo_{core,session,file,flb}.c and kho_block.c, mm/memfd_luo.c of Linux
 * 6.19.11, 7.1.13 and 7.3.4.
 */
import type { Check, Outcome } from './check.ts'

const fatal = { component: 'luo', outcome: 'panics', errno: 'EINVAL', level: 'err' } as const
const fdtForm = { ...fatal, since: 'linux-6.19', until: 'linux-7.1', by: 'luo_early_startup()' } as const
const sessionNode = { ...fdtForm, by: 'luo_session_setup_incoming()' } as const
const flbNode = { ...fdtForm, since: 'linux-7.0', by: 'luo_flb_setup_incoming()' } as const
const structForm = { ...fatal, since: 'linux-7.2', by: 'luo_early_startup()' } as const
const blocks = {
  component: 'luo',
  demand: 'value',
  since: 'linux-7.2',
  by: 'kho_block_set_restore()',
} as const

export const luoChecks: readonly Check[] = [
  {
    ...fdtForm,
    id: 'LUO_SUBTREE',
    at: '',
    demand: 'present',
    doc: 'The subtree, if there is one, can be retrieved.',
    message: "failed to retrieve FDT '%s' from KHO: %pe",
  },
  {
    ...fdtForm,
    id: 'LUO_COMPATIBLE',
    at: '/',
    demand: 'contract',
    doc: "The root's compatible list holds the one string that this kernel knows.",
    message: "FDT '%s' is incompatible with '%s' [%d]",
  },
  {
    ...fdtForm,
    id: 'LUO_NUMBER',
    at: '/:liveupdate-number',
    demand: 'present',
    doc: 'The number of live updates has 8 bytes.',
    message: "Unable to get live update number '%s' [%d]",
  },
  {
    ...sessionNode,
    id: 'LUO_SESSION_NODE',
    at: '/luo-session',
    demand: 'present',
    doc: 'The node of the sessions is there.',
    message: 'Unable to get session node: [%s]',
  },
  {
    ...sessionNode,
    id: 'LUO_SESSION_COMPATIBLE',
    at: '/luo-session',
    demand: 'contract',
    doc: 'Its compatible list holds the one string that this kernel knows.',
    message: 'Session node incompatible [%s]',
  },
  {
    ...sessionNode,
    id: 'LUO_SESSION_HEADER',
    at: '/luo-session:luo-session-header',
    demand: 'present',
    doc: 'The address of the sessions has 8 bytes.',
    message: "Unable to get session header '%s' [%d]",
  },
  {
    ...flbNode,
    id: 'LUO_FLB_NODE',
    at: '/luo-flb',
    demand: 'present',
    doc: 'The node of the FLBs is there, whether the image has FLBs or not.',
    message: 'Unable to get FLB node [%s]',
    errno: 'ENOENT',
  },
  {
    ...flbNode,
    id: 'LUO_FLB_COMPATIBLE',
    at: '/luo-flb',
    demand: 'contract',
    doc: 'Its compatible list holds the one string that this kernel knows.',
    message: "FLB node is incompatible with '%s' [%d]",
  },
  {
    ...flbNode,
    id: 'LUO_FLB_HEADER',
    at: '/luo-flb:luo-flb-header',
    demand: 'present',
    doc: 'The address of the FLBs has 8 bytes.',
    message: "Unable to get FLB header property '%s' [%d]",
  },
  {
    ...structForm,
    id: 'LUO_SUBTREE',
    at: '',
    demand: 'present',
    doc: 'The subtree, if there is one, can be retrieved.',
    message: "failed to retrieve LUO state '%s' from KHO: %pe",
  },
  {
    ...structForm,
    id: 'LUO_SIZE',
    at: 'luo_ser',
    demand: 'present',
    doc: 'blob-size is at least the size of struct luo_ser.',
    message: 'LUO state is too small (%zu < %zu)',
  },
  {
    ...structForm,
    id: 'LUO_COMPATIBLE',
    at: 'luo_ser.compatible',
    demand: 'contract',
    doc: 'Its first 8 bytes are the one string that this kernel knows.',
    message: "LUO state is incompatible with '%s'",
  },
  ...(['luo_ser.sessions_pa', 'luo_file_set_ser.files'] as const).flatMap((at): readonly Check[] => {
    const outcome: Outcome = at === 'luo_ser.sessions_pa' ? 'panics' : 'device-fails'
    return [
      {
        ...blocks,
        id: 'KHO_BLOCK_CYCLE',
        at,
        doc: 'The chain of blocks has no cycle.',
        message: 'Block set is corrupted',
        level: 'err',
        errno: 'EINVAL',
        outcome,
      },
      {
        ...blocks,
        id: 'KHO_BLOCK_COUNT',
        at,
        doc: 'Each block counts at least one entry, and no more than fit.',
        message: 'Block contains invalid entry count: %llu',
        errno: 'EINVAL',
        outcome,
      },
      {
        ...blocks,
        id: 'KHO_BLOCK_LIMIT',
        at,
        doc: 'No more than KHO_MAX_BLOCKS blocks.',
        errno: 'ENOSPC',
        outcome,
      },
    ]
  }),
  {
    id: 'LUO_SESSION_NAME',
    component: 'luo',
    at: 'luo_session_ser.name',
    demand: 'value',
    doc: 'No other session has this name.',
    since: 'linux-6.19',
    message: 'Failed to insert session [%s] %pe',
    errno: 'EEXIST',
    outcome: 'device-fails',
    by: 'luo_session_deserialize()',
  },
  {
    id: 'LUO_FILE_COUNT',
    component: 'luo',
    at: 'luo_file_set_ser.count',
    demand: 'value',
    doc: 'The blocks hold as many files as the session says.',
    since: 'linux-7.2',
    message: 'File count mismatch: expected %llu, found %llu',
    errno: 'EINVAL',
    outcome: 'device-fails',
    by: 'luo_file_deserialize()',
  },
]

const handler = { component: 'memfd', at: 'luo_file_ser.compatible', demand: 'contract' } as const
const retrieve = {
  component: 'memfd',
  outcome: 'loses',
  by: 'memfd_luo_retrieve()',
  since: 'linux-6.19',
} as const

export const memfdChecks: readonly Check[] = [
  {
    ...handler,
    id: 'LUO_FILE_HANDLER',
    doc: 'A handler is registered under this name; the rest of the session is left out, no error is kept.',
    since: 'linux-6.19',
    until: 'linux-6.19',
    message: "No registered handler for compatible '%s'",
    errno: 'ENOENT',
    outcome: 'loses',
    by: 'luo_file_deserialize()',
  },
  {
    ...handler,
    id: 'LUO_FILE_HANDLER',
    doc: 'A handler is registered under this name; else every open of /dev/liveupdate fails with EIO.',
    since: 'linux-7.0',
    message: "No registered handler for compatible '%.*s'",
    errno: 'ENOENT',
    outcome: 'device-fails',
    by: 'luo_file_deserialize()',
  },
  {
    ...retrieve,
    id: 'MEMFD_SEALS',
    at: 'memfd_luo_ser.seals',
    demand: 'value',
    doc: 'No seal outside MEMFD_LUO_ALL_SEALS.',
    since: 'kho-v2',
    errno: 'EOPNOTSUPP',
  },
  {
    ...retrieve,
    id: 'MEMFD_FOLIOS',
    at: 'memfd_luo_ser.folios',
    demand: 'value',
    doc: 'The array of folios can be rebuilt.',
    errno: 'EINVAL',
  },
  {
    ...retrieve,
    id: 'KHO_VMALLOC_TOTAL',
    component: 'kho',
    since: 'linux-6.18',
    at: 'kho_vmalloc.total_pages',
    demand: 'value',
    doc: 'The groups of pages that the chunks list add up to total_pages, which is not 0.',
    errno: 'EINVAL',
    by: 'kho_restore_vmalloc()',
  },
  {
    ...retrieve,
    id: 'MEMFD_FOLIO',
    at: 'memfd_luo_folio_ser.pfn',
    demand: 'value',
    doc: 'The folio is the head of a preserved unit.',
    message: 'Unable to restore folio at physical address: %llx',
    level: 'err',
    errno: 'EIO',
    by: 'memfd_luo_retrieve_folios()',
  },
  {
    ...retrieve,
    id: 'MEMFD_INDEX',
    at: 'memfd_luo_folio_ser.index',
    demand: 'value',
    doc: 'No other folio stands at this index.',
    message: 'shmem: failed to add to page cache folio index %ld: %d',
    level: 'err',
    errno: 'EEXIST',
    by: 'memfd_luo_retrieve_folios()',
  },
]
