/**
 * The steps of a scenario that has none: what it declares is made, handed over to the same release,
 * taken back, looked at and finished.
 */
import type { Path } from '../abi/fault.ts'
import type { Copies } from './scenario-file-schema.ts'
import { listOf, type ScenarioMachine } from './scenario-machine.ts'
import type { Scenario, ScenarioFile, ScenarioSession } from './scenario-schema.ts'
import { LIVEUPDATE_DEVICE, type ScenarioStep } from './scenario-steps.ts'
import { textLabel } from './text.ts'
import { fileName, type TimelineStep } from './timeline-step.ts'

export function stepsOfScenario(scenario: Scenario, machine: ScenarioMachine): readonly TimelineStep[] {
  const sessions = (scenario.sessions ?? []).map((session, index) => ({
    session,
    path: ['sessions', { index }],
  }))
  const regions = (scenario.reserve_mem ?? []).map((region, index) => ({
    region,
    path: ['reserve_mem', { index }],
  }))
  const hasDevice = machine.versions.luo !== undefined && scenario.liveupdate !== false
  const device: readonly TimelineStep[] = hasDevice
    ? [{ path: [], step: { open: { path: LIVEUPDATE_DEVICE } } }]
    : []
  const finalize: readonly TimelineStep[] = needsFinalize(machine)
    ? [{ path: [], step: { finalize: { write: '1' } } }]
    : []
  return [
    ...device,
    ...sessions.map(({ session, path }) => repeated(session, path, machine, made(session, path, machine))),
    ...finalize,
    { path: [], step: { kexec: {} } },
    ...regions.map(({ region, path }) => ({ path, step: { verify: { region: region.name } } })),
    ...device,
    ...sessions.map(({ session, path }) =>
      repeated(session, path, machine, takenBack(session, path, machine)),
    ),
  ]
}

/** Up to Linux 6.18 nothing is handed over otherwise; 6.19 and 7.0 do it at reboot, 7.1 has no such file. */
function needsFinalize({ versions }: ScenarioMachine): boolean {
  return versions.kho?.startsWith('kho-v1') === true && versions.luo === undefined
}

function repeated(
  { repeat }: ScenarioSession,
  path: Path,
  machine: ScenarioMachine,
  group: readonly TimelineStep[],
): TimelineStep {
  const times = timesOf(repeat, listOf(machine, 'luo', 'sessions')?.perPart)
  return { path, group, step: { steps: group.map(({ step }) => step), ...(times > 1 && { repeat: times }) } }
}

function timesOf(copies: Copies | undefined, perPart = 1): number {
  return typeof copies === 'object' ? copies.full * perPart + copies.plus : Number(copies ?? 1n)
}

/** The name as the steps inside of the group say it. */
function nameOf({ name }: ScenarioSession): string {
  return textLabel(name).replaceAll(/\{n(:0\d{1,2})?\}/g, '{outer$1}')
}

function made(session: ScenarioSession, path: Path, machine: ScenarioMachine): readonly TimelineStep[] {
  const name = nameOf(session)
  const create = { name: typeof session.name === 'string' ? name : session.name, as: name }
  return [
    { path, step: { create_session: create } },
    ...filesOf(session, path, machine, ({ memfd, opaque }, token) => ({
      preserve: {
        session: name,
        token,
        ...(opaque && { opaque }),
        ...(memfd && { memfd: memfdOf(memfd) }),
      },
    })),
  ]
}

/** Without seals sealing is allowed, as none is in force; F_SEAL_EXEC alone comes with MFD_NOEXEC_SEAL. */
function memfdOf(memfd: NonNullable<ScenarioFile['memfd']>): NonNullable<ScenarioStep['memfd']> {
  const { order: _order, folios: _folios, ...own } = memfd
  return own as NonNullable<ScenarioStep['memfd']>
}

function takenBack(session: ScenarioSession, path: Path, machine: ScenarioMachine): readonly TimelineStep[] {
  const name = nameOf(session)
  const again = { name: typeof session.name === 'string' ? name : session.name, as: name }
  const files = filesOf(session, path, machine, (_file, token) => ({ retrieve: { session: name, token } }))
  const looked = filesOf(session, path, machine, (_file, token, repeat) => ({
    verify: { file: repeat === undefined ? fileName(name, token) : `${name}/{n+${token}}` },
  }))
  return [
    { path, step: { retrieve_session: again } },
    ...files,
    ...looked,
    { path, step: { finish: { session: name } } },
    { path, step: { close: name } },
  ]
}

function filesOf(
  { files = [] }: ScenarioSession,
  path: Path,
  machine: ScenarioMachine,
  stepOf: (file: ScenarioFile, token: bigint, repeat: number | undefined) => ScenarioStep,
): readonly TimelineStep[] {
  return files.map((file, index) => {
    const times = timesOf(file.repeat, listOf(machine, 'luo', 'files')?.perPart)
    const repeat = times > 1 ? times : undefined
    const step = stepOf(file, file.token, repeat)
    return { path: [...path, 'files', { index }], step: { ...step, ...(repeat && { repeat }) } }
  })
}
