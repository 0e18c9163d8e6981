/**
 * decodeStruct against plain DataView reads at the declared offsets, for every struct of the ABI and
 * every page size, on random bytes; and the types of what it returns.
 */
import fc from 'fast-check'
import { describe, expect, expectTypeOf, it } from 'vitest'
import type { FieldType, PageSize, StructType } from '../abi/index.ts'
import * as abi from '../abi/index.ts'
import { layoutOf, PAGE_SIZES } from '../abi/layout.ts'
import { memfdFolio } from '../abi/memfd.ts'
import { decodeStruct } from '../inspect/record.ts'

function isStruct(value: unknown): value is StructType {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'struct'
}

const structs = (Object.values(abi) as readonly unknown[]).filter(isStruct)

function valueAt(type: FieldType, view: DataView, offset: number, pageSize: PageSize): unknown {
  const layout = (inner: StructType) => layoutOf(inner, { pageSize })
  if (type.kind === 'int') return wordAt(view, offset, type.bytes, type.order === 'le', type.signed)
  if (type.kind === 'bits') {
    const word = BigInt(wordAt(view, offset, type.word.bytes, type.word.order === 'le', false))
    const bits = word.toString(2).padStart(type.word.bytes * 8, '0')
    const end = bits.length - type.shift
    const value = BigInt(`0b${bits.slice(end - type.width, end)}`)
    return type.word.bytes === 8 ? value : Number(value)
  }
  if (type.kind === 'struct') {
    return Object.fromEntries(
      layout(type).fields.map((field) => [
        field.name,
        valueAt(field.type, view, offset + field.offset, pageSize),
      ]),
    )
  }
  if (type.kind === 'array') {
    const step = type.element.kind === 'int' ? type.element.bytes : layout(type.element).size
    const start = offset
    const count = type.count === 'page' ? Math.floor((pageSize - start) / step) : type.count
    return Array.from({ length: count }, (_, index) =>
      valueAt(type.element, view, start + index * step, pageSize),
    )
  }
  const length = type.bytes === 'page' ? pageSize : type.bytes
  return [...new Uint8Array(view.buffer, view.byteOffset + offset, length)]
}

function wordAt(view: DataView, offset: number, bytes: number, little: boolean, signed: boolean) {
  if (bytes === 1) return signed ? view.getInt8(offset) : view.getUint8(offset)
  if (bytes === 2) return signed ? view.getInt16(offset, little) : view.getUint16(offset, little)
  if (bytes === 4) return signed ? view.getInt32(offset, little) : view.getUint32(offset, little)
  return signed ? view.getBigInt64(offset, little) : view.getBigUint64(offset, little)
}

/** Byte views as plain arrays, so that views of different classes compare by content. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return [...value]
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]))
}

describe('decodeStruct', () => {
  it('knows every struct of the ABI', () => {
    expect(structs.length).toBeGreaterThan(20)
  })

  for (const pageSize of PAGE_SIZES) {
    it(`agrees with DataView at the declared offsets, pages of ${pageSize}`, () => {
      for (const struct of structs) {
        const { size } = layoutOf(struct, { pageSize })
        fc.assert(
          fc.property(
            fc.integer({ min: 0, max: 0xffff_ffff }),
            fc.integer({ min: 0, max: 7 }),
            (seed, skew) => {
              const bytes = noise(seed, size + skew).subarray(skew)
              const view = new DataView(bytes.buffer, bytes.byteOffset, size)
              const record = decodeStruct(struct, bytes, { pageSize })
              expect(plain(record), struct.name).toStrictEqual(valueAt(struct, view, 0, pageSize))
              expect(Object.keys(record as object)).toEqual(Object.keys(struct.fields))
            },
          ),
          { numRuns: size > 1024 ? 2 : 30 },
        )
      }
    })
  }

  it('splits a 52-bit frame number exactly', () => {
    const bytes = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x00, 1, 0, 0, 0, 0, 0, 0, 0x80)
    const record = decodeStruct(memfdFolio, bytes, { pageSize: 4096 })
    expect(record).toStrictEqual({ pfn: 0xf_ffff_ffff_ffffn, flags: 3n, index: 0x8000_0000_0000_0001n })
    expectTypeOf(record.pfn).toEqualTypeOf<bigint>()
  })

  it('refuses a buffer that is not exactly the struct', () => {
    expect(() => decodeStruct(memfdFolio, new Uint8Array(15), { pageSize: 4096 })).toThrow(/16 bytes, not 15/)
  })
})

/** xorshift32 bytes of a seed. */
function noise(seed: number, length: number): Uint8Array {
  let state = seed | 1
  return Uint8Array.from({ length }, () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state & 0xff
  })
}
