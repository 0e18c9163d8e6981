/** kernel_kexec() to liveupdate_reboot(): freeze, its rollback, and what holds afterwards (wire format, 8.7). */
import { describe, expect, test } from 'vitest'
import { khoBlockHeader } from '../abi/kho-block.ts'
import { luoV5 } from '../abi/luo.ts'
import { phys } from '../abi/memory.ts'
import { Failure } from '../simulate/answer.ts'
import { Blocked } from '../simulate/blocked.ts'
import { fdtAt, getWord, subnode } from '../simulate/libfdt.ts'
import type { FileHandler } from '../simulate/luo-file.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { readStored } from '../simulate/stored.ts'
import {
  bootLive,
  census,
  errno,
  kexecLive,
  LUO_RELEASES,
  SINCE_71,
  UNTIL_70,
  value,
} from './support/live.ts'
import { fakeFile, recordingHandler, type Troubles } from './support/recording.ts'

const KEEPS_LOCK = SINCE_71
const BLOCKS = ['linux-7.2', 'linux-7.3'] as const

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

test.each(simulatedReleases)('%s: no image: -EINVAL, and no file is frozen', (release) => {
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

describe.each(LUO_RELEASES)('%s', (release) => {
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

  test('freeze failure wipes the records: what is closed before the next try is not there', () => {
    const machine = withFiles(release, [[1n, 2n], [3n]], { failsToFreeze: [3n] })
    const { user, live, fds, device: _device } = machine
    expect(errno(live.reboot())).toBe('EIO')
    user.close(fds[1] ?? -1)
    const calls: string[] = []
    const next = kexecLive(machine, { handlers: [recordingHandler(calls)] })
    const lu = next.device()
    expect(errno(next.user.retrieveSession(lu, '1'))).toBe('ENOENT')
    const session = value(next.user.retrieveSession(lu, '0'))
    for (const handle of [1n, 2n]) value(next.user.retrieveFd(session, handle))
    expect(calls).toEqual(['retrieve 1', 'retrieve 2'])
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

test.each(KEEPS_LOCK)('%s: after success any later session operation blocks', (release) => {
  const { user, live, lu, fds } = withFiles(release, [[1n], []])
  expect(errno(live.reboot())).toBeUndefined()
  const [session = -1, other = -1] = fds
  expect(() => user.createSession(lu, 'x')).toThrow(Blocked)
  expect(() => user.retrieveSession(lu, 'x')).toThrow(Blocked)
  expect(() => user.preserveFd(session, -1, 5n)).toThrow(Blocked)
  expect(() => user.close(other)).toThrow(Blocked)
})

test.each(UNTIL_70)('%s: after success the lock is free', (release) => {
  const { user, live, lu } = withFiles(release, [[1n]])
  expect(errno(live.reboot())).toBeUndefined()
  expect(errno(user.createSession(lu, 'x'))).toBeUndefined()
})

test.each(UNTIL_70)(
  '%s: a session without files keeps the file list of the one that had its slot before',
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

test.each(UNTIL_70)('%s: a second serialization freezes everything again', (release) => {
  const { live, calls } = withFiles(release, [[1n], [2n]])
  value(live.reboot())
  calls.length = 0
  value(live.reboot())
  expect(calls).toEqual(['freeze 1', 'freeze 2'])
})

test.each(BLOCKS)('%s: freeze failure leaves sessions_pa at 0 and the counts as reserved', (release) => {
  const machine = withFiles(release, [[1n], [2n]], { failsToFreeze: [2n] })
  const { kernel, live } = machine
  const root = fdtAt(kernel.ram, kernel.kho.outgoing.rootFdt ?? phys(0))
  const node = root && subnode(root, 'LUO')
  const ser = phys((node && getWord(node, 'preserved-data')) ?? 0n)
  const sessionsPa = (): bigint => readStored(kernel, luoV5, ser).sessions_pa
  expect(errno(live.reboot())).toBe('EIO')
  expect(sessionsPa()).toBe(0n)
  machine.user.close(machine.fds[1] ?? -1)
  expect(errno(live.reboot())).toBeUndefined()
  expect(readStored(kernel, khoBlockHeader, phys(sessionsPa())).count).toBe(1n)
})
