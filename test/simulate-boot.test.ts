/** Boot of simulated kernels, held against what real kernels said and found when they booted. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Kernel } from '../simulate/kernel.ts'
import { simulatedReleases } from '../simulate/release.ts'
import {
  bootReal,
  capturedConsole,
  errnoOf,
  LAB_CMDLINE,
  linesOf,
  must,
  type Patch,
  pageWith,
  textAt,
} from './support/captured.ts'
import { expectedOf, ROOT, realImages } from './support/images.ts'

/** What is said by KHO, memblock and their test module; live update has tests of its own. */
const SPOKEN = /^(KHO:|test_kho:|Revived|FDT '|Node '|KHO reserve-mem|failed to prepare memblock|WARNING)/

/** The lab's kho-v2 kernel was a 7.1.13 with another string: its debugfs misses what that version has not. */
const OF_7_1 = / missing or invalid blob-size property$/
/** The images do not hold the test module's folios, of which the captured consoles tell. */
const TEST_MODULE = /^test_kho:/

function spoken(lines: readonly string[]): readonly string[] {
  // Line number, offsets and processor of a warning are the build's.
  return lines
    .filter((line) => SPOKEN.test(line))
    .map((line) => line.replace(/^(WARNING: [^:]+):\d+ at (\w+).*/, '$1 at $2'))
}

const withConsole = realImages.filter((image) => !image.includes('arm64'))

test.each(withConsole)('%s: the simulated kernel says at boot what the real one said', async (image) => {
  const kernel = await bootReal(image)
  const real = spoken(capturedConsole(image)).filter((line) => !OF_7_1.test(line) && !TEST_MODULE.test(line))
  expect(real.length).toBeGreaterThan(2)
  expect(spoken(linesOf(kernel)).filter((line) => !TEST_MODULE.test(line))).toEqual(real)
  expect(kernel.state).toBe('running')
})

interface Wrong {
  readonly name: string
  readonly patch: Patch
  readonly console: readonly string[]
}

const wrong = readdirSync(`${ROOT}fixtures/wrong`)
  .filter((name) => name.endsWith('.json'))
  .map((name): Wrong => JSON.parse(readFileSync(`${ROOT}fixtures/wrong/${name}`, 'utf8')))

/** Patches of what KHO, memblock and kexec-metadata read; the others are LUO's. */
const ofTheCore = new Set([
  'right',
  'kho-compatible-v3',
  'memory-map-zero',
  'metadata-version-2',
  'reserve-mem-compatible-other',
])

test.each(wrong.filter(({ name }) => ofTheCore.has(name)))(
  '$name: the simulated 7.3 says what the real one said of this image',
  async ({ patch, console: real }) => {
    const kernel = await bootReal('linux-7.3-arm64-4k-basic', { patch })
    const sizes = 'KHO: scratch areas: lowmem: 16MiB global: 64MiB pernode: 16MiB'
    expect(spoken(linesOf(kernel)).filter((line) => line !== sizes)).toEqual(spoken(real))
    expect(kernel.state).toBe('running')
  },
)

test('radix-child-outside-ram: the walk before reserve_mem dies of the pointer, as in the real 7.3', async () => {
  const { patch, console: real } = wrong.find(({ name }) => name === 'radix-child-outside-ram') as Wrong
  const kernel = await bootReal('linux-7.3-arm64-4k-basic', { patch })
  expect(kernel.state).toBe('crashed')
  const said = linesOf(kernel).filter((line) => !line.includes('scratch areas'))
  expect(said).toEqual(real.filter((line) => !line.startsWith('---[')))
  expect(kernel.run(() => 1)).toBeUndefined()
})

test.each(realImages)(
  '%s: every page is accounted for, every unit of the map is there to be taken',
  async (image) => {
    const kernel = await bootReal(image, { config: { testKho: false } })
    const { total, free, allocated, preserved, scratch, reserved } = kernel.pages.census()
    expect(free + allocated + preserved + scratch + reserved).toBe(total)
    expect(Math.min(free, allocated, preserved, scratch, reserved)).toBeGreaterThanOrEqual(0)
    const expected = expectedOf(image) as unknown as { preserved: { bytes: number } }
    const taken = kernel.spec.traits.restoresRootFdt ? 1 : 0
    expect(preserved).toBe(expected.preserved.bytes / 4096 - taken)
    for (const { pa, order } of [...kernel.pages.preservedUnits()]) {
      expect(kernel.kho.restoreFolio(pa)).toBe(pa)
      expect(kernel.pages.orderOf(pa)).toBe(order)
      kernel.pages.put(pa)
    }
    const after = kernel.pages.census()
    expect(after.preserved).toBe(0)
    expect(after.free).toBe(free + preserved)
  },
)

test('8.1 boot order: populate, reserve_mem, map, early_initcall, fs_initcall, test modules, late_initcalls', async () => {
  const order: string[] = []
  const note = (what: string, kernel: Kernel): void => {
    order.push(
      `${what} after ${linesOf(kernel)
        .at(-1)
        ?.replace(/ \(.*|:.*/, '')}`,
    )
  }
  await bootReal('linux-7.3-x86_64-basic', {
    subsystems: (kernel) => [
      {
        early: () => note('early', kernel),
        late: () => note('late', kernel),
        lateMm: () =>
          note(`late of mm with ${kernel.reserveMem.fdt === undefined ? 'no' : 'an'} FDT`, kernel),
      },
    ],
  })
  expect(order).toEqual([
    "early after Revived memory reservation 'oops' from KHO",
    'late after test_kho',
    'late of mm with an FDT after test_kho',
  ])
})

test.each(simulatedReleases)(
  '8.1 %s: without kho= on the command line nothing is preserved or reserved',
  (release) => {
    const kernel = Kernel.boot({ release, cmdline: 'kho_scratch=16M,64M,16M' })
    expect(kernel.kho.enabled).toBe(false)
    expect(kernel.pages.census().scratch).toBe(0)
    expect(linesOf(kernel)).toHaveLength(1)
  },
)

test('8.1 kho= has a default in the configuration from 6.19 on', () => {
  const enabled = simulatedReleases.map((release) => {
    const kernel = Kernel.boot({ release, cmdline: '', config: { enabledByDefault: true } })
    return [release, kernel.kho.enabled]
  })
  const off = enabled.filter(([, is]) => !is).map(([release]) => release)
  expect(off).toEqual(['linux-6.16', 'linux-6.17', 'linux-6.17.9', 'linux-6.18'])
})

test('1.3 a kernel with kho=off reserves all preserved memory and hands nothing over', async () => {
  const kernel = await bootReal('linux-7.3-x86_64-basic', { cmdline: 'kho=off' })
  expect(linesOf(kernel)).toEqual(['KHO: found kexec handover data.'])
  expect(kernel.pages.census().preserved).toBeGreaterThan(1000)
  const next = must(kernel.kexec())
  expect(next.kho.isKhoBoot).toBe(false)
  expect(linesOf(next)).toEqual([])
})

test('1.3 a version string that is not its own makes a kernel boot without KHO, and nothing is kept', () => {
  const old = Kernel.boot({ release: 'linux-7.1', cmdline: LAB_CMDLINE })
  const page = pageWith(old, 'kept')
  must(old.kho.preserveFolio(page))
  const next = must(old.kexec({ release: 'linux-7.2' }))
  const boot = old.kho.outgoing.rootFdt?.toString(16)
  expect(linesOf(next).slice(0, 2)).toEqual([
    `KHO: setup: handover FDT (0x${boot}) is incompatible with 'kho-v4': 1`,
    'KHO: disabling KHO revival',
  ])
  expect(next.pages.census().preserved).toBe(0)
  expect(next.kho.enabled).toBe(true)
})

const noMap = ['linux-6.16', 'linux-6.17.9', 'linux-6.18', 'linux-6.19', 'linux-7.0']

test.each(noMap)(
  '1.3 %s: a 6.19 image whose map was never finalized is refused, before 6.19 taken as empty',
  (release) => {
    const old = Kernel.boot({ release: 'linux-6.19', cmdline: 'kho=on kho_scratch=16M,64M,16M' })
    const next = must(old.kexec({ release }))
    const said = linesOf(next).filter((line) => !line.includes('scratch areas'))
    if (!next.spec.traits.demandsMap) {
      expect(next.kho.isKhoBoot).toBe(true)
      expect(next.pages.census().preserved).toBe(0)
    } else expect(said).toEqual([`KHO: disabling KHO revival${release === 'linux-6.19' ? ': -2' : ''}`])
  },
)

test('3.2 7.3 turns blocks of 1 GiB without preserved memory into scratch memory for the early kernel', () => {
  const ram = [{ start: 0n, end: 4n << 30n }]
  const old = Kernel.boot({ release: 'linux-7.3', ram, cmdline: 'kho=on kho_scratch=16M,16M,16M' })
  const cmdline = 'kho=on reserve_mem=128M:4096:large'
  const small = must(old.kexec({ release: 'linux-7.3', cmdline }))
  expect(small.reserveMem.regions.map(({ size }) => size)).toEqual([128n << 20n])
  const before = Kernel.boot({ release: 'linux-7.2', ram, cmdline: 'kho=on kho_scratch=16M,16M,16M' })
  const full = must(before.kexec({ release: 'linux-7.2', cmdline }))
  expect(full.reserveMem.regions).toEqual([])
  expect(linesOf(full)).toContain('reserve_mem: memblock allocation failed')
})

test('7.2 kexec-metadata counts kexecs and names the kernel before, an empty blob is no obstacle', () => {
  let kernel = Kernel.boot({ release: 'linux-7.2', cmdline: 'kho=on kho_scratch=16M,16M,16M' })
  for (const release of ['linux-7.3', 'linux-7.2', 'linux-7.3']) kernel = must(kernel.kexec({ release }))
  expect(linesOf(kernel)).toContain('KHO: exec from: 7.2.13 (count 3)')
  expect(kernel.kho.outgoing.previous).toEqual({ release: '7.2.13', count: 3 })
})

test.each(simulatedReleases)('%s: contents survive a chain of five kexecs', (release) => {
  let kernel = Kernel.boot({ release, cmdline: LAB_CMDLINE })
  let page = pageWith(kernel, 'handed on')
  for (let step = 0; step < 5; step++) {
    must(kernel.kho.preserveFolio(page))
    if (kernel.spec.traits.hasFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
    const next = must(kernel.kexec())
    expect(next.state).toBe('running')
    const back = next.kho.restoreFolio(page)
    expect(back && textAt(next, back, 9)).toBe('handed on')
    expect(next.reserveMem.regions.map(({ revived }) => revived)).toEqual([true, true])
    kernel = next
    page = back ?? page
  }
  expect(errnoOf(kernel.kho.preserveFolio(page))).toBe('ok')
})
