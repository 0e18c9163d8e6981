/** What a kernel is expected to give back of images that hide or lose it, and files that say so instead. */
import { describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { applyFault, faultNamed } from '../mutate/catalogue.ts'
import { isUnfit, patchesOf } from '../mutate/change.ts'
import type { NamedFault } from '../mutate/named-fault.ts'
import { PatchedView } from '../mutate/patch.ts'
import { Site } from '../mutate/site.ts'
import { differences, type Expectation, expectationOf } from '../qemu/expectation.ts'
import { readConsole } from '../qemu/report.ts'
import { type Base, realBase } from './support/fault-bases.ts'

const base: Base = await realBase('linux-7.3-arm64-4k-basic')

function heldBy(faultName: string | undefined, commandLine: string): Expectation {
  if (faultName === undefined) return expectationOf(base.handover, commandLine)
  const change = applyFault(faultNamed(faultName) as NamedFault, new Site(base.handover, base.kernel), 1)
  if (isUnfit(change)) throw new Error(change.unfit)
  const memory = new PatchedView(base.memory, patchesOf(change))
  return expectationOf(decodeHandover(memory, phys(base.fdt), base.decode), commandLine)
}

/** What is missing of it where a kernel gives nothing back. */
function missing(faultName: string | undefined, commandLine: string): readonly string[] {
  return differences(heldBy(faultName, commandLine), readConsole([])).map(({ path }) => path)
}

test.each([
  [undefined, undefined],
  ['test-compatible-unknown', true],
  ['test-magic-wrong', true],
  ['test-sum-missing', true],
  ['test-folios-missing', true],
] as const)(
  "the kernel's test is expected to succeed, except with folios that are trimmed away: %s",
  (fault, expected) => {
    expect(heldBy(fault, '').khoTest).toBe(expected)
  },
)

describe('regions that the command line asks for', () => {
  const ASKED = 'reserve_mem=1M:4096:trace reserve_mem=1M:4096:new reserve_mem=broken'

  test.each([
    undefined,
    'memblock-compatible-unknown',
    'memblock-address-missing',
    'reserve-mem-missing',
    'subtree-name-other',
  ])('are expected of an image that has some: %s', (fault) => {
    const regions = heldBy(fault, ASKED).regions ?? []
    expect(regions.filter((name) => name === 'trace')).toEqual(['trace'])
    expect(regions).toContain('new')
    expect(missing(fault, ASKED)).toContain('reserve_mem[trace]')
  })

  test('are new to one that has none', () => {
    const { tree } = base.handover
    if (tree.kind !== 'record') throw new Error('no tree')
    const children = tree.children.filter(({ segment }) => segment !== 'memblock' && segment !== 'subtrees')
    const without = { ...base.handover, tree: { ...tree, children } }
    expect(expectationOf(without, ASKED).regions).toEqual([])
  })
})

test.each([
  ['session-files-null', 'sessions[vm-alpha].files'],
  ['flbs-null', 'flbs'],
])('%s: what the image counts and has no address of is lost whatever comes back', (fault, path) => {
  expect(missing(fault, '')).toContain(path)
  expect(missing(undefined, '')).not.toContain(path)
})
