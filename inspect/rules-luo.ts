/**
 * The live update orchestrator's state: what its readers refuse, and what they do not look at.
 *
 * Sources: kernel/liveupdate/luo_{core,session,file,flb}.c, kho_block.c of Linux 6.19.11, 7.1.13, 7.3.4.
 */

import type { FaultCode } from '../abi/fault.ts'
import { traitSpan } from '../abi/kernel-traits.ts'
import { releaseIndex } from '../abi/registry.ts'
import { isWithin } from './fault-pool.ts'
import { met } from './incoming-all.ts'
import { preserved, readAt } from './incoming-unmet.ts'
import { note, type Rule, refuses, silent } from './rule.ts'
import { numberAt } from './tree.ts'
import { violationOf } from './violations.ts'

const luo = { component: 'luo', since: 'linux-6.19' } as const
const blocks = { component: 'luo', since: 'linux-7.2' } as const
const flbs = {
  component: 'luo',
  since: 'linux-7.0',
  source: 'luo_flb_retrieve_one()',
  stage: 'initcalls',
} as const

/** Where an array is read out of place, nothing in it is what it was. */
const MISPLACED = ['LUO_ADDRESS_ALIGNED']

/** Refusals by their check, with what they presuppose. */
const REFUSALS: readonly (readonly [id: string, stage: 'luo' | 'open', requires: readonly string[]])[] = [
  ['LUO_SUBTREE', 'luo', ['KHO_COMPATIBLE']],
  ['LUO_SIZE', 'luo', ['LUO_SUBTREE']],
  ['LUO_COMPATIBLE', 'luo', ['LUO_SUBTREE']],
  ['LUO_NUMBER', 'luo', ['LUO_COMPATIBLE']],
  ['LUO_SESSION_NODE', 'luo', ['LUO_COMPATIBLE']],
  ['LUO_SESSION_COMPATIBLE', 'luo', ['LUO_SESSION_NODE']],
  ['LUO_SESSION_HEADER', 'luo', ['LUO_SESSION_NODE']],
  ['LUO_FLB_NODE', 'luo', ['LUO_COMPATIBLE']],
  ['LUO_FLB_COMPATIBLE', 'luo', ['LUO_FLB_NODE']],
  ['LUO_FLB_HEADER', 'luo', ['LUO_FLB_NODE']],
  ['KHO_BLOCK_CYCLE', 'luo', ['LUO_COMPATIBLE']],
  ['KHO_BLOCK_COUNT', 'luo', ['KHO_BLOCK_CYCLE']],
  ['KHO_BLOCK_LIMIT', 'luo', ['KHO_BLOCK_CYCLE']],
  ['LUO_SESSION_NAME', 'open', ['LUO_COMPATIBLE']],
  ['LUO_FILE_COUNT', 'open', ['LUO_COMPATIBLE']],
  ['LUO_FILE_HANDLER', 'open', ['LUO_COMPATIBLE']],
]

/** What is wrong with the form of a subsystem's FDT. */
const FDT_CODES: readonly FaultCode[] = [
  'FDT_MAGIC',
  'FDT_VERSION',
  'FDT_HEADER',
  'FDT_TRUNCATED',
  'FDT_STRUCTURE',
  'FDT_STRING',
  'FDT_DEPTH',
]
const FDT_BLOBS = ['luo', 'memblock', 'kho_test']
const READ_AS_THE_KERNEL = ['luo', 'memblock', 'kexec_metadata']

const rootRules: readonly Rule[] = [
  silent({
    ...luo,
    id: 'LUO_SER_PRESERVED',
    why: 'The state is read where it lies; memory that is not preserved may be in use by then.',
    source: 'luo_early_startup()',
    outcome: 'corrupts',
    stage: 'luo',
    check: preserved('LUO_SER_PRESERVED', readAt('luo')),
  }),
  silent({
    ...luo,
    id: 'LUO_IGNORED',
    since: 'linux-6.16',
    why: 'The kernel has no live update orchestrator; what it does not know stays reserved and is never given back.',
    source: 'kho_retrieve_subtree()',
    outcome: 'loses',
    stage: 'initcalls',
    check: met('LUO_IGNORED'),
  }),
  silent({
    id: 'BLOB_FDT_FORM',
    component: 'kho',
    severity: 'warning',
    since: 'linux-6.16',
    why: "A subsystem's FDT is never checked as a whole; libfdt ends a search at what it cannot read.",
    source: 'fdt_check_full()',
    outcome: 'takes-over',
    stage: 'luo',
    check: function* ({ faults }) {
      for (const fault of faults.takeIf(
        ({ code, path, severity }) =>
          severity === 'error' && FDT_CODES.includes(code) && FDT_BLOBS.some((key) => path.startsWith(key)),
      ))
        yield violationOf(fault)
    },
  }),
  note({
    ...luo,
    id: 'LUO_NUMBERS_DIFFER',
    since: 'kho-v2',
    why: 'Both count handovers since the last cold boot; a boot with liveupdate=off counts in one of them only.',
    source: 'luo_early_startup()',
    stage: 'initcalls',
    check: function* (subject) {
      const number = subject.record('luo')?.children.find(({ segment }) => segment === 'liveupdate_num')
      const count = numberAt(subject.record('kexec_metadata'), 'kexec_count')
      if (number?.kind !== 'value' || count === undefined || BigInt(number.value as bigint) === BigInt(count))
        return
      yield {
        path: 'luo.liveupdate_num',
        pa: number.pa,
        length: number.length,
        message: 'the number of live updates is not that of handovers',
        expected: `kexec_count ${count}`,
        found: String(number.value),
      }
    },
  }),
  silent({
    id: 'RECORD_CUT',
    component: 'kho',
    since: 'linux-6.16',
    why: 'A record is read as far as it goes, behind the end of what is preserved, too.',
    source: 'phys_to_virt()',
    outcome: 'corrupts',
    stage: 'luo',
    check: met('RECORD_CUT'),
  }),
  note({
    id: 'RECORD_NOT_IN_IMAGE',
    component: 'kho',
    since: 'linux-6.16',
    why: 'The image does not hold this record, so nothing can be said of what it refers to.',
    source: 'phys_to_virt()',
    stage: 'luo',
    check: function* (subject) {
      // What the decoder says of these parts is said by the rules that follow the kernel through them.
      subject.faults.takeIf(({ path }) => READ_AS_THE_KERNEL.some((key) => isWithin(path, key)))
      yield* met('RECORD_NOT_IN_IMAGE')(subject)
    },
  }),
]

const blockRules: readonly Rule[] = [
  silent({
    ...luo,
    id: 'LUO_SESSIONS_PRESERVED',
    why: 'Sessions are read where they lie, when the device is opened; memory that is not preserved is in use by then.',
    source: 'luo_session_deserialize()',
    outcome: 'corrupts',
    stage: 'open',
    check: function* (subject) {
      const hasBlocks = releaseIndex(subject.release) >= releaseIndex(blocks.since)
      // kho_block_set_restore() goes through the headers of blocks in the boot already.
      const stage = hasBlocks ? { stage: 'luo' as const } : {}
      for (const violation of preserved('LUO_SESSIONS_PRESERVED', readAt('luo'))(subject))
        yield { ...violation, ...stage }
    },
  }),
  silent({
    ...luo,
    id: 'LUO_FILES_PRESERVED',
    why: 'Records of files are read where they lie, when the device is opened; memory that is not preserved is in use by then.',
    source: 'luo_file_deserialize()',
    outcome: 'corrupts',
    stage: 'open',
    check: preserved('LUO_FILES_PRESERVED', readAt('open')),
  }),
  silent({
    ...luo,
    id: 'LUO_ADDRESS_ALIGNED',
    why: 'Blocks, arrays and records are read at whatever address is told, their header then being bytes of something else.',
    source: 'phys_to_virt()',
    outcome: 'corrupts',
    stage: 'luo',
    check: met('LUO_ADDRESS_ALIGNED'),
  }),
  silent({
    ...blocks,
    id: 'KHO_BLOCK_FILL',
    severity: 'warning',
    why: 'Each block is read up to its own count; the old kernel fills all but the last.',
    source: 'kho_block_set_it_read_entry()',
    outcome: 'takes-over',
    stage: 'luo',
    check: met('KHO_BLOCK_FILL'),
  }),
  note({
    ...blocks,
    id: 'KHO_BLOCK_EMPTY_TAIL',
    why: 'Known bug of 7.2 and 7.3: luo_session_insert() adds a block before it sees that the name is taken, and does not take it back.',
    source: 'luo_session_insert()',
    stage: 'luo',
    check: met('KHO_BLOCK_EMPTY_TAIL'),
  }),
  silent({
    ...luo,
    id: 'LUO_ENTRY_BEYOND_COUNT',
    severity: 'warning',
    why: 'Only as many entries are read as are counted; the old kernel clears the memory, and counts what it writes.',
    source: 'luo_session_deserialize()',
    outcome: 'loses',
    stage: 'open',
    check: met('LUO_ENTRY_BEYOND_COUNT'),
  }),
  silent({
    ...luo,
    id: 'LUO_ARRAY_COUNT',
    until: 'linux-7.1',
    why: 'No reader asks whether the count fits into the pages; it goes on behind them.',
    source: 'luo_session_deserialize()',
    outcome: 'corrupts',
    stage: 'open',
    check: met('LUO_ARRAY_COUNT'),
  }),
]

const sessionRules: readonly Rule[] = [
  silent({
    ...luo,
    id: 'LUO_SESSION_NAME_END',
    why: 'strscpy() takes the first 63 bytes of a name without a NUL; under its own name the session is not found.',
    source: 'luo_session_alloc()',
    outcome: 'loses',
    stage: 'open',
    check: met('LUO_SESSION_NAME_END'),
  }),
  silent({
    ...luo,
    id: 'LUO_SESSION_NAME_EMPTY',
    ...traitSpan('checksNames'),
    severity: 'warning',
    why: 'A session without a name is taken over; no kernel that checks names creates one.',
    source: 'luo_session_insert()',
    outcome: 'loses',
    stage: 'open',
    check: met('LUO_SESSION_NAME_EMPTY'),
  }),
  silent({
    ...luo,
    id: 'LUO_FILES_NULL',
    why: 'Without an address nothing is read, whatever the count: a warning with a stack, and a session without files.',
    source: 'luo_file_deserialize()',
    outcome: 'loses',
    stage: 'open',
    check: met('LUO_FILES_NULL'),
  }),
  silent({
    ...luo,
    id: 'LUO_FILES_SHARED',
    why: 'Two sessions get the same files; what the first gives back the second reads and gives back again.',
    source: 'luo_file_deserialize()',
    outcome: 'corrupts',
    stage: 'open',
    check: met('LUO_FILES_SHARED'),
  }),
  silent({
    ...luo,
    id: 'LUO_TOKEN',
    why: 'The first file of a token is the one that is found; the other is never reached.',
    source: 'luo_retrieve_file()',
    outcome: 'loses',
    stage: 'retrieve',
    check: met('LUO_TOKEN'),
  }),
  silent({
    ...luo,
    id: 'LUO_FILE_LEFT_OUT',
    ...traitSpan('dropsErrors'),
    why: 'The first file without a handler ends the reading of its session, and the error is dropped.',
    source: 'luo_file_deserialize()',
    outcome: 'loses',
    stage: 'open',
    check: met('LUO_FILE_LEFT_OUT'),
  }),
]

const flbRules: readonly Rule[] = [
  silent({
    ...flbs,
    id: 'LUO_FLBS_PRESERVED',
    why: 'The array is read where it lies, whenever an FLB is looked up.',
    outcome: 'corrupts',
    check: preserved('LUO_FLBS_PRESERVED', readAt('initcalls')),
  }),
  silent({
    ...flbs,
    id: 'LUO_FLBS_NULL',
    since: 'linux-7.2',
    severity: 'warning',
    why: 'Address 0 means that there are no FLBs.',
    source: 'luo_flb_setup_incoming()',
    outcome: 'loses',
    check: met('LUO_FLBS_NULL'),
  }),
  silent({
    ...flbs,
    id: 'LUO_FLB_COUNT',
    requires: MISPLACED,
    why: 'A look-up goes through as many entries as are counted; one that finds nothing runs out of the page.',
    outcome: 'corrupts',
    check: met('LUO_FLB_COUNT'),
  }),
  silent({
    ...flbs,
    id: 'LUO_FLB_PGCNT',
    requires: MISPLACED,
    severity: 'warning',
    why: 'No kernel reads the number of pages.',
    outcome: 'takes-over',
    check: met('LUO_FLB_PGCNT'),
  }),
  silent({
    ...flbs,
    id: 'LUO_FLB_NAME',
    requires: [...MISPLACED, 'LUO_FLB_COUNT'],
    why: 'strcmp() finds an FLB by its whole name only.',
    outcome: 'loses',
    check: met('LUO_FLB_NAME'),
  }),
  silent({
    ...flbs,
    id: 'LUO_FLB_NAME_TWICE',
    requires: MISPLACED,
    why: 'The first of a name is the one that is found.',
    outcome: 'loses',
    check: met('LUO_FLB_NAME_TWICE'),
  }),
  silent({
    ...flbs,
    id: 'LUO_FLB_DATA',
    requires: MISPLACED,
    severity: 'warning',
    why: "The kernel's own test FLBs refuse any data but their number; others are opaque.",
    source: 'test_flb_retrieve()',
    outcome: 'loses',
    check: met('LUO_FLB_DATA'),
  }),
  silent({
    ...flbs,
    id: 'LUO_FLB_REFERENCES',
    requires: MISPLACED,
    severity: 'warning',
    why: 'Each file that is finished drops one reference: too few underflow, too many keep the FLB for ever.',
    source: 'liveupdate_flb_put_incoming()',
    outcome: 'takes-over',
    check: met('LUO_FLB_REFERENCES'),
  }),
]

export const luoRules: readonly Rule[] = [
  ...REFUSALS.map(([id, stage, requires]) => refuses({ id, stage, requires, check: met(id) })),
  ...rootRules,
  ...blockRules,
  ...sessionRules,
  ...flbRules,
]
