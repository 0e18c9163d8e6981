/** Preserved vmalloc memory on simulated kernels: chains of chunks, rollback, and what a reader refuses. */
import { expect, test } from 'vitest'
import { khoVmallocChunk, vmallocChunkCapacity, vmallocFlags } from '../abi/kho-vmalloc.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { failed } from '../simulate/answer.ts'
import type { KhoVmallocValue, VmallocArea } from '../simulate/core.ts'
import { Kernel } from '../simulate/kernel.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { errnoOf, held, linesOf, must } from './support/captured.ts'

const PAGE = 4096
const FULL = vmallocChunkCapacity(khoVmallocChunk, { pageSize: PAGE })
const withVmalloc = simulatedReleases.slice(simulatedReleases.indexOf('linux-6.18'))

function boot(release: string): Kernel {
  return Kernel.boot({ release, cmdline: 'kho=on kho_scratch=16M,16M,16M' })
}

function next(kernel: Kernel): Kernel {
  if (kernel.spec.traits.hasFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
  return must(kernel.kexec())
}

/** An area whose pages say which they are. */
function areaOf(kernel: Kernel, groups: number, order = 0): VmallocArea {
  const area = must(kernel.kho.allocVmalloc(groups * PAGE * 2 ** order, order))
  area.pages.forEach((page, at) => {
    kernel.ram.write(page, new TextEncoder().encode(`page ${at}`))
  })
  return area
}

/** Chunk pages by following `next`. */
function chunksOf(kernel: Kernel, first: bigint): readonly PhysAddr[] {
  const chunks: PhysAddr[] = []
  for (let at = first; at !== 0n; ) {
    chunks.push(phys(at))
    at = new DataView(kernel.ram.read(phys(at), 8).buffer).getBigUint64(0, true)
  }
  return chunks
}

function withoutMap(kernel: Kernel): readonly string[] {
  const map = new Set([...(kernel.kho.outgoing.map?.ownPages() ?? [])].map(String))
  return held(kernel).filter((line) => !map.has(line.split(' ')[0] ?? ''))
}

const sizes = [1, FULL - 1, FULL, FULL + 1, 2 * FULL]

test.each(withVmalloc)('5 %s: pages come back in their order, chunks are given back', (release) => {
  for (const groups of sizes) {
    const kernel = boot(release)
    const area = areaOf(kernel, groups)
    const value = must(kernel.kho.preserveVmalloc(area))
    expect(value).toMatchObject({ total_pages: groups, flags: vmallocFlags.ALLOC, order: 0 })
    // A chunk follows as soon as one is full, even if nothing is left to put into it.
    expect(chunksOf(kernel, value.first)).toHaveLength(Math.floor(groups / FULL) + 1)
    const successor = next(kernel)
    const before = withoutMap(successor).length
    const restored = successor.kho.restoreVmalloc(value)
    expect(restored).toEqual(area)
    expect(withoutMap(successor)).toHaveLength(before + groups)
    if (restored) successor.kho.freeVmalloc(restored)
    expect(withoutMap(successor)).toHaveLength(before)
  }
})

test.each(withVmalloc)('5 %s: groups of pages come back as single pages', (release) => {
  const kernel = boot(release)
  const value = must(kernel.kho.preserveVmalloc(areaOf(kernel, 3, 2)))
  expect(value).toMatchObject({ total_pages: 12, order: 2 })
  const successor = next(kernel)
  const restored = successor.kho.restoreVmalloc(value)
  expect(restored?.nrPages).toBe(12)
  for (const page of restored?.pages ?? []) expect(successor.pages.orderOf(page)).toBe(0)
})

test.each(withVmalloc)('5 %s: flags that KHO does not know are refused with EOPNOTSUPP', (release) => {
  const kernel = boot(release)
  const area = areaOf(kernel, 1)
  expect(errnoOf(kernel.kho.preserveVmalloc({ ...area, flags: 4 }))).toBe('EOPNOTSUPP')
})

test.each(withVmalloc.filter((release) => release !== 'linux-6.18'))(
  '5 %s: at the n-th page without memory ENOMEM, and nothing is lost',
  (release) => {
    let failures = 0
    for (let n = 1; n < 60; n++) {
      const kernel = boot(release)
      const area = areaOf(kernel, FULL + 1)
      const before = withoutMap(kernel)
      kernel.pages.failAt(n)
      const answer = kernel.kho.preserveVmalloc(area)
      if (!failed(answer)) break
      failures++
      expect(answer.errno).toBe('ENOMEM')
      expect(withoutMap(kernel)).toEqual(before)
      expect(linesOf(kernel).filter((line) => line.startsWith('WARNING'))).toEqual([])
    }
    expect(failures).toBeGreaterThan(1)
  },
)

test.each(withVmalloc.filter((release) => release !== 'linux-6.18'))(
  '5 %s: unpreserve gives chunks and bits back',
  (release) => {
    const kernel = boot(release)
    const area = areaOf(kernel, FULL + 1)
    const before = withoutMap(kernel)
    kernel.kho.unpreserveVmalloc(must(kernel.kho.preserveVmalloc(area)))
    expect(withoutMap(kernel)).toEqual(before)
    const successor = next(kernel)
    for (const page of area.pages) expect(successor.pages.preservedOrder(page)).toBeUndefined()
  },
)

const wrong: readonly (readonly [string, (value: KhoVmallocValue) => KhoVmallocValue])[] = [
  ['fewer pages than there are', (value) => ({ ...value, total_pages: 4 })],
  ['more pages than there are', (value) => ({ ...value, total_pages: 6 })],
  ['no pages', (value) => ({ ...value, total_pages: 0 })],
  ['another order', (value) => ({ ...value, order: 1 })],
  ['more pointers than kvmalloc() allocates', (value) => ({ ...value, total_pages: 0xffff_ffff })],
  ['a first chunk that is not preserved', (value) => ({ ...value, first: 300n << 20n })],
]

test.each(wrong)('5 a descriptor with %s gives no area', (_, change) => {
  for (const release of withVmalloc) {
    const kernel = boot(release)
    const value = must(kernel.kho.preserveVmalloc(areaOf(kernel, 5)))
    const successor = next(kernel)
    expect(successor.kho.restoreVmalloc(change(value)), release).toBeUndefined()
    expect(successor.state).toBe('running')
  }
})

test('5 unknown flags are dropped, an area is not refused for them', () => {
  const kernel = boot('linux-7.3')
  const value = must(kernel.kho.preserveVmalloc(areaOf(kernel, 5)))
  expect(next(kernel).kho.restoreVmalloc({ ...value, flags: 0x81 })?.flags).toBe(vmallocFlags.ALLOC)
})

test('5 a chunk that leads back to itself fails at its second restore', () => {
  const kernel = boot('linux-7.3')
  const value = must(kernel.kho.preserveVmalloc(areaOf(kernel, 5)))
  const loop = new Uint8Array(8)
  new DataView(loop.buffer).setBigUint64(0, value.first, true)
  kernel.ram.write(phys(value.first), loop)
  const successor = next(kernel)
  expect(successor.run(() => successor.kho.restoreVmalloc({ ...value, total_pages: 10 }))).toBeUndefined()
})

test.each([
  [1n << 40n, '00000009'],
  [1n << 50n, '0000000b'],
])('5 a pointer out of RAM, to %i, is a wild pointer, and the end of the kernel', (first, code) => {
  const kernel = boot('linux-7.3')
  const value = must(kernel.kho.preserveVmalloc(areaOf(kernel, 5)))
  const successor = next(kernel)
  successor.run(() => successor.kho.restoreVmalloc({ ...value, first }))
  expect(successor.state).toBe('crashed')
  expect(linesOf(successor).at(-1)).toBe(
    `Kernel panic - not syncing: Attempted to kill init! exitcode=0x${code}`,
  )
})
