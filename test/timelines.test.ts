/** Timelines: the shipped ones, what real kernels answered, images in between, and what is refused. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ERRNO } from '../abi/errno.ts'
import { memfdSeals } from '../abi/memfd.ts'
import { phys } from '../abi/memory.ts'
import { readTimeline } from '../encode/timeline.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { validate } from '../inspect/validate.ts'
import { simulatedReleases } from '../simulate/release.ts'
import type { TimelineHooks } from '../simulate/timeline.ts'
import type { StepEvent } from '../simulate/timeline-event.ts'
import { badTimelines } from './support/bad-timelines.ts'
import { ROOT } from './support/images.ts'
import { broken, read, run, runText, timelineNames, timelineText } from './support/timelines.ts'

/** Releases that a timeline is good for, where not all that have live update. */
const RELEASES: Readonly<Record<string, readonly string[]>> = {
  flb: ['linux-7.1', 'linux-7.2', 'linux-7.3'],
  'refused-takeover': ['linux-6.19', 'linux-7.1'],
  finalize: ['linux-6.17', 'linux-6.18', 'linux-6.19', 'linux-7.0'],
}
const ALL = ['linux-6.19', 'linux-7.1', 'linux-7.2', 'linux-7.3']

/** Of drivers in the timelines, which the kernels that take over have. */
const handlers = ['vfio-v1']

/** What the validator says of handovers that are broken by the timeline, or do not come back as they were. */
const WRONG_ON_PURPOSE: Readonly<Record<string, readonly string[]>> = {
  probe: [
    'luo.sessions[seals].files[0x1].memfd.seals: with F_SEAL_EXEC the kernel adds the seals against writing and resizing',
  ],
  'corrupt-word': [
    "kho.compatible: root FDT at 0x101000 is compatible with 'kho-v9'",
    'kho.compatible: the root FDT is not compatible with kho-v4',
    "luo: luo: the blob at 0x108000 says compatible 'luo-v6'",
    "luo.compatible: the live update state says 'luo-v6'",
    'luo.sessions[vm].files: files: the count beside the pointer and the blocks disagree',
    'luo.sessions[vm].files: the session counts other than its blocks',
    "luo.sessions[vm].files[0x1]: no handler is registered under ''",
  ],
  'fifty-one-sessions': [
    'luo.sessions: block 1 of sessions at 0x10b000 has count 0',
    'luo.sessions: block 1 of sessions has count 0',
  ],
}

describe.each(timelineNames)('%s', (name) => {
  test.each(RELEASES[name] ?? ALL)('goes as it says on %s', async (release) => {
    const { failure, events } = await runText(timelineText(name), { release })
    expect(failure?.wrong ?? []).toEqual([])
    expect(events.length).toBeGreaterThan(5)
  })

  test('leaves images that decode without faults and pass the validator', async () => {
    const verdicts: (readonly string[])[] = []
    const onHandover: TimelineHooks['onHandover'] = ({ memory, boot }) => {
      const handover = decodeHandover(memory, phys(boot.fdt_addr), { boot })
      const { findings } = validate(handover, { handlers })
      const wrong = [...handover.faults, ...findings].filter(({ severity }) => severity !== 'note')
      verdicts.push(wrong.map(({ path, message }) => `${path}: ${message}`))
    }
    await runText(timelineText(name), {}, { onHandover })
    expect(verdicts.flat()).toEqual(WRONG_ON_PURPOSE[name] ?? [])
    expect(verdicts.length).toBeGreaterThan(0)
  })
})

describe('each expectation of a timeline, turned around', () => {
  test.each(timelineNames.filter((name) => name !== 'probe'))('fails its step in %s', async (name) => {
    const { timeline } = await read(timelineText(name))
    const whole = run(timeline)
    const numbers = new Set(whole.events.map(({ number }) => number))
    const missed: string[] = []
    let tried = 0
    for (const { number, what, timeline: other } of broken(timeline)) {
      if (!numbers.has(number)) continue
      tried++
      const failed = run(other).failure?.number
      if (failed !== number) missed.push(`${number}, ${what}: ${failed}`)
    }
    expect(missed).toEqual([])
    expect(tried).toBeGreaterThanOrEqual(10)
  })
})

type Measured = Readonly<Record<string, string | null>>

const measured = JSON.parse(readFileSync(`${ROOT}fixtures/behaviour/behaviour.json`, 'utf8')) as {
  readonly steps: readonly Measured[]
}

/** As the guest printed it: `ok`, `errno 17`. */
function answerOf({ outcomes }: StepEvent): string {
  const outcome = outcomes[0]?.outcome ?? 'nothing'
  return outcome in ERRNO ? `errno ${ERRNO[outcome as keyof typeof ERRNO]}` : outcome
}

/** So many were ok, then an error. */
function countOf({ outcomes }: StepEvent): string {
  const [ok, next] = outcomes
  return `${ok?.times} errno=${next ? ERRNO[next.outcome as keyof typeof ERRNO] : 0}`
}

function factOf({ facts }: StepEvent, name: string): string {
  return String(facts.find((fact) => fact.name === name)?.value)
}

function sealsOf(event: StepEvent): string {
  const bits: Readonly<Record<string, number>> = memfdSeals
  const words = factOf(event, 'seals').split('|')
  return words.reduce((all, word) => all | (bits[word.toUpperCase()] ?? 0), 0).toString(16)
}

/** What the guest printed besides, by the step of the timeline that looks at it. */
const VALUES: Readonly<Record<string, readonly [step: string, shown: (event: StepEvent) => string | null]>> =
  {
    'value noexec-seals': ['noexec-seal-get', sealsOf],
    'value files-per-session': ['files-per-session', countOf],
    'value sessions-more': ['sessions-more', countOf],
    'value get-name': ['get-name', (event) => (answerOf(event) === 'ok' ? factOf(event, 'name') : null)],
    'value same-inode': [
      'same-inode',
      (event) => `1 size ${factOf(event, 'size')} mode ${factOf(event, 'mode')}`,
    ],
    'value implicit-content': [
      'implicit-file-readable',
      (event) => (event.wrong.length > 0 ? 'other' : 'hello'),
    ],
    'value restored-noexec-seals': ['restored-noexec-seals', sealsOf],
    'value restored-write-seals': ['restored-write-seals', sealsOf],
    'value restored-nosealing-seals': ['restored-nosealing-seals', sealsOf],
  }

describe.each([
  ['linux-6.19', 'linux-6.19.11'],
  ['linux-7.1', 'linux-7.1.13'],
  ['linux-7.3', 'linux-7.3.4'],
])('the probe on the simulated %s', async (release, real) => {
  const { events } = await runText(timelineText('probe'), { release }, { keepGoing: true })
  const kexec = events.findIndex(({ verb }) => verb === 'kexec')
  const sides = { old: events.slice(0, kexec), new: events.slice(kexec) }

  test.each(measured.steps.map((step) => [step.kernel, step.step, step[real]]))(
    '%s: %s is answered as by the real one: %s',
    (kernel, step, answer) => {
      const [title, shown] = VALUES[String(step)] ?? [step, answerOf]
      const event = sides[kernel as 'old' | 'new'].find((one) => one.title === title)
      expect(event && shown(event)).toBe(answer)
    },
  )
})

describe('mistakes in timelines', () => {
  const refusal = async (text: string): Promise<string> => {
    const result = await readTimeline(text, { simulated: simulatedReleases })
    if (result.ok) return 'taken'
    return result.problems
      .map(({ line, column, path, message }) => `${line}:${column}: ${path}: ${message}`)
      .join('\n')
  }

  test('are named with their place and what would be right', async () => {
    const parts: string[] = []
    for (const { cause, text } of badTimelines) {
      parts.push(`### ${cause}\n\n${text.replaceAll(/^/gm, '    ').trimEnd()}\n\n${await refusal(text)}\n`)
    }
    await expect(parts.join('\n')).toMatchFileSnapshot('expected/bad-timelines.txt')
  })

  test('what the hint for a word with keys below it says is taken', async () => {
    expect(await refusal('release: linux-7.3\nsteps:\n  - kexec:\n    expect: ok\n')).toBe('taken')
  })

  test.each(badTimelines)('$cause', async ({ text }) => {
    for (const line of (await refusal(text)).split('\n')) expect(line).toMatch(/^\d+:\d+: \S/)
  })
})

/** Steps that make sense somewhere, in an order that mostly does not. */
const anyStep = fc.constantFrom(
  'open',
  '{ close: /dev/liveupdate }',
  '{ create_session: a }',
  '{ create_session: b }',
  '{ retrieve_session: a }',
  '{ close: a }',
  '{ memfd: { name: m, size: 9000, content: { text: x } } }',
  '{ preserve: { session: a, token: 1, file: m } }',
  '{ preserve: { session: b, token: 1, memfd: { size: 5000 } } }',
  '{ preserve: { session: a, token: 2, opaque: { compatible: vfio-v1, data: 7 } } }',
  '{ retrieve: { session: a, token: 1, as: m } }',
  '{ retrieve: { session: a, token: 2 } }',
  '{ finish: a }',
  '{ finish: }',
  '{ write: { file: m, at: 4000, content: { text: yyy } } }',
  '{ truncate: { file: m, size: 100 } }',
  '{ verify: m }',
  '{ fail: allocation }',
  '{ fail: { handler: vfio-v1, callback: freeze } }',
  '{ fail: { handler: vfio-v1, callback: retrieve } }',
  '{ corrupt: { path: luo.sessions_pa, value: 0x5000 } }',
  '{ corrupt: { path: "luo.sessions[a].files[0x1].data", value: 0xfffffffffffff000 } }',
  '{ corrupt: { at: 0x101000, value: 1 } }',
  '{ prepare: [{ session: p, files: [{ token: 1, file: m }] }] }',
  'freeze',
  'cancel',
  'finalize',
  'load',
  '{ load: { unload: true } }',
  '{ load: { preserve_context: true } }',
  'kexec',
  '{ kexec: { load: false } }',
  '{ kexec: linux-7.2 }',
  '{ kexec: { to: linux-7.3, without: [vfio-v1] } }',
  'boot',
)

test('a call that the kernel dies of comes to panic, and so does what follows', async () => {
  const steps = [
    ...['open', '{ create_session: vm }'],
    '{ preserve: { session: vm, token: 1, memfd: { size: 9000, content: { text: x } } } }',
    '{ corrupt: { path: "luo.sessions[vm].files[0x1].memfd.folios.first", value: 0x7fffffff000 } }',
    ...['kexec', 'open', '{ retrieve_session: vm }'],
    ...['{ retrieve: { session: vm, token: 1 } }', 'open', '{ finish: vm }'],
  ]
  const text = `release: linux-7.3\nsteps:\n${steps.map((step) => `  - ${step}\n`).join('')}`
  const { events } = await runText(text, {}, { keepGoing: true })
  expect(events.slice(-4).map(({ outcomes }) => outcomes[0]?.outcome)).toEqual([
    'ok',
    'panic',
    'panic',
    'panic',
  ])
})

test('no sequence of steps ends the simulator itself', async () => {
  const names = '{ steps: [], only: linux-6.16 }'
  const opened = [
    '{ memfd: { name: m, size: 1 }, only: linux-6.16 }',
    '{ create_session: a, only: linux-6.16 }',
    '{ create_session: b, only: linux-6.16 }',
    '{ open: , only: linux-6.16 }',
    '{ retrieve: { session: a, token: 1 }, only: linux-6.16 }',
    '{ preserve: { session: a, token: 2, opaque: { compatible: vfio-v1, data: 7 } }, only: linux-6.16 }',
    names,
  ]
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('linux-6.17', 'linux-6.19', 'linux-7.0', 'linux-7.1', 'linux-7.3'),
      fc.array(anyStep, { minLength: 1, maxLength: 25 }),
      async (release, steps) => {
        const lines = [...opened, ...steps].map((step) => `  - ${step}`)
        const text = `release: ${release}\nliveupdate_test: ${steps.length % 2 === 0}\nsteps:\n${lines.join('\n')}\n`
        const { events } = await runText(text, {}, { keepGoing: true })
        expect(events.length).toBe(1 + steps.length)
      },
    ),
    { numRuns: 150 },
  )
})
