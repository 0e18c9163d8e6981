/** What a simulated kernel is built with, as its subsystems see it. */
import type { Parameter } from '../abi/command-line.ts'
import type { FormatArgument } from '../abi/console.ts'
import type { Target } from '../abi/layout.ts'
import type { Architecture } from '../abi/machine.ts'
import type { KernelLog } from './log.ts'
import type { SimulatedPages } from './pages.ts'
import type { MachineRam } from './ram.ts'
import type { SimulatedRelease } from './release.ts'

/** Kernel configuration, as far as it shows. */
export interface KernelConfig {
  /** CONFIG_KEXEC_HANDOVER_DEBUG */
  readonly debug: boolean
  /** CONFIG_KEXEC_HANDOVER_DEBUGFS */
  readonly debugfs: boolean
  /** CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT */
  readonly enabledByDefault: boolean
  /** CONFIG_TEST_KEXEC_HANDOVER */
  readonly testKho: boolean
  /** CONFIG_LIVEUPDATE_TEST */
  readonly liveupdateTest: boolean
}

/** Everything but KHO itself. */
export interface KernelBase {
  readonly spec: SimulatedRelease
  /** Name of the release: `linux-7.3`. */
  readonly release: string
  /** utsname release. */
  readonly version: string
  readonly arch: Architecture
  readonly target: Target
  readonly config: KernelConfig
  readonly parameters: readonly Parameter[]
  readonly ram: MachineRam
  readonly pages: SimulatedPages
  readonly log: KernelLog
  /** Shorthands of the log. */
  say(id: string, ...args: readonly FormatArgument[]): void
  warn(file: string, function_: string, text?: string): void
  panic(id: string, ...args: readonly FormatArgument[]): never
}
