/**
 * `kho-inspect fixtures`: a documented set of images for a release, one per concept, with a manifest and
 * a README. All files appear together at the end, or none.
 */
import { join } from 'node:path'
import type { Argv } from 'yargs'
import type { PageSize } from '../abi/layout.ts'
import { ARCHITECTURES, type Architecture, machines } from '../abi/machine.ts'
import { hex } from '../abi/memory.ts'
import { releaseFor, releases } from '../abi/registry.ts'
import { type ImageFormat, imageFormats } from '../encode/image-format.ts'
import { textLabel } from '../encode/text.ts'
import {
  type Fixture,
  FixtureError,
  type FixtureMachine,
  fixtureScenario,
  fixtures,
  type SkippedFixture,
} from '../testing/fixtures.ts'
import { defineCommand, UsageError } from './command.ts'
import { complain, pageSizeOption } from './image-arguments.ts'
import { makeFolder, OutputFiles, type OutputProblem } from './output-file.ts'
import { ExitCode, type Terminal } from './terminal.ts'

/** Changes when a key of the manifest changes. */
const MANIFEST_SCHEMA = 'kho-inspect/fixtures@1'

interface FixturesArguments {
  readonly dir: string
  readonly release: string
  readonly arch: Architecture
  readonly pageSize: PageSize | undefined
  readonly format: ImageFormat
}

export const command = defineCommand({
  options: (yargs) =>
    yargs
      .positional('dir', { type: 'string', demandOption: true, describe: 'folder for the images' })
      .option('release', { type: 'string', demandOption: true, describe: 'Linux release: linux-7.2, 7.2' })
      .option('arch', { choices: ARCHITECTURES, default: 'x86_64', describe: 'architecture' })
      .option('page-size', {
        type: 'string',
        describe: 'page size: 4K, on arm64 16K and 64K, too',
        coerce: pageSizeOption,
      })
      .option('format', {
        choices: imageFormats,
        default: 'elf',
        describe: 'container of the images',
      }) as unknown as Argv<FixturesArguments>,
  run: async (args, terminal) => {
    const machine = machineOf(args)
    const files = new OutputFiles()
    try {
      const set = makeFolder(args.dir) ?? (await writeSet(args, machine, files, terminal))
      const failed = 'problem' in set ? set : files.commit()
      terminal.progress(undefined)
      if (failed) {
        complain(terminal, failed.problem)
        return ExitCode.UNREADABLE
      }
      const { made, skipped } = set as FixtureSet
      const missing = skipped.length > 0 ? `; ${skipped.length} concepts are not there (see README.md)` : ''
      terminal.out(`${args.dir}: ${made.length} images of ${machine.release}${missing}\n`)
      return ExitCode.OK
    } catch (error) {
      if (!(error instanceof FixtureError)) throw error
      complain(terminal, `${args.dir}: ${error.message}`)
      return ExitCode.UNREADABLE
    } finally {
      files.discard()
    }
  },
})

function machineOf({ release, arch, pageSize }: FixturesArguments): Required<FixtureMachine> {
  const known = releaseFor(release)
  if (!known) {
    throw new UsageError(
      `--release: expected one of ${releases.map(({ name }) => name).join(', ')}; found '${release}'`,
    )
  }
  const { pageSizes } = machines[arch]
  const size = pageSize ?? (pageSizes[0] as PageSize)
  if (pageSizes.includes(size)) return { release: known.name, arch, pageSize: size }
  const sizes = pageSizes.map((one) => `${one / 1024}K`).join(', ')
  throw new UsageError(`--page-size: ${arch} has pages of ${sizes}; found ${size / 1024}K`)
}

interface FixtureSet {
  readonly made: readonly FixtureEntry[]
  readonly skipped: readonly SkippedFixture[]
}

type FixtureEntry = ReturnType<typeof entryOf>

async function writeSet(
  { dir, format }: FixturesArguments,
  machine: Required<FixtureMachine>,
  files: OutputFiles,
  terminal: Terminal,
): Promise<FixtureSet | OutputProblem> {
  const made: FixtureEntry[] = []
  const skipped: SkippedFixture[] = []
  for await (const fixture of fixtures(machine)) {
    if ('reason' in fixture) {
      skipped.push(fixture)
      continue
    }
    terminal.progress(`writing ${fixture.name}`)
    const entry = entryOf(fixture, format)
    const failed =
      files.add(join(dir, entry.file), fixture.file(format)) ??
      files.addText(join(dir, entry.scenario), completeScenario(fixture, machine))
    if (failed) return failed
    made.push(entry)
  }
  const set = { made, skipped }
  const { release, arch, pageSize } = machine
  const manifest = {
    schema: MANIFEST_SCHEMA,
    release,
    arch,
    page_size: pageSize,
    format,
    fixtures: made,
    skipped,
  }
  return (
    files.addText(join(dir, 'manifest.json'), `${JSON.stringify(manifest, undefined, 2)}\n`) ??
    files.addText(join(dir, 'README.md'), readme(machine, format, set)) ??
    set
  )
}

/** The scenario with the machine that it was encoded for: encoded again, it gives the same image. */
function completeScenario({ name }: Fixture, { release, arch, pageSize }: Required<FixtureMachine>): string {
  const lines = fixtureScenario(name).split('\n')
  const own = lines.filter(
    (line) => !line.startsWith('# yaml-language-server') && !line.startsWith('page_size:'),
  )
  return [`release: ${release}`, `arch: ${arch}`, `page_size: ${pageSize / 1024}KiB`, ...own].join('\n')
}

/** What the manifest says of an image: enough to find its handover and to check what a reader makes of it. */
function entryOf({ name, title, document, boot }: Fixture, format: ImageFormat) {
  const { luo, memblock } = Object.assign({}, ...document.subtrees) as (typeof document.subtrees)[number]
  const sessions = luo?.sessions?.entries ?? []
  return {
    name,
    title,
    file: `${name}.${format === 'raw' ? 'bin' : format}`,
    scenario: `${name}.yaml`,
    fdt: hex(boot.fdt_addr),
    scratch: hex(boot.scratch_addr),
    scratch_size: Number(boot.scratch_size),
    subtrees: document.subtrees.map((subtree) => textLabel(subtree.name)),
    sessions: sessions.length,
    files: sessions.reduce((sum, { files }) => sum + (files?.entries?.length ?? 0), 0),
    flbs: (luo?.flbs?.entries ?? []).map((flb) => textLabel(flb.name)),
    reserve_mem: (memblock?.reserve_mem.entries ?? []).map((region) => textLabel(region.name)),
  }
}

function readme(
  machine: Required<FixtureMachine>,
  format: ImageFormat,
  { made, skipped }: FixtureSet,
): string {
  const { release, arch, pageSize } = machine
  const pages = `pages of ${pageSize / 1024} KiB`
  const lines = [
    `# Handover images of ${release} on ${arch} with ${pages}`,
    '',
    `Made by \`kho-inspect fixtures --release ${release} --arch ${arch} --page-size ${pageSize / 1024}K --format ${format}\`. No kernel left these; they are what one`,
    'would leave that holds what the scenario beside each image says. `manifest.json` says the same to programs, with the addresses of the root FDT and of the scratch array.',
    ...(format === 'raw' ? ['', 'In these files the offset is the physical address.'] : []),
    '',
    '| image | what it shows |',
    '| --- | --- |',
    ...made.map(({ file, title }) => `| ${file} | ${title} |`),
  ]
  if (skipped.length > 0) {
    lines.push('', `Not there in ${release}, or not with ${pages}:`, '', '| concept | why |', '| --- | --- |')
    lines.push(...skipped.map(({ name, reason }) => `| ${name} | ${reason} |`))
  }
  return `${lines.join('\n')}\n`
}
