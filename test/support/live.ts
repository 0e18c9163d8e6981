/** Simulated kernels with live update and one process, for tests that speak to them as userspace does. */
import type { Errno } from '../../abi/errno.ts'
import { type Answer, failed } from '../../simulate/answer.ts'
import type { KernelConfig } from '../../simulate/context.ts'
import type { Subsystem } from '../../simulate/core.ts'
import type { Handover } from '../../simulate/handover.ts'
import { Kernel, type KernelOptions } from '../../simulate/kernel.ts'
import { LiveUpdate } from '../../simulate/live-update.ts'
import type { FileHandler } from '../../simulate/luo-file.ts'
import type { ColdMachine } from '../../simulate/machine.ts'
import type { Allocation } from '../../simulate/pages.ts'
import type { Huge } from '../../simulate/shmem.ts'
import type { Userspace } from '../../simulate/userspace.ts'

/** Those of the modelled releases that have LUO, oldest first. */
export const LUO_RELEASES = [
  'linux-6.19',
  'linux-7.0',
  'kho-v2',
  'linux-7.1',
  'linux-7.2',
  'linux-7.3',
] as const
export type LuoRelease = (typeof LUO_RELEASES)[number]
/** What came with 7.1 divides them. */
export const UNTIL_70: readonly LuoRelease[] = LUO_RELEASES.slice(0, 2)
export const SINCE_71 = LUO_RELEASES.slice(2)

export interface LiveOptions {
  /** An update of the release: 7.1.3. */
  readonly version?: string
  readonly cmdline?: string
  readonly config?: Partial<KernelConfig>
  readonly huge?: Huge
  /** Drivers that register in the boot. */
  readonly handlers?: readonly FileHandler[]
  readonly ram?: NonNullable<ColdMachine['ram']>
}

export interface LiveMachine {
  readonly kernel: Kernel
  readonly live: LiveUpdate
  readonly user: Userspace
  /** A descriptor of /dev/liveupdate, opened on the first call. */
  device(): number
  /** What the kernel logged, but for KHO's own lines. */
  console(): readonly string[]
}

/** Boots a release on a machine of 512 MiB. */
export function bootLive(release: string, options: LiveOptions = {}): LiveMachine {
  const { ram } = options
  return start(release, options, (built) => Kernel.boot({ ...built, ...(ram ? { ram } : {}) }))
}

/** A kernel with an empty session `s`. */
export function withSession(
  release: LuoRelease,
  handlers: readonly FileHandler[] = [],
): LiveMachine & { readonly session: number } {
  const machine = bootLive(release, { handlers })
  return { ...machine, session: value(machine.user.createSession(machine.device(), 's')) }
}

/** Reboots into the next kernel, of the same release if not told otherwise; both are expected to do so. */
export function kexecLive(
  from: Pick<LiveMachine, 'kernel'>,
  options: LiveOptions & { readonly release?: string } = {},
): LiveMachine {
  return takeOverLive(value(from.kernel.leave()), { release: from.kernel.release, ...options })
}

/** Takes over what was left. */
export function takeOverLive(
  handover: Handover | undefined,
  { release, ...options }: LiveOptions & { readonly release: string },
): LiveMachine {
  if (!handover) throw new Error('the kernel is gone')
  return start(release, options, (built) => Kernel.takeOver(handover, built))
}

function start(
  release: string,
  { version, cmdline, config, huge, handlers = [] }: LiveOptions,
  boot: (options: KernelOptions<Kernel>) => Kernel,
): LiveMachine {
  let live: LiveUpdate | undefined
  const subsystems = (kernel: Kernel): readonly Subsystem[] => {
    live = new LiveUpdate(kernel, huge)
    return [live, driversOf(live, handlers)]
  }
  const kernel = boot({
    release,
    subsystems,
    ...(version === undefined ? {} : { version }),
    ...(cmdline === undefined ? {} : { cmdline }),
    ...(config ? { config } : {}),
  })
  if (!live) throw new Error('the kernel has its subsystems')
  return machineOf(kernel, live)
}

function driversOf(live: LiveUpdate, handlers: readonly FileHandler[]): Subsystem {
  return {
    lateMm: () => {
      for (const handler of handlers) value(live.luo?.registerFileHandler(handler))
    },
  }
}

function machineOf(kernel: Kernel, live: LiveUpdate): LiveMachine {
  const user = live.process()
  let device: number | undefined
  return {
    kernel,
    live,
    user,
    device: () => {
      device ??= value(user.open('/dev/liveupdate'))
      return device
    },
    console: () => kernel.console.map(({ text }) => text).filter((text) => !text.startsWith('KHO: ')),
  }
}

/** The value of an answer that is expected to be one. */
export function value<T>(answer: Answer<T>): T {
  if (failed(answer)) throw new Error(`unexpected ${answer.errno}`)
  return answer
}

/** The error's name; undefined for an answer that is none. */
export function errno(answer: Answer<unknown>): Errno | number | 'blocks' | undefined {
  return failed(answer) ? answer.errno : undefined
}

/** Pages and references that are held, but for those of the map of preserved memory, which only grows. */
export function census({ kernel }: Pick<LiveMachine, 'kernel'>): readonly Allocation[] {
  const map = new Set<bigint>(kernel.kho.outgoing.map?.ownPages() ?? [])
  return [...kernel.pages.allocations()].filter(({ pa }) => !map.has(pa))
}
