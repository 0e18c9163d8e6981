/**
 * Comparisons that a user asks for: two versions of a component, two releases with all that they hand
 * over, a stored ABI with today's. Each gives the changes and a verdict for both directions.
 */

import { type Behaviour, behaviours } from '../abi/behaviour.ts'
import { appliesTo, type Check, worst } from '../abi/check.ts'
import { checks } from '../abi/consumer.ts'
import type { PageSize } from '../abi/layout.ts'
import { PAGE_SIZES } from '../abi/layout.ts'
import { releaseIndex } from '../abi/registry.ts'
import { type Change, diffVersions } from './abi-diff.ts'
import type { AbiDocument, ReleaseDescription, VersionDescription } from './abi-document.ts'
import { type Direction, judge, type Verdict, worstOf } from './abi-verdict.ts'

/** One component on both sides; a side without it has no version. */
export interface ComponentComparison {
  readonly component: string
  readonly before?: string
  readonly after?: string
  readonly changes: readonly Change[]
  readonly forward: Verdict
  readonly backward: Verdict
  /** Left by a test module only; kept out of the verdict on the whole. */
  readonly testOnly?: true
  /** Releases only: directions in which an earlier component ends the handover before this one is read. */
  readonly unreached?: readonly Direction[]
}

export interface Comparison {
  readonly before: string
  readonly after: string
  readonly components: readonly ComponentComparison[]
  /** Releases only: readers' checks that came, went, or have another consequence. */
  readonly checks: readonly CheckChange[]
  /** Releases only: what else behaves differently. */
  readonly behaviours: readonly Behaviour[]
  /** `after` takes over from `before`. */
  readonly forward: Verdict
  /** `before` takes over from `after`. */
  readonly backward: Verdict
}

export interface CheckChange {
  readonly kind: 'added' | 'removed' | 'changed'
  readonly check: Check
  readonly before?: Check
}

/** Components in the order in which a booting kernel comes to them; what is not named here follows. */
const BOOT_ORDER = ['boot', 'kho', 'memblock', 'luo', 'memfd', 'kexec-metadata', 'kho-test']

/** Compares two versions of one component. */
export function compareVersions(
  before: VersionDescription,
  after: VersionDescription,
  pageSizes: readonly PageSize[] = PAGE_SIZES,
): Comparison {
  const component = compareComponent(before, after, pageSizes)
  const { forward, backward } = component
  return {
    before: before.id,
    after: after.id,
    components: [component],
    checks: [],
    behaviours: [],
    forward,
    backward,
  }
}

function compareComponent(
  before: VersionDescription,
  after: VersionDescription,
  pageSizes: readonly PageSize[],
  releases?: { readonly before: string; readonly after: string },
): ComponentComparison {
  const changes = before === after ? [] : diffVersions(before, after)
  const reading = (direction: Direction) =>
    direction === 'forward'
      ? { direction, writer: before, reader: after, ...(releases && { release: releases.after }) }
      : { direction, writer: after, reader: before, ...(releases && { release: releases.before }) }
  return {
    component: after.component,
    before: before.id,
    after: after.id,
    changes: changes.filter((change) => change.pageSizes.some((size) => pageSizes.includes(size))),
    forward: judge(changes, reading('forward'), pageSizes),
    backward: judge(changes, reading('backward'), pageSizes),
  }
}

/** Compares all that two releases hand over. Both must be releases of this project's own registry. */
export function compareReleases(
  document: AbiDocument,
  before: ReleaseDescription,
  after: ReleaseDescription,
  pageSizes: readonly PageSize[] = PAGE_SIZES,
): Comparison {
  const known = new Set([...BOOT_ORDER, ...Object.keys(document.components)])
  const names = [...known].filter((name) => before.versions[name] ?? after.versions[name])
  const components = names.map((name): ComponentComparison => {
    const [older, newer] = [versionIn(document, before, name), versionIn(document, after, name)]
    const compared =
      older && newer
        ? compareComponent(older, newer, pageSizes, { before: before.name, after: after.name })
        : compareLone(name, older, newer, before.name, after.name, pageSizes)
    return document.components[name]?.testOnly ? { ...compared, testOnly: true } : compared
  })
  const [forward, backward] = [reached(components, 'forward'), reached(components, 'backward')]
  return {
    before: before.name,
    after: after.name,
    components: components.map((component) => withReach(component, forward, backward)),
    checks: diffChecks(before, after),
    behaviours: behavioursBetween(before.name, after.name),
    forward: judgeWhole(forward, 'forward'),
    backward: judgeWhole(backward, 'backward'),
  }
}

/** A release's version of a component, without the shared structs that only later releases have. */
function versionIn(
  document: AbiDocument,
  release: ReleaseDescription,
  component: string,
): VersionDescription | undefined {
  const id = release.versions[component]
  const version = id === undefined ? undefined : document.versions[id]
  if (!version || !Object.values(version.parts).some(({ shared }) => shared?.since)) return version
  const order = document.releases.map(({ name }) => name)
  const parts = Object.entries(version.parts).filter(
    ([, { shared }]) => !shared?.since || order.indexOf(shared.since) <= order.indexOf(release.name),
  )
  return { ...version, parts: Object.fromEntries(parts) }
}

/** A component that only one side has: the side without it does not look for it. */
function compareLone(
  component: string,
  before: VersionDescription | undefined,
  after: VersionDescription | undefined,
  beforeName: string,
  afterName: string,
  pageSizes: readonly PageSize[],
): ComponentComparison {
  const unread = (reader: string): Verdict => ({
    verdict: 'compatible',
    outcome: 'loses',
    pageSizes,
    reasons: [`${reader} has no reader for ${component}; it stays unread`],
  })
  const absent = (writer: string): Verdict => ({
    verdict: 'compatible',
    outcome: 'takes-over',
    pageSizes,
    reasons: [`${writer} does not leave ${component}`],
  })
  return {
    component,
    ...(before && { before: before.id }),
    ...(after && { after: after.id }),
    changes: [],
    forward: before ? unread(afterName) : absent(beforeName),
    backward: before ? absent(afterName) : unread(beforeName),
  }
}

/** Components in the order of booting, up to the one that ends the handover; test modules come last. */
function reached(
  components: readonly ComponentComparison[],
  direction: Direction,
): readonly ComponentComparison[] {
  const ends = components.findIndex(({ [direction]: { outcome }, testOnly }) => {
    return !testOnly && (outcome === 'no-handover' || outcome === 'panics')
  })
  return ends < 0 ? components : components.slice(0, ends + 1)
}

function withReach(
  component: ComponentComparison,
  forward: readonly ComponentComparison[],
  backward: readonly ComponentComparison[],
): ComponentComparison {
  const missed: readonly Direction[] = [
    ...(forward.includes(component) ? [] : (['forward'] as const)),
    ...(backward.includes(component) ? [] : (['backward'] as const)),
  ]
  return missed.length === 0 ? component : { ...component, unreached: missed }
}

/** The verdict on a release: the worst of the components that are read, test modules left out. */
function judgeWhole(components: readonly ComponentComparison[], direction: Direction): Verdict {
  const verdicts = components.filter(({ testOnly }) => !testOnly).map((component) => component[direction])
  const decisive = worstOf(verdicts)
  const outcomes = verdicts.flatMap(({ outcome }) => outcome ?? [])
  return outcomes.length < verdicts.length ? decisive : { ...decisive, outcome: worst(outcomes) }
}

/** Readers' checks on components that both releases hand over, by what each release makes of them. */
function diffChecks(before: ReleaseDescription, after: ReleaseDescription): readonly CheckChange[] {
  const shared = Object.keys(before.versions).filter((name) => before.versions[name] === after.versions[name])
  const ids = new Set(checks.filter(({ component }) => shared.includes(component)).map(placeOf))
  return [...ids].flatMap((place): readonly CheckChange[] => {
    const at = (release: string) =>
      checks.find((check) => placeOf(check) === place && appliesTo(check, release))
    const [older, newer] = [at(before.name), at(after.name)]
    if (older && newer) {
      return older.outcome === newer.outcome ? [] : [{ kind: 'changed', check: newer, before: older }]
    }
    if (newer) return [{ kind: 'added', check: newer }]
    return older ? [{ kind: 'removed', check: older }] : []
  })
}

function placeOf({ component, id, at }: Check): string {
  return `${component} ${id} ${at}`
}

/** What changed on the way from one release to the other, whichever is older. */
function behavioursBetween(before: string, after: string): readonly Behaviour[] {
  const [first, last] = [releaseIndex(before), releaseIndex(after)].sort((a, b) => a - b) as [number, number]
  return behaviours.filter(({ since }) => first < releaseIndex(since) && releaseIndex(since) <= last)
}

/**
 * Compares a stored ABI with today's, version by version. A version that is not there any more is a
 * contract withdrawn; a new one is nothing that the stored ABI could take over.
 */
export function compareDocuments(stored: AbiDocument, today: AbiDocument, name: string): Comparison {
  const ids = [...new Set([...Object.keys(stored.versions), ...Object.keys(today.versions)])].sort()
  const components = ids.flatMap((id): readonly ComponentComparison[] => {
    const [before, after] = [stored.versions[id], today.versions[id]]
    if (before && after) {
      const compared = compareComponent(before, after, PAGE_SIZES)
      return compared.changes.length > 0 ? [compared] : []
    }
    return [before ? withdrawn(before) : introduced(after as VersionDescription)]
  })
  const identical: Verdict = {
    verdict: 'identical',
    outcome: 'takes-over',
    pageSizes: PAGE_SIZES,
    reasons: [],
  }
  const whole = (direction: Direction): Verdict =>
    components.length === 0 ? identical : worstOf(components.map((component) => component[direction]))
  return {
    before: name,
    after: 'today',
    components,
    checks: [],
    behaviours: [],
    forward: whole('forward'),
    backward: whole('backward'),
  }
}

function withdrawn({ id, component }: VersionDescription): ComponentComparison {
  const verdict: Verdict = {
    verdict: 'incompatible',
    pageSizes: PAGE_SIZES,
    reasons: [`${id} is not declared any more`],
  }
  return { component, before: id, changes: [], forward: verdict, backward: verdict }
}

/** A kernel of the stored ABI has no reader for a version that came later. */
function introduced({ id, component }: VersionDescription): ComponentComparison {
  const reasons = [`${id} is new`]
  return {
    component,
    after: id,
    changes: [],
    forward: { verdict: 'compatible', pageSizes: PAGE_SIZES, reasons },
    backward: {
      verdict: 'incompatible',
      pageSizes: PAGE_SIZES,
      reasons: [...reasons, `the stored ABI has no reader for ${id}`],
    },
  }
}
