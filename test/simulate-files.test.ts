/** Files of sessions: preserved, unpreserved, retrieved, deserialized (wire format, 8.5 and 8.6). */
import { describe, expect, test } from 'vitest'
import { memfdSeals } from '../abi/memfd.ts'
import { KernelModule } from '../simulate/kernel-module.ts'
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
  withSession,
} from './support/live.ts'
import { fakeFile, recordingFlb, recordingHandler } from './support/recording.ts'

const ARRAYS = ['linux-6.19', 'linux-7.0', 'kho-v2', 'linux-7.1'] as const
const BLOCKS = ['linux-7.2', 'linux-7.3'] as const
const KNOWS_PRESERVED = SINCE_71

describe.each(LUO_RELEASES)('%s: 8.5 Files', (release) => {
  test('PRESERVE_FD: token already in this session -EEXIST, before the file is looked at', () => {
    const { user, session } = withSession(release)
    value(user.preserveFd(session, value(user.memfdCreate('m')), 1n))
    expect(errno(user.preserveFd(session, -1, 1n))).toBe('EEXIST')
  })

  test('PRESERVE_FD: fget -EBADF, O_PATH too', () => {
    const { user, session } = withSession(release)
    expect(errno(user.preserveFd(session, -1, 1n))).toBe('EBADF')
    expect(errno(user.preserveFd(session, value(user.open('/tmp', { path: true })), 1n))).toBe('EBADF')
  })

  test('PRESERVE_FD: no handler -ENOENT', () => {
    const { user, session, device } = withSession(release)
    const linked = value(user.open('/tmp/file', { create: 0o600 }))
    for (const fd of [
      value(user.open('/dev/null')),
      value(user.open('/tmp', { readOnly: true })),
      session,
      device(),
      linked,
    ]) {
      expect(errno(user.preserveFd(session, fd, 1n))).toBe('ENOENT')
    }
    user.unlink('/tmp/file')
    expect(errno(user.preserveFd(session, linked, 1n))).toBeUndefined()
  })

  test('PRESERVE_FD: what fails leaves no page and no reference behind', () => {
    const machine = withSession(release, [recordingHandler([], { failsToPreserve: [7n] })])
    const { user, session } = machine
    const files = [fakeFile(user, 7n), value(user.open('/dev/null'))]
    const before = census(machine)
    for (const fd of [...files, -1]) user.preserveFd(session, fd, 1n)
    expect(census(machine)).toEqual(before)
    expect(files.map((fd) => user.files.find(fd)?.refs)).toEqual([1, 1])
  })

  test('success: LUO holds a file reference until unpreserve', () => {
    const { user, session, kernel } = withSession(release)
    const fd = value(user.memfdCreate('m'))
    value(user.ftruncate(fd, 4096))
    const file = user.files.find(fd)
    value(user.preserveFd(session, fd, 1n))
    expect(file?.refs).toBe(2)
    user.close(fd)
    expect(file?.refs).toBe(1)
    const free = kernel.pages.census().free
    user.close(session)
    expect(file?.refs).toBe(0)
    expect(kernel.pages.census().free).toBeGreaterThan(free)
  })

  test('tokens are unique per session only', () => {
    const { user, session, device } = withSession(release)
    const other = value(user.createSession(device(), 'other'))
    expect(errno(user.preserveFd(session, value(user.memfdCreate('a')), 1n))).toBeUndefined()
    expect(errno(user.preserveFd(other, value(user.memfdCreate('b')), 1n))).toBeUndefined()
  })

  test('memfd preserve freezes the mapping until unpreserve; data writes stay allowed', () => {
    const { user, session } = withSession(release)
    const fd = value(user.memfdCreate('m'))
    value(user.ftruncate(fd, 10000))
    value(user.preserveFd(session, fd, 1n))
    expect(errno(user.ftruncate(fd, 10001))).toBe('EPERM')
    expect(errno(user.ftruncate(fd, 9999))).toBe('EPERM')
    expect(errno(user.ftruncate(fd, 10000))).toBeUndefined()
    expect(errno(user.fallocate(fd, 0, 0, 1))).toBe('EPERM')
    expect(errno(user.fallocate(fd, 3, 0, 1))).toBe('EPERM')
    expect(errno(user.pwrite(fd, new Uint8Array(2), 9999))).toBe('EPERM')
    expect(user.pwrite(fd, new Uint8Array(2), 9998)).toBe(2)
    user.close(session)
    expect(errno(user.ftruncate(fd, 20000))).toBeUndefined()
  })

  test('RETRIEVE_FD: unknown token or empty list -ENOENT', () => {
    const old = withSession(release)
    value(old.user.preserveFd(old.session, value(old.user.memfdCreate('m')), 1n))
    value(old.user.createSession(old.device(), 'empty'))
    const { user, device } = kexecLive(old)
    const lu = device()
    expect(errno(user.retrieveFd(value(user.retrieveSession(lu, 's')), 2n))).toBe('ENOENT')
    expect(errno(user.retrieveFd(value(user.retrieveSession(lu, 'empty')), 1n))).toBe('ENOENT')
  })

  test('RETRIEVE_FD: any order; a repeat gives a new fd for the same file', () => {
    const old = preserved(release, [1n, 2n, 3n])
    const calls: string[] = []
    const { user, device } = kexecLive(old, { handlers: [recordingHandler(calls)] })
    const session = value(user.retrieveSession(device(), 's'))
    const [third, first, again] = [3n, 1n, 3n].map((token) => value(user.retrieveFd(session, token)))
    expect(calls).toEqual(['retrieve 3', 'retrieve 1'])
    expect(again).not.toBe(third)
    expect(user.files.find(again ?? -1)).toBe(user.files.find(third ?? -1))
    expect(user.files.find(first ?? -1)).not.toBe(user.files.find(third ?? -1))
  })

  test('a failed retrieve is sticky and returns the same error for ever', () => {
    const old = preserved(release, [1n])
    const calls: string[] = []
    const handlers = [recordingHandler(calls, { failsToRetrieve: [1n] })]
    const { user, device } = kexecLive(old, { handlers })
    const session = value(user.retrieveSession(device(), 's'))
    expect([1, 2, 3].map(() => errno(user.retrieveFd(session, 1n)))).toEqual(['EIO', 'EIO', 'EIO'])
    expect(calls).toEqual(['retrieve 1'])
  })

  test("finish of a file: LUO's reference goes, the user's stays", () => {
    const old = preserved(release, [1n])
    const { user, device } = kexecLive(old, { handlers: [recordingHandler([])] })
    const session = value(user.retrieveSession(device(), 's'))
    const fd = value(user.retrieveFd(session, 1n))
    expect(user.files.find(fd)?.refs).toBe(2)
    value(user.finish(session))
    expect(user.files.find(fd)?.refs).toBe(1)
  })

  test('registration: required callbacks -EINVAL, the same string again -EEXIST', () => {
    const { live, console } = bootLive(release)
    const { ops } = recordingHandler([])
    const { can_preserve: _left, ...incomplete } = ops
    const register = live.luo?.registerFileHandler.bind(live.luo)
    expect(errno(register?.({ compatible: 'x', ops: incomplete }))).toBe('EINVAL')
    expect(errno(register?.({ compatible: 'x', ops }))).toBeUndefined()
    expect(errno(register?.({ compatible: 'x', ops }))).toBe('EEXIST')
    const said = "luo: File handler registration failed: Compatible string 'x' already registered."
    expect(console().at(-1)).toBe(said)
  })

  test('registration without live update: -EOPNOTSUPP', () => {
    const { live } = bootLive(release, { cmdline: 'kho=on' })
    expect(errno(live.luo?.registerFileHandler(recordingHandler([])))).toBe('EOPNOTSUPP')
  })
})

describe.each(LUO_RELEASES)('%s: 8.5 PRESERVE_FD, order of tests', (release) => {
  const isBlocks = (BLOCKS as readonly string[]).includes(release)

  test('block growth comes before fget: without memory a bad descriptor is -ENOMEM in 7.2+, -EBADF before', () => {
    const { user, session, kernel } = withSession(release)
    kernel.pages.failAt(1)
    expect(errno(user.preserveFd(session, -1, 1n))).toBe(isBlocks ? 'ENOMEM' : 'EBADF')
  })

  test('fget comes before the file area, the file area before the handler search', () => {
    const { user, session, kernel } = withSession(release)
    const file = value(user.open('/dev/null'))
    kernel.pages.failAt(1)
    expect(errno(user.preserveFd(session, file, 1n))).toBe('ENOMEM')
    expect(errno(user.preserveFd(session, file, 1n))).toBe('ENOENT')
  })

  test('the handler comes last: without memory for the file its FLBs are given back', () => {
    const calls: string[] = []
    const handler = recordingHandler(calls)
    const machine = bootLive(release, { handlers: [handler] })
    const { user, live, kernel } = machine
    const flb = recordingFlb(calls, 'a')
    if (live.luo?.flbs) value(live.luo.registerFlb(handler, flb))
    const session = value(user.createSession(machine.device(), 's'))
    const fd = fakeFile(user, 1n)
    const before = census(machine)
    kernel.pages.failObjectAt(isBlocks ? 2 : 1)
    expect(errno(user.preserveFd(session, fd, 1n))).toBe('ENOMEM')
    expect(calls).toEqual(live.luo?.flbs ? ['a preserve', 'a unpreserve 4096'] : [])
    expect(census(machine)).toEqual(before)
    expect(user.files.find(fd)?.refs).toBe(1)
    expect(errno(user.preserveFd(session, fd, 1n))).toBeUndefined()
  })
})

test.each(KNOWS_PRESERVED)('%s: 8.5 PRESERVE_FD: -EBUSY comes before the FLBs of the handler', (release) => {
  const calls: string[] = []
  const handler = recordingHandler(calls)
  const { user, live, session } = withSession(release, [handler])
  const fd = fakeFile(user, 1n)
  value(user.preserveFd(session, fd, 1n))
  const flb = recordingFlb(calls, 'a')
  value(live.luo?.registerFlb(handler, flb))
  expect(errno(user.preserveFd(session, fd, 2n))).toBe('EBUSY')
  expect(calls).toEqual(['preserve 1'])
  value(user.preserveFd(session, fakeFile(user, 3n), 3n))
  expect(errno(user.preserveFd(session, fd, 2n))).toBe('EBUSY')
  expect(live.luo?.flbs?.outgoingCount(flb)).toBe(1)
})

test.each(ARRAYS)(
  '%s: 8.5 PRESERVE_FD: capacity -ENOSPC at 128 files, behind the token, before the file is looked at',
  (release) => {
    const { user, session } = withSession(release)
    for (let token = 0n; token < 128n; token++) {
      value(user.preserveFd(session, value(user.memfdCreate('m')), token))
    }
    expect(errno(user.preserveFd(session, value(user.memfdCreate('m')), 128n))).toBe('ENOSPC')
    expect(errno(user.preserveFd(session, -1, 128n))).toBe('ENOSPC')
    expect(errno(user.preserveFd(session, -1, 0n))).toBe('EEXIST')
  },
)

test.each(BLOCKS)('%s: 8.5 130 files in one session, all of them retrieved', (release) => {
  const old = withSession(release)
  for (let token = 0n; token < 130n; token++) {
    value(old.user.preserveFd(old.session, value(old.user.memfdCreate('m')), token))
  }
  const { user, device } = kexecLive(old)
  const session = value(user.retrieveSession(device(), 's'))
  for (let token = 0n; token < 130n; token++) value(user.retrieveFd(session, token))
})

test.each(KNOWS_PRESERVED)('%s: 8.5 same object already preserved anywhere: -EBUSY, by inode', (release) => {
  const { user, session, device } = withSession(release)
  const other = value(user.createSession(device(), 'other'))
  const fd = value(user.open('/tmp/file', { create: 0o600 }))
  const second = value(user.open('/tmp/file'))
  user.unlink('/tmp/file')
  value(user.preserveFd(session, fd, 1n))
  expect(errno(user.preserveFd(session, fd, 2n))).toBe('EBUSY')
  expect(errno(user.preserveFd(other, second, 1n))).toBe('EBUSY')
  user.close(session)
  expect(errno(user.preserveFd(other, second, 1n))).toBeUndefined()
})

test.each(KNOWS_PRESERVED)('%s: 8.5 retrieved and not yet finished: -EBUSY', (release) => {
  const old = withSession(release)
  value(old.user.preserveFd(old.session, value(old.user.memfdCreate('m')), 1n))
  const { user, device } = kexecLive(old)
  const lu = device()
  const session = value(user.retrieveSession(lu, 's'))
  const fd = value(user.retrieveFd(session, 1n))
  const fresh = value(user.createSession(lu, 'new'))
  expect(errno(user.preserveFd(fresh, fd, 1n))).toBe('EBUSY')
  value(user.finish(session))
  expect(errno(user.preserveFd(fresh, fd, 1n))).toBeUndefined()
})

test.each(UNTIL_70)(
  '%s: 8.5 the same file twice is not detected; one unpreserve thaws it for both',
  (release) => {
    const { user, session, device } = withSession(release)
    const other = value(user.createSession(device(), 'other'))
    const fd = value(user.memfdCreate('m', 2))
    value(user.ftruncate(fd, 4096))
    value(user.preserveFd(session, fd, 1n))
    value(user.preserveFd(other, fd, 1n))
    user.close(session)
    expect(errno(user.ftruncate(fd, 8192))).toBeUndefined()
    expect(errno(user.addSeals(fd, memfdSeals.WRITE))).toBe('EBUSY')
  },
)

test.each(KNOWS_PRESERVED)('%s: 8.5 a module that goes away has no handler; files pin it', (release) => {
  const owner = new KernelModule()
  const machine = withSession(release, [{ ...recordingHandler([]), owner }])
  const { user, session } = machine
  value(user.preserveFd(session, fakeFile(user, 1n), 1n))
  expect(owner.refs).toBe(1)
  owner.live = false
  expect(errno(user.preserveFd(session, fakeFile(user, 2n), 2n))).toBe('ENOENT')
  user.close(session)
  expect(owner.refs).toBe(0)
})

test.each(UNTIL_70)(
  '%s: registration pins the module, and is refused while there are sessions',
  (release) => {
    const { live, device, user } = bootLive(release)
    const owner = new KernelModule()
    const handler = { ...recordingHandler([]), owner }
    value(live.luo?.registerFileHandler(handler))
    expect(owner.refs).toBe(1)
    owner.live = false
    const late = { ...recordingHandler([], { compatible: 'late' }), owner }
    expect(errno(live.luo?.registerFileHandler(late))).toBe('EAGAIN')
    const session = value(user.createSession(device(), 's'))
    expect(errno(live.luo?.registerFileHandler(recordingHandler([], { compatible: 'x' })))).toBe('EBUSY')
    expect(errno(live.luo?.unregisterFileHandler(handler))).toBe('EBUSY')
    user.close(session)
    expect(errno(live.luo?.unregisterFileHandler(handler))).toBeUndefined()
    expect(owner.refs).toBe(0)
  },
)

test('linux-6.19: 8.6 a handler that is missing leaves the rest of the session out, and no error is kept', () => {
  const handlers = ['known', 'unknown'].map((compatible) => recordingHandler([], { compatible }))
  const old = withSession('linux-6.19', handlers)
  for (const [token, compatible] of [
    [1n, 'known'],
    [2n, 'unknown'],
    [3n, 'known'],
  ] as const) {
    value(old.user.preserveFd(old.session, fakeFile(old.user, token, compatible), token))
  }
  value(old.user.createSession(old.device(), 'behind'))
  const { user, console } = kexecLive(old, { handlers: handlers.slice(0, 1) })
  const lu = value(user.open('/dev/liveupdate'))
  expect(console().at(-1)).toBe("luo: No registered handler for compatible 'unknown'")
  user.close(lu)
  const again = value(user.open('/dev/liveupdate'))
  const session = value(user.retrieveSession(again, 's'))
  const answers = [1n, 2n, 3n].map((token) => errno(user.retrieveFd(session, token)))
  expect(answers).toEqual([undefined, 'ENOENT', 'ENOENT'])
  expect(errno(user.retrieveSession(again, 'behind'))).toBeUndefined()
})

test.each(LUO_RELEASES.slice(1))(
  '%s: 8.6 a handler that is missing: every open of the device -EIO',
  (release) => {
    const old = preserved(release, [1n])
    const { user, console } = kexecLive(old)
    expect([1, 2].map(() => errno(user.open('/dev/liveupdate')))).toEqual(['EIO', 'EIO'])
    expect(console().slice(-2)).toEqual([
      "luo: No registered handler for compatible 'fake-v1'",
      'luo: Failed to deserialize files for session [s] -2',
    ])
  },
)

describe.each(LUO_RELEASES)('%s: allocation failures', (release) => {
  test('at each n-th page of a preserve nothing leaks, and the next try goes well', () => {
    for (let n = 1; ; n++) {
      const machine = withSession(release)
      const { user, session, kernel } = machine
      const fd = value(user.memfdCreate('m', 2))
      value(user.ftruncate(fd, 4 * 4096))
      value(user.pwrite(fd, new Uint8Array(4 * 4096).fill(1), 0))
      const before = census(machine)
      kernel.pages.failAt(n)
      const answer = errno(user.preserveFd(session, fd, 1n))
      if (answer === undefined) {
        expect(n).toBeGreaterThan(4)
        return
      }
      expect(answer).toBe('ENOMEM')
      expect(census(machine)).toEqual(before)
      expect(errno(user.ftruncate(fd, 5 * 4096))).toBeUndefined()
      expect(errno(user.preserveFd(session, fd, 1n))).toBeUndefined()
    }
  })
})

/** A kernel with a session `s` and files of a driver of its own under these tokens. */
function preserved(release: LuoRelease, tokens: readonly bigint[]) {
  const machine = withSession(release, [recordingHandler([])])
  for (const token of tokens) {
    value(machine.user.preserveFd(machine.session, fakeFile(machine.user, token), token))
  }
  return machine
}
