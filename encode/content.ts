/**
 * What memory and files hold: bytes, or a sequence that is computed where it is read.
 */
import type { Content, Pattern } from './handover.ts'

/** Bytes by their offset from the start of the whole. */
export interface ContentSource {
  readonly length: bigint
  /** Writes the bytes from `offset` on over `out`; what the content does not say is left as it is. */
  readonly fill: (offset: bigint, out: Uint8Array) => void
}

export function contentSource(content: Content): ContentSource {
  if (content instanceof Uint8Array) return bytesSource(content)
  if ('seed' in content) return patternSource(content)
  const parts = content.map((part) => ({ offset: part.offset, source: contentSource(part.content) }))
  return {
    length: parts.reduce((end, { offset, source }) => largest(end, offset + source.length), 0n),
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

function bytesSource(bytes: Uint8Array): ContentSource {
  return {
    length: BigInt(bytes.length),
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
