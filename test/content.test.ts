/** What files hold: each kind of content against the guest program's own arithmetic, and its JSON. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { contentSource } from '../encode/content.ts'
import type { Content, PlainContent } from '../encode/handover.ts'
import { content as codec } from '../encode/json-content.ts'
import { fillOf } from './support/guest.ts'

/** All bytes of a content of `length`, by the definition of its kind and nothing else. */
function expectedBytes(content: PlainContent, length: number): Uint8Array {
  const out = new Uint8Array(length)
  if (content instanceof Uint8Array) out.set(content)
  else if ('byte' in content) out.fill(content.byte, 0, Number(content.length))
  else if ('word' in content) {
    const view = new DataView(new ArrayBuffer(Number(content.length) + 8))
    for (let at = 0; at < content.length; at += content.every)
      view.setBigUint64(at, BigInt.asUintN(64, content.word + BigInt(at)), true)
    out.set(new Uint8Array(view.buffer, 0, Number(content.length)))
  } else {
    for (let at = 0; at < content.length; at += content.every) {
      const run = Math.min(content.run, content.every, Number(content.length) - at)
      out.set(fillOf(content.seed + BigInt(at), run), at)
    }
  }
  return out
}

const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
const length = fc.bigInt({ min: 0n, max: 300_000n })
const every = fc.oneof(fc.integer({ min: 8, max: 9000 }), fc.integer({ min: 65_537, max: 150_000 }))

const plain: fc.Arbitrary<PlainContent> = fc.oneof(
  fc.uint8Array({ maxLength: 5000 }),
  fc.record({ seed: u64, every, run: fc.integer({ min: 1, max: 600 }), length }),
  fc.record({ word: u64, every, length }),
  fc.record({ byte: fc.integer({ min: 0, max: 255 }), length }),
)

const SEED = 20261121

describe.each(['whole', 'in pieces'])('read %s', (how) => {
  test(`every byte is the definition's, and parts leave out zeros only (seed ${SEED})`, () => {
    fc.assert(
      fc.property(plain, fc.integer({ min: 1, max: 70_000 }), (content, step) => {
        const source = contentSource(content)
        const total = Number(source.length)
        const expected = expectedBytes(content, total)
        const read = new Uint8Array(total)
        const piece = how === 'whole' ? Math.max(1, total) : step
        for (let at = 0; at < total; at += piece) {
          source.fill(BigInt(at), read.subarray(at, Math.min(at + piece, total)))
        }
        expect(Buffer.compare(read, expected)).toBe(0)
        const [from, to] = [Math.floor(total / 3), total + 10]
        for (const { start, end } of source.parts(BigInt(from), BigInt(to))) {
          expect(Number(start)).toBeGreaterThanOrEqual(from)
          expect(Number(end)).toBeLessThanOrEqual(total)
          expected.fill(0, Number(start), Number(end))
        }
        expect(expected.subarray(from).every((byte) => byte === 0)).toBe(true)
      }),
      { seed: SEED, numRuns: 100 },
    )
  })
})

test('pieces lie over each other in their order', () => {
  const source = contentSource([
    { offset: 2n, content: { byte: 7, length: 4n } },
    { offset: 4n, content: Uint8Array.of(1, 2) },
    { offset: 9n, content: { word: 0x1122n, every: 16, length: 2n } },
  ])
  const read = new Uint8Array(11)
  source.fill(0n, read)
  expect([...read]).toEqual([0, 0, 7, 7, 1, 2, 0, 0, 0, 0x22, 0x11])
  expect([...source.parts(3n, 100n)]).toEqual([
    { start: 3n, end: 6n },
    { start: 4n, end: 6n },
    { start: 9n, end: 11n },
  ])
})

test(`contents survive JSON (seed ${SEED})`, () => {
  const parts = fc.array(fc.record({ offset: length, content: plain }))
  fc.assert(
    fc.property(fc.oneof<fc.Arbitrary<Content>[]>(plain, parts), (value) => {
      const problems: never[] = []
      const json = JSON.parse(JSON.stringify(codec.print(value)))
      expect(codec.parse(json, ['content'], problems)).toEqual(value)
      expect(problems).toEqual([])
    }),
    { seed: SEED, numRuns: 100 },
  )
})
