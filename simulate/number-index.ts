/**
 * Numbers in the order in which they came, found again by hash, in columns: for millions of them a Map
 * takes several times the room, and has none for more than 2^24.
 */

const FREE = -1

export class NumberIndex {
  /** By hash, the next free place if that one is taken; never more than half full. */
  #places = new Int32Array(1024).fill(FREE)
  #values = new Float64Array(512)
  #size = 0

  get size(): number {
    return this.#size
  }

  /** How many came before; -1 if it never came. Values are whole numbers below 2^53. */
  find(value: number): number {
    return this.#places[this.#placeOf(value)] as number
  }

  /** The same, for one that did not come yet. */
  add(value: number): number {
    if (this.#size === this.#values.length) this.#grow()
    this.#values[this.#size] = value
    this.#places[this.#placeOf(value)] = this.#size
    return this.#size++
  }

  /** A copy. */
  values(): Float64Array {
    return this.#values.slice(0, this.#size)
  }

  /** Where a value is listed, or is to be. */
  #placeOf(value: number): number {
    const mask = this.#places.length - 1
    let place = hash(value) & mask
    for (;;) {
      const index = this.#places[place] as number
      if (index === FREE || this.#values[index] === value) return place
      place = (place + 1) & mask
    }
  }

  #grow(): void {
    const values = this.#values
    this.#values = new Float64Array(2 * values.length)
    this.#values.set(values)
    this.#places = new Int32Array(2 * this.#places.length).fill(FREE)
    for (const [index, value] of values.entries()) this.#places[this.#placeOf(value)] = index
  }
}

/** Spreads the values of any step over all bits: the finalizer of MurmurHash3. */
function hash(value: number): number {
  let bits = (value >>> 0) ^ Math.imul(Math.floor(value / 2 ** 32), 0x9e3779b1)
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return bits ^ (bits >>> 16)
}
