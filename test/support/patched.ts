/** Physical memory with changes: bytes written over what an image holds, pages taken out of it. */
import type { FilePosition, PhysAddr, PhysicalMemory, PhysRange, Presence } from '../../abi/memory.ts'
import { phys } from '../../abi/memory.ts'

const PAGE = 4096
const ADDRESS_SPACE = 1n << 64n

/** Memory without a byte, to write a handover into. */
export const nothing: PhysicalMemory = {
  ranges: [],
  read: () => 0,
  presence: () => ({ state: 'hole', until: ADDRESS_SPACE }),
  filePosition: () => undefined,
}

/** A view of another memory. A page that is written to becomes present; one that is removed is excluded. */
export class PatchedMemory implements PhysicalMemory {
  readonly #base: PhysicalMemory
  /** Pages that differ, by page number; undefined for removed ones. */
  readonly #pages = new Map<bigint, Uint8Array | undefined>()
  #numbers: bigint[] | undefined

  constructor(base: PhysicalMemory) {
    this.#base = base
  }

  get ranges(): readonly PhysRange[] {
    const written = this.#sorted().map((number) => {
      const start = number * BigInt(PAGE)
      return { start: phys(start), end: start + BigInt(PAGE) }
    })
    const ranges: PhysRange[] = []
    for (const range of [...this.#base.ranges, ...written].sort((a, b) => (a.start < b.start ? -1 : 1))) {
      const last = ranges.at(-1)
      if (!last || range.start > last.end) ranges.push(range)
      else if (range.end > last.end) ranges[ranges.length - 1] = { start: last.start, end: range.end }
    }
    return ranges
  }

  write(pa: bigint, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const offset = Number((pa + BigInt(done)) % BigInt(PAGE))
      const length = Math.min(bytes.length - done, PAGE - offset)
      this.#page(pa + BigInt(done)).set(bytes.subarray(done, done + length), offset)
      done += length
    }
  }

  writeU64(pa: bigint, value: bigint): void {
    const bytes = new Uint8Array(8)
    new DataView(bytes.buffer).setBigUint64(0, value, true)
    this.write(pa, bytes)
  }

  /** Takes the pages out that hold these bytes. */
  remove(pa: bigint, length: number): void {
    for (let number = pa / BigInt(PAGE); number * BigInt(PAGE) < pa + BigInt(length); number++) {
      this.#pages.set(number, undefined)
      this.#numbers = undefined
    }
  }

  /** The 64-bit word at an address, or a throw where there is none: a mistake of the test. */
  u64(pa: bigint): bigint {
    const bytes = new Uint8Array(8)
    if (this.read(phys(pa), bytes) < 8) throw new Error(`no memory at 0x${pa.toString(16)}`)
    return new DataView(bytes.buffer).getBigUint64(0, true)
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    for (let done = 0; done < out.length; ) {
      const at = pa + BigInt(done)
      const number = at / BigInt(PAGE)
      const offset = Number(at % BigInt(PAGE))
      const length = Math.min(out.length - done, PAGE - offset)
      const part = out.subarray(done, done + length)
      const page = this.#pages.get(number)
      if (page) part.set(page.subarray(offset, offset + length))
      else if (at >= ADDRESS_SPACE || this.#pages.has(number)) return done
      else {
        const got = this.#base.read(phys(at), part)
        if (got < length) return done + got
      }
      done += length
    }
    return out.length
  }

  presence(pa: PhysAddr): { state: Presence; until: bigint; reason?: string } {
    const number = pa / BigInt(PAGE)
    if (this.#pages.has(number)) {
      const state = this.#pages.get(number) ? 'present' : 'excluded'
      return { state, until: (number + 1n) * BigInt(PAGE) }
    }
    const below = this.#base.presence(pa)
    const next = this.#sorted().find((candidate) => candidate > number)
    const limit = next === undefined ? ADDRESS_SPACE : next * BigInt(PAGE)
    return { ...below, until: below.until < limit ? below.until : limit }
  }

  filePosition(pa: PhysAddr): FilePosition | undefined {
    return this.#pages.has(pa / BigInt(PAGE)) ? undefined : this.#base.filePosition(pa)
  }

  #sorted(): readonly bigint[] {
    this.#numbers ??= [...this.#pages.keys()].sort((a, b) => (a < b ? -1 : 1))
    return this.#numbers
  }

  #page(pa: bigint): Uint8Array {
    const number = pa / BigInt(PAGE)
    const known = this.#pages.get(number)
    if (known) return known
    const page = new Uint8Array(PAGE)
    if (!this.#pages.has(number)) this.#base.read(phys(number * BigInt(PAGE)), page)
    this.#pages.set(number, page)
    this.#numbers = undefined
    return page
  }
}
