/**
 * A handover as a kernel left it: QEMU runs a first kernel, whose init preserves things and enters the next
 * one by kexec; a hardware breakpoint stops that one where it is handed the handover, before it touches
 * anything. Memory and the call's arguments become an image; then the kernel goes on and says what it found.
 */
import { join } from 'node:path'
import { KHO_ENTRY_FUNCTION } from '../abi/boot.ts'
import type { Architecture } from '../abi/machine.ts'
import { hex } from '../abi/memory.ts'
import { writeElf } from '../encode/image-elf.ts'
import type { KhoNote } from '../encode/image-note.ts'
import type { ImageFile } from '../encode/image-pieces.ts'
import { openImage } from '../inspect/image.ts'
import { type Board, boardArguments, boards } from './board.ts'
import { commandLineOf } from './boot.ts'
import { withDirectory } from './directory.ts'
import { type Difference, differences } from './expectation.ts'
import { MachineFailure } from './failure.ts'
import type { GdbClient } from './gdb.ts'
import { architectureOf, symbolAddress } from './kernel-file.ts'
import { Machine, type RunLimits } from './machine.ts'
import { GUEST, isLastLine, type KernelReport, type RunReport, readConsole } from './report.ts'

export interface CaptureOptions extends RunLimits {
  /** File with the first kernel: a bzImage or an arm64 Image. Its initramfs brings the next one. */
  readonly kernel: string
  readonly initrd: string
  /** What the kernel is built for, if it is not to be looked at. */
  readonly arch?: Architecture | undefined
  /** System.map or vmlinux of the next kernel, if it does not lie beside the first one. */
  readonly systemMap?: string | undefined
  readonly memoryMiB: number
  readonly commandLine?: string | undefined
  /** Takes the image while the machine stands still; the file can be read only until this returns. */
  readonly save: (image: ImageFile) => void
}

export interface Captured {
  readonly arch: Architecture
  readonly boot: KhoNote
  /** What the first kernel and its guest said. */
  readonly before: RunReport
  /** What the next kernel said of what it got. */
  readonly after: RunReport
  /** What the guest said that it preserved, and what did not come back so. */
  readonly lost: readonly Difference[]
}

/** Captures and reports; what keeps it from happening is a problem in one line. */
export async function captureHandover(
  options: CaptureOptions,
): Promise<Captured | { readonly problem: string }> {
  try {
    return await withDirectory(options.signal, (directory, signal) => run({ ...options, signal }, directory))
  } catch (error) {
    if (error instanceof MachineFailure) return { problem: error.message }
    throw error
  }
}

async function run(options: CaptureOptions, directory: string): Promise<Captured> {
  const { kernel, initrd, memoryMiB, timeout, signal, onLine } = options
  const arch = options.arch ?? architectureOf(kernel)
  const board = boards[arch]
  const entry = symbolAddress(KHO_ENTRY_FUNCTION, kernel, options.systemMap)
  const machine = await Machine.start({
    board,
    directory,
    debugger: true,
    args: [
      ...boardArguments(board, memoryMiB),
      ...['-kernel', kernel, '-initrd', initrd],
      ...['-append', commandLineOf(board, options.commandLine)],
    ],
    isLast: isLastLine,
    timeout,
    signal,
    onLine,
  })
  try {
    const { gdb, qmp, log } = machine
    if (!gdb) throw new MachineFailure('QEMU opened no connection for the debugger')
    await machine.unlessItEnds(gdb.breakpoint('set', entry, board.breakpointKind))
    const boot = await machine.unlessItEnds(bootEntry(gdb, board, entry), () =>
      whyNoHandover(log.lines, entry),
    )
    const nrLines = log.lines.length
    const dump = join(directory, 'dump')
    const dumped = qmp.execute('dump-guest-memory', { paging: false, protocol: `file:${dump}` })
    await machine.unlessItEnds(dumped, () => 'its memory was not yet written down')
    await saveImage(dump, arch, boot, options.save)
    await machine.unlessItEnds(gdb.breakpoint('remove', entry, board.breakpointKind))
    gdb.send('c')
    const ending = await machine.ended
    const report = (lines: readonly string[]): RunReport => ({
      ...readConsole(lines),
      ending,
      console: lines,
    })
    const [before, after] = [report(log.lines.slice(0, nrLines)), report(log.lines.slice(nrLines))]
    return { arch, boot, before, after, lost: lostOf(before, after) }
  } finally {
    machine.close()
  }
}

/** What was preserved and did not come back as it was, in whatever order the next guest asks for it. */
function lostOf({ preserved }: KernelReport, after: KernelReport): readonly Difference[] {
  const gotSessions = new Map(after.sessions.map((session) => [session.name, session]))
  return preserved.filter(isKept).flatMap(({ name, files }) => {
    const got = gotSessions.get(name)
    const gotFiles = new Map(got?.files.map((file) => [file.token, file]))
    const made = files.filter(isKept)
    const back = made.filter(({ token }) => gotFiles.has(token))
    const missing = made.filter(({ token }) => !gotFiles.has(token))
    const found = back.flatMap(({ token }) => gotFiles.get(token) ?? [])
    const expected = { sessions: [{ name, files: [...back, ...missing] }] }
    return differences(expected, { ...after, sessions: got ? [{ ...got, files: found }] : [] })
  })
}

function isKept({ errno }: { readonly errno: number }): boolean {
  return errno === 0
}

/** Console lines that are told of a run that came to no handover: the last ones, and of refusals the first. */
const LAST_LINES = 3
const MOST_COMPLAINTS = 5

/** What the console says of a run in which no kernel came to its entry function. */
function whyNoHandover(console: readonly string[], entry: bigint): string {
  const { handover, failed, complaints, panic } = readConsole(console)
  if (handover) {
    return `a kernel found a handover, but not by ${KHO_ENTRY_FUNCTION} at ${hex(entry)}; expected the System.map of the next kernel`
  }
  const last = console.filter((line) => line.trim() !== '').slice(-LAST_LINES)
  const telling = [
    ...complaints.slice(0, MOST_COMPLAINTS).map(({ line }) => line),
    ...(failed ? [`${GUEST}${failed}`] : []),
    ...(panic ? [panic] : []),
  ]
  const lines = [...new Set([...telling, ...last])]
  const said =
    lines.length === 0
      ? 'its console is empty'
      : `its console says ${lines.map((line) => `'${line}'`).join(', ')}`
  return `no kernel was handed anything over; ${said}`
}

/** Runs to the entry function and reads its arguments. */
async function bootEntry(gdb: GdbClient, { registers }: Board, entry: bigint): Promise<KhoNote> {
  const stop = await gdb.continueUntilStop()
  const bytes = await gdb.registers()
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const register = (number: number): bigint => {
    if ((number + 1) * 8 > bytes.length) throw new MachineFailure(`the debugger knows no register ${number}`)
    return view.getBigUint64(number * 8, true)
  }
  const pc = register(registers.pc)
  if (pc !== entry) {
    throw new MachineFailure(
      `the machine stopped at ${hex(pc)} (${stop}); expected ${KHO_ENTRY_FUNCTION} at ${hex(entry)}`,
    )
  }
  const [fdt_addr, fdt_size, scratch_addr, scratch_size] = registers.args.map(register) as [
    bigint,
    bigint,
    bigint,
    bigint,
  ]
  return { fdt_addr, fdt_size, scratch_addr, scratch_size }
}

/** QEMU's own ELF core again, with the note. */
async function saveImage(
  dump: string,
  arch: Architecture,
  boot: KhoNote,
  save: (image: ImageFile) => void,
): Promise<void> {
  const opened = await openImage([{ path: dump }])
  if (!opened.ok) throw new MachineFailure(`QEMU's dump: ${opened.problem}`)
  try {
    const file = writeElf(opened.image, { arch, note: boot })
    if ('problem' in file) throw new MachineFailure(`the image: ${file.problem}`)
    save(file)
  } finally {
    opened.image.close()
  }
}
