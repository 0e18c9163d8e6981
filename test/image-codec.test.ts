/**
 * The LZO and Snappy decoders: on streams of the real libraries, and on damage of any kind.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeLzo, decodeSnappy } from '../inspect/image-codec.ts'
import { unpackedFixture } from './support/containers.ts'

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

/** The compressed pages of a fixture, by a reader that knows nothing but the offsets of the format. */
function pagesOf(name: string): { packed: Uint8Array; flags: number }[] {
  const file = unpackedFixture(name)
  const view = new DataView(file.buffer, file.byteOffset)
  const descriptors = (1 + view.getUint32(432, true) + view.getUint32(436, true)) * 4096
  return Array.from({ length: 1024 }, (_, frame) => {
    const at = descriptors + frame * 24
    const offset = Number(view.getBigUint64(at, true))
    return {
      packed: file.slice(offset, offset + view.getUint32(at + 8, true)),
      flags: view.getUint32(at + 12, true),
    }
  })
}

const codecs = [
  { name: 'LZO', decode: decodeLzo, fixture: 'qemu-x86_64.kdump-lzo.gz', flag: 2 },
  { name: 'Snappy', decode: decodeSnappy, fixture: 'qemu-x86_64.kdump-snappy.gz', flag: 4 },
] as const

const plain = pagesOf('qemu-x86_64.kdump-none.gz').map(({ packed }) => packed)

for (const { name, decode, fixture, flag } of codecs) {
  const packed = pagesOf(fixture)
    .map((page, frame) => ({ ...page, frame }))
    .filter(({ flags }) => flags === flag)
  const samples = packed.filter(({ frame }) => [0, 0x200, 0x201, 0x300, 0x301, 0x302, 0x303].includes(frame))

  describe(name, () => {
    it('decodes what the library wrote', () => {
      expect(samples.length).toBe(7)
      for (const { packed, frame } of samples) {
        const out = new Uint8Array(4096)
        expect(decode(packed, out)).toBe(true)
        expect(Buffer.compare(out, plain[frame] as Uint8Array)).toBe(0)
      }
    })

    it('refuses a page of another size', () => {
      for (const { packed } of samples) {
        expect(decode(packed, new Uint8Array(4095))).toBe(false)
        expect(decode(packed, new Uint8Array(4097))).toBe(false)
      }
    })

    it('refuses each stream that is cut off or goes on', () => {
      const out = new Uint8Array(4096)
      for (const { packed } of samples) {
        for (let length = 0; length < packed.length; length += 1 + (length >> 3))
          expect(decode(packed.subarray(0, length), out)).toBe(false)
        expect(decode(Buffer.concat([packed, bytes(0)]), out)).toBe(false)
      }
    })

    it('ends on any damage', () => {
      const out = new Uint8Array(4096)
      const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
        minLength: 1,
        maxLength: 8,
      })
      fc.assert(
        fc.property(fc.constantFrom(...samples), damage, ({ packed }, changes) => {
          const hurt = packed.slice()
          for (const [at, value] of changes) hurt[at % hurt.length] = value
          decode(hurt, out)
        }),
        { numRuns: 3000 },
      )
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 300 }), (noise) => {
          decode(noise, out)
        }),
        { numRuns: 3000 },
      )
    })
  })
}

describe('LZO streams by hand', () => {
  const out = (length: number): Uint8Array => new Uint8Array(length)
  const END = [0x11, 0, 0]

  it('takes each kind of instruction', () => {
    const cases: readonly [string, number[]][] = [
      // First byte 17 + n: n literals, after which 0000DDSS is a match of 2 (n < 4).
      ['abcab', [17 + 3, ...ascii('abc'), 0b0000_1000, 0, ...END]],
      // First byte from 21 on: a literal run, then 01LDDDSS: 3 or 4 bytes from at most 2 KiB back.
      ['abcdabcd', [17 + 4, ...ascii('abcd'), 0b0110_1100, 0, ...END]],
      // 1LLDDDSS: 5 to 8 bytes, and two literals behind it.
      ['abcdeabcdefg', [17 + 5, ...ascii('abcde'), 0b1001_0010, 0, ...ascii('fg'), ...END]],
      // 001LLLLL with a length of its own: 2 + 31 + 5 bytes of a run, distance 1.
      [`aaaa${'a'.repeat(38)}`, [17 + 4, ...ascii('aaaa'), 0b0010_0000, 5, 0, 0, ...END]],
      // A long literal run at the start, its length in extra bytes.
      [`${'x'.repeat(3 + 15 + 255 + 7)}`, [0, 0, 7, ...ascii('x'.repeat(280)), ...END]],
    ]
    for (const [text, stream] of cases) {
      const page = out(text.length)
      expect(decodeLzo(Uint8Array.from(stream), page), text).toBe(true)
      expect(new TextDecoder().decode(page)).toBe(text)
    }
  })

  it('takes matches from 2 KiB and from 16 KiB back', () => {
    const first = Uint8Array.from({ length: 20_000 }, (_, index) => (index * 37) & 0xff)
    const literal = (length: number): number[] => {
      const rest = length - 18
      return [0, ...Array(Math.ceil(rest / 255) - 1).fill(0), rest - (Math.ceil(rest / 255) - 1) * 255]
    }
    // 0000DDSS behind a literal run: 3 bytes, distance 2049 + D + H * 4.
    const far = [...literal(3000), ...first.subarray(0, 3000), 0b0000_0100, 2, ...END]
    const farPage = out(3003)
    expect(decodeLzo(Uint8Array.from(far), farPage)).toBe(true)
    expect(farPage.subarray(3000)).toEqual(farPage.subarray(3000 - 2058, 3003 - 2058))
    // 0001HLLL: 2 + L bytes, distance 16384 + D.
    const farther = [...literal(20_000), ...first, 0b0001_0100, 100 << 2, 100 >> 6, ...END]
    const fartherPage = out(20_006)
    expect(decodeLzo(Uint8Array.from(farther), fartherPage)).toBe(true)
    expect(fartherPage.subarray(20_000)).toEqual(fartherPage.subarray(20_000 - 16_484, 20_006 - 16_484))
  })

  it('refuses what reaches out of its buffers', () => {
    expect(decodeLzo(bytes(), out(4))).toBe(false)
    expect(decodeLzo(bytes(17 + 4, 1, 2), out(4))).toBe(false)
    expect(decodeLzo(bytes(17 + 4, 1, 2, 3, 4, 0b0110_1100, 200, ...END), out(8))).toBe(false)
    expect(decodeLzo(bytes(17 + 4, 1, 2, 3, 4, ...END), out(4))).toBe(true)
    expect(decodeLzo(bytes(17 + 4, 1, 2, 3, 4, ...END), out(3))).toBe(false)
    // Lengths that add up without end.
    expect(decodeLzo(new Uint8Array(100_000), out(4096))).toBe(false)
  })
})

describe('Snappy streams by hand', () => {
  it('takes literals and copies with one, two and four bytes of offset', () => {
    const stream = bytes(26, 3 << 2, ...ascii('abcd'), 1, 4, (5 << 2) | 2, 8, 0, (11 << 2) | 3, 14, 0, 0, 0)
    const page = new Uint8Array(26)
    expect(decodeSnappy(stream, page)).toBe(true)
    expect(new TextDecoder().decode(page)).toBe('abcdabcdabcdababcdabcdabcd')
  })

  it('refuses a literal whose length wraps around, which makes other decoders run for ever', () => {
    expect(decodeSnappy(bytes(4, 0xfc, 0xfa, 0xff, 0xff, 0xff, 1, 2, 3, 4), new Uint8Array(4))).toBe(false)
  })

  it('refuses a length that is not the page', () => {
    expect(decodeSnappy(bytes(0xff, 0xff, 0xff, 0xff, 0x7f, 0), new Uint8Array(4))).toBe(false)
    expect(decodeSnappy(bytes(), new Uint8Array(4))).toBe(false)
    expect(decodeSnappy(bytes(0), new Uint8Array(0))).toBe(true)
  })
})
