/**
 * A real arm64 kernel, started on a handover image as if it had been entered by kexec.
 *
 * The image becomes the machine's RAM, a file that QEMU maps. Kernel, initramfs and device tree lie in
 * a scratch area; /chosen tells of the handover; a stub of six instructions enters the kernel. What QEMU
 * itself puts at the start of RAM is undone before the machine runs.
 */
import { execFile } from 'node:child_process'
import { closeSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Architecture } from '../abi/machine.ts'
import { hex, type PhysicalMemory, type PhysRange, phys } from '../abi/memory.ts'
import { writeRaw } from '../encode/image.ts'
import type { KhoNote } from '../encode/image-note.ts'
import type { WritableMemory } from '../encode/image-pieces.ts'
import { type Board, boardArguments, boards } from './board.ts'
import { withFiles } from './cpio.ts'
import { chooseIn } from './device-tree.ts'
import { withDirectory } from './directory.ts'
import { type Expectation, retrievalList } from './expectation.ts'
import { MachineFailure } from './failure.ts'
import { readArm64Kernel, readFile } from './kernel-file.ts'
import { Machine, type RunLimits } from './machine.ts'
import { placeParts, scratchAreas } from './placement.ts'
import { isLastLine, type RunReport, readConsole } from './report.ts'

export interface BootOptions extends RunLimits {
  readonly memory: PhysicalMemory | WritableMemory
  readonly boot: KhoNote
  /** Of which machine the image is, if that is known. */
  readonly arch?: Architecture | undefined
  /** Areas for the kernel and what it is entered with, if not the scratch areas that the image tells of. */
  readonly scratch?: readonly PhysRange[] | undefined
  /** File with an uncompressed arm64 Image. */
  readonly kernel: string
  /** File with an initramfs; without one the kernel ends in a panic when it looks for its root. */
  readonly initrd?: string | undefined
  /** What the initramfs' init is asked to retrieve, by its file /kho-retrieve. */
  readonly retrieve?: Expectation | undefined
  /** Behind the parameters that every run has. */
  readonly commandLine?: string | undefined
  /** RAM of the machine in MiB; as much as the image reaches to, if left out. */
  readonly memoryMiB?: number | undefined
}

const board = boards.arm64
const MIB = 1 << 20
/** QEMU's device tree and boot code lie in there. */
const OVERWRITTEN_BYTES = 2 * MIB
const RETRIEVAL_LIST = 'kho-retrieve'
const PAGE = 64 * 1024

/** ldr x0, dtb; mov x1, xzr; mov x2, xzr; mov x3, xzr; ldr x4, kernel; br x4; dtb: .quad; kernel: .quad */
const STUB = [0x5800_00c0, 0xaa1f_03e1, 0xaa1f_03e2, 0xaa1f_03e3, 0x5800_0084, 0xd61f_0080] as const

/** Parameters of every kernel that is run: where to speak, and that a panic ends the run. */
export function commandLineOf({ console: speak }: Board, more: string | undefined): string {
  return ['nokaslr', speak, 'kho=on', 'liveupdate=on', 'panic=1', ...(more ? [more] : [])].join(' ')
}

/** Boots and reports; what keeps the machine from running is a problem in one line. */
export async function bootOnImage(options: BootOptions): Promise<RunReport | { readonly problem: string }> {
  try {
    return await withDirectory(options.signal, (directory, signal) => run({ ...options, signal }, directory))
  } catch (error) {
    if (error instanceof MachineFailure) return { problem: error.message }
    throw error
  }
}

async function run(options: BootOptions, directory: string): Promise<RunReport> {
  const { memory, timeout, signal, onLine } = options
  const areas = areasOf(options)
  const memoryMiB = options.memoryMiB ?? reachedMiB(memory, areas)
  const deviceTree = await deviceTreeOf(memoryMiB, directory, signal)
  const ram = join(directory, 'ram')
  const entry = layRam(ram, memoryMiB, areas, deviceTree, options)
  const machine = await Machine.start({
    board,
    directory,
    debugger: false,
    args: [
      ...boardArguments(board, memoryMiB, ',memory-backend=ram'),
      ...['-object', `memory-backend-file,id=ram,size=${memoryMiB}M,share=on,mem-path=${ram}`],
      ...['-device', `loader,addr=${hex(entry.stub)},cpu-num=0`],
    ],
    isLast: isLastLine,
    timeout,
    signal,
    onLine,
  })
  try {
    writeAt(ram, 0, entry.start)
    await machine.unlessItEnds(machine.qmp.execute('cont'))
    const ending = await machine.ended
    return { ...readConsole(machine.log.lines), ending, console: machine.log.lines }
  } finally {
    machine.close()
  }
}

/** The areas for the kernel; that the image is of another machine is said before anything else. */
function areasOf({ memory, boot, arch = 'arm64', scratch }: BootOptions): readonly PhysRange[] {
  if (arch !== 'arm64') {
    throw new MachineFailure(`the image is of a machine with ${arch}; only images of arm64 can be booted`)
  }
  const areas = scratch ?? scratchAreas(memory, boot)
  const { ramStart } = board
  const first = areas[0]
  if (first && areas.every(({ end }) => end <= ramStart)) {
    throw new MachineFailure(
      `all scratch areas, the first at ${hex(first.start)}, lie below the RAM of arm64's machine at ${hex(ramStart)}; the image is of another machine`,
    )
  }
  return areas
}

/** RAM up to the end of what the image knows of. */
function reachedMiB(memory: PhysicalMemory, areas: readonly PhysRange[]): number {
  const ends = [...memory.ranges, ...areas].map(({ end }) => end)
  const end = ends.reduce((most, each) => (each > most ? each : most), board.ramStart)
  return Math.ceil(Number(end - board.ramStart) / MIB)
}

async function deviceTreeOf(
  memoryMiB: number,
  directory: string,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const path = join(directory, 'dtb')
  const args = boardArguments(board, memoryMiB, `,dumpdtb=${path}`)
  try {
    await promisify(execFile)(board.program, args, { ...(signal && { signal }), killSignal: 'SIGKILL' })
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string }
    throw new MachineFailure(
      code === 'ENOENT'
        ? `${board.program} is not installed (Debian: ${board.package})`
        : `${board.program}: ${(stderr ?? '').trim().split('\n')[0]}`,
    )
  }
  return readFileSync(path)
}

interface Entry {
  readonly stub: bigint
  /** What belongs to the start of RAM. */
  readonly start: Uint8Array
}

/** Writes the machine's RAM: the image, and over it what the kernel is entered with. */
function layRam(
  path: string,
  memoryMiB: number,
  areas: readonly PhysRange[],
  machineTree: Uint8Array,
  { memory, boot, kernel, initrd, retrieve, commandLine }: BootOptions,
): Entry {
  const image = readArm64Kernel(kernel)
  const initramfs = initrd === undefined ? undefined : initramfsOf(initrd, retrieve)
  const line = commandLineOf(board, commandLine)
  const taken = { start: phys(boot.scratch_addr), end: boot.scratch_addr + boot.scratch_size }
  const sizes = [machineTree.length + line.length + PAGE, initramfs?.length ?? 0, PAGE]
  const [kernelAt, treeAt, initrdAt, stub] = placeParts(
    [image, ...sizes.map((size) => ({ size, align: PAGE }))],
    areas,
    taken,
  ) as [bigint, bigint, bigint, bigint]
  const tree = chooseIn(machineTree, {
    boot,
    commandLine: line,
    ...(initramfs && { initrd: { start: initrdAt, end: initrdAt + BigInt(initramfs.length) } }),
  })
  const file = openSync(path, 'w+')
  try {
    ftruncateSync(file, memoryMiB * MIB)
    writeImage(file, memory, memoryMiB)
    const put = (pa: bigint, bytes: Uint8Array): number =>
      writeSync(file, bytes, 0, bytes.length, Number(pa - board.ramStart))
    put(kernelAt, image.bytes)
    put(treeAt, tree)
    if (initramfs) put(initrdAt, initramfs)
    put(stub, stubFor(treeAt, kernelAt))
    const start = new Uint8Array(OVERWRITTEN_BYTES)
    readSync(file, start, 0, start.length, 0)
    return { stub, start }
  } finally {
    closeSync(file)
  }
}

function initramfsOf(path: string, retrieve: Expectation | undefined): Uint8Array {
  const initramfs = readFile(path)
  if (!retrieve) return initramfs
  return withFiles(initramfs, [{ path: RETRIEVAL_LIST, bytes: Buffer.from(retrievalList(retrieve)) }])
}

function writeImage(file: number, memory: WritableMemory, memoryMiB: number): void {
  const raw = writeRaw(memory, phys(board.ramStart))
  if ('problem' in raw) throw new MachineFailure(`the image: ${raw.problem}, where the machine has its RAM`)
  if (raw.size > memoryMiB * MIB) {
    throw new MachineFailure(
      `the image reaches to ${Math.ceil(raw.size / MIB)} MiB of RAM; the machine has ${memoryMiB}`,
    )
  }
  for (const { offset, bytes } of raw.pieces()) writeSync(file, bytes, 0, bytes.length, offset)
}

function writeAt(path: string, offset: number, bytes: Uint8Array): void {
  const file = openSync(path, 'r+')
  writeSync(file, bytes, 0, bytes.length, offset)
  closeSync(file)
}

function stubFor(tree: bigint, kernel: bigint): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(STUB.length * 4 + 16))
  for (const [index, instruction] of STUB.entries()) bytes.setUint32(index * 4, instruction, true)
  bytes.setBigUint64(STUB.length * 4, tree, true)
  bytes.setBigUint64(STUB.length * 4 + 8, kernel, true)
  return new Uint8Array(bytes.buffer)
}
