/**
 * `kho-inspect encode`: an image from a scenario, from a handover document, or again from an image; with
 * a name that ends in .json the document itself.
 */
import type { Argv } from 'yargs'
import type { PageSize } from '../abi/layout.ts'
import { ARCHITECTURES, type Architecture } from '../abi/machine.ts'
import { hex } from '../abi/memory.ts'
import { formatByName, imageFile, imageFormats, knownExtensions } from '../encode/image-format.ts'
import { type ImageFile, sequential, type Unwritable } from '../encode/image-pieces.ts'
import { formatHandoverDocument } from '../encode/json-document.ts'
import { scenarioJsonSchema } from '../encode/scenario-schema.ts'
import { defineCommand, UsageError } from './command.ts'
import { type EncodeSource, sourceFromImage, sourceFromText } from './encode-source.ts'
import { complain, handoverOptions, type ImageArguments, pageSizeOption } from './image-arguments.ts'
import { bytesFile, OutputFiles } from './output-file.ts'
import type { NoSource } from './scenario-file.ts'
import { ExitCode, type Terminal } from './terminal.ts'

const STDOUT = '-'

const outputFormats = [...imageFormats, 'json'] as const
type OutputFormat = (typeof outputFormats)[number]

interface EncodeArguments extends Pick<ImageArguments, 'fdt' | 'scratch'> {
  readonly scenario: string | undefined
  readonly output: string | undefined
  readonly format: OutputFormat | undefined
  readonly release: string | undefined
  readonly arch: Architecture | undefined
  readonly pageSize: PageSize | undefined
  readonly allRam: boolean
  readonly from: string | undefined
  readonly schema: boolean
}

export const command = defineCommand({
  options: (yargs) =>
    handoverOptions(yargs)
      .positional('scenario', {
        type: 'string',
        describe: 'scenario in YAML or JSON, or a handover document',
      })
      .option('output', { alias: 'o', type: 'string', describe: 'file to write; - for a pipe' })
      .option('format', { choices: outputFormats, describe: 'container, instead of what the name says' })
      .option('release', { type: 'string', describe: "Linux release, instead of the scenario's: linux-7.2" })
      .option('arch', { choices: ARCHITECTURES, describe: "architecture, instead of the scenario's" })
      .option('page-size', {
        type: 'string',
        describe: "page size, instead of the scenario's: 4K, 16K or 64K",
        coerce: pageSizeOption,
      })
      .option('all-ram', {
        type: 'boolean',
        default: false,
        describe: 'all RAM of the machine, not only what the handover owns',
      })
      .option('from', { type: 'string', describe: 'image to decode and encode again, instead of a scenario' })
      .option('schema', {
        type: 'boolean',
        default: false,
        describe: 'print the JSON Schema of scenarios',
      }) as unknown as Argv<EncodeArguments>,
  run: async (args, terminal) => {
    if (args.schema) {
      terminal.out(`${JSON.stringify(scenarioJsonSchema(), undefined, 2)}\n`)
      return ExitCode.OK
    }
    const { output } = args
    if (output === undefined) throw new UsageError('expected an image to write: -o FILE, or -o - for a pipe')
    const format = formatOf(output, args.format)
    const source = await sourceOf(args, terminal)
    if ('exitCode' in source) return source.exitCode
    try {
      return await write(output, format, source, args.allRam, terminal)
    } finally {
      source.close?.()
    }
  },
})

async function write(
  output: string,
  format: OutputFormat,
  source: EncodeSource,
  allRam: boolean,
  terminal: Terminal,
): Promise<number> {
  const file = outputFile(format, source, allRam)
  if ('problem' in file) {
    complain(terminal, `${output}: ${file.problem}`)
    return ExitCode.USAGE
  }
  return output === STDOUT ? await writeToPipe(file, terminal) : writeToFile(output, file, source, terminal)
}

function outputFile(format: OutputFormat, source: EncodeSource, allRam: boolean): ImageFile | Unwritable {
  if (format === 'json') return bytesFile(new TextEncoder().encode(formatHandoverDocument(source.document)))
  return imageFile(format, allRam ? source.ram : source.held, source)
}

function formatOf(output: string, wanted: OutputFormat | undefined): OutputFormat {
  const format = wanted ?? (output.endsWith('.json') ? 'json' : formatByName(output))
  if (format) return format
  const names = output === STDOUT ? 'for a pipe' : `or a name that ends in ${knownExtensions}, .json`
  throw new UsageError(`expected --format ${outputFormats.join(', ')}, ${names}; found '${output}'`)
}

/** One source exactly. */
async function sourceOf(encode: EncodeArguments, terminal: Terminal): Promise<EncodeSource | NoSource> {
  const { scenario, from, release, arch, pageSize, fdt, scratch } = encode
  if ((scenario === undefined) === (from === undefined)) {
    throw new UsageError('expected a scenario, or --from with an image')
  }
  if (scenario === undefined) {
    const args = { format: undefined, abi: undefined, fdt, scratch, pageSize }
    return sourceFromImage(from as string, args, arch, terminal)
  }
  const options = { ...(release && { release }), ...(arch && { arch }), ...(pageSize && { pageSize }) }
  return sourceFromText(scenario, options, terminal)
}

async function writeToPipe(file: ImageFile, terminal: Terminal): Promise<number> {
  await terminal.outBytes(sequential(file))
  return ExitCode.OK
}

const PROGRESS_AFTER_MS = 1000

function writeToFile(output: string, file: ImageFile, source: EncodeSource, terminal: Terminal): number {
  const started = performance.now()
  const files = new OutputFiles()
  const failed =
    files.add(output, file, (done, total) => {
      if (performance.now() - started < PROGRESS_AFTER_MS) return
      terminal.progress(`writing ${output}: ${Math.floor((done / total) * 100)}%`)
    }) ?? files.commit()
  terminal.progress(undefined)
  if (failed) {
    complain(terminal, failed.problem)
    return ExitCode.UNREADABLE
  }
  terminal.out(`${output}: ${summary(source)}\n`)
  return ExitCode.OK
}

/** What a reader needs that is given no note. */
function summary({ label, arch, pageSize, boot }: EncodeSource): string {
  const machine = `${label} on ${arch} with pages of ${pageSize / 1024} KiB`
  const scratch = `scratch array ${hex(boot.scratch_addr)} (${boot.scratch_size} bytes)`
  return `${machine}; root FDT ${hex(boot.fdt_addr)}, ${scratch}`
}
