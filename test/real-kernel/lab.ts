/** Kernels and guests as kernels.sh leaves them, and runs with them; a clear word where something is missing. */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import type { PageSize } from '../../abi/layout.ts'
import { type Architecture, machines } from '../../abi/machine.ts'
import type { PhysicalMemory, PhysRange } from '../../abi/memory.ts'
import type { KhoNote } from '../../encode/image-note.ts'
import { boards } from '../../qemu/board.ts'
import { bootOnImage } from '../../qemu/boot.ts'
import type { Expectation } from '../../qemu/expectation.ts'
import type { RunReport } from '../../qemu/report.ts'

const CACHE = `${process.env.XDG_CACHE_HOME ?? `${homedir()}/.cache`}/kho-inspect/kernels`
const RUN_SECONDS = 60
/** lib/test_kho.c fills twice the largest unit with noise: 8 MiB with pages of 4K, but 1 GiB with 64K. */
export const LITTLE_NOISE = `test_kho.max_mem=${8 << 20}`

/** The kernel's file: of the cache, or for arm64 the developer's own. */
export function kernelFile(release: string, arch: Architecture, pageSize: PageSize = 4096): string {
  if (arch === 'arm64' && process.env.KERNEL) return process.env.KERNEL
  const image = arch === 'arm64' ? 'arch/arm64/boot/Image' : 'arch/x86/boot/bzImage'
  return `${CACHE}/build/${release}-${arch}-${pageSize / 1024}k/${image}`
}

/** Initramfs with the guest as its init. */
export function guestFile(arch: Architecture): string {
  return `${CACHE}/guest/${arch}.cpio`
}

export interface BuiltKernel {
  /** As kernels.sh takes it: `7.3`, `7.1.13`. */
  readonly version: string
  readonly arch: Architecture
  readonly pageSize: PageSize
  /** As the registry calls it: `linux-7.1`. */
  readonly release: string
}

/** The kernels of the cache that can be run. */
export function builtKernels(): readonly BuiltKernel[] {
  const directory = `${CACHE}/build`
  const names = existsSync(directory) ? readdirSync(directory) : []
  return names.flatMap((name) => {
    const [, version, short, arch, pages] = /^((\d+\.\d+)[.\d]*)-(arm64|x86_64)-(\d+)k$/.exec(name) ?? []
    const known = machines[arch as Architecture]?.pageSizes ?? []
    const pageSize = known.find((size) => size === Number(pages) * 1024)
    if (!version || !pageSize || missing(version, arch as Architecture, pageSize)) return []
    return [{ version, arch: arch as Architecture, pageSize, release: `linux-${short}` }]
  })
}

/** The page sizes for which there is a Linux 7.3 for arm64: a developer's own has pages of 4K. */
export function builtPageSizes(): readonly PageSize[] {
  const { pageSizes } = machines.arm64
  if (process.env.KERNEL) return pageSizes.slice(0, 1)
  return pageSizes.filter((pageSize) => missing('7.3', 'arm64', pageSize) === undefined)
}

/** What is not there of QEMU, kernel and guest; undefined if all is. */
export function missing(release: string, arch: Architecture, pageSize: PageSize = 4096): string | undefined {
  const { program, package: name } = boards[arch]
  if (spawnSync(program, ['--version']).error) return `${program} is not installed (Debian: ${name})`
  const file = [kernelFile(release, arch, pageSize), guestFile(arch)].find((path) => !existsSync(path))
  return file && `${file} is not built (test/real-kernel/kernels.sh)`
}

/** Title of a suite, with the reason if it is skipped. */
export function titled(title: string, why: string | undefined): string {
  return why === undefined ? title : `${title} SKIPPED: ${why}`
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
}

/** Keeps a table for the end of the run, in the directory that tables.ts makes for it. */
export function keepTable(name: string, table: Table): void {
  writeFileSync(`${process.env.REAL_KERNEL_RESULTS}/${name}.json`, JSON.stringify(table))
}
