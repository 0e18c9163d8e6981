/** What is undone when something fails half-way, as seen from outside: in memory, in the map, in the next kernel. */
import { describe, expect, test } from 'vitest'
import { memfdSeals } from '../abi/memfd.ts'
import { phys } from '../abi/memory.ts'
import { fdtAt, getWord, subnode } from '../simulate/libfdt.ts'
import type { Flb } from '../simulate/luo-flb.ts'
import {
  bootLive,
  errno,
  kexecLive,
  type LiveMachine,
  LUO_RELEASES,
  UNTIL_70,
  value,
} from './support/live.ts'
import { fakeFile, recordingHandler } from './support/recording.ts'

const PAGE = 4096
const PAGES = 12

/** Whether a text stands anywhere in memory that somebody holds. */
function stands({ kernel }: LiveMachine, text: string): boolean {
  return [...kernel.pages.allocations()].some(({ pa, order }) =>
    Buffer.from(kernel.ram.read(pa, PAGE * 2 ** order)).includes(text),
  )
}

/** A memfd of some pages with a number in each, in a session. */
function memfdIn(machine: LiveMachine): { readonly session: number; readonly fd: number } {
  const { user } = machine
  const session = value(user.createSession(machine.device(), 'only'))
  const fd = value(user.memfdCreate('m', 2))
  for (let page = 0; page < PAGES; page++) value(user.pwrite(fd, Uint8Array.of(page + 1), page * PAGE))
  return { session, fd }
}

/** Units that the next kernel finds in the map. */
function handedOver(machine: LiveMachine): number {
  const next = kexecLive(machine)
  return [...next.kernel.pages.preservedUnits()].length
}

describe.each(LUO_RELEASES)('%s', (release) => {
  test('freeze failure wipes the names of all sessions that were written', () => {
    const machine = bootLive(release, { handlers: [recordingHandler([], { failsToFreeze: [9n] })] })
    const { user, live } = machine
    const names = ['the-first-one', 'the-second-one', 'the-third-one']
    names.forEach((name, index) => {
      const session = value(user.createSession(machine.device(), name))
      const handle = index === 2 ? 9n : BigInt(index)
      value(user.preserveFd(session, fakeFile(user, handle), 1n))
    })
    expect(errno(live.reboot())).toBe('EIO')
    expect(names.filter((name) => stands(machine, name))).toEqual([])
    const good = bootLive(release)
    value(good.user.createSession(good.device(), 'the-first-one'))
    value(good.live.reboot())
    expect(stands(good, 'the-first-one')).toBe(true)
  })

  test('preserve without memory for the n-th page: the map holds what it held before', () => {
    const machine = bootLive(release)
    memfdIn(machine)
    const before = handedOver(machine)
    let failures = 0
    for (let n = 1; n < 20; n++) {
      const next = bootLive(release)
      const { session, fd } = memfdIn(next)
      next.kernel.pages.failAt(n)
      if (errno(next.user.preserveFd(session, fd, 1n)) === undefined) break
      failures++
      next.kernel.pages.failAt(Number.POSITIVE_INFINITY, 0)
      expect(errno(next.user.ftruncate(fd, 0))).toBeUndefined()
      next.user.close(session)
      value(next.user.createSession(next.device(), 'only'))
      expect(handedOver(next)).toBe(before)
    }
    expect(failures).toBeGreaterThan(2)
  })

  test('folios behind one that is lost are freed; 6.19 takes the frame number for the address and keeps them', () => {
    const machine = bootLive(release)
    const { session, fd } = memfdIn(machine)
    value(machine.user.preserveFd(session, fd, 1n))
    const inode = machine.user.files.find(fd)?.inode
    const heads = Array.from({ length: PAGES }, (_, slot) => inode?.headOf(slot) ?? phys(0))
    machine.kernel.kho.unpreserveFolio(heads[3] ?? phys(0))
    const next = kexecLive(machine)
    const taken = value(next.user.retrieveSession(next.device(), 'only'))
    expect(errno(next.user.retrieveFd(taken, 1n))).toBe(UNTIL_70.includes(release) ? undefined : 'EIO')
    const left = heads.filter((head) => next.kernel.pages.preservedOrder(head) !== undefined)
    expect(left).toEqual(UNTIL_70.includes(release) ? heads.slice(4) : [])
  })

  test('the exec seal on a preserved memfd: 7.1 pulls in the write seal before it looks for pins', () => {
    const machine = bootLive(release)
    const { session, fd } = memfdIn(machine)
    value(machine.user.preserveFd(session, fd, 1n))
    const answer = machine.user.addSeals(fd, memfdSeals.EXEC)
    expect(errno(answer)).toBe(UNTIL_70.includes(release) ? undefined : 'EBUSY')
    expect(value(machine.user.getSeals(fd)) & memfdSeals.EXEC).toBe(
      UNTIL_70.includes(release) ? memfdSeals.EXEC : 0,
    )
  })

  test('kexec with preserve_context: 6.19 freezes the files, later releases leave live update alone', () => {
    const calls: string[] = []
    const machine = bootLive(release, { handlers: [recordingHandler(calls)] })
    const session = value(machine.user.createSession(machine.device(), 'only'))
    value(machine.user.preserveFd(session, fakeFile(machine.user, 5n), 1n))
    calls.length = 0
    value(machine.kernel.load({ preservesContext: true }))
    expect(machine.kernel.reboot()).toBeUndefined()
    expect(calls).toEqual(UNTIL_70.includes(release) ? ['freeze 5'] : [])
    expect(machine.kernel.state).toBe('running')
    expect(errno(machine.user.createSession(machine.device(), 'later'))).toBeUndefined()
  })
})

test.each(['linux-7.2', 'linux-7.3'])('%s: the page of luo_ser is given back in the boot', (release) => {
  const old = bootLive(release)
  const { ram, kho } = old.kernel
  const root = fdtAt(ram, kho.outgoing.rootFdt ?? phys(0))
  const node = root && subnode(root, 'LUO')
  const ser = phys((node && getWord(node, 'preserved-data')) ?? 0n)
  expect(old.kernel.pages.orderOf(ser)).toBe(0)
  const { pages } = kexecLive(old).kernel
  expect(pages.preservedOrder(ser)).toBeUndefined()
})

/** Callbacks that have nothing to do. */
const flb: Flb = {
  compatible: 'late-flb',
  ops: { preserve: () => 0n, unpreserve: () => {}, retrieve: () => ({}), finish: () => {} },
} as unknown as Flb

test.each([
  ['linux-7.0', 'EBUSY'],
  ['linux-7.1', undefined],
  ['linux-7.3', undefined],
] as const)('%s: an FLB registered while there is a session answers %s', (release, expected) => {
  const handler = recordingHandler([])
  const { user, live, device } = bootLive(release, { handlers: [handler] })
  const session = value(user.createSession(device(), 'only'))
  expect(errno(live.luo?.registerFlb(handler, flb))).toBe(expected)
  user.close(session)
  expect(errno(live.luo?.registerFlb(handler, flb))).toBe(expected === undefined ? 'EEXIST' : undefined)
})
