/**
 * What a kernel is built with and where it boots: options with their defaults.
 */
import type { PageSize } from '../abi/layout.ts'
import { type Architecture, machines } from '../abi/machine.ts'
import { type PhysRange, phys } from '../abi/memory.ts'
import type { KernelBase, KernelConfig } from './context.ts'
import type { Subsystem } from './core.ts'
import { MachineRam } from './ram.ts'

/** What a kernel is built and started with. K is the kernel as its subsystems see it. */
export interface KernelOptions<K extends KernelBase = KernelBase> {
  /** A name of the registry: `linux-7.3`. */
  readonly release: string
  /** `kho=on liveupdate=on` if left out. */
  readonly cmdline?: string
  readonly config?: Partial<KernelConfig>
  /** utsname release; the stable release that the model follows, if left out. */
  readonly version?: string
  /** Seed of what the kernel's test modules call random. */
  readonly seed?: number
  /** What else boots in this kernel, such as LUO. */
  readonly subsystems?: (kernel: K) => readonly Subsystem[]
}

/** A machine on which nothing ran before. */
export interface ColdMachine {
  /** x86_64 if left out. */
  readonly arch?: Architecture
  /** 4096 if left out. */
  readonly pageSize?: PageSize
  /** 512 MiB in node 0 if left out. */
  readonly ram?: readonly { readonly start: bigint; readonly end: bigint; readonly node?: number }[]
}

export const DEFAULT_CMDLINE = 'kho=on liveupdate=on'

/** As the kernels were built that the captured images come from. */
export const DEFAULT_CONFIG: KernelConfig = {
  debug: true,
  debugfs: true,
  enabledByDefault: false,
  testKho: false,
  liveupdateTest: false,
}

const DEFAULT_RAM = 1n << 29n

export function coldRam({ arch = 'x86_64', pageSize = 4096, ram }: ColdMachine): MachineRam {
  const { ramStart: start } = machines[arch]
  const ranges = ram ?? [{ start, end: start + DEFAULT_RAM }]
  return new MachineRam(
    arch,
    pageSize,
    ranges.map(({ start: from, end, node = 0 }) => ({ start: phys(from), end, node })),
  )
}

/** Memory at the start of RAM that belongs to firmware and boot code. */
export function firmwareRange(arch: Architecture, ram: MachineRam): PhysRange {
  const start = ram.ranges[0]?.start ?? phys(0)
  return { start, end: start + machines[arch].firmwareBytes }
}
