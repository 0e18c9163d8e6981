/** debugfs kho/out/finalize: answer for answer what two running kernels answered, and what follows from it. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ERRNO, type Errno } from '../abi/errno.ts'
import { phys } from '../abi/memory.ts'
import { type Answer, failed } from '../simulate/answer.ts'
import { Kernel } from '../simulate/kernel.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { errnoOf, held, linesOf, must, pageWith, textAt } from './support/captured.ts'
import { ROOT } from './support/images.ts'

const CMDLINE = 'kho=on kho_scratch=16M,16M,16M'

type Step = Readonly<Record<string, string>>
const { steps } = JSON.parse(readFileSync(`${ROOT}fixtures/behaviour/behaviour.json`, 'utf8')).finalize as {
  steps: readonly Step[]
}

/** As the guest printed it. */
function printed(answer: Answer<unknown>): string {
  if (!failed(answer)) return typeof answer === 'string' ? answer : 'ok'
  const { errno } = answer
  return `errno ${typeof errno === 'number' ? -errno : ERRNO[errno as Errno]}`
}

function perform(kernel: Kernel, step: string): Answer<unknown> {
  const [verb, value = ''] = step.split(' ')
  if (verb === 'kexec_file_load') return kernel.load()
  if (verb === 'read') return kernel.kho.outgoing.readFinalize()
  expect(verb).toBe('write')
  return kernel.kho.outgoing.writeFinalize(value)
}

test.each([
  ['linux-6.17', 'linux-6.17.8'],
  ['linux-6.19', 'linux-6.19.11'],
])('%s: finalize answers as the real %s did', (release, real) => {
  const kernel = Kernel.boot({ release, cmdline: CMDLINE })
  expect(steps.length).toBeGreaterThan(10)
  const answers = steps.map(({ step = '' }) => [step, printed(perform(kernel, step))])
  expect(answers).toEqual(steps.map((step) => [step.step, step[real]]))
})

test.each(['kho-v2', 'linux-7.1', 'linux-7.2', 'linux-7.3'])('8.2 %s has no finalize', (release) => {
  const kernel = Kernel.boot({ release, cmdline: CMDLINE })
  expect(errnoOf(kernel.kho.outgoing.readFinalize())).toBe('ENOENT')
  expect(errnoOf(kernel.kho.outgoing.writeFinalize('1'))).toBe('ENOENT')
  expect(kernel.kho.finalize).toBeUndefined()
})

const locking = ['linux-6.16', 'linux-6.17', 'linux-6.17.9', 'linux-6.18']
const repeating = ['linux-6.19', 'linux-7.0']

test.each(locking)('8.2 %s: after finalize every preserve returns EBUSY, after an abort none', (release) => {
  const { kho, pages, spec } = Kernel.boot({ release, cmdline: CMDLINE })
  const page = must(pages.alloc(0))
  const preserves = [() => kho.preserveFolio(page), () => kho.preservePages(page, 1)]
  if (!spec.traits.preservesPages) preserves.push(() => kho.preservePhys(page, 4096n))
  must(kho.outgoing.writeFinalize('1'))
  for (const preserve of preserves) expect(errnoOf(preserve())).toBe('EBUSY')
  must(kho.outgoing.writeFinalize('0'))
  for (const preserve of preserves) expect(errnoOf(preserve())).toBe('ok')
})

test('8.2 linux-6.18: after finalize kho_preserve_vmalloc makes ENOMEM of the EBUSY, nothing is lost', () => {
  const kernel = Kernel.boot({ release: 'linux-6.18', cmdline: CMDLINE })
  const area = must(kernel.kho.allocVmalloc(4096))
  must(kernel.kho.outgoing.writeFinalize('1'))
  const before = held(kernel)
  expect(errnoOf(kernel.kho.preserveVmalloc(area))).toBe('ENOMEM')
  expect(held(kernel)).toEqual(before)
  must(kernel.kho.outgoing.writeFinalize('0'))
  expect(errnoOf(kernel.kho.preserveVmalloc(area))).toBe('ok')
})

test('8.2 linux-6.18: in the inner function: scratch overlap is EINVAL before EBUSY, nothing is no error', () => {
  const kernel = Kernel.boot({ release: 'linux-6.18', cmdline: CMDLINE })
  const { kho, pages } = kernel
  const page = must(pages.alloc(0))
  const scratch = phys(kho.scratch[0]?.addr ?? 0n)
  must(kho.outgoing.writeFinalize('1'))
  expect(errnoOf(kho.preserveFolio(scratch))).toBe('EINVAL')
  expect(errnoOf(kho.preservePages(scratch, 1))).toBe('EINVAL')
  expect(linesOf(kernel).slice(-2)).toEqual([
    'WARNING: kernel/kexec_handover.c at kho_preserve_folio',
    'WARNING: kernel/kexec_handover.c at kho_preserve_pages',
  ])
  expect(errnoOf(kho.preservePages(page, 0))).toBe('ok')
  expect(errnoOf(kho.preservePages(page, 1))).toBe('EBUSY')
})

test.each(['linux-6.16', 'linux-6.17', 'linux-6.17.9'])(
  '8.2 %s: in the callers: EBUSY before all else, for nothing, an unaligned range and scratch memory, too',
  (release) => {
    const kernel = Kernel.boot({ release, cmdline: CMDLINE })
    const { kho, pages } = kernel
    const page = must(pages.alloc(0))
    const ranges = [
      [page, 0n],
      [phys(page + 1n), 4096n],
      [page, 100n],
      [phys(kho.scratch[0]?.addr ?? 0n), 4096n],
    ] as const
    const answers = (): unknown => ranges.map(([pa, bytes]) => errnoOf(kho.preservePhys(pa, bytes)))
    const scratch = release === 'linux-6.17.9' ? 'EINVAL' : 'ok'
    expect(answers()).toEqual(['ok', 'EINVAL', 'EINVAL', scratch])
    must(kho.outgoing.writeFinalize('1'))
    const said = linesOf(kernel).length
    expect(answers()).toEqual(['EBUSY', 'EBUSY', 'EBUSY', 'EBUSY'])
    expect(errnoOf(kho.preserveFolio(phys(kho.scratch[0]?.addr ?? 0n)))).toBe('EBUSY')
    expect(linesOf(kernel)).toHaveLength(said)
  },
)

test.each(locking)('8.2 %s: 1 twice EEXIST, 0 without finalize ENOENT', (release) => {
  const { outgoing } = Kernel.boot({ release, cmdline: CMDLINE }).kho
  const answers = ['0', '1', '1', '0', '0', '1'].map((text) => errnoOf(outgoing.writeFinalize(text)))
  expect(answers).toEqual(['ENOENT', 'ok', 'EEXIST', 'ok', 'ENOENT', 'ok'])
})

test.each(repeating)('8.2 %s: non-zero repeats, 0 EINVAL', (release) => {
  const { outgoing } = Kernel.boot({ release, cmdline: CMDLINE }).kho
  const answers = ['0', '1', '1', '7', '0'].map((text) => [
    errnoOf(outgoing.writeFinalize(text)),
    must(outgoing.readFinalize()),
  ])
  expect(answers).toEqual([
    ['EINVAL', '0'],
    ['ok', '1'],
    ['ok', '1'],
    ['ok', '1'],
    ['EINVAL', '1'],
  ])
})

test.each(locking)(
  '8.2 %s: an abort drops the whole map, what was preserved before finalize included',
  (release) => {
    const kernel = Kernel.boot({ release, cmdline: CMDLINE })
    const before = held(kernel)
    const page = pageWith(kernel, 'lost')
    must(kernel.kho.preserveFolio(page))
    must(kernel.kho.outgoing.writeFinalize('1'))
    must(kernel.kho.outgoing.writeFinalize('0'))
    must(kernel.kho.outgoing.writeFinalize('1'))
    const next = must(kernel.kexec())
    expect(next.kho.isKhoBoot).toBe(true)
    expect(next.pages.census().preserved).toBe(0)
    const again = Kernel.boot({ release, cmdline: CMDLINE })
    must(again.kho.outgoing.writeFinalize('1'))
    must(again.kho.outgoing.writeFinalize('0'))
    expect(held(again)).toEqual(before)
  },
)

test.each(locking)(
  '1.5 %s: an image loaded before finalize carries nothing, one loaded after it does',
  (release) => {
    const early = Kernel.boot({ release, cmdline: CMDLINE })
    must(early.load())
    must(early.kho.outgoing.writeFinalize('1'))
    expect(must(early.kexec()).kho.isKhoBoot).toBe(false)
    const late = Kernel.boot({ release, cmdline: CMDLINE })
    must(late.kho.outgoing.writeFinalize('1'))
    must(late.load())
    expect(must(late.kexec()).kho.isKhoBoot).toBe(true)
  },
)

test.each(locking)(
  '8.2 %s: an image loaded before an abort still leads to the map, whose pages are free',
  (release) => {
    const kernel = Kernel.boot({ release, cmdline: CMDLINE })
    const page = pageWith(kernel, 'kept')
    must(kernel.kho.preserveFolio(page))
    must(kernel.kho.outgoing.writeFinalize('1'))
    must(kernel.load())
    const map = kernel.kho.outgoing.map?.root
    must(kernel.kho.outgoing.writeFinalize('0'))
    expect([...kernel.pages.allocations()].map(({ pa }) => pa)).not.toContain(map)
    const next = must(kernel.kexec())
    expect(next.kho.isKhoBoot).toBe(true)
    expect(next.kho.restoreFolio(page)).toBe(page)
  },
)

test.each(repeating)('1.5 %s: an image loaded early carries a map that is finalized late', (release) => {
  const kernel = Kernel.boot({ release, cmdline: CMDLINE })
  must(kernel.load())
  const page = pageWith(kernel, 'late')
  must(kernel.kho.preserveFolio(page))
  must(kernel.kho.outgoing.writeFinalize('1'))
  const next = must(kernel.kexec())
  expect(next.kho.restoreFolio(page)).toBe(page)
  expect(textAt(next, page, 4)).toBe('late')
})

test.each(repeating)(
  '8.2 %s: what is preserved after kho_finalize is not in the map unless it is repeated',
  (release) => {
    const preserved = (twice: boolean): boolean => {
      const kernel = Kernel.boot({ release, cmdline: CMDLINE })
      must(kernel.kho.outgoing.writeFinalize('1'))
      // Another order, so that no bitmap of the written map is concerned.
      const folio = must(kernel.pages.alloc(3))
      must(kernel.kho.preserveFolio(folio))
      if (twice) must(kernel.kho.outgoing.writeFinalize('1'))
      return must(kernel.kexec()).kho.restoreFolio(folio) === folio
    }
    expect(preserved(false)).toBe(false)
    expect(preserved(true)).toBe(true)
  },
)

test.each(repeating)(
  '8.2 %s: a repeated finalize replaces the old map and gives its pages back',
  (release) => {
    const kernel = Kernel.boot({ release, cmdline: CMDLINE })
    must(kernel.kho.outgoing.writeFinalize('1'))
    const once = held(kernel).length
    for (let times = 0; times < 5; times++) must(kernel.kho.outgoing.writeFinalize('1'))
    expect(held(kernel)).toHaveLength(once)
  },
)

test.each(repeating)(
  '%s: a finalize that gets no page fails with ENOMEM and leaves the old map',
  (release) => {
    const kernel = Kernel.boot({ release, cmdline: CMDLINE })
    must(kernel.kho.outgoing.writeFinalize('1'))
    const before = held(kernel)
    kernel.pages.failAt(1)
    expect(errnoOf(kernel.kho.outgoing.writeFinalize('1'))).toBe('ENOMEM')
    expect(held(kernel)).toEqual(before)
    expect(must(kernel.kexec()).kho.isKhoBoot).toBe(true)
  },
)

test.each(locking)('%s: a finalize that gets no page fails with ENOMEM, says so and aborts', (release) => {
  const kernel = Kernel.boot({ release, cmdline: CMDLINE })
  const before = held(kernel)
  kernel.pages.failAt(2)
  expect(errnoOf(kernel.kho.outgoing.writeFinalize('1'))).toBe('ENOMEM')
  expect(linesOf(kernel).at(-1)).toBe('KHO: Failed to convert KHO state tree: -12')
  expect(held(kernel)).toEqual(before)
  expect(must(kernel.kho.outgoing.readFinalize())).toBe('0')
})

test('6.17: a subtree that does not fit the page aborts the finalize with the code of libfdt', () => {
  const kernel = Kernel.boot({ release: 'linux-6.17', cmdline: CMDLINE })
  let added = 0
  kernel.kho.outgoing.register(() => {
    for (let number = 100; ; number++) {
      const answer = kernel.kho.addSubtree(
        String(number),
        kernel.kho.outgoing.rootFdt ?? must(kernel.pages.alloc(0)),
        0,
      )
      if (failed(answer)) return answer
      added++
    }
  })
  const answer = kernel.kho.outgoing.writeFinalize('1')
  expect(errnoOf(answer)).toBe(-3)
  expect(linesOf(kernel).at(-1)).toBe('KHO: Failed to convert KHO state tree: -3')
  // 2.4: capacity of a page of 4096 bytes for names of three letters.
  expect(added).toBe(123)
})

test('without debugfs there is no file', () => {
  for (const release of simulatedReleases) {
    const { kho } = Kernel.boot({ release, cmdline: CMDLINE, config: { debugfs: false } })
    expect(errnoOf(kho.outgoing.writeFinalize('1')), release).toBe('ENOENT')
  }
})
