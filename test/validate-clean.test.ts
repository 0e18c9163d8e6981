/**
 * Right handovers are clean: captured images of real kernels, and everything that is made from scenarios
 * for every release. What could not be checked, or is odd but legal, is a note that says why.
 */
import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import type { Release } from '../abi/registry.ts'
import { decodeHandover, type Handover } from '../inspect/decode.ts'
import { kernelOfRelease } from '../inspect/target-kernel.ts'
import { validate } from '../inspect/validate.ts'
import type { Verdict } from '../inspect/verdict.ts'
import { type Fixture, fixtures } from '../testing/fixtures.ts'
import { decodeReal, ROOT, realImages } from './support/images.ts'
import { machines } from './support/machines.ts'

/** Findings that are no notes, as one line each. */
const wrong = ({ findings }: Verdict): readonly string[] =>
  findings
    .filter(({ severity }) => severity !== 'note')
    .map(({ rule, path, message, found }) => `${rule} ${path}: ${message}; ${found ?? ''}`)

/** Parts that do not come back whole. */
const lost = ({ parts }: Verdict): readonly string[] =>
  parts.filter(({ outcome }) => outcome !== 'takes-over').map(({ part, outcome }) => `${part} ${outcome}`)

function expectClean(handover: Handover, verdict: Verdict): void {
  expect(wrong(verdict)).toEqual([])
  expect(verdict.outcome).toBe('takes-over')
  expect(lost(verdict)).toEqual([])
  expect(verdict.findings.filter(({ message, why }) => message === '' || why === '')).toEqual([])
  expect(handover.faults.filter(({ severity }) => severity === 'error')).toEqual([])
}

describe('captured images', () => {
  test.each(realImages)('%s', async (name) => {
    const handover = await decodeReal(name)
    expectClean(handover, validate(handover))
  })
})

/** The kernels of kho-v2 and of the 7.1 candidates cannot read their own order-0 keys at 16K pages. */
const losesMarkers = ({ versions }: Release, pageSize: number): boolean =>
  versions.kho === 'kho-v2' && pageSize === 16384

function judged(release: Release, { memory, boot, pageSize }: Fixture): [Handover, Verdict] {
  const decode = { boot, pageSize }
  const handover = decodeHandover(memory, phys(boot.fdt_addr), decode)
  return [handover, validate(handover, { kernel: kernelOfRelease(release), decode })]
}

const readable = machines.filter(({ release, pageSize }) => !losesMarkers(release, pageSize))

/** The lines of KHO, LUO and memblock on the console of the kernel that took the image over. */
function takeoverLines(name: string): readonly string[] {
  const console = readFileSync(`${ROOT}fixtures/real/${name}.console.txt`, 'utf8').split('\n')
  return console
    .filter((line) => /^2 (KHO|luo|Revived)/.test(line) && !line.includes('scratch areas'))
    .map((line) => line.slice(2))
}

/** The image of kho-v2, which was never released, is from a kernel that had been changed to speak it. */
const withConsole = realImages.filter(
  (name) => /^linux/.test(name) && existsSync(`${ROOT}fixtures/real/${name}.console.txt`),
)

test.each(withConsole)('the lines to expect are those of the kernel that took %s over', async (name) => {
  const { console } = validate(await decodeReal(name))
  expect(console).toEqual(takeoverLines(name))
  expect(console.length).toBeGreaterThan(2)
})

describe('what scenarios make', () => {
  test.each(readable)('$release.name at $pageSize', async ({ release, pageSize }) => {
    const arch = pageSize === 4096 ? 'x86_64' : 'arm64'
    let count = 0
    for await (const made of fixtures({ release: release.name, arch, pageSize })) {
      if ('reason' in made) continue
      const [handover, verdict] = judged(release, made)
      expectClean(handover, verdict)
      count += 1
    }
    expect(count).toBeGreaterThan(4)
  })
})
