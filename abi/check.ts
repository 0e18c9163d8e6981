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

/** The level at which the kernel logs. */
export type LogLevel = 'emerg' | 'err' | 'warn' | 'notice' | 'info' | 'debug'

/** The first and last release that does so. */
export interface Span {
  readonly since: string
  readonly until?: string
}

export interface Check extends Span {
  /** Stable; a check whose text changed between releases has one entry for each. */
  readonly id: string
  readonly component: ComponentName
  /** Node, `node:property`, or `struct.field`, as in the declaration. */
  readonly at: string
  readonly demand: Demand
  readonly doc: string
  /** The kernel's format string, without prefix and time stamp. */
  readonly message?: string
  /** Level of the message, a warning if left out. */
  readonly level?: LogLevel
  readonly errno?: string
  readonly outcome: Outcome
  /** The kernel function that checks. */
  readonly by: string
}

/** Whether a release makes a check, or says a line. */
export function appliesTo({ since, until }: Span, release: string): boolean {
  const index = releaseIndex(release)
  const last = until === undefined ? Number.POSITIVE_INFINITY : releaseIndex(until)
  return releaseIndex(since) <= index && index <= last
}

/** The worst of several outcomes. */
export function worst(outcomes: readonly Outcome[]): Outcome {
  return OUTCOMES[Math.max(0, ...outcomes.map((outcome) => OUTCOMES.indexOf(outcome)))] as Outcome
}
