/**
 * Physical memory of a simulated machine: RAM ranges, pages that appear when they are written, over what
 * an earlier kernel or an image left. It outlives kernels: a kexec freezes it, and the next kernel writes
 * into a layer of its own, so that several kernels can take over from one.
 */
import { type AddressSpace, addressSpace, reachedThroughMap } from '../abi/address-space.ts'
import { firstIndex } from '../abi/bisect.ts'
import type { PageSize } from '../abi/layout.ts'
import type { Architecture } from '../abi/machine.ts'
import { hex, type PhysAddr, type PhysicalMemory, type PhysRange, phys } from '../abi/memory.ts'
import { type FrameRange, FrameRanges } from '../encode/frame-ranges.ts'
import type { Ram } from './core.ts'
import { WildAccess } from './crash.ts'

/** RAM of one NUMA node, in whole pages. */
export interface RamRange extends PhysRange {
  readonly node: number
}

/** A page that was written, or null for one of zeros over a page of the image. */
type Page = Uint8Array | null

export class MachineRam implements Ram {
  readonly pageSize: PageSize
  /** Where kernels on this machine map it. */
  readonly space: AddressSpace
  /** Sorted and disjoint. */
  readonly ranges: readonly RamRange[]
  /** What lies below everything: an image. RAM that it does not hold reads as zeros. */
  readonly image: PhysicalMemory | undefined
  readonly #starts: Float64Array
  readonly #ends: Float64Array
  #own = new Map<number, Page>()
  #frozen: ReadonlyMap<number, Page>
  /** Range of the last access; most follow each other. */
  #last = 0

  constructor(
    arch: Architecture,
    pageSize: PageSize,
    ranges: readonly RamRange[],
    image?: PhysicalMemory,
    frozen: ReadonlyMap<number, Page> = new Map(),
  ) {
    this.pageSize = pageSize
    this.ranges = [...ranges].sort((a, b) => Number(a.start - b.start))
    this.space = addressSpace(arch, pageSize, this.ranges[0]?.start ?? 0n)
    this.image = image
    this.#frozen = frozen
    this.#starts = Float64Array.from(this.ranges, ({ start }) => Number(start))
    this.#ends = Float64Array.from(this.ranges, ({ end }) => Number(end))
  }

  /** Whether there is no node but one. */
  get hasOneNode(): boolean {
    return this.ranges.every(({ node }) => node === this.ranges[0]?.node)
  }

  contains(pa: PhysAddr, length: number): boolean {
    const start = Number(pa)
    if (this.#holds(this.#last, start, length)) return true
    const index = firstIndex(this.#ends.length, (at) => (this.#ends[at] as number) > start)
    if (!this.#holds(index, start, length)) return false
    this.#last = index
    return true
  }

  physToVirt(pa: bigint): PhysAddr {
    return phys(reachedThroughMap(this.space, pa))
  }

  /** Node of the page that starts at `pa`; undefined outside RAM. */
  nodeOf(pa: PhysAddr): number | undefined {
    return this.contains(pa, 1) ? this.ranges[this.#last]?.node : undefined
  }

  read(pa: PhysAddr, length: number, first = 0): Uint8Array {
    const out = new Uint8Array(length)
    this.#check(pa, length, first, false)
    for (let done = 0; done < length; ) {
      const at = Number(pa) + done
      const offset = at % this.pageSize
      const step = Math.min(length - done, this.pageSize - offset)
      const page = this.#page(Math.floor(at / this.pageSize))
      if (page) out.set(page.subarray(offset, offset + step), done)
      done += step
    }
    return out
  }

  write(pa: PhysAddr, bytes: Uint8Array): void {
    this.#check(pa, bytes.length, 0, true)
    for (let done = 0; done < bytes.length; ) {
      const at = Number(pa) + done
      const offset = at % this.pageSize
      const step = Math.min(bytes.length - done, this.pageSize - offset)
      this.#writable(Math.floor(at / this.pageSize)).set(bytes.subarray(done, done + step), offset)
      done += step
    }
  }

  /** The page that holds `pa`, to be written in place. Only good until the next kexec. */
  page(pa: PhysAddr): Uint8Array {
    this.#check(pa, 1, 0, false)
    return this.#writable(Math.floor(Number(pa) / this.pageSize))
  }

  clear(pa: PhysAddr, length: number): void {
    this.#check(pa, length, 0, true)
    const first = Math.floor(Number(pa) / this.pageSize)
    const end = first + Math.ceil(length / this.pageSize)
    for (let frame = first; frame < end; frame++) {
      if (this.#frozen.get(frame) || this.#inImage(frame)) this.#own.set(frame, null)
      else this.#own.delete(frame)
    }
  }

  /** Pages that take room: were written, or zeroed over an image. */
  get pagesWritten(): number {
    return new Set([...this.#frozen.keys(), ...this.#own.keys()]).size
  }

  /** The same memory for another kernel; neither sees what the other writes from now on. */
  fork(): MachineRam {
    if (this.#own.size > 0) this.#frozen = new Map([...this.#frozen, ...this.#own])
    this.#own = new Map()
    return new MachineRam(this.space.arch, this.pageSize, this.ranges, this.image, this.#frozen)
  }

  /** Pages that may hold something else than zeros, sorted and merged. */
  extents(): readonly PhysRange[] {
    const frames = new FrameRanges()
    const size = BigInt(this.pageSize)
    for (const { start, end } of this.image?.ranges ?? []) {
      frames.add(Number(start / size), Number((end + size - 1n) / size))
    }
    for (const frame of this.#frozen.keys()) frames.add(frame, frame + 1)
    for (const frame of this.#own.keys()) frames.add(frame, frame + 1)
    return this.rangesOf(frames.merged())
  }

  rangesOf(spans: Iterable<FrameRange>): readonly PhysRange[] {
    return Array.from(spans, (range) => this.rangeOf(range))
  }

  rangeOf({ start, end }: FrameRange): PhysRange {
    return { start: phys(BigInt(start) * BigInt(this.pageSize)), end: BigInt(end) * BigInt(this.pageSize) }
  }

  #holds(index: number, start: number, length: number): boolean {
    const [from, to] = [this.#starts[index], this.#ends[index]]
    return from !== undefined && to !== undefined && from <= start && start + length <= to
  }

  /** Outside RAM the access at `first` bytes dies of it, or the one that leaves the range. */
  #check(pa: PhysAddr, length: number, first: number, isWrite: boolean): void {
    if (this.contains(pa, length)) return
    const range = this.ranges.find(({ start, end }) => start <= pa && pa < end)
    const wild = range ? phys(range.end) : phys(pa + BigInt(first))
    throw new WildAccess(`no RAM at ${hex(wild)}`, { to: 'memory', pa: wild }, isWrite)
  }

  #page(frame: number): Page | undefined {
    const own = this.#own.get(frame)
    if (own !== undefined) return own
    const frozen = this.#frozen.get(frame)
    if (frozen !== undefined) return frozen
    return this.#inImage(frame) ? this.#fromImage(frame) : undefined
  }

  #writable(frame: number): Uint8Array {
    const own = this.#own.get(frame)
    if (own) return own
    const below = own === null ? undefined : this.#page(frame)
    const page = below ? below.slice() : new Uint8Array(this.pageSize)
    this.#own.set(frame, page)
    return page
  }

  #inImage(frame: number): boolean {
    if (!this.image) return false
    const { state, until } = this.image.presence(phys(frame * this.pageSize))
    return state === 'present' || until < BigInt((frame + 1) * this.pageSize)
  }

  #fromImage(frame: number): Uint8Array {
    const page = new Uint8Array(this.pageSize)
    this.image?.read(phys(frame * this.pageSize), page)
    return page
  }
}
