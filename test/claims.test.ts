/** Claims and units by address, against lists that are searched from end to end. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { splitPages } from '../encode/units.ts'
import type { ClaimGroup } from '../inspect/claim.ts'
import { ClaimList } from '../inspect/claim-list.ts'
import { KernelFdt } from '../inspect/kernel-fdt.ts'
import { UnitIndex } from '../inspect/unit-index.ts'
import { splitOrder } from '../inspect/unmet.ts'
import { decodeReal, realImages } from './support/images.ts'

const NO_UNITS = new UnitIndex(undefined)

function groupOf(pfns: readonly number[], pages: number): ClaimGroup {
  const pointer = () => phys(0)
  const told = { rule: 'R', path: `p${pages}`, what: 'w', via: [], restore: 'folio' } as const
  return { ...told, pfns: Float64Array.from(pfns), pages, pointer }
}

const groups = fc.array(
  fc.record({ pfns: fc.array(fc.nat(60), { maxLength: 6 }), pages: fc.integer({ min: 1, max: 8 }) }),
  { maxLength: 4 },
)

test('claims are found as by going through all of them', () => {
  fc.assert(
    fc.property(groups, fc.nat(60), fc.integer({ min: 1, max: 9 }), fc.nat(3), (made, from, count, order) => {
      const list = new ClaimList(
        made.map(({ pfns, pages }) => groupOf(pfns, pages)),
        NO_UNITS,
      )
      const claimed = new Set(
        made.flatMap(({ pfns, pages }) =>
          pfns.flatMap((pfn) => Array.from({ length: pages }, (_, i) => pfn + i)),
        ),
      )
      const total = made.reduce((sum, { pfns, pages }) => sum + pfns.length * pages, 0)
      const frames = Array.from({ length: count }, (_, i) => from + i)
      expect(list.holds(from, from + count)).toBe(frames.some((pfn) => claimed.has(pfn)))
      expect([...list.shared()].length > 0).toBe(claimed.size < total)
      const size = 2 ** order
      const free = frames
        .map((_, unit) => Array.from({ length: size }, (_, i) => from + unit * size + i))
        .filter((unit) => !unit.some((pfn) => claimed.has(pfn)))
      expect(list.unclaimedIn({ pfn: from, count, order })).toEqual({
        pages: free.length * size,
        first: free[0]?.[0],
      })
    }),
  )
})

test('a run is split as the kernel splits it', () => {
  fc.assert(
    fc.property(fc.nat(1 << 20), fc.integer({ min: 1, max: 5000 }), (pfn, pages) => {
      const units: (readonly [pfn: number, order: number])[] = []
      for (let at = pfn; at < pfn + pages; ) {
        const order = splitOrder(at, pfn + pages - at)
        units.push([at, order])
        at += 2 ** order
      }
      const runs = [...splitPages(BigInt(pfn) * 4096n, BigInt(pages), 4096)]
      const other = runs.flatMap(({ start, order, count, step }) =>
        Array.from({ length: count }, (_, i) => [Number(start / 4096n) + (i * step) / 4096, order] as const),
      )
      expect(units).toEqual(other)
    }),
  )
})

test.each(realImages)("libfdt's answers for %s are what the decoder reads", async (name) => {
  const { fdts } = await decodeReal(name)
  expect(fdts.length).toBeGreaterThan(1)
  for (const { fdt, pa } of fdts) {
    const kernel = new KernelFdt(fdt.bytes, pa)
    expect(kernel.checkHeader(true)).toBe(0)
    expect([...kernel.subnodes(0)]).toHaveLength(fdt.root?.children.length ?? -1)
    for (const node of fdt.root?.children ?? []) {
      const offset = kernel.subnode(0, node.name)
      expect(offset).toBe(node.offset - fdt.header.off_dt_struct)
      for (const { name: property = '', value } of node.properties)
        expect(kernel.property(offset, property)).toMatchObject({ value })
      expect(kernel.property(offset, 'none')).toBe(-1)
    }
  }
})
