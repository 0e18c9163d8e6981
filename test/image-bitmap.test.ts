/** Bitmaps of page frames against a plain reading of the same bits. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FrameBitmap } from '../inspect/image-bitmap.ts'
import { BytesSource } from '../inspect/image-source.ts'

/** Runs of set and clear bits, long enough to fill chunks of 32,768 bits, and what stands behind them. */
const bits = fc
  .tuple(
    fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 90_000 })), {
      minLength: 1,
      maxLength: 12,
    }),
    fc.boolean(),
    fc.nat({ max: 100 }),
  )
  .map(([runs, first, cut]) => {
    const values = runs.flatMap((length, index) => Array<boolean>(length).fill((index % 2 === 0) === first))
    // Bits behind the last frame must not count, whatever they are.
    const length = Math.max(1, values.length - cut)
    return { values, length }
  })

function pack(values: readonly boolean[], skew: number): BytesSource {
  const bytes = new Uint8Array(skew + Math.ceil(values.length / 8)).fill(0xff)
  values.forEach((value, bit) => {
    if (!value) bytes[skew + (bit >> 3)] = (bytes[skew + (bit >> 3)] as number) & ~(1 << (bit & 7))
  })
  return new BytesSource('bitmap', bytes)
}

describe('FrameBitmap', () => {
  it('knows each bit, its rank and where its run ends', () => {
    fc.assert(
      fc.property(
        bits,
        fc.nat({ max: 9 }),
        fc.infiniteStream(fc.nat()),
        ({ values, length }, skew, places) => {
          const bitmap = FrameBitmap.open(pack(values, skew), skew, length) as FrameBitmap
          const ranks = new Float64Array(length + 1)
          for (let bit = 0; bit < length; bit += 1)
            ranks[bit + 1] = (ranks[bit] as number) + (values[bit] ? 1 : 0)
          const ends = new Float64Array(length)
          for (let bit = length - 1; bit >= 0; bit -= 1) {
            ends[bit] =
              bit + 1 < length && values[bit + 1] === values[bit] ? (ends[bit + 1] as number) : bit + 1
          }
          for (let index = 0; index < 60; index += 1) {
            const bit = (places.next().value as number) % length
            for (const at of [bit, Math.min(bit + 1, length - 1)]) {
              expect(bitmap.has(at)).toBe(values[at])
              expect(bitmap.rank(at)).toBe(ranks[at])
              expect(bitmap.runEnd(at)).toBe(ends[at])
            }
          }
          expect(bitmap.rank(length)).toBe(ranks[length])
          expect(bitmap.rank(length + 1000)).toBe(ranks[length])
          expect(bitmap.has(length)).toBe(false)
        },
      ),
      { numRuns: 60 },
    )
  })

  it('is not opened where the source does not hold it', () => {
    const source = pack(Array<boolean>(80).fill(true), 0)
    expect(FrameBitmap.open(source, 0, 80)).toBeDefined()
    expect(FrameBitmap.open(source, 0, 81)).toBeUndefined()
    expect(FrameBitmap.open(source, 3, 64)).toBeUndefined()
    expect(FrameBitmap.open(source, 0, 2 ** 36)).toBeUndefined()
  })
})
