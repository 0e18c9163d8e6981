/** What a kernel is expected to give back of images that hide or lose it, and files that say so instead. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { readExpectation } from '../bin/expectation-file.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { applyFault, faultNamed } from '../mutate/catalogue.ts'
import { isUnfit, patchesOf } from '../mutate/change.ts'
import type { NamedFault } from '../mutate/named-fault.ts'
import { PatchedView } from '../mutate/patch.ts'
import { Site } from '../mutate/site.ts'
import { differences, type Expectation, expectationOf } from '../qemu/expectation.ts'
import { readConsole } from '../qemu/report.ts'
import { BOOT_SCHEMA, reportToJson } from '../qemu/report-json.ts'
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

describe('the file of --expect', () => {
  const directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
  afterAll(() => rmSync(directory, { recursive: true }))
  const read = (document: unknown): Expectation => {
    writeFileSync(`${directory}/expect.json`, JSON.stringify(document))
    return readExpectation(`${directory}/expect.json`)
  }

  test('takes a whole report, and expects just what it says', () => {
    const lines = [
      'Linux version 7.3.4 (root@vm) (gcc 12.2.0) #1 SMP PREEMPT',
      'KHO: found kexec handover data.',
      'KHO: exec from: 7.3.4 (count 1)',
      "Revived memory reservation 'trace' from KHO",
      'luo: Retrieved live update data, liveupdate number: 3',
      'test_kho: KHO restore failed',
      '@kho device errno=0',
      '@kho session session=766d errno=0',
      '@kho file session=766d token=0xffffffffffffffff errno=0 size=10000 pos=9223372036854775807 seals=0x6 sum=2814eedbb8829359',
      '@kho file session=766d token=0x2 errno=5',
      '@kho finish session=766d errno=16',
      '@kho session session=ff00 errno=2',
      '@kho region region=7472616365 address=0x5fcde000 errno=0 size=8 sum=2814eedbb8829359',
      '@kho region region=6f6f7073 address=0x5fcdf000 errno=0 size=8 sum=2814eedbb8829359',
      '@kho done',
    ]
    const report = { ...readConsole(lines), ending: 'exit', console: lines } as const
    const expected = read({ schema: BOOT_SCHEMA, ...reportToJson(report, []) })
    expect(differences(expected, report)).toEqual([])
    expect(expected.finish).toBe(true)
    expect(differences(expected, readConsole([])).map(({ path }) => path)).toEqual([
      'sessions[vm]',
      'sessions[\\xff]',
      'reserve_mem[trace]',
      'kexec_metadata.previous_release',
      'liveupdate_number',
      'kho_test',
    ])
  })

  const file = (fields: object): object => ({ sessions: [{ name: 'vm', files: [{ token: 1, ...fields }] }] })
  const region = { name: 'trace', address: '0x1000', size: 8 }

  test.each([
    [{ finish: 'yes' }, 'finish: expected true or false; found "yes"'],
    [{ kho_test: 1 }, 'kho_test: expected true or false; found 1'],
    [{ previous_release: 7 }, 'previous_release: expected a text; found 7'],
    [{ liveupdate_number: -1 }, 'liveupdate_number: expected an integer from 0 to 18446744073709551615'],
    [file({ token: -1 }), 'sessions[0].files[0].token: expected an integer from 0 to'],
    [file({ token: '99999999999999999999' }), 'sessions[0].files[0].token: expected an integer from 0 to'],
    [file({ errno: 'ENOENT' }), 'sessions[0].files[0].errno: expected an integer'],
    [file({ errno: 4096 }), 'sessions[0].files[0].errno: expected an integer from 0 to 4095'],
    [file({ sum: '0x1' }), 'sessions[0].files[0].sum: expected up to 16 hex digits; found "0x1"'],
    [file({ contents: '' }), 'sessions[0].files[0]: expected one of token, size'],
    [
      { sessions: [{ name: 'ä'.repeat(32) }] },
      'sessions[0].name: expected at most 63 bytes; found "64 bytes"',
    ],
    [{ sessions: [{ name_hex: '61'.repeat(64) }] }, 'sessions[0].name: expected at most 63 bytes'],
    [{ sessions: [{ name: 'vm', name_hex: '6162' }] }, "sessions[0].name: expected what name_hex says, 'ab'"],
    [{ sessions: [{}] }, 'sessions[0].name: expected a text; found nothing'],
    [{ region_contents: [{ ...region, name: 'a name of 16 byt' }] }, 'expected at most 15 bytes'],
    [
      { region_contents: [{ ...region, address: -8 }] },
      'region_contents[0].address: expected an integer from 0',
    ],
    [{ session: [] }, 'the document: expected one of sessions, reserve_mem'],
  ])('refuses %j', (document, message) => {
    expect(() => read(document)).toThrow(message)
  })
})
