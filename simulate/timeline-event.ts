/** What happened in a timeline, step by step: what every rendering and every test works from. */
import type { Path } from '../abi/fault.ts'
import type { PhysAddr } from '../abi/memory.ts'
import type { StepOutcome, StepVerb } from '../encode/scenario-steps.ts'
import type { LogLine } from './core.ts'

/** Something that was found out: `size` 10000, `memfd_luo_ser` at an address. */
export interface Fact {
  readonly name: string
  readonly value?: string | number | bigint
  /** The value is a size. */
  readonly isBytes?: true
  readonly pa?: PhysAddr
}

/** What a step can come to; numbers are errors that have no name. */
export type FoundOutcome = StepOutcome | `errno ${number}`

/** What came of a step's repetitions: so many times this. */
export interface OutcomeCount {
  readonly outcome: FoundOutcome
  readonly times: number
}

export interface StepEvent {
  /** `12`, and inside of a group `12.3`; in a repeated one `12[4].3`. */
  readonly number: string
  readonly path: Path
  readonly verb: StepVerb
  readonly title: string | undefined
  /** Depth of groups around it. */
  readonly depth: number
  /** Repetition of the innermost group around it. */
  readonly repetition: number
  /** The kernel that ran when the step began. */
  readonly release: string
  /** `create_session vm-alpha` */
  readonly said: string
  readonly outcomes: readonly OutcomeCount[]
  /** What was expected and did not come; none, and all is well. */
  readonly wrong: readonly string[]
  /** As expected, although it is not `ok`. */
  readonly expectedOther: boolean
  readonly facts: readonly Fact[]
  /** What the kernel logged meanwhile; of a kexec, what the next one did. */
  readonly console: readonly LogLine[]
}

export interface TimelineResult {
  readonly title: string | undefined
  readonly release: string
  readonly events: readonly StepEvent[]
  /** The first step that did not go as expected; undefined if all did. */
  readonly failure: StepEvent | undefined
  readonly kexecs: number
}

/** What came of one repetition of a step. */
export interface StepResult {
  readonly outcome: FoundOutcome
  /** What was looked at and is not as it should be. */
  readonly wrong: readonly string[]
  readonly facts: readonly Fact[]
  /** Why it came to this, where the outcome alone does not say. */
  readonly because?: string
  /** For what happens later: whether it is still to come. */
  readonly isToCome?: () => boolean
}

/** It was done; what was looked at may be wrong all the same. */
export function done(facts: readonly Fact[] = [], wrong: readonly string[] = []): StepResult {
  return { outcome: 'ok', facts, wrong }
}
