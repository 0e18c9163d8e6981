/**
 * What a kernel and the guest's init say on their console about a handover, taken apart: what was found,
 * what was refused and by which check, what came back, how it ended.
 *
 * The kernel's lines are known by the checks and console lines of the ABI; those of the guest begin with
 * `@kho` (docs/real-kernels.md).
 */
import { type Check, OUTCOMES, type Outcome } from '../abi/check.ts'
import { type ConsoleLine, consoleLines, formatPattern, messagePrefix } from '../abi/console.ts'
import { checks } from '../abi/consumer.ts'
import { decodeText } from '../inspect/text.ts'
import type { Ending } from './machine.ts'

/** A file as the guest got it back, or the error that it got instead. */
export interface FileReport {
  readonly token: bigint
  readonly errno: number
  readonly size?: bigint
  readonly pos?: bigint
  readonly seals?: number
  /** FNV-1a of 64 bits over its words of 64 bits. */
  readonly sum?: bigint
}

export interface SessionReport {
  /** Bytes of the name in hex: it may be anything. */
  readonly name: string
  readonly errno: number
  readonly files: FileReport[]
  /** What the guest was told when it finished the session, if it did. */
  finish?: number
}

/** What the guest read where a region of reserve_mem lies, or the error that it got instead. */
export interface RegionReport {
  readonly name: string
  readonly address: bigint
  readonly errno: number
  readonly size?: bigint
  /** FNV-1a of 64 bits over its words of 64 bits. */
  readonly sum?: bigint
}

/** A line by which the kernel refuses something or complains, and the check it belongs to. */
export interface Complaint {
  readonly id: string
  readonly line: string
  /** What has become of the handover at least. */
  readonly outcome: Outcome
}

export interface KernelReport {
  /** `7.3.4`, from the kernel's banner. */
  kernel: string | undefined
  /** Whether the kernel said that it found the handover's data. */
  handover: boolean
  readonly complaints: Complaint[]
  /** Lines of WARN(). */
  readonly warnings: string[]
  readonly oopses: string[]
  panic: string | undefined
  /** The kernel came to the end of its boot and found neither initramfs nor root: no panic of the handover's. */
  noRoot: boolean
  /** Number of live updates that the orchestrator retrieved. */
  liveupdateNumber: bigint | undefined
  /** The release that the kernel says it was handed over by. */
  previousRelease: string | undefined
  /** Regions of reserve_mem that came back. */
  readonly regions: string[]
  /** What the guest found where it was told that regions are, whether they came back or not. */
  readonly regionContents: RegionReport[]
  /** Test FLBs whose data came back. */
  readonly flbs: string[]
  /** Whether the kernel's module test_kho restored what it had left; undefined if it said nothing. */
  khoTest: boolean | undefined
  /** Error of opening /dev/liveupdate, 0 if there was none; undefined if the guest got not so far. */
  device: number | undefined
  readonly sessions: SessionReport[]
  /** What the guest made before it handed over. */
  readonly preserved: SessionReport[]
  /** Where the guest gave up, if it did. */
  failed: string | undefined
  /** Whether the guest came to its end. */
  done: boolean
}

/** What becomes of a run: the machine's end, or that it was cut short. */
export interface RunReport extends KernelReport {
  readonly ending: Ending
  readonly console: readonly string[]
}

/** Prefix of the guest's lines. */
export const GUEST = '@kho '

const PANIC_END = patternOf(lineById('PANIC_END'))

/** Whether a kernel says nothing more after this line. */
export function isLastLine(line: string): boolean {
  return PANIC_END.test(line)
}

export function readConsole(lines: readonly string[]): KernelReport {
  const report: KernelReport = {
    kernel: undefined,
    handover: false,
    complaints: [],
    warnings: [],
    oopses: [],
    panic: undefined,
    noRoot: false,
    liveupdateNumber: undefined,
    previousRelease: undefined,
    regions: [],
    regionContents: [],
    flbs: [],
    khoTest: undefined,
    device: undefined,
    sessions: [],
    preserved: [],
    failed: undefined,
    done: false,
  }
  for (const line of lines) {
    if (line.startsWith(GUEST)) guestLine(report, line.slice(GUEST.length))
    else kernelLine(report, line)
  }
  return report
}

/** What a line that is known does to the report. */
type Reading = (report: KernelReport, line: string, groups: readonly string[]) => void

const complain =
  (id: string, outcome: Outcome = 'takes-over'): Reading =>
  (report, line) =>
    void report.complaints.push({ id, line, outcome })

const readings: Readonly<Record<string, Reading>> = {
  KHO_FOUND: (report) => {
    report.handover = true
  },
  METADATA_FOUND: (report, _line, [release]) => {
    report.previousRelease = release
  },
  RESERVE_MEM_REVIVED: (report, _line, [name]) => void report.regions.push(name as string),
  LUO_RETRIEVED: (report, _line, [number]) => {
    report.liveupdateNumber = BigInt(number as string)
  },
  FLB_TEST_FOUND: (report, _line, [name]) => void report.flbs.push(name as string),
  KHO_TEST_SUCCEEDED: (report) => {
    report.khoTest = true
  },
  KHO_TEST_FAILED: (report, line) => {
    report.khoTest = false
    report.complaints.push({ id: 'KHO_TEST_FAILED', line, outcome: 'takes-over' })
  },
  WARNING: (report, line) => void report.warnings.push(line),
  PANIC_ROOT: (report) => {
    report.noRoot = true
  },
  PANIC_NO_INIT: (report) => {
    report.noRoot = true
  },
  PANIC: (report, line) => {
    report.panic ??= line
  },
  PANIC_END: () => {},
}

interface KnownLine {
  readonly pattern: RegExp
  readonly reading: Reading
}

const known: readonly KnownLine[] = knownLines()

function knownLines(): KnownLine[] {
  const lines = consoleLines.flatMap((line): KnownLine[] => {
    const reading = readings[line.id] ?? usualReading(line)
    return reading ? [{ pattern: patternOf(line), reading }] : []
  })
  const refusals = checks.flatMap((check): KnownLine[] =>
    check.message === undefined
      ? []
      : [{ pattern: patternOf(refusalLine(check)), reading: complain(check.id, leastOutcome(check)) }],
  )
  return [...refusals, ...lines]
}

/** Several checks may say the same, with other consequences: what is sure is the mildest. */
function leastOutcome(check: Check): Outcome {
  const { source } = patternOf(refusalLine(check))
  const same = checks.filter((each) => each.message && patternOf(refusalLine(each)).source === source)
  return OUTCOMES.find((outcome) => same.some((each) => each.outcome === outcome)) as Outcome
}

/** Panics that are known by their text are panics, other lines of some weight complaints. */
function usualReading({ id, by, level, outcome }: ConsoleLine): Reading | undefined {
  if (messagePrefix(by) === messagePrefix('do_exit()')) return readings.PANIC
  if (id.startsWith('OOPS')) return (report, line) => void report.oopses.push(line)
  return level === 'info' || level === 'debug' || level === 'notice' ? undefined : complain(id, outcome)
}

function refusalLine({ by, message = '' }: Check): Pick<ConsoleLine, 'by' | 'format'> {
  return { by, format: message }
}

function lineById(id: string): ConsoleLine {
  return consoleLines.find((line) => line.id === id) as ConsoleLine
}

/** The whole line with its prefix. A line that tells a place goes on behind it. */
function patternOf({ by, format }: Pick<ConsoleLine, 'by' | 'format'>): RegExp {
  return formatPattern(`${messagePrefix(by)}${format}`)
}

const BANNER = /^Linux version (\S+)/

function kernelLine(report: KernelReport, line: string): void {
  const banner = BANNER.exec(line)
  if (banner) report.kernel = banner[1]
  for (const { pattern, reading } of known) {
    const match = pattern.exec(line)
    if (!match) continue
    reading(report, line, match.slice(1))
    return
  }
}

/** `verb key=value key=value`. What is not understood is passed over: the console may hold anything. */
function guestLine(report: KernelReport, text: string): void {
  const [verb, ...pairs] = text.split(' ')
  const values = new Map(pairs.map((pair) => pair.split('=', 2) as [string, string]))
  const errno = Number(values.get('errno') ?? 0)
  const name = values.get('session') ?? ''
  switch (verb) {
    case 'device':
      report.device = errno
      return
    case 'created':
      report.preserved.push({ name, errno, files: [] })
      return
    case 'session':
      report.sessions.push({ name, errno, files: [] })
      return
    case 'preserved':
      report.preserved.at(-1)?.files.push(fileOf(values, errno))
      return
    case 'file':
      report.sessions.at(-1)?.files.push(fileOf(values, errno))
      return
    case 'region':
      report.regionContents.push(regionOf(values, errno))
      return
    case 'finish': {
      const session = report.sessions.at(-1)
      if (session) session.finish = errno
      return
    }
    case 'failed':
      report.failed = text
      return
    case 'done':
      report.done = true
  }
}

type Values = ReadonlyMap<string, string>

function fileOf(values: Values, errno: number): FileReport {
  const [pos, seals] = [numberIn(values, 'pos'), numberIn(values, 'seals')]
  return {
    token: numberIn(values, 'token') ?? 0n,
    errno,
    ...contentOf(values),
    ...(pos !== undefined && { pos }),
    ...(seals !== undefined && { seals: Number(seals) }),
  }
}

function regionOf(values: Values, errno: number): RegionReport {
  const name = decodeText(Buffer.from(values.get('region') ?? '', 'hex'))
  return { name, address: numberIn(values, 'address') ?? 0n, errno, ...contentOf(values) }
}

function contentOf(values: Values): Pick<FileReport, 'size' | 'sum'> {
  const size = numberIn(values, 'size')
  const sum = values.get('sum')
  return {
    ...(size !== undefined && { size }),
    ...(sum !== undefined && /^[0-9a-f]{16}$/.test(sum) && { sum: BigInt(`0x${sum}`) }),
  }
}

function numberIn(values: Values, key: string): bigint | undefined {
  const text = values.get(key) ?? ''
  return /^-?(0x[0-9a-f]+|\d+)$/.test(text) ? BigInt(text) : undefined
}
