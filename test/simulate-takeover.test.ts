/**
 * Every pair of releases: what the simulated next kernel makes of the simulated old one's image, against
 * the written table and the verdict of `abi diff`, with the line of the check that the verdict names.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { Outcome } from '../abi/check.ts'
import { phys } from '../abi/memory.ts'
import { FrameRanges, type FrameSpans } from '../encode/frame-ranges.ts'
import { compareReleases } from '../inspect/abi-compare.ts'
import { describeAbi } from '../inspect/abi-document.ts'
import { releaseNamed } from '../inspect/abi-names.ts'
import type { Verdict } from '../inspect/abi-verdict.ts'
import { failed } from '../simulate/answer.ts'
import { type Handover, walkMap } from '../simulate/handover.ts'
import { linesOf, must } from './support/captured.ts'
import { ROOT } from './support/images.ts'
import { bootLive, type LiveMachine, takeOverLive } from './support/live.ts'

const { columns, outcomes } = JSON.parse(readFileSync(`${ROOT}fixtures/abi/takeover.json`, 'utf8')) as {
  columns: readonly string[]
  outcomes: Readonly<Record<string, readonly Outcome[]>>
}

const CMDLINE = 'kho=on liveupdate=on kho_scratch=16M,64M,16M reserve_mem=1M:4096:trace'
const config = { liveupdateTest: true }
const CONTENTS = 'handed over'

/** What the old kernel left, and what of it the next one should find. */
interface Left {
  readonly handover: Handover
  /** Frames of the preserved units, merged. */
  readonly preserved: FrameSpans
  readonly sessions: number
  readonly flbs: number
}

/** Pages here and there, a region, and where there is LUO a session with a file, bound to test FLBs. */
function leave(release: string): Left {
  const machine = bootLive(release, { cmdline: CMDLINE, config })
  const { kernel } = machine
  // Beyond the first eighth of what a bitmap of a page describes.
  for (const mib of [33n, 100n, 260n]) must(kernel.kho.preservePages(phys(mib << 20n), 3))
  const sessions = machine.live.luo?.enabled ? keepFile(machine) : 0
  if (kernel.spec.traits.togglesFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
  const handover = kernel.leave()
  if (!handover || failed(handover)) throw new Error(`${release} does not reboot`)
  const preserved = new FrameRanges()
  const { root } = kernel.kho.outgoing.map ?? {}
  if (root !== undefined) walkMap(kernel, root, (frame, order) => preserved.add(frame, frame + 2 ** order))
  const flbs = linesOf(kernel).filter((line) => line.endsWith('preserve was triggered')).length
  return { handover, preserved: preserved.merged(), sessions, flbs }
}

function keepFile({ user, device }: LiveMachine): number {
  const session = must(user.createSession(device(), 's'))
  const file = must(user.memfdCreate('m'))
  must(user.write(file, new TextEncoder().encode(CONTENTS)))
  must(user.preserveFd(session, file, 1n))
  return 1
}

function takeOver({ handover }: Left, release: string): LiveMachine {
  return takeOverLive(handover, { release, cmdline: CMDLINE, config })
}

/** What became of it. */
function outcome({ preserved, sessions, flbs }: Left, machine: LiveMachine): Outcome {
  const { kernel } = machine
  const lines = linesOf(kernel)
  if (lines.some((line) => line.startsWith('Kernel panic') && line.includes('incoming tree'))) return 'panics'
  if (lines.some((line) => line.startsWith('KHO: disabling KHO revival'))) return 'no-handover'
  if (kernel.state === 'crashed') return 'corrupts'
  const taken = kernel.kho.incoming.preserved.merged()
  if (JSON.stringify([...taken]) !== JSON.stringify([...preserved])) return 'corrupts'
  const found = lines.filter((line) => line.endsWith('found flb data from the previous boot')).length
  if (found < flbs) return 'loses'
  if (sessions > 0 && !findsFile(machine)) return 'loses'
  return 'takes-over'
}

function findsFile({ user, device, kernel }: LiveMachine): boolean {
  if (!kernel.spec.hasLuo) return false
  const session = user.retrieveSession(device(), 's')
  if (failed(session)) return false
  const file = user.retrieveFd(session, 1n)
  if (failed(file)) return false
  return new TextDecoder().decode(must(user.pread(file, CONTENTS.length, 0n))) === CONTENTS
}

/** A line of the console that a check's message with some values is. */
function lineOf(message: string): RegExp {
  const literal = message.split(/%(?:p[ae]|(?:\.\*|[lz]*)[a-z])/)
  return new RegExp(literal.map((part) => part.replace(/[[\]().*+?^${}|\\]/g, '\\$&')).join('.*'))
}

const abi = describeAbi()

/** Verdict of `abi diff old new` on 4K pages. */
function verdictOf(old: string, next: string): Verdict {
  const [before, after] = [releaseNamed(abi, old), releaseNamed(abi, next)]
  if (!before || !after) throw new Error(`no release ${old} or ${next}`)
  return compareReleases(abi, before, after, [4096]).forward
}

describe.each(Object.entries(outcomes))('an image of %s', (old, expected) => {
  const left = leave(old)
  const made = columns.map((next) => {
    const machine = takeOver(left, next)
    return { next, outcome: outcome(left, machine), console: linesOf(machine.kernel).join('\n') }
  })

  test('is taken over, lost or refused by each release', () => {
    expect(made.map((one) => [one.next, one.outcome])).toEqual(
      columns.map((next, at) => [next, expected[at]]),
    )
  })

  test('meets the outcome and the check that `abi diff` names', () => {
    for (const { next, outcome, console } of made) {
      const verdict = verdictOf(old, next)
      expect([next, verdict.outcome]).toEqual([next, outcome])
      const message = verdict.check?.message
      if (message !== undefined) expect(console).toMatch(lineOf(message))
    }
  })
})
