/** kernel_kexec() to liveupdate_reboot(): freeze, its rollback, and what holds afterwards (wire format, 8.7). */
import { describe, expect, test } from 'vitest'
import { khoBlockHeader } from '../abi/kho-block.ts'
import { luoV5 } from '../abi/luo.ts'
import { type Answer, Failure } from '../simulate/answer.ts'
import type { FileHandler } from '../simulate/luo-file.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { readStored, writeFields } from '../simulate/stored.ts'
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
import { luoBlob, newlyHeld, writtenFlbs } from './support/luo-memory.ts'
import { fakeFile, recordingFlb, recordingHandler, type Troubles } from './support/recording.ts'

const KEEPS_LOCK = SINCE_71
const BLOCKS: readonly LuoRelease[] = ['linux-7.2', 'linux-7.3']
const WITH_FLBS: readonly LuoRelease[] = LUO_RELEASES.slice(1)

/** Sessions `0`, `1`, … with files of these handles each. */
function withFiles(release: string, sessions: readonly (readonly bigint[])[], troubles: Troubles = {}) {
  const calls: string[] = []
  const machine = bootLive(release, { handlers: [recordingHandler(calls, troubles)] })
  if (!machine.kernel.spec.hasLuo) return { ...machine, calls, lu: -1, fds: [] }
  const lu = machine.device()
  const fds = sessions.map((handles, index) => {
    const session = value(machine.user.createSession(lu, String(index)))
    for (const handle of handles) {
      value(machine.user.preserveFd(session, fakeFile(machine.user, handle), handle))
    }
    return session
  })
  calls.length = 0
  return { ...machine, calls, lu, fds }
}

test.each(simulatedReleases)('%s: 8.7 no image: -EINVAL, and no file is frozen', (release) => {
  const { kernel, calls } = withFiles(release, [[1n]])
  expect(errno(kernel.reboot() ?? new Failure('EIO'))).toBe('EINVAL')
  value(kernel.load())
  value(kernel.unload())
  expect(errno(kernel.reboot() ?? new Failure('EIO'))).toBe('EINVAL')
  expect(calls).toEqual([])
  expect(kernel.state).toBe('running')
  value(kernel.load())
  expect(value(kernel.reboot() ?? new Failure('EIO')).release).toBe(release)
  expect(calls).toEqual(kernel.spec.hasLuo ? ['freeze 1'] : [])
  expect(kernel.state).toBe('left')
})

describe.each(LUO_RELEASES)('%s: 8.7 Reboot', (release) => {
  test('kexec lock busy: -EBUSY for who loads, unloads or reboots meanwhile', () => {
    const answers: unknown[] = []
    const meanwhile = recordingHandler([])
    const handler: FileHandler = {
      ...meanwhile,
      ops: {
        ...meanwhile.ops,
        freeze: () => {
          answers.push(
            errno(kernel.load()),
            errno(kernel.unload()),
            errno(kernel.reboot() ?? new Failure('EIO')),
          )
        },
      },
    }
    const { kernel, user, device } = bootLive(release, { handlers: [handler] })
    const session = value(user.createSession(device(), 'vm'))
    value(user.preserveFd(session, fakeFile(user, 1n), 1n))
    expect(value(kernel.leave() ?? new Failure('EIO')).boot).toBeDefined()
    expect(answers).toEqual(['EBUSY', 'EBUSY', 'EBUSY'])
  })

  test('a freeze that fails gives the kexec lock back, and the image stays loaded', () => {
    const { kernel } = withFiles(release, [[1n], [2n]], { failsToFreeze: [2n] })
    value(kernel.load())
    expect(errno(kernel.reboot() ?? new Failure('EIO'))).toBe('EIO')
    expect(errno(kernel.reboot() ?? new Failure('EIO'))).toBe('EIO')
    expect(errno(kernel.load())).toBeUndefined()
  })

  test('sessions in creation order, files in preservation order', () => {
    const { calls, live } = withFiles(release, [[2n, 1n], [], [9n, 5n]])
    expect(errno(live.reboot())).toBeUndefined()
    expect(calls).toEqual(['freeze 2', 'freeze 1', 'freeze 9', 'freeze 5'])
  })

  test('freeze failure: own files 0..k-1 forward, then earlier sessions in reverse, their files forward', () => {
    const sessions = [[1n, 2n], [3n, 4n], [5n, 6n, 7n], [8n]]
    const { calls, live, console } = withFiles(release, sessions, { failsToFreeze: [7n] })
    expect(errno(live.reboot())).toBe('EIO')
    expect(calls).toEqual([
      ...[1, 2, 3, 4, 5, 6, 7].map((handle) => `freeze ${handle}`),
      ...[5, 6, 3, 4, 1, 2].map((handle) => `unfreeze ${handle}`),
    ])
    expect(console().at(-1)).toBe('luo: Freeze failed for token[0x7] handler[fake-v1] err[-5]')
  })

  test('freeze failure leaves pages and references as they were, and everything goes on', () => {
    const machine = withFiles(release, [[1n, 2n], [3n]], { failsToFreeze: [3n] })
    const { user, live, fds, lu } = machine
    const memfd = value(user.memfdCreate('m'))
    value(user.ftruncate(memfd, 10000))
    value(user.preserveFd(fds[0] ?? -1, memfd, 100n))
    const before = census(machine)
    const refs = user.files.find(memfd)?.refs
    expect(errno(live.reboot())).toBe('EIO')
    expect(census(machine)).toEqual(before)
    expect(user.files.find(memfd)?.refs).toBe(refs)
    expect(errno(user.createSession(lu, 'after'))).toBeUndefined()
    for (const fd of fds) user.close(fd)
    expect(errno(user.ftruncate(memfd, 20000))).toBeUndefined()
  })

  test('freeze failure wipes the records: a session without files finds none in a slot that had some', () => {
    const machine = withFiles(release, [[1n, 2n], [], [3n]], { failsToFreeze: [3n] })
    const { user, live, fds, kernel } = machine
    expect(errno(live.reboot())).toBe('EIO')
    expect(kernel.state).toBe('running')
    for (const index of [0, 2]) user.close(fds[index] ?? -1)
    const next = kexecLive(machine, { handlers: [recordingHandler([])] })
    const lu = next.device()
    for (const name of ['0', '2']) expect(errno(next.user.retrieveSession(lu, name))).toBe('ENOENT')
    const session = value(next.user.retrieveSession(lu, '1'))
    for (const handle of [1n, 2n]) expect(errno(next.user.retrieveFd(session, handle))).toBe('ENOENT')
  })

  test('freeze may change the handle; a positive answer counts as success and drops the change', () => {
    for (const [freezeAnswer, expected] of [
      [0, 'retrieve 11'],
      [1, 'retrieve 1'],
    ] as const) {
      const old = withFiles(release, [[1n]], { freezeAdds: 10n, freezeAnswer })
      const calls: string[] = []
      const { user, device } = kexecLive(old, { handlers: [recordingHandler(calls)] })
      value(user.retrieveFd(value(user.retrieveSession(device(), '0')), 1n))
      expect(calls).toEqual([expected])
    }
  })

  test('the number of live updates counts up', () => {
    const second = kexecLive(bootLive(release))
    const third = kexecLive(second)
    const said = (machine: { console(): readonly string[] }) =>
      machine.console().filter((line) => line.startsWith('luo: Retrieved'))
    expect(said(second)).toEqual(['luo: Retrieved live update data, liveupdate number: 1'])
    expect(said(third)).toEqual(['luo: Retrieved live update data, liveupdate number: 2'])
  })
})

const OPERATIONS: Readonly<Record<string, (machine: ReturnType<typeof onBothSides>) => Answer<unknown>>> = {
  CREATE: ({ user, lu }) => user.createSession(lu, 'x'),
  RETRIEVE_SESSION: ({ user, lu }) => user.retrieveSession(lu, 'x'),
  PRESERVE_FD: ({ user, created }) => user.preserveFd(created, -1, 5n),
  RETRIEVE_FD: ({ user, retrieved }) => user.retrieveFd(retrieved, 1n),
  FINISH: ({ user, retrieved }) => user.finish(retrieved),
  'close of a created session': ({ user, created }) => user.close(created),
  'close of a retrieved session': ({ user, retrieved }) => user.close(retrieved),
  'a second reboot': ({ kernel }) => kernel.leave(),
}

test.each(KEEPS_LOCK)('%s: 8.7 after success any later session operation blocks', (release) => {
  const operations = Object.entries(OPERATIONS)
  if (BLOCKS.includes(release)) {
    operations.push(
      ['GET_NAME of a created session', ({ user, created }) => user.getName(created)],
      ['GET_NAME of a retrieved session', ({ user, retrieved }) => user.getName(retrieved)],
    )
  }
  for (const [name, operation] of operations) {
    const machine = onBothSides(release)
    expect(errno(machine.live.reboot())).toBeUndefined()
    expect(errno(operation(machine)), name).toBe('blocks')
    expect(machine.kernel.state).toBe('running')
  }
})

test.each(KEEPS_LOCK)('%s: 8.7 what is refused before the lock is asked for does not block', (release) => {
  const { user, live, lu, created, retrieved } = onBothSides(release)
  expect(errno(live.reboot())).toBeUndefined()
  expect(errno(user.createSession(lu, ''))).toBe('EINVAL')
  expect(errno(user.finish(created))).toBe('EINVAL')
  expect(errno(user.retrieveFd(created, 1n))).toBe('EINVAL')
  expect(errno(user.preserveFd(retrieved, -1, 1n))).toBe('EINVAL')
})

test.each(UNTIL_70)('%s: 8.7 after success the lock is free', (release) => {
  const { user, live, lu } = withFiles(release, [[1n]])
  expect(errno(live.reboot())).toBeUndefined()
  expect(errno(user.createSession(lu, 'x'))).toBeUndefined()
})

test.each(UNTIL_70)(
  '%s: 8.7 a session without files keeps the file list of the one that had its slot before',
  (release) => {
    const machine = withFiles(release, [[1n], []])
    const { user, live, fds } = machine
    value(live.reboot())
    user.close(fds[0] ?? -1)
    const next = kexecLive(machine, { handlers: [recordingHandler([])] })
    next.user.open('/dev/liveupdate')
    const said = next
      .console()
      .filter((line) => line.startsWith("luo: No registered handler for compatible '"))
    expect(said).toHaveLength(1)
  },
)

test.each(UNTIL_70)('%s: 8.7 a second serialization freezes everything again', (release) => {
  const { live, calls } = withFiles(release, [[1n], [2n]])
  value(live.reboot())
  calls.length = 0
  value(live.reboot())
  expect(calls).toEqual(['freeze 1', 'freeze 2'])
})

test.each(BLOCKS)(
  '%s: 8.7 sessions_pa is set to 0 at the start, and the counts stay as reserved',
  (release) => {
    const machine = withFiles(release, [], { failsToFreeze: [2n] })
    const { kernel, live, user, lu } = machine
    const ser = luoBlob(machine)
    const sessionsPa = (): bigint => readStored(kernel, luoV5, ser).sessions_pa
    const [block] = newlyHeld(machine, () => {
      for (const name of ['0', '1']) value(user.createSession(lu, name))
    })
    if (!block) throw new Error('sessions have a block')
    const header = () => readStored(kernel, khoBlockHeader, block.pa)
    const last = value(user.createSession(lu, '2'))
    value(user.preserveFd(last, fakeFile(user, 2n), 2n))
    value(user.createSession(lu, '3'))
    writeFields(kernel, luoV5, ser, { sessions_pa: 0x1234_5000n })
    expect(errno(live.reboot())).toBe('EIO')
    expect(sessionsPa()).toBe(0n)
    expect(header()).toEqual({ next: 0n, count: 3n })
    user.close(last)
    expect(errno(live.reboot())).toBeUndefined()
    expect(sessionsPa()).toBe(block.pa)
    expect(header()).toEqual({ next: 0n, count: 3n })
  },
)

describe.each(UNTIL_70)('%s: 8.7 LUO calls kho_finalize at reboot', (release) => {
  test('its failure is reported as -EAGAIN; the files stay frozen, and a retry freezes everything again', () => {
    const { kernel, live, calls, console } = withFiles(release, [[1n, 2n], [3n]])
    kernel.pages.failAt(1)
    expect(errno(live.reboot())).toBe('EAGAIN')
    expect(console().at(-1)).toBe('luo: kho_finalize failed -12')
    const frozen = ['freeze 1', 'freeze 2', 'freeze 3']
    expect(calls).toEqual(frozen)
    expect([kernel.kho.outgoing.finalized, live.luo?.isFrozen]).toEqual([false, false])
    expect(errno(live.reboot())).toBeUndefined()
    expect(calls).toEqual([...frozen, ...frozen])
    expect([kernel.kho.outgoing.finalized, live.luo?.isFrozen]).toEqual([true, true])
  })

  test('the kexec comes back with -EAGAIN, and goes well the next time', () => {
    const old = withFiles(release, [[1n]])
    value(old.kernel.load())
    old.kernel.pages.failAt(1)
    expect(errno(old.kernel.reboot() ?? new Failure('EIO'))).toBe('EAGAIN')
    expect(old.kernel.state).toBe('running')
    const { user, device } = kexecLive(old, { handlers: [recordingHandler([])] })
    const session = value(user.retrieveSession(device(), '0'))
    expect(errno(user.retrieveFd(session, 1n))).toBeUndefined()
  })

  test('not for files that do not freeze', () => {
    const { kernel, live } = withFiles(release, [[1n]], { failsToFreeze: [1n] })
    expect(errno(live.reboot())).toBe('EIO')
    expect(kernel.kho.outgoing.finalized).toBe(false)
  })
})

test.each(KEEPS_LOCK)('%s: 8.7 the reboot needs no page: kho_finalize is gone', (release) => {
  const { kernel, live } = withFiles(release, [[1n]])
  kernel.pages.failAt(1)
  expect(errno(live.reboot())).toBeUndefined()
})

describe.each(WITH_FLBS)('%s: 8.7 sessions and files, then FLBs', (release) => {
  const withFlb = () => {
    const seen: string[] = []
    const recorded = recordingHandler([])
    const freeze = () => void seen.push(`${writtenFlbs(machine)} FLBs, ${kernel.kho.outgoing.finalized}`)
    const handler: FileHandler = { ...recorded, ops: { ...recorded.ops, freeze } }
    const machine = bootLive(release, { handlers: [handler] })
    const { kernel, live, user } = machine
    value(live.luo?.registerFlb(handler, recordingFlb([], 'a')))
    const session = value(user.createSession(machine.device(), 's'))
    value(user.preserveFd(session, fakeFile(user, 1n), 1n))
    return { ...machine, seen }
  }

  test('no FLB is written and nothing finalized while files freeze', () => {
    const machine = withFlb()
    expect(errno(machine.live.reboot())).toBeUndefined()
    expect(machine.seen).toEqual(['0 FLBs, false'])
    expect(writtenFlbs(machine)).toBe(1n)
  })

  test('then kho_finalize (7.0): when it fails, FLBs are written', () => {
    const machine = withFlb()
    machine.kernel.pages.failAt(1)
    expect(errno(machine.live.reboot())).toBe(UNTIL_70.includes(release) ? 'EAGAIN' : undefined)
    expect(machine.kernel.kho.outgoing.finalized).toBe(false)
    expect(writtenFlbs(machine)).toBe(1n)
  })
})

/** A kernel with a session of its own, and one with a file that came from the kernel before. */
function onBothSides(release: LuoRelease) {
  const machine = kexecLive(withFiles(release, [[1n]]), { handlers: [recordingHandler([])] })
  const lu = machine.device()
  const retrieved = value(machine.user.retrieveSession(lu, '0'))
  return { ...machine, lu, retrieved, created: value(machine.user.createSession(lu, 'new')) }
}
