/**
 * What we generate, given to a real kernel: every scenario is encoded for Linux 7.3 on arm64, booted, and
 * each session, file, size, position, seal and content that the guest gets back is held against what the
 * scenario's text says, read without the encoder.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import type { Outcome } from '../../abi/check.ts'
import { encodeScenario } from '../../encode/scenario.ts'
import { readTimeline } from '../../encode/timeline.ts'
import { differences, type Expectation, sealsInForce } from '../../qemu/expectation.ts'
import { outcomeOf } from '../../qemu/outcome.ts'
import { wordSum } from '../../qemu/word-sum.ts'
import { simulatedReleases } from '../../simulate/release.ts'
import { runTimeline } from '../../simulate/timeline.ts'
import { ROOT } from '../support/images.ts'
import { type FileFacts, factsOf, type ScenarioFacts } from '../support/scenario-facts.ts'
import { type Booted, boot, keepTable, missing, type Row, titled } from './lab.ts'

const PAGE = 4096
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

const MACHINE = { release: 'linux-7.3', arch: 'arm64', pageSize: PAGE } as const

/** How images of a scenario come about; undefined if it says what this way cannot make. */
const makers: Readonly<Record<string, (scenario: Scenario) => Promise<Image | undefined>>> = {
  encoded: async ({ text }) => {
    const encoded = await encodeScenario(text, MACHINE)
    if (!encoded.ok) throw new Error(JSON.stringify(encoded.problems))
    const { memory, boot: entry } = encoded.written
    return { memory, boot: entry }
  },
  // What a simulated kernel leaves after a process in it has made what the scenario declares.
  simulated: async ({ text }) => {
    const read = await readTimeline(text, { simulated: simulatedReleases, ...MACHINE })
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

const why = missing('7.3', 'arm64')
const rows: Row[] = []

describe.skipIf(why).each(Object.entries(makers))(titled('scenarios, %s', why), (made, make) => {
  test.each(scenarios)('$name', async (scenario) => {
    const image = await make(scenario)
    if (!image) {
      expect(NOT_SIMULATED).toContain(scenario.name)
      return
    }
    const facts = factsOf(scenario.text, { pageSize: PAGE, lists: 'block', limit: Number.POSITIVE_INFINITY })
    const expected = expectationOf(facts)
    const report = await boot({
      ...image,
      retrieve: expected,
      commandLine: parameters(facts),
    })
    const found = differences(expected, report)
    const outcome = outcomeOf(report, found)
    const files = report.sessions.flatMap((session) => session.files).filter(({ errno }) => errno === 0)
    rows.push({
      scenario: scenario.name,
      made,
      sessions: `${report.sessions.length} of ${expected.sessions.length}`,
      files: `${files.length} of ${expected.sessions.flatMap((session) => session.files).length}`,
      bytes: files.reduce((sum, { size = 0n }) => sum + Number(size), 0),
      regions: report.regions.length,
      FLBs: report.flbs.length,
      outcome,
    })
    expect(outcome).toBe(OUTCOMES[`${made} ${scenario.name}`] ?? 'takes-over')
    if (outcome !== 'takes-over') return
    expect(found).toEqual([])
    expect(report).toMatchObject({ handover: true, done: true, warnings: [], complaints: [] })
  })

  afterAll(() => keepTable('generated', { title: 'Generated images', kernel: '7.3.4 arm64', rows }))
})

function expectationOf({ sessions, regions, flbs, plain }: ScenarioFacts): Expectation {
  return {
    sessions: sessions.map(({ name, files }) => ({
      name: Buffer.from(typeof name === 'string' ? new TextEncoder().encode(name) : name).toString('hex'),
      files: files.map(expectedFile),
    })),
    regions: regions.map(({ name }) => name),
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
