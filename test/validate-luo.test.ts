/**
 * Each field of the live update state of real images with each kind of wrong value: what the kernel's
 * source says becomes of it.
 */
import { describe, expect, test } from 'vitest'
import type { Handover } from '../inspect/decode.ts'
import { child, itemsAt, type ListNode, numberAt } from '../inspect/tree.ts'
import {
  all,
  brokenRules,
  type Case,
  type Change,
  field,
  judgeChanged,
  judgeEach,
  MAX,
  newest,
  unpreserved,
  WILD,
  word,
} from './support/judged.ts'

const luoOf = (handover: Handover) => child(handover.tree, 'luo')
const sessionsOf = (handover: Handover) => itemsAt(luoOf(handover), 'sessions')
const listOf = (handover: Handover, session?: number): ListNode =>
  (session === undefined
    ? child(luoOf(handover), 'sessions')
    : child(sessionsOf(handover)[session], 'files')) as ListNode
/** First byte of the first block or of the array. */
const storageOf = (handover: Handover, session?: number): bigint => {
  const { storage } = listOf(handover, session)
  return storage?.kind === 'blocks' ? (storage.blocks[0]?.pa as bigint) : (storage?.pa as bigint)
}
const flbsOf = (handover: Handover): bigint => (child(luoOf(handover), 'flbs') as ListNode).pa
const recordOf = (handover: Handover, file: number): bigint =>
  numberAt(itemsAt(sessionsOf(handover)[0], 'files')[file], 'data') as bigint

const sessions = (at: bigint, value: bigint | ((handover: Handover) => bigint)) =>
  word((handover) => storageOf(handover) + at, value)
const files = (at: bigint, value: bigint | ((handover: Handover) => bigint)) =>
  word((handover) => storageOf(handover, 0) + at, value)
const flbs = (at: bigint, value: bigint) => word((handover) => flbsOf(handover) + at, value)
const NAME = 'luo.sessions[*].name'
const FILES = 'luo.sessions[*].file_set_ser.files'
const COUNT = 'luo.sessions[*].file_set_ser.count'
const DATA = 'luo.sessions[*].files[*].data'
const HANDLER = 'luo.sessions[*].files[*].compatible'
const unterminated = (length: number): Uint8Array => new Uint8Array(length).fill(0x41)

/** What is the same for blocks and arrays. */
const common: readonly Case[] = [
  ['no name', field(NAME, ''), 'loses', 'LUO_SESSION_NAME_EMPTY'],
  ['a name without end', field(NAME, unterminated(64)), 'loses', 'LUO_SESSION_NAME_END'],
  ['a name twice', field(NAME, 'vm-alpha', 1), 'device-fails', 'LUO_SESSION_NAME'],
  ['no address of files', field(FILES, 0n), 'loses', 'LUO_FILES_NULL'],
  ['files where no memory is', field(FILES, WILD), 'corrupts', 'LUO_FILES_PRESERVED'],
  ['files at the last byte', field(FILES, MAX), 'corrupts', 'LUO_ADDRESS_ALIGNED'],
  ['an unknown handler', field(HANDLER, 'memfd-v9'), 'device-fails', 'LUO_FILE_HANDLER'],
  ['no handler', field(HANDLER, ''), 'device-fails', 'LUO_FILE_HANDLER'],
  ['a handler without end', field(HANDLER, unterminated(48)), 'device-fails', 'LUO_FILE_HANDLER'],
  ['a record where no memory is', field(DATA, WILD), 'corrupts', 'MEMFD_PRESERVED'],
  [
    "another file's record",
    word(
      (h) => recordPa(h),
      (h) => recordOf(h, 1),
    ),
    'corrupts',
    'MEMFD_SHARED',
  ],
  ['a token twice', field('luo.sessions[*].files[*].token', 1n, 1), 'loses', 'LUO_TOKEN'],
  ['an FLB without name', field('luo.flbs[*].name', ''), 'loses', 'LUO_FLB_NAME'],
  ['an FLB name without end', field('luo.flbs[*].name', unterminated(48)), 'loses', 'LUO_FLB_NAME'],
  ['an FLB twice', field('luo.flbs[*].name', 'liveupdate-test-flb-v0', 1), 'loses', 'LUO_FLB_NAME_TWICE'],
  ['other data of a test FLB', field('luo.flbs[*].data', 1n), 'loses', 'LUO_FLB_DATA'],
  ['no references to an FLB', field('luo.flbs[*].count', 0n), 'takes-over', 'LUO_FLB_REFERENCES'],
  ['more references than files', field('luo.flbs[*].count', 6n), 'takes-over', 'LUO_FLB_REFERENCES'],
  ['another number of pages', flbs(0n, 2n), 'takes-over', 'LUO_FLB_PGCNT'],
  ['one FLB less', flbs(8n, 2n), 'loses', 'LUO_ENTRY_BEYOND_COUNT'],
  ['an empty FLB counted', flbs(8n, 4n), 'takes-over', 'LUO_FLB_NAME'],
  ['more FLBs than the page holds', flbs(8n, MAX), 'takes-over', 'LUO_FLB_COUNT'],
  ['FLBs not preserved', unpreserved(flbsOf), 'corrupts', 'LUO_FLBS_PRESERVED'],
  ['sessions not preserved', unpreserved(storageOf), 'corrupts', 'LUO_SESSIONS_PRESERVED'],
  ['files not preserved', unpreserved((h) => storageOf(h, 0)), 'corrupts', 'LUO_FILES_PRESERVED'],
  ['a record not preserved', unpreserved((h) => recordOf(h, 0)), 'corrupts', 'MEMFD_PRESERVED'],
]

/** Where the first file's handle is stored. */
function recordPa(handover: Handover): bigint {
  return child(itemsAt(sessionsOf(handover)[0], 'files')[0], 'data')?.pa as bigint
}

const blocks: readonly Case[] = [
  ...common,
  ['another version', field('luo.compatible', 'luo-v4'), 'panics', 'LUO_COMPATIBLE'],
  ['no version', field('luo.compatible', ''), 'panics', 'LUO_COMPATIBLE'],
  ['a blob too small', field('subtrees[*].size', 31n, 1), 'panics', 'LUO_SIZE'],
  ['a blob of no size', field('subtrees[*].size', 0n, 1), 'panics', 'LUO_SIZE'],
  ['the state not preserved', unpreserved((h) => luoOf(h)?.pa as bigint), 'corrupts', 'LUO_SER_PRESERVED'],
  ['no sessions although FLBs are held', field('luo.sessions_pa', 0n), 'loses', 'LUO_FLB_REFERENCES'],
  ['sessions where no memory is', field('luo.sessions_pa', WILD), 'corrupts', 'LUO_SESSIONS_PRESERVED'],
  [
    'sessions inside of a page',
    word(
      (h) => pa(h, 'sessions_pa'),
      (h) => storageOf(h) + 8n,
    ),
    'corrupts',
    'LUO_ADDRESS_ALIGNED',
  ],
  ['sessions at the FLBs', word((h) => pa(h, 'sessions_pa'), flbsOf), 'corrupts', 'LUO_SESSIONS_PRESERVED'],
  ['no FLBs', field('luo.flbs_pa', 0n), 'loses', 'LUO_FLBS_NULL'],
  ['FLBs where no memory is', field('luo.flbs_pa', WILD), 'corrupts', 'LUO_FLBS_PRESERVED'],
  [
    'FLBs inside of a page',
    word(
      (h) => pa(h, 'flbs_pa'),
      (h) => flbsOf(h) + 8n,
    ),
    'corrupts',
    'LUO_ADDRESS_ALIGNED',
  ],
  ['an empty block', sessions(8n, 0n), 'panics', 'KHO_BLOCK_COUNT'],
  ['a block with more than fit', sessions(8n, 52n), 'panics', 'KHO_BLOCK_COUNT'],
  ['a block with all there can be', sessions(8n, MAX), 'panics', 'KHO_BLOCK_COUNT'],
  ['one session less', sessions(8n, 2n), 'loses', 'LUO_ENTRY_BEYOND_COUNT'],
  ['an empty session counted', sessions(8n, 4n), 'takes-over', 'LUO_SESSION_NAME_EMPTY'],
  ['two empty sessions counted', sessions(8n, 5n), 'device-fails', 'LUO_SESSION_NAME'],
  ['a block that leads to itself', sessions(0n, (h) => storageOf(h)), 'panics', 'KHO_BLOCK_CYCLE'],
  ['a next block where no memory is', sessions(0n, WILD), 'corrupts', 'LUO_SESSIONS_PRESERVED'],
  ['an empty block of files', files(8n, 0n), 'device-fails', 'KHO_BLOCK_COUNT'],
  ['a block of files with more than fit', files(8n, 64n), 'device-fails', 'KHO_BLOCK_COUNT'],
  ['one file less in the block', files(8n, 2n), 'device-fails', 'LUO_FILE_COUNT'],
  ['an empty file counted', files(8n, 4n), 'device-fails', 'LUO_FILE_HANDLER'],
  [
    'a block of files that leads to itself',
    files(0n, (h) => storageOf(h, 0)),
    'device-fails',
    'KHO_BLOCK_CYCLE',
  ],
  ['one file more in the session', field(COUNT, 4n), 'device-fails', 'LUO_FILE_COUNT'],
  ['one file less in the session', field(COUNT, 2n), 'device-fails', 'LUO_FILE_COUNT'],
  ['no file in the session', field(COUNT, 0n), 'device-fails', 'LUO_FILE_COUNT'],
  [
    "another session's files",
    word(
      (h) => filesPa(h, 1),
      (h) => storageOf(h, 0),
    ),
    'device-fails',
    'LUO_FILE_COUNT',
  ],
]

function pa(handover: Handover, key: string): bigint {
  return child(luoOf(handover), key)?.pa as bigint
}

function filesPa(handover: Handover, session: number): bigint {
  return child(child(sessionsOf(handover)[session], 'file_set_ser'), 'files')?.pa as bigint
}

const HEADER = 'luo.luo-session.luo-session-header'
const arrays: readonly Case[] = [
  ...common,
  ['another version', field('luo.compatible', 'luo-v9'), 'panics', 'LUO_COMPATIBLE'],
  [
    'sessions of another version',
    field('luo.luo-session.compatible', 'luo-session-v1'),
    'panics',
    'LUO_SESSION_COMPATIBLE',
  ],
  ['FLBs of another version', field('luo.luo-flb.compatible', 'luo-flb-v2'), 'panics', 'LUO_FLB_COMPATIBLE'],
  ['sessions at 0', field(HEADER, 0n), 'corrupts', 'LUO_SESSIONS_PRESERVED'],
  ['sessions where no memory is', field(HEADER, WILD), 'corrupts', 'LUO_SESSIONS_PRESERVED'],
  ['one session less', sessions(0n, 2n), 'loses', 'LUO_ENTRY_BEYOND_COUNT'],
  ['no session', sessions(0n, 0n), 'loses', 'LUO_ENTRY_BEYOND_COUNT'],
  ['an empty session counted', sessions(0n, 4n), 'takes-over', 'LUO_SESSION_NAME_EMPTY'],
  ['two empty sessions counted', sessions(0n, 5n), 'device-fails', 'LUO_SESSION_NAME'],
  ['all sessions there can be', sessions(0n, MAX), 'device-fails', 'LUO_SESSION_NAME'],
  ['one file more', field(COUNT, 4n), 'device-fails', 'LUO_FILE_HANDLER'],
  ['one file less', field(COUNT, 2n), 'loses', 'LUO_ENTRY_BEYOND_COUNT'],
]

/** 6.19 drops the error of a session's files, and has no FLBs. */
const withoutErrors: readonly Case[] = [
  ...arrays.filter(
    ([what]) =>
      !/FLB|references|number of pages|handler|one file more|no name|no session$|counted|all sessions/.test(
        what,
      ),
  ),
  ['an unknown handler', field(HANDLER, 'memfd-v9'), 'loses', 'LUO_FILE_HANDLER'],
  ['one file more', field(COUNT, 4n), 'takes-over', 'LUO_FILE_HANDLER'],
  ['two empty sessions counted', sessions(0n, 5n), 'device-fails', 'LUO_SESSION_NAME'],
]

judgeEach({ '7.3': blocks, '7.1': arrays, '6.19': withoutErrors })

describe('a count of FLBs beyond the page', () => {
  const counted = (count: bigint, name?: number): Change =>
    all(flbs(8n, count), ...(name === undefined ? [] : [field('luo.flbs[*].name', 'X', name)]))

  test.each([
    ['2^40, and every name is found', counted(1n << 40n), 'takes-over'],
    ['2^40, and the second is not found', counted(1n << 40n, 1), 'corrupts'],
    ['all there can be, and the first is not found', counted(MAX, 0), 'corrupts'],
    ['one page more, and the third is not found', counted(64n, 2), 'loses'],
  ] as const)('%s', (_what, change, outcome) => {
    const verdict = judgeChanged(newest, change)
    expect(brokenRules(verdict)).toEqual(['LUO_FLB_COUNT'])
    expect(verdict.outcome).toBe(outcome)
  })
})

test('one pointer to FLBs out of place is one finding', () => {
  const change = word(
    (h) => pa(h, 'flbs_pa'),
    (h) => flbsOf(h) + 8n,
  )
  expect(brokenRules(judgeChanged(newest, change))).toEqual(['LUO_ADDRESS_ALIGNED'])
})

test('a session that comes back is told from one that does not', () => {
  const { parts } = judgeChanged(newest, field(FILES, 0n))
  const outcomes = new Map(parts.map(({ part, outcome }) => [part, outcome]))
  expect(outcomes.get('luo.sessions[vm-alpha]')).toBe('loses')
  expect(outcomes.get('luo.sessions[database]')).toBe('takes-over')
})

test('the console says of which session the files are refused', () => {
  const { console } = judgeChanged(newest, field(HANDLER, 'memfd-v1', 3))
  expect(console.slice(-2)).toEqual([
    "luo: No registered handler for compatible 'memfd-v1'",
    'luo: Failed to deserialize files for session [database] -2',
  ])
})
