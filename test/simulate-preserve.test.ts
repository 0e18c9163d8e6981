/** What KHO preserves and forgets on simulated kernels: each statement of the facts, and no page lost. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { radixKey } from '../abi/kho-map.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { splitPages } from '../encode/units.ts'
import { failed } from '../simulate/answer.ts'
import type { Kernel } from '../simulate/kernel.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { errnoOf, held, linesOf, must, pageWith, textAt } from './support/captured.ts'
import {
  bootKho as boot,
  finalized,
  liveUnits,
  MIB,
  nextKho as next,
  since,
  unitsOf,
  until,
} from './support/preserving.ts'

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

describe('8.2 kho_preserve_pages: n is 32 bits up to 6.19', () => {
  const ofPages = since('linux-6.18')
  const isNarrow = (release: string): boolean => !since('linux-7.0').includes(release)
  const pagesAt = 64n * MIB

  test.each(ofPages.filter(isNarrow))('%s: 2^32 + 1 pages preserve, restore and forget one', (release) => {
    const preserved = (...counts: readonly number[]): readonly string[] => {
      const kernel = boot(release)
      const before = unitsOf(next(boot(release)))
      for (const count of counts) must(kernel.kho.preservePages(phys(pagesAt), count))
      const successor = next(kernel)
      expect(successor.kho.restorePages(phys(pagesAt), 2 ** 32)).toBe(pagesAt)
      const found = unitsOf(successor).filter((unit) => !before.includes(unit))
      if (found.length > 0) {
        expect(successor.kho.restorePages(phys(pagesAt), 2 ** 32 + 1)).toBe(pagesAt)
        expect(unitsOf(successor)).toEqual(before)
      }
      return found
    }
    expect(preserved(2 ** 32 + 1)).toEqual([`${pagesAt >> 12n}/0`])
    expect(preserved(2 ** 32)).toEqual([])
  })

  test.each(['linux-6.19'])('%s: kho_unpreserve_pages takes 2^32 + 1 for one, too', (release) => {
    const kernel = boot(release)
    must(kernel.kho.preservePages(phys(pagesAt), 1))
    kernel.kho.unpreservePages(phys(pagesAt), 2 ** 32 + 1)
    expect(unitsOf(next(kernel))).toEqual(unitsOf(next(boot(release))))
    expect(linesOf(kernel).filter((line) => line.startsWith('WARNING'))).toEqual([])
  })

  test.each(ofPages)('%s: of 2^20 pages an unsigned int has no bytes that lie in scratch', (release) => {
    const kernel = boot(release)
    const lowest = kernel.kho.scratch.map(({ addr }) => addr).sort((a, b) => Number(a - b))[0] ?? 0n
    const before = phys(lowest - 4096n)
    expect(errnoOf(kernel.kho.preservePages(before, 2 ** 20 - 1))).toBe('EINVAL')
    expect(errnoOf(kernel.kho.preservePages(before, 2 ** 20))).toBe(isNarrow(release) ? 'ok' : 'EINVAL')
  })

  test.each(since('linux-7.0'))('%s: from 7.0 on 2^32 + 1 pages are as many', (release) => {
    const kernel = boot(release)
    expect(errnoOf(kernel.kho.preservePages(phys(MIB), 2 ** 32 + 1))).toBe('EINVAL')
    expect(errnoOf(kernel.kho.preservePages(phys(MIB), 1))).toBe('ok')
  })
})

describe('8.2 scratch overlap', () => {
  const inScratch = (kernel: Kernel): PhysAddr => phys(kernel.kho.scratch.at(-1)?.addr ?? 0n)

  test.each(since('linux-6.17.9'))('%s: with CONFIG_KEXEC_HANDOVER_DEBUG a warning and EINVAL', (release) => {
    const kernel = boot(release)
    const edge = phys(inScratch(kernel) - 4096n)
    expect(errnoOf(kernel.kho.preservePages(edge, 2))).toBe('EINVAL')
    expect(errnoOf(kernel.kho.preserveFolio(inScratch(kernel)))).toBe('EINVAL')
    const { source } = kernel.spec
    const preservePages = release === 'linux-6.17.9' ? 'kho_preserve_phys' : 'kho_preserve_pages'
    expect(linesOf(kernel).slice(-2)).toEqual([
      `WARNING: ${source} at ${preservePages}`,
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

  /** The allocator of a kernel whose last scratch area became ordinary memory; then a page of it is next. */
  function withScratchPages(release: string, config = {}): Kernel {
    const kernel = boot(release, {}, config)
    // What finalize preserves of its own has a bitmap already.
    must(kernel.kho.preserveFolio(must(kernel.pages.alloc(0))))
    const first = Number(inScratch(kernel)) / 4096
    kernel.pages.release(first, first + 1)
    return kernel
  }

  const mapped = since('linux-6.17.9').filter((release) => until('linux-7.0').includes(release))

  test.each(mapped)('%s: also for map pages up to 7.0: a warning and EINVAL, nothing is lost', (release) => {
    const kernel = withScratchPages(release)
    const before = held(kernel)
    const folio = phys(300n * MIB)
    const warning = `WARNING: ${kernel.spec.source} at`
    expect(errnoOf(kernel.kho.preservePages(folio, 1))).toBe('EINVAL')
    expect(errnoOf(kernel.kho.preservePages(folio, 1))).toBe('EINVAL')
    expect(linesOf(kernel).slice(-2)).toEqual(Array(2).fill(`${warning} xa_load_or_alloc`))
    expect(held(kernel)).toEqual(before)
    expect(errnoOf(kernel.kho.outgoing.writeFinalize('1'))).toBe('EINVAL')
    expect(linesOf(kernel)).toContain(`${warning} new_chunk`)
  })

  test.each(mapped)('%s: nor for map pages without CONFIG_KEXEC_HANDOVER_DEBUG', (release) => {
    const kernel = withScratchPages(release, { debug: false })
    expect(errnoOf(kernel.kho.preservePages(phys(300n * MIB), 1))).toBe('ok')
    expect([...(kernel.kho.outgoing.map?.ownPages() ?? [])]).toContain(inScratch(kernel))
  })

  test.each([...until('linux-6.17'), ...since('kho-v2')])(
    '%s: for map pages neither before 6.17.9 nor of a radix tree',
    (release) => {
      const kernel = withScratchPages(release)
      expect(errnoOf(kernel.kho.preservePages(phys(300n * MIB), 1))).toBe('ok')
      const pages = [...(finalized(kernel).kho.outgoing.map?.ownPages() ?? [])]
      expect(pages).toContain(inScratch(kernel))
    },
  )
})

describe('8.2 kho_unpreserve_*', () => {
  const warningsOf = (kernel: Kernel): readonly string[] =>
    linesOf(kernel).filter((line) => line.startsWith('WARNING'))

  test.each(['linux-6.19', 'linux-7.0'])(
    '%s: unknown, a slot is missing: a warning once for an order, once for a bitmap, and nothing',
    (release) => {
      const kernel = boot(release)
      const warning = 'WARNING: kernel/liveupdate/kexec_handover.c at __kho_unpreserve_order'
      for (const _ of [1, 2]) kernel.kho.unpreservePages(phys(400n * MIB), 4)
      expect(warningsOf(kernel)).toEqual([warning])
      for (const _ of [1, 2]) kernel.kho.unpreservePages(phys(400n * MIB), 1)
      expect(warningsOf(kernel)).toEqual([warning, warning])
      expect(unitsOf(next(kernel))).toEqual(unitsOf(next(boot(release))))
    },
  )

  test.each(since('kho-v2'))(
    '%s: unknown, a node is missing: a warning each time, and nothing',
    (release) => {
      const kernel = boot(release)
      const before = liveUnits(kernel)
      for (const _ of [1, 2]) kernel.kho.unpreservePages(phys(400n * MIB), 4)
      const function_ = release === 'linux-7.3' ? 'kho_radix_del_key' : 'kho_radix_del_page'
      const warning = `WARNING: kernel/liveupdate/kexec_handover.c at ${function_}`
      expect(warningsOf(kernel)).toEqual([warning, warning])
      expect(liveUnits(kernel)).toEqual(before)
    },
  )

  test.each(since('linux-6.17.9'))(
    '%s: what follows something unknown is forgotten from 6.19 on, before not',
    (release) => {
      const kernel = boot(release)
      const start = phys(64n * MIB)
      must(kernel.kho.preservePages(phys(start + 2n * 4096n), 1))
      // Splits into a pair that is unknown and the page that is not.
      kernel.kho.unpreservePages(start, 3)
      if (!since('linux-6.19').includes(release))
        expect(warningsOf(kernel)).toEqual(['WARNING: kernel/kexec_handover.c at __kho_unpreserve'])
      const isKept = unitsOf(next(kernel)).includes(`${(start >> 12n) + 2n}/0`)
      expect(isKept).toBe(!since('linux-6.19').includes(release))
    },
  )

  test.each(since('linux-6.19'))(
    '%s: must repeat the exact call: half of a unit forgets nothing',
    (release) => {
      const kernel = boot(release)
      const start = phys(64n * MIB)
      const unit = `${start >> 12n}/2`
      must(kernel.kho.preservePages(start, 4))
      kernel.kho.unpreservePages(start, 2)
      const successor = next(kernel)
      expect(unitsOf(successor)).toContain(unit)
      expect(successor.kho.restorePages(start, 4)).toBe(start)
      const other = boot(release)
      must(other.kho.preservePages(start, 4))
      other.kho.unpreservePages(start, 4)
      expect(unitsOf(next(other))).not.toContain(unit)
    },
  )

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

  test.each(until('linux-6.17'))('%s: the loop over a missing slot never ends up to 6.17.8', (release) => {
    const kernel = boot(release)
    kernel.run(() => kernel.kho.unpreservePages(phys(400n * MIB), 4))
    expect(kernel.state).toBe('crashed')
  })
})

describe('8.2 kho_alloc_preserve and its counterparts', () => {
  test.each(simulatedReleases)(
    '%s: 0 is -EINVAL, an order above MAX_PAGE_ORDER -E2BIG, else the smallest order that holds size',
    (release) => {
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
    },
  )

  test.each(simulatedReleases)('%s: preserves one folio unit', (release) => {
    for (const [bytes, order] of [
      [1, 0],
      [3 * 4096, 2],
      [(4096 << 9) + 1, 10],
    ] as const) {
      const kernel = boot(release)
      const memory = must(kernel.kho.allocPreserve(bytes))
      const before = unitsOf(next(boot(release)))
      const added = unitsOf(next(kernel)).filter((unit) => !before.includes(unit))
      expect(added).toEqual([`${memory >> 12n}/${order}`])
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
