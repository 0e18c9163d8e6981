/**
 * What memory and files hold: bytes, or a sequence that is computed where it is read.
 */
import type { Content, Pattern, Repeated, Words } from './handover.ts'

/** Bytes by their offset from the start of the whole. */
export interface ContentSource {
  readonly length: bigint
  /** Where between two offsets it can be other than zero, as far as leaving out the rest saves something. */
  readonly parts: (from: bigint, to: bigint) => Iterable<Part>
  /** Writes the bytes from `offset` on over `out`; what the content does not say is left as it is. */
  readonly fill: (offset: bigint, out: Uint8Array) => void
}

/** From one offset to another. */
export interface Part {
  readonly start: bigint
  readonly end: bigint
}

export function contentSource(content: Content): ContentSource {
  if (content instanceof Uint8Array) return bytesSource(content)
  if ('seed' in content) return patternSource(content)
  if ('word' in content) return wordsSource(content)
  if ('byte' in content) return repeatedSource(content)
  const parts = content.map((part) => ({ offset: part.offset, source: contentSource(part.content) }))
  return {
    length: parts.reduce((end, { offset, source }) => largest(end, offset + source.length), 0n),
    *parts(from, to) {
      for (const { offset, source } of parts) {
        const inPiece = source.parts(largest(from - offset, 0n), to - offset)
        for (const { start, end } of inPiece) yield { start: offset + start, end: offset + end }
      }
    },
    fill: (offset, out) => {
      for (const part of parts) {
        const from = largest(offset, part.offset)
        const to = smallest(offset + BigInt(out.length), part.offset + part.source.length)
        if (from >= to) continue
        part.source.fill(from - part.offset, out.subarray(Number(from - offset), Number(to - offset)))
      }
    },
  }
}

/** Periodic contents with periods above this are worth being told apart from the zeros between. */
const DENSE_PERIOD = 16 * 1024

/** Where a whole of `length` bytes lies between two offsets. */
function* wholePart(length: bigint, from: bigint, to: bigint): Generator<Part> {
  const end = smallest(to, length)
  if (from < end) yield { start: from, end }
}

/** `run` bytes at each multiple of `every`. */
function* periodicParts(
  every: number,
  run: number,
  length: bigint,
  from: bigint,
  to: bigint,
): Generator<Part> {
  if (every <= DENSE_PERIOD || run * 2 > every) {
    yield* wholePart(length, from, to)
    return
  }
  const end = smallest(to, length)
  for (let base = from - (from % BigInt(every)); base < end; base += BigInt(every)) {
    const part = { start: largest(base, from), end: smallest(base + BigInt(run), end) }
    if (part.start < part.end) yield part
  }
}

function bytesSource(bytes: Uint8Array): ContentSource {
  return {
    length: BigInt(bytes.length),
    parts: (from, to) => wholePart(BigInt(bytes.length), from, to),
    fill: (offset, out) => {
      if (offset < BigInt(bytes.length)) {
        out.set(bytes.subarray(Number(offset), Number(offset) + out.length))
      }
    },
  }
}

function patternSource({ seed, every, run, length }: Pattern): ContentSource {
  let sequence: Sequence | undefined
  return {
    length,
    parts: (from, to) => periodicParts(every, run, length, from, to),
    fill: (offset, out) => {
      const end = smallest(offset + BigInt(out.length), length)
      const period = BigInt(every)
      for (let base = offset - (offset % period); base < end; base += period) {
        const from = largest(base, offset)
        const to = smallest(base + BigInt(Math.min(run, every)), end)
        if (from >= to) continue
        if (sequence?.base !== base || sequence.position > from) sequence = new Sequence(seed, base)
        sequence.skipTo(from)
        sequence.write(out.subarray(Number(from - offset), Number(to - offset)))
      }
    },
  }
}

const WORD_BYTES = 8

function wordsSource({ word, every, length }: Words): ContentSource {
  const bytes = new Uint8Array(WORD_BYTES)
  const view = new DataView(bytes.buffer)
  const period = BigInt(every)
  return {
    length,
    parts: (from, to) => periodicParts(every, WORD_BYTES, length, from, to),
    fill: (offset, out) => {
      const end = smallest(offset + BigInt(out.length), length)
      for (let base = offset - (offset % period); base < end; base += period) {
        const from = largest(base, offset)
        const to = smallest(base + BigInt(Math.min(WORD_BYTES, every)), end)
        if (from >= to) continue
        view.setBigUint64(0, BigInt.asUintN(64, word + base), true)
        out.set(bytes.subarray(Number(from - base), Number(to - base)), Number(from - offset))
      }
    },
  }
}

function repeatedSource({ byte, length }: Repeated): ContentSource {
  return {
    length,
    parts: (from, to) => (byte === 0 ? [] : wholePart(length, from, to)),
    fill: (offset, out) => {
      if (offset < length) out.fill(byte, 0, Number(smallest(BigInt(out.length), length - offset)))
    },
  }
}

/** xorshift64 with shifts 13, 7, 17, in two halves of 32 bits; one byte a step. */
class Sequence {
  readonly base: bigint
  position: bigint
  #high: number
  #low: number

  constructor(seed: bigint, base: bigint) {
    const state = BigInt.asUintN(64, (seed + base) * 0x9e37_79b9_7f4a_7c15n + 1n)
    this.base = base
    this.position = base
    this.#high = Number(state >> 32n)
    this.#low = Number(state & 0xffff_ffffn)
  }

  skipTo(position: bigint): void {
    for (; this.position < position; this.position++) this.#step()
  }

  write(out: Uint8Array): void {
    for (let at = 0; at < out.length; at++) out[at] = this.#step()
    this.position += BigInt(out.length)
  }

  #step(): number {
    let high = this.#high ^ ((this.#high << 13) | (this.#low >>> 19))
    let low = this.#low ^ (this.#low << 13)
    const right = (low >>> 7) | (high << 25)
    high ^= high >>> 7
    low ^= right
    const left = (high << 17) | (low >>> 15)
    low ^= low << 17
    high ^= left
    this.#high = high
    this.#low = low
    return low & 0xff
  }
}

function largest(one: bigint, other: bigint): bigint {
  return one > other ? one : other
}

function smallest(one: bigint, other: bigint): bigint {
  return one < other ? one : other
}
