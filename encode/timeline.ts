/**
 * Timelines: a scenario as a machine and what is done on it, step after step. Where a scenario has no
 * steps, these are its own: what it declares is made through calls, handed over, taken back and looked at.
 *
 * What can be known to be wrong before anything runs is refused here, with line, column and path.
 */
import type { Path } from '../abi/fault.ts'
import { MIN_SCRATCH_AREAS } from '../abi/machine.ts'
import type { PhysRange } from '../abi/memory.ts'
import { releaseFor } from '../abi/registry.ts'
import type { Content } from './handover.ts'
import { type RefusedScenario, readScenario, type ScenarioOptions } from './scenario.ts'
import { type ContentContext, contentOf } from './scenario-content.ts'
import { documentOfScenario } from './scenario-document.ts'
import type { ScenarioContent } from './scenario-file-schema.ts'
import { listOf, type MachineOptions, type ScenarioMachine } from './scenario-machine.ts'
import { USUAL_SCRATCH } from './scenario-memory.ts'
import { ramOf } from './scenario-ram.ts'
import type { Scenario } from './scenario-schema.ts'
import type { ScenarioStep } from './scenario-steps.ts'
import type { ScenarioReport } from './scenario-text.ts'
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
  /** Bytes of the scratch areas: low memory, any use, each node. */
  readonly scratch: readonly bigint[]
  readonly liveupdate: boolean
  /** The kernels are built with CONFIG_LIVEUPDATE_TEST. */
  readonly liveupdateTest: boolean
  /** They are built with CONFIG_TEST_KEXEC_HANDOVER. */
  readonly khoTest: boolean
  /** utsname release of the first kernel, where it is said. */
  readonly version: string | undefined
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
const MADE_BY_STEPS = ['kexec_metadata', 'liveupdate_number', 'sessions'] as const

/** What no driver of the simulated kernels leaves. */
const NOT_SIMULATED = ['versions', 'subtrees', 'preserved'] as const

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
  checkSimulated(scenario, report)
  if (!release) return undefined
  if (!simulated.includes(release.name)) {
    return report.wrong(
      ['release'],
      `${release.name} is not simulated; expected one of ${simulated.join(', ')}`,
    )
  }
  const ram = ramOf(scenario.ram, machine, report)
  if (!ram || !report.empty) return undefined
  const steps = scenario.steps
    ? stepsAt(scenario.steps, ['steps'])
    : declaredSteps(scenario, machine, context)
  if (!steps || !report.empty) return undefined
  const regions = regionsOf(scenario, machine, context)
  const flbs = flbsOf(scenario, machine, context)
  const handlers = handlersOf(scenario, steps)
  checkSteps(steps, {
    regions: regions.map(({ name }) => name),
    handlers,
    flbs: flbs.map(({ name }) => name),
    simulated,
    report,
  })
  const contents = contentsOf(steps, context)
  return {
    title: scenario.title,
    release: release.name,
    arch: machine.arch,
    target: machine.target,
    ram: ram.ranges,
    scratch: scratchOf(scenario, context),
    liveupdate: scenario.liveupdate ?? true,
    liveupdateTest: scenario.liveupdate_test ?? false,
    khoTest: scenario.kho_test !== undefined && scenario.kho_test.off !== true,
    version: scenario.kexec_metadata?.previous_release ?? machine.update,
    regions,
    flbs,
    handlers,
    steps,
    contents,
  }
}

function checkSimulated(scenario: Scenario, report: ScenarioReport): void {
  const refuse = (key: keyof Scenario, reason: string): void => {
    if (scenario[key] !== undefined) report.wrong([key], `expected none of it in a simulation: ${reason}`)
  }
  for (const key of NOT_SIMULATED) refuse(key, 'no driver of the simulated kernels leaves it')
  for (const key of scenario.steps ? MADE_BY_STEPS : []) refuse(key, 'steps make what is handed over')
  if (scenario.kho_test?.orders ?? scenario.kho_test?.seed) {
    refuse('kho_test', 'the simulated test chooses itself; true is enough')
  }
  if ((scenario.liveupdate_number ?? 1n) !== 1n) refuse('liveupdate_number', 'it begins with a cold boot')
  if ((scenario.kexec_metadata?.count ?? 1) !== 1) refuse('kexec_metadata', 'it begins with a cold boot')
}

/** What the encoder refuses is refused here, too. */
function declaredSteps(
  scenario: Scenario,
  machine: ScenarioMachine,
  context: ContentContext,
): readonly TimelineStep[] | undefined {
  const made = documentOfScenario(scenario, machine, context)
  return made && stepsOfScenario(scenario, machine, made)
}

/** Steps with their places. */
function stepsAt(steps: readonly ScenarioStep[], path: Path): readonly TimelineStep[] {
  return steps.map((step, index) => {
    const at = [...path, { index }]
    return { step, path: at, ...(step.steps && { group: stepsAt(step.steps, [...at, 'steps']) }) }
  })
}

/** As kho_scratch= takes them. */
function scratchOf({ scratch = USUAL_SCRATCH }: Scenario, { report }: ContentContext): readonly bigint[] {
  for (const [index, { start }] of scratch.entries()) {
    if (start === undefined) continue
    report.wrong(
      ['scratch', { index }, 'start'],
      'the simulated kernel chooses the place; expected size alone',
    )
  }
  if (scratch.length !== MIN_SCRATCH_AREAS) {
    report.wrong(
      ['scratch'],
      `expected ${MIN_SCRATCH_AREAS} areas, as one node has them; found ${scratch.length}`,
    )
  }
  return scratch.map(({ size }) => size)
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
    if (!/^[^\s:]+$/.test(name)) {
      const found = JSON.stringify(name)
      context.report.wrong([...path, 'name'], `${found}; expected a name without white space and colons`)
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
  return own
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
