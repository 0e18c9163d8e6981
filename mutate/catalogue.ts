/** The catalogue of faults: every way in which a right image can be made wrong, by name. */
import { appliesTo } from '../abi/check.ts'
import { rules } from '../inspect/rules.ts'
import type { TargetKernel } from '../inspect/target-kernel.ts'
import { holdsFor } from '../inspect/validate.ts'
import { type Change, isUnfit } from './change.ts'
import { blobFaults } from './faults-blobs.ts'
import { khoFaults } from './faults-kho.ts'
import { luoFaults } from './faults-luo.ts'
import { mapFaults } from './faults-map.ts'
import { memfdFaults } from './faults-memfd.ts'
import { scratchFaults } from './faults-scratch.ts'
import { subtreeFaults } from './faults-subtree.ts'
import type { NamedFault } from './named-fault.ts'
import { Random } from './random.ts'
import type { Site } from './site.ts'

export const faults: readonly NamedFault[] = [
  ...khoFaults,
  ...scratchFaults,
  ...mapFaults,
  ...subtreeFaults,
  ...blobFaults,
  ...luoFaults,
  ...memfdFaults,
]

export function faultNamed(name: string): NamedFault | undefined {
  return faults.find((fault) => fault.name === name)
}

/** The patches that make a fault, or why the image cannot have it. */
export function applyFault(fault: NamedFault, site: Site, seed: number): Change {
  const { kernel } = site
  if (!existsIn(fault, kernel)) return { unfit: `${kernel.name} does not look at this` }
  const change = fault.apply(site, new Random(seed))
  return !isUnfit(change) && change.length === 0 ? { unfit: 'there is nothing to change' } : change
}

/** Whether the rule that the fault breaks holds for a kernel at all. */
export function existsIn(
  { rule: id, span }: NamedFault,
  { release }: Pick<TargetKernel, 'release'>,
): boolean {
  const rule = rules.find((one) => one.id === id)
  return rule !== undefined && holdsFor(rule, release.name) && (!span || appliesTo(span, release.name))
}
