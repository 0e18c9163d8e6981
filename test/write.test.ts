/** Structs written from values of their own declarations, and read back byte by byte. */
import fc from 'fast-check'
import { describe, expect, expectTypeOf, test } from 'vitest'
import * as abi from '../abi/index.ts'
import { layoutOf, PAGE_SIZES, sizeOf, type Target } from '../abi/layout.ts'
import type { FieldType, StructType } from '../abi/schema.ts'
import { array, bitfields, struct, text, u8, u16be, u32le, u64le } from '../abi/schema.ts'
import { type Encodable, type EncodeProblem, encodeStruct } from '../encode/write.ts'
import { arbitraryStruct } from './support/arbitrary.ts'

const structs = (Object.values(abi) as readonly unknown[]).filter(
  (value): value is StructType =>
    typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'struct',
)

/** A number from its bytes, first the most significant. */
const fromBytes = (bytes: Uint8Array): bigint => bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n)

/** What stands in the bytes of a field, in the form in which it was given. */
function readBack(type: FieldType, bytes: Uint8Array, given: unknown, target: Target): unknown {
  if (type.kind === 'struct') return readStruct(type, bytes, given as object, target)
  if (type.kind === 'array') {
    const size = sizeOf(type.element, target)
    return (given as unknown[]).map((element, index) =>
      readBack(type.element, bytes.subarray(index * size, (index + 1) * size), element, target),
    )
  }
  if (type.kind === 'int' || type.kind === 'bits') {
    const word = type.kind === 'bits' ? type.word : type
    const raw = fromBytes(word.order === 'be' ? bytes : bytes.toReversed())
    const bits = type.kind === 'bits' ? (raw >> BigInt(type.shift)) & ((1n << BigInt(type.width)) - 1n) : raw
    const value = word.signed ? BigInt.asIntN(word.bytes * 8, bits) : bits
    return typeof given === 'bigint' ? value : Number(value)
  }
  expect(bytes.subarray(lengthOf(given)).every((byte) => byte === 0)).toBe(true)
  const start = bytes.slice(0, lengthOf(given))
  return typeof given === 'string' ? new TextDecoder('utf-8', { ignoreBOM: true }).decode(start) : start
}

const lengthOf = (given: unknown): number =>
  typeof given === 'string' ? Buffer.byteLength(given) : (given as Uint8Array).length

function readStruct(type: StructType, bytes: Uint8Array, given: object, target: Target): unknown {
  const values = given as Record<string, unknown>
  return Object.fromEntries(
    layoutOf(type, target).fields.map((field) => [
      field.name,
      readBack(
        field.type,
        bytes.subarray(field.offset, field.offset + field.size),
        values[field.name],
        target,
      ),
    ]),
  )
}

describe.each(PAGE_SIZES)('at %i bytes a page', (pageSize) => {
  const target = { pageSize }

  test.each(structs.map((one) => [one.name, one] as const))(
    'struct %s holds what was written',
    (_name, one) => {
      fc.assert(
        fc.property(arbitraryStruct(one, target), (value) => {
          const bytes = encodeStruct(one, value as Encodable<StructType>, target)
          expect(bytes.length).toBe(layoutOf(one, target).size)
          expect(readStruct(one, bytes, value, target)).toEqual(value)
          for (const { offset, size } of layoutOf(one, target).padding) {
            expect(bytes.subarray(offset, offset + size)).toEqual(new Uint8Array(size))
          }
        }),
        { numRuns: 25 },
      )
    },
  )
})

const target: Target = { pageSize: 4096 }
const options = { doc: 'Of this test.', source: 'test' }
const mixed = struct('mixed', options, {
  small: u8('One byte.'),
  big: u16be('Big-endian.'),
  ...bitfields(u32le('Word.'), { low: [0, 12, 'Low bits.'], high: [12, 20, 'High bits.'] }),
  name: text(4, 'Text.'),
  list: array(u8('Element.'), 3, 'List.'),
  wide: u64le('Wide.'),
})
const good = {
  small: 1,
  big: 0x1234,
  low: 0xabc,
  high: 0xfffff,
  name: 'abc',
  list: [7],
  wide: 2n ** 64n - 1n,
}

describe('one struct with everything', () => {
  test('is laid out by hand', () => {
    const bytes = encodeStruct(mixed, good, target)
    const expected = '01 00 12 34 bc fa ff ff 61 62 63 00 07 00 00 00 ff ff ff ff ff ff ff ff'
    expect(Buffer.from(bytes).toString('hex')).toBe(expected.replaceAll(' ', ''))
  })

  test('its value has the types of its declaration', () => {
    expectTypeOf<Encodable<typeof mixed>>().toEqualTypeOf<{
      readonly small: number
      readonly big: number
      readonly low: number
      readonly high: number
      readonly name: Uint8Array | string
      readonly list: readonly number[]
      readonly wide: bigint
    }>()
  })

  test.each([
    ['a number too large', { small: 256 }, 'x.small', '256 does not fit u8: 0 to 255'],
    ['a negative number', { big: -1 }, 'x.big', '-1 does not fit __be16: 0 to 65535'],
    ['a fraction', { small: 1.5 }, 'x.small', 'expected an integer of u8'],
    ['bits too many', { low: 4096 }, 'x.low', '4096 does not fit 12 bits: 0 to 4095'],
    [
      '65 bits',
      { wide: 2n ** 64n },
      'x.wide',
      '18446744073709551616 does not fit u64: 0 to 0xffffffffffffffff',
    ],
    ['a long name', { name: 'äöü' }, 'x.name', '6 bytes, but the field has 4'],
    ['a name that is none', { name: 5 }, 'x.name', 'expected text of 4 bytes'],
    ['a long list', { list: [1, 2, 3, 4] }, 'x.list', '4 elements, but there is room for 3'],
    ['a wrong element', { list: [1, 300] }, 'x.list[1]', '300 does not fit u8: 0 to 255'],
    ['no list', { list: 3 }, 'x.list', 'expected a list'],
    ['a missing field', { wide: undefined }, 'x.wide', 'struct mixed needs this field'],
    ['a field too many', { other: 1 }, 'x.other', 'struct mixed has no such field'],
  ])('%s is a problem with its place', (_what, change, path, message) => {
    const problems: EncodeProblem[] = []
    const value = { ...good, ...change } as unknown as Encodable<typeof mixed>
    encodeStruct(mixed, value, target, problems, ['x'])
    expect(problems).toEqual([{ path, message }])
  })

  test('a misfit that nobody asked to hear of is our bug', () => {
    expect(() => encodeStruct(mixed, { ...good, small: 256 }, target)).toThrow('internal error: small: 256')
  })

  test('what does not fit leaves the neighbours alone', () => {
    const bytes = encodeStruct(mixed, { ...good, low: 4096 }, target, [])
    expect(Buffer.from(bytes.subarray(4, 8)).toString('hex')).toBe('00f0ffff')
  })
})
