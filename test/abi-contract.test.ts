/** Every shape in which a version can say which it is, through everything that looks at versions. */
import { describe, expect, test } from 'vitest'
import type { Component, ComponentVersion, Contract } from '../abi/registry.ts'
import { satisfies } from '../abi/registry.ts'
import { packed, u64le } from '../abi/schema.ts'
import { compareVersions } from '../inspect/abi-compare.ts'
import { accepts } from '../inspect/abi-contract.ts'
import { describeAbi, describeVersion, stableJson, type VersionDescription } from '../inspect/abi-document.ts'
import { exportC } from '../inspect/abi-export-c.ts'
import { exportKsy } from '../inspect/abi-export-ksy.ts'
import { lintTree } from '../inspect/abi-lint.ts'
import { versionsNamed } from '../inspect/abi-names.ts'
import { contractText, renderVersion } from '../inspect/abi-show.ts'
import { parseStored } from '../inspect/abi-stored.ts'
import { noPaint } from '../inspect/paint.ts'
import { parseTree } from '../inspect/source-tree.ts'
import { memoryTree } from './support/source-tree.ts'

const string = (value: string): Contract => ({ kind: 'string', value })
const integer = (name: string, value: number): Contract => ({ kind: 'integer', name, value })
const composite = (...parts: string[]): Contract => ({ kind: 'composite', parts })
const list = (...values: string[]): Contract => ({ kind: 'list', values })
const none: Contract = { kind: 'none' }

const root = packed(
  'toy_ser',
  { doc: 'A toy.', source: 'include/linux/kho/abi/memfd.h' },
  { number: u64le('A number.') },
)

const contracts: readonly Contract[] = [
  string('toy-v1'),
  integer('toy', 7),
  composite('toy-v1', 'part-v3'),
  list('toy-v2', 'toy-v1'),
  none,
]

const versions: readonly ComponentVersion[] = contracts.map((contract) => ({
  id: `toy/${contract.kind}`,
  contract,
  place: { kind: 'referrer' },
  root,
}))

const component: Component = { name: 'memfd', doc: 'Toys.', key: 'memfd', versions }
const described: readonly VersionDescription[] = versions.map((version) =>
  describeVersion(component, version),
)

describe('a reader with one shape and a writer with the other', () => {
  test.each([
    [string('a-v1'), string('a-v1'), true],
    [string('a-v1'), string('a-v2'), false],
    [integer('a', 1), integer('a', 1), true],
    [integer('a', 1), integer('a', 2), false],
    [integer('a', 1), integer('b', 1), false],
    [integer('a', 1), string('1'), false],
    [composite('a', 'b-v1'), composite('a', 'b-v1'), true],
    [composite('a', 'b-v1'), composite('a', 'b-v2'), false],
    [composite('a', 'b-v1'), composite('b-v1', 'a'), false],
    [composite('a', 'b-v1'), string('a;b-v1'), true],
    [string('a-v1'), list('a-v2', 'a-v1'), true],
    [string('a-v3'), list('a-v2', 'a-v1'), false],
    [list('a-v2', 'a-v1'), string('a-v1'), true],
    [list('a-v3', 'a-v2'), list('a-v2', 'a-v1'), true],
    [list('a-v4', 'a-v3'), list('a-v2', 'a-v1'), false],
    [none, none, true],
    [none, string('a-v1'), true],
    [string('a-v1'), none, false],
  ])('%o reads %o: %s', (reader, writer, taken) => {
    expect(accepts(reader, writer)).toBe(taken)
  })
})

describe.each(
  contracts.map((contract, index) => [contract.kind, described[index] as VersionDescription] as const),
)('%s', (kind, version) => {
  const texts: Record<string, string> = {
    string: '"toy-v1" in the record that points to it',
    integer: '"toy 7" in the record that points to it',
    composite: '"toy-v1;part-v3" in the record that points to it',
    list: '"toy-v2 | toy-v1" in the record that points to it',
    none: 'not versioned',
  }

  test('is shown', () => {
    expect(contractText(version)).toBe(texts[kind])
    expect(renderVersion(version, 4096, noPaint)).toMatch(/0x00 \|number/)
  })

  test('is frozen and read back', () => {
    const document = { ...describeAbi(), versions: { [version.id]: version } }
    const stored = parseStored(stableJson(document))
    expect(stored).toEqual(document)
  })

  test('is exported', () => {
    const header = exportC(version.id, [version])
    const values: Record<string, string> = {
      string: '#define MEMFD_LUO_FH_COMPATIBLE "toy-v1"',
      integer: '#define MEMFD_LUO_FH_COMPATIBLE 7',
      composite: '#define MEMFD_LUO_FH_COMPATIBLE "toy-v1;part-v3"',
      list: '#define MEMFD_LUO_FH_COMPATIBLE "toy-v2\\0toy-v1"',
    }
    expect(header.split('\n').find((line) => line.includes('MEMFD_LUO_FH'))).toBe(values[kind])
    expect(exportKsy(version)).toMatch(/id: "number"/)
  })

  test('with another layout under the same contract is a silent break', () => {
    const grown = JSON.parse(
      JSON.stringify(version).replaceAll('"size":8', '"size":16'),
    ) as VersionDescription
    expect(compareVersions(version, grown).forward.verdict).toBe('silent')
  })

  test('is compared with the others', () => {
    const verdicts = described.map((other) => compareVersions(version, other).forward.verdict)
    const expected: Record<string, readonly string[]> = {
      string: ['identical', 'incompatible', 'incompatible', 'compatible', 'compatible'],
      integer: ['incompatible', 'identical', 'incompatible', 'incompatible', 'compatible'],
      composite: ['incompatible', 'incompatible', 'identical', 'incompatible', 'compatible'],
      list: ['compatible', 'incompatible', 'incompatible', 'identical', 'compatible'],
      none: ['incompatible', 'incompatible', 'incompatible', 'incompatible', 'identical'],
    }
    expect(verdicts).toEqual(expected[kind])
  })
})

test('a name finds a version by what it says', () => {
  const document = {
    ...describeAbi(),
    components: { memfd: { doc: 'Toys.', versions: versions.map(({ id }) => id) } },
    versions: Object.fromEntries(described.map((version) => [version.id, version])),
  }
  const found = ['toy-v1', 'toy 7', 'toy-v1;part-v3', 'toy-v2 | toy-v1', 'toy/none'].map((name) =>
    versionsNamed(document, name).map(({ id }) => id),
  )
  expect(found).toEqual([['toy/string'], ['toy/integer'], ['toy/composite'], ['toy/list'], ['toy/none']])
})

test.each([
  [string('toy-v1'), '"toy-v1"', '"toy-v2"'],
  [composite('toy-v1', 'part-v3'), '"toy-v1;part-v3"', '"toy-v1;part-v4"'],
  [list('toy-v2', 'toy-v1'), '"toy-v1"', '"toy-v3"'],
  [integer('toy', 7), '7', '8'],
])('a header is held against %o', async (contract, known, unknown) => {
  const registry: readonly Component[] = [
    { ...component, versions: [{ ...(versions[0] as ComponentVersion), contract }] },
  ]
  const findings = await Promise.all(
    [known, unknown].map(async (value) => {
      const source = `#define MEMFD_LUO_FH_COMPATIBLE ${value}\nstruct toy_ser { u64 number; } __packed;\n`
      const tree = await parseTree(memoryTree({ 'include/linux/kho/abi/memfd.h': source }))
      return tree ? lintTree(tree, registry).map(({ rule }) => rule) : ['no tree']
    }),
  )
  expect(findings).toEqual([[], ['UNKNOWN_VERSION']])
  expect(satisfies(contract, contract.kind === 'integer' ? 7 : JSON.parse(known))).toBe(true)
})
