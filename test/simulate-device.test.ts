/** /dev/liveupdate and the framing of its ioctls, as every LUO release has them (wire format, 8.3). */
import { describe, expect, test } from 'vitest'
import { liveupdateIoctlCreateSession, liveupdateIoctls } from '../abi/liveupdate.ts'
import { encodeStruct } from '../encode/write.ts'
import { bootLive, errno, LUO_RELEASES, SINCE_71, UNTIL_70, value } from './support/live.ts'

const CREATE = liveupdateIoctls.LIVEUPDATE_IOCTL_CREATE_SESSION
const { LIVEUPDATE_SESSION_PRESERVE_FD: PRESERVE, LIVEUPDATE_SESSION_RETRIEVE_FD: RETRIEVE } =
  liveupdateIoctls
const CHECKS_SIDES = SINCE_71

function createSession(name: string, size = 72, tail: readonly number[] = []): Uint8Array {
  const bytes = new TextEncoder().encode(name)
  const struct = encodeStruct(liveupdateIoctlCreateSession, { size, fd: 0, name: bytes }, { pageSize: 4096 })
  return Uint8Array.from([...struct, ...tail])
}

describe.each(LUO_RELEASES)('%s', (release) => {
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

  test('unknown nr: -EINVAL, before the memory is looked at', () => {
    const { user, device } = boot()
    const lu = device()
    const session = value(user.createSession(lu, 's'))
    const nothing = new Uint8Array(0)
    for (const nr of [0x02, 0x30, 0x40, 0xff])
      expect(errno(user.ioctl(lu, 0xba00 | nr, nothing))).toBe('EINVAL')
    for (const nr of [0x00, 0x3f, 0x44, 0xff]) {
      expect(errno(user.ioctl(session, 0xba00 | nr, nothing))).toBe('EINVAL')
    }
  })

  test('size unreadable: -EFAULT, before direction and type bits', () => {
    const { user, device } = boot()
    expect(errno(user.ioctl(device(), 0xc048_ba00, new Uint8Array(3)))).toBe('EFAULT')
  })

  test('nr known but cmd differs: -ENOIOCTLCMD, which the user sees as ENOTTY', () => {
    const { user, device } = boot()
    const lu = device()
    for (const request of [0xc048_ba00, 0x4048_ba00, 0xbb00, 0x01_ba00]) {
      expect(errno(user.ioctl(lu, request, createSession('s', 1)))).toBe('ENOTTY')
    }
  })

  test('size < minimum: -EINVAL', () => {
    const { user, device } = boot()
    const lu = device()
    expect(errno(user.ioctl(lu, CREATE.request, createSession('s', 71)))).toBe('EINVAL')
    expect(errno(user.ioctl(lu, CREATE.request, createSession('s', 72)))).toBeUndefined()
  })

  test('size larger with a zero tail is accepted, with another -E2BIG', () => {
    const { user, device, live } = boot()
    const lu = device()
    expect(errno(user.ioctl(lu, CREATE.request, createSession('zero', 76, [0, 0, 0, 0])))).toBeUndefined()
    expect(errno(user.ioctl(lu, CREATE.request, createSession('one', 76, [0, 0, 0, 1])))).toBe('E2BIG')
    expect(live.luo?.sessions.outgoing.size).toBe(1)
  })

  test('size larger than the memory behind it: -EFAULT', () => {
    const { user, device } = boot()
    expect(errno(user.ioctl(device(), CREATE.request, createSession('s', 80)))).toBe('EFAULT')
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

test.each(CHECKS_SIDES)('%s: wrong direction: -EINVAL, tested before the size', (release) => {
  const { user, device } = bootLive(release)
  const session = value(user.createSession(device(), 's'))
  const short = new Uint8Array([1, 0, 0, 0])
  expect(errno(user.ioctl(session, RETRIEVE.request, short))).toBe('EINVAL')
  expect(errno(user.finish(session))).toBe('EINVAL')
  expect(errno(user.ioctl(session, PRESERVE.request, short))).toBe('EINVAL')
  expect(errno(user.retrieveFd(session, 1n))).toBe('EINVAL')
})

test.each(UNTIL_70)('%s: wrong direction is carried out on the wrong list', (release) => {
  const { user, device } = bootLive(release)
  const session = value(user.createSession(device(), 's'))
  value(user.preserveFd(session, value(user.memfdCreate('m')), 1n))
  expect(errno(user.retrieveFd(session, 2n))).toBe('ENOENT')
  expect(errno(user.finish(session))).toBeUndefined()
  expect(errno(user.preserveFd(session, value(user.memfdCreate('m')), 1n))).toBeUndefined()
})

test('GET_NAME is there from 7.2 on', () => {
  const answers = LUO_RELEASES.map((release) => {
    const { user, device } = bootLive(release)
    const answer = user.getName(value(user.createSession(device(), 'name of it')))
    return errno(answer) ?? answer
  })
  expect(answers).toEqual(['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'name of it', 'name of it'])
})
