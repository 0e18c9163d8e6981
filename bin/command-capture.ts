/** `kho-inspect capture`: an image of what a real kernel hands over, taken where the next one gets it. */
import type { Argv } from 'yargs'
import { ARCHITECTURES, type Architecture } from '../abi/machine.ts'
import { hex } from '../abi/memory.ts'
import { type Captured, captureHandover } from '../qemu/capture.ts'
import { CAPTURE_SCHEMA, reportToJson } from '../qemu/report-json.ts'
import { defineCommand, UsageError } from './command.ts'
import { complain } from './image-arguments.ts'
import { OutputFiles, type OutputProblem, unwritable } from './output-file.ts'
import {
  consoleLine,
  isClean,
  type RunArguments,
  reportLines,
  runOptions,
  writeDocument,
} from './real-kernel.ts'
import { ExitCode, type Terminal } from './terminal.ts'

interface CaptureArguments extends RunArguments {
  readonly output: string
  readonly arch: Architecture | undefined
  readonly systemMap: string | undefined
}

const DEFAULT_MEMORY_MIB = 512

export const command = defineCommand({
  options: (yargs) =>
    runOptions(yargs)
      .demandOption('initrd')
      .option('output', {
        alias: 'o',
        type: 'string',
        demandOption: true,
        describe: 'ELF core file to write',
      })
      .option('arch', { choices: ARCHITECTURES, describe: 'architecture, instead of what the kernel is' })
      .option('system-map', {
        type: 'string',
        describe: "System.map or vmlinux of the next kernel, if it is not beside the first one's file",
      }) as unknown as Argv<CaptureArguments>,
  run: async (args, terminal) => {
    const { kernel, initrd, output, arch, systemMap, cmdline, memory, timeout } = args
    if (initrd === undefined)
      throw new UsageError('expected --initrd FILE: it preserves things and enters the next kernel')
    if (output === '-')
      throw new UsageError('--output: expected the name of a file; the report goes to the pipe')
    let failed: OutputProblem | undefined = unwritable(output)
    if (failed) {
      complain(terminal, failed.problem)
      return ExitCode.UNREADABLE
    }
    const files = new OutputFiles()
    const captured = await captureHandover({
      kernel,
      initrd,
      arch,
      systemMap,
      commandLine: cmdline,
      memoryMiB: memory ?? DEFAULT_MEMORY_MIB,
      timeout,
      signal: terminal.stopping(),
      onLine: consoleLine(terminal),
      save: (image) => {
        failed = files.add(output, image) ?? files.commit()
      },
    })
    const problem = 'problem' in captured ? captured : failed
    if (problem) complain(terminal, problem.problem)
    if (problem || 'problem' in captured) return ExitCode.UNREADABLE
    write(captured, args, terminal)
    return isClean(captured.after, captured.lost) ? ExitCode.OK : ExitCode.FINDINGS
  },
})

function write(
  { arch, boot, before, after, lost }: Captured,
  args: CaptureArguments,
  terminal: Terminal,
): void {
  if (args.json) {
    const entry = Object.fromEntries(Object.entries(boot).map(([field, value]) => [field, hex(value)]))
    const document = { image: args.output, arch, boot: entry, guest_failed: before.failed ?? null }
    writeDocument({ schema: CAPTURE_SCHEMA, ...document, next: reportToJson(after, lost) }, terminal)
    return
  }
  const scratch = `scratch array ${hex(boot.scratch_addr)} (${boot.scratch_size} bytes)`
  terminal.out(`${args.output}: ${arch}; root FDT ${hex(boot.fdt_addr)}, ${scratch}\n`)
  for (const line of reportLines(after, lost, terminal)) terminal.out(`${line}\n`)
}
