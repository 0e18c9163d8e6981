/**
 * One check of the next kernel's readers, and what becomes of a handover that fails it.
 *
 * That a declared node, property or field is there and has its declared layout is said by the
 * declarations; a check says what the kernel does when it is not.
 */
import type { ComponentName } from './registry.ts'
import { releaseIndex } from './registry.ts'

/** What becomes of a handover, from best to worst. */
export const OUTCOMES = ['takes-over', 'loses', 'device-fails', 'no-handover', 'panics', 'corrupts'] as const
export type Outcome = (typeof OUTCOMES)[number]

export type Demand =
  /** The version is the one that this reader knows. */
  | 'contract'
  /** It is there and has the declared length. */
  | 'present'
  /** It is not zero. */
  | 'non-zero'
  /** It holds for the value, by a rule of its own. */
  | 'value'

export interface Check {
  /** Stable; a check whose text changed between releases has one entry for each. */
  readonly id: string
  readonly component: ComponentName
  /** Node, `node:property`, or `struct.field`, as in the declaration. */
  readonly at: string
  readonly demand: Demand
  readonly doc: string
  /** First and last release that checks so. */
  readonly since: string
  readonly until?: string
  /** The kernel's format string, without prefix and time stamp. */
  readonly message?: string
  readonly errno?: string
  readonly outcome: Outcome
  /** The kernel function that checks. */
  readonly by: string
}

/** Whether a release makes a check. */
export function appliesTo(check: Check, release: string): boolean {
  const index = releaseIndex(release)
  const last = check.until === undefined ? Number.POSITIVE_INFINITY : releaseIndex(check.until)
  return releaseIndex(check.since) <= index && index <= last
}

/** The worst of several outcomes. */
export function worst(outcomes: readonly Outcome[]): Outcome {
  return OUTCOMES[Math.max(0, ...outcomes.map((outcome) => OUTCOMES.indexOf(outcome)))] as Outcome
}
