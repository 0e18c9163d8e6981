/**
 * Timelines: a scenario as a machine and what is done on it, step after step. Where a scenario has no
 * steps, these are its own: what it declares is made through calls, handed over, taken back and looked at.
 *
 * What can be known to be wrong before anything runs is refused here, with line, column and path.
 */
import type { Path } from '../abi/fault.ts'
import { LIVEUPDATE_TEST_FLBS } from '../abi/liveupdate-test.ts'
import type { PhysRange } from '../abi/memory.ts'
import { releaseFor } from '../abi/registry.ts'
import type { Content } from './handover.ts'
import { type RefusedScenario, readScenario, type ScenarioOptions } from './scenario.ts'
import { type ContentContext, contentOf } from './scenario-content.ts'
import { documentOfScenario } from './scenario-document.ts'
import type { ScenarioContent } from './scenario-file-schema.ts'
import { listOf, type MachineOptions, type ScenarioMachine } from './scenario-machine.ts'
import { ramOf } from './scenario-ram.ts'
import type { Scenario } from './scenario-schema.ts'
import type { ScenarioStep } from './scenario-steps.ts'
import { checkSteps } from './timeline-check.ts'
import { stepsOfScenario } from './timeline-declared.ts'
import { eachStep, type TimelineStep } from './timeline-step.ts'

export interface TimelineOptions extends ScenarioOptions {
  /** Names of the releases that can be simulated. */
  readonly simulated: readonly string[]
}

/** A region of reserve_mem, asked for by every kernel's command line. */
export interface TimelineRegion {
  readonly name: string
  readonly size: bigint
  readonly align: bigint
  readonly content: Content | undefined
}

export interface TimelineFlb {
  readonly name: string
  readonly data: bigint
  /** All file handlers, if undefined. */
  readonly handlers: readonly string[] | undefined
}

export interface Timeline {
  readonly title: string | undefined
  readonly release: string
  readonly arch: ScenarioMachine['arch']
  readonly target: ScenarioMachine['target']
  readonly ram: readonly PhysRange[]
  /** Bytes of the scratch areas: low memory, any use, one for each node. */
  readonly scratch: readonly bigint[] | undefined
  readonly liveupdate: boolean
  readonly regions: readonly TimelineRegion[]
  readonly flbs: readonly TimelineFlb[]
  /** Version strings of the file handlers besides memfd's. */
  readonly handlers: readonly string[]
  readonly steps: readonly TimelineStep[]
  /** What the contents in steps are. */
  readonly contents: ReadonlyMap<ScenarioContent, Content>
}

export interface ReadTimeline {
  readonly ok: true
  readonly timeline: Timeline
  /** Where a step stands in the text. */
  readonly placeOf: (path: Path) => { readonly line: number; readonly column: number }
}

/** Keys that say what is there at the handover: steps make it instead. */
const DECLARED = [
  'versions',
  'kexec_metadata',
  'liveupdate_number',
  'sessions',
  'kho_test',
  'subtrees',
  'preserved',
] as const

/** What the simulated kernel has no way to be told. */
const NOT_SIMULATED = [
  'versions',
  'kexec_metadata',
  'liveupdate_number',
  'kho_test',
  'subtrees',
  'preserved',
] as const

/** Reads a timeline's text. Never throws on account of the text. */
export async function readTimeline(
  text: string,
  options: TimelineOptions,
): Promise<ReadTimeline | RefusedScenario> {
  return readScenario(text, options, (scenario, machine, context, placeOf) => {
    const timeline = timelineOf(scenario, machine, context, options)
    return timeline && { ok: true, timeline, placeOf: (path) => placeOf(path, 'value') }
  })
}

function timelineOf(
  scenario: Scenario,
  machine: ScenarioMachine,
  context: ContentContext,
  { simulated }: TimelineOptions & MachineOptions,
): Timeline | undefined {
  const { report } = context
  const { release } = machine
  for (const key of scenario.steps ? DECLARED : NOT_SIMULATED) {
    if (scenario[key] === undefined) continue
    const reason = scenario.steps ? 'steps make what is handed over' : 'the simulated kernel makes its own'
    report.wrong([key], `expected none of it in a simulation: ${reason}`)
  }
  if (!release) return undefined
  if (!simulated.includes(release.name)) {
    return report.wrong(
      ['release'],
      `${release.name} is not simulated; expected one of ${simulated.join(', ')}`,
    )
  }
  const ram = ramOf(scenario.ram, machine, report)
  if (!ram || !report.empty) return undefined
  if (!scenario.steps && !documentOfScenario(scenario, machine, context)) return undefined
  const steps = scenario.steps ? stepsAt(scenario.steps, ['steps']) : stepsOfScenario(scenario, machine)
  const regions = regionsOf(scenario, machine, context)
  checkSteps(steps, { regions: regions.map(({ name }) => name), simulated, report })
  const contents = contentsOf(steps, context)
  return {
    title: scenario.title,
    release: release.name,
    arch: machine.arch,
    target: machine.target,
    ram: ram.ranges,
    scratch: scratchOf(scenario, context),
    liveupdate: scenario.liveupdate ?? true,
    regions,
    flbs: flbsOf(scenario, machine, context),
    handlers: handlersOf(scenario, steps),
    steps,
    contents,
  }
}

/** Steps with their places. */
function stepsAt(steps: readonly ScenarioStep[], path: Path): readonly TimelineStep[] {
  return steps.map((step, index) => {
    const at = [...path, { index }]
    return { step, path: at, ...(step.steps && { group: stepsAt(step.steps, [...at, 'steps']) }) }
  })
}

function scratchOf({ scratch }: Scenario, { report }: ContentContext): readonly bigint[] | undefined {
  for (const [index, { start }] of (scratch ?? []).entries()) {
    if (start === undefined) continue
    report.wrong(
      ['scratch', { index }, 'start'],
      'the simulated kernel chooses the place; expected size alone',
    )
  }
  return scratch?.map(({ size }) => size)
}

function regionsOf(
  { reserve_mem: regions = [] }: Scenario,
  { target }: ScenarioMachine,
  context: ContentContext,
): readonly TimelineRegion[] {
  return regions.map(({ name, size, align, start, content }, index) => {
    const path: Path = ['reserve_mem', { index }]
    if (start !== undefined) {
      context.report.wrong([...path, 'start'], 'the simulated kernel chooses the place; expected none')
    }
    const place = { length: size, into: 'the region' }
    return {
      name,
      size,
      align: align ?? BigInt(target.pageSize),
      content: contentOf(content, place, [...path, 'content'], context),
    }
  })
}

function flbsOf(
  scenario: Scenario,
  machine: ScenarioMachine,
  { report }: ContentContext,
): readonly TimelineFlb[] {
  const own = (scenario.flbs ?? []).map(({ name, data, handlers, count }, index): TimelineFlb => {
    if (count !== undefined) {
      report.wrong(['flbs', { index }, 'count'], 'the simulated kernel counts itself; expected none')
    }
    if (typeof name === 'string') return { name, data, handlers }
    report.wrong(['flbs', { index }, 'name'], 'a driver registers FLBs by text; expected text')
    return { name: '', data, handlers }
  })
  if (own.length > 0 && !listOf(machine, 'luo', 'flbs')) {
    report.absent(['flbs'], `${machine.label} has no FLBs; Linux 7.0 and later do`)
  }
  const test = scenario.liveupdate_test ? LIVEUPDATE_TEST_FLBS : []
  return [...own, ...test.map(({ name, data }) => ({ name, data, handlers: undefined }))]
}

/** Every version string that a file of another handler has. */
function handlersOf(scenario: Scenario, steps: readonly TimelineStep[]): readonly string[] {
  const names = new Set<string>()
  for (const { handlers } of scenario.flbs ?? []) for (const name of handlers ?? []) names.add(name)
  for (const { step } of eachStep(steps)) {
    if (step.preserve?.opaque) names.add(step.preserve.opaque.compatible)
  }
  return [...names].filter((name) => !/^memfd(-v\d+)?$/.test(name) && releaseFor(name) === undefined)
}

/** Reads every content once, so that mistakes and missing files show before anything runs. */
function contentsOf(
  steps: readonly TimelineStep[],
  context: ContentContext,
): ReadonlyMap<ScenarioContent, Content> {
  const contents = new Map<ScenarioContent, Content>()
  for (const { step, path } of eachStep(steps)) {
    const add = (
      pieces: ScenarioContent | undefined,
      length: bigint | undefined,
      into: string,
      at: Path,
    ): void => {
      if (!pieces || contents.has(pieces)) return
      const content = contentOf(pieces, { length, into }, [...path, ...at, 'content'], context)
      if (content) contents.set(pieces, content)
    }
    add(step.memfd?.content, step.memfd?.size, 'the file', ['memfd'])
    add(step.preserve?.memfd?.content, step.preserve?.memfd?.size, 'the file', ['preserve', 'memfd'])
    add(step.write?.content, undefined, 'a write', ['write'])
    add(step.verify?.content, step.verify?.size, 'what is looked at', ['verify'])
    add(
      step.ioctl?.content,
      step.ioctl?.size === undefined ? undefined : BigInt(step.ioctl.size),
      'the argument',
      ['ioctl'],
    )
  }
  return contents
}
