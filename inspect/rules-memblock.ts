/**
 * reserve_mem regions and kexec-metadata.
 *
 * Sources: mm/memblock.c, kernel/liveupdate/kexec_handover.c of Linux 6.17.8 and 7.3.4.
 */
import { traitSpan } from '../abi/kernel-traits.ts'
import { met } from './incoming-all.ts'
import { preserved, readAt } from './incoming-unmet.ts'
import { type Rule, refuses, silent } from './rule.ts'

const region = {
  component: 'memblock',
  since: 'linux-6.16',
  source: 'reserve_mem_kho_revive()',
  stage: 'reserve-mem',
} as const
const metadata = {
  component: 'kexec-metadata',
  since: 'kho-v2',
  source: 'kho_in_kexec_metadata()',
  stage: 'initcalls',
} as const
const REGION_REFUSALS = [
  'MEMBLOCK_SUBTREE',
  'MEMBLOCK_COMPATIBLE',
  'RESERVE_MEM_NODE',
  'RESERVE_MEM_COMPATIBLE',
  'RESERVE_MEM_START',
  'RESERVE_MEM_SIZE',
  'RESERVE_MEM_ALIGNMENT',
  'RESERVE_MEM_SAME_SIZE',
]
export const memblockRules: readonly Rule[] = [
  ...REGION_REFUSALS.map((id) => refuses({ id, stage: 'reserve-mem', check: met(id) })),
  silent({
    ...region,
    id: 'MEMBLOCK_PRESERVED',
    severity: 'warning',
    why: 'The FDT is read before any memory outside of scratch is given out, and not again.',
    outcome: 'takes-over',
    check: preserved('MEMBLOCK_PRESERVED', readAt('reserve-mem')),
  }),
  silent({
    ...region,
    id: 'RESERVE_MEM_PRESERVED',
    why: 'A region is entered into a table without asking whether its memory is reserved.',
    outcome: 'corrupts',
    check: preserved('RESERVE_MEM_PRESERVED', { inside: 'takes-over', order: 'takes-over' }),
  }),
  silent({
    ...region,
    id: 'RESERVE_MEM_TAIL',
    ...traitSpan('preservesPages'),
    why: 'Known bug from 6.18 on: only whole pages of a region are preserved, the rest is given out.',
    source: 'reserved_mem_preserve()',
    outcome: 'corrupts',
    check: met('RESERVE_MEM_TAIL'),
  }),
  silent({
    ...region,
    id: 'RESERVE_MEM_OVERLAP',
    why: 'Nothing asks whether regions share memory.',
    outcome: 'corrupts',
    check: met('RESERVE_MEM_OVERLAP'),
  }),
  silent({
    ...region,
    id: 'RESERVE_MEM_NAME',
    why: 'A region is found by its name only, which has 1 to 15 bytes; of two the first is found.',
    source: 'reserve_mem()',
    outcome: 'loses',
    check: met('RESERVE_MEM_NAME'),
  }),
  silent({
    ...region,
    id: 'RESERVE_MEM_NOT_ASKED',
    severity: 'warning',
    why: 'A region that the command line does not name stays reserved, and nobody gets it.',
    source: 'reserve_mem()',
    outcome: 'loses',
    check: met('RESERVE_MEM_NOT_ASKED'),
  }),
  silent({
    ...region,
    id: 'RESERVE_MEM_FULL',
    why: 'There is room for eight regions.',
    source: 'reserve_mem()',
    outcome: 'loses',
    check: met('RESERVE_MEM_FULL'),
  }),
]

export const metadataRules: readonly Rule[] = [
  silent({
    ...metadata,
    id: 'METADATA_PRESERVED',
    why: 'The metadata are read where they lie; memory that is not preserved may be in use by then.',
    outcome: 'corrupts',
    check: preserved('METADATA_PRESERVED', readAt('initcalls')),
  }),
  ...['METADATA_VERSION', 'METADATA_SIZE'].map((id) =>
    refuses({ id, stage: 'initcalls', severity: 'warning', check: met(id) }),
  ),
  silent({
    ...metadata,
    id: 'METADATA_RELEASE',
    severity: 'warning',
    why: 'strscpy() takes the first 64 bytes of a release without a NUL.',
    outcome: 'takes-over',
    check: met('METADATA_RELEASE'),
  }),
  silent({
    ...metadata,
    id: 'METADATA_COUNT',
    severity: 'warning',
    why: 'The count is taken as it is; the old kernel counts this handover, too.',
    outcome: 'takes-over',
    check: met('METADATA_COUNT'),
  }),
]
