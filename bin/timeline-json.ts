/**
 * A timeline's events as JSON: addresses as hex strings, integers of more than 53 bits, too; the keys are
 * described in docs/timelines.md.
 */
import { formatPath } from '../abi/fault.ts'
import { hex } from '../abi/memory.ts'
import type { Fact, StepEvent, TimelineResult } from '../simulate/timeline-event.ts'

/** Changes when a key changes. */
export const TIMELINE_SCHEMA = 'kho-inspect/timeline@1'

export interface TimelineImage {
  readonly file: string
  readonly from: string
  readonly to: string
}

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

export function timelineToJson(result: TimelineResult, images: readonly TimelineImage[]): Json {
  return {
    schema: TIMELINE_SCHEMA,
    ...(result.title !== undefined && { title: result.title }),
    release: result.release,
    as_expected: result.failure === undefined,
    ...(result.failure && { failed: result.failure.number }),
    kexecs: result.kexecs,
    steps: result.events.filter(({ verb }) => verb !== 'steps').map(eventToJson),
    images: images.map(({ file, from, to }) => ({ file, from, to })),
  }
}

function eventToJson(event: StepEvent): Json {
  return {
    number: event.number,
    path: formatPath(event.path),
    ...(event.title !== undefined && { title: event.title }),
    verb: event.verb,
    release: event.release,
    said: event.said,
    outcomes: event.outcomes.map(({ outcome, times }) => ({ outcome, times })),
    as_expected: event.wrong.length === 0,
    wrong: event.wrong,
    facts: event.facts.map(factToJson),
    console: event.console.map(({ level, text }) => ({ level, text })),
  }
}

function factToJson({ name, value, pa }: Fact): Json {
  return {
    name,
    ...(value !== undefined && { value: typeof value === 'bigint' ? integer(value) : value }),
    ...(pa !== undefined && { pa: hex(pa) }),
  }
}

function integer(value: bigint): Json {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : hex(value)
}
