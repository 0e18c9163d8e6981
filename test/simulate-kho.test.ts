/** KHO's primitives on simulated kernels: each statement of the facts on them, and no page lost. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { radixKey } from '../abi/kho-map.ts'
import type { PageSize } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { splitPages } from '../encode/units.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { failed } from '../simulate/answer.ts'
import { type Handover, handoverImage, walkMap } from '../simulate/handover.ts'
import { Kernel } from '../simulate/kernel.ts'
import type { ColdMachine } from '../simulate/machine.ts'
import { simulatedRelease, simulatedReleases } from '../simulate/release.ts'
import { errnoOf, held, linesOf, must, pageWith, textAt } from './support/captured.ts'

const CMDLINE = 'kho=on kho_scratch=16M,16M,16M'
const MIB = 1n << 20n

function boot(release: string, machine: ColdMachine = {}, config = {}): Kernel {
  return Kernel.boot({ release, cmdline: CMDLINE, config, ...machine })
}

function finalized(kernel: Kernel): Kernel {
  if (kernel.spec.traits.hasFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
  return kernel
}

function next(kernel: Kernel): Kernel {
  const successor = must(finalized(kernel).kexec())
  expect(successor.state).toBe('running')
  expect(successor.kho.isKhoBoot).toBe(true)
  return successor
}

/** Units that the next kernel finds, as `frame/order`, in order of their addresses. */
function unitsOf(kernel: Kernel): readonly string[] {
  return [...kernel.pages.preservedUnits()].map(
    ({ pa, order }) => `${pa / BigInt(kernel.target.pageSize)}/${order}`,
  )
}

/** Units in the outgoing map of a kernel whose map is live. */
function liveUnits(kernel: Kernel): readonly string[] {
  const units: string[] = []
  const root = kernel.kho.outgoing.map?.root
  if (root !== undefined) walkMap(kernel, root, (frame, order) => units.push(`${frame}/${order}`))
  return units
}

const since = (release: string): readonly string[] =>
  simulatedReleases.slice(simulatedReleases.indexOf(release))
const until = (release: string): readonly string[] =>
  simulatedReleases.slice(0, simulatedReleases.indexOf(release) + 1)
describe('8.2 kho_preserve_folio', () => {
  test.each(simulatedReleases)('%s: one unit of the order of the folio', (release) => {
    const kernel = boot(release)
    const folios = [0, 1, 5, 10].map((order) => must(kernel.pages.alloc(order)))
    for (const folio of folios) must(kernel.kho.preserveFolio(folio))
    const successor = next(kernel)
    folios.forEach((folio, at) => {
      expect(successor.kho.restoreFolio(folio)).toBe(folio)
      expect(successor.pages.orderOf(folio)).toBe([0, 1, 5, 10][at])
      expect(successor.pages.refsOf(folio)).toBe(1)
    })
  })

  test.each(simulatedReleases)('%s: is idempotent', (release) => {
    const kernel = boot(release)
    const folio = must(kernel.pages.alloc(2))
    must(kernel.kho.preserveFolio(folio))
    const before = held(kernel)
    must(kernel.kho.preserveFolio(folio))
    expect(held(kernel)).toEqual(before)
  })

  test.each(since('kho-v2'))('%s: sets a bit in a leaf of the radix tree there and then', (release) => {
    const kernel = boot(release)
    const folio = must(kernel.pages.alloc(3))
    const before = liveUnits(kernel)
    must(kernel.kho.preserveFolio(folio))
    const unit = `${folio >> 12n}/3`
    expect(liveUnits(kernel).filter((found) => !before.includes(found))).toEqual([unit])
    const bit = Number(radixKey(folio, 3, 4096) % (1n << 15n))
    const leaf = [...(kernel.kho.outgoing.map?.ownPages() ?? [])].some(
      (pa) => ((kernel.ram.read(pa, 4096)[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0,
    )
    expect(leaf).toBe(true)
    kernel.kho.unpreserveFolio(folio)
    expect(liveUnits(kernel)).toEqual(before)
  })
})

describe('8.2 kho_preserve_pages', () => {
  const split = (start: bigint, pages: number): readonly string[] =>
    [...splitPages(start, BigInt(pages), 4096)].map(({ start: pa, order }) => `${pa >> 12n}/${order}`)

  test.each(simulatedReleases)('%s: repeats the largest order that address and rest allow', (release) => {
    const seed = 20_261_121
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2000 }), fc.integer({ min: 1, max: 1023 }), (offset, pages) => {
        const kernel = boot(release)
        const start = phys(64n * MIB + BigInt(offset) * 4096n)
        must(kernel.kho.preservePages(start, pages))
        const successor = next(kernel)
        const units = unitsOf(successor).filter((unit) => split(start, pages).includes(unit))
        expect(units).toEqual(split(start, pages))
        expect(successor.kho.restorePages(start, pages)).toBe(start)
        for (let at = 0; at < pages; at++) {
          const page = phys(start + BigInt(at) * 4096n)
          expect(successor.pages.orderOf(page)).toBe(0)
          successor.pages.put(page)
        }
      }),
      { seed, numRuns: 6 },
    )
  })

  const nodes = [
    { start: 0n, end: 256n * MIB + 4096n * 16n, node: 0 },
    { start: 256n * MIB + 4096n * 16n, end: 512n * MIB, node: 1 },
  ]

  test.each(since('linux-7.1'))(
    '%s: a unit never crosses NUMA nodes, and such a run cannot be restored as pages',
    (release) => {
      const kernel = boot(release, { ram: nodes })
      const start = phys(256n * MIB)
      must(kernel.kho.preservePages(start, 32))
      const successor = next(kernel)
      const first = Number(start >> 12n)
      const units = unitsOf(successor).filter((unit) => Number.parseInt(unit, 10) >= first)
      expect(units).toEqual([`${first}/4`, `${first + 16}/4`])
      // The split of the restore knows no nodes: it looks for one unit of 32 pages, finds the first of 16.
      expect(successor.kho.restorePages(start, 32)).toBe(start)
      expect(successor.pages.orderOf(phys(start + 15n * 4096n))).toBe(0)
      expect(successor.pages.orderOf(phys(start + 16n * 4096n))).toBeUndefined()
    },
  )

  test.each(until('kho-v2'))('%s: before 7.1 a unit crosses NUMA nodes', (release) => {
    const kernel = boot(release, { ram: nodes })
    must(kernel.kho.preservePages(phys(256n * MIB), 32))
    expect(unitsOf(next(kernel))).toContain(`${(256n * MIB) >> 12n}/5`)
  })

  test.each(simulatedReleases)('%s: on error the part done so far is undone', (release) => {
    const kernel = boot(release)
    const successors = [1, 2, 3, 4, 5, 6, 7].map((n) => {
      const failing = boot(release)
      failing.pages.failAt(n)
      const answer = failing.kho.preservePages(phys(64n * MIB - 4096n), 1024 + 2)
      failing.pages.failAt(Number.POSITIVE_INFINITY, 0)
      return failed(answer) ? unitsOf(next(failing)) : undefined
    })
    const untouched = unitsOf(next(kernel))
    const undone = successors.filter((units) => units !== undefined)
    expect(undone.length).toBeGreaterThan(0)
    for (const units of undone) expect(units).toEqual(untouched)
  })
})

describe('8.2 scratch overlap', () => {
  const inScratch = (kernel: Kernel): PhysAddr => phys(kernel.kho.scratch.at(-1)?.addr ?? 0n)

  test.each(since('linux-6.17.9'))('%s: with CONFIG_KEXEC_HANDOVER_DEBUG a warning and EINVAL', (release) => {
    const kernel = boot(release)
    const edge = phys(inScratch(kernel) - 4096n)
    expect(errnoOf(kernel.kho.preservePages(edge, 2))).toBe('EINVAL')
    expect(errnoOf(kernel.kho.preserveFolio(inScratch(kernel)))).toBe('EINVAL')
    const source = kernel.spec.source
    expect(linesOf(kernel).slice(-2)).toEqual([
      `WARNING: ${source} at kho_preserve_pages`,
      `WARNING: ${source} at kho_preserve_folio`,
    ])
    expect(errnoOf(kernel.kho.preservePages(edge, 1))).toBe('ok')
  })

  test.each(simulatedReleases)('%s: without it nobody looks', (release) => {
    const kernel = boot(release, {}, { debug: false })
    expect(errnoOf(kernel.kho.preservePages(inScratch(kernel), 1))).toBe('ok')
  })

  test.each(until('linux-6.17'))('%s: 6.16 and 6.17.8 never look', (release) => {
    const kernel = boot(release)
    expect(errnoOf(kernel.kho.preserveFolio(inScratch(kernel)))).toBe('ok')
  })
})

describe('8.2 kho_unpreserve_*', () => {
  test.each(since('linux-6.19'))('%s: something unknown is a warning and nothing else', (release) => {
    const kernel = boot(release)
    const before = liveUnits(kernel)
    kernel.kho.unpreservePages(phys(400n * MIB), 4)
    expect(linesOf(kernel).at(-1)).toBe('WARNING: kernel/liveupdate/kexec_handover.c at kho_unpreserve')
    expect(liveUnits(kernel)).toEqual(before)
  })

  test.each(since('linux-6.19'))('%s: a clear bit in what is there is silent', (release) => {
    const kernel = boot(release)
    const [a, b] = [must(kernel.pages.alloc(0)), must(kernel.pages.alloc(0))]
    must(kernel.kho.preserveFolio(a))
    const said = linesOf(kernel).length
    kernel.kho.unpreserveFolio(b)
    expect(linesOf(kernel)).toHaveLength(said)
    expect(next(kernel).kho.restoreFolio(a)).toBe(a)
  })

  test.each(since('linux-6.19'))('%s: pages of the map are never freed', (release) => {
    const kernel = boot(release)
    const page = must(kernel.pages.alloc(5))
    const without = held(kernel)
    must(kernel.kho.preserveFolio(page))
    const withMap = held(kernel)
    expect(withMap.length).toBeGreaterThan(without.length)
    kernel.kho.unpreserveFolio(page)
    expect(held(kernel)).toEqual(withMap)
  })

  test.each(until('linux-6.18'))('%s: the loop over a missing slot never ends', (release) => {
    const kernel = boot(release)
    kernel.run(() => kernel.kho.unpreservePages(phys(400n * MIB), 4))
    expect(kernel.state).toBe('crashed')
  })
})

describe('8.2 kho_alloc_preserve and its counterparts', () => {
  test.each(simulatedReleases)('%s: sizes', (release) => {
    const kernel = boot(release)
    expect(errnoOf(kernel.kho.allocPreserve(0))).toBe('EINVAL')
    expect(errnoOf(kernel.kho.allocPreserve((4096 << 10) + 1))).toBe('E2BIG')
    for (const [bytes, order] of [
      [1, 0],
      [4096, 0],
      [4097, 1],
      [3 * 4096, 2],
      [4096 << 10, 10],
    ] as const) {
      const memory = must(kernel.kho.allocPreserve(bytes))
      expect(kernel.pages.orderOf(memory)).toBe(order)
      expect(kernel.ram.read(memory, bytes).every((byte) => byte === 0)).toBe(true)
    }
  })

  test.each(simulatedReleases)('%s: memory that was used before is zeroed', (release) => {
    const kernel = boot(release)
    const dirty = pageWith(kernel, 'old contents')
    kernel.pages.put(dirty)
    expect(must(kernel.kho.allocPreserve(4096))).toBe(dirty)
    expect(textAt(kernel, dirty, 12)).toBe('\0'.repeat(12))
  })

  test.each(simulatedReleases)(
    '%s: at the n-th page without memory ENOMEM, and nothing is lost',
    (release) => {
      const kernel = boot(release)
      // The way down to orders that nothing was preserved in takes pages of the map, too.
      for (let n = 1; n < 10; n++) {
        const before = held(kernel)
        kernel.pages.failAt(n)
        const answer = kernel.kho.allocPreserve(4096 << 7)
        kernel.pages.failAt(Number.POSITIVE_INFINITY, 0)
        if (!failed(answer)) {
          expect(n).toBeGreaterThan(1)
          return
        }
        expect(answer.errno).toBe('ENOMEM')
        expect(held(kernel)).toEqual(before)
      }
      throw new Error('the allocation never succeeded')
    },
  )

  test.each(simulatedReleases)('%s: kho_unpreserve_free and kho_restore_free give all back', (release) => {
    const kernel = boot(release)
    must(kernel.kho.allocPreserve(9000))
    const before = held(kernel)
    const memory = must(kernel.kho.allocPreserve(9000))
    kernel.kho.unpreserveFree(memory)
    expect(held(kernel)).toEqual(before)
    const kept = must(kernel.kho.allocPreserve(9000))
    const successor = next(kernel)
    const { free } = successor.pages.census()
    successor.kho.restoreFree(kept)
    expect(successor.pages.census().free).toBe(free + 4)
  })
})

describe('4 taking memory back', () => {
  test.each(since('linux-6.18'))(
    '%s: only once, only what was preserved, only by its first page',
    (release) => {
      const kernel = boot(release)
      const folio = must(kernel.pages.alloc(2))
      must(kernel.kho.preserveFolio(folio))
      const successor = next(kernel)
      expect(successor.kho.restoreFolio(phys(folio + 4096n))).toBeUndefined()
      expect(successor.kho.restoreFolio(phys(400n * MIB))).toBeUndefined()
      expect(successor.kho.restoreFolio(folio)).toBe(folio)
      expect(successor.kho.restoreFolio(folio)).toBeUndefined()
      const warning = `WARNING: ${successor.spec.source} at kho_restore_page`
      expect(linesOf(successor).filter((line) => line === warning)).toHaveLength(1)
      successor.kho.restoreFree(phys(400n * MIB))
      expect(linesOf(successor).at(-1)).toBe(`WARNING: ${successor.spec.source} at kho_restore_free`)
    },
  )

  test.each(until('linux-6.17.9'))(
    '%s: without a magic number even a page that was never preserved comes back',
    (release) => {
      const successor = next(boot(release))
      const page = phys(400n * MIB)
      expect(successor.kho.restoreFolio(page)).toBe(page)
      expect(linesOf(successor).some((line) => line.startsWith('WARNING'))).toBe(false)
    },
  )

  test.each(simulatedReleases)('%s: memory outside RAM is no page', (release) => {
    expect(next(boot(release)).kho.restoreFolio(phys(1n << 40n))).toBeUndefined()
  })

  test.each(simulatedReleases)('%s: units above MAX_PAGE_ORDER come back from kho-v2 on', (release) => {
    const kernel = boot(release)
    const start = phys(128n * MIB)
    must(kernel.kho.preservePages(start, 1 << 12))
    const successor = next(kernel)
    const limited = simulatedRelease(release)?.traits.limitsOrder
    expect(successor.kho.restoreFolio(start)).toBe(limited ? undefined : start)
    if (limited) return
    expect(successor.pages.orderOf(start)).toBe(12)
    successor.pages.put(start)
    expect(must(successor.pages.alloc(10))).toBeDefined()
  })

  test('7.1 reserves a unit of order 19 by a size that is computed in an int, 7.2 all of it', () => {
    const ram = [{ start: 0n, end: 16n << 30n }]
    const reserved = (release: string): number => {
      const kernel = boot(release, { ram })
      must(kernel.kho.preservePages(phys(4n << 30n), 1 << 20))
      return next(kernel).pages.census().preserved
    }
    // 1 << (20 + 12) is 1 << 0 on the processor: one byte, which keeps one page.
    expect(reserved('linux-7.1')).toBeLessThan(10)
    expect(reserved('linux-7.2')).toBeGreaterThan(1 << 20)
  })
})

describe('2.4 space in the root FDT', () => {
  const capacities = [
    ['linux-6.19', 4096, 3, 123],
    ['linux-6.19', 16384, 3, 507],
    ['linux-6.19', 65536, 3, 2043],
    ['linux-7.0', 4096, 15, 89],
    ['linux-7.0', 16384, 15, 369],
    ['linux-7.0', 65536, 15, 1486],
    ['linux-7.1', 4096, 3, 75],
    ['linux-7.2', 16384, 3, 311],
    ['linux-7.3', 65536, 3, 1257],
    ['linux-7.1', 4096, 15, 61],
    ['linux-7.2', 16384, 15, 253],
    ['linux-7.3', 65536, 15, 1021],
  ] as const

  /** Without what the kernel itself has put there. */
  function emptied(release: string, pageSize: PageSize): Kernel {
    const arch = pageSize === 4096 ? 'x86_64' : 'arm64'
    const kernel = Kernel.boot({
      release,
      arch,
      pageSize,
      cmdline: 'kho=on kho_scratch=64M,64M,64M',
      ram: RAM[arch],
    })
    const metadata = kernel.kho.outgoing.metadata
    if (metadata !== undefined) kernel.kho.removeSubtree(metadata)
    return kernel
  }

  const RAM = {
    x86_64: [{ start: 0n, end: 1n << 30n }],
    arm64: [{ start: 1n << 30n, end: 5n << 30n }],
  }

  test.each(capacities)(
    '%s at pages of %i bytes: names of %i letters fit %i times',
    (release, size, letters, count) => {
      const kernel = emptied(release, size)
      let added = 0
      let answer: ReturnType<typeof kernel.kho.addSubtree>
      do {
        answer = kernel.kho.addSubtree(added.toString(36).padStart(letters, '_'), phys(1n << 30n), 8)
        added++
      } while (!failed(answer))
      expect(added - 1).toBe(count)
    },
    30_000,
  )

  test.each(since('linux-6.19'))('%s: a name that exists is refused with EEXIST', (release) => {
    const { kho } = boot(release)
    must(kho.addSubtree('twice', phys(MIB), 8))
    expect(errnoOf(kho.addSubtree('twice', phys(2n * MIB), 8))).toBe('EEXIST')
  })

  /** Adds subtrees of short names until not even a node has room; the answers of those that failed. */
  function crowd(kernel: Kernel): readonly (string | number)[] {
    const answers: (string | number)[] = []
    for (let number = 0; answers.at(-1) !== 'ENOMEM'; number++) {
      const answer = kernel.kho.addSubtree(`n${number}`, phys(MIB), 8)
      if (failed(answer)) answers.push(answer.errno)
      if (answers.length > 20) break
    }
    return answers
  }

  function faultsOf(kernel: Kernel): readonly string[] {
    const handover = must(finalized(kernel).leave()) as Handover
    const root = phys(handover.boot?.fdt_addr ?? 0n)
    return decodeHandover(handoverImage(handover), root).faults.map(({ code }) => code)
  }

  test('6.19: no room for the property answers the -3 of libfdt, and the empty node stays', () => {
    const kernel = boot('linux-6.19')
    const answers = crowd(kernel)
    expect(answers[0]).toBe(-3)
    expect(answers.at(-1)).toBe('ENOMEM')
    const empty = faultsOf(kernel).filter((code) => code === 'PROPERTY_MISSING')
    expect(empty).toHaveLength(answers.filter((errno) => errno === -3).length)
  })

  test.each(since('linux-7.0'))('%s: no room answers ENOMEM and the half-made node is removed', (release) => {
    const kernel = boot(release)
    expect(crowd(kernel)).toEqual(['ENOMEM'])
    expect(faultsOf(kernel)).not.toContain('PROPERTY_MISSING')
  })
})

describe('8.2 kho_remove_subtree', () => {
  test.each(since('linux-6.19'))('%s: removes the first node with that address', (release) => {
    const kernel = boot(release)
    for (const name of ['one', 'two', 'three']) must(kernel.kho.addSubtree(name, phys(MIB), 8))
    must(kernel.kho.addSubtree('other', phys(2n * MIB), 8))
    kernel.kho.removeSubtree(phys(MIB))
    const successor = next(kernel)
    // A new node goes to the front, so that the one that was added last is the first.
    const found = ['one', 'two', 'three', 'other'].map((name) => errnoOf(successor.kho.retrieveSubtree(name)))
    expect(found).toEqual(['ok', 'ok', 'ENOENT', 'ok'])
  })
})

describe('2.3 kho_retrieve_subtree', () => {
  test.each(since('linux-6.19'))(
    '%s: address and size as they were given, ENOENT for what is not there',
    (release) => {
      const kernel = boot(release)
      must(kernel.kho.addSubtree('mine', phys(MIB), 12_345))
      expect(errnoOf(kernel.kho.retrieveSubtree('mine'))).toBe('ENOENT')
      const successor = next(kernel)
      const size = successor.spec.form.sizeProperty === undefined ? undefined : 12_345
      expect(successor.kho.retrieveSubtree('mine')).toEqual({ pa: MIB, size })
      expect(errnoOf(successor.kho.retrieveSubtree('min'))).toBe('ENOENT')
    },
  )

  test('libfdt finds a node with a unit address, too', () => {
    const kernel = boot('linux-7.3')
    must(kernel.kho.addSubtree('LUO@1', phys(MIB), 32))
    expect(next(kernel).kho.retrieveSubtree('LUO')).toEqual({ pa: MIB, size: 32 })
  })
})

describe('memory', () => {
  test.each(['linux-6.19', 'linux-7.3'])(
    '%s: 100,000 pages of a machine of 4 TiB, handed over and back',
    (release) => {
      const kernel = boot(release, { ram: [{ start: 0n, end: 1n << 42n }] })
      const pages = Array.from({ length: 100_000 }, () => must(kernel.pages.alloc(0)))
      for (const page of pages) must(kernel.kho.preserveFolio(page))
      const successor = next(kernel)
      expect(successor.ram.pagesWritten).toBeLessThan(100)
      for (const page of pages) if (successor.kho.restoreFolio(page) !== page) throw new Error('lost a page')
      const { total, free, allocated, preserved, scratch, reserved } = successor.pages.census()
      expect(total).toBe(2 ** 30)
      expect(free + allocated + preserved + scratch + reserved).toBe(total)
      expect(allocated).toBeGreaterThanOrEqual(100_000)
    },
  )

  const machines: readonly ColdMachine[] = [
    { arch: 'x86_64', pageSize: 4096 },
    { arch: 'arm64', pageSize: 4096 },
    { arch: 'arm64', pageSize: 16384 },
    { arch: 'arm64', pageSize: 65536, ram: [{ start: 1n << 30n, end: 9n << 30n }] },
  ]
  const pairs = machines.flatMap((machine) => simulatedReleases.map((release) => [release, machine] as const))

  // kho-v2 at 16K pages loses the marker of order-0 keys: such images never worked.
  const sound = pairs.filter(([release, { pageSize }]) => release !== 'kho-v2' || pageSize !== 16384)

  test.each(sound)('%s on %o: the image decodes without a fault', (release, machine) => {
    // The test module fills two of the largest folios: at larger pages up to a gigabyte.
    const config = { testKho: machine.arch === 'x86_64' }
    const kernel = Kernel.boot({ release, ...machine, cmdline: 'kho=on kho_scratch=1%', config })
    const handover = must(finalized(kernel).leave()) as Handover
    const { boot: data } = handover
    if (!data) throw new Error('no KHO data')
    const decoded = decodeHandover(handoverImage(handover), phys(data.fdt_addr), { boot: data })
    expect(decoded.faults).toEqual([])
    const successor = Kernel.takeOver(handover, { release, config })
    expect(successor.kho.isKhoBoot).toBe(true)
    const restored = linesOf(successor).includes('test_kho: KHO restore succeeded')
    expect(restored).toBe(config.testKho && kernel.spec.khoTest !== undefined)
  })

  test('3.2 kho-v2 at pages of 16K: order-0 units turn into others at address 0, where arm64 has no RAM', () => {
    const kernel = boot('kho-v2', { arch: 'arm64', pageSize: 16384 })
    must(kernel.kho.preserveFolio(must(kernel.pages.alloc(0))))
    const successor = must(kernel.kexec())
    expect(successor.state).toBe('crashed')
    expect(linesOf(successor).at(-1)).toBe('Kernel panic - not syncing: Attempted to kill the idle task!')
  })
})
