/** `kho-inspect validate`: what the next kernel would do with a handover, and what it would not notice. */
import type { Argv } from 'yargs'
import type { Severity } from '../abi/fault.ts'
import type { DecodeOptions, Handover } from '../inspect/decode.ts'
import { bootNote } from '../inspect/find.ts'
import type { Image } from '../inspect/image.ts'
import { isProblem, openFile } from '../inspect/image-source.ts'
import { readKernel } from '../inspect/preflight.ts'
import { type Json, jsonText } from '../inspect/render-json.ts'
import { renderMatrix, renderVerdict, type ShownFindings } from '../inspect/render-verdict.ts'
import { rules } from '../inspect/rules.ts'
import { renderRules, rulesMarkdown, rulesToJson } from '../inspect/rules-text.ts'
import { sarifLog } from '../inspect/sarif.ts'
import { parseTargetKernel, type TargetKernel } from '../inspect/target-kernel.ts'
import { printable } from '../inspect/text.ts'
import { type ValidateOptions, validate, validateForAll } from '../inspect/validate.ts'
import type { Verdict } from '../inspect/verdict.ts'
import { matrixToJson, verdictToJson } from '../inspect/verdict-json.ts'
import { defineCommand, UsageError } from './command.ts'
import {
  complain,
  type ImageArguments,
  imageOptions,
  listCandidates,
  openHandover,
} from './image-arguments.ts'
import { packageVersion } from './package-version.ts'
import { ExitCode, type Terminal } from './terminal.ts'

/** Worst first. */
const SEVERITIES = ['error', 'warning', 'note'] as const
const DEFAULT_THRESHOLD: Severity = 'warning'

export const command = defineCommand({
  options: (yargs) =>
    imageOptions(yargs)
      .positional('image', {
        type: 'string',
        array: true,
        default: [],
        describe: 'image file, FILE@ADDR for flat memory from ADDR on, or a copy of debugfs kho',
      })
      .option('as', {
        type: 'string',
        describe: 'kernel to judge for: a release, or versions (kho-v4,luo-v5,memfd-v2)',
        coerce: targetOption,
      })
      .option('kernel', { type: 'string', describe: 'vmlinux, bzImage or Image that will be booted' })
      .option('matrix', { type: 'boolean', default: false, describe: 'the verdict of every known release' })
      .option('cmdline', { type: 'string', describe: "the next kernel's command line, for reserve_mem=" })
      .option('handler', {
        type: 'string',
        array: true,
        nargs: 1,
        default: [],
        describe: 'file handler of another driver that the next kernel has (vfio-v1)',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print JSON (kho-inspect/validate)' })
      .option('sarif', { type: 'boolean', default: false, describe: 'print a SARIF 2.1.0 log' })
      .option('ignore', {
        type: 'string',
        array: true,
        nargs: 1,
        default: [],
        describe: 'leave out the findings of a rule',
      })
      .option('min-severity', {
        choices: SEVERITIES,
        describe: 'least severity that is listed and counts; warning counts without it',
      })
      .option('rules', { type: 'boolean', default: false, describe: 'list the rules' })
      .option('markdown', {
        type: 'boolean',
        default: false,
        describe: 'with --rules: as Markdown',
      }) as unknown as Argv<ValidateArguments>,
  run: async (args, terminal) => {
    checkUsage(args)
    if (args.rules) return listRules(args, terminal)
    const kernel = args.kernel === undefined ? args.as : await kernelFrom(args.kernel, terminal)
    if (kernel === null) return ExitCode.UNREADABLE
    const opened = await openHandover(args.image, args, terminal, { anyRoot: true })
    if (!opened) return ExitCode.UNREADABLE
    try {
      listCandidates(opened.candidates, terminal)
      const { handover } = opened.candidates[0]
      const options: ValidateOptions = {
        ...(kernel && { kernel }),
        handlers: args.handler,
        ...(args.cmdline !== undefined && { commandLine: args.cmdline }),
        decode: decodeOptions(opened.image, args),
      }
      return args.matrix
        ? await printMatrix(handover, options, args.json, terminal)
        : await printVerdict(validate(handover, options), args, terminal)
    } finally {
      opened.image.close()
    }
  },
})

interface ValidateArguments extends ImageArguments {
  readonly image: readonly string[]
  readonly as: TargetKernel | undefined
  readonly kernel: string | undefined
  readonly matrix: boolean
  readonly cmdline: string | undefined
  readonly handler: readonly string[]
  readonly json: boolean
  readonly sarif: boolean
  readonly ignore: readonly string[]
  readonly minSeverity: Severity | undefined
  readonly rules: boolean
  readonly markdown: boolean
}

function targetOption(text: string | undefined): TargetKernel | undefined {
  if (text === undefined) return undefined
  const kernel = parseTargetKernel(text)
  if (kernel) return kernel
  throw new UsageError(
    `--as: expected a release or versions joined by commas (see kho-inspect abi list); found '${printable(text)}'`,
  )
}

function checkUsage(args: ValidateArguments): void {
  const exclusive = (...names: readonly (keyof ValidateArguments)[]): void => {
    const given = names.filter((name) => args[name] !== undefined && args[name] !== false)
    if (given.length > 1) throw new UsageError(`--${given.join(' and --')} exclude each other`)
  }
  exclusive('json', 'sarif', 'markdown')
  exclusive('as', 'kernel', 'matrix')
  exclusive('matrix', 'sarif')
  if (args.markdown && !args.rules) throw new UsageError('--markdown goes with --rules')
  if (!args.rules && args.image.length === 0) throw new UsageError('expected an image; or --rules')
  const unknown = args.ignore.find((id) => !rules.some((rule) => rule.id === id))
  if (unknown !== undefined)
    throw new UsageError(
      `--ignore: no rule '${printable(unknown)}'; kho-inspect validate --rules has them all`,
    )
}

function listRules({ json, markdown }: ValidateArguments, terminal: Terminal): number {
  if (json) terminal.out(`${[...jsonText(rulesToJson(rules))].join('')}\n`)
  else terminal.out(markdown ? rulesMarkdown(rules) : renderRules(rules, terminal.paint, terminal.columns))
  return ExitCode.OK
}

/** What a kernel's file speaks; null after one line that says why that is not known. */
async function kernelFrom(file: string, terminal: Terminal): Promise<TargetKernel | null> {
  const source = openFile(file)
  const reading = isProblem(source) ? source : await readKernel(source)
  if (isProblem(reading)) {
    complain(terminal, reading.problem)
    return null
  }
  for (const text of reading.unknown) {
    terminal.err(`kho-inspect: warning: ${printable(file)} speaks ${text}, of which nothing is known here`)
  }
  return reading.kernel
}

/** What the handover was decoded with, for a kernel that reads the same bytes in another way. */
function decodeOptions(image: Image, { scratch, pageSize }: ImageArguments): DecodeOptions {
  const boot = bootNote(image)
  return {
    ...(boot && { boot }),
    ...(scratch && { scratchArray: scratch }),
    ...(pageSize !== undefined && { pageSize }),
  }
}

async function printMatrix(
  handover: Handover,
  options: ValidateOptions,
  json: boolean,
  terminal: Terminal,
): Promise<number> {
  const verdicts = validateForAll(handover, options)
  if (json) await writeJson(matrixToJson(verdicts), terminal)
  else terminal.out(renderMatrix(verdicts, terminal.paint))
  return ExitCode.OK
}

async function printVerdict(verdict: Verdict, args: ValidateArguments, terminal: Terminal): Promise<number> {
  const shown = shownFindings(verdict, args)
  if (args.json) await writeJson(verdictToJson(verdict, shown), terminal)
  else if (args.sarif) {
    const [file = ''] = args.image
    await writeJson(sarifLog(verdict, shown.findings, { version: packageVersion(), file, rules }), terminal)
  } else terminal.out(renderVerdict(verdict, shown, terminal))
  const threshold = args.minSeverity ?? DEFAULT_THRESHOLD
  return shown.findings.some(({ severity }) => isAtLeast(severity, threshold))
    ? ExitCode.FINDINGS
    : ExitCode.OK
}

function shownFindings(
  { findings }: Verdict,
  { ignore, minSeverity = 'note' }: ValidateArguments,
): ShownFindings {
  const heeded = findings.filter(({ rule }) => !ignore.includes(rule))
  return {
    findings: heeded.filter(({ severity }) => isAtLeast(severity, minSeverity)),
    ignored: findings.length - heeded.length,
  }
}

function isAtLeast(severity: Severity, threshold: Severity): boolean {
  return SEVERITIES.indexOf(severity) <= SEVERITIES.indexOf(threshold)
}

async function writeJson(value: Json, terminal: Terminal): Promise<void> {
  await terminal.outAll(jsonText(value))
  terminal.out('\n')
}
