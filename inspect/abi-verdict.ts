/**
 * The verdict on two versions of a component, for one direction: does a kernel with the one take over
 * what a kernel with the other left, at which check does it refuse, and does a version string say so.
 */

import type { Check, Outcome } from '../abi/check.ts'
import { appliesTo, worst } from '../abi/check.ts'
import { checks } from '../abi/consumer.ts'
import type { PageSize } from '../abi/layout.ts'
import { PAGE_SIZES } from '../abi/layout.ts'
import { releaseByName } from '../abi/registry.ts'
import type { Change, Impact } from './abi-diff.ts'
import type { VersionDescription } from './abi-document.ts'
import { formatPageSize, forPage } from './per-page.ts'

/** From best to worst: `silent` is a break that no version string announces. */
export const VERDICTS = ['identical', 'compatible', 'review', 'incompatible', 'silent'] as const
export type VerdictName = (typeof VERDICTS)[number]
export type Direction = 'forward' | 'backward'

export interface Verdict {
  readonly verdict: VerdictName
  /** What becomes of the handover; none where the declarations cannot tell. */
  readonly outcome?: Outcome
  /** The first check that stops it. */
  readonly check?: Check
  /** Page sizes for which it holds; for the others it is better. */
  readonly pageSizes: readonly PageSize[]
  /** Sentences, the decisive one first. */
  readonly reasons: readonly string[]
}

/** What is compared, for finding the checks that the reader makes. */
export interface Reading {
  readonly direction: Direction
  readonly writer: VersionDescription
  readonly reader: VersionDescription
  /** The reader's release, where releases are compared. */
  readonly release?: string
}

/** Judges one direction over all page sizes given; the worst one decides. */
export function judge(
  changes: readonly Change[],
  reading: Reading,
  pageSizes: readonly PageSize[] = PAGE_SIZES,
): Verdict {
  const verdict = worstOf(pageSizes.map((pageSize) => judgeAt(changes, reading, pageSize)))
  if (verdict.verdict !== 'incompatible') return verdict
  return { ...verdict, reasons: [...verdict.reasons, ...alike(changes, reading.direction, pageSizes)] }
}

/** What a refusal costs: for some page sizes the reader could have read the bytes that it refuses. */
function alike(
  changes: readonly Change[],
  direction: Direction,
  pageSizes: readonly PageSize[],
): readonly string[] {
  const differs = changes.filter((change) => {
    return change[direction] === 'misread' || (change.class === 'layout' && change[direction] !== 'none')
  })
  const same = pageSizes.filter((size) => !differs.some((change) => change.pageSizes.includes(size)))
  if (same.length === 0) return []
  if (same.length === pageSizes.length)
    return ['the bytes themselves are laid out alike; the version alone refuses']
  const sizes = same.map(formatPageSize).join(' and ')
  return [`at ${sizes} pages the bytes themselves are laid out alike; there the version alone refuses`]
}

/** Folds verdicts that differ by page size, or by component: the worst, with all its page sizes. */
export function worstOf(verdicts: readonly Verdict[]): Verdict {
  const rank = ({ verdict }: Verdict): number => VERDICTS.indexOf(verdict)
  const ranked = [...verdicts].sort((a, b) => rank(b) - rank(a))
  const worstOne = ranked[0] as Verdict
  const same = ranked.filter((candidate) => rank(candidate) === rank(worstOne))
  const pageSizes = PAGE_SIZES.filter((size) => same.some((candidate) => candidate.pageSizes.includes(size)))
  return { ...worstOne, pageSizes }
}

function judgeAt(changes: readonly Change[], reading: Reading, pageSize: PageSize): Verdict {
  const seen = changes.filter((change) => change.pageSizes.includes(pageSize))
  const pageSizes = [pageSize]
  if (seen.length === 0) return { verdict: 'identical', outcome: 'takes-over', pageSizes, reasons: [] }
  const refusals = seen.filter(
    (change) => change.class === 'contract' && change[reading.direction] === 'refused',
  )
  const silent = refusals.some(({ part }) => part === undefined)
    ? []
    : seen.filter((change) => isSilent(change, reading.direction, refusals))
  if (silent.length > 0) return { ...judgeSilent(silent, reading, pageSize), pageSizes }
  if (refusals.length > 0) return { ...judgeRefused(refusals, reading), pageSizes }
  return { ...judgeAccepted(seen, reading.direction), pageSizes }
}

/** A change that breaks the reader although every version string that guards it is the same. */
function isSilent(change: Change, direction: Direction, refusals: readonly Change[]): boolean {
  if (change[direction] !== 'missing' && change[direction] !== 'misread') return false
  return !refusals.some(({ part }) => part !== undefined && change.guards.includes(part))
}

function judgeRefused(refusals: readonly Change[], reading: Reading): Omit<Verdict, 'pageSizes'> {
  const { part, before, after } = refusals[0] as Change
  const [left, known] = orient([before, after], reading.direction)
  const check = findCheck(reading, 'contract', (at) =>
    part === undefined ? isOwnContract(at, reading) : at === part,
  )
  return {
    verdict: 'incompatible',
    ...(check ? { outcome: check.outcome, check } : {}),
    reasons: [`refused by version: it knows "${known}" and finds "${left}"`],
  }
}

/** The version of the whole is checked at its root node, at a field, or in the record that points to it. */
function isOwnContract(at: string, { reader }: Reading): boolean {
  return reader.root.startsWith('/') ? at === reader.root : !at.startsWith('/')
}

function judgeSilent(
  silent: readonly Change[],
  reading: Reading,
  pageSize: PageSize,
): Omit<Verdict, 'pageSizes'> {
  const noticed = silent.map((change) => ({ change, check: noticing(change, reading, pageSize) }))
  const unnoticed = noticed.find(({ check }) => !check)
  const decisive = unnoticed ?? (noticed[0] as { change: Change; check: Check })
  return {
    verdict: 'silent',
    outcome: worst(noticed.map(({ check }) => check?.outcome ?? 'corrupts')),
    ...(decisive.check && { check: decisive.check }),
    reasons: [
      `the layout differs and no version string says so: ${describeBreak(decisive.change, reading.direction)}`,
      ...proportion(decisive.change, reading.direction, pageSize),
      ...(decisive.check ? [] : ['no check notices']),
      ...silent.flatMap(coincidence),
    ],
  }
}

function factor(larger: number, smaller: number): string {
  return String(Number((larger / smaller).toPrecision(3)))
}

function describeBreak(change: Change, direction: Direction): string {
  const { where, aspect, kind } = change
  if (change[direction] === 'missing') {
    const what = kind === 'renamed' ? 'property' : aspect
    return `${what} ${demandedAt(change, direction)} is demanded and not there`
  }
  const [left, expected] = orient([change.before, change.after], direction)
  return `${where} (${aspect}) was left as ${left ?? 'none'}, and is read as ${expected ?? 'none'}`
}

/** Where a reader looks: for what was renamed, the place by the name that it knows. */
function demandedAt({ kind, where, part, before, after }: Change, direction: Direction): string {
  const [, expected] = orient([before, after], direction)
  return kind === 'renamed' ? `${part}:${expected}` : where
}

/** How much too much or too little a reader takes of a struct that has another size. */
function proportion(
  { where, part, lengths }: Change,
  direction: Direction,
  pageSize: PageSize,
): readonly string[] {
  const [left, expected] = orient(lengths ?? [undefined, undefined], direction)
  if (where !== part || left === undefined || expected === undefined) return []
  const [written, read] = [forPage(left, pageSize), forPage(expected, pageSize)]
  const at = `at ${formatPageSize(pageSize)} pages`
  return read > written
    ? [
        `${at} it reads ${read} bytes where ${written} were left: ${factor(read, written)} times as much, the rest is other memory`,
      ]
    : [`${at} it reads the first ${read} of ${written} bytes: 1/${factor(written, read)}, the rest is lost`]
}

/** The check that stops a reader at a silent change: for presence, or for a length that it compares. */
function noticing(change: Change, reading: Reading, pageSize: PageSize): Check | undefined {
  const impact: Impact = change[reading.direction]
  const demanded = demandedAt(change, reading.direction)
  const at = findCheck(reading, 'present', (place) => place === demanded)
  if (impact === 'missing') return at
  const [left, expected] = orient(change.lengths ?? [undefined, undefined], reading.direction)
  const compared =
    left === undefined || expected === undefined || forPage(left, pageSize) !== forPage(expected, pageSize)
  if (at && change.lengths && change.where.includes(':') && compared) return at
  return tooSmall(change, reading, pageSize)
}

/** A root struct's size is checked against the blob's: less than expected is refused. */
function tooSmall({ part }: Change, reading: Reading, pageSize: PageSize): Check | undefined {
  if (part === undefined || part !== reading.reader.root) return undefined
  const [left, expected] = [reading.writer.parts[part]?.size, reading.reader.parts[part]?.size]
  if (left === undefined || expected === undefined) return undefined
  if (forPage(left, pageSize) >= forPage(expected, pageSize)) return undefined
  return findCheck(reading, 'present', (place) => place === part)
}

/** A length check that a value of any length passes by chance. */
function coincidence({ lengths, where, before, after }: Change): readonly string[] {
  if (!lengths) return []
  const fixed = lengths.find((length) => typeof length === 'number')
  const variable = [before, after].find((text) => text?.startsWith('array of'))
  const element = variable === undefined ? undefined : /(\d+)$/.exec(variable)?.[1]
  if (fixed === undefined || element === undefined || lengths[0] === lengths[1]) return []
  const count = Number(fixed) / (Number(element) / 8)
  return [`${where}: with exactly ${count} elements both forms have the same length, and the check passes`]
}

/** Before and after as the reader of a direction meets them. */
function orient<T>([before, after]: readonly [T, T], direction: Direction): readonly [left: T, expected: T] {
  return direction === 'forward' ? [before, after] : [after, before]
}

function judgeAccepted(changes: readonly Change[], direction: Direction): Omit<Verdict, 'pageSizes'> {
  const doubtful = changes.filter((change) => change[direction] === 'review')
  if (doubtful.length > 0) {
    return {
      verdict: 'review',
      reasons: doubtful.map((change) => `${describeDoubt(change)}: to be judged by a person`),
    }
  }
  const unread = changes.filter((change) => change[direction] === 'unread')
  return {
    verdict: 'compatible',
    outcome: unread.length > 0 ? 'loses' : 'takes-over',
    reasons: unread.map(({ where, aspect }) => `${aspect} ${where} stays unread, what it holds is lost`),
  }
}

function describeDoubt({ where, kind, aspect, before, after }: Change): string {
  if (kind === 'added' || kind === 'removed') return `${where}: ${aspect} was ${kind}`
  return `${where}: ${aspect} ${before ?? 'none'} became ${after ?? 'none'}`
}

/** The reader's check at a place: of its release, else the newest that there is. */
function findCheck(
  { reader, release }: Reading,
  demand: Check['demand'],
  matches: (at: string) => boolean,
): Check | undefined {
  const candidates = checks.filter(
    (check) => check.component === reader.component && check.demand === demand && matches(check.at),
  )
  const named = release === undefined ? reader.releases : [release]
  // A stored document may name releases that are not known here.
  const releases = named.filter((name) => releaseByName(name) !== undefined)
  return candidates.find((check) => releases.some((name) => appliesTo(check, name))) ?? candidates.at(-1)
}
