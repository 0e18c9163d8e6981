/** Paths: printed one way, taken back the same way, for any name. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatPath } from '../abi/fault.ts'
import { phys } from '../abi/memory.ts'
import { findNode, type ListNode, parsePath, type RecordNode } from '../inspect/tree.ts'

test.each([
  [
    ['luo', 'sessions', { index: 0, key: 'vm-alpha' }, 'files', { index: 2, key: '0x1' }, 'memfd', 'size'],
    'luo.sessions[vm-alpha].files[0x1].memfd.size',
  ],
  [['luo', 'sessions', { index: 3 }], 'luo.sessions[3]'],
  [['luo', 'sessions', { index: 3, key: '7' }], 'luo.sessions["7"]'],
  [['luo', 'sessions', { index: 3, key: '' }], 'luo.sessions[""]'],
  [['luo', 'sessions', { index: 3, key: 'a]b "c"\u001b' }], 'luo.sessions["a]b \\"c\\"\\u001b"]'],
] as const)('%j is printed as %s', (path, text) => {
  expect(formatPath(path)).toBe(text)
})

function listOf(names: readonly string[]): RecordNode {
  const placed = { pa: phys(0), length: 0, doc: '' }
  const items = names.map(
    (key, index): RecordNode => ({
      kind: 'record',
      segment: { index, key },
      type: undefined,
      children: [],
      ...placed,
    }),
  )
  const list: ListNode = { kind: 'list', segment: 'sessions', items, ...placed }
  return { kind: 'record', segment: '', type: undefined, children: [list], ...placed }
}

test('every name is found again by its printed path', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.string({ unit: 'binary' }), { minLength: 1, maxLength: 5 }), (names) => {
      const root = listOf(names)
      for (const [index, key] of names.entries()) {
        const found = findNode(root, formatPath(['sessions', { index, key }]))
        expect(found).toEqual({ node: (root.children[0] as ListNode).items[index] })
      }
    }),
  )
})

test('what is no path is said to be none, what is not there is named', () => {
  expect(parsePath('luo..x')).toBeUndefined()
  expect(parsePath('luo[')).toBeUndefined()
  expect(findNode(listOf(['a', 'b']), 'sessions[c]')).toEqual({
    problem: "no 'sessions[c]' in this handover; 'sessions' has [a], [b]",
  })
})
