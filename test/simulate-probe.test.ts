/** What real kernels answered to one program, step by step, and the simulated ones' answers to the same. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ROOT } from './support/images.ts'
import { bootLive, kexecLive } from './support/live.ts'
import { type Answers, probeNew, probeOld } from './support/probe.ts'

type Measured = Readonly<Record<string, string | null>> & {
  readonly kernel: 'old' | 'new'
  readonly step: string
}

const { steps } = JSON.parse(readFileSync(`${ROOT}fixtures/behaviour/behaviour.json`, 'utf8')) as {
  readonly steps: readonly Measured[]
}

const KERNELS = [
  ['linux-6.19', 'linux-6.19.11'],
  ['linux-7.1', 'linux-7.1.13'],
  ['linux-7.3', 'linux-7.3.4'],
] as const

describe.each(KERNELS)('%s answers as %s did', (release, measured) => {
  const old = bootLive(release, { config: { liveupdateTest: true } })
  const oldAnswers = probeOld(old.user)
  const next = kexecLive(old, { config: { liveupdateTest: true } })
  const newAnswers = probeNew(next.user)

  const expected = (kernel: 'old' | 'new'): Answers =>
    new Map(steps.filter((step) => step.kernel === kernel).map((step) => [step.step, step[measured] ?? null]))

  test.each([...expected('old')])('old: %s', (step, answer) => {
    expect(oldAnswers.get(step)).toBe(answer)
  })

  test.each([...expected('new')])('new: %s', (step, answer) => {
    expect(newAnswers.get(step)).toBe(answer)
  })

  test('nothing is answered that was not measured', () => {
    expect([...oldAnswers.keys()].sort()).toEqual([...expected('old').keys()].sort())
    expect([...newAnswers.keys()].sort()).toEqual([...expected('new').keys()].sort())
  })
})
