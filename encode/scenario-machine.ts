/**
 * The machine that a scenario is about: its release or component versions, architecture and page size,
 * and what these allow: which lists there are and how much they hold.
 */
import { blockCapacity } from '../abi/kho-block.ts'
import { isPageSize, type PageSize, type Target } from '../abi/layout.ts'
import { arrayCapacity } from '../abi/limits.ts'
import { type Architecture, machines } from '../abi/machine.ts'
import { edgeOf, partsOf } from '../abi/parts.ts'
import {
  type ComponentName,
  type ComponentVersion,
  componentByName,
  type Release,
  type ReleaseVersions,
  releaseFor,
  releases,
  releasesWith,
  updateOf,
  versionById,
} from '../abi/registry.ts'
import type { ArrayEdge, BlocksEdge, StructType } from '../abi/schema.ts'
import type { Scenario } from './scenario-schema.ts'
import { describe, nearest } from './scenario-shape.ts'
import type { ScenarioReport } from './scenario-text.ts'

/** What is said outside of the scenario, and goes before what it says itself. */
export interface MachineOptions {
  readonly release?: string
  readonly arch?: Architecture
  readonly pageSize?: PageSize
}

export interface ScenarioMachine {
  readonly versions: ReleaseVersions
  /** Undefined where only versions are said. */
  readonly release: Release | undefined
  /** The update of its stable series, where one is named: `7.1.3`. */
  readonly update: string | undefined
  /** `linux-7.3`, or the versions, for messages. */
  readonly label: string
  readonly arch: Architecture
  readonly target: Target
}

/** Undefined after what is wrong was reported. */
export function machineOf(
  scenario: Scenario,
  options: MachineOptions,
  report: ScenarioReport,
): ScenarioMachine | undefined {
  const arch = options.arch ?? scenario.arch ?? 'x86_64'
  const pageSize = pageSizeOf(scenario, options.pageSize, arch, report)
  const chosen = versionsOf(scenario, options.release, report)
  if (!pageSize || !chosen) return undefined
  return { ...chosen, arch, target: { pageSize } }
}

function pageSizeOf(
  { page_size: said }: Scenario,
  wanted: PageSize | undefined,
  arch: Architecture,
  report: ScenarioReport,
): PageSize | undefined {
  const known = machines[arch].pageSizes
  const shown = known.map((size) => `${size / 1024}KiB`).join(', ')
  for (const [index, size] of (said ?? []).entries()) {
    if (isPageSize(Number(size))) continue
    const path = ['page_size', ...((said ?? []).length > 1 ? [{ index }] : [])]
    return report.wrong(path, `expected 4KiB, 16KiB or 64KiB, found ${size}`)
  }
  const pageSize = wanted ?? (Number(said?.[0] ?? known[0]) as PageSize)
  if (said && !said.includes(BigInt(pageSize))) {
    return report.absent(['page_size'], `this scenario is not for pages of ${pageSize / 1024}KiB`)
  }
  if (known.includes(pageSize)) return pageSize
  return report.wrong(['page_size'], `${arch} has no pages of ${pageSize / 1024}KiB; expected ${shown}`)
}

function versionsOf(
  scenario: Scenario,
  wanted: string | undefined,
  report: ScenarioReport,
): Pick<ScenarioMachine, 'versions' | 'release' | 'update' | 'label'> | undefined {
  const name = wanted ?? scenario.release
  const release = name === undefined ? undefined : releaseFor(name)
  if (name !== undefined && !release) {
    const names = releases.map((one) => one.name)
    const near = nearest(name, names)
    const hint = near === undefined ? `expected one of ${names.join(', ')}` : `did you mean ${near}?`
    return report.wrong(['release'], `unknown release ${describe(name)}; ${hint}`)
  }
  const versions = { ...release?.versions, ...(scenario.versions as ReleaseVersions | undefined) }
  if (!versions.kho) {
    const found = scenario.versions ? 'versions without kho' : 'neither'
    return report.wrong([], `expected release (such as linux-7.3) or versions with kho, found ${found}`)
  }
  if (!versions.memblock) versions.memblock = componentByName('memblock').versions.at(-1)?.id as string
  if (!checkCombination(versions, report)) return undefined
  const label = release && !scenario.versions ? release.name : Object.values(versions).join(' with ')
  const update = name === undefined ? undefined : updateOf(name)
  return { versions, release: scenario.versions ? undefined : release, update, label }
}

/** Releases as points in time, oldest first; versions live between two of them, both ends open. */
interface Life {
  readonly after: number
  readonly before: number
}

/**
 * When a version was in the tree: after the last release with an older one of its component, before the
 * first with a newer one. Versions that never were in a release share the window between two.
 */
function lifeOf(component: ComponentName, id: string): Life {
  const { versions } = componentByName(component)
  const at = versions.findIndex((version) => version.id === id)
  const indexes = (those: readonly ComponentVersion[]): number[] =>
    those.flatMap((version) => releasesWith(version.id).map((release) => releases.indexOf(release)))
  const own = indexes(versions.slice(at, at + 1))
  const older = indexes(versions.slice(0, at))
  const newer = indexes(versions.slice(at + 1))
  const first = Math.min(...own, ...newer)
  return {
    after: older.length > 0 ? Math.max(...older) : first - 1,
    before: newer.length > 0 ? Math.min(...newer) : Number.POSITIVE_INFINITY,
  }
}

/** No tree ever had both of two versions whose lives do not overlap. */
function checkCombination(versions: ReleaseVersions, report: ScenarioReport): boolean {
  const kho = versions.kho as string
  const khoLife = lifeOf('kho', kho)
  let right = true
  for (const [name, id] of Object.entries(versions) as [ComponentName, string][]) {
    const life = lifeOf(name, id)
    if (isTogether(life, khoLife)) continue
    const fitting = componentByName(name)
      .versions.map((version) => version.id)
      .filter((one) => isTogether(lifeOf(name, one), khoLife))
    const hint = fitting.length > 0 ? `with ${kho} go ${fitting.join(', ')}` : `${kho} is older than ${name}`
    report.wrong(['versions', name], `no kernel ever spoke ${id} and ${kho}; ${hint}`)
    right = false
  }
  return right
}

/** Whether two open stretches of time overlap. */
function isTogether(one: Life, other: Life): boolean {
  return Math.max(one.after, other.after) < Math.min(one.before, other.before)
}

/** The version that a component has; undefined if the machine has none. */
export function versionOf({ versions }: ScenarioMachine, name: ComponentName): ComponentVersion | undefined {
  const id = versions[name]
  return id === undefined ? undefined : versionById(id)
}

/** A list of records somewhere below a component's root, and how much it holds. */
export interface ListLimits {
  readonly element: StructType
  /** Entries of one block, or of the array. */
  readonly perPart: number
  readonly parts: number
  /** `63 in a block, 10000 blocks`. */
  readonly said: string
}

/** The list that the version keeps under this name; undefined where it has none. */
export function listOf(
  machine: ScenarioMachine,
  component: ComponentName,
  as: string,
): ListLimits | undefined {
  const root = versionOf(machine, component)?.root
  for (const { type } of root ? partsOf(root) : []) {
    for (const member of Object.values(type.kind === 'struct' ? type.fields : type.properties)) {
      const edge = edgeOf(member)
      if ((edge?.kind === 'array' || edge?.kind === 'blocks') && edge.as === as) {
        return limitsOfList(edge, machine.target)
      }
    }
  }
  return undefined
}

function limitsOfList(edge: ArrayEdge | BlocksEdge, target: Target): ListLimits {
  if (edge.kind === 'array') {
    const perPart = arrayCapacity(edge, target)
    return { element: edge.element, perPart, parts: 1, said: `${perPart} in its array` }
  }
  const perPart = blockCapacity(edge, target)
  const said = `${perPart} in a block, ${edge.maxBlocks} blocks`
  return { element: edge.element, perPart, parts: edge.maxBlocks, said }
}

/** Longest text of a field, in bytes, its NUL not counted. */
export function textLimit(struct: StructType, field: string): number {
  const type = struct.fields[field]
  return type?.kind === 'text' ? type.bytes - 1 : 0
}

/** The releases that have a component, for messages. */
export function releasesThatHave(has: (versions: ReleaseVersions) => boolean): string {
  const names = releases
    .filter(({ versions, unreleased }) => !unreleased && has(versions))
    .map(({ name }) => name)
  return names.join(', ')
}
