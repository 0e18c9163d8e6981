/**
 * `kho-inspect simulate`: runs the steps of a scenario on a simulated machine, shows what happens, writes
 * the image at every kexec, and says which step did not go as expected.
 */
import { join } from 'node:path'
import type { Argv } from 'yargs'
import { formatPath } from '../abi/fault.ts'
import type { PageSize } from '../abi/layout.ts'
import { ARCHITECTURES, type Architecture } from '../abi/machine.ts'
import { phys } from '../abi/memory.ts'
import { type ImageFormat, imageFile, imageFormats } from '../encode/image-format.ts'
import { formatScenarioProblem } from '../encode/scenario.ts'
import { type ReadTimeline, readTimeline } from '../encode/timeline.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { printable } from '../inspect/text.ts'
import { findNode } from '../inspect/tree.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { runTimeline, type TimelineHooks } from '../simulate/timeline.ts'
import type { StepEvent, TimelineResult } from '../simulate/timeline-event.ts'
import type { TimelineHandover } from '../simulate/timeline-machine.ts'
import { defineCommand } from './command.ts'
import { complain, pageSizeOption } from './image-arguments.ts'
import { makeFolder, OutputFiles, type OutputProblem } from './output-file.ts'
import { readerBeside, readText, refuse } from './scenario-file.ts'
import { ExitCode, type Terminal } from './terminal.ts'
import { type TimelineImage, timelineToJson } from './timeline-json.ts'
import { stepLines, summaryLine } from './timeline-text.ts'

/** The log is read beside other things. */
const COLUMNS = 80

interface SimulateArguments {
  readonly scenario: string
  readonly release: string | undefined
  readonly arch: Architecture | undefined
  readonly pageSize: PageSize | undefined
  readonly saveImages: string | undefined
  readonly format: ImageFormat
  readonly json: boolean
  readonly keepGoing: boolean
}

export const command = defineCommand({
  options: (yargs) =>
    yargs
      .positional('scenario', {
        type: 'string',
        demandOption: true,
        describe: 'scenario in YAML or JSON, with steps or without',
      })
      .option('release', {
        type: 'string',
        describe: "first kernel, instead of the scenario's: linux-7.1",
      })
      .option('arch', { choices: ARCHITECTURES, describe: "architecture, instead of the scenario's" })
      .option('page-size', {
        type: 'string',
        describe: "page size, instead of the scenario's: 4K, 16K or 64K",
        coerce: pageSizeOption,
      })
      .option('save-images', { type: 'string', describe: 'folder for the image at every kexec' })
      .option('format', { choices: imageFormats, default: 'elf', describe: 'container of these images' })
      .option('json', { type: 'boolean', default: false, describe: 'print all events as JSON' })
      .option('keep-going', {
        type: 'boolean',
        default: false,
        describe: 'go on after a step that did not go as expected',
      }) as unknown as Argv<SimulateArguments>,
  run: async (args, terminal) => {
    const text = readText(args.scenario)
    if (typeof text !== 'string') {
      complain(terminal, `${args.scenario}: ${text.problem}`)
      return ExitCode.UNREADABLE
    }
    const { release, arch, pageSize } = args
    const read = await readTimeline(text, {
      simulated: simulatedReleases,
      readFile: readerBeside(args.scenario),
      ...(release && { release }),
      ...(arch && { arch }),
      ...(pageSize && { pageSize }),
    })
    if (read.ok) return simulate(args, read, terminal)
    const lines = read.problems.map((problem) => formatScenarioProblem(args.scenario, problem))
    return refuse(args.scenario, lines, terminal).exitCode
  },
})

function simulate(args: SimulateArguments, { timeline, placeOf }: ReadTimeline, terminal: Terminal): number {
  const writer = args.saveImages === undefined ? undefined : new ImageWriter(args.saveImages, args.format)
  const hooks: TimelineHooks = {
    keepGoing: args.keepGoing,
    onStep: (event) => {
      if (args.json) return
      for (const line of stepLines(event, terminal.paint, Math.min(terminal.columns, COLUMNS)))
        terminal.out(`${line}\n`)
    },
    onHandover: (handover) => writer?.write(handover),
    locate,
  }
  const result = runTimeline(timeline, hooks)
  report(args, result, writer?.images ?? [], terminal)
  for (const event of result.events) {
    if (event.wrong.length > 0) complain(terminal, complaint(args.scenario, event, placeOf))
  }
  if (writer?.failed) {
    complain(terminal, writer.failed.problem)
    return ExitCode.UNREADABLE
  }
  return result.failure ? ExitCode.FINDINGS : ExitCode.OK
}

function report(
  { json }: SimulateArguments,
  result: TimelineResult,
  images: readonly TimelineImage[],
  terminal: Terminal,
): void {
  if (json) {
    terminal.out(`${JSON.stringify(timelineToJson(result, images), undefined, 2)}\n`)
    return
  }
  terminal.out(`${summaryLine(result, terminal.paint)}\n`)
  for (const { file, from, to } of images) terminal.out(`${file}: from ${from} to ${to}\n`)
}

function complaint(file: string, event: StepEvent, placeOf: ReadTimeline['placeOf']): string {
  const { line, column } = placeOf(event.path)
  const path = formatPath(event.path)
  const place = `${file}:${line}:${column}: ${path === '' ? '' : `${path}: `}`
  return printable(`${place}step ${event.number}, ${event.said}: ${event.wrong.join('; ')}`)
}

/** Where a path leads in the handover between two kernels. */
const locate: NonNullable<TimelineHooks['locate']> = (memory, boot, path) => {
  const { tree } = decodeHandover(memory, phys(boot.fdt_addr), { boot })
  const found = findNode(tree, path)
  if ('problem' in found) return found
  const { pa, length } = found.node
  return length > 0 ? { pa, length } : { problem: `'${path}' is computed; no bytes stand for it` }
}

/** Writes images while the timeline runs; after the first that cannot be written, no more. */
class ImageWriter {
  readonly #folder: string
  readonly #format: ImageFormat
  readonly images: TimelineImage[] = []
  failed: OutputProblem | undefined

  constructor(folder: string, format: ImageFormat) {
    this.#folder = folder
    this.#format = format
  }

  write(handover: TimelineHandover): void {
    const { number, from, to } = handover
    const path = join(this.#folder, `${number}-${from}-to-${to}.${this.#format}`)
    this.failed ??= this.#writeFile(path, handover)
    if (!this.failed) this.images.push({ file: path, from, to })
  }

  #writeFile(path: string, handover: TimelineHandover): OutputProblem | undefined {
    const problem = makeFolder(this.#folder)
    if (problem) return problem
    const file = imageFile(this.#format, handover.memory, handover)
    if ('problem' in file) return { problem: `${path}: ${file.problem}` }
    const files = new OutputFiles()
    return files.add(path, file) ?? files.commit()
  }
}
