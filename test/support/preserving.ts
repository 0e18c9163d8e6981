/** Simulated kernels that preserve memory: booted, handed over, and the units of their maps. */
import { expect } from 'vitest'
import type { KernelConfig } from '../../simulate/context.ts'
import { walkMap } from '../../simulate/handover.ts'
import { Kernel } from '../../simulate/kernel.ts'
import type { ColdMachine } from '../../simulate/machine.ts'
import { simulatedReleases } from '../../simulate/release.ts'
import { must } from './captured.ts'

export const MIB = 1n << 20n

/** Boots a kernel with three scratch areas. */
export function bootKho(
  release: string,
  machine: ColdMachine = {},
  config: Partial<KernelConfig> = {},
): Kernel {
  return Kernel.boot({ release, cmdline: 'kho=on kho_scratch=16M,16M,16M', config, ...machine })
}

export function finalized(kernel: Kernel): Kernel {
  if (kernel.spec.traits.hasFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
  return kernel
}

/** The kernel that takes over. */
export function nextKho(kernel: Kernel): Kernel {
  const successor = must(finalized(kernel).kexec())
  expect(successor.state).toBe('running')
  expect(successor.kho.isKhoBoot).toBe(true)
  return successor
}

/** Units that the next kernel finds, as `frame/order`, in order of their addresses. */
export function unitsOf(kernel: Kernel): readonly string[] {
  return [...kernel.pages.preservedUnits()].map(
    ({ pa, order }) => `${pa / BigInt(kernel.target.pageSize)}/${order}`,
  )
}

/** Units in the outgoing map of a kernel whose map is live. */
export function liveUnits(kernel: Kernel): readonly string[] {
  const units: string[] = []
  const root = kernel.kho.outgoing.map?.root
  if (root !== undefined) walkMap(kernel, root, (frame, order) => units.push(`${frame}/${order}`))
  return units
}

export const since = (release: string): readonly string[] =>
  simulatedReleases.slice(simulatedReleases.indexOf(release))
export const until = (release: string): readonly string[] =>
  simulatedReleases.slice(0, simulatedReleases.indexOf(release) + 1)
