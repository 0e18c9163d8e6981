/**
 * The site of a handover: its memory, what is preserved in it, and where new objects may stand.
 *
 * A document is written in two passes over the same code. The survey writes nothing; it takes the
 * addresses that the document gives out of the allocator's reach. Then every object gets its place.
 */
import { formatPath, invariant, type Path } from '../abi/fault.ts'
import type { PageSize, Target } from '../abi/layout.ts'
import { hex, type PhysAddr, type PhysRange, phys } from '../abi/memory.ts'
import { type PageFill, SparseMemory } from './memory.ts'
import { PageAllocator } from './page-allocator.ts'
import { RunTable } from './runs.ts'
import { neighbourRuns, pushUnits, splitPages, type UnitRun, type UnitTable, unitBytes } from './units.ts'
import type { EncodeProblem } from './write.ts'

export interface SiteOptions {
  readonly pageSize: PageSize
  /** Without it nothing can be placed, and RAM is what is written. */
  readonly ram: readonly PhysRange[] | undefined
  /** Where no object may be placed: scratch areas, firmware. */
  readonly reserved: readonly PhysRange[]
}

export class Site {
  readonly target: Target
  readonly memory: SparseMemory
  readonly problems: EncodeProblem[] = []
  /** Units of all objects. */
  readonly preserved: UnitTable = new RunTable(['start'])
  /** Of these, the units that the document does not give an address, and ranges of their own. */
  readonly placed: UnitTable = new RunTable(['start'])
  readonly #allocator: PageAllocator
  readonly #pageSize: PageSize
  readonly #fills: { readonly range: PhysRange; readonly fill: PageFill }[] = []
  #surveying = true
  #piece = { pa: phys(0), left: 0 }

  constructor({ pageSize, ram, reserved }: SiteOptions) {
    this.#pageSize = pageSize
    this.target = { pageSize }
    this.memory = new SparseMemory(pageSize, ram)
    this.#allocator = new PageAllocator(pageSize, ram ?? [])
    for (const area of reserved) this.#allocator.reserve(area)
  }

  /** Whether only addresses are collected: nothing is placed or written. */
  get surveying(): boolean {
    return this.#surveying
  }

  endSurvey(): void {
    this.#surveying = false
    this.problems.length = 0
  }

  report(path: Path, message: string): void {
    this.problems.push({ path: formatPath(path), message })
  }

  /** Keeps the allocator away from bytes that the document places itself. */
  claim(start: bigint, length: bigint): void {
    if (this.#surveying) this.#allocator.reserve({ start: phys(start), end: start + length })
  }

  /** The place of an object in one preserved unit: its own address, else a new one; undefined if there is none. */
  unit(at: bigint | undefined, order: number, path: Path): PhysAddr | undefined {
    if (at === undefined) return this.units(order, 1, path)?.[0]?.start
    this.preserve({ start: at, order, count: 1, step: unitBytes(order, this.#pageSize) })
    return phys(at)
  }

  /** New preserved units, as runs of neighbours; undefined if there is no room, or in the survey. */
  units(
    order: number,
    count: number,
    path: Path,
  ): readonly { readonly start: PhysAddr; readonly count: number }[] | undefined {
    if (this.#surveying) return undefined
    const runs = this.#allocator.allocateUnits(order, count)
    if (!runs) this.#reportNoRoom(path, BigInt(count) * BigInt(unitBytes(order, this.#pageSize)), order)
    for (const run of runs ?? []) this.#place({ ...run, order, step: unitBytes(order, this.#pageSize) })
    return runs
  }

  /** New preserved memory of whole pages in one piece. */
  range(length: bigint, path: Path): PhysAddr | undefined {
    if (this.#surveying) return undefined
    const pages = (length + BigInt(this.#pageSize) - 1n) / BigInt(this.#pageSize)
    const start = this.#allocator.allocateRange(Number(pages))
    if (start === undefined) this.#reportNoRoom(path, length, 0)
    else for (const run of splitPages(start, pages, this.#pageSize)) this.#place(run)
    return start
  }

  /** A page that is not preserved, such as the map's own. */
  page(at: bigint | undefined, path: Path): PhysAddr | undefined {
    if (at !== undefined) {
      this.claim(at, BigInt(this.#pageSize))
      return phys(at)
    }
    if (this.#surveying) return undefined
    const pa = this.#allocator.allocate(0)
    if (pa === undefined) this.#reportNoRoom(path, BigInt(this.#pageSize), 0)
    return pa
  }

  /** Part of a page that is not preserved, aligned to its length. */
  piece(at: bigint | undefined, length: number, path: Path): PhysAddr | undefined {
    if (length === this.#pageSize) return this.page(at, path)
    if (at !== undefined) {
      this.claim(at, BigInt(length))
      return phys(at)
    }
    if (this.#piece.left < length) {
      const pa = this.page(undefined, path)
      if (pa === undefined) return undefined
      this.#piece = { pa, left: this.#pageSize }
    }
    const { pa, left } = this.#piece
    this.#piece = { pa: phys(pa + BigInt(length)), left: left - length }
    return pa
  }

  /** Adds units at given addresses to what is preserved. */
  preserve(run: UnitRun): void {
    if (this.#surveying) {
      for (const { start, count, step } of neighbourRuns(run, this.#pageSize)) {
        this.claim(start, BigInt(count) * BigInt(step))
      }
    } else pushUnits(this.preserved, run)
  }

  /** Adds the whole pages of a range at a given address to what is preserved, as kho_preserve_pages() does. */
  preservePages(start: bigint, length: bigint): void {
    const size = BigInt(this.#pageSize)
    for (const run of splitPages(start, length / size, this.#pageSize)) this.preserve(run)
  }

  /** The same for a range that belongs to no object: it counts even where the document lists all other units. */
  preserveRange(start: bigint, length: bigint): void {
    const size = BigInt(this.#pageSize)
    for (const run of splitPages(start, length / size, this.#pageSize)) {
      this.preserve(run)
      if (!this.#surveying) pushUnits(this.placed, run)
    }
  }

  /**
   * Writes an object's bytes; those of an object that found no place go nowhere. The first `needed` bytes
   * must be RAM; what follows, the unused rest of a unit, is written as far as there is RAM.
   */
  write(pa: PhysAddr | undefined, bytes: Uint8Array, path: Path, needed = bytes.length): void {
    if (this.#surveying || pa === undefined || !this.checkRam(pa, BigInt(needed), path)) return
    const known = this.memory.openEnded ? bytes.length : Number(this.memory.presence(pa).until - pa)
    this.memory.write(pa, bytes.subarray(0, known))
  }

  /**
   * Gives a range contents of its own, under whatever objects are written there. They are handed to the
   * memory together, when all objects stand.
   */
  fill(start: bigint, length: bigint, fill: PageFill): void {
    if (!this.#surveying) this.#fills.push({ range: { start: phys(start), end: start + length }, fill })
  }

  /** Makes whole pages part of the memory without anything in them, as far as there is RAM. */
  clear(start: bigint, length: bigint): void {
    if (this.#surveying) return
    const { state, until } = this.memory.openEnded
      ? { state: 'present', until: start + length }
      : this.memory.presence(phys(start))
    const end = start + length < until ? start + length : until
    if (state === 'present') this.fill(start, end - start, () => {})
  }

  /** Puts the contents of all ranges into the memory. */
  finish(): void {
    for (const { range, fill } of this.#fills) this.memory.generate(range, fill)
    this.#fills.length = 0
  }

  isRam(pa: bigint, length: bigint): boolean {
    if (this.memory.openEnded) return true
    const { state, until } = this.memory.presence(phys(pa))
    return state === 'present' && until >= pa + length
  }

  /** Whether a range is RAM; if not, that is a problem. */
  checkRam(pa: bigint, length: bigint, path: Path): boolean {
    const inside = this.isRam(pa, length)
    if (!inside) this.report(path, `${hex(pa)} to ${hex(pa + length)} does not lie in one range of RAM`)
    return inside
  }

  #place(run: UnitRun): void {
    invariant(!this.#surveying, 'an object was placed in the survey')
    pushUnits(this.preserved, run)
    pushUnits(this.placed, run)
  }

  #reportNoRoom(path: Path, length: bigint, order: number): void {
    const free = BigInt(this.#allocator.freeUnits(order)) * BigInt(unitBytes(order, this.#pageSize))
    const units = order === 0 ? 'free pages' : `free units of order ${order}`
    this.report(path, `memory too small: ${length} bytes are needed here, ${free} bytes are left in ${units}`)
  }
}
