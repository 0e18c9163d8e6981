/**
 * Handovers made to cost, as large as they get: the validator judges them without a throw, and its work
 * stays bounded. What is damaged rather than large is in validate-kho.test.ts and validate-random.test.ts.
 */
import { expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { type DecodeOptions, decodeHandover } from '../inspect/decode.ts'
import { readFdt } from '../inspect/fdt.ts'
import { validate } from '../inspect/validate.ts'
import {
  type Hostile,
  knottedTree,
  manyFdts,
  manySessions,
  oneBlob,
  sharedFiles,
  sharedPages,
  tinyNodes,
} from './support/hostile.ts'
import type { PatchedMemory } from './support/patched.ts'

/** Of processor time, for the verdict alone: enough for any machine, far too little for work that grows with the square. */
const MAX_SECONDS = 15
const PAGE = 4096
/** Where no hostile handover has anything. */
const EMPTY_MAP = 0x7_0000n

function expectJudged(memory: PatchedMemory, root: bigint, decode: DecodeOptions, what: string): number {
  const handover = decodeHandover(memory, phys(root), decode)
  const before = process.cpuUsage()
  const { outcome, findings } = validate(handover, { decode })
  const { user, system } = process.cpuUsage(before)
  expect((user + system) / 1e6, what).toBeLessThan(MAX_SECONDS)
  expect(outcome, what).not.toBe('no-handover')
  return findings.length
}

/** A kernel refuses a handover without a map before it looks at anything else. */
function withMap({ memory, root }: Hostile): void {
  const bytes = new Uint8Array(1 << 18)
  memory.read(root, bytes)
  const map = readFdt(bytes).root?.properties.find(({ name }) => name === 'preserved-memory-map')
  if (!map) throw new Error('the root has a map')
  memory.writeU64(root + BigInt(map.valueOffset), EMPTY_MAP)
  memory.write(EMPTY_MAP, new Uint8Array(PAGE))
}

test.each([
  ['5,100 sessions', () => manySessions(100, () => 0)],
  ['5,100 sessions with one chain of files', () => sharedFiles(100)],
  ['files whose folio arrays list the same pages', () => sharedPages(1)],
  ['1 MiB of tiny nodes of a memblock', () => oneBlob('memblock', tinyNodes(1 << 20, 'nodes'))],
  ['1 MiB of tiny properties of a memblock', () => oneBlob('memblock', tinyNodes(1 << 20, 'properties'))],
  ['1 MiB of tiny nodes of something unknown', () => oneBlob('unknown', tinyNodes(1 << 20, 'nodes'))],
  ['300 subtrees', () => manyFdts(300, tinyNodes(1 << 12, 'nodes'))],
] as const)('%s', (what, make) => {
  const hostile = make()
  withMap(hostile)
  expect(expectJudged(hostile.memory, hostile.root, {}, what)).toBeGreaterThan(0)
})

test('a radix tree whose entries lead to seven pages', () => {
  const { memory, root } = knottedTree()
  expect(expectJudged(memory, root, {}, 'the tree')).toBeGreaterThan(0)
})
