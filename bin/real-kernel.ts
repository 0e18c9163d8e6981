/** What `boot` and `capture` have in common: options of a run, the console as it comes, the report. */
import type { Argv } from 'yargs'
import { type Json, jsonText } from '../inspect/render-json.ts'
import { printable } from '../inspect/text.ts'
import type { Difference, ExpectedSession } from '../qemu/expectation.ts'
import { outcomeOf } from '../qemu/outcome.ts'
import type { RunReport } from '../qemu/report.ts'
import { UsageError } from './command.ts'
import type { Terminal } from './terminal.ts'

export interface RunArguments {
  readonly kernel: string
  readonly initrd: string | undefined
  readonly cmdline: string | undefined
  readonly memory: number | undefined
  readonly timeout: number
  readonly json: boolean
}

const DEFAULT_TIMEOUT_SECONDS = '120'

/** Adds the options of a run under QEMU. */
export function runOptions<A>(yargs: Argv<A>): Argv<A & RunArguments> {
  return yargs
    .option('kernel', { type: 'string', demandOption: true, describe: 'kernel to run' })
    .option('initrd', { type: 'string', describe: 'initramfs to run it with' })
    .option('cmdline', { type: 'string', describe: 'more parameters for the kernel' })
    .option('memory', {
      type: 'string',
      describe: 'RAM of the machine: 512M, 2G',
      coerce: memoryOption,
    })
    .option('timeout', {
      type: 'string',
      default: DEFAULT_TIMEOUT_SECONDS,
      describe: 'seconds after which the machine is switched off',
      coerce: secondsOption,
    })
    .option('json', {
      type: 'boolean',
      default: false,
      describe: 'print the report as JSON',
    }) as unknown as Argv<A & RunArguments>
}

/** MiB. */
function memoryOption(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const [, digits, unit] = /^([1-9]\d{0,6})([MG])(?:iB)?$/.exec(text) ?? []
  if (digits === undefined) throw new UsageError(`--memory: expected 512M or 2G; found '${printable(text)}'`)
  return Number(digits) * (unit === 'G' ? 1024 : 1)
}

function secondsOption(text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text)
  throw new UsageError(`--timeout: expected seconds; found '${printable(text)}'`)
}

/** Shows a line of the machine's console as it comes. */
export function consoleLine(terminal: Terminal): (line: string) => void {
  return (line) => terminal.err(terminal.paint.dim(printable(line)))
}

/** Indented for people. */
export function writeDocument(document: Json, terminal: Terminal): void {
  for (const piece of jsonText(document)) terminal.out(piece)
  terminal.out('\n')
}

/** Whether the kernel came to its end, and everything came back. */
export function isClean(report: RunReport, found: readonly Difference[]): boolean {
  const cameToItsEnd = report.done || report.noRoot
  return cameToItsEnd && outcomeOf(report, found) === 'takes-over'
}

const ENDINGS: Readonly<Record<RunReport['ending'], string>> = {
  exit: 'the machine was switched off',
  hung: 'the machine stood still after its panic',
  time: 'the time was up',
}

/** A report for people; of capture, which asks for nothing, without `asked`. */
export function reportLines(
  report: RunReport,
  differences: readonly Difference[],
  terminal: Terminal,
  asked: readonly ExpectedSession[] = [],
): string[] {
  const { paint } = terminal
  const outcome = outcomeOf(report, differences)
  return [
    `Linux ${report.kernel ?? '(no banner)'}: ${report.handover ? 'found the handover' : 'found no handover'}; ${
      outcome === 'takes-over' ? paint.good(outcome) : paint.fault(outcome)
    }; ${ENDINGS[report.ending]}`,
    ...report.complaints.map(({ id, line }) => `  ${paint.warn(id)}  ${printable(line)}`),
    ...[...report.warnings, ...report.oopses].map((line) => `  ${paint.fault(printable(line))}`),
    ...(report.panic === undefined ? [] : [`  ${paint.fault(printable(report.panic))}`]),
    ...report.regions.map((name) => `  reserve_mem ${printable(name)} came back`),
    ...report.flbs.map((name) => `  FLB ${printable(name)} came back`),
    `  ${shareOf(report.sessions, asked)} sessions and ${shareOf(filesOf(report.sessions), filesOf(asked))} files came back`,
    ...differences.map(({ path, expected, found }) =>
      paint.fault(`  ${printable(path)}: expected ${expected}, found ${found}`),
    ),
  ]
}

/** Of those that the guest was asked for, or told of where it asked by itself. */
function shareOf(told: readonly { readonly errno: number }[], asked: readonly unknown[]): string {
  const came = told.filter(({ errno }) => errno === 0).length
  return `${came} of ${Math.max(told.length, asked.length)}`
}

function filesOf<T>(sessions: readonly { readonly files: readonly T[] }[]): readonly T[] {
  return sessions.flatMap(({ files }) => files)
}
