/** Memory whose pages are computed when they are read: images far larger than any file, in no space. */
import { type PhysAddr, type PhysicalMemory, type Presence, phys } from '../../abi/memory.ts'

const PAGE = 4096
const ADDRESS_SPACE = 1n << 64n

export class GeneratedMemory implements PhysicalMemory {
  readonly ranges
  readonly #pageAt: (number: number) => Uint8Array
  readonly #start: bigint
  readonly #end: bigint

  /** Pages of 4 KiB from `start` to `end`, by their number from there. */
  constructor(start: bigint, pageAt: (number: number) => Uint8Array, end: bigint = ADDRESS_SPACE) {
    this.#start = start
    this.#end = end
    this.#pageAt = pageAt
    this.ranges = [{ start: phys(start), end }]
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    if (pa < this.#start || pa >= this.#end) return 0
    if (pa + BigInt(out.length) > this.#end) return this.read(pa, out.subarray(0, Number(this.#end - pa)))
    const skip = Number(pa % BigInt(PAGE))
    const first = Number((pa - this.#start) / BigInt(PAGE))
    for (let done = 0; done < out.length; ) {
      const offset = (skip + done) % PAGE
      const page = this.#pageAt(first + Math.floor((skip + done) / PAGE))
      const part = page.subarray(offset, offset + out.length - done)
      out.set(part, done)
      done += part.length
    }
    return out.length
  }

  presence(pa: PhysAddr): { readonly state: Presence; readonly until: bigint } {
    if (pa < this.#start) return { state: 'hole', until: this.#start }
    return pa < this.#end ? { state: 'present', until: this.#end } : { state: 'hole', until: ADDRESS_SPACE }
  }

  filePosition(): undefined {
    return undefined
  }
}

/** A page of 64-bit words; `put` takes them as plain numbers, which is all that addresses here need. */
export function wordPage(fill: (put: (index: number, value: number) => void) => void): Uint8Array {
  const words = new Uint32Array(PAGE / 4)
  fill((index, value) => {
    words[index * 2] = value % 2 ** 32
    words[index * 2 + 1] = Math.floor(value / 2 ** 32)
  })
  return new Uint8Array(words.buffer)
}
