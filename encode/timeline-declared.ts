/**
 * The steps of a scenario that has none: what it declares is made, handed over to the same release,
 * taken back, looked at and finished.
 */
import { formatPath, type Path } from '../abi/fault.ts'
import type { ScenarioDocument } from './scenario-document.ts'
import type { Copies } from './scenario-file-schema.ts'
import { listOf, type ScenarioMachine } from './scenario-machine.ts'
import type { Scenario, ScenarioFile, ScenarioSession } from './scenario-schema.ts'
import { LIVEUPDATE_DEVICE, type ScenarioStep, type StepMemfd } from './scenario-steps.ts'
import { textLabel } from './text.ts'
import { fileName, type TimelineStep } from './timeline-step.ts'

/** `made` is what the encoder makes of the scenario. */
export function stepsOfScenario(
  scenario: Scenario,
  machine: ScenarioMachine,
  made: ScenarioDocument,
): readonly TimelineStep[] {
  const declared = new DeclaredSessions(machine, sizesIn(made))
  const sessions = (scenario.sessions ?? []).map((session, index) => ({
    session,
    path: ['sessions', { index }],
  }))
  const regions = (scenario.reserve_mem ?? []).map(({ name: region }, index): TimelineStep => {
    return { path: ['reserve_mem', { index }], step: { verify: { region } } }
  })
  const hasDevice = machine.versions.luo !== undefined && scenario.liveupdate !== false
  const device: readonly TimelineStep[] = hasDevice
    ? [{ path: [], step: { open: { path: LIVEUPDATE_DEVICE } } }]
    : []
  const finalize: readonly TimelineStep[] = needsFinalize(machine, hasDevice)
    ? [{ path: [], step: { finalize: { write: '1' } } }]
    : []
  return [
    ...device,
    ...sessions.map(({ session, path }) => declared.made(session, path)),
    ...finalize,
    { path: [], step: { kexec: {} } },
    ...regions,
    ...device,
    ...sessions.map(({ session, path }) => declared.takenBack(session, path)),
  ]
}

/** Up to 7.0 the map has to be written; live update does it at the reboot. */
function needsFinalize({ versions }: ScenarioMachine, hasDevice: boolean): boolean {
  return versions.kho?.startsWith('kho-v1') === true && !hasDevice
}

/** Sizes of memfds by where they stand in the scenario, those that follow from contents or folios, too. */
function sizesIn({ document, origins }: ScenarioDocument): ReadonlyMap<string, bigint> {
  const sizes = new Map<string, bigint>()
  const luo = document.subtrees.find((subtree) => subtree.luo)?.luo
  for (const [index, { files }] of (luo?.sessions?.entries ?? []).entries()) {
    for (const [at, { memfd }] of (files?.entries ?? []).entries()) {
      const path = origins[index]?.files[at]
      if (path && memfd && memfd.size !== undefined) sizes.set(formatPath(path), BigInt(memfd.size))
    }
  }
  return sizes
}

/** One group of steps for each session that the scenario declares. */
class DeclaredSessions {
  readonly #machine: ScenarioMachine
  readonly #sizes: ReadonlyMap<string, bigint>

  constructor(machine: ScenarioMachine, sizes: ReadonlyMap<string, bigint>) {
    this.#machine = machine
    this.#sizes = sizes
  }

  made(session: ScenarioSession, path: Path): TimelineStep {
    const name = nameOf(session)
    return this.#group(session, path, 'preserves its files', [
      { path, step: { create_session: sessionOf(session) } },
      ...this.#files(session, path, ({ memfd, opaque }, token, at) => ({
        preserve: {
          session: name,
          token,
          ...(opaque && { opaque }),
          ...(memfd && { memfd: this.#memfd(memfd, at) }),
        },
      })),
    ])
  }

  takenBack(session: ScenarioSession, path: Path): TimelineStep {
    const name = nameOf(session)
    return this.#group(session, path, 'comes back', [
      { path, step: { retrieve_session: sessionOf(session) } },
      ...this.#files(session, path, (_file, token) => ({ retrieve: { session: name, token } })),
      ...this.#files(session, path, (_file, token, _at, repeat) => ({
        verify: { file: repeat === undefined ? fileName(name, token) : `${name}/{n+${token}}` },
      })),
      { path, step: { finish: { session: name } } },
      { path, step: { close: name } },
    ])
  }

  #group(session: ScenarioSession, path: Path, what: string, group: readonly TimelineStep[]): TimelineStep {
    const times = timesOf(session.repeat, listOf(this.#machine, 'luo', 'sessions')?.perPart)
    const title = `session ${textLabel(session.name)} ${what}`
    return { path, group, step: { title, steps: [], ...(times > 1 && { repeat: times }) } }
  }

  #files(
    { files = [] }: ScenarioSession,
    path: Path,
    stepOf: (file: ScenarioFile, token: bigint, at: Path, repeat: number | undefined) => ScenarioStep,
  ): readonly TimelineStep[] {
    return files.map((file, index) => {
      const at = [...path, 'files', { index }]
      const times = timesOf(file.repeat, listOf(this.#machine, 'luo', 'files')?.perPart)
      const repeat = times > 1 ? times : undefined
      const step = stepOf(file, file.token, at, repeat)
      return { path: at, step: { ...step, ...(repeat && { repeat }) }, countsGroup: true }
    })
  }

  /** The simulated kernel lays out folios itself. Without seals sealing is allowed, as none is in force. */
  #memfd({ position, seals, content }: NonNullable<ScenarioFile['memfd']>, path: Path): StepMemfd {
    const size = this.#sizes.get(formatPath(path))
    return {
      ...(size !== undefined && { size }),
      ...(position !== undefined && { position }),
      ...(seals && { seals }),
      ...(content && { content }),
    }
  }
}

function timesOf(copies: Copies | undefined, perPart = 1): number {
  return typeof copies === 'object' ? copies.full * perPart + copies.plus : Number(copies ?? 1n)
}

/** The name as the steps inside of the group say it. */
function nameOf({ name }: ScenarioSession): string {
  return textLabel(name).replaceAll(/\{n(:0\d{1,2})?\}/g, '{outer$1}')
}

function sessionOf(session: ScenarioSession): NonNullable<ScenarioStep['create_session']> {
  const as = nameOf(session)
  return { name: typeof session.name === 'string' ? as : session.name, as }
}
