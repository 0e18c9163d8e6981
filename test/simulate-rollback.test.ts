/** What is undone when something fails half-way, as seen from outside: in memory, in the map, in the next kernel. */
import { describe, expect, test } from 'vitest'
import { khoBlockHeader } from '../abi/kho-block.ts'
import { LIVEUPDATE_SESSION_NAME_LENGTH } from '../abi/luo.ts'
import { memfdSeals } from '../abi/memfd.ts'
import { phys } from '../abi/memory.ts'
import { decodeText } from '../inspect/text.ts'
import type { FileHandler } from '../simulate/luo-file.ts'
import type { Flb } from '../simulate/luo-flb.ts'
import type { Allocation } from '../simulate/pages.ts'
import { readStored } from '../simulate/stored.ts'
import {
  bootLive,
  errno,
  kexecLive,
  type LiveMachine,
  LUO_RELEASES,
  type LuoRelease,
  UNTIL_70,
  value,
} from './support/live.ts'
import { addressOf, firstOfSessionArray, luoBlob, newlyHeld, writtenFlbs } from './support/luo-memory.ts'
import { fakeFile, recordingFlb, recordingHandler } from './support/recording.ts'

const BLOCKS: readonly LuoRelease[] = ['linux-7.2', 'linux-7.3']
/** Bytes of a block's header, and of a session's record. */
const HEADER = 16
const RECORD = 80
const PAGE = 4096
const PAGES = 12

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
  test('8.7 freeze failure wipes the names of all sessions that were written', () => {
    const machine = bootLive(release, { handlers: [recordingHandler([], { failsToFreeze: [9n] })] })
    const { user, live } = machine
    const names = ['the-first-one', 'the-second-one', 'the-third-one']
    names.forEach((name, index) => {
      const session = value(user.createSession(machine.device(), name))
      const handle = index === 2 ? 9n : BigInt(index)
      value(user.preserveFd(session, fakeFile(user, handle), 1n))
    })
    expect(errno(live.reboot())).toBe('EIO')
    expect(names.map((name) => addressOf(machine, name))).toEqual([undefined, undefined, undefined])
    const good = bootLive(release)
    value(good.user.createSession(good.device(), 'the-first-one'))
    value(good.live.reboot())
    expect(addressOf(good, 'the-first-one')).toBeDefined()
  })

  test('8.7 freeze failure wipes file areas, and of sessions before it the pair of files and count and the name', () => {
    const machine = withFilesThatFail(release)
    const { live, seen, look } = machine
    const areas = BLOCKS.includes(release) ? [true, true, true] : [true, true]
    expect(errno(live.reboot())).toBe('EIO')
    expect(seen).toEqual([{ name: 'first', hasFiles: true, areas }])
    expect(look()).toEqual({ name: '', hasFiles: false, areas: areas.map(() => false) })
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

test.each(BLOCKS)('%s: 8.7 freeze failure: block counts 0, entries zeroed, links kept', (release) => {
  const { kernel, live, areas } = withFilesThatFail(release)
  const [ofFirst, head, tail] = areas.map(({ pa }) => pa)
  expect(errno(live.reboot())).toBe('EIO')
  const headers = [ofFirst, head, tail].map((pa) => readStored(kernel, khoBlockHeader, pa ?? phys(0)))
  expect(headers).toEqual([
    { next: 0n, count: 0n },
    { next: tail, count: 0n },
    { next: 0n, count: 0n },
  ])
})

describe.each(LUO_RELEASES.slice(1))('%s: 8.7 freeze failure', (release) => {
  test('FLBs are untouched: no callback, no reference, nothing written; closing unpreserves once', () => {
    const calls: string[] = []
    const handler = recordingHandler([], { failsToFreeze: [2n] })
    const machine = bootLive(release, { handlers: [handler] })
    const { user, live } = machine
    const flb = recordingFlb(calls, 'a')
    value(live.luo?.registerFlb(handler, flb))
    const session = value(user.createSession(machine.device(), 's'))
    for (const handle of [1n, 2n]) value(user.preserveFd(session, fakeFile(user, handle), handle))
    expect(calls).toEqual(['a preserve'])
    expect(errno(live.reboot())).toBe('EIO')
    expect(calls).toEqual(['a preserve'])
    expect(live.luo?.flbs?.outgoingCount(flb)).toBe(2)
    expect(writtenFlbs(machine)).toBe(0n)
    user.close(session)
    expect(calls).toEqual(['a preserve', 'a unpreserve 4096'])
    expect(live.luo?.flbs?.outgoingCount(flb)).toBe(0)
  })
})

test.each(BLOCKS)('%s: the page of luo_ser is given back in the boot', (release) => {
  const old = bootLive(release)
  const ser = luoBlob(old)
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

/** What stands in memory of the first session's record, and whether each file area or block has entries. */
interface Written {
  readonly name: string
  readonly hasFiles: boolean
  readonly areas: readonly boolean[]
}

/** Handle of the file that does not freeze. */
const FAILS = 66n

/**
 * A session `first` with two files and one with 70, of which the 66th does not freeze; `seen` gets what is
 * written at that moment.
 */
function withFilesThatFail(release: LuoRelease) {
  const seen: Written[] = []
  const recorded = recordingHandler([], { failsToFreeze: [FAILS] })
  const freeze: FileHandler['ops']['freeze'] = (args) => {
    if (args.serialized_data === FAILS) seen.push(look())
    return recorded.ops.freeze?.(args)
  }
  const machine = bootLive(release, { handlers: [{ ...recorded, ops: { ...recorded.ops, freeze } }] })
  const { kernel, user } = machine
  const lu = machine.device()
  const sessions: number[] = []
  const [block] = newlyHeld(machine, () => {
    for (const name of ['first', 'second']) sessions.push(value(user.createSession(lu, name)))
  })
  const record = block ? phys(block.pa + BigInt(HEADER)) : firstOfSessionArray(machine)
  const areas = [[101n, 102n], Array.from({ length: 70 }, (_, index) => BigInt(index + 1))].flatMap(
    (handles, index) =>
      handles.flatMap((handle) =>
        newlyHeld(machine, () => {
          value(user.preserveFd(sessions[index] ?? -1, fakeFile(user, handle), handle))
        }),
      ),
  )
  const look = (): Written => {
    const bytes = kernel.ram.read(record, RECORD)
    const hasEntries = ({ pa, order }: Allocation) => {
      const entries = kernel.ram.read(pa, PAGE * 2 ** order).subarray(block ? HEADER : 0)
      return entries.some((byte) => byte !== 0)
    }
    return {
      name: decodeText(bytes),
      hasFiles: bytes.subarray(LIVEUPDATE_SESSION_NAME_LENGTH).some((byte) => byte !== 0),
      areas: areas.map(hasEntries),
    }
  }
  return { ...machine, seen, look, areas }
}
