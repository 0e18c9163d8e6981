/**
 * The sum by which contents are compared with what a guest got back: FNV-1a of 64 bits over little-endian
 * words of 64 bits, the last one filled up with zeros. In halves of 32 bits, as fast as memory is read.
 */

const BASIS = 14_695_981_039_346_656_037n
/** The prime is 2^40 + 0x1b3. */
const PRIME_LOW = 0x1b3
const PRIME_SHIFT = 40 - 32
const WORD = 8

export class WordSum {
  #high = Number(BASIS >> 32n)
  #low = Number(BASIS & 0xffff_ffffn)

  /** Takes the next bytes; only the last piece may end inside of a word. */
  add(bytes: Uint8Array): void {
    const whole = bytes.length - (bytes.length % WORD)
    const view = new DataView(bytes.buffer, bytes.byteOffset, whole)
    for (let at = 0; at < whole; at += WORD)
      this.#word(view.getUint32(at, true), view.getUint32(at + 4, true))
    if (whole === bytes.length) return
    const last = new Uint8Array(WORD)
    last.set(bytes.subarray(whole))
    this.add(last)
  }

  get value(): bigint {
    return (BigInt(this.#high) << 32n) | BigInt(this.#low)
  }

  #word(low: number, high: number): void {
    const mixedLow = (this.#low ^ low) >>> 0
    const mixedHigh = (this.#high ^ high) >>> 0
    const product = mixedLow * PRIME_LOW
    const carry = Math.floor(product / 0x1_0000_0000)
    this.#low = product >>> 0
    this.#high = (Math.imul(mixedHigh, PRIME_LOW) + carry + (mixedLow << PRIME_SHIFT)) >>> 0
  }
}

export function wordSum(bytes: Uint8Array): bigint {
  const sum = new WordSum()
  sum.add(bytes)
  return sum.value
}
