/**
 * Decoders for the compressed pages of kdump files that neither Node nor a package provides in a form
 * that is safe on damaged input: LZO1X and Snappy. Every length and distance is checked; a decoder
 * returns undefined unless the data is well-formed and fills `out` exactly.
 *
 * Sources: Documentation/staging/lzo.rst (the stream as lib/lzo understands it); Snappy's
 * format_description.txt.
 */

/** Bytes still to be read, with what has been written. Any overrun makes it `failed`, for good. */
class Cursor {
  readonly #input: Uint8Array
  readonly #out: Uint8Array
  #at = 0
  #filled = 0
  failed = false

  constructor(input: Uint8Array, out: Uint8Array) {
    this.#input = input
    this.#out = out
  }

  get atEnd(): boolean {
    return this.#at >= this.#input.length
  }

  /** All input used, all output written, nothing went wrong. */
  get complete(): boolean {
    return !this.failed && this.#at === this.#input.length && this.#filled === this.#out.length
  }

  byte(): number {
    const value = this.#input[this.#at]
    this.#at += 1
    if (value !== undefined) return value
    this.failed = true
    return 0
  }

  /** Little-endian, of 1 to 4 bytes, never negative. */
  word(bytes: number): number {
    let value = 0
    for (let index = 0; index < bytes; index += 1) value += this.byte() * 2 ** (8 * index)
    return value
  }

  copyLiteral(length: number): void {
    if (length > this.#input.length - this.#at || length > this.#out.length - this.#filled) {
      this.failed = true
      return
    }
    this.#out.set(this.#input.subarray(this.#at, this.#at + length), this.#filled)
    this.#at += length
    this.#filled += length
  }

  /** Repeats what was written `distance` bytes ago; source and target may overlap. */
  copyMatch(distance: number, length: number): void {
    const from = this.#filled - distance
    if (distance <= 0 || from < 0 || length > this.#out.length - this.#filled) {
      this.failed = true
      return
    }
    const out = this.#out
    for (let to = this.#filled, end = to + length; to < end; to += 1) out[to] = out[to - distance] as number
    this.#filled += length
  }
}

/** What the instruction before copied, which decides what an instruction below 16 means. */
const AFTER_LONG_LITERAL = 4

/** Decompresses an LZO1X stream as lzo1x_1_compress() writes it; whether it filled `out`. */
export function decodeLzo(input: Uint8Array, out: Uint8Array): boolean {
  const cursor = new Cursor(input, out)
  let state = 0
  const first = input[0] ?? 0
  if (first > 17) {
    cursor.byte()
    cursor.copyLiteral(first - 17)
    state = Math.min(first - 17, AFTER_LONG_LITERAL)
  }
  while (!cursor.failed) {
    const code = cursor.byte()
    if (code < 16 && state === 0) {
      cursor.copyLiteral(3 + longLength(cursor, code, 15))
      state = AFTER_LONG_LITERAL
      continue
    }
    const match = readMatch(cursor, code, state)
    if (match.distance === 0) return match.length === 3 && cursor.complete
    cursor.copyMatch(match.distance, match.length)
    cursor.copyLiteral(match.literals)
    state = match.literals
  }
  return false
}

/** Distance 0 ends the stream. */
function readMatch(
  cursor: Cursor,
  code: number,
  state: number,
): { distance: number; length: number; literals: number } {
  if (code < 16) {
    const near = ((cursor.byte() << 2) | (code >> 2)) + 1
    const far = state === AFTER_LONG_LITERAL
    return { distance: far ? near + 2048 : near, length: far ? 3 : 2, literals: code & 3 }
  }
  if (code >= 64) {
    const distance = ((cursor.byte() << 3) | ((code >> 2) & 7)) + 1
    return { distance, length: (code >> 5) + 1, literals: code & 3 }
  }
  const mask = code >= 32 ? 31 : 7
  const length = 2 + longLength(cursor, code & mask, mask)
  const word = cursor.word(2)
  if (code >= 32) return { distance: (word >> 2) + 1, length, literals: word & 3 }
  const distance = ((code & 8) << 11) + (word >> 2)
  return { distance: distance === 0 ? 0 : distance + 0x4000, length, literals: word & 3 }
}

/** A length of 0 means `base` more than the sum of the bytes up to the first that is not zero. */
function longLength(cursor: Cursor, short: number, base: number): number {
  if (short > 0) return short
  let length = base
  for (;;) {
    const byte = cursor.byte()
    if (byte > 0 || cursor.failed) return length + byte
    length += 255
  }
}

/** Decompresses a raw Snappy block; whether it filled `out`. */
export function decodeSnappy(input: Uint8Array, out: Uint8Array): boolean {
  const cursor = new Cursor(input, out)
  if (readVarint(cursor) !== out.length) return false
  while (!cursor.failed && !cursor.atEnd) {
    const tag = cursor.byte()
    const high = tag >> 2
    switch (tag & 3) {
      case 0:
        cursor.copyLiteral(1 + (high < 60 ? high : cursor.word(high - 59)))
        break
      case 1:
        cursor.copyMatch(((tag >> 5) << 8) | cursor.byte(), 4 + (high & 7))
        break
      case 2:
        cursor.copyMatch(cursor.word(2), 1 + high)
        break
      default:
        cursor.copyMatch(cursor.word(4), 1 + high)
    }
  }
  return cursor.complete
}

/** Seven bits a byte, lowest first, at most 32 bits. */
function readVarint(cursor: Cursor): number {
  let value = 0
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = cursor.byte()
    value += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) break
  }
  return value
}
