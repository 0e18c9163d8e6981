/**
 * What we generate, given to real kernels: every scenario is encoded for Linux 7.3 on arm64, with each page
 * size for which there is a kernel, booted, and each session, file, size, position, seal and content that the
 * guest gets back, and what it reads in regions, is held against what the scenario's text says, read without
 * the encoder.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import type { Outcome } from '../../abi/check.ts'
import type { PageSize } from '../../abi/layout.ts'
import { phys } from '../../abi/memory.ts'
import { encodeScenario } from '../../encode/scenario.ts'
import { readTimeline } from '../../encode/timeline.ts'
import { decodeHandover } from '../../inspect/decode.ts'
import {
  differences,
  type Expectation,
  type ExpectedRegion,
  expectationOf,
  sealsInForce,
} from '../../qemu/expectation.ts'
import { outcomeOf } from '../../qemu/outcome.ts'
import type { RunReport } from '../../qemu/report.ts'
import { wordSum } from '../../qemu/word-sum.ts'
import { simulatedReleases } from '../../simulate/release.ts'
import { runTimeline } from '../../simulate/timeline.ts'
import { ROOT } from '../support/images.ts'
import { PatchedMemory } from '../support/patched.ts'
import { type FileFacts, factsOf, type ScenarioFacts } from '../support/scenario-facts.ts'
import { type Booted, boot, builtPageSizes, keepTable, missingToBoot, type Row, titled } from './lab.ts'

const DIRECTORIES = ['fixtures/scenarios/', 'fixtures/scenarios/odd/', 'test/real-kernel/scenarios/']

interface Scenario {
  readonly name: string
  readonly directory: string
  readonly text: string
}

const scenarios: readonly Scenario[] = DIRECTORIES.flatMap((directory) =>
  readdirSync(ROOT + directory)
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => ({
      name: file.slice(0, -'.yaml'.length),
      directory,
      text: readFileSync(ROOT + directory + file, 'utf8'),
    })),
)

type Image = Pick<Booted, 'memory' | 'boot'>

const MACHINE = { release: 'linux-7.3', arch: 'arm64' } as const

/** How images of a scenario come about; undefined if it says what this way cannot make. */
const makers: Readonly<
  Record<string, (scenario: Scenario, pageSize: PageSize) => Promise<Image | undefined>>
> = {
  encoded: async ({ text }, pageSize) => {
    const encoded = await encodeScenario(text, { ...MACHINE, pageSize })
    if (!encoded.ok) throw new Error(JSON.stringify(encoded.problems))
    const { memory, boot: entry } = encoded.written
    return { memory, boot: entry }
  },
  // What a simulated kernel leaves after a process in it has made what the scenario declares.
  simulated: async ({ text }, pageSize) => {
    const read = await readTimeline(text, { simulated: simulatedReleases, ...MACHINE, pageSize })
    if (!read.ok) return undefined
    let left: Image | undefined
    runTimeline(read.timeline, {
      onHandover: (handover) => {
        left ??= handover
      },
    })
    return left
  },
}

/**
 * Images that no kernel takes over whole: of files that it has no handler for, and of folios that are not
 * up to date, which it clears.
 */
const OUTCOMES: Readonly<Record<string, Outcome>> = {
  'encoded unknown-handler': 'device-fails',
  'simulated unknown-handler': 'device-fails',
  'encoded folio-flags': 'corrupts',
}

/** Scenarios that say what no process can ask of a kernel, such as the blobs of other subsystems. */
const NOT_SIMULATED: readonly string[] = [
  'kexec-metadata',
  'kho-test',
  'later-update',
  'many-extents',
  'shared-flbs',
  'unknown-subtree-bytes',
  'unknown-subtree-fdt',
]

/** Tables are of one page size: those of others stay in the docs when their kernels are not there. */
const kernels = builtPageSizes().map((pageSize) => ({ pages: `${pageSize / 1024}K`, pageSize }))
const why = kernels.length === 0 ? missingToBoot('7.3', 'arm64') : undefined

describe.skipIf(why)(titled('generated images', why), () => {
  describe.each(kernels)('pages of $pages', ({ pages, pageSize }) => bootedWith(pages, pageSize))
})

function bootedWith(pages: string, pageSize: PageSize): void {
  const rows: Row[] = []
  let release: string | undefined

  describe.each(Object.entries(makers))('scenarios, %s', (made, make) => {
    test.each(scenarios.filter(({ text }) => isFor(text, pageSize)))('$name', async (scenario) => {
      const image = await make(scenario, pageSize)
      if (!image) {
        expect(NOT_SIMULATED).toContain(scenario.name)
        return
      }
      const facts = factsOf(scenario.text, { pageSize, lists: 'block', limit: Number.POSITIVE_INFINITY })
      const expected = expectationIn(image, facts)
      const report = await boot({
        ...image,
        pageSize,
        retrieve: expected,
        commandLine: parameters(facts),
      })
      const found = differences(expected, report)
      const outcome = outcomeOf(report, found)
      release ??= report.kernel
      rows.push({ scenario: scenario.name, made, ...cameBack(report, expected), outcome })
      // A developer's own kernel may have no /dev/mem.
      if (!process.env.KERNEL) {
        const read = report.regionContents.filter(({ errno }) => errno === 0)
        expect(read.map(({ name }) => name)).toEqual(expected.regions)
      }
      expect(outcome).toBe(OUTCOMES[`${made} ${scenario.name}`] ?? 'takes-over')
      if (outcome !== 'takes-over') return
      expect(found).toEqual([])
      expect(report).toMatchObject({ handover: true, done: true, warnings: [], complaints: [] })
    })
  })

  test('one wrong byte in a region is noticed', async () => {
    const scenario = scenarios.find(({ name }) => name === 'reserve-mem') as Scenario
    const image = (await makers.encoded?.(scenario, pageSize)) as Image
    const facts = factsOf(scenario.text, { pageSize, lists: 'block', limit: Number.POSITIVE_INFINITY })
    const retrieve = expectationIn(image, facts)
    const memory = new PatchedMemory(image.memory)
    const last = retrieve.regionContents?.at(-1) as ExpectedRegion
    memory.write(last.address + last.size - 1n, Uint8Array.of(1))
    const report = await boot({ ...image, memory, pageSize, retrieve, commandLine: parameters(facts) })
    expect(differences(retrieve, report).map(({ path }) => path)).toEqual([`reserve_mem[${last.name}].sum`])
  })

  keepTable(`generated-${pages.toLowerCase()}`, () => ({
    title: `Generated images, pages of ${pages}`,
    kernel: `${release} arm64`,
    rows,
  }))
}

/** Whether a scenario is for machines with these pages; one that does not say is for all. */
function isFor(text: string, pageSize: PageSize): boolean {
  const said: unknown = parse(text).page_size
  return said === undefined || [said].flat().includes(`${pageSize / 1024}KiB`)
}

/** The columns of a table that count. */
function cameBack({ sessions, regions, regionContents, flbs }: RunReport, expected: Expectation): Row {
  const files = sessions.flatMap((session) => session.files).filter(({ errno }) => errno === 0)
  const bytesOf = (contents: readonly { readonly size?: bigint }[]): number =>
    contents.reduce((sum, { size = 0n }) => sum + Number(size), 0)
  return {
    sessions: `${sessions.length} of ${expected.sessions.length}`,
    files: `${files.length} of ${expected.sessions.flatMap((session) => session.files).length}`,
    'bytes in files': bytesOf(files),
    regions: regions.length,
    'bytes in regions': bytesOf(regionContents),
    FLBs: flbs.length,
  }
}

/** What the text says, and for regions where they lie, which the image alone knows. */
function expectationIn({ memory, boot: entry }: Image, facts: ScenarioFacts): Expectation {
  const { sessions, regions, flbs, plain } = facts
  const held = expectationOf(decodeHandover(memory, phys(entry.fdt_addr), { boot: entry }))
  const addressOf = (wanted: string): bigint =>
    held.regionContents?.find(({ name }) => name === wanted)?.address ?? 0n
  return {
    sessions: sessions.map(({ name, files }) => ({
      name: Buffer.from(typeof name === 'string' ? new TextEncoder().encode(name) : name).toString('hex'),
      files: files.map(expectedFile),
    })),
    regions: regions.map(({ name }) => name),
    regionContents: regions.map(({ name, size, head }) => ({
      name,
      address: addressOf(name),
      size: BigInt(size),
      sum: wordSum(head),
    })),
    flbs: flbs.map(({ name }) => name).filter((name) => name.startsWith('liveupdate-test-flb-')),
    // Without its FLBs in the image a kernel with the test's FLBs warns of every file that is finished.
    finish: plain.liveupdate_test === true,
  }
}

function expectedFile({ token, memfd }: FileFacts): Expectation['sessions'][number]['files'][number] {
  if (!memfd) return { token }
  const { size, pos, seals, head } = memfd
  return { token, size: BigInt(size), pos, seals: sealsInForce(seals), sum: wordSum(head) }
}

/** The regions come back only if the command line asks for them again. */
function parameters({ regions }: ScenarioFacts): string {
  return regions.map(({ name, size, align }) => `reserve_mem=${size}:${align}:${name}`).join(' ')
}
