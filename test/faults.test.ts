/**
 * The catalogue of faults against the table of rules: a fault trips exactly the rule that it names, and
 * those that are stated to follow, on images of two ABI versions if the rule holds for as many. In
 * `npm run fuzz` on all versions, and at pages of 16K and 64K.
 */
import { describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import type { ComponentName } from '../abi/registry.ts'
import { releases } from '../abi/registry.ts'
import type { KhoData } from '../inspect/boot-entry.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { rules } from '../inspect/rules.ts'
import { validate } from '../inspect/validate.ts'
import { applyFault, existsIn, faults } from '../mutate/catalogue.ts'
import { editedBoot, isUnfit, patchesOf } from '../mutate/change.ts'
import type { NamedFault } from '../mutate/named-fault.ts'
import { PatchedView } from '../mutate/patch.ts'
import { Site } from '../mutate/site.ts'
import { type Base, faultBases } from './support/fault-bases.ts'

const isWhole = process.env.FAULTS_WHOLE !== undefined
const bases = await faultBases(isWhole)
const SEED = 1
/** Versions on which a fault is tried. */
const VERSIONS = isWhole ? Number.POSITIVE_INFINITY : 2

/** Findings by rule and place. */
function findingsOf({ handover, options }: Pick<Base, 'handover' | 'options'>): readonly string[] {
  return validate(handover, options).findings.map(({ rule, path }) => `${rule} ${path}`)
}

const ownFindings = new Map(bases.map((base) => [base, new Set(findingsOf(base))]))

test.each(bases.map((base) => [base.name, base] as const))(
  '%s is right before a fault is made',
  (_name, base) => {
    const { findings } = validate(base.handover, base.options)
    expect(findings.filter(({ severity }) => severity !== 'note')).toEqual([])
  },
)

const known = new Map<string, readonly string[]>()

/** Ids of the rules that a fault trips and the base did not. */
function tripped(fault: NamedFault, base: Base): readonly string[] {
  const key = `${fault.name} ${base.name}`
  const ids = known.get(key) ?? judgeFault(fault, base)
  known.set(key, ids)
  return ids
}

function judgeFault(fault: NamedFault, base: Base): readonly string[] {
  const change = applyFault(fault, new Site(base.handover, base.kernel), SEED)
  if (isUnfit(change)) throw new Error(change.unfit)
  const boot = editedBoot(bootOf(base), change)
  const { scratchArray: _array, ...told } = base.decode
  const decode = { ...told, boot }
  const memory = new PatchedView(base.memory, patchesOf(change))
  const handover = decodeHandover(memory, phys(boot.fdt_addr), decode)
  const own = ownFindings.get(base)
  const added = findingsOf({ handover, options: { ...base.options, decode } }).filter(
    (finding) => !own?.has(finding),
  )
  return [...new Set(added.map((finding) => finding.split(' ')[0] as string))]
}

/** What the next kernel is told; captured images do not say it. */
function bootOf({ decode, fdt, handover }: Base): KhoData {
  const told = decode.boot ?? { scratch_addr: 0n, scratch_size: 0n, ...decode.scratchArray }
  return { fdt_size: BigInt(handover.target.pageSize), ...told, fdt_addr: fdt }
}

function fits(fault: NamedFault, base: Base): boolean {
  return !isUnfit(applyFault(fault, new Site(base.handover, base.kernel), SEED))
}

/** The version of the rule's component that a base has; the rule's own component may be younger than KHO. */
function versionIn({ kernel }: Base, component: ComponentName): string | undefined {
  return kernel.versions[component] ?? kernel.versions.kho
}

/**
 * One base of each version that a fault fits: of a real kernel where there is one, unless the rule needs
 * more than that holds (memory that was left out, an array that is full).
 */
function basesFor(fault: NamedFault): readonly Base[] {
  const component = rules.find(({ id }) => id === fault.rule)?.component ?? 'kho'
  const chosen = new Map<string | undefined, Base>()
  const isTripped = new Set<string | undefined>()
  for (const base of bases) {
    const version = versionIn(base, component)
    if (isTripped.has(version) || isTripped.size >= VERSIONS || !fits(fault, base)) continue
    if (tripped(fault, base).includes(fault.rule)) {
      isTripped.add(version)
      chosen.set(version, base)
    } else if (!chosen.has(version)) chosen.set(version, base)
  }
  const isEnough = isTripped.size >= VERSIONS
  return [...chosen].flatMap(([version, base]) => (isEnough && !isTripped.has(version) ? [] : [base]))
}

describe.each(faults.map((fault) => [fault.name, fault] as const))('%s', (_name, fault) => {
  const own = basesFor(fault)

  test('names a rule, and fits images of two versions if there are two', () => {
    const rule = rules.find(({ id }) => id === fault.rule)
    expect(rule, `there is no rule ${fault.rule}`).toBeDefined()
    const spoken = releases.filter((release) => existsIn(fault, { release }))
    const versions = new Set(spoken.map(({ versions: of }) => of[rule?.component ?? 'kho'] ?? of.kho))
    expect(own.length).toBeGreaterThanOrEqual(Math.min(2, versions.size))
  })

  test.each(own.map((base) => [base.name, base] as const))('in %s', (_base, base) => {
    const found = tripped(fault, base)
    expect(found).toContain(fault.rule)
    expect(found.filter((id) => id !== fault.rule && !fault.follows?.includes(id))).toEqual([])
  })

  if (isWhole && fault.follows) {
    test('what is stated to follow does so somewhere', () => {
      const missingIn = (some: readonly Base[]): readonly string[] => {
        const there = new Set(some.flatMap((base) => tripped(fault, base)))
        return fault.follows?.filter((id) => !there.has(id)) ?? []
      }
      // The image of a real kernel may lack the memory that a rule looks at.
      if (missingIn(own).length > 0) expect(missingIn(bases.filter((base) => fits(fault, base)))).toEqual([])
    })
  }
})

test('names are unique', () => {
  const names = faults.map(({ name }) => name)
  expect(names).toEqual([...new Set(names)])
})

/** Rules that every image of a version fails, so that no right one of it could be made wrong; see lost-markers.test.ts. */
const INHERENT = ['KHO_RADIX_DEPTH']

test('no rule is without a fault that breaks it', () => {
  const broken = new Set(faults.map(({ rule }) => rule))
  expect(rules.map(({ id }) => id).filter((id) => !broken.has(id))).toEqual(INHERENT)
})
