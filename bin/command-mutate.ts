/** `kho-inspect mutate`: a wrong image out of a right one, by the name of a fault. */

import { hex } from '../abi/memory.ts'
import { formatByName, type ImageFormat, imageFile, imageFormats } from '../encode/image-format.ts'
import type { ImageFile, Unwritable } from '../encode/image-pieces.ts'
import type { KhoData } from '../inspect/boot-entry.ts'
import type { Handover } from '../inspect/decode.ts'
import type { Image } from '../inspect/image.ts'
import { rules } from '../inspect/rules.ts'
import { alignedTable } from '../inspect/table.ts'
import { printable } from '../inspect/text.ts'
import { child, itemsAt, numberAt } from '../inspect/tree.ts'
import { ownKernel } from '../inspect/validate.ts'
import { applyFault, faultNamed, faults } from '../mutate/catalogue.ts'
import { type Edit, editedBoot, isUnfit, patchesOf } from '../mutate/change.ts'
import type { NamedFault } from '../mutate/named-fault.ts'
import { PatchedView } from '../mutate/patch.ts'
import { Site } from '../mutate/site.ts'
import { printJson } from './abi-show.ts'
import { defineCommand, UsageError } from './command.ts'
import { complain, imageOptions, listCandidates, openHandover } from './image-arguments.ts'
import { OutputFiles } from './output-file.ts'
import { ExitCode, type Terminal } from './terminal.ts'

export const command = defineCommand({
  options: (yargs) =>
    imageOptions(yargs)
      .positional('image', { type: 'string', array: true, default: [], describe: 'image file' })
      .option('fault', { type: 'string', describe: 'name of the fault to make' })
      .option('seed', { type: 'string', describe: 'chooses between places and values', coerce: seedOption })
      .option('output', { alias: 'o', type: 'string', describe: 'file to write; the name says the format' })
      .option('list', { type: 'boolean', default: false, describe: 'list the faults' })
      .option('json', { type: 'boolean', default: false, describe: 'with --list: as JSON' }),
  run: async (args, terminal) => {
    if (args.list) return list(args.json, terminal)
    const { fault: name, output, image: files } = args
    if (name === undefined || output === undefined || files.length === 0)
      throw new UsageError('expected an image, --fault NAME and -o FILE; or --list')
    const fault = faultNamed(name)
    if (!fault) throw new UsageError(`--fault: no fault '${name}'; kho-inspect mutate --list has them all`)
    const opened = await openHandover(files, args, terminal)
    if (!opened) return ExitCode.UNREADABLE
    try {
      listCandidates(opened.candidates, terminal)
      const { handover } = opened.candidates[0]
      return mutate(opened.image, handover, fault, { seed: args.seed ?? 1, output }, terminal)
    } finally {
      opened.image.close()
    }
  },
})

const MAX_SEED = 2 ** 32

function seedOption(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const seed = Number(text)
  if (/^[0-9]+$/.test(text) && seed < MAX_SEED) return seed
  throw new UsageError(`--seed: expected a whole number below ${MAX_SEED}; found '${text}'`)
}

function list(json: boolean, terminal: Terminal): number {
  if (json) {
    const listed = faults.map(({ apply: _apply, ...told }) => told)
    printJson({ schema: 'kho-inspect/faults@1', faults: listed }, terminal)
    return ExitCode.OK
  }
  const columns = [{ title: 'fault', paint: 'key' as const }, { title: 'rule' }, { title: 'what is wrong' }]
  const rows = faults.map(({ name, rule, doc }) => [name, rule, doc])
  terminal.out(`${alignedTable(columns, rows, { paint: terminal.paint, indent: '' })}\n`)
  return ExitCode.OK
}

function mutate(
  image: Image,
  handover: Handover,
  fault: NamedFault,
  { seed, output }: { readonly seed: number; readonly output: string },
  terminal: Terminal,
): number {
  const change = applyFault(fault, new Site(handover, ownKernel(handover)), seed)
  const boot = bootEntryOf(handover)
  if (isUnfit(change) || !boot) {
    const why = isUnfit(change)
      ? change.unfit
      : 'nothing says where its root FDT lies, as in a copy of debugfs'
    complain(terminal, `${image.files[0]}: ${fault.name} does not fit this image: ${why}`)
    return ExitCode.USAGE
  }
  const format = formatByName(output) ?? ownFormat(image)
  const file = mutatedFile(image, handover, change, boot, format)
  if ('problem' in file) {
    complain(terminal, `${output}: ${file.problem}`)
    return ExitCode.USAGE
  }
  const written = new OutputFiles()
  const failed = written.add(output, file) ?? written.commit()
  if (failed) {
    complain(terminal, failed.problem)
    return ExitCode.UNREADABLE
  }
  terminal.out(
    `${output}: ${fault.name}, ${changeText(change)}; root FDT ${hex(boot.fdt_addr)}; breaks ${fault.rule}${shownWith(fault, handover)}\n`,
  )
  return ExitCode.OK
}

/** Regions are judged only against a command line that asks for them: that of the right image. */
function shownWith({ rule }: NamedFault, { tree }: Handover): string {
  if (rules.find(({ id }) => id === rule)?.stage !== 'reserve-mem') return ''
  const asked = itemsAt(child(tree, 'memblock'), 'reserve_mem').map((region) => {
    const name = typeof region.segment === 'object' ? region.segment.key : undefined
    return `reserve_mem=${numberAt(region, 'size')}:${PAGE_ALIGNED}:${name}`
  })
  return `; shows with --cmdline '${printable(asked.join(' '))}'`
}

/** The least alignment that reserve_mem= takes. */
const PAGE_ALIGNED = 4096

/** Edits that are listed. */
const MAX_LISTED = 8

function changeText(change: readonly Edit[]): string {
  const listed = change.slice(0, MAX_LISTED).map(editText)
  const more = change.length - listed.length
  return [...listed, ...(more > 0 ? [`${more} more changes`] : [])].join(', ')
}

function editText(edit: Edit): string {
  if ('bytes' in edit) return `${edit.bytes.length} bytes at ${hex(edit.pa)}`
  return Object.entries(edit.boot)
    .map(([field, value]) => `${field} ${hex(value)} in the boot entry`)
    .join(', ')
}

/** The input's own format where it can be written, else ELF. */
function ownFormat({ format }: Image): ImageFormat {
  return imageFormats.find((name) => name === format) ?? 'elf'
}

function mutatedFile(
  image: Image,
  { target: { pageSize } }: Handover,
  edits: readonly Edit[],
  boot: KhoData,
  format: ImageFormat,
): ImageFile | Unwritable {
  const arch = image.architecture ?? 'x86_64'
  const machine = { arch, pageSize, boot: editedBoot(boot, edits) }
  return imageFile(format, new PatchedView(image, patchesOf(edits)), machine)
}

/** What the next kernel is told, so that a reader finds a handover whose root FDT no scan would find. */
function bootEntryOf({ tree, fdt, target }: Handover): KhoData | undefined {
  if (fdt === undefined) return undefined
  const boot = child(tree, 'boot')
  const scratch = child(tree, 'scratch')
  return {
    fdt_addr: fdt,
    fdt_size: BigInt(target.pageSize),
    scratch_addr: scratch?.pa ?? BigInt(numberAt(boot, 'scratch_addr') ?? 0n),
    scratch_size: BigInt(scratch?.length ?? numberAt(boot, 'scratch_size') ?? 0n),
  }
}
