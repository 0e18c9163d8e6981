/** Pages that lie far apart take as much room as pages next to each other. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { FrameTable } from '../simulate/frames.ts'
import { Kernel } from '../simulate/kernel.ts'
import { must } from './support/captured.ts'

const PAGES = 20_000
const FIRST = 1n << 33n
const STEP = 1n << 24n
const ram = [{ start: 0n, end: 1n << 40n }]

/** A release of each form of the map. */
const releases = ['linux-6.17', 'linux-6.19', 'linux-7.3'] as const

test.each(releases)('%s: 20,000 pages 16 MiB apart are handed over and restored', (release) => {
  const kernel = Kernel.boot({ release, ram, cmdline: 'kho=on kho_scratch=16M,16M,16M' })
  const pages = Array.from({ length: PAGES }, (_, at) => phys(FIRST + BigInt(at) * STEP))
  for (const page of pages) must(kernel.kho.preservePages(page, 1))
  if (kernel.spec.traits.hasFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
  const next = must(kernel.kexec())
  const { preserved, allocated } = next.pages.census()
  expect(pages.filter((page) => next.kho.restorePages(page, 1) !== page)).toEqual([])
  expect(next.pages.census()).toMatchObject({
    preserved: preserved - PAGES,
    allocated: allocated + PAGES,
  })
  // A table of all frames between the first and the last has 480 MiB.
  expect(process.memoryUsage().arrayBuffers).toBeLessThan(128 << 20)
})

const operation = fc.record({
  /** Close together, far apart, and where a frame is no 32-bit number. */
  frame: fc.oneof(
    fc.nat(40),
    fc.nat(40).map((at) => at * 2 ** 15),
    fc.nat(40).map((at) => 2 ** 40 + at),
  ),
  length: fc.constantFrom(1, 7, 64, 2 ** 41),
  what: fc.constantFrom('set', 'setUnit', 'clearUnits'),
  order: fc.nat(18),
  refs: fc.nat(3),
})

test('struct pages are what was last written to them, wherever they lie', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      const table = new FrameTable()
      const folios = new Map<number, readonly [order: number, refs: number]>()
      const units = new Map<number, number>()
      for (const { frame, length, what, order, refs } of operations) {
        if (what === 'set') {
          table.set(frame, order, refs)
          folios.set(frame, [order, refs])
        } else if (what === 'setUnit') {
          table.setUnit(frame, order)
          units.set(frame, order)
        } else {
          table.clearUnits(frame, frame + length)
          for (const at of units.keys()) if (frame <= at && at < frame + length) units.delete(at)
        }
      }
      for (const { frame } of operations) {
        expect([table.order(frame), table.refs(frame)]).toEqual(folios.get(frame) ?? [0, 0])
        expect(table.unit(frame)).toBe(units.get(frame))
      }
      const held = [...folios].filter(([, [, refs]]) => refs > 0).map(([frame]) => frame)
      expect([...table.starts('folio')]).toEqual(held.sort((a, b) => a - b))
      expect([...table.starts('unit')]).toEqual([...units.keys()].sort((a, b) => a - b))
    }),
  )
})
