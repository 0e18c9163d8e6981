/** Ranges of page frames in columns, against sets of single frames. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type FrameRange, FrameRanges, FrameSpans } from '../encode/frame-ranges.ts'
import { NumberIndex } from '../simulate/number-index.ts'

const ranges = fc.array(
  fc.tuple(fc.nat(60), fc.nat(8)).map(([start, length]) => ({ start, end: start + length })),
  { maxLength: 20 },
)

function framesOf(given: Iterable<FrameRange>): readonly number[] {
  const frames = new Set<number>()
  for (const { start, end } of given) for (let at = start; at < end; at++) frames.add(at)
  return [...frames].sort((a, b) => a - b)
}

function merged(given: readonly FrameRange[]): FrameSpans {
  const all = new FrameRanges()
  for (const { start, end } of given) all.add(start, end)
  return all.merged()
}

test('ranges that overlap or touch become one, the others stay', () => {
  fc.assert(
    fc.property(ranges, ranges, (before, after) => {
      const all = new FrameRanges()
      for (const { start, end } of before) all.add(start, end)
      const first = all.merged()
      const kept = [...first]
      for (const { start, end } of after) all.add(start, end)
      const spans = [...all.merged()]
      expect(framesOf(spans)).toEqual(framesOf([...before, ...after]))
      expect(all.merged().frames).toBe(framesOf(spans).length)
      for (const [at, { start }] of spans.entries()) {
        expect(start).toBeGreaterThan(spans[at - 1]?.end ?? -1)
      }
      // What was given out before does not change.
      expect([...first]).toEqual(kept)
    }),
  )
})

test('what is left of ranges, and what they share with others', () => {
  fc.assert(
    fc.property(ranges, ranges, (some, others) => {
      const [a, b] = [merged(some), merged(others)]
      const taken = new Set(framesOf(b))
      expect(framesOf(a.without(b))).toEqual(framesOf(a).filter((frame) => !taken.has(frame)))
      expect(framesOf(a.within(b))).toEqual(framesOf(a).filter((frame) => taken.has(frame)))
    }),
  )
})

test('RAM of neighbouring nodes stays in two ranges', () => {
  const nodes = FrameSpans.of([
    { start: 0, end: 8 },
    { start: 8, end: 16 },
  ])
  expect([...nodes.without(merged([{ start: 2, end: 3 }]))]).toEqual([
    { start: 0, end: 2 },
    { start: 3, end: 8 },
    { start: 8, end: 16 },
  ])
})

test('an index finds numbers by the order in which they came, and no others', () => {
  const numbers = fc.uniqueArray(fc.maxSafeNat(), { minLength: 600, maxLength: 2000 })
  fc.assert(
    fc.property(numbers, fc.nat(2 ** 20), (values, step) => {
      for (const series of [values, values.map((_, at) => at * (step + 1))]) {
        const index = new NumberIndex()
        for (const [at, value] of series.entries()) {
          expect(index.find(value)).toBe(-1)
          expect(index.add(value)).toBe(at)
        }
        expect(index.size).toBe(series.length)
        expect([...index.values()]).toEqual(series)
        for (const [at, value] of series.entries()) if (index.find(value) !== at) expect(value).toBe(at)
      }
    }),
    { numRuns: 10 },
  )
})
