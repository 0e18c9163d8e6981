/**
 * What the next kernel does with a handover, from the findings: of the whole and of each part, in the
 * order in which a booting kernel comes to them.
 */
import { type Outcome, worst } from '../abi/check.ts'
import type { Hop, Severity } from '../abi/fault.ts'
import { formatPath, type Path } from '../abi/fault.ts'
import { kernelTraits } from '../abi/kernel-traits.ts'
import type { FilePosition, PhysAddr } from '../abi/memory.ts'
import { type ComponentName, components } from '../abi/registry.ts'
import type { Handover } from './decode.ts'
import { isWithin, pathsAround } from './fault-pool.ts'
import type { RuleKind, Stage } from './rule.ts'
import type { TargetKernel } from './target-kernel.ts'
import { child, childrenOf, itemsAt, type Node } from './tree.ts'

/** A rule that does not hold, and where. */
export interface Finding {
  readonly rule: string
  readonly component: ComponentName
  readonly severity: Severity
  readonly kind: RuleKind
  readonly path: string
  readonly pa: PhysAddr
  readonly length: number
  /** Where the bytes stand in the image's file, where it stores them as they are. */
  readonly position?: FilePosition
  readonly via: readonly Hop[]
  readonly expected?: string
  readonly found?: string
  readonly message: string
  /** The kernel function that checks or omits to. */
  readonly source: string
  readonly why: string
  readonly outcome: Outcome
  readonly stage: Stage
  /** Position within the stage. */
  readonly step: number
  readonly affects: readonly string[]
  /** The kernel's answer, where it has one. */
  readonly errno?: string
  /** The kernel does not survive it. */
  readonly ends: boolean
  /** The lines that the kernel logs on account of it. */
  readonly log: readonly string[]
}

/** What becomes of one part of the handover. */
export interface PartOutcome {
  /** `kho`, `luo`, `memblock`, `kexec-metadata`, `kho_test`, or the path of a session, file, FLB or region. */
  readonly part: string
  readonly outcome: Outcome
}

export interface Verdict {
  readonly kernel: TargetKernel
  readonly outcome: Outcome
  readonly parts: readonly PartOutcome[]
  /** By rule as in the table; further ones of a rule that fails very often are only counted. */
  readonly findings: readonly Finding[]
  readonly omitted: ReadonlyMap<string, number>
  /** The lines that the kernel is expected to log, in order, without time stamps. */
  readonly console: readonly string[]
}

const STAGES: readonly Stage[] = [
  'populate',
  'walk',
  'reserve-mem',
  'map',
  'luo',
  'initcalls',
  'open',
  'retrieve',
]

/** The stages in the order of a release. */
export function stagesOf(release: string): readonly Stage[] {
  // Memory that becomes scratch memory is found before the command line is read: kho_memory_init_early().
  if (kernelTraits(release).extendsScratch) return STAGES
  const others: Stage[] = STAGES.filter((stage) => stage !== 'walk')
  return others.toSpliced(others.indexOf('map'), 0, 'walk')
}

export function stageRank(stage: Stage, release: string): number {
  return stagesOf(release).indexOf(stage)
}

/** What ends the taking over there and then. */
const TERMINAL: readonly Outcome[] = ['device-fails', 'no-handover', 'panics']

/** The findings that the kernel gets to, in its order; what comes after the end of the handover is left out. */
export function reachedFindings(findings: readonly Finding[], release: string): readonly Finding[] {
  const inOrder = findings.toSorted(
    (a, b) => stageRank(a.stage, release) - stageRank(b.stage, release) || a.step - b.step,
  )
  const end = inOrder.findIndex(({ outcome, ends }) => ends || TERMINAL.includes(outcome))
  return end < 0 ? inOrder : inOrder.slice(0, end + 1)
}

/** The outcome of the whole. */
export function overallOutcome(reached: readonly Finding[]): Outcome {
  const outcomes = reached.map(({ outcome }) => outcome)
  return outcomes.includes('no-handover') ? 'no-handover' : worst(outcomes)
}

/** The outcome of every part that the handover has. */
export function partOutcomes(handover: Handover, reached: readonly Finding[]): readonly PartOutcome[] {
  const last = reached.at(-1)
  const within = outcomesWithin(reached)
  return partPaths(handover).map(({ part, path, under }) => {
    if (last?.outcome === 'no-handover') return { part, outcome: last.outcome }
    const outcomes = under.flatMap((outer) => within.get(outer) ?? [])
    if (isWithin(path, 'luo') && last && (last.ends || TERMINAL.includes(last.outcome)))
      outcomes.push(last.outcome)
    return { part, outcome: worst(outcomes) }
  })
}

/** Every path that a finding is within, with the worst that is found there: parts and findings may both be many. */
function outcomesWithin(reached: readonly Finding[]): ReadonlyMap<string, Outcome> {
  const outcomes = new Map<string, Outcome>()
  for (const { path, affects, outcome } of reached) {
    for (const outer of [path, ...affects].flatMap(pathsAround)) {
      const known = outcomes.get(outer)
      outcomes.set(outer, known === undefined ? outcome : worst([known, outcome]))
    }
  }
  return outcomes
}

interface PartPath {
  readonly part: string
  readonly path: string
  /** Paths whose findings are this part's. */
  readonly under: readonly string[]
}

/** What is not a component's own is the matter of KHO itself. */
const KHO_PATHS = ['kho', 'boot', 'scratch', 'preserved', 'subtrees']

function partPaths({ tree }: Handover): readonly PartPath[] {
  const parts: PartPath[] = [{ part: 'kho', path: 'kho', under: KHO_PATHS }]
  for (const { key, subtree } of components) {
    const node = child(tree, key)
    if (subtree === undefined || !node) continue
    parts.push({ part: subtree === 'LUO' ? 'luo' : subtree, path: key, under: [key] })
    for (const path of itemPaths(node, [key])) parts.push({ part: path, path, under: [path] })
  }
  return parts
}

/** The paths of regions, sessions and their files, FLBs. */
function* itemPaths(node: Node, path: Path): Generator<string> {
  for (const list of childrenOf(node)) {
    if (list.kind !== 'list') continue
    for (const item of itemsAt(node, list.segment as string)) {
      const itemPath = [...path, list.segment, item.segment]
      yield formatPath(itemPath)
      yield* itemPaths(item, itemPath)
    }
  }
}
