/** Faults of the live update orchestrator: its root, sessions, files and FLBs. */
import { KHO_MAX_BLOCKS, khoBlockHeader } from '../abi/kho-block.ts'
import { fieldOf } from '../abi/layout.ts'
import { type Change, isUnfit, together } from './change.ts'
import { withoutAddress } from './faults-blobs.ts'
import type { FdtSite } from './fdt-site.ts'
import type { NamedFault } from './named-fault.ts'
import { pagesOfList, setHeader } from './record-site.ts'
import { pagesFrom, type Site } from './site.ts'

type More = Pick<NamedFault, 'follows' | 'span'>

/** A field that gets another value. */
function put(
  name: string,
  rule: string,
  path: string,
  value: bigint | string | Uint8Array,
  doc: string,
  more: More = {},
): NamedFault {
  return { name, doc, class: 'field', rule, apply: (site) => site.set(path, value), ...more }
}

/** A change to the FDT of luo-v1. */
function inFdt(
  name: string,
  rule: string,
  doc: string,
  change: (fdt: FdtSite) => Change,
  more: More = {},
): NamedFault {
  const apply = (site: Site): Change => {
    const fdt = site.fdt('luo')
    return isUnfit(fdt) ? fdt : change(fdt)
  }
  return { name, doc, class: 'fdt', rule, apply, ...more }
}

/** A page that is no longer preserved. */
function unpreserved(name: string, rule: string, path: string, doc: string): NamedFault {
  return { name, doc, class: 'map', rule, apply: (site) => site.unpreserve(placeOf(site, path)) }
}

function placeOf(site: Site, path: string): bigint | undefined {
  const node = site.node(path, ({ kind, pa }) => kind !== 'list' || pa !== 0n)
  return node && (node.kind === 'list' ? pagesOfList(node)[0] : node.pa)
}

/** What is said of memory whose owner is lost. */
const ORPHANS = { follows: ['KHO_UNIT_UNCLAIMED'] } as const
const FULL_NAME = new Uint8Array(64).fill(0x61)
const SESSIONS = 'luo.sessions'
const FILES = 'luo.sessions[*].files'

/** Gives the second element of the first list that has two the value that the first one has in a field. */
function copyField(site: Site, list: string, field: string): Change {
  const owner = site.nodes(list).find((node) => node.kind === 'list' && node.items.length > 1)
  const [first, second] = owner?.kind === 'list' ? owner.items : []
  if (!first || !second) return { unfit: `this handover has no two of ${list}` }
  const from = site.below(first, field)
  return from?.kind === 'value'
    ? site.set(site.below(second, field), storedValue(from.value))
    : { unfit: `there is no field ${field}` }
}

function storedValue(value: number | bigint | Uint8Array): bigint | Uint8Array {
  return typeof value === 'number' ? BigInt(value) : value
}

const rootFaults: readonly NamedFault[] = [
  withoutAddress(
    'luo-address-missing',
    'LUO_SUBTREE',
    'LUO',
    'The root FDT does not say where the state of LUO is.',
    {
      follows: ['KHO_SUBTREE_ADDRESS', 'KHO_UNIT_UNCLAIMED'],
    },
  ),
  {
    name: 'luo-size-small',
    doc: 'The root FDT says that the state of LUO is smaller than it is.',
    class: 'field',
    rule: 'LUO_SIZE',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => site.set(site.subtreeField('LUO', 'size'), 8n),
  },
  put(
    'luo-compatible-unknown',
    'LUO_COMPATIBLE',
    'luo.compatible',
    'luo-v9',
    'The state of LUO is of a version that no kernel knows.',
    ORPHANS,
  ),
  inFdt(
    'luo-number-missing',
    'LUO_NUMBER',
    'The FDT of LUO has no number of live updates.',
    (fdt) => fdt.drop(fdt.root, 'liveupdate-number'),
    ORPHANS,
  ),
  inFdt(
    'luo-session-node-missing',
    'LUO_SESSION_NODE',
    'The FDT of LUO has no node of the sessions.',
    (fdt) => fdt.dropNode(fdt.node('luo-session')),
    ORPHANS,
  ),
  put(
    'luo-session-compatible-unknown',
    'LUO_SESSION_COMPATIBLE',
    'luo.luo-session.compatible',
    'luo-session-v9',
    'The sessions are of a version that no kernel knows.',
    ORPHANS,
  ),
  inFdt(
    'luo-session-header-missing',
    'LUO_SESSION_HEADER',
    'The FDT of LUO does not say where the sessions are.',
    (fdt) => fdt.drop(fdt.node('luo-session'), 'luo-session-header'),
    ORPHANS,
  ),
  inFdt(
    'luo-flb-node-missing',
    'LUO_FLB_NODE',
    'The FDT of LUO has no node of the FLBs.',
    (fdt) => fdt.dropNode(fdt.node('luo-flb')),
    ORPHANS,
  ),
  put(
    'luo-flb-compatible-unknown',
    'LUO_FLB_COMPATIBLE',
    'luo.luo-flb.compatible',
    'luo-flb-v9',
    'The FLBs are of a version that no kernel knows.',
    ORPHANS,
  ),
  inFdt(
    'luo-flb-header-missing',
    'LUO_FLB_HEADER',
    'The FDT of LUO does not say where the FLBs are.',
    (fdt) => fdt.drop(fdt.node('luo-flb'), 'luo-flb-header'),
    ORPHANS,
  ),
  unpreserved('luo-not-preserved', 'LUO_SER_PRESERVED', 'luo', 'The state of LUO is not preserved.'),
  {
    name: 'luo-number-differs',
    doc: 'LUO counts another number of handovers than kexec-metadata.',
    class: 'field',
    rule: 'LUO_NUMBERS_DIFFER',
    apply: (site) => site.alter('luo.liveupdate_num', (number) => number + 1n),
  },
]

const blockFaults: readonly NamedFault[] = [
  {
    name: 'session-blocks-cycle',
    doc: 'The last block of sessions leads back to the first.',
    class: 'field',
    rule: 'KHO_BLOCK_CYCLE',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) =>
      setHeader(site, site.node(SESSIONS), -1, 'next', () => pagesOfList(site.node(SESSIONS))[0] ?? 0n),
  },
  {
    name: 'session-block-count-over',
    doc: 'A block of sessions counts more entries than it has room for.',
    class: 'field',
    rule: 'KHO_BLOCK_COUNT',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => setHeader(site, hasBlocks(site), 0, 'count', () => site.pageSize),
  },
  {
    name: 'session-block-half-full',
    doc: 'A block of sessions that another one follows is not full.',
    class: 'field',
    rule: 'KHO_BLOCK_FILL',
    follows: ['KHO_UNIT_UNCLAIMED', 'LUO_ENTRY_BEYOND_COUNT'],
    apply: (site) => {
      const list = hasBlocks(site)
      if (pagesOfList(list).length < 2) return { unfit: 'its sessions have one block only' }
      return setHeader(site, list, 0, 'count', (count) => count - 1n)
    },
  },
  {
    name: 'session-block-empty-tail',
    doc: 'A block without entries follows the sessions, as 7.2 and 7.3 leave one by mistake.',
    class: 'field',
    rule: 'KHO_BLOCK_EMPTY_TAIL',
    follows: ['KHO_UNIT_UNCLAIMED', 'KHO_BLOCK_COUNT'],
    apply: (site) => {
      const [page] = site.freePages(1)
      if (page === undefined) return { unfit: 'there is no free memory' }
      const blank = site.write(page, new Uint8Array(site.target.pageSize))
      return together(
        setHeader(site, hasBlocks(site), -1, 'next', () => page),
        blank,
        site.preserve({ pa: page, order: 0 }),
      )
    },
  },
  {
    name: 'session-blocks-too-many',
    doc: 'The sessions have more blocks than the kernel takes.',
    class: 'field',
    rule: 'KHO_BLOCK_LIMIT',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: moreBlocks,
  },
  {
    name: 'session-uncounted',
    doc: 'The last session is there, and not counted.',
    class: 'field',
    rule: 'LUO_ENTRY_BEYOND_COUNT',
    apply: (site) => setHeader(site, site.node(SESSIONS), -1, 'count', (count) => count - 1n),
  },
  {
    name: 'session-files-misaligned',
    doc: "A session's files start inside of a page.",
    class: 'field',
    rule: 'LUO_ADDRESS_ALIGNED',
    follows: ['KHO_UNIT_UNCLAIMED', 'LUO_FILE_HANDLER', 'LUO_FILE_LEFT_OUT'],
    apply: (site) => site.alter(withFiles(site, 'files'), (pa) => pa + 8n),
  },
  {
    name: 'session-count-over',
    doc: 'More sessions are counted than the array has room for.',
    class: 'field',
    rule: 'LUO_ARRAY_COUNT',
    apply: (site) => {
      const list = site.node(SESSIONS)
      const storage = list?.kind === 'list' ? list.storage : undefined
      if (storage?.kind !== 'unit') return { unfit: 'its sessions are in blocks' }
      const last = list?.kind === 'list' ? list.items.at(-1) : undefined
      const isFull =
        last !== undefined && last.pa + BigInt(2 * last.length) > storage.pa + BigInt(storage.length)
      return isFull
        ? setHeader(site, list, 0, 'count', () => 1n << 20n)
        : { unfit: 'its array has empty entries, and two of them are refused before its end' }
    },
  },
  unpreserved(
    'sessions-not-preserved',
    'LUO_SESSIONS_PRESERVED',
    SESSIONS,
    'A page with sessions is not preserved.',
  ),
  unpreserved(
    'files-not-preserved',
    'LUO_FILES_PRESERVED',
    FILES,
    "A page with a session's files is not preserved.",
  ),
]

/** Behind the sessions' last block so many as the kernel takes, each with an entry of zeros. */
function moreBlocks(site: Site): Change {
  const list = hasBlocks(site)
  const storage = list?.kind === 'list' ? list.storage : undefined
  if (storage?.kind !== 'blocks') return { unfit: 'its sessions are not in blocks' }
  const start = site.freeRun(KHO_MAX_BLOCKS)
  if (start === undefined) return { unfit: `there are no ${KHO_MAX_BLOCKS} free pages in a row` }
  const at = (field: 'next' | 'count'): bigint => BigInt(fieldOf(khoBlockHeader, field, site.target).offset)
  const blocks = pagesFrom(start, KHO_MAX_BLOCKS, site.pageSize)
  return together(
    site.preserveRun(start, KHO_MAX_BLOCKS),
    setHeader(site, list, -1, 'next', () => start),
    blocks.flatMap((pa, i) => [
      ...site.word(pa + at('next'), blocks[i + 1] ?? 0n),
      ...site.word(pa + at('count'), 1n),
    ]),
  )
}

function hasBlocks(site: Site) {
  return site.node(SESSIONS, (node) => node.kind === 'list' && node.storage?.kind === 'blocks')
}

const sessionFaults: readonly NamedFault[] = [
  {
    name: 'session-name-duplicate',
    doc: 'Two sessions have the same name.',
    class: 'field',
    rule: 'LUO_SESSION_NAME',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => copyField(site, SESSIONS, 'name'),
  },
  put(
    'session-name-without-end',
    'LUO_SESSION_NAME_END',
    'luo.sessions[*].name',
    FULL_NAME,
    'The name of a session has no NUL.',
  ),
  put('session-name-empty', 'LUO_SESSION_NAME_EMPTY', 'luo.sessions[*].name', '', 'A session has no name.'),
  {
    name: 'session-files-over',
    doc: 'A session counts more files than its blocks hold.',
    class: 'field',
    rule: 'LUO_FILE_COUNT',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => site.alter(withFiles(site, 'count'), (count) => count + 1n),
  },
  {
    name: 'session-files-null',
    doc: 'A session counts files, and has none.',
    class: 'field',
    rule: 'LUO_FILES_NULL',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => site.alter(withFiles(site, 'files'), () => 0n),
  },
  {
    name: 'session-files-shared',
    doc: 'Two sessions have the same files.',
    class: 'field',
    rule: 'LUO_FILES_SHARED',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) =>
      together(
        copyField(site, SESSIONS, 'file_set_ser.files'),
        copyField(site, SESSIONS, 'file_set_ser.count'),
      ),
  },
  {
    name: 'file-token-duplicate',
    doc: 'Two files of a session have the same token.',
    class: 'field',
    rule: 'LUO_TOKEN',
    apply: (site) => copyField(site, FILES, 'token'),
  },
  put(
    'file-handler-unknown',
    'LUO_FILE_HANDLER',
    'luo.sessions[*].files[*].compatible',
    'memfd-v9',
    'A file is of a handler that no kernel has.',
    {
      follows: ['KHO_UNIT_UNCLAIMED', 'LUO_FILE_LEFT_OUT'],
    },
  ),
  put(
    'file-ends-session',
    'LUO_FILE_LEFT_OUT',
    'luo.sessions[*].files[*].compatible',
    'memfd-v9',
    'A file without a handler keeps those behind it from being read.',
    {
      follows: ['KHO_UNIT_UNCLAIMED', 'LUO_FILE_HANDLER'],
    },
  ),
  {
    name: 'file-record-cut',
    doc: 'The record of a file goes on behind the page that holds its start.',
    class: 'field',
    rule: 'RECORD_CUT',
    follows: ['KHO_UNIT_UNCLAIMED', 'LUO_ADDRESS_ALIGNED'],
    apply: (site) => {
      const last = site.node('luo.sessions[*].files[*].data', (node) => {
        if (node.kind !== 'value') return false
        const behind = BigInt(node.value as bigint) + site.pageSize
        return !site.unitAt(behind) && site.wordAt(behind) === undefined
      })
      return site.alter(last, (pa) => pa + site.pageSize - 8n)
    },
  },
  {
    name: 'file-record-left-out',
    doc: 'The record of a file lies where the image holds no memory.',
    class: 'field',
    rule: 'RECORD_NOT_IN_IMAGE',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => {
      const [page] = site.freePages(1)
      if (page === undefined) return { unfit: 'there is no free memory' }
      return together(site.set('luo.sessions[*].files[*].data', page), site.preserve({ pa: page, order: 0 }))
    },
  },
]

/** A field of the set of files of the first session that has some. */
function withFiles(site: Site, field: 'files' | 'count') {
  const set = site.records('luo.sessions[*].file_set_ser').find((record) => {
    const files = site.below(record, 'files')
    return files?.kind === 'value' && files.value !== 0n
  })
  return set && site.below(set, field)
}

const flbFaults: readonly NamedFault[] = [
  unpreserved(
    'flbs-not-preserved',
    'LUO_FLBS_PRESERVED',
    'luo.flbs',
    'The page with the FLBs is not preserved.',
  ),
  put('flbs-null', 'LUO_FLBS_NULL', 'luo.flbs_pa', 0n, 'The state of LUO has no FLBs.', ORPHANS),
  {
    name: 'flb-count-over',
    doc: 'More FLBs are counted than their page has room for.',
    class: 'field',
    rule: 'LUO_FLB_COUNT',
    apply: (site) => setHeader(site, site.node('luo.flbs'), 0, 'count', () => 1n << 20n),
  },
  {
    name: 'flb-pages-wrong',
    doc: 'The FLBs say that they take more than a page.',
    class: 'field',
    rule: 'LUO_FLB_PGCNT',
    apply: (site) => setHeader(site, site.node('luo.flbs'), 0, 'pgcnt', () => 7n),
  },
  put(
    'flb-name-without-end',
    'LUO_FLB_NAME',
    'luo.flbs[*].name',
    FULL_NAME,
    'The name of an FLB has no NUL.',
  ),
  {
    name: 'flb-name-duplicate',
    doc: 'Two FLBs have the same name.',
    class: 'field',
    rule: 'LUO_FLB_NAME_TWICE',
    apply: (site) => copyField(site, 'luo.flbs', 'name'),
  },
  put(
    'flb-data-wrong',
    'LUO_FLB_DATA',
    'luo.flbs[*].data',
    0x1234n,
    'A test FLB has data that its module refuses.',
  ),
  {
    name: 'flb-references-wrong',
    doc: 'An FLB counts more references than there are files.',
    class: 'field',
    rule: 'LUO_FLB_REFERENCES',
    apply: (site) => site.alter('luo.flbs[*].count', (count) => count + 1n),
  },
]

export const luoFaults: readonly NamedFault[] = [
  ...rootFaults,
  ...blockFaults,
  ...sessionFaults,
  ...flbFaults,
]
