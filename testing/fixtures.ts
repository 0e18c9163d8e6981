/**
 * Handovers for tests: one image per concept, made for any release, architecture and page size from the
 * scenarios that come with the package, or from a test's own scenario.
 *
 * The same bytes every time. Nothing is written to disk: memory can be read as it is, or become the
 * bytes of an image file.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { PageSize } from '../abi/layout.ts'
import type { Architecture } from '../abi/machine.ts'
import type { PhysicalMemory } from '../abi/memory.ts'
import type { HandoverDocument } from '../encode/handover.ts'
import { type ImageFormat, imageFile } from '../encode/image-format.ts'
import { heldMemory } from '../encode/image-held.ts'
import type { KhoNote } from '../encode/image-note.ts'
import { type ImageFile, sequential } from '../encode/image-pieces.ts'
import {
  type EncodedScenario,
  encodeScenario,
  formatScenarioProblem,
  type MachineOptions,
  type ScenarioOptions,
} from '../encode/scenario.ts'

export interface FixtureMachine {
  /** `linux-7.2`, `7.2`, `kho-v2`. */
  readonly release: string
  /** x86_64 if left out. */
  readonly arch?: Architecture
  /** 4096 if left out; arm64 has 16384 and 65536, too. */
  readonly pageSize?: PageSize
}

/** A handover in memory. */
export interface Fixture {
  readonly name: string
  /** What it shows, in one line. */
  readonly title: string
  /** `linux-7.2`, or the versions of its components. */
  readonly label: string
  readonly arch: Architecture
  readonly pageSize: PageSize
  /** What the handover owns; other RAM counts as left out by a dumper. */
  readonly memory: PhysicalMemory
  /** What the next kernel is told: physical addresses and lengths of root FDT and scratch array. */
  readonly boot: KhoNote
  /** Everything in it as plain values. */
  readonly document: HandoverDocument
  /** An image file, in pieces: for large ones, which are sparse. */
  readonly file: (format: ImageFormat) => ImageFile
  /** The bytes of an image file, zeros included. */
  readonly bytes: (format: ImageFormat) => Uint8Array
}

/** A concept that the release or the machine does not have. */
export interface SkippedFixture {
  readonly name: string
  readonly reason: string
}

/** A fixture that cannot be made: no such name, a concept that the release has not, a wrong scenario. */
export class FixtureError extends Error {}

/** The folder of the scenarios; the compiled file lies one level deeper than the source. */
const FOLDERS = ['../fixtures/scenarios/', '../../fixtures/scenarios/'].map(
  (path) => new URL(path, import.meta.url),
)
const EXTENSION = '.yaml'

/** Names of all fixtures, sorted. */
export function fixtureNames(): readonly string[] {
  return readdirSync(scenarioFolder())
    .filter((file) => file.endsWith(EXTENSION))
    .map((file) => file.slice(0, -EXTENSION.length))
    .sort()
}

/** The scenario that a fixture is made from. */
export function fixtureScenario(name: string): string {
  if (fixtureNames().includes(name))
    return readFileSync(new URL(`${name}${EXTENSION}`, scenarioFolder()), 'utf8')
  throw new FixtureError(`no fixture '${name}'; there are ${fixtureNames().join(', ')}`)
}

/** Makes one fixture; rejects with a FixtureError where the release has no such thing. */
export async function fixture(name: string, machine: FixtureMachine): Promise<Fixture> {
  const made = await tryFixture(name, machine)
  if ('reason' in made) throw new FixtureError(`${name}: ${made.reason}`)
  return made
}

/** Makes the fixtures of a release one after the other, by name; those that it has not with the reason. */
export async function* fixtures(machine: FixtureMachine): AsyncGenerator<Fixture | SkippedFixture> {
  for (const name of fixtureNames()) yield await tryFixture(name, machine)
}

/** Makes a fixture from a scenario's text; rejects with a FixtureError that says what is wrong where. */
export async function fixtureFrom(
  scenario: string,
  options: ScenarioOptions & { readonly name?: string } = {},
): Promise<Fixture> {
  const { name = 'scenario', ...rest } = options
  const encoded = await encodeScenario(scenario, rest)
  if (encoded.ok) return fixtureOf(name, encoded)
  const lines = encoded.problems.map((problem) => formatScenarioProblem(name, problem))
  throw new FixtureError(lines.join('\n'))
}

async function tryFixture(name: string, machine: FixtureMachine): Promise<Fixture | SkippedFixture> {
  const options: MachineOptions = machine
  const encoded = await encodeScenario(fixtureScenario(name), options)
  if (encoded.ok) return fixtureOf(name, encoded)
  const wrong = encoded.problems.find(({ absent }) => !absent)
  if (wrong) throw new FixtureError(formatScenarioProblem(`${name}${EXTENSION}`, wrong))
  return { name, reason: encoded.problems[0]?.message ?? 'nothing is known' }
}

function fixtureOf(name: string, { title, label, document, written }: EncodedScenario): Fixture {
  const { arch = 'x86_64', page_size: pageSize } = document
  const { boot } = written
  const memory = heldMemory(written)
  const file = (format: ImageFormat): ImageFile => {
    const made = imageFile(format, memory, { arch, pageSize, boot })
    if ('problem' in made) throw new FixtureError(`${name}: ${made.problem}`)
    return made
  }
  const bytes = (format: ImageFormat): Uint8Array => Buffer.concat([...sequential(file(format))])
  return { name, title: title ?? name, label, arch, pageSize, memory, boot, document, file, bytes }
}

function scenarioFolder(): URL {
  for (const folder of FOLDERS) {
    try {
      readdirSync(folder)
      return folder
    } catch {}
  }
  throw new FixtureError('the package has lost its scenarios')
}
