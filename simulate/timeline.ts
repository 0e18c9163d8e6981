/**
 * Runs a timeline on a simulated machine: step after step, each held against what is expected of it.
 *
 * Pure: what it shows, saves or looks up goes through hooks.
 */
import type { StepExpectation, StepOutcome, StepVerb } from '../encode/scenario-steps.ts'
import type { Timeline } from '../encode/timeline.ts'
import type { Repetition, TimelineStep } from '../encode/timeline-step.ts'
import type { Fact, OutcomeCount, StepEvent, StepResult, TimelineResult } from './timeline-event.ts'
import { type MachineHooks, TimelineMachine } from './timeline-machine.ts'
import { byRelease, isFor, movedContent, repeatedStep, seedOffset, shownStep } from './timeline-repeat.ts'
import { runStep } from './timeline-verbs.ts'
import { describeStep, verbOf } from './timeline-words.ts'

export interface TimelineHooks extends MachineHooks {
  /** Called after each step. */
  readonly onStep?: (event: StepEvent) => void
  /** Goes on after a step that did not go as expected. */
  readonly keepGoing?: boolean
}

export function runTimeline(timeline: Timeline, hooks: TimelineHooks = {}): TimelineResult {
  const run = new Run(timeline, hooks)
  if (run.firstBoot() && run.all(timeline.steps, { number: '', depth: 0, repetition: 0 })) run.lookBack()
  return run.result()
}

/** Where in groups a step is. */
interface Place {
  /** `5[2].` before the numbers of the steps inside. */
  readonly number: string
  readonly depth: number
  readonly repetition: number
}

class Run {
  readonly #timeline: Timeline
  readonly #hooks: TimelineHooks
  readonly #machine: TimelineMachine
  readonly #events: StepEvent[] = []
  /** Steps whose effect comes later, by their events' places. */
  readonly #toCome = new Map<number, () => boolean>()
  #failure: StepEvent | undefined

  constructor(timeline: Timeline, hooks: TimelineHooks) {
    this.#timeline = timeline
    this.#hooks = hooks
    this.#machine = new TimelineMachine(timeline, hooks)
  }

  result(): TimelineResult {
    const { title, release } = this.#timeline
    return {
      title,
      release,
      events: this.#events,
      failure: this.#failure,
      kexecs: this.#machine.kexecs,
    }
  }

  /** The cold boot before the first step. */
  firstBoot(): boolean {
    const { kernel, release } = this.#machine
    const boot = { path: [], step: { boot: {} } }
    const isDead = kernel.state !== 'running'
    return this.#show({
      ...this.#event(boot, 'boot', `boot ${release}`, { number: '0', depth: 0, repetition: 0 }, release),
      outcomes: [{ outcome: isDead ? 'panic' : 'ok', times: 1 }],
      wrong: isDead ? [`expected ok, found panic (${this.#machine.lastWords})`] : [],
      console: this.#machine.newLines(),
    })
  }

  /** Whether all went as far as it should. */
  all(steps: readonly TimelineStep[], place: Place): boolean {
    for (const [index, step] of steps.entries()) {
      if (!isFor(step.step, this.#machine.release)) continue
      const number = `${place.number}${index + 1}`
      const goesOn = step.group
        ? this.#group(step, step.group, { ...place, number })
        : this.#step(step, { ...place, number })
      if (!goesOn) return false
    }
    return true
  }

  /** What was to go wrong and never did makes its step one that did not go as expected. */
  lookBack(): void {
    for (const [at, isToCome] of this.#toCome) {
      const event = this.#events[at]
      if (!event || !isToCome()) continue
      const wrong = [...event.wrong, 'expected it to take effect before the timeline ends, and it did not']
      this.#events[at] = { ...event, wrong }
      this.#failure ??= this.#events[at]
      this.#hooks.onStep?.(this.#events[at])
    }
  }

  #group(step: TimelineStep, group: readonly TimelineStep[], place: Place): boolean {
    const times = step.step.repeat ?? 1
    const said = times > 1 ? `${times} times` : ''
    this.#show(this.#event(step, 'steps', said, place, this.#machine.release))
    for (let n = 0; n < times; n++) {
      const number = times > 1 ? `${place.number}[${n}].` : `${place.number}.`
      if (!this.all(group, { number, depth: place.depth + 1, repetition: n })) return false
    }
    return true
  }

  #step(entry: TimelineStep, place: Place): boolean {
    const { step } = entry
    const verb = verbOf(step)
    const release = this.#machine.release
    const expected = step.expect ? byRelease(step.expect, release) : undefined
    const tally = new Tally(expected ?? 'ok', step.repeat ?? 1)
    for (let n = 0; n < (step.repeat ?? 1) && tally.goesOn; n++) {
      tally.add(
        this.#once(entry, { n: step.repeat === undefined ? place.repetition : n, outer: place.repetition }),
      )
    }
    const said = describeStep(shownStep(step, place.repetition), release)
    if (tally.isToCome) this.#toCome.set(this.#events.length, tally.isToCome)
    return this.#show({
      ...this.#event(entry, verb, said, place, release),
      outcomes: tally.outcomes,
      wrong: tally.wrong(),
      expectedOther: tally.outcomes.some(({ outcome }) => outcome !== 'ok'),
      facts: tally.facts,
      console: this.#machine.newLines(),
    })
  }

  #once(entry: TimelineStep, repetition: Repetition): StepResult {
    const step = repeatedStep(entry.step, repetition)
    const offset = seedOffset(entry, repetition)
    return runStep(step, this.#machine, (pieces) => {
      const content = pieces && this.#timeline.contents.get(pieces)
      return content && movedContent(content, offset)
    })
  }

  #event(
    { step, path }: TimelineStep,
    verb: StepVerb,
    said: string,
    { number, depth, repetition }: Place,
    release: string,
  ): StepEvent {
    const none = { outcomes: [], wrong: [], expectedOther: false, facts: [], console: [] }
    return { number, path, verb, title: step.title, depth, repetition, release, said, ...none }
  }

  /** Whether the timeline goes on behind it. */
  #show(event: StepEvent): boolean {
    this.#events.push(event)
    this.#hooks.onStep?.(event)
    if (event.wrong.length === 0) return true
    this.#failure ??= event
    return this.#hooks.keepGoing === true
  }
}

/** What came of the repetitions of one step, against what was expected of them. */
class Tally {
  readonly #expected: StepExpectation
  readonly #repeat: number
  readonly outcomes: OutcomeCount[] = []
  readonly facts: Fact[] = []
  /** Of the last repetition, if its effect comes later. */
  isToCome: (() => boolean) | undefined
  readonly #wrong: string[] = []
  #done = 0
  #isOver = false

  constructor(expected: StepExpectation, repeat: number) {
    this.#expected = expected
    this.#repeat = repeat
  }

  get goesOn(): boolean {
    return !this.#isOver
  }

  add({ outcome, wrong, facts, because, isToCome }: StepResult): void {
    this.isToCome = isToCome
    const last = this.outcomes.at(-1)
    if (last?.outcome === outcome)
      this.outcomes[this.outcomes.length - 1] = { outcome, times: last.times + 1 }
    else this.outcomes.push({ outcome, times: 1 })
    const expected = this.#now
    const which = this.#repeat > 1 ? `repetition ${this.#done}: ` : ''
    const why = because === undefined ? '' : ` (${because})`
    this.#wrong.push(...wrong.map((message) => `${which}${message}`))
    if (wrong.length === 0 && outcome !== expected) {
      this.#wrong.push(`${which}expected ${expected}, found ${outcome}${why}`)
    }
    if (this.#repeat === 1) this.facts.push(...facts)
    this.#done++
    const isLast = typeof this.#expected === 'object' && this.#done > this.#expected.ok
    this.#isOver = isLast || this.#wrong.length > 0
  }

  wrong(): readonly string[] {
    if (this.#wrong.length > 0 || typeof this.#expected !== 'object') return this.#wrong
    const { ok, next } = this.#expected
    if (this.#done > ok) return []
    return [`expected ${ok} times ok, then ${next}; found ${this.#done} times ok`]
  }

  get #now(): StepOutcome {
    if (typeof this.#expected !== 'object') return this.#expected
    return this.#done < this.#expected.ok ? 'ok' : this.#expected.next
  }
}
