/** reserve_mem on simulated kernels: declared on the command line, revived or refused by the next one. */
import { expect, test } from 'vitest'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { Kernel } from '../simulate/kernel.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { errnoOf, held, linesOf, must, textAt } from './support/captured.ts'

const SCRATCH = 'kho=on kho_scratch=16M,16M,16M'
const said = (kernel: Kernel): readonly string[] =>
  linesOf(kernel).filter((line) => !line.startsWith('KHO: '))

function boot(release: string, regions: string): Kernel {
  return Kernel.boot({ release, cmdline: `${SCRATCH} ${regions}` })
}

function next(kernel: Kernel, regions: string, release?: string): Kernel {
  if (kernel.spec.traits.hasFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
  return must(kernel.kexec({ cmdline: `${SCRATCH} ${regions}`, ...(release ? { release } : {}) }))
}

function regionOf(kernel: Kernel, name: string) {
  const region = kernel.reserveMem.regions.find((candidate) => candidate.name === name)
  if (!region) throw new Error(`no region ${name}`)
  return region
}

function write(kernel: Kernel, name: string, text: string): PhysAddr {
  const { start } = regionOf(kernel, name)
  kernel.ram.write(start, new TextEncoder().encode(text))
  return start
}

test.each(simulatedReleases)('%s: a region is revived at its place with its contents', (release) => {
  const old = boot(release, 'reserve_mem=1M:4096:trace reserve_mem=64K:64K:oops')
  const start = write(old, 'trace', 'ring buffer')
  expect(regionOf(old, 'oops').start % 65536n).toBe(0n)
  const kernel = next(old, 'reserve_mem=64K:64K:oops reserve_mem=1M:4096:trace')
  expect(said(kernel)).toEqual([
    "Revived memory reservation 'oops' from KHO",
    "Revived memory reservation 'trace' from KHO",
  ])
  expect(regionOf(kernel, 'trace')).toMatchObject({ start, size: 1n << 20n, revived: true })
  expect(textAt(kernel, start, 11)).toBe('ring buffer')
})

const refusals = [
  [
    'wrong size',
    'reserve_mem=2M:4096:trace',
    /^KHO reserve-mem 'trace' has wrong size \(0x100000 != 0x200000\)$/,
  ],
  [
    'wrong alignment',
    'reserve_mem=1M:256M:trace',
    /^KHO reserve-mem 'trace' has wrong alignment \(0x10000000, 0x[0-9a-f]+\)$/,
  ],
  ['no region of that name', 'reserve_mem=1M:4096:other', /^FDT 'memblock' has no child 'other': -1$/],
] as const

test.each(refusals)('%s: refused, and memory is allocated anew', (_, parameter, message) => {
  for (const release of simulatedReleases) {
    const old = boot(release, 'reserve_mem=1M:4096:trace')
    const start = write(old, 'trace', 'old')
    const kernel = next(old, parameter)
    expect(said(kernel)[0], release).toMatch(message)
    const [region] = kernel.reserveMem.regions
    // An alignment of 256 MiB finds no room in the scratch areas.
    if (parameter.includes('256M')) expect(region).toBeUndefined()
    else expect(region?.start).not.toBe(start)
    expect(kernel.pages.census().preserved).toBeGreaterThanOrEqual(256)
  }
})

test('7.1 a region that is allocated while only scratch memory may be used cannot be handed on', () => {
  for (const release of simulatedReleases) {
    const kernel = next(boot(release, 'reserve_mem=1M:4096:trace'), 'reserve_mem=1M:4096:other')
    const { start } = regionOf(kernel, 'other')
    expect(kernel.kho.overlapsScratch(start, 1 << 20)).toBe(true)
    const { checksScratch, buildsAtFinalize } = kernel.spec.traits
    const failure = 'failed to prepare memblock FDT for KHO: -22'
    expect(said(kernel).includes(failure), release).toBe(checksScratch && !buildsAtFinalize)
    if (!buildsAtFinalize) continue
    const answer = errnoOf(kernel.kho.outgoing.writeFinalize('1'))
    expect(answer, release).toBe(checksScratch ? 'EINVAL' : 'ok')
  }
})

test.each(simulatedReleases)('%s: without a memblock subtree nothing is said', (release) => {
  const kernel = next(boot(release, ''), 'reserve_mem=1M:4096:trace')
  expect(said(kernel).filter((line) => line.startsWith('FDT'))).toEqual([])
  expect(regionOf(kernel, 'trace').revived).toBe(false)
})

const unaligned = 'reserve_mem=6000:4096:odd'

test.each(['linux-6.16', 'linux-6.17', 'linux-6.17.9'])(
  '7.1 %s: a size that is no multiple of a page aborts the finalize with EINVAL',
  (release) => {
    const kernel = boot(release, unaligned)
    expect(errnoOf(kernel.kho.outgoing.writeFinalize('1'))).toBe('EINVAL')
    expect(linesOf(kernel).at(-1)).toBe('KHO: Failed to convert KHO state tree: -22')
    expect(must(kernel.kho.outgoing.readFinalize())).toBe('0')
  },
)

test.each(simulatedReleases.slice(simulatedReleases.indexOf('linux-6.18')))(
  '7.1 %s: a size that is no multiple of a page loses its tail without a word',
  (release) => {
    const old = boot(release, unaligned)
    const { start } = regionOf(old, 'odd')
    const kernel = next(old, unaligned)
    expect(said(kernel)).toEqual(["Revived memory reservation 'odd' from KHO"])
    expect(kernel.pages.preservedOrder(start)).toBe(0)
    expect(kernel.pages.preservedOrder(phys(start + 4096n))).toBeUndefined()
  },
)

const malformed = ['1M', '1M:4096', ':4096:x', '0:4096:x', '1M:4096:', '1M:4096:sixteen-letters!']

test.each(malformed)('reserve_mem=%s is no region, and 7.1 and later say so', (parameter) => {
  for (const release of simulatedReleases) {
    const kernel = boot(release, `reserve_mem=${parameter}`)
    expect(kernel.reserveMem.regions).toEqual([])
    const speaks = simulatedReleases.indexOf(release) >= simulatedReleases.indexOf('linux-7.1')
    expect(said(kernel), release).toEqual(speaks ? ['reserve_mem: empty or malformed parameter'] : [])
  }
})

test('a name is taken once, and there are no more than 8 regions', () => {
  const parameters = Array.from({ length: 10 }, (_, at) => `reserve_mem=4K:4K:r${Math.max(1, at)}`)
  const kernel = boot('linux-7.3', parameters.join(' '))
  expect(kernel.reserveMem.regions.map(({ name }) => name)).toEqual(
    [1, 2, 3, 4, 5, 6, 7, 8].map((n) => `r${n}`),
  )
  expect(said(kernel)).toEqual([
    'reserve_mem: name "r1" was already used',
    'reserve_mem: no more room for reserved memory',
  ])
})

test('sizes in octal, decimal and hexadecimal, with suffixes; alignments of at least a cache line', () => {
  const kernel = boot('linux-7.3', 'reserve_mem=0x2000:0:a reserve_mem=010000:1K:b reserve_mem=12288:2M:c')
  expect(kernel.reserveMem.regions.map(({ size }) => size)).toEqual([8192n, 4096n, 12288n])
  expect(regionOf(kernel, 'c').start % (2n << 20n)).toBe(0n)
})

test.each(simulatedReleases.slice(simulatedReleases.indexOf('linux-6.19')))(
  '%s: without a page for its FDT, or one of the map, memblock hands nothing on and loses nothing',
  (release) => {
    const quiet = boot(release, '')
    const without = held(quiet).length
    let failures = 0
    for (let n = 1; n < 40; n++) {
      const kernel = Kernel.boot({
        release,
        cmdline: `${SCRATCH} reserve_mem=1M:4096:trace`,
        subsystems: (built) => [{ late: () => built.pages.failAt(n) }],
      })
      if (!said(kernel).includes('failed to prepare memblock FDT for KHO: -12')) break
      failures++
      const map = new Set<bigint>(kernel.kho.outgoing.map?.ownPages() ?? [])
      const kept = [...kernel.pages.allocations()].filter(({ pa }) => !map.has(pa))
      const quietMap = [...(quiet.kho.outgoing.map?.ownPages() ?? [])].length
      expect(kept).toHaveLength(without - quietMap)
    }
    expect(failures).toBeGreaterThan(1)
  },
)
