/**
 * Records: one declared struct decoded from a buffer of exactly its size.
 *
 * The work is done by a binary-parser that is derived from the schema, once per struct and page size.
 * It reads whole words of 1 to 8 bytes only; bit fields are split from their word here, because the
 * package decodes wide little-endian bit fields wrongly, and text stays bytes. Neither the bounds nor
 * the meaning of a value are checked here: the caller has read the bytes, and judges them.
 */
import { Parser, type WordReader } from 'binary-parser'
import { invariant } from '../abi/fault.ts'
import type { FieldLayout, PageSize, Target } from '../abi/layout.ts'
import { countOf, layoutOf } from '../abi/layout.ts'
import type { BitsType, Infer, IntType, StructType } from '../abi/schema.ts'

/** What the parser makes of a struct: words, buffers, arrays and nested records by field name. */
type Raw = Record<string, unknown>

const parsers = new WeakMap<StructType, Map<PageSize, Parser>>()
const holdingBits = new WeakMap<StructType, boolean>()

/**
 * Decodes `bytes`, which must be exactly the struct's size, into a record: bigint for 64-bit words,
 * number up to 32 bits, bytes for text, bitmaps and opaque fields, arrays and nested records for what
 * they are. Byte fields are views of `bytes`, not copies. Padding is left out.
 */
export function decodeStruct<S extends StructType>(struct: S, bytes: Uint8Array, target: Target): Infer<S> {
  const { size } = layoutOf(struct, target)
  invariant(bytes.length === size, `struct ${struct.name} has ${size} bytes, not ${bytes.length}`)
  const raw = parserOf(struct, target).parse(bytes) as Raw
  return (holdsBits(struct) ? splitBits(struct, raw, target) : raw) as Infer<S>
}

function parserOf(struct: StructType, target: Target): Parser {
  const known = parsers.get(struct) ?? new Map<PageSize, Parser>()
  parsers.set(struct, known)
  const found = known.get(target.pageSize)
  if (found) return found
  const parser = buildParser(struct, target)
  known.set(target.pageSize, parser)
  return parser
}

function buildParser(struct: StructType, target: Target): Parser {
  const { fields, size } = layoutOf(struct, target)
  const parser = new Parser()
  let offset = 0
  for (const field of fields) {
    if (field.offset < offset) continue
    if (field.offset > offset) parser.seek(field.offset - offset)
    appendField(parser, field, target)
    offset = field.offset + field.size
  }
  if (size > offset) parser.seek(size - offset)
  invariant(
    parser.sizeOf() === size,
    `the parser of struct ${struct.name} reads ${parser.sizeOf()} bytes, not ${size}`,
  )
  return parser
}

function appendField(parser: Parser, { name, type, offset, size }: FieldLayout, target: Target): void {
  switch (type.kind) {
    case 'int':
      parser[wordReader(type)](name)
      return
    case 'bits':
      parser[wordReader(type.word)](wordName(offset))
      return
    case 'text':
    case 'bytes':
    case 'bitmap':
      parser.buffer(name, { length: size })
      return
    case 'struct':
      parser.nest(name, { type: parserOf(type, target) })
      return
    case 'array': {
      const { element } = type
      const of = element.kind === 'int' ? wordReader(element) : parserOf(element, target)
      parser.array(name, { type: of, length: countOf(type, target, offset) })
    }
  }
}

function wordReader({ bytes, order, signed }: IntType): WordReader {
  return `${signed ? '' : 'u'}int${bytes * 8}${bytes === 1 ? '' : order}` as WordReader
}

/** A word that holds bit fields stands in the raw record under its offset; no field has such a name. */
function wordName(offset: number): string {
  return `wordAt${offset}`
}

function holdsBits(struct: StructType): boolean {
  const known = holdingBits.get(struct)
  if (known !== undefined) return known
  const found = Object.values(struct.fields).some(
    (type) =>
      type.kind === 'bits' ||
      (type.kind === 'struct' && holdsBits(type)) ||
      (type.kind === 'array' && type.element.kind === 'struct' && holdsBits(type.element)),
  )
  holdingBits.set(struct, found)
  return found
}

/** Replaces words by their bit fields, here and in nested records; keeps the order of the declaration. */
function splitBits(struct: StructType, raw: Raw, target: Target): Raw {
  const record: Raw = {}
  for (const { name, type, offset } of layoutOf(struct, target).fields) {
    if (type.kind === 'bits') {
      record[name] = bitsOf(type, raw[wordName(offset)] as number | bigint)
    } else if (type.kind === 'struct') {
      record[name] = splitBits(type, raw[name] as Raw, target)
    } else if (type.kind === 'array' && type.element.kind === 'struct') {
      const { element } = type
      record[name] = (raw[name] as Raw[]).map((item) => splitBits(element, item, target))
    } else {
      record[name] = raw[name]
    }
  }
  return record
}

/** The field's value: bigint out of a 64-bit word, else number, as `Infer` says. */
function bitsOf(type: BitsType, word: number | bigint): number | bigint {
  const value = BigInt.asUintN(type.width, BigInt(word) >> BigInt(type.shift))
  return typeof word === 'bigint' ? value : Number(value)
}
