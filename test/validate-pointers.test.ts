/** Pointers of real images that lead into a page at every offset: each is judged, and none makes the validator throw. */
import { expect, test } from 'vitest'
import { hex } from '../abi/memory.ts'
import { childrenOf, type Node, type ValueNode } from '../inspect/tree.ts'
import { littleEndian, Site } from '../mutate/site.ts'
import type { Base } from './support/fault-bases.ts'
import { realBase } from './support/fault-bases.ts'
import { judgeChanged, newest, oldest, withFdt } from './support/judged.ts'

const PAGE = 4096n
/** Where what is read reaches over the end of a page, and some in front of it. */
const OFFSETS = [...Array.from({ length: 24 }, (_, i) => PAGE - 24n + BigInt(i)), 1n, 7n, 8n, 2048n, 4000n]
const CHUNK = 'luo.sessions[*].files[*].memfd.folios.first'

function judgedAt(base: Base, { pa }: Node, address: bigint) {
  return judgeChanged(base, () => [{ pa, bytes: littleEndian(address, 8) }])
}

function* pointersBelow(node: Node): Generator<ValueNode> {
  if (node.kind === 'value' && node.type.kind === 'int' && node.type.to !== undefined) yield node
  for (const inner of childrenOf(node)) yield* pointersBelow(inner)
}

/** With none of its words in the page, Linux refuses the file (EINVAL), and takes over the rest. */
test.each([
  ['7.3, x86_64', await realBase('linux-7.3-x86_64-basic')],
  ['7.3, arm64', newest],
  ['7.1', withFdt],
  ['6.19', oldest],
])('a chunk that does not start at a page, %s', (_, base) => {
  const first = new Site(base.handover, base.kernel).nodes(CHUNK)[0] as ValueNode
  for (const offset of OFFSETS) {
    const verdict = judgedAt(base, first, (first.value as bigint) + offset)
    const isNowhere = offset > PAGE - 8n
    expect(isNowhere ? ['loses'] : ['loses', 'corrupts'], hex(offset)).toContain(verdict.outcome)
  }
})

test('every pointer, a few bytes in front of the end of a page', () => {
  const pointers = [...pointersBelow(newest.handover.tree)]
  expect(pointers.length).toBeGreaterThanOrEqual(20)
  for (const pointer of pointers) {
    const page = (pointer.value as bigint) - ((pointer.value as bigint) % PAGE)
    for (const offset of [4081n, 4089n, 4095n])
      expect(judgedAt(newest, pointer, page + offset).findings, `${hex(pointer.pa)} ${offset}`).not.toEqual(
        [],
      )
  }
})
