/** Sessions: created, retrieved, finished and released (wire format, 8.4 and 8.6). */
import { describe, expect, test } from 'vitest'
import { bootLive, errno, kexecLive, LUO_RELEASES, SINCE_71, UNTIL_70, value } from './support/live.ts'
import { fakeFile, recordingHandler } from './support/recording.ts'

const CHECKS_NAMES = SINCE_71
const ARRAYS = ['linux-6.19', 'linux-7.0', 'kho-v2', 'linux-7.1'] as const
const BLOCKS = ['linux-7.2', 'linux-7.3'] as const

describe.each(LUO_RELEASES)('%s', (release) => {
  test('CREATE: duplicate among outgoing: -EEXIST', () => {
    const { user, device } = bootLive(release)
    const lu = device()
    const first = value(user.createSession(lu, 'a'))
    expect(errno(user.createSession(lu, 'a'))).toBe('EEXIST')
    user.close(first)
    expect(errno(user.createSession(lu, 'a'))).toBeUndefined()
  })

  test('CREATE: fd allocation errors come first, and leave nothing', () => {
    const { user, device, live } = bootLive(release)
    const lu = device()
    user.files.limit = lu + 1
    expect(errno(user.createSession(lu, ''))).toBe('EMFILE')
    expect(live.luo?.sessions.outgoing.size).toBe(0)
  })

  test('a created session may have the name of an incoming one', () => {
    const old = bootLive(release)
    value(old.user.createSession(old.device(), 'same'))
    const next = kexecLive(old)
    const lu = next.device()
    expect(errno(next.user.createSession(lu, 'same'))).toBeUndefined()
    expect(errno(next.user.retrieveSession(lu, 'same'))).toBeUndefined()
  })

  test('RETRIEVE_SESSION: unknown -ENOENT, again -EINVAL, after finish and close -ENOENT', () => {
    const old = bootLive(release)
    value(old.user.createSession(old.device(), 's'))
    const { user, device } = kexecLive(old)
    const lu = device()
    expect(errno(user.retrieveSession(lu, 'other'))).toBe('ENOENT')
    const session = value(user.retrieveSession(lu, 's'))
    expect(errno(user.retrieveSession(lu, 's'))).toBe('EINVAL')
    expect(errno(user.finish(session))).toBeUndefined()
    expect(errno(user.retrieveSession(lu, 's'))).toBe('EINVAL')
    user.close(session)
    expect(errno(user.retrieveSession(lu, 's'))).toBe('ENOENT')
  })

  test('a second FINISH returns 0', () => {
    const old = bootLive(release)
    const session = value(old.user.createSession(old.device(), 's'))
    value(old.user.preserveFd(session, value(old.user.memfdCreate('m')), 1n))
    const { user, device } = kexecLive(old)
    const retrieved = value(user.retrieveSession(device(), 's'))
    expect(errno(user.finish(retrieved))).toBeUndefined()
    expect(errno(user.finish(retrieved))).toBeUndefined()
  })

  test('close of a created session: unpreserve everything, the last file first, then remove', () => {
    const { user, live, device } = bootLive(release)
    const calls: string[] = []
    value(live.luo?.registerFileHandler(recordingHandler(calls)))
    const session = value(user.createSession(device(), 's'))
    for (const token of [1n, 2n, 3n]) value(user.preserveFd(session, fakeFile(user, token), token))
    calls.length = 0
    user.close(session)
    expect(calls).toEqual(['unpreserve 3', 'unpreserve 2', 'unpreserve 1'])
    expect(live.luo?.sessions.outgoing.size).toBe(0)
  })

  test('close of a retrieved session: implicit finish', () => {
    const old = preserved(release, [1n, 2n])
    const calls: string[] = []
    const { user, device, live } = kexecLive(old, { handlers: [recordingHandler(calls)] })
    user.close(value(user.retrieveSession(device(), 's')))
    expect(calls).toEqual(['can_finish 1 0', 'can_finish 2 0', 'finish 2 0', 'finish 1 0'])
    expect(live.luo?.sessions.incoming.size).toBe(0)
  })

  test('close of a retrieved session that cannot finish: it stays, retrieved and unreachable', () => {
    const old = preserved(release, [1n, 2n])
    const calls: string[] = []
    const handler = recordingHandler(calls, { refusesToFinish: [2n] })
    const { user, device, console, live } = kexecLive(old, { handlers: [handler] })
    const lu = device()
    const session = value(user.retrieveSession(lu, 's'))
    expect(errno(user.finish(session))).toBe('EBUSY')
    calls.length = 0
    expect(errno(user.close(session))).toBeUndefined()
    expect(calls).toEqual(['can_finish 1 0', 'can_finish 2 0'])
    expect(console().at(-1)).toBe('luo: Unable to finish session [s] on release')
    expect(live.luo?.sessions.incoming.size).toBe(1)
    expect(errno(user.retrieveSession(lu, 's'))).toBe('EINVAL')
  })

  test('FINISH: can_finish of all files first, then from last to first, with the status of retrieve', () => {
    const old = preserved(release, [1n, 2n, 3n])
    const calls: string[] = []
    const handler = recordingHandler(calls, { failsToRetrieve: [3n] })
    const { user, device } = kexecLive(old, { handlers: [handler] })
    const session = value(user.retrieveSession(device(), 's'))
    value(user.retrieveFd(session, 2n))
    expect(errno(user.retrieveFd(session, 3n))).toBe('EIO')
    calls.length = 0
    expect(errno(user.finish(session))).toBeUndefined()
    expect(calls).toEqual([
      'can_finish 1 0',
      'can_finish 2 1',
      'can_finish 3 -5',
      'finish 3 -5',
      'finish 2 1',
      'finish 1 0',
    ])
  })
})

test.each(CHECKS_NAMES)('%s: empty name or no NUL in 64 bytes: -EINVAL', (release) => {
  const { user, device, live } = bootLive(release)
  const lu = device()
  expect(errno(user.createSession(lu, ''))).toBe('EINVAL')
  expect(errno(user.createSession(lu, 'n'.repeat(64)))).toBe('EINVAL')
  expect(errno(user.createSession(lu, 'n'.repeat(63)))).toBeUndefined()
  expect(live.luo?.sessions.outgoing.size).toBe(1)
})

test.each(UNTIL_70)('%s: empty name accepted, 64 bytes cut to 63', (release) => {
  const old = bootLive(release)
  const lu = old.device()
  expect(errno(old.user.createSession(lu, ''))).toBeUndefined()
  expect(errno(old.user.createSession(lu, 'n'.repeat(64)))).toBeUndefined()
  expect(errno(old.user.createSession(lu, 'n'.repeat(63)))).toBe('EEXIST')
  const { user, device } = kexecLive(old)
  const next = device()
  expect(errno(user.retrieveSession(next, ''))).toBeUndefined()
  expect(errno(user.retrieveSession(next, 'n'.repeat(64)))).toBe('ENOENT')
  expect(errno(user.retrieveSession(next, 'n'.repeat(63)))).toBeUndefined()
})

test.each(ARRAYS)('%s: table full at 819 sessions: -ENOMEM, tested before duplicates', (release) => {
  const { user, device } = bootLive(release)
  const lu = device()
  for (let index = 0; index < 819; index++) value(user.createSession(lu, `s${index}`))
  expect(errno(user.createSession(lu, 's819'))).toBe('ENOMEM')
  expect(errno(user.createSession(lu, 's0'))).toBe('ENOMEM')
})

test.each(BLOCKS)('%s: no table, a thousand sessions come back', (release) => {
  const old = bootLive(release)
  old.user.files.limit = 2000
  const lu = old.device()
  for (let index = 0; index < 1000; index++) value(old.user.createSession(lu, `s${index}`))
  const { user, device } = kexecLive(old)
  user.files.limit = 2000
  const next = device()
  for (let index = 999; index >= 0; index--) value(user.retrieveSession(next, `s${index}`))
})

test('7.2 and later: FINISH with a reserved word that is not 0: -EINVAL', () => {
  const answers = LUO_RELEASES.map((release) => {
    const old = bootLive(release)
    value(old.user.createSession(old.device(), 's'))
    const { user, device } = kexecLive(old)
    return errno(user.finish(value(user.retrieveSession(device(), 's')), 1))
  })
  expect(answers).toEqual([undefined, undefined, undefined, undefined, 'EINVAL', 'EINVAL'])
})

test.each(BLOCKS)('%s: GET_NAME works on both sides of the reboot', (release) => {
  const old = bootLive(release)
  value(old.user.createSession(old.device(), 'vm'))
  const { user, device } = kexecLive(old)
  expect(user.getName(value(user.retrieveSession(device(), 'vm')))).toBe('vm')
})

/** A kernel with a session `s` and files of a driver of its own under these tokens. */
function preserved(release: (typeof LUO_RELEASES)[number], tokens: readonly bigint[]) {
  const old = bootLive(release, { handlers: [recordingHandler([])] })
  const session = value(old.user.createSession(old.device(), 's'))
  for (const token of tokens) value(old.user.preserveFd(session, fakeFile(old.user, token), token))
  return old
}
