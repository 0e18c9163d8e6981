/** Scratch areas of simulated kernels: sizes by the command line and by default, places, and what has no room. */
import { expect, test } from 'vitest'
import { scratchRules } from '../abi/machine.ts'
import { Kernel } from '../simulate/kernel.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { linesOf, must } from './support/captured.ts'

const MIB = 1n << 20n
const until = (release: string): readonly string[] =>
  simulatedReleases.slice(0, simulatedReleases.indexOf(release) + 1)
const since = (release: string): readonly string[] =>
  simulatedReleases.slice(simulatedReleases.indexOf(release))

function boot(
  release: string,
  scratch: string,
  ram?: { start: bigint; end: bigint; node?: number }[],
): Kernel {
  return Kernel.boot({ release, cmdline: `kho=on ${scratch}`, ...(ram ? { ram } : {}) })
}

function sizesOf(kernel: Kernel): readonly bigint[] {
  return kernel.kho.scratch.map(({ size }) => size)
}

test.each(simulatedReleases)(
  '1.4 %s: low memory, any use, one for each node, aligned and apart from each other',
  (release) => {
    const ram = [
      { start: 0n, end: 8n << 30n, node: 0 },
      { start: 8n << 30n, end: 12n << 30n, node: 1 },
    ]
    const kernel = boot(release, 'kho_scratch=16M,64M,32M', ram)
    expect(sizesOf(kernel)).toEqual([16n * MIB, 64n * MIB, 32n * MIB, 32n * MIB])
    const { align } = scratchRules(kernel.spec.khoVersion, 4096)
    const { scratch } = kernel.kho
    for (const { addr } of scratch) expect(addr % align).toBe(0n)
    expect((scratch[0]?.addr ?? 0n) + 16n * MIB).toBeLessThanOrEqual(1n << 32n)
    expect(kernel.ram.nodeOf(scratch[2]?.addr as never)).toBe(0)
    expect(kernel.ram.nodeOf(scratch[3]?.addr as never)).toBe(1)
    const sorted = [...scratch].sort((a, b) => Number(a.addr - b.addr))
    for (const [at, area] of sorted.entries()) {
      const next = sorted[at + 1]
      if (next) expect(area.addr + area.size).toBeLessThanOrEqual(next.addr)
    }
    expect(linesOf(kernel)).toEqual(['KHO: scratch areas: lowmem: 16MiB global: 64MiB pernode: 32MiB'])
  },
)

test.each(simulatedReleases)('%s: sizes as given, rounded up to the alignment from kho-v2 on', (release) => {
  const kernel = boot(release, 'kho_scratch=5M,3M,1M')
  const { align, roundsSizes } = scratchRules(kernel.spec.khoVersion, 4096)
  const up = (bytes: bigint): bigint => ((bytes + align - 1n) / align) * align
  const [lowmem, global] = roundsSizes ? [up(5n * MIB), up(3n * MIB)] : [5n * MIB, 3n * MIB]
  expect(sizesOf(kernel)).toEqual([lowmem, global, up(MIB)])
})

const REFUSED = "Malformed early option 'kho_scratch'"

test.each(until('linux-6.18'))('%s: a size of 0 is no size, what follows is not looked at', (release) => {
  expect(linesOf(boot(release, 'kho_scratch=0,16M,16M'))).toEqual([REFUSED])
  expect(linesOf(boot(release, 'kho_scratch=16M,16M,16M,16M'))).toHaveLength(1)
})

test.each(since('linux-6.19'))(
  '%s: sizes of 0 are taken unless all are, and nothing may follow',
  (release) => {
    const kernel = boot(release, 'kho_scratch=0,16M,16M')
    expect(linesOf(kernel)).toEqual(['KHO: scratch areas: lowmem: 0MiB global: 16MiB pernode: 16MiB'])
    for (const text of ['0,0,0', '16M,16M,16M,16M', '16M,16M', '16M;16M;16M', 'x', '']) {
      expect(linesOf(boot(release, `kho_scratch=${text}`)), text).toEqual([REFUSED])
    }
  },
)

test.each(simulatedReleases)(
  '%s: a percentage scales with what the early kernel took, 200 by default',
  (release) => {
    const sum = (kernel: Kernel): bigint => sizesOf(kernel).reduce((total, size) => total + size, 0n)
    const [small, usual, large] = [
      boot(release, 'kho_scratch=50%'),
      boot(release, ''),
      boot(release, 'kho_scratch=400%'),
    ]
    expect(linesOf(small)).toEqual(['KHO: scratch scale is 50%'])
    expect(linesOf(usual)).toEqual([])
    expect(sum(small)).toBeLessThan(sum(usual))
    expect(sum(usual)).toBeLessThan(sum(large))
    expect(linesOf(boot(release, 'kho_scratch=99999999999%'))).toEqual([REFUSED])
  },
)

test.each(simulatedReleases)(
  '%s: by default the area of the only node is three times the two before it, as on kernels without NUMA',
  (release) => {
    for (const end of [512n * MIB, 4096n * MIB]) {
      const [lowmem = 0n, global = 0n, node] = sizesOf(boot(release, '', [{ start: 0n, end }]))
      expect(lowmem + global).toBeGreaterThan(0n)
      expect(node).toBe(3n * (lowmem + global))
    }
  },
)

test.each(simulatedReleases)(
  '%s: of several nodes each has an area for what the early kernel took there alone',
  (release) => {
    const ram = [
      { start: 0n, end: 1024n * MIB, node: 0 },
      { start: 1024n * MIB, end: 4096n * MIB, node: 1 },
    ]
    const [, , first = 0n, second] = sizesOf(boot(release, '', ram))
    expect(first).toBe((2n * 1024n * MIB) / 64n)
    expect(second).toBe(3n * first)
  },
)

test.each(simulatedReleases)('%s: what reserve_mem= took counts, too', (release) => {
  const sum = (kernel: Kernel): bigint => {
    const [lowmem = 0n, global = 0n] = sizesOf(kernel)
    return lowmem + global
  }
  expect(sum(boot(release, 'reserve_mem=16M:4096:trace'))).toBe(sum(boot(release, '')) + 32n * MIB)
})

test.each(simulatedReleases)('%s: areas without room switch KHO off, 7.1 and later say which', (release) => {
  const kernel = boot(release, 'kho_scratch=16M,1G,16M')
  expect(kernel.kho.enabled).toBe(false)
  expect(kernel.pages.census().scratch).toBe(0)
  const which = since('linux-7.1').includes(release) ? ['KHO: Failed to reserve global scratch buffer'] : []
  expect(linesOf(kernel).slice(1)).toEqual([
    ...which,
    'KHO: Failed to reserve scratch area, disabling kexec handover',
  ])
})

test.each(simulatedReleases)(
  '1.4 %s: the areas are used again on every later kexec, whatever the command line says',
  (release) => {
    const first = boot(release, 'kho_scratch=16M,64M,16M')
    const areas = first.kho.scratch
    let kernel = first
    for (let step = 0; step < 3; step++) {
      if (kernel.spec.traits.hasFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
      kernel = must(kernel.kexec({ cmdline: 'kho=on kho_scratch=32M,32M,32M' }))
      expect(kernel.kho.scratch).toEqual(areas)
    }
  },
)

test('nothing is ever allocated inside of a scratch area', () => {
  const kernel = boot('linux-7.3', 'kho_scratch=16M,64M,16M', [{ start: 0n, end: 192n * MIB }])
  const heads: bigint[] = []
  for (let head = kernel.pages.alloc(3); typeof head === 'bigint'; head = kernel.pages.alloc(3))
    heads.push(head)
  expect(heads.length).toBeGreaterThan(1000)
  for (const head of heads) {
    for (const { addr, size } of kernel.kho.scratch) {
      expect(head + 8n * 4096n <= addr || head >= addr + size).toBe(true)
    }
  }
})
