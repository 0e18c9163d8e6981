/** What a step says on a release and in a repetition: its names with their numbers, its tokens counted up, its contents with other seeds. */
import { releaseFor, releaseIndex } from '../abi/registry.ts'
import type { Content } from '../encode/handover.ts'
import type { ByRelease, ScenarioStep } from '../encode/scenario-steps.ts'
import { numbered, type Repetition, type TimelineStep } from '../encode/timeline-step.ts'

/** The step as this repetition of it says it. */
export function repeatedStep(step: ScenarioStep, repetition: Repetition): ScenarioStep {
  const named = withNumbers(step, repetition) as ScenarioStep
  if (step.repeat === undefined) return named
  const plus = BigInt(repetition.n)
  const { preserve, retrieve } = named
  return {
    ...named,
    ...(preserve && { preserve: { ...preserve, token: preserve.token + plus } }),
    ...(retrieve && { retrieve: { ...retrieve, token: retrieve.token + plus } }),
  }
}

/** The step as the log shows it: only what the group around it numbers is filled in. */
export function shownStep(step: ScenarioStep, outer: number): ScenarioStep {
  return step.repeat === undefined ? repeatedStep(step, { n: outer, outer }) : step
}

/** Texts with their numbers; contents, which are known by their identity, and inner steps stay. */
function withNumbers(value: unknown, repetition: Repetition): unknown {
  if (typeof value === 'string') return numbered(value, repetition)
  if (Array.isArray(value)) return value.map((one) => withNumbers(one, repetition))
  if (typeof value !== 'object' || value === null || isOpaque(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [
      key,
      key === 'content' || key === 'steps' ? one : withNumbers(one, repetition),
    ]),
  )
}

function isOpaque(value: object): boolean {
  return value instanceof Uint8Array || value instanceof Map
}

/** By how much seeds are moved on. */
export function seedOffset({ step, countsGroup }: TimelineStep, { n, outer }: Repetition): bigint {
  const own = step.repeat === undefined ? 0 : n
  return BigInt(own + (countsGroup ? outer : 0))
}

/** Contents with seeds and marking words moved on. */
export function movedContent(content: Content, by: bigint): Content {
  if (by === 0n || content instanceof Uint8Array || 'byte' in content) return content
  const moved = (value: bigint): bigint => BigInt.asUintN(64, value + by)
  if ('seed' in content) return { ...content, seed: moved(content.seed) }
  if ('word' in content) return { ...content, word: moved(content.word) }
  return content.map((part) => ({ ...part, content: movedContent(part.content, by) as typeof part.content }))
}

/** The value for a release: that of the last release before it that has one. */
export function byRelease<T>(value: ByRelease<T>, release: string): T | undefined {
  if ('every' in value) return value.every
  const index = releaseIndex(release)
  const known = [...value.since].filter(([since]) => releaseIndex(since) <= index)
  return known.sort(([a], [b]) => releaseIndex(a) - releaseIndex(b)).at(-1)?.[1]
}

/** Whether a step is done on a release. */
export function isFor({ only }: ScenarioStep, release: string): boolean {
  const indexOf = (name: string): number => releaseIndex(releaseFor(name)?.name ?? release)
  const index = releaseIndex(release)
  if (only?.since !== undefined && index < indexOf(only.since)) return false
  return only?.until === undefined || index <= indexOf(only.until)
}
