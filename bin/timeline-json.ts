/**
 * A timeline's events as JSON: addresses as hex strings, integers of more than 53 bits, too; text without
 * what a terminal must not get. The keys are described in docs/timelines.md.
 */
import { formatPath } from '../abi/fault.ts'
import { hex } from '../abi/memory.ts'
import { printable } from '../inspect/text.ts'
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
    ...(result.title !== undefined && { title: printable(result.title) }),
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
    path: printable(formatPath(event.path)),
    ...(event.title !== undefined && { title: printable(event.title) }),
    verb: event.verb,
    release: event.release,
    said: printable(event.said),
    outcomes: event.outcomes.map(({ outcome, times }) => ({ outcome, times })),
    as_expected: event.wrong.length === 0,
    wrong: event.wrong.map(printable),
    facts: event.facts.map(factToJson),
    console: event.console.map(({ level, text }) => ({ level, text: printable(text) })),
  }
}

function factToJson({ name, value, pa }: Fact): Json {
  return {
    name: printable(name),
    ...(value !== undefined && { value: plain(value) }),
    ...(pa !== undefined && { pa: hex(pa) }),
  }
}

function plain(value: string | number | bigint): Json {
  if (typeof value === 'string') return printable(value)
  if (typeof value === 'number') return value
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : hex(value)
}
