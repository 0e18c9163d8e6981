/** One step of a timeline with its place in the scenario, and the numbers in its names. */
import type { Path } from '../abi/fault.ts'
import type { ScenarioStep } from './scenario-steps.ts'

export interface TimelineStep {
  readonly step: ScenarioStep
  /** Where in the scenario it comes from. */
  readonly path: Path
  /** The steps of a group. */
  readonly group?: readonly TimelineStep[]
  /** Seeds of its contents count the repetitions of the group around it, too. */
  readonly countsGroup?: true
}

/** All steps in order, those in groups behind their group. */
export function* eachStep(steps: readonly TimelineStep[]): Generator<TimelineStep> {
  for (const step of steps) {
    yield step
    yield* eachStep(step.group ?? [])
  }
}

/** Which repetition it is: of the step itself if it is repeated, else of the group around it. */
export interface Repetition {
  readonly n: number
  /** Of the group around it. */
  readonly outer: number
}

/** `{n}`, `{outer}`; `{n+1}` counts from 1; `{n:03}` has three digits. */
const NUMBER = /\{(n|outer)(?:\+(\d{1,15}))?(?::0(\d{1,2}))?\}/g

export function numbered(text: string, repetition: Repetition): string {
  return text.replaceAll(NUMBER, (_, which: 'n' | 'outer', plus = '0', width = '0') =>
    String(repetition[which] + Number(plus)).padStart(Number(width), '0'),
  )
}

/** What a file is called that no step names: by session and token. */
export function fileName(session: string, token: bigint): string {
  return `${session}/${token}`
}

/** `vm-alpha/0x1` is `vm-alpha/1`. */
export function canonicalName(name: string): string {
  const [, session, token] = /^(.*)\/(0[xX][0-9a-fA-F]+|\d+)$/s.exec(name) ?? []
  return session === undefined || token === undefined ? name : fileName(session, BigInt(token))
}

/** A pattern of all names that a text with numbers can become, for names that have to be known. */
export function namePattern(text: string): RegExp {
  const parts = text.split(/\{(?:n|outer)(?:\+\d{1,15})?(?::0\d{1,2})?\}/)
  return new RegExp(
    `^${parts.map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('\\d+')}$`,
    's',
  )
}
