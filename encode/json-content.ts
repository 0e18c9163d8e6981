/**
 * Contents in JSON: `{ "hex": … }`, `{ "text": … }`, `{ "pattern": … }`, `{ "words": … }`,
 * `{ "repeated": … }`, or a list of these with offsets.
 */
import type { Content, ContentPart, Pattern, PlainContent, Repeated, Words } from './handover.ts'
import {
  type Codec,
  complain,
  count,
  hexBytes,
  isObject,
  list,
  type Member,
  object,
  optional,
  required,
  size,
  text,
  u64,
} from './json-codec.ts'
import { textBytes } from './text.ts'

interface Piece {
  readonly offset?: bigint
  readonly hex?: Uint8Array
  readonly text?: string | Uint8Array
  readonly pattern?: Pattern
  readonly words?: Words
  readonly repeated?: Repeated
}

const pattern = object<Pattern>({
  seed: required(u64('dec')),
  every: required(count(1)),
  run: required(count(1)),
  length: required(size),
})

const words = object<Words>({
  word: required(u64('dec')),
  every: required(count(1)),
  length: required(size),
})

const repeated = object<Repeated>({
  byte: required(count()),
  length: required(size),
})

const kinds: Readonly<Record<string, Member>> = {
  hex: optional(hexBytes),
  text: optional(text),
  pattern: optional(pattern),
  words: optional(words),
  repeated: optional(repeated),
}
const whole = single(object<Piece>(() => kinds))
const part = single(object<Piece>(() => ({ offset: required(size), ...kinds })))
const parts = list(part)

/** Exactly one kind of content. */
function single(pieces: Codec<Piece>): Codec<Piece> {
  return {
    parse(json, path, problems) {
      const piece = pieces.parse(json, path, problems)
      const given = Object.keys(kinds).filter((kind) => isObject(json) && json[kind] !== undefined)
      const expected = `expected one of ${Object.keys(kinds).join(', ')}`
      return given.length === 1 ? piece : complain(problems, path, expected)
    },
    print: pieces.print,
  }
}

export const content: Codec<Content> = {
  parse(json, path, problems) {
    if (!Array.isArray(json)) {
      const piece = whole.parse(json, path, problems)
      return piece && pieceContent(piece)
    }
    return parts.parse(json, path, problems)?.map(
      (piece): ContentPart => ({
        offset: piece?.offset ?? 0n,
        content: piece ? pieceContent(piece) : new Uint8Array(),
      }),
    )
  },
  print(value) {
    if (isPlain(value)) return whole.print(printed(value))
    return parts.print(value.map(({ offset, content: piece }) => ({ offset, ...printed(piece) })))
  },
}

function isPlain(value: Content): value is PlainContent {
  return !Array.isArray(value)
}

function pieceContent(piece: Piece): PlainContent {
  return piece.pattern ?? piece.words ?? piece.repeated ?? piece.hex ?? textBytes(piece.text ?? '')
}

function printed(value: PlainContent): Piece {
  if (value instanceof Uint8Array) return { hex: value }
  if ('seed' in value) return { pattern: value }
  return 'word' in value ? { words: value } : { repeated: value }
}
