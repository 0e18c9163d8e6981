/** KHO blocks: growth, restoration, and the empty tail block of 7.2 and 7.3 (wire format, 6, 7.3.5, 8.9). */
import { describe, expect, test } from 'vitest'
import { khoBlockHeader } from '../abi/kho-block.ts'
import { luoV5 } from '../abi/luo.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { BlocksEdge } from '../abi/schema.ts'
import { FileTable } from '../simulate/file.ts'
import { Kernel } from '../simulate/kernel.ts'
import { BlockSet } from '../simulate/kho-block.ts'
import { Luo } from '../simulate/luo.ts'
import { type LuoForm, luoForm } from '../simulate/luo-context.ts'
import { readStored, writeFields } from '../simulate/stored.ts'
import { bootLive, census, errno, kexecLive, type LiveMachine, value } from './support/live.ts'
import { fakeFile, recordingHandler } from './support/recording.ts'

const RELEASES = ['linux-7.2', 'linux-7.3'] as const
const PAGE = 4096
const ENTRY = 80
/** (4096 - 16) / 80 */
const PER_BLOCK = 51
/** (4096 - 16) / 64 */
const FILES_PER_BLOCK = 63n
const SESSIONS = luoV5.fields.sessions_pa.to as BlocksEdge

function headerOf({ kernel }: LiveMachine, block: PhysAddr) {
  return readStored(kernel, khoBlockHeader, block)
}

function create(machine: LiveMachine, count: number): readonly number[] {
  const lu = machine.device()
  return Array.from({ length: count }, (_, index) => value(machine.user.createSession(lu, `s${index}`)))
}

describe.each(RELEASES)('%s: 8.9 Block growth', (release) => {
  test('grow(n): append blocks until nblocks * per_block >= n; next is written at once, a fresh count is 0', () => {
    const machine = bootLive(release)
    const set = new BlockSet(machine.kernel, SESSIONS)
    value(set.grow(0))
    expect([set.blocks.length, set.head]).toEqual([0, 0n])
    value(set.grow(PER_BLOCK))
    expect(set.blocks.length).toBe(1)
    value(set.grow(2 * PER_BLOCK + 1))
    const [first, second, third] = set.blocks as [PhysAddr, PhysAddr, PhysAddr]
    expect(set.head).toBe(first)
    expect(set.blocks.map((block) => headerOf(machine, block))).toEqual([
      { next: second, count: 0n },
      { next: third, count: 0n },
      { next: 0n, count: 0n },
    ])
  })

  test('grow(n): roll back on error', () => {
    const machine = bootLive(release)
    const set = new BlockSet(machine.kernel, SESSIONS)
    value(set.grow(1))
    const before = census(machine)
    machine.kernel.pages.failAt(3)
    expect(errno(set.grow(4 * PER_BLOCK))).toBe('ENOMEM')
    expect(set.blocks.length).toBe(1)
    expect(headerOf(machine, set.head).next).toBe(0n)
    expect(census(machine)).toEqual(before)
  })

  test('shrink(n): drop tail blocks while n <= (nblocks-1) * per_block; n = 0 frees all', () => {
    const machine = bootLive(release)
    const before = census(machine)
    const set = new BlockSet(machine.kernel, SESSIONS)
    value(set.grow(3 * PER_BLOCK))
    set.shrink(2 * PER_BLOCK + 1)
    expect(set.blocks.length).toBe(3)
    set.shrink(2 * PER_BLOCK)
    expect(set.blocks.length).toBe(2)
    expect(headerOf(machine, set.blocks[1] as PhysAddr).next).toBe(0n)
    set.shrink(0)
    expect([set.blocks.length, set.head]).toEqual([0, 0n])
    expect(census(machine)).toEqual(before)
  })

  test('a cursor reserves slot by slot, goes back, and clear(): counts 0, entries zeroed, links kept', () => {
    const machine = bootLive(release)
    const set = new BlockSet(machine.kernel, SESSIONS)
    value(set.grow(PER_BLOCK + 1))
    const cursor = set.cursor()
    const slots = Array.from({ length: 2 * PER_BLOCK }, () => cursor.reserve())
    expect(set.blocks.map((block) => headerOf(machine, block).count)).toEqual([51n, 51n])
    expect(cursor.reserve()).toBeUndefined()
    expect(slots.toReversed().map(() => cursor.previous())).toEqual(slots.toReversed())
    expect(cursor.previous()).toBeUndefined()
    const [first, second] = set.blocks as [PhysAddr, PhysAddr]
    const entriesOf = (block: PhysAddr) => machine.kernel.ram.read(phys(block + 16n), PAGE - 16)
    for (const slot of slots) machine.kernel.ram.write(slot ?? phys(0), new Uint8Array(ENTRY).fill(7))
    expect([first, second].map((block) => entriesOf(block).every((byte) => byte === 7))).toEqual([true, true])
    set.clear()
    expect([first, second].map((block) => entriesOf(block).every((byte) => byte === 0))).toEqual([true, true])
    expect([first, second].map((block) => headerOf(machine, block))).toEqual([
      { next: second, count: 0n },
      { next: 0n, count: 0n },
    ])
  })

  test('blocks come and go with the sessions', () => {
    const machine = bootLive(release)
    const before = census(machine)
    const sessions = create(machine, PER_BLOCK + 1)
    machine.user.close(sessions[0] ?? -1)
    for (const fd of sessions.slice(1)) machine.user.close(fd)
    expect(census(machine)).toEqual(before)
  })

  test('51 sessions, one failed CREATE of an existing name: the next kernel panics, and says why', () => {
    const machine = bootLive(release)
    create(machine, PER_BLOCK)
    expect(errno(machine.user.createSession(machine.device(), 's0'))).toBe('EEXIST')
    const next = kexecLive(machine)
    expect(next.kernel.state).toBe('crashed')
    expect(next.console().slice(-2)).toEqual([
      'luo: Block contains invalid entry count: 0',
      'Kernel panic - not syncing: The incoming tree failed to initialize properly [-22], disabling live update',
    ])
  })

  test.each([PER_BLOCK - 1, PER_BLOCK + 1])('%i sessions and a refused duplicate do no harm', (count) => {
    const machine = bootLive(release)
    create(machine, count)
    expect(errno(machine.user.createSession(machine.device(), 's0'))).toBe('EEXIST')
    expect(kexecLive(machine).kernel.state).toBe('running')
  })

  test('a session closed or created in between takes the empty block away', () => {
    for (const repair of ['close', 'create'] as const) {
      const machine = bootLive(release)
      const sessions = create(machine, PER_BLOCK)
      const lu = machine.device()
      expect(errno(machine.user.createSession(lu, 's0'))).toBe('EEXIST')
      if (repair === 'close') machine.user.close(sessions[7] ?? -1)
      else value(machine.user.createSession(lu, 'one more'))
      expect(kexecLive(machine).kernel.state).toBe('running')
    }
  })

  test('restore: head 0 is an empty set; what was there is given back', () => {
    const { kernel } = bootLive(release)
    const set = new BlockSet(kernel, SESSIONS)
    value(set.restore(phys(0)))
    expect(set.blocks).toEqual([])
    expect(errno(set.grow(1))).toBe('EINVAL')
  })

  test.each([
    ['count 0', [{ at: 1, count: 0 }], 'Block contains invalid entry count: 0'],
    ['count over', [{ at: 1, count: PER_BLOCK + 1 }], `Block contains invalid entry count: ${PER_BLOCK + 1}`],
    ['a cycle', [{ at: 2, next: 0 }], 'Block set is corrupted'],
    ['a block that is its own successor', [{ at: 1, next: 1 }], 'Block set is corrupted'],
  ] as const)('restore: %s is refused with -EINVAL', (_name, damages, said) => {
    const machine = bootLive(release)
    const written = new BlockSet(machine.kernel, SESSIONS)
    value(written.grow(3 * PER_BLOCK))
    const cursor = written.cursor()
    for (let entry = 0; entry < 3 * PER_BLOCK; entry++) cursor.reserve()
    for (const damage of damages) {
      const block = written.blocks[damage.at] as PhysAddr
      if ('count' in damage) writeFields(machine.kernel, khoBlockHeader, block, { count: damage.count })
      else {
        const next = written.blocks[damage.next] as PhysAddr
        writeFields(machine.kernel, khoBlockHeader, block, { next })
      }
    }
    const set = new BlockSet(machine.kernel, SESSIONS)
    expect(errno(set.restore(written.head))).toBe('EINVAL')
    expect(machine.console()).toContain(`luo: ${said}`)
    expect(set.blocks).toEqual([])
  })

  test('partly filled blocks in the middle are accepted', () => {
    const old = bootLive(release)
    create(old, 3)
    const machine = kexecLive(old)
    const lu = machine.device()
    for (const name of ['s0', 's1', 's2']) value(machine.user.retrieveSession(lu, name))
  })
})

describe.each(RELEASES)('%s: 8.4 and 8.5 -ENOSPC at 10000 blocks', (release) => {
  test('10000 blocks of a set, and what was grown for the refused entry is given back', () => {
    const machine = bootLive(release)
    const set = new BlockSet(machine.kernel, SESSIONS)
    value(set.grow(9_999 * PER_BLOCK))
    expect(errno(set.grow(10_000 * PER_BLOCK + 1))).toBe('ENOSPC')
    expect(set.blocks.length).toBe(9_999)
    value(set.grow(10_000 * PER_BLOCK))
    expect(errno(set.grow(10_000 * PER_BLOCK + 1))).toBe('ENOSPC')
    expect(set.blocks.length).toBe(10_000)
  })

  test('CREATE behind the last place of the last block', () => {
    const { kernel, luo } = withShortChains(release, 2)
    const { sessions } = luo
    const name = (index: number) => new TextEncoder().encode(`s${index}`)
    for (let index = 0; index < 2 * PER_BLOCK; index++) value(sessions.create(name(index)))
    const before = census({ kernel })
    expect(errno(sessions.create(name(2 * PER_BLOCK)))).toBe('ENOSPC')
    expect(errno(sessions.create(name(0)))).toBe('ENOSPC')
    expect(census({ kernel })).toEqual(before)
    const first = sessions.outgoing.get('s0')
    if (first) sessions.release(first)
    expect(errno(sessions.create(name(2 * PER_BLOCK)))).toBeUndefined()
  })

  test('PRESERVE_FD behind the last place of the last block, before the file is looked at', () => {
    const { kernel, luo, user } = withShortChains(release, 2)
    const { files } = value(luo.sessions.create(new TextEncoder().encode('s')))
    for (let token = 0n; token < 2n * FILES_PER_BLOCK; token++) {
      value(files.preserve(token, fakeFile(user, token), user.files))
    }
    const before = census({ kernel })
    expect(errno(files.preserve(2n * FILES_PER_BLOCK, -1, user.files))).toBe('ENOSPC')
    expect(errno(files.preserve(0n, -1, user.files))).toBe('EEXIST')
    expect(census({ kernel })).toEqual(before)
  })
})

/** A kernel whose LUO takes chains of so many blocks; all else is as the release has it. */
function withShortChains(release: (typeof RELEASES)[number], maxBlocks: number) {
  const form = luoForm(release)
  if (form?.sessions.kind !== 'blocks' || form.files.kind !== 'blocks') throw new Error('no blocks')
  const short: LuoForm = {
    ...form,
    sessions: { ...form.sessions, maxBlocks },
    files: { ...form.files, maxBlocks },
  }
  let luo: Luo | undefined
  const kernel = Kernel.boot({
    release,
    subsystems: (built) => {
      const made = new Luo(built, short, { liveupdate: true, testFlbs: false })
      luo = made
      const lateMm = () => value(made.registerFileHandler(recordingHandler([])))
      return [{ early: () => made.earlyInit(), late: () => made.lateInit(), lateMm }]
    },
  })
  if (!luo) throw new Error('the kernel has its subsystems')
  return { kernel, luo, user: { files: new FileTable() } }
}
