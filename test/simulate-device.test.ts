/** /dev/liveupdate: its opens, and the framing of the ioctls on it and on sessions (wire format, 8.1, 8.3, 8.6). */
import { describe, expect, test } from 'vitest'
import { layoutOf } from '../abi/layout.ts'
import {
  type LiveupdateIoctl,
  liveupdateIoctlCreateSession,
  liveupdateIoctls,
  liveupdateSessionPreserveFd,
} from '../abi/liveupdate.ts'
import type { StructType } from '../abi/schema.ts'
import { encodeStruct } from '../encode/write.ts'
import {
  bootLive,
  errno,
  kexecLive,
  type LiveMachine,
  LUO_RELEASES,
  type LuoRelease,
  SINCE_71,
  takeOverLive,
  UNTIL_70,
  value,
} from './support/live.ts'
import { addressOf } from './support/luo-memory.ts'
import { fakeFile, recordingHandler } from './support/recording.ts'

const CREATE = liveupdateIoctls.LIVEUPDATE_IOCTL_CREATE_SESSION
const {
  LIVEUPDATE_SESSION_PRESERVE_FD: PRESERVE,
  LIVEUPDATE_SESSION_RETRIEVE_FD: RETRIEVE,
  LIVEUPDATE_SESSION_FINISH: FINISH,
} = liveupdateIoctls
const CHECKS_SIDES = SINCE_71

function createSession(name: string, size = 72, tail: readonly number[] = []): Uint8Array {
  const bytes = new TextEncoder().encode(name)
  const struct = encodeStruct(liveupdateIoctlCreateSession, { size, fd: 0, name: bytes }, { pageSize: 4096 })
  return Uint8Array.from([...struct, ...tail])
}

describe.each(LUO_RELEASES)('%s: 8.3 /dev/liveupdate', (release) => {
  const boot = () => bootLive(release)

  test('second open: -EBUSY', () => {
    const { user } = boot()
    const fd = value(user.open('/dev/liveupdate'))
    expect(errno(user.open('/dev/liveupdate'))).toBe('EBUSY')
    expect(errno(user.close(fd))).toBeUndefined()
    expect(errno(user.open('/dev/liveupdate'))).toBeUndefined()
  })

  test('a duplicate of the descriptor keeps the device open', () => {
    const { user } = boot()
    const fd = value(user.open('/dev/liveupdate'))
    const copy = value(user.dup(fd))
    user.close(fd)
    expect(errno(user.open('/dev/liveupdate'))).toBe('EBUSY')
    user.close(copy)
    expect(errno(user.open('/dev/liveupdate'))).toBeUndefined()
  })

  test('closing the device does not touch sessions', () => {
    const { user, device, live } = boot()
    const lu = device()
    const session = value(user.createSession(lu, 's'))
    user.close(lu)
    expect(live.luo?.sessions.outgoing.size).toBe(1)
    expect(errno(user.preserveFd(session, value(user.memfdCreate('m')), 1n))).toBeUndefined()
  })

  test('a descriptor without ioctls: -ENOTTY; none at all, or O_PATH: -EBADF', () => {
    const { user } = boot()
    const memfd = value(user.memfdCreate('m'))
    const path = value(user.open('/tmp', { path: true }))
    expect(errno(user.ioctl(memfd, CREATE.request, createSession('s')))).toBe('ENOTTY')
    expect(errno(user.ioctl(99, CREATE.request, createSession('s')))).toBe('EBADF')
    expect(errno(user.ioctl(path, CREATE.request, createSession('s')))).toBe('EBADF')
  })

  test('without live update there is no device', () => {
    const { user } = bootLive(release, { cmdline: 'kho=on' })
    expect(errno(user.open('/dev/liveupdate'))).toBe('ENOENT')
  })

  test('without KHO live update is switched off, and the log says so', () => {
    const { user, console } = bootLive(release, { cmdline: 'liveupdate=on' })
    expect(errno(user.open('/dev/liveupdate'))).toBe('ENOENT')
    expect(console()).toEqual(['luo: Disabling liveupdate because KHO is disabled'])
  })
})

describe.each(LUO_RELEASES)('%s: 8.3 framing', (release) => {
  describe.each(['the device', 'a session'] as const)('on %s', (on) => {
    const opened = () => (on === 'the device' ? onDevice(release) : onSession(release))

    test('unknown nr: -EINVAL, before the memory is looked at', () => {
      const { user, fd, unknown } = opened()
      for (const nr of unknown) expect(errno(user.ioctl(fd, 0xba00 + nr, new Uint8Array(0)))).toBe('EINVAL')
    })

    test('size unreadable: -EFAULT, before direction and type bits', () => {
      const { user, fd, request } = opened()
      expect(errno(user.ioctl(fd, request + 0xc048_0000, new Uint8Array(3)))).toBe('EFAULT')
    })

    test('nr known but cmd differs: -ENOIOCTLCMD, which the user sees as ENOTTY, before the size', () => {
      const { user, fd, request, argument } = opened()
      for (const bits of [0xc048_0000, 0x4048_0000, 0x0100, 0x01_0000]) {
        expect(errno(user.ioctl(fd, request + bits, argument(1)))).toBe('ENOTTY')
      }
    })

    test('size < minimum: -EINVAL', () => {
      const { user, fd, request, minimum, argument } = opened()
      expect(errno(user.ioctl(fd, request, argument(minimum - 1)))).toBe('EINVAL')
      expect(errno(user.ioctl(fd, request, argument(minimum)))).toBeUndefined()
    })

    test('size larger with a zero tail is accepted, with another -E2BIG', () => {
      const { user, fd, request, minimum, argument, done } = opened()
      expect(errno(user.ioctl(fd, request, argument(minimum + 4, [0, 0, 0, 0])))).toBeUndefined()
      expect(errno(user.ioctl(fd, request, argument(minimum + 4, [0, 0, 0, 1])))).toBe('E2BIG')
      expect(done()).toBe(1)
    })

    test('size larger than the memory behind it: -EFAULT', () => {
      const { user, fd, request, minimum, argument } = opened()
      expect(errno(user.ioctl(fd, request, argument(minimum + 8)))).toBe('EFAULT')
    })
  })
})

test.each(CHECKS_SIDES)('%s: 8.3 wrong direction: -EINVAL, tested before the size', (release) => {
  const { user, created, retrieved } = bothSides(release)
  expect(errno(user.retrieveFd(created, 1n))).toBe('EINVAL')
  expect(errno(user.finish(created))).toBe('EINVAL')
  expect(errno(user.preserveFd(retrieved, fakeFile(user, 5n), 5n))).toBe('EINVAL')
  const tooLong = (session: number, { request, struct }: LiveupdateIoctl) =>
    errno(user.ioctl(session, request, withTail(struct)))
  expect([PRESERVE, RETRIEVE, FINISH].map((command) => tooLong(created, command))).toEqual([
    'E2BIG',
    'EINVAL',
    'EINVAL',
  ])
  expect([PRESERVE, RETRIEVE, FINISH].map((command) => tooLong(retrieved, command))).toEqual([
    'EINVAL',
    'E2BIG',
    'E2BIG',
  ])
  expect(errno(user.retrieveFd(retrieved, 1n))).toBeUndefined()
})

test.each(UNTIL_70)('%s: 8.3 wrong direction is carried out on the wrong list', (release) => {
  const { user, created, retrieved, calls } = bothSides(release)
  value(user.preserveFd(created, fakeFile(user, 4n), 4n))
  expect(errno(user.retrieveFd(created, 2n))).toBe('ENOENT')
  expect(errno(user.finish(created))).toBeUndefined()
  expect(errno(user.preserveFd(created, fakeFile(user, 4n), 4n))).toBeUndefined()
  expect(errno(user.preserveFd(retrieved, fakeFile(user, 5n), 5n))).toBeUndefined()
  expect(errno(user.preserveFd(retrieved, fakeFile(user, 5n), 1n))).toBe('EEXIST')
  expect(calls).toEqual(['preserve 4', 'can_finish 4 0', 'finish 4 0', 'preserve 4', 'preserve 5'])
  for (const session of [created, retrieved]) {
    for (const { request, struct } of [PRESERVE, RETRIEVE, FINISH]) {
      expect(errno(user.ioctl(session, request, withTail(struct)))).toBe('E2BIG')
    }
  }
})

test.each(LUO_RELEASES)('%s: 8.1 LUO sessions at the first open of the device', (release) => {
  const old = bootLive(release)
  value(old.user.createSession(old.device(), 's'))
  const { kernel, live, device } = kexecLive(old)
  const { preserved } = kernel.pages.census()
  expect(live.luo?.sessions.incoming.size).toBe(0)
  device()
  expect(live.luo?.sessions.incoming.size).toBe(1)
  expect(kernel.pages.census().preserved).toBeLessThan(preserved)
})

test.each(LUO_RELEASES)('%s: 8.3 first open: an error -> -EIO for this and all later opens', (release) => {
  const old = bootLive(release)
  const lu = old.device()
  for (const name of ['first', 'other', 'third']) value(old.user.createSession(lu, name))
  const handover = value(old.kernel.leave())
  const second = addressOf(old, 'other')
  if (!handover || second === undefined) throw new Error('the sessions are handed over')
  handover.ram.write(second, new TextEncoder().encode('first'))
  const { user, console } = takeOverLive(handover, { release })
  expect([1, 2, 3].map(() => errno(user.open('/dev/liveupdate')))).toEqual(['EIO', 'EIO', 'EIO'])
  expect(console().filter((line) => line.startsWith('luo: Failed'))).toEqual([
    'luo: Failed to insert session [first] -17',
  ])
})

describe.each(LUO_RELEASES)('%s: 8.6 an allocation failure in the first open', (release) => {
  test('of a session: -EIO; 6.19 opens next time with the sessions it had, later releases never', () => {
    const old = bootLive(release)
    const lu = old.device()
    for (const name of ['one', 'two', 'three']) value(old.user.createSession(lu, name))
    const { user, kernel, live, console } = kexecLive(old)
    kernel.pages.failObjectAt(2)
    expect(errno(user.open('/dev/liveupdate'))).toBe('EIO')
    expect(console().at(-1)).toBe('luo: Failed to allocate session [two] during deserialization -12')
    const forgets = release === 'linux-6.19'
    expect(errno(user.open('/dev/liveupdate'))).toBe(forgets ? undefined : 'EIO')
    expect(errno(user.open('/dev/liveupdate'))).toBe(forgets ? 'EBUSY' : 'EIO')
    expect([...(live.luo?.sessions.incoming.keys() ?? [])]).toEqual(['one'])
  })

  test('of a file: 6.19 ignores it and keeps the files it had, later releases answer -EIO for ever', () => {
    const old = bootLive(release, { handlers: [recordingHandler([])] })
    const created = value(old.user.createSession(old.device(), 's'))
    for (const token of [1n, 2n]) value(old.user.preserveFd(created, fakeFile(old.user, token), token))
    const { user, kernel } = kexecLive(old, { handlers: [recordingHandler([])] })
    kernel.pages.failObjectAt(release === 'linux-7.2' || release === 'linux-7.3' ? 4 : 3)
    const lu = user.open('/dev/liveupdate')
    if (release !== 'linux-6.19') {
      expect([lu, user.open('/dev/liveupdate')].map(errno)).toEqual(['EIO', 'EIO'])
      return
    }
    const session = value(user.retrieveSession(value(lu), 's'))
    expect([1n, 2n].map((token) => errno(user.retrieveFd(session, token)))).toEqual([undefined, 'ENOENT'])
  })
})

test('GET_NAME is there from 7.2 on', () => {
  const answers = LUO_RELEASES.map((release) => {
    const { user, device } = bootLive(release)
    const answer = user.getName(value(user.createSession(device(), 'name of it')))
    return errno(answer) ?? answer
  })
  expect(answers).toEqual(['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'name of it', 'name of it'])
})

interface Framed extends LiveMachine {
  readonly fd: number
  readonly request: number
  /** Size of the struct, all of which is demanded. */
  readonly minimum: number
  /** Numbers that no ioctl has here. */
  readonly unknown: readonly number[]
  /** A command that can be carried out, with this size and more bytes behind it. */
  argument(size: number, tail?: readonly number[]): Uint8Array
  /** Commands that were carried out. */
  done(): number
}

function onDevice(release: LuoRelease): Framed {
  const machine = bootLive(release)
  let names = 0
  return {
    ...machine,
    fd: machine.device(),
    request: CREATE.request,
    minimum: 72,
    unknown: [0x02, 0x30, 0x40, 0xff],
    argument: (size, tail = []) => createSession(`s${names++}`, size, tail),
    done: () => machine.live.luo?.sessions.outgoing.size ?? 0,
  }
}

function onSession(release: LuoRelease): Framed {
  const calls: string[] = []
  const machine = bootLive(release, { handlers: [recordingHandler(calls)] })
  const { user } = machine
  const fd = value(user.createSession(machine.device(), 's'))
  let token = 0n
  const argument = (size: number, tail: readonly number[] = []): Uint8Array => {
    token++
    const values = { size, fd: fakeFile(user, token), token }
    return Uint8Array.from([
      ...encodeStruct(liveupdateSessionPreserveFd, values, { pageSize: 4096 }),
      ...tail,
    ])
  }
  const unknown = [0x00, 0x3f, 0x44, 0xff]
  const done = () => calls.length
  return { ...machine, fd, request: PRESERVE.request, minimum: 16, unknown, argument, done }
}

/** A struct of zeros with four bytes behind it that are not. */
function withTail(struct: StructType): Uint8Array {
  const { size } = layoutOf(struct, { pageSize: 4096 })
  const bytes = new Uint8Array(size + 4).fill(1, size)
  bytes[0] = size + 4
  return bytes
}

/** A kernel with a session that it created, and one with a file that came from the kernel before. */
function bothSides(release: LuoRelease) {
  const old = bootLive(release, { handlers: [recordingHandler([])] })
  const left = value(old.user.createSession(old.device(), 'old'))
  value(old.user.preserveFd(left, fakeFile(old.user, 1n), 1n))
  const calls: string[] = []
  const machine = kexecLive(old, { handlers: [recordingHandler(calls)] })
  const lu = machine.device()
  const created = value(machine.user.createSession(lu, 'new'))
  return { ...machine, calls, created, retrieved: value(machine.user.retrieveSession(lu, 'old')) }
}
