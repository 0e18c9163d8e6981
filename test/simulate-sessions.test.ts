/** Sessions: created, retrieved, finished and released (wire format, 8.4). */
import { describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import {
  bootLive,
  census,
  errno,
  kexecLive,
  LUO_RELEASES,
  type LuoRelease,
  SINCE_71,
  UNTIL_70,
  value,
} from './support/live.ts'
import { fakeFile, recordingHandler } from './support/recording.ts'

const CHECKS_NAMES = SINCE_71
const ARRAYS = ['linux-6.19', 'linux-7.0', 'kho-v2', 'linux-7.1'] as const
const BLOCKS = ['linux-7.2', 'linux-7.3'] as const
const PAGE = 4096
/** (4096 - 16) / 80 */
const PER_BLOCK = 51

describe.each(LUO_RELEASES)('%s: 8.4 Sessions', (release) => {
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

  test('FINISH: any false -> -EBUSY, nothing done: the files behind it are not asked, none is finished', () => {
    const old = preserved(release, [1n, 2n, 3n])
    const calls: string[] = []
    const handler = recordingHandler(calls, { refusesToFinish: [2n] })
    const { user, device } = kexecLive(old, { handlers: [handler] })
    const session = value(user.retrieveSession(device(), 's'))
    expect(errno(user.finish(session))).toBe('EBUSY')
    expect(calls).toEqual(['can_finish 1 0', 'can_finish 2 0'])
    for (const token of [1n, 2n, 3n]) expect(errno(user.retrieveFd(session, token))).toBeUndefined()
  })

  test('FINISH before RETRIEVE_FD is not an error: finish() discards what was never retrieved', () => {
    const old = preserved(release, [1n])
    const { user: oldUser, session: left } = old
    const memfd = value(oldUser.memfdCreate('m'))
    value(oldUser.pwrite(memfd, new Uint8Array(PAGE).fill(7), 0))
    value(oldUser.preserveFd(left, memfd, 2n))
    const page = oldUser.files.find(memfd)?.inode?.headOf(0) ?? phys(0)
    const calls: string[] = []
    const { user, device, kernel } = kexecLive(old, { handlers: [recordingHandler(calls)] })
    const session = value(user.retrieveSession(device(), 's'))
    expect(kernel.pages.preservedOrder(page)).toBe(0)
    expect(errno(user.finish(session))).toBeUndefined()
    expect(calls).toEqual(['can_finish 1 0', 'finish 1 0'])
    expect([kernel.pages.preservedOrder(page), kernel.pages.orderOf(page)]).toEqual([undefined, undefined])
    for (const token of [1n, 2n]) expect(errno(user.retrieveFd(session, token))).toBe('ENOENT')
  })

  test('the session object lives until close: FINISH leaves it, retrieved', () => {
    const old = preserved(release, [1n])
    const { user, device, live } = kexecLive(old, { handlers: [recordingHandler([])] })
    const lu = device()
    const session = value(user.retrieveSession(lu, 's'))
    value(user.finish(session))
    expect(live.luo?.sessions.incoming.size).toBe(1)
    expect(errno(user.retrieveSession(lu, 's'))).toBe('EINVAL')
    expect(errno(user.retrieveFd(session, 1n))).toBe('ENOENT')
    user.close(session)
    expect(live.luo?.sessions.incoming.size).toBe(0)
    expect(errno(user.retrieveSession(lu, 's'))).toBe('ENOENT')
  })

  test('CREATE without memory for the session: -ENOMEM, and nothing is left', () => {
    const machine = bootLive(release)
    const { user, kernel, live } = machine
    const lu = machine.device()
    const before = { held: census(machine), open: user.files.size }
    kernel.pages.failObjectAt(1)
    expect(errno(user.createSession(lu, 's'))).toBe('ENOMEM')
    expect({ held: census(machine), open: user.files.size }).toEqual(before)
    expect(live.luo?.sessions.outgoing.size).toBe(0)
    expect(errno(user.createSession(lu, 's'))).toBeUndefined()
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

test.each(CHECKS_NAMES)('%s: 8.4 empty name or no NUL in 64 bytes: -EINVAL', (release) => {
  const { user, device, live } = bootLive(release)
  const lu = device()
  expect(errno(user.createSession(lu, ''))).toBe('EINVAL')
  expect(errno(user.createSession(lu, 'n'.repeat(64)))).toBe('EINVAL')
  expect(errno(user.createSession(lu, 'n'.repeat(63)))).toBeUndefined()
  expect(live.luo?.sessions.outgoing.size).toBe(1)
})

test.each(UNTIL_70)('%s: 8.4 empty name accepted, 64 bytes cut to 63', (release) => {
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

test.each(ARRAYS)('%s: 8.4 table full at 819 sessions: -ENOMEM, tested before duplicates', (release) => {
  const { user, device } = bootLive(release)
  const lu = device()
  for (let index = 0; index < 819; index++) value(user.createSession(lu, `s${index}`))
  expect(errno(user.createSession(lu, 's819'))).toBe('ENOMEM')
  expect(errno(user.createSession(lu, 's0'))).toBe('ENOMEM')
})

test.each(BLOCKS)('%s: 8.4 CREATE: block growth without memory -ENOMEM, and nothing is left', (release) => {
  for (const created of [0, PER_BLOCK]) {
    const machine = withSessions(release, created)
    const { user, kernel, live, device } = machine
    const lu = device()
    const before = { held: census(machine), open: user.files.size }
    kernel.pages.failAt(1)
    expect(errno(user.createSession(lu, 'one more'))).toBe('ENOMEM')
    expect({ held: census(machine), open: user.files.size }).toEqual(before)
    expect(live.luo?.sessions.outgoing.size).toBe(created)
    expect(errno(user.createSession(lu, 'one more'))).toBeUndefined()
  }
})

test.each(BLOCKS)(
  '%s: 8.4 CREATE: block growth comes before the duplicate, but behind the name',
  (release) => {
    const { user, kernel, device } = withSessions(release, PER_BLOCK)
    kernel.pages.failAt(1)
    expect(errno(user.createSession(device(), ''))).toBe('EINVAL')
    expect(errno(user.createSession(device(), 's0'))).toBe('ENOMEM')
    expect(errno(user.createSession(device(), 's0'))).toBe('EEXIST')
  },
)

test.each(ARRAYS)('%s: 8.4 CREATE needs no page: the table is there from the start', (release) => {
  const { user, kernel, device } = withSessions(release, 0)
  const lu = device()
  kernel.pages.failAt(1)
  expect(errno(user.createSession(lu, 's'))).toBeUndefined()
})

test.each(BLOCKS)('%s: 8.4 no table, a thousand sessions come back', (release) => {
  const old = bootLive(release)
  old.user.files.limit = 2000
  const lu = old.device()
  for (let index = 0; index < 1000; index++) value(old.user.createSession(lu, `s${index}`))
  const { user, device } = kexecLive(old)
  user.files.limit = 2000
  const next = device()
  for (let index = 999; index >= 0; index--) value(user.retrieveSession(next, `s${index}`))
})

test('8.4 7.2 and later: FINISH with a reserved word that is not 0: -EINVAL', () => {
  const answers = LUO_RELEASES.map((release) => {
    const old = bootLive(release)
    value(old.user.createSession(old.device(), 's'))
    const { user, device } = kexecLive(old)
    return errno(user.finish(value(user.retrieveSession(device(), 's')), 1))
  })
  expect(answers).toEqual([undefined, undefined, undefined, undefined, 'EINVAL', 'EINVAL'])
})

test.each(BLOCKS)('%s: 8.4 GET_NAME works on both sides of the reboot', (release) => {
  const old = bootLive(release)
  value(old.user.createSession(old.device(), 'vm'))
  const { user, device } = kexecLive(old)
  expect(user.getName(value(user.retrieveSession(device(), 'vm')))).toBe('vm')
})

/** A kernel with a session `s` and files of a driver of its own under these tokens. */
function preserved(release: LuoRelease, tokens: readonly bigint[]) {
  const old = bootLive(release, { handlers: [recordingHandler([])] })
  const session = value(old.user.createSession(old.device(), 's'))
  for (const token of tokens) value(old.user.preserveFd(session, fakeFile(old.user, token), token))
  return { ...old, session }
}

/** A kernel with this many sessions. */
function withSessions(release: LuoRelease, count: number) {
  const machine = bootLive(release)
  const lu = machine.device()
  for (let index = 0; index < count; index++) value(machine.user.createSession(lu, `s${index}`))
  return machine
}
