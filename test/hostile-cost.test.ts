/**
 * What images cost that are made to cost: nothing that they share or repeat is multiplied, and counts
 * that are lies cost nothing. The same at full size, and where the bounds themselves are reached, is in
 * test/long (`npm run fuzz`).
 */
import { describe, expect, test } from 'vitest'
import { itemsAt, type Node } from '../inspect/tree.ts'
import {
  type Cost,
  costOf,
  knottedTree,
  manyFdts,
  manySessions,
  oneBlob,
  sharedFiles,
  sharedPages,
  tinyNodes,
} from './support/hostile.ts'

/** Some times what they take on a slow machine. */
const MAX_SECONDS = 10
const MAX_MEBIBYTES = 400

function expectCheap({ seconds, mebibytes }: Cost): void {
  expect(seconds).toBeLessThan(MAX_SECONDS)
  expect(mebibytes).toBeLessThan(MAX_MEBIBYTES)
}

function sessionsOf({ handover }: Cost): readonly Node[] {
  return itemsAt(
    handover.tree.children.find(({ segment }) => segment === 'luo'),
    'sessions',
  )
}

describe('sessions', () => {
  test('51,000 of them in 1,000 blocks are decoded', () => {
    const cost = costOf(manySessions(1000, () => 0))
    expect(cost.codes).toEqual(['ADDRESS_NULL'])
    expect(sessionsOf(cost).length).toBe(51_000)
    expectCheap(cost)
  })

  test('51,000 of them with one chain of files: it is decoded once', () => {
    const cost = costOf(sharedFiles(1000))
    expect(cost.codes).toEqual(['ADDRESS_NULL', 'REACHED_TWICE'])
    const files = sessionsOf(cost).map((session) => itemsAt(session, 'files').length)
    expect([files[0], Math.max(...files.slice(1))]).toEqual([63, 0])
    expectCheap(cost)
  })

  test('3,000 files whose folio arrays list the same pages: they are looked at once', () => {
    const cost = costOf(sharedPages(1))
    expect(cost.codes).toEqual(['ADDRESS_NULL', 'REACHED_TWICE'])
    expectCheap(cost)
  })
})

test('a radix tree whose entries lead to seven pages', () => {
  const cost = costOf(knottedTree())
  expect(cost.codes).toEqual(['REACHED_TWICE'])
  expect(cost.handover.faults.length).toBe(1001)
  expectCheap(cost)
})

describe('FDTs', () => {
  test.each(['nodes', 'properties'] as const)('1 MiB of tiny %s', (kind) => {
    const cost = costOf(oneBlob('unknown', tinyNodes(1 << 20, kind)))
    expect(cost.codes).toEqual([])
    expectCheap(cost)
  })

  test('3,000 subtrees of 64 KiB each: no more is parsed than the bound', () => {
    const cost = costOf(manyFdts(3000, tinyNodes(1 << 16, 'nodes')))
    expect(cost.codes).toEqual(['FDT_TRUNCATED'])
    expectCheap(cost)
  })
})
