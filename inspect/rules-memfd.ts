/**
 * memfds and the vmalloc memory that their folios are listed in: what memfd_luo_retrieve() refuses, and
 * what it puts into the page cache as it is.
 *
 * Sources: mm/memfd_luo.c, mm/shmem.c, kho_restore_vmalloc() of Linux 6.19.11, 7.1.13, 7.3.4.
 */
import type { Outcome } from '../abi/check.ts'
import type { Severity } from '../abi/fault.ts'
import { met } from './incoming-all.ts'
import { preserved, readAt } from './incoming-unmet.ts'
import { type Rule, refuses, silent, type Violation } from './rule.ts'
import type { Subject } from './subject.ts'
import { unmet } from './unmet.ts'

const memfd = { component: 'memfd', since: 'linux-6.19', stage: 'retrieve' } as const

/** The first folio of a file that cannot be restored: there the kernel gives up. It comes to none without their array. */
function* lostFolios(subject: Subject): Generator<Violation> {
  const told = met('MEMFD_FOLIO')(subject)
  const firsts = new Map([...unmet(subject, 'MEMFD_FOLIO')].toReversed().map((found) => [found.group, found]))
  const others = [...preserved('MEMFD_FOLIO', { inside: 'loses', order: 'loses' })(subject)]
  const withoutArray = new Set(
    ['MEMFD_CHUNK', 'MEMFD_FOLIOS'].flatMap((id) =>
      Array.from(unmet(subject, id), ({ group, problem }) =>
        id === 'MEMFD_FOLIOS' && problem === 'order' ? undefined : group.path,
      ),
    ),
  )
  for (const [, { group, index, pfn }] of firsts) {
    if (withoutArray.has(group.path)) continue
    const violation = others.find(({ path, step }) => path === group.path && step === group.step)
    if (!violation) continue
    const isSilent = index > 0 && !subject.traits.failsForLaterFolio
    yield { ...violation, outcome: isSilent ? 'corrupts' : 'loses', log: [subject.address(pfn)] }
  }
  yield* told
}

/** Whether some preserved memory has lost its owner. */
function hasOrphans({ map, claimed }: Subject): boolean {
  for (const run of map?.allRuns() ?? []) if (claimed.unclaimedIn(run).pages > 0) return true
  return false
}

/** What no kernel looks at, or takes as it is. */
const TAKEN: readonly (readonly [
  id: string,
  outcome: Outcome,
  severity: Severity,
  source: string,
  why: string,
])[] = [
  [
    'MEMFD_SHARED',
    'corrupts',
    'error',
    'memfd_luo_retrieve()',
    'A record is given back once its file is retrieved; a second file with the same record reads what is there by then.',
  ],
  [
    'MEMFD_SEAL_EXEC',
    'loses',
    'warning',
    'memfd_add_seals()',
    'Mode bits are not kept, and F_SEAL_EXEC on a file that may be executed brings the seals against writing with it.',
  ],
  ['MEMFD_FLAGS', 'takes-over', 'warning', 'memfd_luo_retrieve()', 'No kernel reads the flags of a memfd.'],
  [
    'MEMFD_POSITION',
    'loses',
    'error',
    'vfs_setpos()',
    'A negative position is refused, the answer is not looked at, and the file stands at its beginning.',
  ],
  [
    'MEMFD_SIZE',
    'corrupts',
    'error',
    'i_size_write()',
    'The size is taken as it is; behind a negative one nothing can be read.',
  ],
  [
    'MEMFD_COUNT',
    'corrupts',
    'error',
    'memfd_luo_retrieve_folios()',
    'As many records are read as are counted; behind the array is no memory.',
  ],
  [
    'MEMFD_UNCOUNTED',
    'corrupts',
    'error',
    'memfd_luo_retrieve_folios()',
    'Folios that are not counted are never restored: their part of the file is read as zeros.',
  ],
  [
    'MEMFD_EMPTY_RECORD',
    'takes-over',
    'warning',
    'memfd_luo_retrieve_folios()',
    'A record of zeros is passed over; the old kernel counts what it writes.',
  ],
  [
    'MEMFD_COVERAGE',
    'corrupts',
    'error',
    'i_size_write()',
    'The size is taken as it is; the old kernel fills every hole before it preserves a file, so a page without a folio is lost.',
  ],
  [
    'MEMFD_PAST_END',
    'corrupts',
    'error',
    'shmem_add_to_page_cache()',
    'No index is held against the size; what lies behind the end of the file is not read, and the old kernel leaves it out.',
  ],
  [
    'MEMFD_INDEX_ALIGNED',
    'corrupts',
    'error',
    'shmem_add_to_page_cache()',
    'Only a debugging kernel asks that a folio lies at a multiple of its size; others put it in front of its place.',
  ],
  [
    'MEMFD_ORDERED',
    'takes-over',
    'warning',
    'memfd_luo_retrieve_folios()',
    'Records are taken in any order; the old kernel writes them in that of the file.',
  ],
  [
    'MEMFD_NOT_UPTODATE',
    'corrupts',
    'error',
    'shmem_get_folio_gfp()',
    'A folio that is not marked up to date is cleared when it is first used.',
  ],
  [
    'MEMFD_CLEAN',
    'corrupts',
    'error',
    'memfd_luo_retrieve_folios()',
    'Known bug of 6.19.0 to at least 6.19.6, which stored the state of the folio: what is not dirty is dropped under memory pressure.',
  ],
  [
    'MEMFD_FOLIO_FLAGS',
    'takes-over',
    'warning',
    'memfd_luo_retrieve_folios()',
    'Only two flags are looked at.',
  ],
]

/** Of fields that memfd-v2 brought. */
const SINCE_V2 = ['MEMFD_SEAL_EXEC', 'MEMFD_FLAGS']

const vmallocRules: readonly Rule[] = [
  refuses({ id: 'KHO_VMALLOC_TOTAL', stage: 'retrieve', check: met('KHO_VMALLOC_TOTAL') }),
  silent({
    id: 'KHO_VMALLOC_ORDER',
    component: 'kho',
    since: 'linux-6.18',
    stage: 'retrieve',
    outcome: 'corrupts',
    source: 'kho_restore_vmalloc()',
    why: 'The order is not checked; from 32 on the shift wraps, the area stays empty, and is read.',
    check: met('KHO_VMALLOC_ORDER'),
  }),
  silent({
    id: 'KHO_VMALLOC_ALIGNED',
    component: 'kho',
    since: 'linux-6.18',
    stage: 'retrieve',
    severity: 'warning',
    outcome: 'takes-over',
    source: 'kho_restore_pages()',
    why: 'Only the frame of an address is looked at.',
    check: met('KHO_VMALLOC_ALIGNED'),
  }),
  silent({
    id: 'KHO_VMALLOC_FLAGS',
    component: 'kho',
    since: 'linux-6.18',
    stage: 'retrieve',
    severity: 'warning',
    outcome: 'takes-over',
    source: 'kho_flags_to_vmalloc()',
    why: 'Unknown flags are dropped.',
    check: met('KHO_VMALLOC_FLAGS'),
  }),
]

export const memfdRules: readonly Rule[] = [
  silent({
    ...memfd,
    id: 'MEMFD_PRESERVED',
    why: 'The record is read where it lies; memory that is not preserved is in use by then.',
    source: 'memfd_luo_retrieve()',
    outcome: 'corrupts',
    check: preserved('MEMFD_PRESERVED', readAt('retrieve')),
  }),
  refuses({ id: 'MEMFD_SEALS', stage: 'retrieve', check: met('MEMFD_SEALS') }),
  ...vmallocRules,
  refuses({
    id: 'MEMFD_FOLIOS',
    stage: 'retrieve',
    check: function* (subject) {
      yield* preserved('MEMFD_CHUNK', { inside: 'loses', order: 'takes-over', read: 'retrieve' })(subject)
      yield* met('MEMFD_FOLIOS')(subject)
      yield* preserved('MEMFD_FOLIOS', { inside: 'loses', order: 'corrupts' })(subject)
    },
  }),
  refuses({ id: 'MEMFD_FOLIO', stage: 'retrieve', check: lostFolios }),
  refuses({ id: 'MEMFD_INDEX', stage: 'retrieve', check: met('MEMFD_INDEX') }),
  silent({
    ...memfd,
    id: 'MEMFD_HOLE',
    outcome: 'corrupts',
    source: 'memfd_luo_retrieve_folios()',
    why: 'Frame 0 is passed over; the old kernel fills every hole before it preserves a file, so there was a folio, unless all that is preserved has its owner.',
    check: function* (subject) {
      for (const violation of met('MEMFD_HOLE')(subject))
        yield hasOrphans(subject) ? violation : { ...violation, outcome: 'takes-over', severity: 'note' }
    },
  }),
  ...TAKEN.map(([id, outcome, severity, source, why]) =>
    silent({
      ...memfd,
      ...(SINCE_V2.includes(id) && { since: 'kho-v2' }),
      id,
      outcome,
      severity,
      source,
      why,
      check: met(id),
    }),
  ),
]
