/**
 * Values to bytes by schema: the inverse of the struct reader, from the same declarations.
 *
 * A value that does not fit its field is a problem with its place, never cut in silence; the bytes of
 * such a field stay zero.
 */
import { formatPath, invariant, type Path } from '../abi/fault.ts'
import type { FieldLayout, Target } from '../abi/layout.ts'
import { countOf, layoutOf, sizeOf } from '../abi/layout.ts'
import { hex } from '../abi/memory.ts'
import type { ArrayType, BitsType, FieldType, Infer, IntType, StructType, TextType } from '../abi/schema.ts'

/** What keeps a value from being written: its place in the input and what would be right. */
export interface EncodeProblem {
  /** As in dumps and faults: `luo.sessions[vm-alpha].files[0x1].token`. */
  readonly path: string
  readonly message: string
}

/**
 * What a schema takes: 64-bit words as bigint, shorter ones as number, text as bytes or as a string
 * (written in UTF-8, zero-padded), arrays with at most as many elements as they have room for (the rest
 * stays zero), bitmaps and bytes up to their length.
 */
export type Encodable<T> = T extends TextType
  ? Uint8Array | string
  : T extends StructType<infer F>
    ? { readonly [K in keyof F]: Encodable<F[K]> }
    : T extends ArrayType<infer E>
      ? readonly Encodable<E>[]
      : Infer<T>

/** A value of any schema, for code that is handed its schema at run time. */
export type FieldValue =
  | number
  | bigint
  | string
  | Uint8Array
  | readonly FieldValue[]
  | { readonly [field: string]: FieldValue }

/**
 * Encodes one struct into a buffer of exactly its size.
 *
 * Misfits go into `problems`; without that list every value comes from our own code and a misfit is a
 * bug, so it throws.
 */
export function encodeStruct<S extends StructType>(
  struct: S,
  value: Encodable<S>,
  target: Target,
  problems?: EncodeProblem[],
  path: Path = [],
): Uint8Array {
  const out = new Uint8Array(layoutOf(struct, target).size)
  writeStruct(out, 0, struct, value, target, problems, path)
  return out
}

/** Encodes one struct into `out` at `offset`; bytes that no field covers are left as they are. */
export function writeStruct<S extends StructType>(
  out: Uint8Array,
  offset: number,
  struct: S,
  value: Encodable<S>,
  target: Target,
  problems?: EncodeProblem[],
  path: Path = [],
): void {
  const found: EncodeProblem[] = problems ?? []
  const writer: FieldWriter = { out, view: viewOf(out), target, problems: found }
  writeFields(writer, offset, struct, value as FieldValue, path)
  invariant(problems || found.length === 0, `${found[0]?.path}: ${found[0]?.message}`)
}

/** Encodes one integer in its declared byte order. */
export function encodeInt(
  type: IntType,
  value: FieldValue,
  problems?: EncodeProblem[],
  path: Path = [],
): Uint8Array {
  const out = new Uint8Array(type.bytes)
  const found: EncodeProblem[] = problems ?? []
  if (checkInt(type, value, found, path)) putInt(viewOf(out), 0, type, BigInt(value))
  invariant(problems || found.length === 0, `${found[0]?.path}: ${found[0]?.message}`)
  return out
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

interface FieldWriter {
  readonly out: Uint8Array
  readonly view: DataView
  readonly target: Target
  readonly problems: EncodeProblem[]
}

function writeFields(
  writer: FieldWriter,
  base: number,
  struct: StructType,
  value: FieldValue,
  path: Path,
): void {
  if (!isFields(value)) {
    report(writer.problems, path, `expected the fields of struct ${struct.name}`)
    return
  }
  for (const field of layoutOf(struct, writer.target).fields) {
    const fieldPath = [...path, field.name]
    const given = value[field.name]
    if (given === undefined) report(writer.problems, fieldPath, `struct ${struct.name} needs this field`)
    else writeField(writer, base, field, given, fieldPath)
  }
  for (const name of Object.keys(value)) {
    if (!(name in struct.fields))
      report(writer.problems, [...path, name], `struct ${struct.name} has no such field`)
  }
}

function writeField(
  writer: FieldWriter,
  base: number,
  field: FieldLayout,
  value: FieldValue,
  path: Path,
): void {
  const { type } = field
  const offset = base + field.offset
  switch (type.kind) {
    case 'int':
      if (checkInt(type, value, writer.problems, path)) putInt(writer.view, offset, type, BigInt(value))
      return
    case 'bits':
      if (checkBits(type, value, writer.problems, path)) addBits(writer.view, offset, type, BigInt(value))
      return
    case 'text':
    case 'bytes':
    case 'bitmap':
      writeBytes(writer, offset, type, field.size, value, path)
      return
    case 'array':
      writeElements(writer, offset, type, countOf(type, writer.target, field.offset), value, path)
      return
    case 'struct':
      writeFields(writer, offset, type, value, path)
  }
}

function writeElements(
  writer: FieldWriter,
  base: number,
  type: ArrayType,
  room: number,
  value: FieldValue,
  path: Path,
): void {
  if (!Array.isArray(value)) {
    report(writer.problems, path, 'expected a list')
    return
  }
  if (value.length > room)
    report(writer.problems, path, `${value.length} elements, but there is room for ${room}`)
  const size = sizeOf(type.element, writer.target)
  for (const [index, element] of value.slice(0, room).entries()) {
    const layout: FieldLayout = { name: String(index), type: type.element, offset: index * size, size }
    writeField(writer, base, layout, element, [...path, { index }])
  }
}

function writeBytes(
  writer: FieldWriter,
  offset: number,
  type: FieldType,
  room: number,
  value: FieldValue,
  path: Path,
): void {
  const bytes = typeof value === 'string' && type.kind === 'text' ? new TextEncoder().encode(value) : value
  if (!(bytes instanceof Uint8Array)) report(writer.problems, path, `expected ${type.kind} of ${room} bytes`)
  else if (bytes.length > room)
    report(writer.problems, path, `${bytes.length} bytes, but the field has ${room}`)
  else writer.out.set(bytes, offset)
}

function checkInt(
  type: IntType,
  value: FieldValue,
  problems: EncodeProblem[],
  path: Path,
): value is number | bigint {
  const bits = BigInt(type.bytes * 8)
  const low = type.signed ? -(1n << (bits - 1n)) : 0n
  const high = type.signed ? (1n << (bits - 1n)) - 1n : (1n << bits) - 1n
  return checkRange(type.ctype, low, high, value, problems, path)
}

function checkBits(
  type: BitsType,
  value: FieldValue,
  problems: EncodeProblem[],
  path: Path,
): value is number | bigint {
  return checkRange(`${type.width} bits`, 0n, (1n << BigInt(type.width)) - 1n, value, problems, path)
}

function checkRange(
  room: string,
  low: bigint,
  high: bigint,
  value: FieldValue,
  problems: EncodeProblem[],
  path: Path,
): value is number | bigint {
  if (typeof value !== 'bigint' && !(typeof value === 'number' && Number.isInteger(value))) {
    report(problems, path, `expected an integer of ${room}`)
    return false
  }
  if (value >= low && value <= high) return true
  report(problems, path, `${value} does not fit ${room}: ${low} to ${high < 65536n ? high : hex(high)}`)
  return false
}

function putInt(view: DataView, offset: number, type: IntType, value: bigint): void {
  const littleEndian = type.order === 'le'
  const number = Number(BigInt.asUintN(32, value))
  if (type.bytes === 1) view.setUint8(offset, number)
  else if (type.bytes === 2) view.setUint16(offset, number, littleEndian)
  else if (type.bytes === 4) view.setUint32(offset, number, littleEndian)
  else view.setBigUint64(offset, BigInt.asUintN(64, value), littleEndian)
}

function getInt(view: DataView, offset: number, type: IntType): bigint {
  const littleEndian = type.order === 'le'
  if (type.bytes === 1) return BigInt(view.getUint8(offset))
  if (type.bytes === 2) return BigInt(view.getUint16(offset, littleEndian))
  if (type.bytes === 4) return BigInt(view.getUint32(offset, littleEndian))
  return view.getBigUint64(offset, littleEndian)
}

/** Fields of one word are written one after the other into the same bytes. */
function addBits(view: DataView, offset: number, type: BitsType, value: bigint): void {
  const shift = BigInt(type.shift)
  const mask = ((1n << BigInt(type.width)) - 1n) << shift
  putInt(view, offset, type.word, (getInt(view, offset, type.word) & ~mask) | (value << shift))
}

function isFields(value: FieldValue): value is { readonly [field: string]: FieldValue } {
  return typeof value === 'object' && !Array.isArray(value) && !(value instanceof Uint8Array)
}

function report(problems: EncodeProblem[], path: Path, message: string): void {
  problems.push({ path: formatPath(path), message })
}
