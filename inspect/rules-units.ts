/**
 * The preserved units: where they lie, that they do not overlap, that everything which refers to memory
 * finds it preserved, and what nothing refers to.
 */
import { traitSpan } from '../abi/kernel-traits.ts'
import { pageShift } from '../abi/layout.ts'
import { memoryOrders } from '../abi/machine.ts'
import { hex, type PhysRange } from '../abi/memory.ts'
import { components } from '../abi/registry.ts'
import type { ClaimGroup } from './claim.ts'
import type { SharedFrame } from './claim-list.ts'
import { isWithin } from './fault-pool.ts'
import type { UnitRun } from './map.ts'
import { note, type Rule, silent, type Violation } from './rule.ts'
import { unknownSubtrees } from './rules-subtree.ts'
import type { Subject } from './subject.ts'
import { unmetViolations } from './violations.ts'

const unit = {
  component: 'kho',
  since: 'linux-6.16',
  requires: ['KHO_MAP_ADDRESS', 'KHO_MAP_FORM', 'KHO_MAP_CYCLE', 'KHO_RADIX_DEPTH'],
  source: 'kho_preserved_memory_reserve()',
  outcome: 'corrupts',
  stage: 'map',
} as const

const PATH = 'preserved'

/** A violation at some units: its bytes are those of the units. */
function atUnits(subject: Subject, pfn: number, pages: number): Pick<Violation, 'path' | 'pa' | 'length'> {
  return {
    path: PATH,
    pa: subject.address(pfn),
    length: Math.min(pages * subject.target.pageSize, Number.MAX_SAFE_INTEGER),
  }
}

const pagesOf = ({ order, count }: UnitRun): number => count * 2 ** order

const describe = ({ order, count }: UnitRun): string =>
  `${count} ${count === 1 ? 'unit' : 'units'} of order ${order}`

export const unitRules: readonly Rule[] = [
  silent({
    ...unit,
    id: 'KHO_UNIT_OUTSIDE',
    why: 'The struct page of every unit is written without a look whether there is one.',
    check: function* (subject) {
      const { known, map } = subject
      const page = BigInt(subject.target.pageSize)
      const [first, last] = [Number(known.start / page), Number(known.end / page)]
      let outside: UnitRun | undefined
      let runs = 0
      for (const run of map?.allRuns() ?? []) {
        if (run.pfn >= first && run.pfn + pagesOf(run) <= last) continue
        if (run.pfn >= first && subject.claimed.holds(run.pfn, run.pfn + pagesOf(run))) continue
        outside ??= run
        runs += 1
      }
      if (!outside) return
      yield {
        ...atUnits(subject, outside.pfn, pagesOf(outside)),
        message: `${describe(outside)}${runs > 1 ? ` and ${runs - 1} more runs of units` : ''} where there is no memory`,
        expected: `memory between ${hex(known.start)} and ${hex(known.end)}`,
        found: hex(subject.address(outside.pfn)),
        ends: true,
      }
    },
  }),
  silent({
    ...unit,
    id: 'KHO_UNIT_OVERLAP',
    why: 'Units that overlap are reserved one after the other; the head page keeps the order that is walked last.',
    outcome: 'takes-over',
    check: function* (subject) {
      let end = 0
      let before: UnitRun | undefined
      let first: { readonly run: UnitRun; readonly over: UnitRun; readonly pages: number } | undefined
      let count = 0
      for (const run of subject.map?.allRuns() ?? []) {
        const runEnd = run.pfn + pagesOf(run)
        if (before && run.pfn < end) {
          first ??= { run, over: before, pages: Math.min(end, runEnd) - run.pfn }
          count += 1
        }
        if (runEnd <= end) continue
        end = runEnd
        before = run
      }
      if (!first) return
      const { run, over, pages } = first
      yield {
        ...atUnits(subject, run.pfn, pages),
        message: `${describe(run)} and ${describe(over)} overlap${count > 1 ? `, and so do ${count - 1} more` : ''}`,
        expected: 'every page in one unit',
        found: `${hex(subject.address(run.pfn))} in both`,
      }
    },
  }),
  silent({
    ...unit,
    id: 'KHO_UNIT_IN_SCRATCH',
    why: 'kho_preserve_folio() and kho_preserve_pages() look for scratch only with CONFIG_KEXEC_HANDOVER_DEBUG; the next kernel was loaded there and allocates there before it reads the map.',
    source: 'kho_scratch_overlap()',
    check: function* (subject) {
      for (const area of subject.scratch) {
        const [first, last] = framesOf(subject, area)
        let least: UnitRun | undefined
        let pages = 0
        let isClaimed = false
        for (const run of subject.map?.allRuns() ?? []) {
          const [from, to] = [Math.max(first, run.pfn), Math.min(last, run.pfn + pagesOf(run))]
          if (from >= to) continue
          least ??= run
          pages += to - from
          isClaimed ||= subject.claimed.holds(from, to)
        }
        if (!least) continue
        yield {
          ...atUnits(subject, Math.max(first, least.pfn), pages),
          message: `${pages} preserved pages in a scratch area`,
          expected: 'memory outside of all scratch areas',
          found: `${describe(least)} at ${hex(subject.address(least.pfn))} in ${hex(area.start)} to ${hex(area.end)}`,
          outcome: isClaimed || pages > (last - first) * MUCH ? 'corrupts' : 'takes-over',
        }
      }
    },
  }),
  silent({
    ...unit,
    id: 'KHO_UNIT_INT_SHIFT',
    ...traitSpan('narrowUnits'),
    why: 'The size of a unit is computed as an int: from 2 GiB on it is another one, and other memory is reserved.',
    source: 'kho_preserved_memory_reserve()',
    check: function* (subject) {
      const limit = INT_BITS - pageShift(subject.target.pageSize)
      for (const order of subject.map?.orders ?? []) {
        if (order < limit) continue
        for (const run of subject.map?.runs(order) ?? []) {
          yield {
            ...atUnits(subject, run.pfn, pagesOf(run)),
            message: `${describe(run)}, more than the kernel can compute the size of`,
            expected: `an order below ${limit}`,
            found: String(order),
          }
        }
      }
    },
  }),
  silent({
    ...unit,
    id: 'KHO_UNIT_TOO_LARGE',
    severity: 'warning',
    ...traitSpan('limitsOrder'),
    why: 'Units above MAX_PAGE_ORDER are reserved, but kho_restore_page() never gives them back.',
    source: 'kho_restore_page()',
    outcome: 'takes-over',
    check: function* (subject) {
      const { largest } = memoryOrders[subject.target.pageSize]
      for (const order of subject.map?.orders ?? []) {
        if (order <= largest) continue
        for (const run of subject.map?.runs(order) ?? []) {
          yield {
            ...atUnits(subject, run.pfn, pagesOf(run)),
            message: `${describe(run)}, which cannot be restored`,
            expected: `an order of at most ${largest} (MAX_PAGE_ORDER)`,
            found: String(order),
          }
        }
      }
    },
  }),
  silent({
    ...unit,
    id: 'KHO_CLAIMED_TWICE',
    why: 'Who takes a page back first clears its mark; the next one is refused, or both use it.',
    source: 'kho_restore_page()',
    stage: 'retrieve',
    check: function* (subject) {
      for (const { pfn, one, other, more } of sharedByOwners(subject)) {
        yield {
          path: other.path,
          pa: subject.address(pfn),
          length: subject.target.pageSize,
          via: other.via,
          message: `the page at ${hex(subject.address(pfn))} is ${other.what} of ${other.path} and ${one.what} of ${one.path}${more > 0 ? `, and so are ${more} more` : ''}`,
          expected: 'memory of its own',
          found: `${one.path} refers to it, too`,
          ...whenShared(one, other),
          step: other.step ?? 0,
        }
      }
    },
  }),
  note({
    id: 'KHO_UNIT_UNCLAIMED',
    component: 'kho',
    since: 'linux-6.16',
    requires: ['KHO_MAP_ADDRESS', 'KHO_MAP_FORM'],
    why: 'What is preserved and nobody takes back stays reserved until the next cold boot.',
    source: 'kho_preserved_memory_reserve()',
    stage: 'map',
    check: function* (subject) {
      const { map } = subject
      if (!map) return
      let pages = 0
      let first: number | undefined
      for (const run of map.allRuns()) {
        const left = subject.claimed.unclaimedIn(run)
        if (left.pages === 0) continue
        first ??= left.first
        pages += left.pages
      }
      if (first === undefined) return
      const unknown = unknownSubtrees(subject)
      const bytes = BigInt(pages) * BigInt(subject.target.pageSize)
      yield {
        ...atUnits(subject, first, 1),
        message: `${bytes} bytes of preserved memory that nothing known here refers to`,
        expected: 'an owner of each unit',
        found: unknown.length > 0 ? `they may belong to ${unknown.join(', ')}` : 'no owner: they leak',
      }
    },
  }),
  silent({
    ...unit,
    id: 'KHO_FDT_PRESERVED',
    why: 'The root FDT is read by every subsystem, until late in the boot; the kernel does not check that it is kept.',
    source: 'kho_get_fdt()',
    stage: 'luo',
    check: (subject) => unmetViolations(subject, 'KHO_FDT_PRESERVED'),
  }),
  silent({
    ...unit,
    id: 'KHO_BLOB_PRESERVED',
    requires: [...unit.requires, 'KHO_BLOB_OUTSIDE'],
    why: "A subtree's address is handed to its subsystem as it is; memory that is not preserved is in use by then.",
    source: 'kho_retrieve_subtree()',
    stage: 'initcalls',
    check: function* (subject) {
      for (const violation of unmetViolations(subject, 'KHO_BLOB_PRESERVED'))
        yield { ...violation, ...(isTestOnly(violation.path) && { outcome: 'loses' }) }
    },
  }),
]

/** Above this part of a scratch area, what is reserved in it is missing elsewhere. */
const MUCH = 1 / 8
/** Bits of an int without its sign. */
const INT_BITS = 31

/** Whether the blob is a test module's, which reads it once and notices what is wrong. */
function isTestOnly(path: string): boolean {
  return components.some(({ testOnly, subtree }) => testOnly && isWithin(path, `subtrees[${subtree}]`))
}

/** Pages that two owners share: the first, and how many more. */
interface SharedPages extends SharedFrame {
  more: number
}

/** Each two owners once, however many pages they share. */
function sharedByOwners({ claimed }: Subject): Iterable<SharedPages> {
  const pairs = new Map<ClaimGroup, Map<ClaimGroup, SharedPages>>()
  const found: SharedPages[] = []
  for (const frame of claimed.shared()) {
    const others = pairs.get(frame.one) ?? new Map<ClaimGroup, SharedPages>()
    pairs.set(frame.one, others)
    const known = others.get(frame.other)
    if (known) {
      known.more += 1
      continue
    }
    const shared = { ...frame, more: 0 }
    others.set(frame.other, shared)
    found.push(shared)
  }
  return found
}

/** What becomes of the two that share a page; of both the rule's own outcome, unless it is told. */
function whenShared(one: ClaimGroup, other: ClaimGroup): Partial<Violation> {
  if (isReadBefore(one, other)) return { outcome: 'loses' }
  const isHarmless = isOnlyLookedAt(one, other)
  return { affects: [one.path], ...(isHarmless && { outcome: 'takes-over', severity: 'warning' }) }
}

/** What the kernel reads in the boot before test modules begin, and never again. */
const READ_EARLY = ['MEMBLOCK_PRESERVED', 'METADATA_PRESERVED']

/** Whether it is a test module that takes a page, and sums up what is not its own, when the other one is done with it. */
function isReadBefore(one: ClaimGroup, other: ClaimGroup): boolean {
  return READ_EARLY.includes(one.rule) && isTested(other) && other.restore === 'folio'
}

/** Whether nobody takes the page, so that both find in it what the old kernel left. */
function isOnlyLookedAt(...claims: readonly ClaimGroup[]): boolean {
  const isUsed = ({ restore, rule }: ClaimGroup): boolean =>
    restore !== 'read' || rule === 'RESERVE_MEM_PRESERVED'
  return !claims.some(isUsed) && !isFreedUnread(...claims)
}

/** Whether a test module frees, once it has seen it, what is read as FLBs only when a file needs them. */
function isFreedUnread(...claims: readonly Pick<ClaimGroup, 'path' | 'rule'>[]): boolean {
  return claims.some(isTested) && claims.some(({ rule }) => rule === 'LUO_FLBS_PRESERVED')
}

function isTested({ path }: Pick<ClaimGroup, 'path'>): boolean {
  return components.some(({ testOnly, key }) => testOnly && isWithin(path, key))
}

/** The first frame of an area, and the one behind it. */
function framesOf({ target }: Subject, area: PhysRange): readonly [first: number, last: number] {
  const page = BigInt(target.pageSize)
  return [Number(area.start / page), Number((area.end + page - 1n) / page)]
}
