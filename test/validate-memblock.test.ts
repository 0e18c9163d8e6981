/** reserve_mem regions and kexec-metadata of real images with wrong values, against the kernel's command line. */
import { describe, expect, test } from 'vitest'
import type { Handover } from '../inspect/decode.ts'
import { child, itemsAt, numberAt } from '../inspect/tree.ts'
import { validate } from '../inspect/validate.ts'
import {
  brokenRules,
  type Case,
  type Change,
  field,
  judgeEach,
  newest,
  unpreserved,
} from './support/judged.ts'

const START = 'memblock.reserve_mem[*].start'
const SIZE = 'memblock.reserve_mem[*].size'
const regionOf = (handover: Handover, index: number) =>
  itemsAt(child(handover.tree, 'memblock'), 'reserve_mem')[index]
const startOf = (handover: Handover, index: number): bigint =>
  numberAt(regionOf(handover, index), 'start') as bigint

const regions: readonly Case[] = [
  ['another version', field('memblock.compatible', 'memblock-v2'), 'loses', 'MEMBLOCK_COMPATIBLE'],
  [
    'a region of another version',
    field('memblock.reserve_mem[*].compatible', 'reserve-mem-v2'),
    'loses',
    'RESERVE_MEM_COMPATIBLE',
  ],
  [
    'a region of another name',
    field('memblock.reserve_mem[*].name', 'tracf'),
    'loses',
    'RESERVE_MEM_NOT_ASKED',
  ],
  [
    'two regions of one name',
    field('memblock.reserve_mem[*].name', 'oops\0', 0),
    'loses',
    'RESERVE_MEM_NODE',
  ],
  [
    'a start off its boundary',
    field(START, startOf(newest.handover, 0) + 64n),
    'loses',
    'RESERVE_MEM_ALIGNMENT',
  ],
  ['a start where no memory is', field(START, 0x7ff_ffff_f000n), 'corrupts', 'RESERVE_MEM_PRESERVED'],
  ['a larger region', field(SIZE, 0x200000n), 'loses', 'RESERVE_MEM_SAME_SIZE'],
  ['a region without size', field(SIZE, 0n), 'loses', 'RESERVE_MEM_SAME_SIZE'],
  ['a region not preserved', unpreserved((h) => startOf(h, 0)), 'corrupts', 'RESERVE_MEM_PRESERVED'],
  [
    'the FDT not preserved',
    unpreserved((h) => child(h.tree, 'memblock')?.pa as bigint),
    'takes-over',
    'MEMBLOCK_PRESERVED',
  ],
]

const metadata: readonly Case[] = [
  ['another version', field('kexec_metadata.version', 2), 'loses', 'METADATA_VERSION'],
  ['no version', field('kexec_metadata.version', 0), 'loses', 'METADATA_VERSION'],
  [
    'a release without end',
    field('kexec_metadata.previous_release', new Uint8Array(65).fill(0x37)),
    'takes-over',
    'METADATA_RELEASE',
  ],
  ['no handover counted', field('kexec_metadata.kexec_count', 0), 'takes-over', 'METADATA_COUNT'],
  [
    'not preserved',
    unpreserved((h) => child(h.tree, 'kexec_metadata')?.pa as bigint),
    'corrupts',
    'METADATA_PRESERVED',
  ],
  ['a blob of three bytes', sized(3n), 'loses', 'METADATA_SIZE'],
  ['a blob of 72 bytes', sized(72n), 'loses', 'METADATA_SIZE'],
]

function sized(size: bigint): Change {
  return (site) => {
    const item = itemsAt(site.handover.tree, 'subtrees').find(
      (node) => typeof node.segment === 'object' && node.segment.key === 'kexec-metadata',
    )
    const change = site.set(child(item, 'size'), size)
    return 'length' in change ? change.flatMap((edit) => ('bytes' in edit ? [edit] : [])) : []
  }
}

judgeEach({
  '7.3': [...regions, ...metadata],
  '7.1': [...regions.filter(([what]) => !what.includes('boundary')), ...metadata],
  '6.19': regions.filter(([what]) => !what.includes('boundary')),
})

describe('the command line', () => {
  const judged = (commandLine?: string) => {
    const { commandLine: _own, ...options } = newest.options
    return validate(newest.handover, commandLine === undefined ? options : { ...options, commandLine })
  }

  test('decides which regions are revived, in which order and how', () => {
    const { console, outcome } = judged('quiet reserve_mem=64K:64K:oops reserve_mem=0x100000:0:trace')
    expect(outcome).toBe('takes-over')
    expect(console.slice(1, 3)).toEqual([
      "Revived memory reservation 'oops' from KHO",
      "Revived memory reservation 'trace' from KHO",
    ])
  })

  test('may ask for another size, another alignment, another region', () => {
    const { console, outcome } = judged(
      'reserve_mem=2M:4096:trace reserve_mem=64K:1G:oops reserve_mem=4K:4096:new',
    )
    expect(outcome).toBe('loses')
    expect(console.slice(1, 4)).toEqual([
      "KHO reserve-mem 'trace' has wrong size (0x100000 != 0x200000)",
      "KHO reserve-mem 'oops' has wrong alignment (0x40000000, 0x5fcc0000)",
      "FDT 'memblock' has no child 'new': -1",
    ])
  })

  test('that asks for none loses all; one that is not known is taken to ask for all', () => {
    expect(judged('quiet').outcome).toBe('loses')
    expect(brokenRules(judged('quiet'))).toEqual(['RESERVE_MEM_NOT_ASKED'])
    expect(judged().findings).toEqual([])
  })

  const OOPS = 'reserve_mem=64K:65536:oops'
  const revived = (name: string) => `Revived memory reservation '${name}' from KHO`
  const malformed = 'reserve_mem: empty or malformed parameter'

  test.each([
    ['a number that ends in front of its suffix', 'reserve_mem=08M:4096:trace', malformed],
    ['no size', 'reserve_mem=:4096:trace', malformed],
    ['a size of nothing', 'reserve_mem=0:4096:trace', malformed],
    ['a size that is no number', 'reserve_mem=M:4096:trace', malformed],
    ['nothing at all', 'reserve_mem=', malformed],
    ['no name', 'reserve_mem=1M:4096:', malformed],
    ['a name of 16 characters', 'reserve_mem=1M:4096:abcdefghijklmnop', malformed],
    ['a name of spaces', 'reserve_mem="1M:4096:  "', malformed],
    ['a parameter without a value', 'reserve_mem', undefined],
    ['a parameter of init', '-- reserve_mem=1M:4096:trace', undefined],
  ])('with %s asks for nothing', (_, parameter, line) => {
    const verdict = judged(`${OOPS} ${parameter}`)
    expect(verdict.outcome).toBe('loses')
    expect(brokenRules(verdict)).toEqual(['RESERVE_MEM_NOT_ASKED'])
    expect(verdict.console.slice(1, 3)).toEqual([
      revived('oops'),
      line ?? expect.not.stringContaining('reserv'),
    ])
  })

  test.each([
    ['no alignment', 'reserve_mem=1M::trace'],
    ['an octal size', 'reserve_mem=04000000:010000:trace'],
    ['a hexadecimal one', 'reserve_mem=0x400k:0x1k:trace'],
    ['the value in quotes', 'reserve_mem="1M:4096:trace"'],
    ['all in quotes', '"reserve_mem=1M:4096:trace"'],
    ['a hyphen', 'reserve-mem=1M:4096:trace'],
    ['spaces between quotes in front', 'dyndbg="file a +p" reserve_mem=1M:4096:trace'],
  ])('may ask with %s', (_, parameter) => {
    const { console, outcome } = judged(`${OOPS}\t${parameter} -- quiet`)
    expect(outcome).toBe('takes-over')
    expect(console.slice(1, 3)).toEqual([revived('oops'), revived('trace')])
  })

  test('asks for a name once', () => {
    const { console, outcome } = judged(`${OOPS} reserve_mem=1M:4096:trace reserve_mem=1M:4096:trace`)
    expect(outcome).toBe('takes-over')
    expect(console[3]).toBe('reserve_mem: name "trace" was already used')
  })

  test('asks for eight regions at most', () => {
    const others = Array.from({ length: 7 }, (_, i) => `reserve_mem=4K:4K:new${i}`)
    const verdict = judged([...others, OOPS, 'reserve_mem=1M:4096:trace'].join(' '))
    expect(brokenRules(verdict)).toContain('RESERVE_MEM_FULL')
    expect(verdict.console.slice(8, 10)).toEqual([
      revived('oops'),
      'reserve_mem: no more room for reserved memory',
    ])
  })
})
