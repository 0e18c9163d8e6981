/** Does one step: finds what its verb means, and says what came of it, a dead kernel included. */
import type { ScenarioStep, StepVerb } from '../encode/scenario-steps.ts'
import { type Answer, type Failure, failed } from './answer.ts'
import { Blocked } from './blocked.ts'
import { type ContentOf, calls } from './timeline-calls.ts'
import { controls } from './timeline-control.ts'
import { done, type FoundOutcome, type StepResult } from './timeline-event.ts'
import { TimelineLimit, type TimelineMachine } from './timeline-machine.ts'
import { verbOf } from './timeline-words.ts'

/** Verbs that do not happen inside of the running kernel, or end it themselves. */
const OUTSIDE: ReadonlySet<StepVerb> = new Set(['boot', 'console', 'check', 'kexec'])

export function runStep(step: ScenarioStep, machine: TimelineMachine, contentOf: ContentOf): StepResult {
  const verb = verbOf(step)
  const { kernel } = machine
  try {
    if (OUTSIDE.has(verb)) return resultOf(act(verb, step, machine, contentOf))
    const answer = kernel.run(() => act(verb, step, machine, contentOf))
    return kernel.state === 'running' ? resultOf(answer) : machine.dead()
  } catch (error) {
    if (error instanceof TimelineLimit) return done([], [error.message])
    throw error
  }
}

type Act = (said: unknown, machine: TimelineMachine, contentOf: ContentOf) => Answer<unknown> | StepResult

function act(
  verb: StepVerb,
  step: ScenarioStep,
  machine: TimelineMachine,
  contentOf: ContentOf,
): Answer<unknown> | StepResult {
  const meaning = (calls[verb] ?? controls[verb]) as Act | undefined
  return meaning?.(step[verb], machine, contentOf)
}

function resultOf(answer: Answer<unknown> | StepResult): StepResult {
  if (answer instanceof Blocked) return { ...unlike(answer), because: answer.because }
  if (failed(answer)) return unlike(answer)
  return isResult(answer) ? answer : done()
}

/** It came to something else than `ok`. */
function unlike(answer: Failure): StepResult {
  return { outcome: outcomeOf(answer), wrong: [], facts: [] }
}

/** An error number without a name is told as one. */
function outcomeOf({ errno }: Failure): FoundOutcome {
  return typeof errno === 'number' ? `errno ${errno}` : errno
}

function isResult(answer: unknown): answer is StepResult {
  return typeof answer === 'object' && answer !== null && 'outcome' in answer
}
