/** Stable series whose first updates behave otherwise than the newest one known: 6.19.6 and 7.1.3 (wire format, 8.3 to 8.8). */
import { expect, test } from 'vitest'
import { bootLive, errno, kexecLive, type LuoRelease, value } from './support/live.ts'
import { fakeFile, recordingHandler } from './support/recording.ts'
import { runText } from './support/timelines.ts'

/** Whether the behaviour is there in an older and in the newest update of 7.1. */
function in71<T>(ask: (version: string) => T): { readonly '7.1.3': T; readonly '7.1.13': T } {
  return { '7.1.3': ask('7.1.3'), '7.1.13': ask('7.1.13') }
}

function withFile(release: LuoRelease, version: string) {
  const calls: string[] = []
  const machine = bootLive(release, { version, handlers: [recordingHandler(calls)] })
  const session = value(machine.user.createSession(machine.device(), 's'))
  value(machine.user.preserveFd(session, fakeFile(machine.user, 1n), 1n))
  return { ...machine, session, calls }
}

test('8.3 wrong direction is carried out on the wrong list in 7.1.3, -EINVAL in 7.1.13', () => {
  const answers = in71((version) => {
    const { user, session } = withFile('linux-7.1', version)
    return errno(user.finish(session))
  })
  expect(answers).toEqual({ '7.1.3': undefined, '7.1.13': 'EINVAL' })
})

test('8.4 CREATE: an empty name is accepted by 7.1.3, -EINVAL in 7.1.13', () => {
  const answers = in71((version) => {
    const { user, device } = bootLive('linux-7.1', { version })
    return errno(user.createSession(device(), ''))
  })
  expect(answers).toEqual({ '7.1.3': undefined, '7.1.13': 'EINVAL' })
})

test('8.5 RETRIEVE_FD: a failed retrieve is tried again by 6.19.6, sticky in 6.19.11', () => {
  const callsOf = (version: string) => {
    const calls: string[] = []
    const handlers = [recordingHandler(calls, { failsToRetrieve: [1n] })]
    const next = kexecLive(withFile('linux-6.19', version), { version, handlers })
    const session = value(next.user.retrieveSession(next.device(), 's'))
    for (const _ of [1, 2]) expect(errno(next.user.retrieveFd(session, 1n))).toBe('EIO')
    return calls
  }
  expect(callsOf('6.19.6')).toEqual(['retrieve 1', 'retrieve 1'])
  expect(callsOf('6.19.11')).toEqual(['retrieve 1'])
})

test('8.7 a kexec that comes back: 7.1.3 freezes the files, 7.1.13 skips LUO', () => {
  const frozen = in71((version) => {
    const { kernel, calls } = withFile('linux-7.1', version)
    calls.length = 0
    value(kernel.load({ preservesContext: true }))
    kernel.reboot()
    return calls
  })
  expect(frozen).toEqual({ '7.1.3': ['freeze 1'], '7.1.13': [] })
})

test('8.7 after success 7.1.3 releases the lock and freezes everything again, 7.1.13 keeps it', () => {
  const first = withFile('linux-7.1', '7.1.3')
  value(first.live.reboot())
  expect(errno(first.user.createSession(first.device(), 'x'))).toBeUndefined()
  value(first.live.reboot())
  expect(first.calls).toEqual(['preserve 1', 'freeze 1', 'freeze 1'])
  const last = withFile('linux-7.1', '7.1.13')
  value(last.live.reboot())
  expect(errno(last.user.createSession(last.device(), 'x'))).toBe('blocks')
})

test('a timeline says which update it is about; a kexec without a release stays with it', async () => {
  const steps = `
release: linux-7.1.3
steps:
  - open
  - create_session: ''
  - kexec
  - console: 'KHO: exec from: 7.1.3 (count 1)'
  - open
  - create_session: ''
  - kexec: linux-7.1
  - open
  - create_session: ''
    expect: EINVAL
  - boot: linux-7.1.3
  - open
  - create_session: ''
`
  const { failure } = await runText(steps)
  expect(failure).toBeUndefined()
})
