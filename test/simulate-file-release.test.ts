/** How files leave their session: unpreserved here, or finished in the next kernel (wire format, 8.5). */
import { describe, expect, test } from 'vitest'
import { File } from '../simulate/file.ts'
import { KernelModule } from '../simulate/kernel-module.ts'
import type { FileHandler } from '../simulate/luo-file.ts'
import type { Flb } from '../simulate/luo-flb.ts'
import {
  bootLive,
  census,
  kexecLive,
  type LiveMachine,
  LUO_RELEASES,
  type LuoRelease,
  UNTIL_70,
  value,
} from './support/live.ts'
import { fakeFile, recordingFlb, recordingHandler } from './support/recording.ts'

const BLOCKS: readonly LuoRelease[] = ['linux-7.2', 'linux-7.3']
/** (4096 - 16) / 64 */
const FILES_PER_BLOCK = 63

describe.each(LUO_RELEASES)('%s: 8.5 Unpreserve', (release) => {
  const isBlocks = BLOCKS.includes(release)

  test('per file: handler.unpreserve, FLB release, fput last', () => {
    const calls: string[] = []
    const seen = (name: string) => calls.push(`${name}, ${file?.refs} held`)
    const recorded = recordingHandler([])
    const handler: FileHandler = {
      ...recorded,
      ops: { ...recorded.ops, unpreserve: () => seen('unpreserve') },
    }
    const machine = bootLive(release, { handlers: [handler] })
    const { user, live, kernel } = machine
    const flb = recordingFlb([], 'a')
    const observed: Flb = { ...flb, ops: { ...flb.ops, unpreserve: () => seen('flb unpreserve') } }
    if (live.luo?.flbs) value(live.luo.registerFlb(handler, observed))
    const session = value(user.createSession(machine.device(), 's'))
    const fd = fakeFile(user, 1n, undefined, {
      release: () => seen(`fput, ${kernel.pages.census().free} free`),
    })
    const { free } = kernel.pages.census()
    const file = user.files.find(fd)
    value(user.preserveFd(session, fd, 1n))
    const less = kernel.pages.census().free
    expect(free).toBeGreaterThan(less)
    user.close(fd)
    user.close(session)
    expect(calls).toEqual([
      'unpreserve, 1 held',
      ...(live.luo?.flbs ? ['flb unpreserve, 1 held'] : []),
      // The last file gives the block up before it is put; the file area goes behind all files.
      `fput, ${isBlocks ? less + 1 : less} free, 0 held`,
    ])
  })

  test('shrink blocks (7.2+): they go with the files, the file area up to 7.1 behind the last', () => {
    const seen: number[] = []
    const recorded = recordingHandler([])
    const handler: FileHandler = {
      ...recorded,
      ops: { ...recorded.ops, unpreserve: () => void seen.push(kernel.pages.census().allocated - allocated) },
    }
    const machine = bootLive(release, { handlers: [handler] })
    const { user, kernel } = machine
    const lu = machine.device()
    const before = census(machine)
    const session = value(user.createSession(lu, 's'))
    const { allocated } = kernel.pages.census()
    const count = isBlocks ? 130 : 128
    for (let token = 1; token <= count; token++) {
      value(user.preserveFd(session, fakeFile(user, BigInt(token)), BigInt(token)))
    }
    const mapPages = kernel.pages.census().allocated - allocated - (isBlocks ? 3 : 2)
    user.close(session)
    const files = Array.from({ length: count }, (_, index) => count - index)
    expect(seen.map((pages) => pages - mapPages)).toEqual(
      files.map((left) => (isBlocks ? Math.ceil(left / FILES_PER_BLOCK) : 2)),
    )
    expect(census(machine)).toEqual(before)
  })
})

describe.each(LUO_RELEASES)('%s: 8.5 Finish of a file', (release) => {
  test('last file first: handler.finish(status), FLB release in reverse order', () => {
    const calls: string[] = []
    const flbs = ['a', 'b'].map((name) => recordingFlb(calls, name))
    const old = withFlbs(release, recordingHandler([]), flbs)
    for (const token of [1n, 2n]) value(old.user.preserveFd(old.session, fakeFile(old.user, token), token))
    const { user, live, session } = nextWithFlbs(old, recordingHandler(calls), flbs)
    value(user.retrieveFd(session, 2n))
    for (const flb of live.luo?.flbs ? flbs : []) {
      value(live.luo?.flbs?.getIncoming(flb))
      live.luo?.flbs?.putIncoming(flb)
    }
    calls.length = 0
    value(user.finish(session))
    const released = live.luo?.flbs ? ['b finish restored 4096', 'a finish restored 4096'] : []
    expect(calls).toEqual(['can_finish 1 0', 'can_finish 2 1', 'finish 2 1', 'finish 1 0', ...released])
  })

  test("fput of LUO's reference, then the module's; up to 7.0 registration holds that one", () => {
    const calls: string[] = []
    const owner = new KernelModule()
    const old = withFlbs(release, recordingHandler([]), [])
    value(old.user.preserveFd(old.session, fakeFile(old.user, 1n), 1n))
    const recorded = recordingHandler([])
    const refs = (name: string) => calls.push(`${name}, module ${owner.refs}`)
    const handler: FileHandler = {
      ...recorded,
      owner,
      ops: {
        ...recorded.ops,
        retrieve: (args) => {
          args.file = new File({ release: () => refs('fput') })
        },
        finish: ({ file }) => refs(`finish, file ${file?.refs}`),
      },
    }
    const next = kexecLive(old, { handlers: [handler] })
    const { user } = next
    refs('boot')
    const session = value(user.retrieveSession(next.device(), 's'))
    refs('first open')
    value(user.close(value(user.retrieveFd(session, 1n))))
    value(user.finish(session))
    refs('finished')
    const pinned = UNTIL_70.includes(release) ? 1 : 0
    expect(calls).toEqual([
      `boot, module ${pinned}`,
      'first open, module 1',
      'finish, file 1, module 1',
      'fput, module 1',
      `finished, module ${pinned}`,
    ])
  })
})

/** A kernel with an empty session `s` whose files depend on FLBs, where there are any. */
function withFlbs(release: LuoRelease, handler: FileHandler, flbs: readonly Flb[]) {
  const machine = bootLive(release, { handlers: [handler] })
  const { live } = machine
  for (const flb of live.luo?.flbs ? flbs : []) value(live.luo?.registerFlb(handler, flb))
  return { ...machine, session: value(machine.user.createSession(machine.device(), 's')) }
}

/** The next kernel, with that session retrieved. */
function nextWithFlbs(old: LiveMachine, handler: FileHandler, flbs: readonly Flb[]) {
  const machine = kexecLive(old, { handlers: [handler] })
  const { live } = machine
  for (const flb of live.luo?.flbs ? flbs : []) value(live.luo?.registerFlb(handler, flb))
  return { ...machine, session: value(machine.user.retrieveSession(machine.device(), 's')) }
}
