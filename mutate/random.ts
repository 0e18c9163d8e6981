/** Chance that repeats itself: the same seed gives the same choices on every machine. */

export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** A whole number from 0 to `below` - 1. */
  below(below: number): number {
    return Math.floor((this.#next() / 2 ** 32) * below)
  }

  /** A 64-bit word. */
  word(): bigint {
    return (BigInt(this.#next()) << 32n) | BigInt(this.#next())
  }

  /** One of several; undefined of none. */
  pick<T>(from: readonly T[]): T | undefined {
    return from[this.below(from.length)]
  }

  /** mulberry32, by Tommy Ettinger: one word of state, and every seed is a good one. */
  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
}
