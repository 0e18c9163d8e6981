/** Live update as a machine of four states: each transition from each state. */
import { describe, expect, test } from 'vitest'
import { Orchestrator } from '../simulate/orchestrator.ts'
import { bootLive, census, errno, kexecLive, LUO_RELEASES, type LuoRelease, value } from './support/live.ts'
import { fakeFile, recordingHandler, type Troubles } from './support/recording.ts'

const TRANSITIONS = ['prepare', 'freeze', 'cancel', 'finish'] as const
type Transition = (typeof TRANSITIONS)[number]

function orchestrated(machine: ReturnType<typeof bootLive>) {
  const { luo } = machine.live
  if (!luo) throw new Error('the release has LUO')
  return new Orchestrator(luo, machine.user)
}

function withFiles(release: LuoRelease, troubles: Troubles = {}) {
  const machine = bootLive(release, { handlers: [recordingHandler([], troubles)] })
  const orchestrator = orchestrated(machine)
  const files = [1n, 2n].map((token) => ({ token, fd: fakeFile(machine.user, token) }))
  const prepare = () =>
    orchestrator.prepare([
      { name: 'a', files: files.slice(0, 1) },
      { name: 'b', files: files.slice(1) },
    ])
  const attempt = (transition: Transition) =>
    errno(transition === 'prepare' ? prepare() : orchestrator[transition]())
  return { ...machine, orchestrator, attempt }
}

function refusedIn(attempt: (transition: Transition) => unknown, allowed: readonly Transition[]): void {
  for (const transition of TRANSITIONS.filter((name) => !allowed.includes(name))) {
    expect(attempt(transition)).toBe('EINVAL')
  }
}

describe.each(LUO_RELEASES)('%s', (release) => {
  test('normal, prepared, frozen, updated, normal; every other transition is refused', () => {
    const old = withFiles(release)
    expect(old.orchestrator.state).toBe('normal')
    refusedIn(old.attempt, ['prepare'])
    expect(old.attempt('prepare')).toBeUndefined()
    expect(old.orchestrator.state).toBe('prepared')
    refusedIn(old.attempt, ['freeze', 'cancel'])
    const next = kexecLive(old, { handlers: [recordingHandler([])] })
    expect(old.orchestrator.state).toBe('frozen')
    refusedIn(old.attempt, [])
    const updated = orchestrated(next)
    expect(updated.state).toBe('updated')
    expect(errno(updated.prepare([]))).toBe('EINVAL')
    expect(errno(updated.freeze())).toBe('EINVAL')
    expect(errno(updated.cancel())).toBe('EINVAL')
    expect(errno(updated.finish())).toBeUndefined()
    expect(updated.state).toBe('normal')
  })

  test('cancel: nothing is preserved any more', () => {
    const machine = withFiles(release)
    machine.device()
    machine.user.close(machine.device())
    const before = census(machine)
    value(machine.orchestrator.prepare([]))
    expect(machine.attempt('prepare')).toBeUndefined()
    expect(machine.attempt('cancel')).toBeUndefined()
    expect(machine.orchestrator.state).toBe('normal')
    expect(census(machine)).toEqual(before)
    expect(machine.attempt('prepare')).toBeUndefined()
  })

  test('prepare fails: what was prepared before is taken back', () => {
    const machine = withFiles(release, { failsToPreserve: [2n] })
    const before = census(machine)
    expect(machine.attempt('prepare')).toBe('EIO')
    expect(machine.orchestrator.state).toBe('normal')
    expect(census(machine)).toEqual(before)
  })

  test('freeze fails: still prepared, and can be cancelled', () => {
    const machine = withFiles(release, { failsToFreeze: [2n] })
    machine.attempt('prepare')
    expect(machine.attempt('freeze')).toBe('EIO')
    expect(machine.orchestrator.state).toBe('prepared')
    expect(machine.attempt('cancel')).toBeUndefined()
  })

  test('finish refused by a file: still updated', () => {
    const old = withFiles(release)
    old.attempt('prepare')
    const next = kexecLive(old, { handlers: [recordingHandler([], { refusesToFinish: [2n] })] })
    const orchestrator = orchestrated(next)
    expect(errno(orchestrator.finish())).toBe('EBUSY')
    expect(orchestrator.state).toBe('updated')
  })

  test('finish refused by a file until it is ready: the next attempt finishes all', () => {
    const old = withFiles(release)
    old.attempt('prepare')
    const refused = [2n]
    const next = kexecLive(old, { handlers: [recordingHandler([], { refusesToFinish: refused })] })
    const open = next.user.files.size
    const orchestrator = orchestrated(next)
    expect(errno(orchestrator.finish())).toBe('EBUSY')
    expect(errno(orchestrator.finish())).toBe('EBUSY')
    refused.pop()
    expect(errno(orchestrator.finish())).toBeUndefined()
    expect(orchestrator.state).toBe('normal')
    expect(next.user.files.size).toBe(open)
  })
})
