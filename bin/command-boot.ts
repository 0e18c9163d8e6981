/** `kho-inspect boot`: a real arm64 kernel on a handover image, and what it took over. */
import type { Argv } from 'yargs'
import type { KhoNote } from '../encode/image-note.ts'
import { bootNote, findHandovers } from '../inspect/find.ts'
import type { Image } from '../inspect/image.ts'
import { bootOnImage } from '../qemu/boot.ts'
import { differences, type Expectation, expectationOf } from '../qemu/expectation.ts'
import { BOOT_SCHEMA, reportToJson } from '../qemu/report-json.ts'
import { defineCommand, UsageError } from './command.ts'
import { readExpectation } from './expectation-file.ts'
import { complain, handoverOptions, type ImageArguments, openImageFiles } from './image-arguments.ts'
import {
  consoleLine,
  isClean,
  type RunArguments,
  reportLines,
  runOptions,
  writeDocument,
} from './real-kernel.ts'
import { ExitCode, type Terminal } from './terminal.ts'

interface BootArguments extends RunArguments, Pick<ImageArguments, 'fdt' | 'scratch'> {
  readonly image: string
  readonly expect: string | undefined
}

export const command = defineCommand({
  options: (yargs) =>
    runOptions(handoverOptions(yargs))
      .positional('image', { type: 'string', demandOption: true, describe: 'image file, or FILE@ADDR' })
      .option('expect', {
        type: 'string',
        describe: 'JSON file with what shall come back, instead of what the image holds',
      }) as unknown as Argv<BootArguments>,
  run: async (args, terminal) => {
    const told = args.expect === undefined ? undefined : readExpectation(args.expect)
    const image = await openImageFiles([args.image], { format: undefined }, terminal)
    if (!image) return ExitCode.UNREADABLE
    try {
      return await boot(image, args, told ?? heldBy(image, args), terminal)
    } finally {
      image.close()
    }
  },
})

async function boot(
  image: Image,
  args: BootArguments,
  expected: Expectation,
  terminal: Terminal,
): Promise<number> {
  const { kernel, initrd, cmdline, memory, timeout } = args
  const report = await bootOnImage({
    memory: image,
    boot: entryOf(image, args),
    arch: image.architecture,
    kernel,
    initrd,
    retrieve: initrd === undefined ? undefined : expected,
    commandLine: cmdline,
    memoryMiB: memory,
    timeout,
    signal: terminal.stopping(),
    onLine: consoleLine(terminal),
  })
  if ('problem' in report) {
    complain(terminal, report.problem)
    return ExitCode.UNREADABLE
  }
  // Without an initramfs nobody asks for sessions and files.
  const compared = initrd === undefined ? { ...expected, sessions: [] } : expected
  const found = differences(compared, report)
  if (args.json) writeDocument({ schema: BOOT_SCHEMA, ...reportToJson(report, found) }, terminal)
  else for (const line of reportLines(report, found, terminal, compared.sessions)) terminal.out(`${line}\n`)
  return isClean(report, found) ? ExitCode.OK : ExitCode.FINDINGS
}

/** The boot entry: from the image's note, or told by --fdt and --scratch. */
function entryOf(image: Image, { fdt, scratch }: BootArguments): KhoNote {
  const note = bootNote(image)
  const fdt_addr = fdt ?? note?.fdt_addr
  const array = scratch ?? note
  if (fdt_addr === undefined || array === undefined) {
    throw new UsageError('the image has no note KHO; expected --fdt ADDR and --scratch ADDR,LENGTH')
  }
  const { scratch_addr, scratch_size } = array
  return { fdt_addr, fdt_size: note?.fdt_size ?? FDT_SIZE, scratch_addr, scratch_size }
}

/** The old kernel's page size, by which the new one does not go. */
const FDT_SIZE = 4096n

/** What the image holds by our own reading; of one that cannot be read nothing is expected. */
function heldBy(image: Image, { fdt, scratch, cmdline }: BootArguments): Expectation {
  const found = findHandovers(image, {
    ...(fdt !== undefined && { fdt }),
    ...(scratch !== undefined && { scratchArray: scratch }),
  })
  const best = 'problem' in found ? undefined : found.candidates[0]
  return best ? expectationOf(best.handover, cmdline) : { sessions: [] }
}
