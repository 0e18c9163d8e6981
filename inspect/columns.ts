/**
 * Column readers: one field of many fixed-size records as plain numbers, derived from the schema, for
 * bulk data of which no record ever becomes an object.
 *
 * Numbers are exact up to 2^53; fields that can hold more (a u64 that is no address) saturate there,
 * which no valid image reaches.
 */
import { invariant } from '../abi/fault.ts'
import { fieldOf, type Target } from '../abi/layout.ts'
import type { StructType } from '../abi/schema.ts'

/** Reads the field of the record that starts at `offset` of the view. */
export type Column = (view: DataView, offset: number) => number

/** Derives the reader of a little-endian 64-bit word or of a bit field in one. */
export function columnOf(struct: StructType, name: string, target: Target): Column {
  const { type, offset: at } = fieldOf(struct, name, target)
  const word = type.kind === 'bits' ? type.word : type
  invariant(
    word.kind === 'int' && word.bytes === 8 && word.order === 'le',
    `${struct.name}.${name} is no 64-bit word`,
  )
  const shift = type.kind === 'bits' ? type.shift : 0
  const width = type.kind === 'bits' ? type.width : 64
  if (shift >= 32) {
    const mask = 2 ** width - 1
    return (view, offset) => (view.getUint32(offset + at + 4, true) >>> (shift - 32)) & mask
  }
  invariant(shift === 0, `${struct.name}.${name} straddles the middle of its word`)
  const highMask = width >= 64 ? 0xffff_ffff : 2 ** Math.max(0, width - 32) - 1
  return (view, offset) => {
    const high = (view.getUint32(offset + at + 4, true) & highMask) >>> 0
    return Math.min(high * 2 ** 32 + view.getUint32(offset + at, true), Number.MAX_SAFE_INTEGER)
  }
}

/** Like columnOf(), for output: a word above 2^53 is read as a bigint instead of saturating. */
export function exactColumnOf(
  struct: StructType,
  name: string,
  target: Target,
): (view: DataView, offset: number) => number | bigint {
  const column = columnOf(struct, name, target)
  const { type, offset: at } = fieldOf(struct, name, target)
  if (type.kind === 'bits') return column
  return (view, offset) => {
    const value = column(view, offset)
    return value < Number.MAX_SAFE_INTEGER ? value : view.getBigUint64(offset + at, true)
  }
}
