/** Values of any schema for property tests: an arbitrary derived from the declaration itself. */
import fc from 'fast-check'
import { countOf, layoutOf, type Target } from '../../abi/layout.ts'
import type { FieldType, StructType } from '../../abi/schema.ts'

/** Elements of a page-sized array or bytes of a page-sized bitmap that one value fills at most. */
const MANY = 40

/** Whole numbers of `bits` bits; extremes come often. */
function whole(bits: number, signed: boolean, wide: boolean): fc.Arbitrary<bigint | number> {
  const min = signed ? -(1n << BigInt(bits - 1)) : 0n
  const max = signed ? (1n << BigInt(bits - 1)) - 1n : (1n << BigInt(bits)) - 1n
  const values = fc.oneof(fc.bigInt({ min, max }), fc.constantFrom(min, max, max >> 1n))
  return wide ? values : values.map(Number)
}

export function arbitraryOf(type: FieldType, target: Target, offset = 0): fc.Arbitrary<unknown> {
  switch (type.kind) {
    case 'int':
      return whole(type.bytes * 8, type.signed, type.bytes === 8)
    case 'bits':
      return whole(type.width, false, type.word.bytes === 8)
    case 'text':
      return fc.oneof(
        fc.uint8Array({ maxLength: type.bytes }),
        fc.string({ unit: 'grapheme', maxLength: 8 }).filter((text) => Buffer.byteLength(text) <= type.bytes),
      )
    case 'bytes':
      return fc.uint8Array({ minLength: type.bytes, maxLength: type.bytes })
    case 'bitmap':
      return fc.uint8Array({ maxLength: type.bytes === 'page' ? MANY : type.bytes })
    case 'array': {
      const room = countOf(type, target, offset)
      return fc.array(arbitraryOf(type.element, target), { maxLength: Math.min(room, MANY) })
    }
    case 'struct':
      return arbitraryStruct(type, target)
  }
}

export function arbitraryStruct(struct: StructType, target: Target): fc.Arbitrary<Record<string, unknown>> {
  const fields = layoutOf(struct, target).fields.map(({ name, type, offset }) => [
    name,
    arbitraryOf(type, target, offset),
  ])
  return fc.record(Object.fromEntries(fields))
}
