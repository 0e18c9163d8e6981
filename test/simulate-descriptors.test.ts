/**
 * Calls on descriptors that are no memfds, and on O_PATH descriptors. What is expected is what Linux 6.19.11,
 * 7.1.13 and 7.3.4 answered on arm64 to the same calls, all the same but where a release is named.
 */
import { expect, test } from 'vitest'
import { type Answer, failed } from '../simulate/answer.ts'
import type { Userspace } from '../simulate/userspace.ts'
import { bootLive, errno, kexecLive, LUO_RELEASES, SINCE_71, UNTIL_70, value } from './support/live.ts'

const MAX = 2n ** 63n - 1n
const bytes = new Uint8Array(16).fill(5)

/** Name of the error, or the value as text. */
function told(answer: Answer<unknown>): string {
  return failed(answer) ? String(answer.errno) : String(answer)
}

/** One answer for each call on an open file. */
function answersOf(user: Userspace, fd: number): Record<string, string> {
  return {
    read: told(user.read(fd, 16)),
    pread: told(user.pread(fd, 16, 0)),
    write: told(user.write(fd, bytes)),
    pwrite: told(user.pwrite(fd, bytes, 0)),
    'write nothing': told(user.write(fd, new Uint8Array(0))),
    'pwrite before the start': told(user.pwrite(fd, bytes, -256)),
    'pwrite past all positions': told(user.pwrite(fd, bytes, MAX - 7n)),
    lseek: told(user.lseek(fd, 5)),
    'lseek SEEK_DATA': told(user.lseek(fd, 0, 'SEEK_DATA')),
    ftruncate: told(user.ftruncate(fd, 5)),
    fallocate: told(user.fallocate(fd, 0, 0, 0x1000)),
    F_ADD_SEALS: told(user.addSeals(fd, 1)),
    F_GET_SEALS: told(user.getSeals(fd)),
  }
}

const open = (user: Userspace, fd: number, options = {}): Answer<number> =>
  user.open(`/proc/self/fd/${fd}`, options)

test.each(LUO_RELEASES)('%s: a session', (release) => {
  const { user, device } = bootLive(release)
  const fd = value(user.createSession(device(), 'a'))
  expect(answersOf(user, fd)).toEqual({
    read: 'EINVAL',
    pread: 'ESPIPE',
    write: 'EINVAL',
    pwrite: 'ESPIPE',
    'write nothing': 'EINVAL',
    'pwrite before the start': 'EINVAL',
    'pwrite past all positions': 'ESPIPE',
    lseek: 'ESPIPE',
    'lseek SEEK_DATA': 'ESPIPE',
    ftruncate: 'EINVAL',
    fallocate: 'ENODEV',
    F_ADD_SEALS: 'EINVAL',
    F_GET_SEALS: 'EINVAL',
  })
  expect(value(user.fstat(fd))).toMatchObject({ mode: 0o600, nlink: 1, size: 0n, blocks: 0n })
  expect(errno(open(user, fd))).toBe('ENXIO')
  const path = value(open(user, fd, { path: true }))
  expect(value(user.fstat(path)).mode).toBe(0o600)
  expect(errno(open(user, path))).toBe('ENXIO')
})

test.each(LUO_RELEASES)('%s: /dev/liveupdate', (release) => {
  const { user, device } = bootLive(release)
  const fd = device()
  expect(answersOf(user, fd)).toEqual({
    read: 'EINVAL',
    pread: 'EINVAL',
    write: 'EINVAL',
    pwrite: 'EINVAL',
    'write nothing': 'EINVAL',
    'pwrite before the start': 'EINVAL',
    'pwrite past all positions': 'EINVAL',
    lseek: 'ESPIPE',
    'lseek SEEK_DATA': 'ESPIPE',
    ftruncate: 'EINVAL',
    fallocate: 'ENODEV',
    F_ADD_SEALS: 'EINVAL',
    F_GET_SEALS: 'EINVAL',
  })
  expect(value(user.fstat(fd))).toMatchObject({ mode: 0o20600, nlink: 1, size: 0n, blocks: 0n })
  expect(errno(open(user, fd))).toBe('EBUSY')
})

test.each(LUO_RELEASES)('%s: O_PATH of /dev/liveupdate does not open it', (release) => {
  const { user } = bootLive(release)
  const path = value(user.open('/dev/liveupdate', { path: true }))
  expect(value(user.fstat(path)).mode).toBe(0o20600)
  const fd = value(open(user, path, { readOnly: true }))
  expect(errno(user.open('/dev/liveupdate'))).toBe('EBUSY')
  expect([user.write(fd, bytes), user.pwrite(fd, bytes, 0), user.read(fd, 16)].map(errno)).toEqual([
    'EBADF',
    'EBADF',
    'EINVAL',
  ])
  user.close(fd)
  expect(errno(open(user, path))).toBeUndefined()
})

test.each(LUO_RELEASES)('%s: /dev/null', (release) => {
  const { user, device } = bootLive(release)
  const fd = value(user.open('/dev/null'))
  expect(answersOf(user, fd)).toEqual({
    read: '',
    pread: '',
    write: '16',
    pwrite: '16',
    'write nothing': '0',
    'pwrite before the start': 'EINVAL',
    'pwrite past all positions': 'EINVAL',
    lseek: '0',
    'lseek SEEK_DATA': '0',
    ftruncate: 'EINVAL',
    fallocate: 'ENODEV',
    F_ADD_SEALS: 'EINVAL',
    F_GET_SEALS: 'EINVAL',
  })
  expect(value(user.fstat(fd))).toMatchObject({ mode: 0o20666, nlink: 1, size: 0n, blocks: 0n })
  const again = value(open(user, value(open(user, fd, { path: true })), { readOnly: true }))
  expect([user.write(again, bytes), user.pwrite(again, bytes, 0)].map(errno)).toEqual(['EBADF', 'EBADF'])
  expect([value(user.read(again, 16)).length, user.lseek(again, -256), user.lseek(again, MAX)]).toEqual([
    0,
    0n,
    0n,
  ])
  expect(errno(user.addSeals(again, 1))).toBe('EPERM')
  const session = value(user.createSession(device(), 'a'))
  expect(errno(user.preserveFd(session, again, 1n))).toBe('ENOENT')
})

test.each(LUO_RELEASES)('%s: the directory /tmp', (release) => {
  const { user, device } = bootLive(release)
  const path = value(user.open('/tmp', { path: true }))
  expect(errno(user.open('/tmp'))).toBe('EISDIR')
  expect(errno(open(user, path))).toBe('EISDIR')
  const fd = value(open(user, path, { readOnly: true }))
  expect(answersOf(user, fd)).toMatchObject({
    read: 'EISDIR',
    write: 'EBADF',
    pwrite: 'EBADF',
    ftruncate: 'EINVAL',
    fallocate: 'EBADF',
    F_ADD_SEALS: 'EPERM',
    F_GET_SEALS: 'EINVAL',
  })
  const session = value(user.createSession(device(), 'a'))
  expect([user.preserveFd(session, fd, 1n), user.preserveFd(session, path, 1n)].map(errno)).toEqual([
    'ENOENT',
    'EBADF',
  ])
  const status = () => value(user.fstat(path))
  expect(status()).toMatchObject({ mode: 0o41777, nlink: 2, size: 40n, blocks: 0n })
  for (const name of ['x', 'y']) value(user.open(`/tmp/${name}`, { create: 0o600 }))
  expect(status()).toMatchObject({ nlink: 2, size: 80n })
  user.unlink('/tmp/y')
  expect(status().size).toBe(60n)
})

test.each(LUO_RELEASES)('%s: O_PATH names only what is there', (release) => {
  const { user } = bootLive(release)
  for (const path of ['/nonexistent/dir', '/tmp/none', '/proc/self/fd/99']) {
    expect(errno(user.open(path, { path: true }))).toBe('ENOENT')
    expect(errno(user.open(path, { path: true, create: 0o600 }))).toBe('ENOENT')
  }
  const file = value(user.open('/tmp/x', { create: 0o600 }))
  const path = value(user.open('/tmp/x', { path: true }))
  expect(value(user.fstat(path)).ino).toBe(value(user.fstat(file)).ino)
  expect(user.write(value(open(user, path)), bytes.subarray(0, 5))).toBe(5)
  expect(value(user.fstat(file))).toMatchObject({ mode: 0o100600, size: 5n })
})

test.each(LUO_RELEASES)('%s: an O_PATH descriptor of a memfd', (release) => {
  const { user, device } = bootLive(release)
  const session = value(user.createSession(device(), 'a'))
  const memfd = value(user.memfdCreate('m'))
  value(user.ftruncate(memfd, 0x5000))
  const path = value(open(user, memfd, { path: true }))
  expect(new Set(Object.values(answersOf(user, path)).filter((answer) => answer !== 'EINVAL'))).toEqual(
    new Set(['EBADF']),
  )
  expect(value(user.fstat(path))).toEqual(value(user.fstat(memfd)))
  expect(errno(user.preserveFd(session, path, 3n))).toBe('EBADF')
  const readOnly = value(open(user, value(user.dup(path)), { readOnly: true }))
  expect(errno(user.ftruncate(readOnly, 5))).toBe('EINVAL')
  expect(value(user.fstat(readOnly)).size).toBe(0x5000n)
})

const preserveTwice = (release: string) => {
  const machine = bootLive(release)
  const { user, device } = machine
  const session = value(user.createSession(device(), 'a'))
  const memfd = value(user.memfdCreate('m'))
  const path = value(open(user, memfd, { path: true }))
  const reopened = value(open(user, path))
  value(user.preserveFd(session, reopened, 1n))
  return { machine, second: errno(user.preserveFd(session, memfd, 2n)) }
}

test.each(SINCE_71)('%s: a memfd that was preserved through O_PATH is preserved', (release) => {
  const { machine, second } = preserveTwice(release)
  expect(second).toBe('EBUSY')
  const { user, device } = kexecLive(machine)
  const incoming = value(user.retrieveSession(device(), 'a'))
  const memfd = value(user.retrieveFd(incoming, 1n))
  const path = value(open(user, memfd, { path: true }))
  const reopened = value(open(user, path))
  user.close(memfd)
  const session = value(user.createSession(device(), 'b'))
  const preserve = (fd: number) => errno(user.preserveFd(session, fd, 1n))
  expect([preserve(path), preserve(reopened)]).toEqual(['EBADF', 'EBUSY'])
  value(user.finish(incoming))
  expect([preserve(path), preserve(reopened)]).toEqual(['EBADF', undefined])
})

test.each(UNTIL_70)('%s: a memfd is preserved once by each of its open files', (release) => {
  expect(preserveTwice(release).second).toBeUndefined()
})
