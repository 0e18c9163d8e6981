/** FLBs: registration, references on both sides, and the order of their callbacks (wire format, 7.4 and 8.8). */
import { describe, expect, test } from 'vitest'
import { KernelModule } from '../simulate/kernel-module.ts'
import type { Flb } from '../simulate/luo-flb.ts'
import { bootLive, errno, kexecLive, type LiveMachine, type LiveOptions, value } from './support/live.ts'
import { fakeFile, recordingFlb, recordingHandler } from './support/recording.ts'

const RELEASES = ['linux-7.0', 'kho-v2', 'linux-7.1', 'linux-7.2', 'linux-7.3'] as const
const SINCE_71 = ['kho-v2', 'linux-7.1', 'linux-7.2', 'linux-7.3'] as const
const BEFORE_72 = ['linux-7.0', 'kho-v2', 'linux-7.1'] as const
/** FLBs whose references are plain numbers. */
const UNCOUNTED = [
  ['linux-7.0', '7.0.0'],
  ['linux-7.1', '7.1.3'],
] as const
const SINCE_72 = ['linux-7.2', 'linux-7.3'] as const
type FlbRelease = (typeof RELEASES)[number]

function withFlbs(release: FlbRelease, calls: string[], flbs: readonly Flb[], options: LiveOptions = {}) {
  const handler = recordingHandler(calls)
  const machine = bootLive(release, { handlers: [handler], ...options })
  for (const flb of flbs) value(machine.live.luo?.registerFlb(handler, flb))
  const lu = machine.device()
  return { ...machine, handler, session: value(machine.user.createSession(lu, 's')) }
}

/** The next kernel with the same handler and FLBs. */
function nextWith(
  old: Parameters<typeof kexecLive>[0],
  calls: string[],
  flbs: readonly Flb[],
  options: LiveOptions = {},
) {
  calls.length = 0
  const handler = recordingHandler(calls)
  const machine = kexecLive(old, { handlers: [handler], ...options })
  for (const flb of flbs) value(machine.live.luo?.registerFlb(handler, flb))
  const session = value(machine.user.retrieveSession(machine.device(), 's'))
  return { ...machine, session }
}

/** A kernel with one FLB for the files of two handlers. */
function withTwoHandlers(boot: (options: LiveOptions) => LiveMachine, flb: Flb): LiveMachine {
  const handlers = [recordingHandler([]), recordingHandler([], { compatible: 'other' })]
  const machine = boot({ handlers })
  for (const handler of handlers) value(machine.live.luo?.registerFlb(handler, flb))
  return machine
}

/** The same, with a session for the files of each handler. */
function withTwoSessions(release: FlbRelease, flb: Flb) {
  const machine = withTwoHandlers((options) => bootLive(release, options), flb)
  const lu = machine.device()
  const [one = -1, two = -1] = ['one', 'two'].map((name) => value(machine.user.createSession(lu, name)))
  return { ...machine, one, two }
}

describe.each(RELEASES)('%s: 8.8 FLB references', (release) => {
  test('outgoing: 0 -> preserve(), each further file +1, last release -> unpreserve(); before the handler', () => {
    const calls: string[] = []
    const { user, session } = withFlbs(release, calls, [recordingFlb(calls, 'a'), recordingFlb(calls, 'b')])
    for (const token of [1n, 2n]) value(user.preserveFd(session, fakeFile(user, token), token))
    expect(calls).toEqual(['a preserve', 'b preserve', 'preserve 1', 'preserve 2'])
    calls.length = 0
    user.close(session)
    expect(calls).toEqual(['unpreserve 2', 'unpreserve 1', 'b unpreserve 4096', 'a unpreserve 4096'])
  })

  test('outgoing: each further file of any linked handler +1: preserve() once, unpreserve() behind the last', () => {
    const calls: string[] = []
    const flb = recordingFlb(calls, 'a')
    const old = withTwoSessions(release, flb)
    const { user, live } = old
    const outgoing = () => live.luo?.flbs?.outgoingCount(flb)
    expect(outgoing()).toBe(0)
    value(user.preserveFd(old.one, fakeFile(user, 1n), 1n))
    expect(outgoing()).toBe(1)
    value(user.preserveFd(old.two, fakeFile(user, 2n, 'other'), 2n))
    expect(outgoing()).toBe(2)
    expect(calls).toEqual(['a preserve'])
    user.close(old.one)
    expect([outgoing(), ...calls]).toEqual([1, 'a preserve'])
    user.close(old.two)
    expect([outgoing(), ...calls]).toEqual([0, 'a preserve', 'a unpreserve 4096'])
  })

  test('incoming: each finished file of a linked handler removes one of the count that was written', () => {
    const calls: string[] = []
    const flb = recordingFlb(calls, 'a')
    const old = withTwoSessions(release, flb)
    value(old.user.preserveFd(old.one, fakeFile(old.user, 1n), 1n))
    value(old.user.preserveFd(old.two, fakeFile(old.user, 2n, 'other'), 2n))
    const { user, live, device } = withTwoHandlers((options) => kexecLive(old, options), flb)
    const flbs = live.luo?.flbs
    const lu = device()
    value(flbs?.getIncoming(flb))
    if (release !== 'linux-7.0') flbs?.putIncoming(flb)
    expect(flbs?.incomingCount(flb)).toBe(2)
    calls.length = 0
    value(user.finish(value(user.retrieveSession(lu, 'two'))))
    expect([flbs?.incomingCount(flb), ...calls]).toEqual([1])
    value(user.finish(value(user.retrieveSession(lu, 'one'))))
    expect([flbs?.incomingCount(flb), ...calls]).toEqual([0, 'a finish restored 4096'])
    expect(errno(flbs?.getIncoming(flb))).toBe('ENODATA')
  })

  test('the first error undoes the earlier ones in reverse, and the file is not preserved', () => {
    const calls: string[] = []
    const flbs = [
      recordingFlb(calls, 'a'),
      recordingFlb(calls, 'b'),
      recordingFlb(calls, 'c', { failsToPreserve: true }),
      recordingFlb(calls, 'd'),
    ]
    const { user, session } = withFlbs(release, calls, flbs)
    expect(errno(user.preserveFd(session, fakeFile(user, 1n), 1n))).toBe('EIO')
    const undone = ['b unpreserve 4096', 'a unpreserve 4096']
    expect(calls).toEqual(['a preserve', 'b preserve', 'c preserve', ...undone])
  })

  test('a handler that fails releases the FLBs', () => {
    const calls: string[] = []
    const handler = recordingHandler(calls, { failsToPreserve: [1n] })
    const { live, user, device } = bootLive(release, { handlers: [handler] })
    const flb = recordingFlb(calls, 'a')
    value(live.luo?.registerFlb(handler, flb))
    const session = value(user.createSession(device(), 's'))
    expect(errno(user.preserveFd(session, fakeFile(user, 1n), 1n))).toBe('EIO')
    expect(calls).toEqual(['a preserve', 'preserve 1', 'a unpreserve 4096'])
    expect(live.luo?.flbs?.outgoingCount(flb)).toBe(0)
  })
})

describe.each(SINCE_71)('%s: 8.8 FLB references', (release) => {
  test('count is loaded by the first successful lookup; get adds one, put removes one', () => {
    const flb = recordingFlb([], 'a', { data: 77n })
    const old = withFlbs(release, [], [flb])
    for (const token of [1n, 2n]) value(old.user.preserveFd(old.session, fakeFile(old.user, token), token))
    const { live } = nextWith(old, [], [flb])
    const count = () => live.luo?.flbs?.incomingCount(flb)
    expect(count()).toBe(0)
    const counts = (['get', 'get', 'put', 'put'] as const).map((act) => {
      if (act === 'get') value(live.luo?.flbs?.getIncoming(flb))
      else live.luo?.flbs?.putIncoming(flb)
      return count()
    })
    expect(counts).toEqual([3, 4, 3, 2])
  })

  test('incoming: each finished file removes one reference, reaching 0 runs finish(), later -ENODATA', () => {
    const calls: string[] = []
    const flb = recordingFlb(calls, 'a', { data: 77n })
    const old = withFlbs(release, [], [flb])
    for (const token of [1n, 2n]) value(old.user.preserveFd(old.session, fakeFile(old.user, token), token))
    const next = nextWith(old, calls, [flb])
    const { luo } = next.live
    expect(value(luo?.flbs?.getIncoming(flb))).toBe('restored 77')
    expect(luo?.flbs?.incomingCount(flb)).toBe(3)
    luo?.flbs?.putIncoming(flb)
    value(next.user.finish(next.session))
    expect(calls.filter((call) => call.startsWith('a '))).toEqual(['a retrieve 77', 'a finish restored 77'])
    expect(errno(luo?.flbs?.getIncoming(flb))).toBe('ENODATA')
  })

  test('nobody retrieved it before the first file finishes: refcount underflow, and finish() never runs', () => {
    const calls: string[] = []
    const flb = recordingFlb(calls, 'a')
    const old = withFlbs(release, [], [flb])
    value(old.user.preserveFd(old.session, fakeFile(old.user, 1n), 1n))
    const next = nextWith(old, calls, [flb])
    value(next.user.finish(next.session))
    expect(calls.filter((call) => call.startsWith('a '))).toEqual([])
    expect(next.console()).toContain('refcount_t: underflow; use-after-free.')
  })

  test('lookup: no LUO data -ENODATA, not found -ENOENT, owner module gone -ENODEV', () => {
    const flb = recordingFlb([], 'a')
    const cold = withFlbs(release, [], [flb])
    expect(errno(cold.live.luo?.flbs?.getIncoming(flb))).toBe('ENODATA')
    const owner = new KernelModule()
    const other = recordingFlb([], 'other', { owner })
    value(cold.live.luo?.registerFlb(cold.handler, other))
    value(cold.user.preserveFd(cold.session, fakeFile(cold.user, 1n), 1n))
    const next = nextWith(cold, [], [recordingFlb([], 'third')])
    expect(errno(next.live.luo?.flbs?.getIncoming(recordingFlb([], 'third')))).toBe('ENOENT')
    owner.live = false
    expect(errno(next.live.luo?.flbs?.getIncoming(other))).toBe('ENODEV')
  })

  test('register: without a callback, or for a handler that is not registered: -EINVAL with a warning', () => {
    const { live, handler, console } = withFlbs(release, [], [])
    const { ops, compatible } = recordingFlb([], 'a')
    const { finish: _left, ...incomplete } = ops
    expect(errno(live.luo?.registerFlb(handler, { compatible, ops: incomplete }))).toBe('EINVAL')
    const stranger = recordingHandler([], { compatible: 'x' })
    expect(errno(live.luo?.registerFlb(stranger, { compatible, ops }))).toBe('EINVAL')
    expect(console().filter((line) => line.startsWith('WARNING'))).toHaveLength(2)
  })

  test('unregister: of one that is not linked only a warning is logged', () => {
    const { live, handler, console } = withFlbs(release, [], [])
    live.luo?.flbs?.unregister(handler, recordingFlb([], 'a'))
    const said = "luo: Failed to unregister FLB 'a': not found in file handler 'fake-v1'"
    expect(console().at(-1)).toBe(said)
  })

  test('a module that goes away: -ENODEV for the first file', () => {
    const owner = new KernelModule()
    const { user, session } = withFlbs(release, [], [recordingFlb([], 'a', { owner })])
    owner.live = false
    expect(errno(user.preserveFd(session, fakeFile(user, 1n), 1n))).toBe('ENODEV')
  })

  test('only those with references are written, in the order of registration', () => {
    const calls: string[] = []
    const [a, b, c] = ['a', 'b', 'c'].map((name) => recordingFlb(calls, name)) as [Flb, Flb, Flb]
    const old = withFlbs(release, [], [a])
    const other = recordingHandler([], { compatible: 'other' })
    value(old.live.luo?.registerFileHandler(other))
    for (const flb of [b, c]) value(old.live.luo?.registerFlb(other, flb))
    value(old.user.preserveFd(old.session, fakeFile(old.user, 1n, 'other'), 1n))
    const next = kexecLive(old, { handlers: [recordingHandler([], { compatible: 'other' })] })
    expect([a, b, c].map((flb) => errno(next.live.luo?.flbs?.getIncoming(flb)))).toEqual([
      'ENOENT',
      undefined,
      undefined,
    ])
  })
})

describe.each(UNCOUNTED)('%s as %s: references are plain numbers', (release, version) => {
  test('incoming: get does not count and there is no put; each finished file removes one, reaching 0 runs finish()', () => {
    const calls: string[] = []
    const flb = recordingFlb(calls, 'a', { data: 77n })
    const old = withFlbs(release, [], [flb], { version })
    for (const token of [1n, 2n]) value(old.user.preserveFd(old.session, fakeFile(old.user, token), token))
    const next = nextWith(old, calls, [flb], { version })
    const flbs = next.live.luo?.flbs
    expect([1, 2].map(() => value(flbs?.getIncoming(flb)))).toEqual(['restored 77', 'restored 77'])
    expect(flbs?.incomingCount(flb)).toBe(2)
    expect(errno(flbs?.putIncoming(flb))).toBe('EOPNOTSUPP')
    value(next.user.finish(next.session))
    expect(calls.filter((call) => call.startsWith('a '))).toEqual(['a retrieve 77', 'a finish restored 77'])
    expect(errno(flbs?.getIncoming(flb))).toBe('ENODATA')
  })

  test('nobody retrieved it before the first file finishes: counts to -1, says nothing, never calls finish()', () => {
    const calls: string[] = []
    const flb = recordingFlb(calls, 'a')
    const old = withFlbs(release, [], [flb], { version })
    value(old.user.preserveFd(old.session, fakeFile(old.user, 1n), 1n))
    const next = nextWith(old, calls, [flb], { version })
    const said = next.console().length
    value(next.user.finish(next.session))
    expect(next.live.luo?.flbs?.incomingCount(flb)).toBe(-1)
    expect(calls.filter((call) => call.startsWith('a '))).toEqual([])
    expect(next.console().slice(said)).toEqual([])
  })
})

/** Without a session: with one, 7.0 registers nothing. */
function unused(release: FlbRelease) {
  const handler = recordingHandler([])
  const machine = bootLive(release, { handlers: [handler] })
  const register = (flb: Flb) => errno(machine.live.luo?.registerFlb(handler, flb))
  const unregister = (flb: Flb) => errno(machine.live.luo?.unregisterFlb(handler, flb))
  return { ...machine, handler, register, unregister }
}

test.each(RELEASES)(
  '%s: register: on one handler twice -EEXIST, another with the same string -EEXIST, table full -ENOSPC',
  (release) => {
    const { register, unregister } = unused(release)
    const first = recordingFlb([], 'a')
    expect(register(first)).toBeUndefined()
    expect(register(first)).toBe('EEXIST')
    expect(register(recordingFlb([], 'a'))).toBe('EEXIST')
    for (let index = 1; index < 63; index++) {
      expect(register(recordingFlb([], `flb-${index}`))).toBeUndefined()
    }
    expect(register(recordingFlb([], 'one too many'))).toBe('ENOSPC')
    expect(unregister(first)).toBeUndefined()
    expect(register(recordingFlb([], 'one too many'))).toBeUndefined()
  },
)

describe('linux-7.0', () => {
  test('register and unregister: -EBUSY while sessions exist', () => {
    const { user, device, register, unregister } = unused('linux-7.0')
    const known = recordingFlb([], 'known')
    expect(register(known)).toBeUndefined()
    const session = value(user.createSession(device(), 's'))
    expect(register(recordingFlb([], 'a'))).toBe('EBUSY')
    expect(unregister(known)).toBe('EBUSY')
    user.close(session)
    expect(register(recordingFlb([], 'a'))).toBeUndefined()
    expect(unregister(known)).toBeUndefined()
  })

  test('register: -EAGAIN for a dying module; a live one is pinned until the last handler lets it go', () => {
    const { live, handler, register, unregister } = unused('linux-7.0')
    const owner = new KernelModule()
    const flb = recordingFlb([], 'a', { owner })
    owner.live = false
    expect(register(flb)).toBe('EAGAIN')
    owner.live = true
    expect(register(flb)).toBeUndefined()
    const other = recordingHandler([], { compatible: 'other' })
    value(live.luo?.registerFileHandler(other))
    value(live.luo?.registerFlb(other, flb))
    expect(owner.refs).toBe(1)
    expect(unregister(flb)).toBeUndefined()
    expect(owner.refs).toBe(1)
    value(live.luo?.unregisterFlb(other, flb))
    expect(owner.refs).toBe(0)
    expect(errno(live.luo?.unregisterFileHandler(handler))).toBeUndefined()
  })

  test('unregister: one that is not linked -ENOENT; a handler on which one depends -EBUSY', () => {
    const { live, handler, register, unregister } = unused('linux-7.0')
    const flb = recordingFlb([], 'a')
    expect(unregister(flb)).toBe('ENOENT')
    expect(register(flb)).toBeUndefined()
    expect(errno(live.luo?.unregisterFileHandler(handler))).toBe('EBUSY')
    expect(unregister(flb)).toBeUndefined()
    expect(errno(live.luo?.unregisterFileHandler(handler))).toBeUndefined()
  })

  test('the FLBs of CONFIG_LIVEUPDATE_TEST do not keep a handler from going', () => {
    const handler = recordingHandler([])
    const { live } = bootLive('linux-7.0', { handlers: [handler], config: { liveupdateTest: true } })
    expect(errno(live.luo?.unregisterFileHandler(handler))).toBeUndefined()
    expect(errno(live.luo?.registerFileHandler(handler))).toBeUndefined()
  })
})

test.each(SINCE_72)('%s: a failed retrieve() is sticky', (release) => {
  const calls: string[] = []
  const flb = recordingFlb(calls, 'a', { failsToRetrieve: true })
  const old = withFlbs(release, [], [flb])
  value(old.user.preserveFd(old.session, fakeFile(old.user, 1n), 1n))
  const next = nextWith(old, calls, [flb])
  expect([1, 2].map(() => errno(next.live.luo?.flbs?.getIncoming(flb)))).toEqual(['EIO', 'EIO'])
  expect(calls).toEqual(['a retrieve 4096'])
})

test.each(BEFORE_72)('%s: a failed retrieve() is tried again', (release) => {
  const calls: string[] = []
  const flb = recordingFlb(calls, 'a', { failsToRetrieve: true })
  const old = withFlbs(release, [], [flb])
  value(old.user.preserveFd(old.session, fakeFile(old.user, 1n), 1n))
  const next = nextWith(old, calls, [flb])
  expect([1, 2].map(() => errno(next.live.luo?.flbs?.getIncoming(flb)))).toEqual(['EIO', 'EIO'])
  expect(calls).toEqual(['a retrieve 4096', 'a retrieve 4096'])
})

test.each(SINCE_72)(
  '%s: get_outgoing: -ENOENT if not preserved, else a reference that is serialized',
  (release) => {
    const flb = recordingFlb([], 'a')
    const old = withFlbs(release, [], [flb])
    const { luo } = old.live
    expect(errno(luo?.flbs?.getOutgoing(flb))).toBe('ENOENT')
    value(old.user.preserveFd(old.session, fakeFile(old.user, 1n), 1n))
    expect(value(luo?.flbs?.getOutgoing(flb))).toBe('live a')
    expect(luo?.flbs?.outgoingCount(flb)).toBe(2)
    const next = nextWith(old, [], [flb])
    value(next.live.luo?.flbs?.getIncoming(flb))
    expect(next.live.luo?.flbs?.incomingCount(flb)).toBe(3)
  },
)

test.each(SINCE_72)('%s: put_outgoing drops it; the last one unpreserves', (release) => {
  const calls: string[] = []
  const flb = recordingFlb(calls, 'a')
  const { live, user, session } = withFlbs(release, calls, [flb])
  value(user.preserveFd(session, fakeFile(user, 1n), 1n))
  value(live.luo?.flbs?.getOutgoing(flb))
  user.close(session)
  expect(calls.at(-1)).toBe('unpreserve 1')
  live.luo?.flbs?.putOutgoing(flb)
  expect(calls.at(-1)).toBe('a unpreserve 4096')
})

test.each(BEFORE_72)('%s: get_outgoing takes no reference', (release) => {
  const flb = recordingFlb([], 'a')
  const { live, user, session } = withFlbs(release, [], [flb])
  expect(live.luo?.flbs?.getOutgoing(flb)).toBeUndefined()
  value(user.preserveFd(session, fakeFile(user, 1n), 1n))
  expect(live.luo?.flbs?.getOutgoing(flb)).toBe('live a')
  expect(live.luo?.flbs?.outgoingCount(flb)).toBe(1)
})

test('linux-6.19 has no FLBs', () => {
  const handler = recordingHandler([])
  const { live } = bootLive('linux-6.19', { handlers: [handler] })
  expect(live.luo?.flbs).toBeUndefined()
  expect(errno(live.luo?.registerFlb(handler, recordingFlb([], 'a')))).toBe('EOPNOTSUPP')
})
