/** The fixture set: every concept, in every release and with every page size that has it, as its scenario says. */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { PageSize } from '../abi/layout.ts'
import { phys } from '../abi/memory.ts'
import { type Release, type ReleaseVersions, releaseByName, releases } from '../abi/registry.ts'
import { decodeHandover, type Handover } from '../inspect/decode.ts'
import { decodeText } from '../inspect/text.ts'
import { child, itemsAt, type Node, numberAt } from '../inspect/tree.ts'
import {
  type Fixture,
  FixtureError,
  fixture,
  fixtureFrom,
  fixtureNames,
  fixtureScenario,
  fixtures,
} from '../testing/fixtures.ts'
import { ROOT } from './support/images.ts'
import { machines } from './support/machines.ts'
import { memfdBytes } from './support/memfd-bytes.ts'
import { type FileFacts, factsOf, type ScenarioFacts } from './support/scenario-facts.ts'

/** Bytes of each file that are compared. */
const LIMIT = 128 * 1024

const named = machines.map(({ release: { name, versions }, pageSize }) => ({
  release: name,
  versions,
  pageSize,
}))

/** What the scenarios of the set say, key by key, which depends on no machine. */
const concepts = fixtureNames().map((name) => ({
  name,
  plain: factsOf(fixtureScenario(name), { pageSize: 4096, lists: 'array', limit: 0 }).plain,
}))

/** What a release cannot hand over: the concepts that have to be missing from its set. */
function missingFrom(
  { kho = '', luo, memfd, ...versions }: ReleaseVersions,
  pageSize: PageSize,
): readonly string[] {
  const hasBlocks = luo === 'luo-v5'
  const isMissing = ({ name, plain }: (typeof concepts)[number]): boolean => {
    if (plain.sessions && !luo) return true
    if ((plain.flbs || plain.liveupdate_test) && (luo === undefined || luo === 'luo-v1')) return true
    if (plain.kexec_metadata && !versions['kexec-metadata']) return true
    if (plain.kho_test && !versions['kho-test']) return true
    if (name.endsWith('block-plus-one') && !hasBlocks) return true
    if (name === 'sealed-memfd' && memfd !== 'memfd-v2') return true
    if (name === 'unknown-subtree-bytes' && !/^kho-v[34]/.test(kho)) return true
    return plain.page_size !== undefined && pageSize !== 4096
  }
  return concepts.filter(isMissing).map(({ name }) => name)
}

function text(node: Node | undefined, key: string): string {
  const value = child(node, key)
  return value?.kind === 'value' && value.value instanceof Uint8Array ? decodeText(value.value) : ''
}

function number(node: Node | undefined, key: string): bigint {
  return BigInt(numberAt(node, key) ?? -1)
}

/** What is expected of a file and what was found, side by side: thousands of files make one comparison. */
type Compared = readonly [expected: unknown, found: unknown]

function comparedFile(handover: Handover, file: Node, facts: FileFacts): Compared {
  const { pageSize } = handover.target
  const compatible = text(file, 'compatible')
  const found = { token: number(file, 'token') }
  if (!facts.memfd) return [facts, { ...found, compatible, data: number(file, 'data') }]
  const memfd = child(file, 'memfd')
  const { pos, seals, records, head } = facts.memfd
  const size = BigInt(facts.memfd.size)
  const hasSeals = compatible === 'memfd-v2'
  return [
    { token: facts.token, pos, size, records: BigInt(records), seals: hasSeals && BigInt(seals), differs: 0 },
    {
      ...found,
      pos: number(memfd, 'pos'),
      size: number(memfd, 'size'),
      records: number(memfd, 'nr_folios'),
      seals: hasSeals && number(memfd, 'seals'),
      differs: Buffer.compare(memfdBytes(handover.memory, file, pageSize, LIMIT), head),
    },
  ]
}

function checkLuo(handover: Handover, facts: ScenarioFacts): void {
  const luo = child(handover.tree, 'luo')
  const sessions = itemsAt(luo, 'sessions')
  expect(sessions.map((session) => text(session, 'name'))).toEqual(
    facts.sessions.map(({ name }) => (typeof name === 'string' ? name : decodeText(name))),
  )
  const files = sessions.map((session) => itemsAt(session, 'files'))
  expect(files.map(({ length }) => length)).toEqual(facts.sessions.map((session) => session.files.length))
  const compared = facts.sessions.flatMap((session, index) =>
    session.files.map((file, at) => comparedFile(handover, files[index]?.[at] as Node, file)),
  )
  expect(compared.map(([, found]) => found)).toEqual(compared.map(([expected]) => expected))
  const flbs = itemsAt(luo, 'flbs').map((flb) => ({
    name: text(flb, 'name'),
    data: number(flb, 'data'),
    count: number(flb, 'count'),
  }))
  expect(flbs).toEqual(facts.flbs)
  if (luo) expect(number(luo, 'liveupdate_num')).toBe(BigInt(facts.plain.liveupdate_number ?? 1))
  expect(luo !== undefined && facts.plain.liveupdate === false).toBe(false)
}

function checkRegions({ tree, memory }: Handover, { regions }: ScenarioFacts): void {
  const found = itemsAt(child(tree, 'memblock'), 'reserve_mem')
  expect(found.map((region) => [text(region, 'name'), Number(number(region, 'size'))])).toEqual(
    regions.map(({ name, size }) => [name, size]),
  )
  for (const [index, { align, head }] of regions.entries()) {
    const start = number(found[index], 'start')
    expect(Number(start) % align).toBe(0)
    const bytes = new Uint8Array(head.length)
    expect(memory.read(phys(start), bytes)).toBe(head.length)
    expect(Buffer.compare(bytes, head)).toBe(0)
  }
}

/** Nothing lies in scratch, everything that was asked for is preserved. */
function checkMap({ tree }: Handover, { document }: Fixture): void {
  const preserved = child(tree, 'preserved')
  if (preserved?.kind !== 'preserved') throw new Error('no map')
  const extents = [...preserved.map.extents()]
  const inScratch = (document.scratch?.areas ?? []).flatMap(({ addr, size }) =>
    extents.filter(({ start, end }) => start < addr + size && addr < end),
  )
  expect(inScratch).toEqual([])
  const lost = (document.preserved?.ranges ?? []).filter(
    ({ start, size }) => !extents.some((extent) => extent.start <= start && start + size <= extent.end),
  )
  expect(lost).toEqual([])
}

function checkSubtrees({ tree }: Handover, { subtrees, plain }: ScenarioFacts): void {
  const found = itemsAt(tree, 'subtrees')
  const names = found.map((subtree) => text(subtree, 'name'))
  for (const { name } of subtrees) expect(names).toEqual(expect.arrayContaining([name]))
  expect(names.filter((name) => name === 'kho_test')).toHaveLength(plain.kho_test ? 1 : 0)
  const metadata = child(tree, 'kexec_metadata')
  if (!plain.kexec_metadata) return
  expect(text(metadata, 'previous_release')).toBe(plain.kexec_metadata.previous_release)
  expect(number(metadata, 'kexec_count')).toBe(BigInt(plain.kexec_metadata.count))
}

/** A single bitmap at the start of a page says nothing of its size: there the release has to be told. */
function decoded({ memory, boot }: Fixture, release: string): Handover {
  const handover = decodeHandover(memory, phys(boot.fdt_addr), { boot })
  const preserved = child(handover.tree, 'preserved')
  const pages = preserved?.kind === 'preserved' ? preserved.map.pages : []
  const isSilent = pages.filter(({ role }) => role === 'bitmap').length === 1
  return isSilent ? decodeHandover(memory, phys(boot.fdt_addr), { boot, abi: release }) : handover
}

/** That the handover is what the scenario says. */
function checkAsSaid(made: Fixture, scenario: string, release: string): void {
  const { versions } = releaseByName(release) as Release
  const { pageSize } = made
  const lists = versions.luo === 'luo-v5' ? 'block' : 'array'
  const facts = factsOf(scenario, { pageSize, lists, limit: LIMIT })
  const handover = decoded(made, release)
  expect(handover.faults.filter(({ severity }) => severity !== 'note')).toEqual([])
  expect([handover.version?.id, handover.target.pageSize]).toEqual([versions.kho, pageSize])
  checkLuo(handover, facts)
  checkRegions(handover, facts)
  checkMap(handover, made)
  checkSubtrees(handover, facts)
}

/** Scenarios that no kernel hands over, or the next one refuses, and that can be encoded all the same. */
const ODD = `${ROOT}fixtures/scenarios/odd/`
const odd = readdirSync(ODD).filter((file) => file.endsWith('.yaml'))

describe.each(named)('$release with pages of $pageSize bytes', ({ release, versions, pageSize }) => {
  test('has every concept that it can have, as the scenarios say', async () => {
    const skipped: string[] = []
    for await (const made of fixtures({ release, arch: 'arm64', pageSize })) {
      if ('reason' in made) {
        skipped.push(made.name)
        continue
      }
      checkAsSaid(made, fixtureScenario(made.name), release)
    }
    expect(skipped).toEqual(missingFrom(versions, pageSize))
  })
})

test.each(named.filter(({ versions }) => versions.luo))(
  'the odd ones of $release with pages of $pageSize bytes are as their scenarios say',
  async ({ release, pageSize }) => {
    for (const file of odd) {
      const scenario = readFileSync(ODD + file, 'utf8')
      checkAsSaid(await fixtureFrom(scenario, { release, arch: 'arm64', pageSize }), scenario, release)
    }
  },
)

/** Hash of an image file without its holes: where each piece lies, and its bytes. */
function hashOf(made: Fixture): string {
  const hash = createHash('sha256')
  const file = made.file('elf')
  hash.update(`${file.size}\n`)
  for (const { offset, bytes } of file.pieces()) hash.update(`${offset}\n`).update(bytes)
  return hash.digest('hex').slice(0, 16)
}

test('every fixture of 4 KiB pages has the same bytes as ever', async () => {
  const hashes: Record<string, Record<string, string>> = {}
  for (const { name } of releases) {
    const ofRelease: Record<string, string> = {}
    for await (const made of fixtures({ release: name }))
      if (!('reason' in made)) ofRelease[made.name] = hashOf(made)
    hashes[name] = ofRelease
  }
  await expect(`${JSON.stringify(hashes, undefined, 2)}\n`).toMatchFileSnapshot(
    'expected/fixture-hashes.json',
  )
})

describe('the library', () => {
  test('gives one fixture by its name', async () => {
    const made = await fixture('one-session', { release: '7.2' })
    expect(made).toMatchObject({ name: 'one-session', label: 'linux-7.2', arch: 'x86_64', pageSize: 4096 })
    expect(made.bytes('elf').subarray(0, 4)).toEqual(Buffer.from('\x7fELF', 'latin1'))
    expect(made.bytes('lime').length).toBeGreaterThan(made.file('elf').size - 8192 - 4096)
  })

  test('says what there is where a name is wrong', async () => {
    await expect(fixture('one-sesion', { release: '7.2' })).rejects.toThrow(
      /no fixture 'one-sesion'; there are contents, empty/,
    )
  })

  test('says why a release has no such fixture', async () => {
    await expect(fixture('sealed-memfd', { release: '6.19' })).rejects.toThrow(FixtureError)
    await expect(fixture('sealed-memfd', { release: '6.19' })).rejects.toThrow(
      /memfd-v1.* does not hand over seals/,
    )
    await expect(fixture('empty', { release: '5.0' })).rejects.toThrow(/unknown release "5.0"/)
  })

  test('takes a scenario of the test itself', async () => {
    const made = await fixtureFrom('release: linux-7.3\nsessions: [{ name: mine }]\n', { name: 'mine' })
    const handover = decodeHandover(made.memory, phys(made.boot.fdt_addr), { boot: made.boot })
    expect(itemsAt(child(handover.tree, 'luo'), 'sessions').map((session) => text(session, 'name'))).toEqual([
      'mine',
    ])
    await expect(fixtureFrom('sesions: []\n', { release: '7.3' })).rejects.toThrow(
      'scenario:1:1: sesions: unknown key',
    )
  })
})
