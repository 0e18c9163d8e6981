/** Timelines of fixtures/timelines: read, run, and with their expectations turned around one by one. */
import { readdirSync, readFileSync } from 'node:fs'
import { phys } from '../../abi/memory.ts'
import type { ScenarioStep } from '../../encode/scenario-steps.ts'
import {
  type ReadTimeline,
  readTimeline,
  type Timeline,
  type TimelineOptions,
} from '../../encode/timeline.ts'
import type { TimelineStep } from '../../encode/timeline-step.ts'
import { decodeHandover } from '../../inspect/decode.ts'
import { findNode } from '../../inspect/tree.ts'
import { simulatedReleases } from '../../simulate/release.ts'
import { runTimeline, type TimelineHooks } from '../../simulate/timeline.ts'
import type { TimelineResult } from '../../simulate/timeline-event.ts'
import { ROOT } from './images.ts'

const FOLDER = `${ROOT}fixtures/timelines/`

export const timelineNames: readonly string[] = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.yaml'))
  .map((file) => file.slice(0, -'.yaml'.length))

export function timelineText(name: string): string {
  return readFileSync(`${FOLDER}${name}.yaml`, 'utf8')
}

export async function read(text: string, options: Partial<TimelineOptions> = {}): Promise<ReadTimeline> {
  const result = await readTimeline(text, { simulated: simulatedReleases, ...options })
  if (result.ok) return result
  throw new Error(result.problems.map(({ path, message }) => `${path}: ${message}`).join('\n'))
}

export function run(timeline: Timeline, hooks: TimelineHooks = {}): TimelineResult {
  return runTimeline(timeline, { locate, ...hooks })
}

export async function runText(
  text: string,
  options: Partial<TimelineOptions> = {},
  hooks: TimelineHooks = {},
): Promise<TimelineResult> {
  return run((await read(text, options)).timeline, hooks)
}

const locate: NonNullable<TimelineHooks['locate']> = (memory, boot, path) => {
  const found = findNode(decodeHandover(memory, phys(boot.fdt_addr), { boot }).tree, path)
  return 'problem' in found ? found : { pa: found.node.pa, length: found.node.length }
}

/** The timeline with one expectation turned around, and the number of the step that has to fail for it. */
export interface BrokenTimeline {
  readonly number: string
  readonly what: string
  readonly timeline: Timeline
}

/** One for each thing that a step of the timeline expects. */
export function* broken(timeline: Timeline): Generator<BrokenTimeline> {
  for (const { number, what, steps } of brokenSteps(timeline.steps, '')) {
    yield { number, what, timeline: { ...timeline, steps } }
  }
}

function* brokenSteps(
  steps: readonly TimelineStep[],
  prefix: string,
): Generator<{ readonly number: string; readonly what: string; readonly steps: readonly TimelineStep[] }> {
  for (const [index, entry] of steps.entries()) {
    const number = `${prefix}${index + 1}`
    const replaced = (step: TimelineStep): readonly TimelineStep[] => steps.with(index, step)
    if (entry.group) {
      const inner = (entry.step.repeat ?? 1) > 1 ? `${number}[0].` : `${number}.`
      for (const one of brokenSteps(entry.group, inner)) {
        yield { ...one, steps: replaced({ ...entry, group: one.steps }) }
      }
      continue
    }
    for (const { what, step } of otherExpectations(entry.step)) {
      yield { number, what, steps: replaced({ ...entry, step }) }
    }
  }
}

function* otherExpectations(
  step: ScenarioStep,
): Generator<{ readonly what: string; readonly step: ScenarioStep }> {
  const { verify, console, check, get_name, flb } = step
  yield { what: 'the outcome', step: { ...step, expect: { every: step.expect ? 'EINTR' : 'ENOTTY' } } }
  if (verify?.size !== undefined)
    yield { what: 'the size', step: { ...step, verify: { ...verify, size: verify.size + 1n } } }
  if (verify?.position !== undefined) {
    yield { what: 'the position', step: { ...step, verify: { ...verify, position: verify.position + 1n } } }
  }
  if (verify?.seals) {
    yield { what: 'the seals', step: { ...step, verify: { ...verify, seals: { every: ['seal', 'exec'] } } } }
  }
  if (verify?.mode) yield { what: 'the mode', step: { ...step, verify: { ...verify, mode: '100644' } } }
  if (console?.has) yield { what: 'the line', step: { ...step, console: { has: ['no kernel says so'] } } }
  if (console?.lacks) yield { what: 'no line', step: { ...step, console: { lacks: ['KHO'] } } }
  if (check?.panic !== undefined) {
    yield { what: 'the last words', step: { ...step, check: { panic: 'no kernel says so' } } }
  }
  for (const key of ['alive', 'took_over'] as const) {
    if (check?.[key] !== undefined) yield { what: key, step: { ...step, check: { [key]: !check[key] } } }
  }
  if (check?.state !== undefined) {
    const state = check.state === 'normal' ? 'frozen' : 'normal'
    yield { what: 'the state', step: { ...step, check: { state } } }
  }
  if (check?.preserved !== undefined) {
    yield { what: 'what is preserved', step: { ...step, check: { preserved: check.preserved + 1n } } }
  }
  if (get_name?.is !== undefined)
    yield { what: 'the name', step: { ...step, get_name: { ...get_name, is: 'z' } } }
  if (flb?.data !== undefined)
    yield { what: 'the data', step: { ...step, flb: { ...flb, data: flb.data + 1n } } }
}
