/**
 * What every command that reads an image has in common: its options, opening, finding the handover, and
 * the one line that says why there is none.
 */
import type { Argv } from 'yargs'
import { isPageSize, PAGE_SIZES, type PageSize } from '../abi/layout.ts'
import { hex, type PhysAddr, parseAddress } from '../abi/memory.ts'
import type { ScratchArray } from '../inspect/boot-entry.ts'
import { type Handover, khoVersionIds } from '../inspect/decode.ts'
import { type Candidate, type FindOptions, findHandovers } from '../inspect/find.ts'
import {
  type Image,
  type ImageFormat,
  type ImageSource,
  imageFormats,
  openImage,
  parseImageSource,
} from '../inspect/image.ts'
import { printable } from '../inspect/text.ts'
import { child } from '../inspect/tree.ts'
import { addressOption, UsageError } from './command.ts'
import type { Terminal } from './terminal.ts'

export interface ImageArguments {
  readonly format: ImageFormat | undefined
  readonly fdt: PhysAddr | undefined
  readonly scratch: ScratchArray | undefined
  readonly abi: string | undefined
  readonly pageSize: PageSize | undefined
}

/** Adds the options that say how to read an image. */
export function imageOptions<A>(yargs: Argv<A>): Argv<A & ImageArguments> {
  return handoverOptions(yargs)
    .option('format', {
      choices: imageFormats,
      describe: 'container format, instead of what the content looks like',
    })
    .option('abi', {
      type: 'string',
      describe: 'version to read by, where the image does not tell: kho-v1/bitmap-512, linux-6.17, …',
      coerce: abiOption,
    })
    .option('page-size', {
      type: 'string',
      describe: 'page size: 4K, 16K or 64K',
      coerce: pageSizeOption,
    }) as unknown as Argv<A & ImageArguments>
}

/** Adds the options that say where in an image the handover is. */
export function handoverOptions<A>(yargs: Argv<A>): Argv<A & Pick<ImageArguments, 'fdt' | 'scratch'>> {
  return yargs
    .option('fdt', {
      type: 'string',
      describe: 'physical address of the root FDT',
      coerce: addressOption('--fdt'),
    })
    .option('scratch', {
      type: 'string',
      describe: 'ADDR,LENGTH of the array of scratch areas, where no note tells',
      coerce: scratchOption,
    }) as unknown as Argv<A & Pick<ImageArguments, 'fdt' | 'scratch'>>
}

/** Coerces `--scratch`: address and length in bytes of the array of struct kho_scratch. */
function scratchOption(text: string | undefined): ScratchArray | undefined {
  if (text === undefined) return undefined
  const parts = text.split(',').map(parseAddress)
  const [scratch_addr, scratch_size] = parts
  if (parts.length === 2 && scratch_addr !== undefined && scratch_size !== undefined)
    return { scratch_addr, scratch_size }
  throw new UsageError(
    `--scratch: expected ADDR,LENGTH of the scratch array, hexadecimal (0x…) or decimal; found '${printable(text)}'`,
  )
}

function abiOption(text: string | undefined): string | undefined {
  if (text === undefined || khoVersionIds(text).length > 0) return text
  throw new UsageError(
    `--abi: expected a version of KHO or a release (see kho-inspect abi list); found '${printable(text)}'`,
  )
}

/** Coerces `--page-size`: 4K, 16K, 64K or the number of bytes. */
export function pageSizeOption(text: string | undefined): PageSize | undefined {
  if (text === undefined) return undefined
  const bytes = /^[0-9]+[kK]$/.test(text) ? Number(text.slice(0, -1)) * 1024 : Number(text)
  if (isPageSize(bytes)) return bytes
  const known = PAGE_SIZES.map((size) => `${size / 1024}K`).join(', ')
  throw new UsageError(`--page-size: expected ${known}; found '${printable(text)}'`)
}

export interface OpenedHandover {
  readonly image: Image
  readonly candidates: readonly [Candidate, ...Candidate[]]
}

/** Opens an image and finds its handover; undefined after one line on stderr that says why not. */
export async function openHandover(
  files: readonly string[],
  args: ImageArguments,
  terminal: Terminal,
  { anyRoot = false }: Pick<FindOptions, 'anyRoot'> = {},
): Promise<OpenedHandover | undefined> {
  const image = await openImageFiles(files, args, terminal)
  if (!image) return undefined
  const { fdt, scratch, abi, pageSize } = args
  const found = findHandovers(image, {
    anyRoot,
    ...(fdt !== undefined && { fdt }),
    ...(scratch !== undefined && { scratchArray: scratch }),
    ...(abi !== undefined && { abi }),
    ...(pageSize !== undefined && { pageSize }),
    progress: scanProgress(terminal),
  })
  terminal.progress(undefined)
  if ('problem' in found) {
    complain(terminal, [found.problem, ...image.warnings].join('; '))
    image.close()
    return undefined
  }
  for (const warning of image.warnings) terminal.err(`kho-inspect: warning: ${printable(warning)}`)
  const candidates = found.candidates as [Candidate, ...Candidate[]]
  if (image.hint !== undefined && isDangling(candidates[0].handover)) {
    terminal.err(`kho-inspect: warning: nothing lies where the root FDT says; ${printable(image.hint)}`)
  }
  return { image, candidates }
}

/** A root FDT whose map is not there at all: the image's addresses may be wrong. */
function isDangling({ tree, version }: Handover): boolean {
  return version !== undefined && child(tree, 'preserved') === undefined
}

export async function openImageFiles(
  files: readonly string[],
  args: Pick<ImageArguments, 'format'>,
  terminal: Terminal,
): Promise<Image | undefined> {
  const sources: ImageSource[] = []
  for (const file of files) {
    const parsed = parseImageSource(file)
    if (!parsed.ok) throw new UsageError(parsed.problem)
    sources.push(parsed.source)
  }
  const opened = await openImage(sources, args.format === undefined ? {} : { format: args.format })
  if (!opened.ok) {
    complain(terminal, opened.problem)
    return undefined
  }
  return opened.image
}

export function complain(terminal: Terminal, problem: string): void {
  terminal.err(`kho-inspect: ${printable(problem)}`)
}

const PROGRESS_AFTER_MS = 1000

/** Progress of a scan, shown from the second on that it takes. */
function scanProgress(terminal: Terminal): (done: number, total: number) => void {
  const started = performance.now()
  return (done, total) => {
    if (performance.now() - started < PROGRESS_AFTER_MS) return
    const percent = total === 0 ? 100 : Math.floor((done / total) * 100)
    terminal.progress(`scanning for a handover: ${percent}% of ${Math.ceil(total / 2 ** 20)} MiB`)
  }
}

/** Where there are several handovers: all of them, ranked, with what tells them apart. */
export function listCandidates(candidates: readonly Candidate[], terminal: Terminal): void {
  if (candidates.length < 2) return
  terminal.err(
    `kho-inspect: ${candidates.length} handovers found; this is the first, take another with --fdt:`,
  )
  for (const { handover, reasons } of candidates) {
    const at = handover.fdt === undefined ? 'no address' : hex(handover.fdt)
    terminal.err(`  ${at}  ${handover.version?.id ?? 'unknown version'}  ${printable(reasons.join('; '))}`)
  }
}
