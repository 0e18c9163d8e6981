/**
 * Each field of a memfd's record, of the array of its folios and of the folios' records in real images with
 * each kind of wrong value: what the kernel's source says becomes of it.
 */
import { describe, expect, test } from 'vitest'
import type { Handover } from '../inspect/decode.ts'
import { child, itemsAt, numberAt, type RecordNode } from '../inspect/tree.ts'
import type { VmallocArray } from '../inspect/vmalloc.ts'
import {
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

/** Files in the order of the images: 10,000 bytes, empty, 3 MiB with a huge folio. */
function recordOf(handover: Handover, file: number): RecordNode {
  const session = itemsAt(child(handover.tree, 'luo'), 'sessions')[0]
  return child(itemsAt(session, 'files')[file], 'memfd') as RecordNode
}

function arrayOf(handover: Handover, file = 0): VmallocArray {
  return (child(recordOf(handover, file), 'folios') as RecordNode).bulk as VmallocArray
}

const chunkOf = (handover: Handover, file = 0): bigint => arrayOf(handover, file).chunks[0] as bigint
const pageOf = (handover: Handover, file = 0): bigint => arrayOf(handover, file).groups[0] as bigint
const folio = (
  index: number,
  at: 0 | 8,
  value: bigint | ((handover: Handover) => bigint),
  file = 0,
): Change => word((h) => pageOf(h, file) + BigInt(16 * index + at), value)
const chunk = (at: bigint, value: bigint | ((handover: Handover) => bigint)): Change =>
  word((h) => chunkOf(h) + at, value)
const frameOf = (handover: Handover, index: number, file = 0): bigint =>
  BigInt(arrayOf(handover, file).valueAt(index)?.pfn as number)
/** Dirty and up to date. */
const GOOD = 3n << 52n
const MEMFD = 'luo.sessions[*].files[*].memfd'
const at = (name: string): string => `${MEMFD}.${name}`

/** Size, count and array. */
const record: readonly Case[] = [
  ['a negative position', field(at('pos'), MAX), 'loses', 'MEMFD_POSITION'],
  ['no size', field(at('size'), 0n), 'corrupts', 'MEMFD_PAST_END'],
  ['a smaller size', field(at('size'), 4096n), 'corrupts', 'MEMFD_PAST_END'],
  ['a larger size', field(at('size'), 40000n), 'corrupts', 'MEMFD_COVERAGE'],
  ['the largest size', field(at('size'), MAX >> 1n), 'corrupts', 'MEMFD_COVERAGE'],
  ['a negative size', field(at('size'), MAX), 'corrupts', 'MEMFD_SIZE'],
  ['a size without folios', field(at('size'), 1n, 1), 'corrupts', 'MEMFD_COVERAGE'],
  ['no folios counted', field(at('nr_folios'), 0n), 'corrupts', 'MEMFD_UNCOUNTED'],
  ['one folio less', field(at('nr_folios'), 2n), 'corrupts', 'MEMFD_UNCOUNTED'],
  ['a record of zeros counted', field(at('nr_folios'), 4n), 'takes-over', 'MEMFD_EMPTY_RECORD'],
  ['more than the array holds', field(at('nr_folios'), 257n), 'corrupts', 'MEMFD_COUNT'],
  ['all folios there can be', field(at('nr_folios'), MAX), 'corrupts', 'MEMFD_COUNT'],
  ['folios of an empty file', field(at('nr_folios'), 1n, 1), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['no chunk', field(at('folios.first'), 0n), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['a chunk where no memory is', field(at('folios.first'), WILD), 'corrupts', 'MEMFD_FOLIOS'],
  [
    "another file's chunk",
    word(
      (h) => first(h),
      (h) => chunkOf(h, 2),
    ),
    'loses',
    'KHO_VMALLOC_TOTAL',
  ],
  ['no pages', field(at('folios.total_pages'), 0), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['one page more', field(at('folios.total_pages'), 2), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['all pages there can be', field(at('folios.total_pages'), 0xffffffff), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['no flags', field(at('folios.flags'), 0), 'takes-over', 'KHO_VMALLOC_FLAGS'],
  ['all flags', field(at('folios.flags'), 0xffff), 'takes-over', 'KHO_VMALLOC_FLAGS'],
  ['groups of two pages', field(at('folios.order'), 1), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['groups of 2^31 pages', field(at('folios.order'), 31), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['an order that wraps', field(at('folios.order'), 32), 'corrupts', 'KHO_VMALLOC_ORDER'],
  ['the largest order', field(at('folios.order'), 0xffff), 'loses', 'KHO_VMALLOC_TOTAL'],
]

/** Where the first chunk of the first file is stored. */
function first(handover: Handover): bigint {
  return child(child(recordOf(handover, 0), 'folios'), 'first')?.pa as bigint
}

/** Chunk and records of folios. */
const folios: readonly Case[] = [
  ['a chunk that leads to itself', chunk(0n, (h) => chunkOf(h)), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['a next chunk where no memory is', chunk(0n, WILD), 'corrupts', 'MEMFD_FOLIOS'],
  ['the page of the array as next chunk', chunk(0n, (h) => pageOf(h)), 'loses', 'MEMFD_FOLIOS'],
  ['no pages in the chunk', chunk(8n, 0n), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['one page more in the chunk', chunk(16n, (h) => chunkOf(h)), 'loses', 'KHO_VMALLOC_TOTAL'],
  ['a page where no memory is', chunk(8n, WILD), 'loses', 'MEMFD_FOLIOS'],
  ['the inside of a page', chunk(8n, (h) => pageOf(h) + 8n), 'takes-over', 'KHO_VMALLOC_ALIGNED'],
  ['the chunk not preserved', unpreserved((h) => chunkOf(h)), 'loses', 'MEMFD_FOLIOS'],
  ['the array not preserved', unpreserved((h) => pageOf(h)), 'loses', 'MEMFD_FOLIOS'],
  ['a hole', folio(0, 0, 0n), 'corrupts', 'MEMFD_HOLE'],
  ['a last folio of zeros', folio(2, 0, 0n), 'corrupts', 'MEMFD_HOLE'],
  ['no flags', folio(0, 0, (h) => frameOf(h, 0)), 'corrupts', 'MEMFD_NOT_UPTODATE'],
  ['dirty only', folio(0, 0, (h) => frameOf(h, 0) | (1n << 52n)), 'corrupts', 'MEMFD_NOT_UPTODATE'],
  ['up to date only', folio(0, 0, (h) => frameOf(h, 0) | (2n << 52n)), 'corrupts', 'MEMFD_CLEAN'],
  ['all flags', folio(0, 0, (h) => frameOf(h, 0) | (0xfffn << 52n)), 'takes-over', 'MEMFD_FOLIO_FLAGS'],
  ["the next folio's index", folio(0, 8, 1n), 'loses', 'MEMFD_INDEX'],
  ['an index behind the end', folio(2, 8, 3n), 'corrupts', 'MEMFD_PAST_END'],
  ['the largest index', folio(2, 8, MAX), 'corrupts', 'MEMFD_PAST_END'],
  ["another file's folio", folio(0, 0, (h) => frameOf(h, 3, 2) | GOOD), 'corrupts', 'KHO_CLAIMED_TWICE'],
]

const recordOfV2: readonly Case[] = [
  ['an unknown seal', field(at('seals'), 0x40), 'loses', 'MEMFD_SEALS'],
  ['all seals', field(at('seals'), 0xffffffff), 'loses', 'MEMFD_SEALS'],
  ['flags', field(at('flags'), 0x80000000), 'takes-over', 'MEMFD_FLAGS'],
]

/** From 7.1 on the first folio that cannot be restored loses the file, whichever it is. */
const errors: readonly Case[] = [
  ['a folio where no memory is', folio(0, 0, (WILD >> 12n) | GOOD), 'loses', 'MEMFD_FOLIO'],
  ['a second folio where no memory is', folio(1, 0, (WILD >> 12n) | GOOD), 'loses', 'MEMFD_FOLIO'],
  ['a folio twice', folio(1, 0, (h) => frameOf(h, 0) | GOOD), 'loses', 'MEMFD_FOLIO'],
]
/** Up to 7.0 the error is only that of the folio before, which was none. */
const errorsDropped: readonly Case[] = [
  ['a folio where no memory is', folio(0, 0, (WILD >> 12n) | GOOD), 'loses', 'MEMFD_FOLIO'],
  ['a second folio where no memory is', folio(1, 0, (WILD >> 12n) | GOOD), 'corrupts', 'MEMFD_FOLIO'],
  ['a folio twice', folio(1, 0, (h) => frameOf(h, 0) | GOOD), 'corrupts', 'MEMFD_FOLIO'],
]

judgeEach({
  '7.3': [...record, ...recordOfV2, ...folios, ...errors],
  '7.1': [...record, ...recordOfV2, ...folios, ...errors],
  '6.19': [...record, ...folios, ...errorsDropped],
})

test('known seals are taken over, and F_SEAL_EXEC brings others with it', () => {
  expect(judgeChanged(newest, field(at('seals'), 0x3f)).findings).toEqual([])
  const { findings, outcome } = judgeChanged(newest, field(at('seals'), 0x20))
  expect(findings.map(({ rule, severity }) => [rule, severity])).toEqual([['MEMFD_SEAL_EXEC', 'warning']])
  expect(outcome).toBe('loses')
})

test('a folio that is larger than its place in the file is put elsewhere', () => {
  const huge = [...arrayOf(newest.handover, 2).values()].findIndex(
    ({ pfn }) => newest.handover && Number(pfn) % 512 === 0,
  )
  const index = BigInt(arrayOf(newest.handover, 2).valueAt(huge)?.index as number)
  const { outcome, findings } = judgeChanged(newest, folio(huge, 8, index + 1n, 2))
  expect(findings.map(({ rule }) => rule)).toContain('MEMFD_INDEX_ALIGNED')
  expect(outcome).toBe('corrupts')
})

test('the address of a folio that cannot be restored is on the console', () => {
  const { console } = judgeChanged(newest, folio(0, 0, 0x40001n | GOOD))
  expect(console.at(-1)).toBe('memfd_luo: Unable to restore folio at physical address: 40001000')
  expect(numberAt(recordOf(newest.handover, 0), 'nr_folios')).toBe(3n)
})

describe('a page of a file that something else only reads', () => {
  const pages: readonly (readonly [what: string, pa: bigint])[] = [
    ['the root FDT', newest.fdt],
    ['the FDT of the regions', child(newest.handover.tree, 'memblock')?.pa as bigint],
    ['the FLBs', child(child(newest.handover.tree, 'luo'), 'flbs')?.pa as bigint],
    ['the metadata', child(newest.handover.tree, 'kexec_metadata')?.pa as bigint],
  ]
  test.each(pages)('%s', (_what, pa) => {
    const verdict = judgeChanged(newest, folio(0, 0, (pa / 4096n) | GOOD))
    expect(brokenRules(verdict)).toEqual(['KHO_CLAIMED_TWICE'])
    expect(verdict.outcome).toBe('corrupts')
  })

  test('a region on the folios of a file is one finding for each two owners', () => {
    const sessions = itemsAt(child(newest.handover.tree, 'luo'), 'sessions')
    const file = itemsAt(sessions[1], 'files')[1]
    const folios = (child(child(file, 'memfd'), 'folios') as RecordNode).bulk as VmallocArray
    const start = BigInt(folios.valueAt(0)?.pfn as number) * 4096n
    const aligned = (start + 0xffffn) & ~0xffffn
    const { findings, outcome } = judgeChanged(newest, field('memblock.reserve_mem[*].start', aligned, 1))
    const pairs = findings.filter(({ rule }) => rule === 'KHO_CLAIMED_TWICE')
    expect(pairs.map(({ path, affects }) => [path, ...affects])).toEqual([
      ['luo.sessions[database].files[0x7].memfd.folios', 'memblock.reserve_mem[oops]'],
      ['luo.sessions[vm-alpha].files[0xdeadbeefcafef00d].memfd.folios', 'memblock.reserve_mem[oops]'],
    ])
    expect(outcome).toBe('corrupts')
  })
})
