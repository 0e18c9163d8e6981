/**
 * Bitmaps of page frames in a file, too large to be held: bits are read when asked for, and only the
 * number of set bits before each chunk is kept, for ranks and for skipping what is all set or all clear.
 */
import { type ByteSource, readSource } from './image-source.ts'

const CHUNK_BYTES = 4096
const CHUNK_BITS = CHUNK_BYTES * 8
const SCAN_CHUNKS = 256
const CACHED_CHUNKS = 16

export class FrameBitmap {
  /** Bits beyond are clear. */
  readonly length: number
  readonly #source: ByteSource
  readonly #offset: number
  /** Set bits before chunk i; the last element is the total. */
  readonly #before: Float64Array
  readonly #chunks = new Map<number, Uint8Array>()
  /** The rank asked for last. */
  #ranked = { bit: 0, rank: 0 }

  private constructor(source: ByteSource, offset: number, length: number) {
    this.#source = source
    this.#offset = offset
    this.length = length
    this.#before = new Float64Array(Math.ceil(length / CHUNK_BITS) + 1)
  }

  /** Counts through `length` bits at `offset`, bit 0 lowest; undefined where the source does not hold them. */
  static open(source: ByteSource, offset: number, length: number): FrameBitmap | undefined {
    const bytes = Math.ceil(length / 8)
    // Before anything is allocated by what a header says.
    if (source.read(offset + bytes - 1, new Uint8Array(1)) !== 1) return undefined
    const bitmap = new FrameBitmap(source, offset, length)
    return bitmap.#count(bytes) ? bitmap : undefined
  }

  #count(bytes: number): boolean {
    const buffer = new Uint8Array(
      Math.min(SCAN_CHUNKS * CHUNK_BYTES, Math.ceil(bytes / CHUNK_BYTES) * CHUNK_BYTES),
    )
    let total = 0
    let chunk = 0
    for (let at = 0; at < bytes; at += buffer.length) {
      const want = Math.min(buffer.length, bytes - at)
      if (this.#source.read(this.#offset + at, buffer.subarray(0, want)) !== want) return false
      buffer.fill(0, want)
      clearFrom(buffer, this.length - at * 8)
      for (let inside = 0; inside < want; inside += CHUNK_BYTES) {
        total += countBits(buffer.subarray(inside, inside + CHUNK_BYTES))
        chunk += 1
        this.#before[chunk] = total
      }
    }
    return true
  }

  has(bit: number): boolean {
    if (bit >= this.length) return false
    const within = bit % CHUNK_BITS
    return (((this.#chunk((bit - within) / CHUNK_BITS)[within >> 3] as number) >> (within & 7)) & 1) === 1
  }

  /** Set bits below `bit`. Frames are mostly asked for in ascending order. */
  rank(bit: number): number {
    const at = Math.min(bit, this.length)
    if (at === this.#ranked.bit + 1) {
      this.#ranked = { bit: at, rank: this.#ranked.rank + (this.has(at - 1) ? 1 : 0) }
    } else if (at !== this.#ranked.bit) {
      this.#ranked = { bit: at, rank: this.#countBelow(at) }
    }
    return this.#ranked.rank
  }

  #countBelow(bit: number): number {
    const within = bit % CHUNK_BITS
    const index = (bit - within) / CHUNK_BITS
    const before = this.#before[index] as number
    if (within === 0) return before
    const head = this.#chunk(index).slice(0, Math.ceil(within / 32) * 4)
    clearFrom(head, within)
    return before + countBits(head)
  }

  /** Where the run of equal bits that `bit` belongs to ends; `length` if it goes on to the end. */
  runEnd(bit: number): number {
    const set = this.has(bit)
    for (let at = bit; at < this.length; ) {
      const within = at % CHUNK_BITS
      const index = (at - within) / CHUNK_BITS
      const inChunk = (this.#before[index + 1] as number) - (this.#before[index] as number)
      if (inChunk === (set ? CHUNK_BITS : 0)) {
        at += CHUNK_BITS - within
        continue
      }
      const end = runInChunk(this.#chunk(index), within, set)
      if (end < CHUNK_BITS) return Math.min(at - within + end, this.length)
      at += CHUNK_BITS - within
    }
    return this.length
  }

  /** A chunk that can no longer be read is all clear: its pages are then not there. */
  #chunk(index: number): Uint8Array {
    const known = this.#chunks.get(index)
    if (known) return known
    const bytes = Math.min(CHUNK_BYTES, Math.ceil((this.length - index * CHUNK_BITS) / 8))
    const chunk = new Uint8Array(CHUNK_BYTES)
    chunk.set(readSource(this.#source, this.#offset + index * CHUNK_BYTES, bytes) ?? [])
    clearFrom(chunk, this.length - index * CHUNK_BITS)
    const oldest = this.#chunks.keys().next()
    if (this.#chunks.size >= CACHED_CHUNKS && !oldest.done) this.#chunks.delete(oldest.value)
    this.#chunks.set(index, chunk)
    return chunk
  }
}

function runInChunk(chunk: Uint8Array, from: number, set: boolean): number {
  const whole = set ? 0xff : 0
  let bit = from
  while (bit < CHUNK_BITS) {
    const byte = chunk[bit >> 3] as number
    if ((bit & 7) === 0 && byte === whole) bit += 8
    else if (((byte >> (bit & 7)) & 1) === (set ? 1 : 0)) bit += 1
    else return bit
  }
  return CHUNK_BITS
}

function clearFrom(bytes: Uint8Array, bit: number): void {
  if (bit >= bytes.length * 8) return
  const index = bit >> 3
  bytes[index] = (bytes[index] as number) & ((1 << (bit & 7)) - 1)
  bytes.fill(0, index + 1)
}

/** Set bits of a whole number of 32-bit words. */
function countBits(bytes: Uint8Array): number {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
  let count = 0
  for (const word of words) {
    if (word === 0) continue
    let bits = word - ((word >>> 1) & 0x5555_5555)
    bits = (bits & 0x3333_3333) + ((bits >>> 2) & 0x3333_3333)
    count += Math.imul((bits + (bits >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24
  }
  return count
}
