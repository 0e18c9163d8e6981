/**
 * The harness against itself: images with recorded patches, of which another harness has written down what
 * a real kernel did. What ours reads off the console must say the same.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { decodeHandover } from '../../inspect/decode.ts'
import { differences, type Expectation, expectationOf } from '../../qemu/expectation.ts'
import { outcomeOf } from '../../qemu/outcome.ts'
import type { RunReport } from '../../qemu/report.ts'
import { expectedOf, openReal, ROOT } from '../support/images.ts'
import { PatchedMemory } from '../support/patched.ts'
import { boot, keepTable, missingToBoot, type Row, titled } from './lab.ts'

const DIRECTORY = `${ROOT}fixtures/wrong/`
const BASE = 'linux-7.3-arm64-4k-basic'
/** fixtures/wrong/README.md */
const COMMAND_LINE = 'reserve_mem=1M:4096:trace reserve_mem=64K:65536:oops'
const SCRATCH = { scratch_addr: 0x5eff0000n, scratch_size: 48n }
const MEMORY_MIB = 512

interface Recorded {
  readonly name: string
  readonly patch: readonly (readonly [string, string])[]
  readonly outcome: readonly string[]
  readonly kernel: {
    readonly handover: boolean
    readonly panic: string | null
    readonly oops: boolean
    readonly device_errno: number | null
    readonly files: Readonly<Record<string, 'right' | 'different' | 'lost'>>
    readonly files_failed: readonly (readonly [string, string])[]
    readonly warnings: number
    readonly regions: Readonly<Record<string, boolean>>
    readonly flbs_found: number
  }
}

const records: readonly Recorded[] = readdirSync(DIRECTORY)
  .filter((file) => file.endsWith('.json'))
  .map((file) => JSON.parse(readFileSync(DIRECTORY + file, 'utf8')))

const why = missingToBoot('7.3', 'arm64')
const rows: Row[] = []
let release: string | undefined

describe.skipIf(why)(titled('recorded patches', why), () => {
  test.each(records)('$name', async (record) => {
    const image = await openReal(BASE)
    const fdt_addr = BigInt(expectedOf(BASE).kho.fdt)
    const right = expectationOf(decodeHandover(image, fdt_addr as never))
    const memory = new PatchedMemory(image)
    for (const [at, bytes] of record.patch) memory.write(BigInt(at), Buffer.from(bytes, 'hex'))
    const report = await boot({
      memory,
      boot: { fdt_addr, fdt_size: 4096n, ...SCRATCH },
      retrieve: right,
      commandLine: COMMAND_LINE,
      memoryMiB: MEMORY_MIB,
    })
    release ??= report.kernel
    const outcome = outcomeOf(report, differences(right, report))
    rows.push({ image: record.name, recorded: record.outcome.join(' or '), seen: outcome })
    expect(recordedBy(report, right)).toEqual({ ...record.kernel, sessions_failed: expect.anything() })
    expect(record.outcome).toContain(outcome)
  })

  keepTable('recorded', () => ({ title: 'Recorded patches', kernel: `${release} arm64`, rows }))
})

/** The facts of a record as our report has them. */
function recordedBy(
  report: RunReport,
  right: Expectation,
): Recorded['kernel'] & { sessions_failed: unknown } {
  const expected = right.sessions.flatMap(({ files }) => files)
  const found = report.sessions.flatMap(({ files }) => files)
  const state = (token: bigint): 'right' | 'different' | 'lost' => {
    const file = found.find((each) => each.token === token && each.errno === 0)
    if (!file) return 'lost'
    const wanted = expected.find((each) => each.token === token)
    const same = wanted?.size === file.size && wanted?.sum === file.sum && wanted?.pos === file.pos
    return same && wanted?.seals === file.seals ? 'right' : 'different'
  }
  return {
    handover: report.handover,
    panic: report.panic ?? null,
    oops: report.oopses.length > 0,
    device_errno: report.device ?? null,
    files: Object.fromEntries(expected.map(({ token }) => [token.toString(16), state(token)])),
    sessions_failed: report.sessions.filter(({ errno }) => errno !== 0).map(({ name }) => name),
    files_failed: found
      .filter(({ errno }) => errno !== 0)
      .map(({ token, errno }) => [token.toString(16), `${errno}`]),
    warnings: report.warnings.length,
    regions: { trace: report.regions.includes('trace'), oops: report.regions.includes('oops') },
    flbs_found: report.flbs.length,
  }
}
