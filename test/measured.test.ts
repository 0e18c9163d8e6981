/**
 * What real kernels did with some 800 wrong images (fixtures/wrong/measured), and what the validator says
 * of each: the outcome, every file, and the console. Where the two differ, a named group says why.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { OUTCOMES, type Outcome } from '../abi/check.ts'
import { type PhysicalMemory, parseAddress, phys } from '../abi/memory.ts'
import { releaseByName } from '../abi/registry.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { openImage } from '../inspect/image.ts'
import { kernelOfRelease } from '../inspect/target-kernel.ts'
import { validate } from '../inspect/validate.ts'
import type { Finding, Verdict } from '../inspect/verdict.ts'
import { ROOT } from './support/images.ts'
import { PatchedMemory } from './support/patched.ts'

interface Measured {
  readonly name: string
  readonly patch: readonly (readonly [pa: string, bytes: string])[]
  readonly console: readonly string[]
  readonly kernel: {
    readonly handover: boolean
    readonly panic: string | null
    readonly oops: boolean
    readonly device_errno: number | null
    readonly files: Readonly<Record<string, 'right' | 'different' | 'lost'>>
    readonly sessions_failed: readonly unknown[]
    readonly files_failed: readonly unknown[]
    readonly regions: Readonly<Record<string, boolean>>
    readonly warnings: number
    readonly flbs_found: number
    readonly done: boolean
  }
}

interface MeasuredFile {
  readonly base: string
  readonly release: string
  readonly fdt: string
  readonly scratch: readonly [address: string, bytes: number]
  readonly cmdline: string
  readonly cases: readonly Measured[]
}

interface Judged {
  readonly verdict: Verdict
  /** Findings that are no notes. */
  readonly told: readonly Finding[]
}

/** Why a verdict may differ from what a kernel did with this very image. */
interface Group {
  readonly why: string
  /** Whether the case belongs to it. */
  readonly holds: (measured: Measured, judged: Judged) => boolean
}

/** Findings as bad as the whole verdict. */
const decisive = ({ verdict, told }: Judged): readonly Finding[] =>
  told.filter(({ outcome }) => outcome === verdict.outcome)

/** Paths that the guest does not look at, and those of KHO itself. */
const UNASKED_PATH = /^(kho_test|kexec_metadata|subtrees\[(kho_test|kexec-metadata)\])|\.flbs\b/

/** Memory that is not kept, or kept for two: harm comes from who reuses it, and when. */
const OF_REUSE =
  /_PRESERVED$|^(KHO_UNIT_|KHO_MAP_(OUTSIDE|TWICE)|KHO_CLAIMED_TWICE|RESERVE_MEM_OVERLAP|MEMFD_(CLEAN|FOLIOS|CHUNK)$|KHO_TEST_)/

/** What a patch made of one legal value is another one. */
const LEGAL =
  /(file-token|session-name-other|flb-name-other|\.token@|\.name@.*-other|pos(-|@)|t\d-(seals|size)-|\.(seals|size)@)/

const GROUPS: readonly Group[] = [
  {
    why: 'nothing happened to reuse, before it was read, the memory that nobody keeps; or what was there by then decided',
    holds: (_, judged) =>
      decisive(judged).length > 0 && decisive(judged).every(({ rule }) => OF_REUSE.test(rule)),
  },
  {
    why: 'the guest did not ask for the part: metadata, the test of KHO, FLBs, nodes of the root FDT behind those of LUO',
    holds: (_, judged) =>
      decisive(judged).length > 0 &&
      decisive(judged).every(({ path, rule }) => UNASKED_PATH.test(path) || rule === 'KHO_FDT_FORM'),
  },
  {
    why: 'the image says something else that is legal (a token, a name, a size, a position, seals), and the guest compared with the unpatched one',
    holds: ({ name }, { told }) =>
      LEGAL.test(name) &&
      told.every(({ rule }) =>
        /^(MEMFD_(SIZE|POSITION|COVERAGE|PAST_END|UNCOUNTED|SEAL_EXEC)|LUO_TOKEN)$/.test(rule),
      ),
  },
  {
    why: 'a session that never had files is told to have some without an address, and comes back as it was',
    holds: ({ name }) => /^s2-count-/.test(name),
  },
  {
    why: 'an empty name of a session without files: byte for byte a count that is one too high (sb-count-4), which loses nothing',
    holds: ({ name }) => name === 'session-name-empty-nofiles',
  },
]

/** Lines that the recorder did not keep, whose words it did not look for. */
const UNRECORDED = /^(FDT '|test_kho: )/

/** What is wrong with the root FDT, the map or the scratch array is foreseen as it came, in outcome and lines. */
const OF_KHO = /^(bit|root|radix|leaf\d?|scratch\d)-/

/** Memory that was not kept, and that nobody happened to reuse before it was read. */
const LUCKY =
  /^(bit-clear|bit-array-as-order1|radix-(leaf-(free|self|zero)|top-free|top\d-zero)|root-map-free|root-(luo|metadata)-addr-free)/

/** The kernel goes on without its own metadata, and nobody misses them. */
const UNMISSED = /^root-md-size/

const isForeseen = ({ name }: Measured): boolean => OF_KHO.test(name) && !LUCKY.test(name)

const KHO_LINE = /^(KHO: |Revived )/

/** Lines that the guest's own output ran into on the serial line. */
const SWALLOWED: Readonly<Record<string, string>> = {
  'folio2-index-1': 'failed to add to page cache',
  'leaf-page-zero': 'Unable to restore folio at physical address: 48231000',
  's2-files-of-s1': 'File count mismatch',
}

/** What the kernel did, as outcomes that agree with it. */
function outcomesOf({ kernel }: Measured, { release }: MeasuredFile): ReadonlySet<Outcome> {
  const { handover, panic, oops, done, device_errno, files, regions, warnings } = kernel
  if (!handover) return new Set([done ? 'no-handover' : 'corrupts'])
  if (panic !== null && !oops) return new Set(['panics'])
  if (oops || !done) return new Set(['corrupts'])
  if (device_errno === 5) return new Set(['device-fails'])
  const states = Object.values(files)
  if (states.includes('different')) return new Set(['corrupts'])
  const flbs = release === 'linux-6.19' ? 0 : 3
  const isLost =
    kernel.files_failed.length + kernel.sessions_failed.length > 0 ||
    states.includes('lost') ||
    Object.values(regions).includes(false) ||
    kernel.flbs_found < flbs
  if (!isLost) return new Set(['takes-over'])
  // A kernel that warns found memory in a state that it does not expect; userspace's error came after that.
  return new Set(warnings > 0 ? ['loses', 'corrupts'] : ['loses'])
}

const FILE = /^luo\.sessions\[[^\]]*\]\.files\[0x([0-9a-f]+)\]$/

/** What is said of the files by token, where each has its own. */
function fileParts({ parts }: Verdict): ReadonlyMap<string, Outcome> {
  return new Map(
    parts.flatMap(({ part, outcome }) => {
      const token = FILE.exec(part)?.[1]
      return token === undefined ? [] : [[token, outcome] as const]
    }),
  )
}

const NAMES = ['linux-7.3-arm64-4k', 'linux-7.1-arm64-4k', 'linux-6.19-arm64-4k']
const FOLDERS = [`${ROOT}fixtures/wrong/measured/`, `${ROOT}fixtures/real/`]

async function baseOf({ base }: MeasuredFile): Promise<PhysicalMemory> {
  for (const folder of FOLDERS) {
    const opened = await openImage([{ path: folder + base }])
    if (opened.ok) return opened.image
  }
  throw new Error(`${base} cannot be opened`)
}

const suites = await Promise.all(
  NAMES.map(async (name) => {
    const file: MeasuredFile = JSON.parse(readFileSync(`${FOLDERS[0]}${name}.json`, 'utf8'))
    return { name, file, memory: await baseOf(file) }
  }),
)

describe.each(suites)('$name', ({ file, memory: base }) => {
  const fdt = parseAddress(file.fdt) as bigint
  const [scratch, bytes] = file.scratch
  const decode = {
    boot: { fdt_addr: fdt, fdt_size: 4096n, scratch_addr: BigInt(scratch), scratch_size: BigInt(bytes) },
  }
  const release = releaseByName(file.release)
  if (!release) throw new Error(`${file.release} is not registered`)

  function judge({ patch }: Measured): Judged {
    const memory = new PatchedMemory(base)
    for (const [pa, hex] of patch) memory.write(BigInt(pa), Buffer.from(hex, 'hex'))
    const verdict = validate(decodeHandover(memory, phys(fdt), decode), {
      kernel: kernelOfRelease(release as NonNullable<typeof release>),
      commandLine: file.cmdline,
      decode,
    })
    return { verdict, told: verdict.findings.filter(({ severity }) => severity !== 'note') }
  }

  test.each(file.cases)('$name', (measured) => {
    const judged = judge(measured)
    const { verdict, told } = judged
    const real = outcomesOf(measured, file)
    const isExact = isForeseen(measured) && !UNMISSED.test(measured.name)
    const isExcused = !isExact && GROUPS.some(({ holds }) => holds(measured, judged))
    if (!isExcused) {
      expect([...real]).toContain(verdict.outcome)
      if (!real.has('takes-over')) expect(told).not.toEqual([])
      for (const [token, outcome] of fileParts(verdict)) expectFile(measured, token, outcome)
    }
    // A group excuses what is said in doubt, never a harm that nobody saw coming but the guest.
    const leastReal = Math.min(...[...real].map((outcome) => OUTCOMES.indexOf(outcome)))
    const isLegal = LEGAL.test(measured.name) || measured.name === 'session-name-empty-nofiles'
    if (!isLegal) expect(OUTCOMES.indexOf(verdict.outcome)).toBeGreaterThanOrEqual(leastReal)

    expectLines(measured, verdict)
  })
})

/** What is said of a file is what the guest got; where harm is foreseen, it may have been lucky. */
function expectFile({ kernel }: Measured, token: string, outcome: Outcome): void {
  const state = kernel.files[token]
  if (state === undefined || (kernel.oops && state === 'lost')) return
  if (outcome === 'takes-over') expect([token, state]).toEqual([token, 'right'])
  else if (outcome !== 'corrupts') expect([token, state]).not.toEqual([token, 'right'])
}

/** Whatever the kernel is expected to say it said. */
function expectLines(measured: Measured, verdict: Verdict): void {
  const said = measured.console.map((line) => line.replace(/^.*\[ *\d+\.\d+\] /, ''))
  const swallowed = SWALLOWED[measured.name]
  const unheard = verdict.console.filter(
    (line) =>
      !said.includes(line) &&
      !UNRECORDED.test(line) &&
      !(swallowed !== undefined && line.includes(swallowed)),
  )
  expect(unheard).toEqual([])
  if (!isForeseen(measured)) return
  const unexpected = said.filter((line) => KHO_LINE.test(line) && !verdict.console.includes(line))
  expect(unexpected).toEqual([])
}

describe('the groups of differences', () => {
  test('each line that the recording lost is expected somewhere', () => {
    const names = suites.flatMap(({ file }) => file.cases.map(({ name }) => name))
    for (const name of Object.keys(SWALLOWED)) expect(names).toContain(name)
  })
})
