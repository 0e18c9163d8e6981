/**
 * The FLBs of CONFIG_LIVEUPDATE_TEST, which depend on every file handler: what preserves, retrieves and
 * finishes them says so on the console.
 *
 * Source: lib/tests/liveupdate.c (Linux 7.1.13, 7.3.4).
 */
import { LIVEUPDATE_TEST_FLBS } from '../abi/liveupdate-test.ts'
import { Failure, failed } from './answer.ts'
import type { LuoContext } from './luo-context.ts'
import type { FileHandler } from './luo-file.ts'
import type { Flb, Flbs } from './luo-flb.ts'

/** One set for each kernel; the first registration looks for what the previous kernel left. */
const flbsOf = new WeakMap<Flbs, readonly Flb[]>()

/** liveupdate_test_register() */
export function registerTestFlbs(context: LuoContext, flbs: Flbs, handler: FileHandler): void {
  const known = flbsOf.get(flbs)
  const tested = known ?? LIVEUPDATE_TEST_FLBS.map(({ name, data }) => testFlb(context, name, data))
  flbsOf.set(flbs, tested)
  if (!known) lookForIncoming(context, flbs, tested)
  for (const flb of tested) {
    const answer = flbs.register(handler, flb)
    if (failed(answer)) context.say('FLB_TEST_REGISTER', flb.compatible, answer.number)
  }
  const [first] = tested
  if (first) flbs.register(handler, first)
  context.say('FLB_TEST_REGISTERED', tested.length, handler.compatible)
}

/** liveupdate_test_unregister() of Linux 7.0 */
export function unregisterTestFlbs(flbs: Flbs, handler: FileHandler): void {
  for (const flb of flbsOf.get(flbs) ?? []) flbs.unregister(handler, flb)
}

/** liveupdate_test_init() */
function lookForIncoming(context: LuoContext, flbs: Flbs, tested: readonly Flb[]): void {
  for (const flb of tested) {
    const answer = flbs.getIncoming(flb)
    if (!failed(answer)) flbs.putIncoming(flb)
    else if (answer.errno !== 'ENODATA' && answer.errno !== 'ENOENT') {
      context.say('FLB_TEST_INCOMING', flb.compatible, answer.number)
    }
  }
}

function testFlb(context: LuoContext, compatible: string, data: bigint): Flb {
  return {
    compatible,
    ops: {
      preserve: (args) => {
        context.say('FLB_TEST_PRESERVE', compatible)
        args.data = data
      },
      unpreserve: () => context.say('FLB_TEST_UNPRESERVE', compatible),
      retrieve: (args) => {
        if (args.data !== data) {
          context.say('FLB_TEST_WRONG', compatible, args.data, data)
          return new Failure('EINVAL')
        }
        context.say('FLB_TEST_FOUND', compatible)
        args.obj = data
      },
      finish: ({ obj }) => context.say(obj === data ? 'FLB_TEST_FINISH' : 'FLB_TEST_OBJECT', compatible),
    },
  }
}
