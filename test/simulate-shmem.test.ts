/** Files of tmpfs on their own: seals, holes and descriptors, as mm/shmem.c and fs/file.c have them. */
import { expect, test } from 'vitest'
import { memfdSeals } from '../abi/memfd.ts'
import { memfdCreateFlags } from '../abi/shmem.ts'
import { bootLive, errno, LUO_RELEASES, value } from './support/live.ts'

test.each(LUO_RELEASES)('%s: a GROW seal refuses writes past the end', (release) => {
  const { user } = bootLive(release)
  const fd = value(user.memfdCreate('m', memfdCreateFlags.ALLOW_SEALING))
  value(user.ftruncate(fd, 100))
  value(user.addSeals(fd, memfdSeals.GROW))
  expect(errno(user.pwrite(fd, new Uint8Array(2), 99))).toBe('EPERM')
  expect(user.pwrite(fd, new Uint8Array(2), 98)).toBe(2)
})

test('a punched hole zeroes parts of pages and keeps what stands around it', () => {
  const { user } = bootLive('linux-7.3')
  const fd = value(user.memfdCreate('m'))
  value(user.pwrite(fd, new Uint8Array(3 * 4096).fill(7), 0))
  value(user.fallocate(fd, 3, 100, 2 * 4096))
  const bytes = value(user.pread(fd, 3 * 4096, 0))
  expect([99, 100, 4096, 8291, 8292].map((at) => bytes[at])).toEqual([7, 0, 0, 0, 7])
  expect(value(user.fstat(fd)).blocks).toBe(16n)
})

test.each(LUO_RELEASES)('%s: an ioctl that fails gives its descriptor up', (release) => {
  const { user, device } = bootLive(release)
  const lu = device()
  const first = value(user.createSession(lu, 'a'))
  expect(errno(user.createSession(lu, 'a'))).toBe('EEXIST')
  expect(value(user.createSession(lu, 'b'))).toBe(first + 1)
})
