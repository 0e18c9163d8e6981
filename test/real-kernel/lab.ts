/** Kernels and guests as kernels.sh leaves them, and runs with them; a clear word where something is missing. */
import { spawnSync } from 'node:child_process'
import { appendFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename } from 'node:path'
import { afterAll, type RunnerTask } from 'vitest'
import { CONTAINER_TARGET } from '../../abi/container.ts'
import { arm64ImageHeader } from '../../abi/kernel-image.ts'
import { layoutOf, type PageSize } from '../../abi/layout.ts'
import { type Architecture, machines } from '../../abi/machine.ts'
import type { PhysicalMemory, PhysRange } from '../../abi/memory.ts'
import type { KhoNote } from '../../encode/image-note.ts'
import { decodeStruct } from '../../inspect/record.ts'
import { boards } from '../../qemu/board.ts'
import { bootOnImage } from '../../qemu/boot.ts'
import type { Expectation } from '../../qemu/expectation.ts'
import { MachineFailure } from '../../qemu/failure.ts'
import { symbolAddress } from '../../qemu/kernel-file.ts'
import type { RunReport } from '../../qemu/report.ts'

const CACHE = `${process.env.XDG_CACHE_HOME ?? `${homedir()}/.cache`}/kho-inspect/kernels`
/** A developer's own arm64 kernel; then no other one runs. */
const { KERNEL } = process.env
const RUN_SECONDS = 60
/** lib/test_kho.c fills twice the largest unit with noise: 8 MiB with pages of 4K, but 1 GiB with 64K. */
export const LITTLE_NOISE = `test_kho.max_mem=${8 << 20}`

/** The kernel's file: of the cache, or the developer's own. */
export function kernelFile(release: string, arch: Architecture, pageSize: PageSize = 4096): string {
  if (arch === 'arm64' && KERNEL) return KERNEL
  const image = arch === 'arm64' ? 'arch/arm64/boot/Image' : 'arch/x86/boot/bzImage'
  return `${CACHE}/build/${release}-${arch}-${pageSize / 1024}k/${image}`
}

/** Initramfs with the guest as its init. */
export function guestFile(arch: Architecture): string {
  return `${CACHE}/guest/${arch}.cpio`
}

export interface BuiltKernel {
  /** As kernels.sh takes it: `7.3`, `7.1.13`; of a developer's own as its banner says: `7.4.0-rc1`. */
  readonly version: string
  readonly arch: Architecture
  readonly pageSize: PageSize
  /** As the registry calls it: `linux-7.1`. */
  readonly release: string
}

/** The kernels that handovers are captured from, those that cannot be run included. */
export function builtKernels(): readonly BuiltKernel[] {
  if (KERNEL) {
    if (!existsSync(KERNEL)) return []
    return [{ version: bannerOf(KERNEL), arch: 'arm64', pageSize: pageSizeOf(KERNEL), release: 'linux-7.3' }]
  }
  const directory = `${CACHE}/build`
  const names = existsSync(directory) ? readdirSync(directory) : []
  return names.flatMap((name) => {
    const [, version, short, arch, pages] = /^((\d+\.\d+)[.\d]*)-(arm64|x86_64)-(\d+)k$/.exec(name) ?? []
    const known = machines[arch as Architecture]?.pageSizes ?? []
    const pageSize = known.find((size) => size === Number(pages) * 1024)
    if (!version || !pageSize) return []
    return [{ version, arch: arch as Architecture, pageSize, release: `linux-${short}` }]
  })
}

/** The page sizes for which there is a Linux 7.3 for arm64; a developer's own has one. */
export function builtPageSizes(): readonly PageSize[] {
  return machines.arm64.pageSizes.filter((pageSize) => missingToBoot('7.3', 'arm64', pageSize) === undefined)
}

/** What is not there of QEMU, kernel and guest to boot on images; undefined if all is. */
export function missingToBoot(
  release: string,
  arch: Architecture,
  pageSize: PageSize = 4096,
): string | undefined {
  const { program, package: name } = boards[arch]
  if (spawnSync(program, ['--version']).error) return `${program} is not installed (Debian: ${name})`
  const kernel = kernelFile(release, arch, pageSize)
  const own = kernel === KERNEL
  if (own && !existsSync(kernel)) return `KERNEL=${kernel}: there is no such file`
  const file = [kernel, guestFile(arch)].find((path) => !existsSync(path))
  if (file) return `${file} is not built (test/real-kernel/kernels.sh)`
  const pages = own ? pageSizeOf(kernel) : pageSize
  return pages === pageSize
    ? undefined
    : `KERNEL=${kernel}: it has pages of ${pages / 1024}K, not of ${pageSize / 1024}K`
}

/** What is not there to capture as well: where the kernel has its functions. */
export function missing(release: string, arch: Architecture, pageSize: PageSize = 4096): string | undefined {
  const why = missingToBoot(release, arch, pageSize)
  if (why !== undefined) return why
  try {
    symbolAddress('kho_populate', kernelFile(release, arch, pageSize), undefined)
    return undefined
  } catch (error) {
    if (error instanceof MachineFailure) return `nothing can be captured: ${error.message}`
    throw error
  }
}

/** The version in the banner of an uncompressed kernel. */
function bannerOf(kernel: string): string {
  return /Linux version (\S+)/.exec(readFileSync(kernel, 'latin1'))?.[1] ?? basename(kernel)
}

/** Bits 1 and 2 of an arm64 Image's flags: 4K, 16K, 64K; one that does not say has pages of 4K. */
function pageSizeOf(kernel: string): PageSize {
  const bytes = readFileSync(kernel).subarray(0, layoutOf(arm64ImageHeader, CONTAINER_TARGET).size)
  const { flags } = decodeStruct(arm64ImageHeader, bytes, CONTAINER_TARGET)
  return machines.arm64.pageSizes[Number((flags >> 1n) & 3n) - 1] ?? 4096
}

/** Title of a suite, with the reason if it is skipped; the reason is kept for the end of the run. */
export function titled(title: string, why: string | undefined): string {
  if (why === undefined) return title
  appendFileSync(`${process.env.REAL_KERNEL_RESULTS}/${SKIPPED}`, `${title}: ${why}\n`)
  return `${title} SKIPPED: ${why}`
}

export interface Booted {
  readonly memory: PhysicalMemory
  readonly boot: KhoNote
  /** Of the kernel; 4096 if left out. */
  readonly pageSize?: PageSize
  readonly scratch?: readonly PhysRange[]
  readonly retrieve: Expectation
  readonly commandLine?: string
  readonly memoryMiB?: number
  readonly timeout?: number
}

/** Boots Linux 7.3 for arm64 on an image; that it cannot be run at all is a failure of the test. */
export async function boot(run: Booted): Promise<RunReport> {
  const report = await bootOnImage({
    ...run,
    commandLine: `${LITTLE_NOISE} ${run.commandLine ?? ''}`,
    kernel: kernelFile('7.3', 'arm64', run.pageSize),
    initrd: guestFile('arm64'),
    timeout: run.timeout ?? RUN_SECONDS,
  })
  if ('problem' in report) throw new Error(report.problem)
  return report
}

export type Row = Readonly<Record<string, string | number>>

/** One table of docs/real-kernels.md. */
export interface Table {
  readonly title: string
  readonly kernel: string
  readonly rows: readonly Row[]
  /** What is to be said of it. */
  readonly note?: string
}

export interface KeptTable extends Table {
  /** Whether all tests of its suite ran and passed. */
  readonly whole: boolean
}

/** The file of the suites that are skipped, a line each, beside those of the tables. */
export const SKIPPED = 'skipped'

/** When the suite around it is over, keeps its table for the end of the run, in the directory of tables.ts. */
export function keepTable(name: string, tableOf: () => Table): void {
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads off this parameter which fixtures are used
  afterAll(({}, suite) => {
    const kept: KeptTable = { ...tableOf(), whole: passed(suite) }
    writeFileSync(`${process.env.REAL_KERNEL_RESULTS}/${name}.json`, JSON.stringify(kept))
  })
}

function passed(task: Readonly<RunnerTask>): boolean {
  return task.type === 'test' ? task.result?.state === 'pass' : task.tasks.every(passed)
}
