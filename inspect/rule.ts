/**
 * One rule of the validator: what must hold of a handover, which kernel function makes the check or
 * omits it, and what becomes of the handover where it does not hold.
 */
import type { Check, Outcome } from '../abi/check.ts'
import type { FormatArgument } from '../abi/console.ts'
import { checks } from '../abi/consumer.ts'
import { type Hop, invariant, type Severity } from '../abi/fault.ts'
import type { PhysAddr } from '../abi/memory.ts'
import { type ComponentName, releaseIndex } from '../abi/registry.ts'
import type { Subject } from './subject.ts'

/** `refuses`: the kernel's own check fails. `silent`: no kernel checks it. `note`: nothing is wrong, or nothing can be said. */
export type RuleKind = 'refuses' | 'silent' | 'note'

/** When a booting kernel comes to it; what stops the kernel at one stage keeps it from all later ones. */
export type Stage =
  /** kho_populate() in setup_arch(). */
  | 'populate'
  /** Going through the pages of the map; from 7.3 on a first time before the command line is read. */
  | 'walk'
  /** Reserving the units that the map lists. */
  | 'map'
  /** reserve_mem= on the command line. */
  | 'reserve-mem'
  /** luo_early_startup(). */
  | 'luo'
  /** kexec-metadata, then what test modules and other subsystems retrieve. */
  | 'initcalls'
  /** The first open of /dev/liveupdate. */
  | 'open'
  /** Retrieving and finishing what the sessions hold. */
  | 'retrieve'

/** A line of console.ts by its id, and what its conversions are filled with. */
export type FurtherLine = readonly [id: string, ...values: FormatArgument[]]

/** One place in a handover where a rule does not hold. */
export interface Violation {
  /** As `formatPath` prints it. */
  readonly path: string
  /** Where the offending bytes are, and how many. */
  readonly pa: PhysAddr
  readonly length: number
  readonly message: string
  readonly expected?: string
  readonly found?: string
  /** The pointers that led there. */
  readonly via?: readonly Hop[]
  /** Instead of the rule's own. */
  readonly outcome?: Outcome
  readonly severity?: Severity
  /** Where it comes up at another time than the rule's other violations. */
  readonly stage?: Stage
  /** Paths of further parts (`luo.sessions[a].files[0x1]`) that it harms, beside the one that holds `path`. */
  readonly affects?: readonly string[]
  /** Position within the stage, for what is done one after the other: sessions, files. */
  readonly step?: number
  /** Arguments of the line that the kernel logs; nothing is logged where there are none. */
  readonly log?: readonly FormatArgument[]
  /** Lines that others log on account of it, after that of the check. */
  readonly further?: readonly FurtherLine[]
  /** The kernel does not survive it: nothing comes after it. */
  readonly ends?: boolean
  /** Where the check is made in several places (`Check.at`), in which of them. */
  readonly at?: string
  /** Below this path nothing is judged by rules that require this one; `path` where it is not told. */
  readonly hides?: string
}

export interface Rule {
  /** Stable; never used again for anything else. That of the kernel's check where there is one. */
  readonly id: string
  readonly component: ComponentName
  readonly kind: RuleKind
  readonly severity: Severity
  /** First and last release for which it holds. */
  readonly since: string
  readonly until?: string
  /** Rules without which this one means nothing: below a place where one of them fails it is not judged. */
  readonly requires: readonly string[]
  /** One sentence, naming what the kernel does. */
  readonly why: string
  /** The kernel function that checks or omits to. */
  readonly source: string
  readonly outcome: Outcome
  readonly stage: Stage
  /** Only for what no other rule speaks of: the places of other findings are left out. */
  readonly isRest?: boolean
  readonly check: (subject: Subject) => Iterable<Violation>
}

/** What is told of a rule that the declarations do not tell already. */
interface RefusalOf {
  readonly id: string
  readonly stage: Stage
  readonly requires?: readonly string[]
  readonly severity?: Severity
  readonly check: Rule['check']
}

/** A rule whose facts are those of the kernel's own check. */
export function refuses({ id, stage, requires = [], severity = 'error', check }: RefusalOf): Rule {
  const entries = checks.filter((candidate) => candidate.id === id)
  const [first] = entries
  invariant(first, `no check ${id}`)
  const last = entries.at(-1) as Check
  const { component, doc, by, outcome } = last
  const until = entries.some((entry) => entry.until === undefined) ? undefined : last.until
  const since = entries.reduce((a, b) => (releaseIndex(a.since) <= releaseIndex(b.since) ? a : b)).since
  const told = { id, component, severity, since, requires, stage, check, outcome, source: by, why: doc }
  return { ...told, kind: 'refuses', ...(until !== undefined && { until }) }
}

/** Something that no kernel notices. */
export function silent(
  told: Omit<Rule, 'kind' | 'requires' | 'severity'> & Partial<Pick<Rule, 'requires' | 'severity'>>,
): Rule {
  return { requires: [], severity: 'error', ...told, kind: 'silent' }
}

/** Something worth knowing that changes nothing. */
export function note(
  told: Omit<Rule, 'kind' | 'requires' | 'severity' | 'outcome'> & Partial<Pick<Rule, 'requires'>>,
): Rule {
  return { requires: [], ...told, severity: 'note', kind: 'note', outcome: 'takes-over' }
}
