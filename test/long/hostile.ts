/**
 * What images cost that are made to cost, at the size of the kernel's own limits and beyond the bounds of
 * the decoder. Takes minutes and a gigabyte; run by `npm run fuzz`, not by `npm test`.
 */
import { describe, expect, test } from 'vitest'
import { MAX_RECORDS } from '../../inspect/budget.ts'
import { findHandovers } from '../../inspect/find.ts'
import { childrenOf, type Node } from '../../inspect/tree.ts'
import { GeneratedMemory } from '../support/generated.ts'
import {
  type Cost,
  costOf,
  endlessChunks,
  endlessFiles,
  endlessTree,
  manyFdts,
  manySessions,
  oneBlob,
  sharedFiles,
  sharedPages,
  tinyNodes,
} from '../support/hostile.ts'

function expectBounded({ seconds, mebibytes }: Cost): void {
  expect(seconds).toBeLessThan(120)
  expect(mebibytes).toBeLessThan(1600)
}

const recordsBelow = (node: Node): number =>
  childrenOf(node).reduce((sum, inner) => sum + recordsBelow(inner), node.kind === 'record' ? 1 : 0)

describe('the most sessions that the kernel takes, 510,000', () => {
  test('without files', () => {
    const cost = costOf(manySessions(10_000, () => 0))
    expect(cost.codes).toEqual(['ADDRESS_NULL'])
    expectBounded(cost)
  })

  test('with one chain of files', () => {
    const cost = costOf(sharedFiles(10_000))
    expect(cost.codes).toEqual(['ADDRESS_NULL', 'REACHED_TWICE'])
    expectBounded(cost)
  })

  test('one block more', () => {
    const cost = costOf(manySessions(10_001, () => 0))
    expect(cost.codes).toEqual(['ADDRESS_NULL', 'CHAIN_LIMIT'])
  })
})

test('chains of files without end, for each of thousands of sessions', () => {
  const cost = costOf(endlessFiles())
  expect(cost.codes).toEqual(['ADDRESS_NULL', 'CHAIN_LIMIT', 'COMPATIBLE_UNKNOWN'])
  expect(recordsBelow(cost.handover.tree)).toBeLessThan(2 * MAX_RECORDS)
  expectBounded(cost)
})

test('600,000 files that list the same pages', () => {
  const cost = costOf(sharedPages(200))
  expect(cost.codes).toEqual(['ADDRESS_NULL', 'CHAIN_LIMIT', 'REACHED_TWICE'])
  expectBounded(cost)
})

test.each([
  { title: 'a radix tree without end', hostile: endlessTree, codes: ['CHAIN_LIMIT', 'REACHED_TWICE'] },
  { title: 'chunks without end, with bitmaps that overlap', hostile: endlessChunks, codes: ['CHAIN_LIMIT'] },
])('$title', ({ hostile, codes }) => {
  const cost = costOf(hostile())
  expect(cost.codes).toEqual(codes)
  expectBounded(cost)
})

test.each(['nodes', 'properties'] as const)('4 MiB of tiny %s', (kind) => {
  const cost = costOf(oneBlob('unknown', tinyNodes(1 << 22, kind)))
  expect(cost.codes).toEqual([])
  expectBounded(cost)
})

test('3,000 subtrees of 4 MiB each', () => {
  const cost = costOf(manyFdts(3000, tinyNodes(1 << 22, 'nodes')))
  expect(cost.codes).toEqual(['FDT_TRUNCATED'])
  expectBounded(cost)
})

test('a scan of a gigabyte of FDTs that hold the string which is looked for', () => {
  const fdt = tinyNodes(4096, 'nodes')
  fdt.set(new TextEncoder().encode('kho-v4'), 4090)
  const memory = new GeneratedMemory(0n, () => fdt, 1n << 30n)
  const before = process.cpuUsage()
  const found = findHandovers({
    format: 'raw',
    files: ['memory'],
    notes: [],
    warnings: [],
    ranges: memory.ranges,
    read: (pa, out) => memory.read(pa, out),
    presence: (pa) => memory.presence(pa),
    filePosition: () => undefined,
    close: () => {},
  })
  expect('problem' in found && /found 262144 other FDTs/.test(found.problem)).toBe(true)
  expect(process.cpuUsage(before).user / 1e6).toBeLessThan(60)
})
