/**
 * Scenarios: a YAML or JSON text that says what a machine holds at a handover becomes that handover.
 *
 * What a kernel would not hand over is refused, with line, column and path, and with what would be
 * right. The same scenario gives the same bytes on every machine.
 */
import { formatPath, type Path } from '../abi/fault.ts'
import type { HandoverDocument } from './handover.ts'
import type { ContentContext, FileReader } from './scenario-content.ts'
import { documentOfScenario, type ScenarioDocument } from './scenario-document.ts'
import { type MachineOptions, machineOf, type ScenarioMachine } from './scenario-machine.ts'
import { type Scenario, scenarioShape } from './scenario-schema.ts'
import {
  parseScenarioText,
  type ScenarioProblem,
  ScenarioReport,
  type ScenarioText,
} from './scenario-text.ts'
import { textLabel } from './text.ts'
import { type WrittenHandover, writeHandover } from './write-handover.ts'

export type { MachineOptions } from './scenario-machine.ts'
export { scenarioJsonSchema } from './scenario-schema.ts'
export { formatScenarioProblem, type ScenarioProblem } from './scenario-text.ts'
export type { FileReader }

/** Release, architecture and page size given here go before what the scenario says. */
export interface ScenarioOptions extends MachineOptions {
  /** For contents that are files; without it such contents are refused. */
  readonly readFile?: FileReader
}

export interface EncodedScenario {
  readonly ok: true
  readonly title: string | undefined
  /** `linux-7.3`, or the versions. */
  readonly label: string
  readonly document: HandoverDocument
  readonly written: WrittenHandover
}

export interface RefusedScenario {
  readonly ok: false
  /** In the order of the text, at least one. */
  readonly problems: readonly ScenarioProblem[]
}

/** Encodes a scenario's text. Never throws on account of the text. */
export async function encodeScenario(
  text: string,
  options: ScenarioOptions = {},
): Promise<EncodedScenario | RefusedScenario> {
  return readScenario(text, options, encoded)
}

/** Reads a scenario's text, and makes something of it unless something is wrong with it. */
export async function readScenario<T>(
  text: string,
  options: ScenarioOptions,
  make: (
    scenario: Scenario,
    machine: ScenarioMachine,
    context: ContentContext,
    placeOf: ScenarioText['placeOf'],
  ) => T | undefined,
): Promise<T | RefusedScenario> {
  const parsed = await parseScenarioText(text)
  if ('problems' in parsed) return { ok: false, problems: parsed.problems }
  const { value, placeOf } = parsed.text
  const report = new ScenarioReport()
  const scenario = scenarioShape.read(value ?? new Map(), [], report)
  const machine = scenario && report.empty ? machineOf(scenario, options, report) : undefined
  const made = scenario && machine && make(scenario, machine, { readFile: options.readFile, report }, placeOf)
  return made && report.empty ? made : { ok: false, problems: report.problems(parsed.text) }
}

function encoded(
  scenario: Scenario,
  machine: ScenarioMachine,
  context: ContentContext,
): EncodedScenario | undefined {
  const { report } = context
  if (scenario.steps) {
    return report.wrong(['steps'], 'this is a timeline, not one handover; kho-inspect simulate runs it')
  }
  const made = documentOfScenario(scenario, machine, context)
  if (!made || !report.empty) return undefined
  const written = writeHandover(made.document)
  const places = written.problems.length > 0 ? documentPlaces(made) : []
  for (const { path, message } of written.problems) report.wrong(placeIn(places, path), message)
  return { ok: true, title: scenario.title, label: machine.label, document: made.document, written }
}

/** A place in the document, as problems print it, and where it comes from. */
type Place = readonly [printed: string, path: Path]

/** Longest first. */
function documentPlaces({ document, origins }: ScenarioDocument): readonly Place[] {
  const places: Place[] = [
    ['luo.sessions', ['sessions']],
    ['luo.flbs', ['flbs']],
    ['memblock', ['reserve_mem']],
    ['kexec_metadata', ['kexec_metadata']],
    ['kho_test', ['kho_test']],
    ['scratch', ['scratch']],
    ['subtrees', ['subtrees']],
  ]
  const luo = document.subtrees.find((subtree) => subtree.luo)?.luo
  for (const [index, { name, files }] of (luo?.sessions?.entries ?? []).entries()) {
    const origin = origins[index]
    if (!origin) continue
    const session: Path = ['luo', 'sessions', typeof name === 'string' ? { index, key: name } : { index }]
    places.push([formatPath(session), origin.path])
    for (const [at, { token }] of (files?.entries ?? []).entries()) {
      const file: Path = [...session, 'files', { index: at, key: `0x${token.toString(16)}` }]
      places.push([formatPath(file), origin.files[at] ?? origin.path])
    }
  }
  for (const [index, subtree] of document.subtrees.entries()) {
    const printed = formatPath(['subtrees', { index, key: textLabel(subtree.name) }])
    places.push([printed, ['subtrees']])
  }
  return places.sort(([a], [b]) => b.length - a.length)
}

function placeIn(places: readonly Place[], printed: string): Path {
  return places.find(([prefix]) => printed.startsWith(prefix))?.[1] ?? []
}
