/** memfds: what is preserved of them, and what each release restores (wire format, 7.5 and 8.5). */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { memfdFolio, memfdSeals, memfdV1, memfdV2 } from '../abi/memfd.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { fallocateFlags, memfdCreateFlags } from '../abi/shmem.ts'
import { failed } from '../simulate/answer.ts'
import { Blocked } from '../simulate/blocked.ts'
import { readStored, writeFields } from '../simulate/stored.ts'
import {
  bootLive,
  errno,
  kexecLive,
  type LiveMachine,
  type LiveOptions,
  LUO_RELEASES,
  type LuoRelease,
  SINCE_71,
  UNTIL_70,
  value,
} from './support/live.ts'

const { SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, EXEC } = memfdSeals
const WITH_SEALS = SINCE_71
const PAGE = 4096

function withSession(release: LuoRelease, options: LiveOptions = {}) {
  const machine = bootLive(release, options)
  return { ...machine, session: value(machine.user.createSession(machine.device(), 's')) }
}

function memfd({ user }: LiveMachine, size: number, flags: number = memfdCreateFlags.ALLOW_SEALING): number {
  const fd = value(user.memfdCreate('m', flags))
  value(user.ftruncate(fd, size))
  return fd
}

/** The file that the next kernel makes of one. */
function handedOver(
  release: LuoRelease,
  prepare: (machine: LiveMachine, fd: number) => void,
  flags?: number,
) {
  const old = withSession(release)
  const fd = memfd(old, 0, flags)
  prepare(old, fd)
  value(old.user.preserveFd(old.session, fd, 1n))
  const next = kexecLive(old)
  const session = value(next.user.retrieveSession(next.device(), 's'))
  return { ...next, session, fd: value(next.user.retrieveFd(session, 1n)) }
}

/** Where the record of the only preserved file stands: a page with its size in the declared field. */
function recordOf(machine: LiveMachine, release: LuoRelease, size: bigint): PhysAddr {
  const struct = UNTIL_70.includes(release) ? memfdV1 : memfdV2
  const found = [...machine.kernel.pages.allocations()].find(({ pa, order }) => {
    const record = order === 0 ? readStored(machine.kernel, struct, pa) : undefined
    return record?.size === size && record.nr_folios > 0n && record.folios.total_pages > 0
  })
  return found?.pa ?? phys(0)
}

describe.each(LUO_RELEASES)('%s', (release) => {
  test('size and position come back; the mode does not', () => {
    const { user, fd } = handedOver(release, ({ user: owner }, file) => {
      value(owner.ftruncate(file, 10000))
      value(owner.lseek(file, 1234))
    })
    const { size, mode, nlink } = value(user.fstat(fd))
    expect([size, mode, nlink]).toEqual([10000n, 0o100777, 0])
    expect(value(user.lseek(fd, 0, 'SEEK_CUR'))).toBe(1234n)
  })

  test('the position is that of the freeze, not of preserve', () => {
    const old = withSession(release)
    const fd = memfd(old, 100)
    value(old.user.preserveFd(old.session, fd, 1n))
    value(old.user.lseek(fd, 77))
    const { user, device } = kexecLive(old)
    const retrieved = value(user.retrieveFd(value(user.retrieveSession(device(), 's')), 1n))
    expect(value(user.lseek(retrieved, 0, 'SEEK_CUR'))).toBe(77n)
  })

  test('an empty file has no folios, and comes back empty', () => {
    const { user, fd } = handedOver(release, () => {})
    expect(value(user.fstat(fd)).size).toBe(0n)
    expect(value(user.fstat(fd)).blocks).toBe(0n)
  })

  test('contents come back, written before and after preserve', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 * PAGE }),
        fc.array(fc.tuple(fc.nat(6 * PAGE), fc.uint8Array({ minLength: 1, maxLength: 2 * PAGE })), {
          maxLength: 5,
        }),
        fc.nat(5),
        (size, writes, before) => {
          const expected = new Uint8Array(size)
          const old = withSession(release)
          const fd = memfd(old, size)
          for (const [index, [at, bytes]] of writes.entries()) {
            if (index === before) value(old.user.preserveFd(old.session, fd, 1n))
            const inside = bytes.subarray(0, Math.max(0, size - at))
            if (inside.length === 0) continue
            expect(old.user.pwrite(fd, inside, at)).toBe(inside.length)
            expected.set(inside, at)
          }
          if (before >= writes.length) value(old.user.preserveFd(old.session, fd, 1n))
          const next = kexecLive(old)
          const session = value(next.user.retrieveSession(next.device(), 's'))
          const found = next.user.pread(value(next.user.retrieveFd(session, 1n)), size + 1, 0)
          expect(failed(found) ? found : Buffer.from(found).equals(Buffer.from(expected))).toBe(true)
        },
      ),
      { numRuns: 25 },
    )
  })

  test('holes are filled at preserve; one record per folio, ascending, flags DIRTY|UPTODATE', () => {
    const machine = withSession(release)
    const { user, session, kernel } = machine
    const fd = memfd(machine, 5 * PAGE - 1)
    value(user.pwrite(fd, Uint8Array.of(1), 3 * PAGE))
    expect(value(user.fstat(fd)).blocks).toBe(8n)
    value(user.preserveFd(session, fd, 1n))
    expect(value(user.fstat(fd)).blocks).toBe(40n)
    const struct = UNTIL_70.includes(release) ? memfdV1 : memfdV2
    const record = readStored(kernel, struct, recordOf(machine, release, BigInt(5 * PAGE - 1)))
    expect(record.nr_folios).toBe(5n)
    const chunk = kernel.ram.read(phys(record.folios.first), 16)
    const array = phys(new DataView(chunk.buffer).getBigUint64(8, true))
    const folios = [0, 1, 2, 3, 4].map((at) => readStored(kernel, memfdFolio, phys(array + BigInt(16 * at))))
    expect(folios.map(({ index, flags }) => [index, flags])).toEqual(
      [0, 1, 2, 3, 4].map((at) => [BigInt(at), 3n]),
    )
    for (const { pfn } of folios) expect(kernel.pages.orderOf(phys(pfn * BigInt(PAGE)))).toBe(0)
  })

  test('blocks beyond EOF are not saved', () => {
    const { user, fd } = handedOver(release, ({ user: owner }, file) => {
      value(owner.ftruncate(file, 100))
      value(owner.fallocate(file, fallocateFlags.KEEP_SIZE, 0, 8 * PAGE))
    })
    expect(value(user.fstat(fd)).blocks).toBe(8n)
  })

  test('a large folio goes over whole, past the end of the file, as one unit', () => {
    const old = withSession(release, { huge: 'always' })
    const fd = memfd(old, 0)
    const bytes = Uint8Array.from({ length: 3 << 20 }, (_, at) => (at * 7) >>> 8)
    expect(old.user.pwrite(fd, bytes, 0)).toBe(bytes.length)
    value(old.user.preserveFd(old.session, fd, 1n))
    const next = kexecLive(old)
    const session = value(next.user.retrieveSession(next.device(), 's'))
    const retrieved = value(next.user.retrieveFd(session, 1n))
    expect(value(next.user.fstat(retrieved)).blocks).toBe(BigInt((4 << 20) / 512))
    const found = value(next.user.pread(retrieved, 4 << 20, 0))
    expect(Buffer.from(found).equals(Buffer.from(bytes))).toBe(true)
  })

  test('no handler for hugetlb memfds, linked files: -ENOENT', () => {
    const machine = withSession(release)
    const { user, session } = machine
    const huge = value(user.memfdCreate('h', memfdCreateFlags.HUGETLB))
    expect(errno(user.preserveFd(session, huge, 1n))).toBe('ENOENT')
  })

  test('an exec seal and no exec bits: 0x20 at once', () => {
    const machine = withSession(release)
    const fd = memfd(machine, 1, memfdCreateFlags.NOEXEC_SEAL)
    expect(value(machine.user.getSeals(fd))).toBe(EXEC)
    expect(value(machine.user.fstat(fd)).mode).toBe(0o100666)
  })

  test('seal WRITE on a preserved file: its folios are pinned, -EBUSY; an empty one takes it', () => {
    const machine = withSession(release)
    const { user, session } = machine
    const [full, empty] = [memfd(machine, PAGE), memfd(machine, 0)]
    for (const [token, fd] of [full, empty].entries()) value(user.preserveFd(session, fd, BigInt(token)))
    expect(errno(user.addSeals(full, WRITE))).toBe('EBUSY')
    expect(errno(user.addSeals(full, FUTURE_WRITE))).toBeUndefined()
    expect(errno(user.addSeals(empty, WRITE))).toBeUndefined()
    user.close(session)
    expect(errno(user.addSeals(full, WRITE))).toBeUndefined()
  })

  test('a file gives all its memory back: finished unretrieved, or retrieved, finished and closed', () => {
    const leftBehind = (size: number, retrieves: boolean): unknown => {
      const old = withSession(release)
      if (size > 0) value(old.user.preserveFd(old.session, memfd(old, size), 1n))
      const { kernel, user, device } = kexecLive(old)
      const session = value(user.retrieveSession(device(), 's'))
      if (retrieves) value(user.close(value(user.retrieveFd(session, 1n))))
      value(user.finish(session))
      value(user.close(session))
      const { allocated, preserved } = kernel.pages.census()
      return { allocated, preserved }
    }
    const nothing = leftBehind(0, false)
    expect(leftBehind(20 * PAGE, false)).toEqual(nothing)
    expect(leftBehind(20 * PAGE, true)).toEqual(nothing)
  })

  test('a later folio that is not preserved: said on the console; -EIO for ever, in 6.19 a file that lacks it', () => {
    const { next, session } = damaged(release, (kernel, array) => {
      writeWord(kernel, phys(array + 16n), 0x300_0000_0000_1234n)
    })
    const answer = UNTIL_70.includes(release) ? undefined : 'EIO'
    expect([1, 2].map(() => errno(next.user.retrieveFd(session, 1n)))).toEqual([answer, answer])
    expect(next.console()).toContain('memfd_luo: Unable to restore folio at physical address: 1234000')
  })

  test('bad flags and long names are refused before a descriptor is asked for', () => {
    const { user } = bootLive(release)
    user.files.limit = 4
    value(user.memfdCreate('last'))
    expect(errno(user.memfdCreate('m'))).toBe('EMFILE')
    expect(errno(user.memfdCreate('m', 1 << 12))).toBe('EINVAL')
    expect(errno(user.memfdCreate('x'.repeat(250)))).toBe('EINVAL')
  })

  test('what the kernel dies of: no call throws, that one and all later ones block', () => {
    const { next, session } = damaged(release, (kernel, _, record) => {
      writeFields(kernel, UNTIL_70.includes(release) ? memfdV1 : memfdV2, record, { nr_folios: 1n << 20n })
    })
    const { user, kernel } = next
    const memfd = value(user.memfdCreate('m'))
    const answer = user.retrieveFd(session, 1n)
    expect(kernel.state).toBe('crashed')
    expect(answer).toBeInstanceOf(Blocked)
    const later = [
      user.open('/dev/liveupdate'),
      user.createSession(next.device(), 'x'),
      user.finish(session),
      user.close(session),
      user.pread(memfd, 1, 0),
      user.fstat(memfd),
      user.getSeals(memfd),
      user.lseek(memfd, 0),
    ]
    expect([answer, ...later].map(errno)).toEqual(Array(9).fill('blocks'))
    expect(kernel.leave()).toBeUndefined()
  })

  test('of the folios that discarded files lack, only ten are named in a boot', () => {
    const named = (nrFolios: number): number => {
      const { next, session } = damaged(
        release,
        (kernel, array) => {
          for (let at = 0; at < nrFolios; at++) {
            writeWord(kernel, phys(array + BigInt(16 * at)), 0x300_0000_0000_1234n + BigInt(at))
          }
        },
        25,
      )
      value(next.user.finish(session))
      return next.console().filter((line) => line.includes('Unable to restore folio')).length
    }
    expect([3, 10, 11, 25].map(named)).toEqual([3, 10, 10, 10])
  })

  test('the same index twice: -EEXIST', () => {
    const { next, session } = damaged(release, (kernel, array) => {
      writeWord(kernel, phys(array + 16n + 8n), 0n)
    })
    expect(errno(next.user.retrieveFd(session, 1n))).toBe('EEXIST')
    const said = 'memfd_luo: shmem: failed to add to page cache folio index 1: -17'
    expect(next.console()).toContain(said)
  })

  test('pfn 0 is a hole; unknown flag bits are ignored', () => {
    const { next, session } = damaged(release, (kernel, array) => {
      const word = new DataView(kernel.ram.read(array, 8).buffer).getBigUint64(0, true)
      writeWord(kernel, array, word | (0xff0n << 52n))
      writeWord(kernel, phys(array + 16n), 0n)
    })
    const fd = value(next.user.retrieveFd(session, 1n))
    const bytes = value(next.user.pread(fd, 4 * PAGE, 0))
    expect([0, 1, 2, 3].map((page) => bytes[page * PAGE])).toEqual([9, 0, 9, 9])
  })

  test('folios without UPTODATE read as zeros', () => {
    const { next, session } = damaged(release, (kernel, array) => {
      const word = new DataView(kernel.ram.read(array, 8).buffer).getBigUint64(0, true)
      writeWord(kernel, array, word & ((1n << 52n) - 1n))
    })
    const fd = value(next.user.retrieveFd(session, 1n))
    const bytes = value(next.user.pread(fd, 4 * PAGE, 0))
    expect([0, 1, 2, 3].map((page) => bytes[page * PAGE])).toEqual([0, 9, 9, 9])
  })

  test('an array that cannot be rebuilt: -EINVAL', () => {
    const struct = UNTIL_70.includes(release) ? memfdV1 : memfdV2
    const { next, session } = damaged(release, (kernel, _array, record) => {
      const folios = phys(record + BigInt(struct === memfdV1 ? 24 : 32))
      kernel.ram.write(phys(folios + 8n), Uint8Array.of(2, 0, 0, 0))
    })
    expect(errno(next.user.retrieveFd(session, 1n))).toBe('EINVAL')
  })
})

/** A file of pages of nines whose records were changed before the next kernel reads them. */
function damaged(
  release: LuoRelease,
  damage: (kernel: LiveMachine['kernel'], array: PhysAddr, record: PhysAddr) => void,
  nrPages = 4,
) {
  const old = withSession(release)
  const fd = memfd(old, nrPages * PAGE)
  value(old.user.pwrite(fd, new Uint8Array(nrPages * PAGE).fill(9), 0))
  value(old.user.preserveFd(old.session, fd, 1n))
  const at = recordOf(old, release, BigInt(nrPages * PAGE))
  const record = readStored(old.kernel, UNTIL_70.includes(release) ? memfdV1 : memfdV2, at)
  const chunk = old.kernel.ram.read(phys(record.folios.first), 16)
  damage(old.kernel, phys(new DataView(chunk.buffer).getBigUint64(8, true)), at)
  const next = kexecLive(old)
  return { next, session: value(next.user.retrieveSession(next.device(), 's')) }
}

function writeWord(kernel: LiveMachine['kernel'], pa: PhysAddr, word: bigint): void {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, word, true)
  kernel.ram.write(pa, bytes)
}

describe('seals', () => {
  test.each(WITH_SEALS)('%s: come back; an exec seal pulls in the others', (release) => {
    const sealed = (seals: number) => {
      const { user, fd } = handedOver(release, (machine, file) => value(machine.user.addSeals(file, seals)))
      return value(user.getSeals(fd))
    }
    expect(sealed(0)).toBe(0)
    expect(sealed(SHRINK | GROW)).toBe(SHRINK | GROW)
    expect(sealed(SEAL | WRITE)).toBe(SEAL | WRITE)
    const { user, fd } = handedOver(release, () => {}, memfdCreateFlags.NOEXEC_SEAL)
    expect(value(user.getSeals(fd))).toBe(EXEC | SHRINK | GROW | WRITE | FUTURE_WRITE)
    expect(value(user.fstat(fd)).mode).toBe(0o100777)
  })

  test.each(UNTIL_70)('%s knows no seals: every file comes back with sealing off', (release) => {
    const seals = [0, SHRINK, WRITE].map((wanted) => {
      const { user, fd } = handedOver(release, (machine, file) => value(machine.user.addSeals(file, wanted)))
      value(user.ftruncate(fd, 2 * PAGE))
      expect(errno(user.addSeals(fd, GROW))).toBe('EPERM')
      return value(user.getSeals(fd))
    })
    expect(seals).toEqual([SEAL, SEAL, SEAL])
  })

  test.each(WITH_SEALS)('%s: a seal that is not known is refused by the reader: -EOPNOTSUPP', (release) => {
    const old = withSession(release)
    value(old.user.preserveFd(old.session, memfd(old, PAGE), 1n))
    const at = recordOf(old, release, BigInt(PAGE))
    writeFields(old.kernel, memfdV2, at, { seals: 0x40 })
    const next = kexecLive(old)
    const session = value(next.user.retrieveSession(next.device(), 's'))
    expect(errno(next.user.retrieveFd(session, 1n))).toBe('EOPNOTSUPP')
  })

  test.each(WITH_SEALS)('%s: more than UINT_MAX pages: -EFBIG', (release) => {
    const machine = withSession(release)
    const fd = memfd(machine, 0)
    value(machine.user.ftruncate(fd, (1n << 32n) * 4096n))
    expect(errno(machine.user.preserveFd(machine.session, fd, 1n))).toBe('EFBIG')
    expect(errno(machine.user.ftruncate(fd, 0))).toBeUndefined()
  })

  test.each(LUO_RELEASES)('%s: more pages than memory: -ENOMEM, and the file is thawed', (release) => {
    const machine = withSession(release, { ram: [{ start: phys(0), end: 1n << 27n }] })
    const fd = memfd(machine, 1 << 27)
    expect(errno(machine.user.preserveFd(machine.session, fd, 1n))).toBe('ENOMEM')
    expect(machine.console()).toContain('memfd_luo: failed to pin folios: -12')
    expect(errno(machine.user.ftruncate(fd, 0))).toBeUndefined()
  })
})
