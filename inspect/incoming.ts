/**
 * What the next kernel's readers find: a walk over a handover in the order and by the rules of the kernel,
 * not of the decoder, which stops at what it does not believe. Each step leaves what a rule has to say
 * of it, and what memory it takes back.
 */
import type { FormatArgument } from '../abi/console.ts'
import { formatPath, type Path } from '../abi/fault.ts'
import { layoutOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { StructType } from '../abi/schema.ts'
import { Budget } from './budget.ts'
import type { ClaimGroup, Restore } from './claim.ts'
import type { Place } from './faults.ts'
import { readBytes } from './read.ts'
import { decodeStruct } from './record.ts'
import type { Violation } from './rule.ts'
import type { Subject } from './subject.ts'

/** What is said of a place: everything of a violation that the place does not tell. */
export type Remark = Omit<Violation, 'path' | 'via'>

/** Violations of one rule that are kept; a hostile image can have any number. */
const KEPT_PER_RULE = 1000

/** Pages that one structure takes. */
interface Claimed {
  readonly rule: string
  readonly what: string
  readonly restore: Restore
  /** Pages of each; undefined for folios of any order. */
  readonly pages: number | undefined
  readonly pfns: Float64Array
  readonly pointer: (index: number) => PhysAddr
}

/** A line of a check, or of console.ts, by its id and what its conversions are filled with. */
export interface RegionLine {
  readonly kind: 'check' | 'line'
  readonly id: string
  readonly values: readonly FormatArgument[]
}

export class Incoming {
  readonly subject: Subject
  readonly claims: ClaimGroup[] = []
  /** What the kernel says about the reserve_mem regions that it is asked for, one line each. */
  readonly regionLines: RegionLine[] = []
  /** What the kernel finds in the metadata of the handover, and says. */
  metadata: { readonly release: string; readonly count: number } | undefined
  readonly #violations = new Map<string, Violation[]>()
  /** Pages of records, blocks and arrays that were taken back. */
  readonly #restored = new Set<number>()
  /** What one judgement may cost. */
  readonly budget = new Budget()
  /** Pages of blocks and arrays that were claimed. */
  readonly #sets = new Set<number>()
  #step = 0

  constructor(subject: Subject) {
    this.subject = subject
  }

  /** Ids of rules that found something. */
  get rules(): Iterable<string> {
    return this.#violations.keys()
  }

  violations(rule: string): readonly Violation[] {
    return this.#violations.get(rule) ?? []
  }

  /** The kernel has come to something else. */
  advance(): void {
    this.#step += 1
  }

  report(rule: string, { path, via }: Place, remark: Remark): void {
    const kept = this.#violations.get(rule) ?? []
    this.#violations.set(rule, kept)
    if (kept.length >= KEPT_PER_RULE) return
    this.#step += 1
    kept.push({ path: formatPath(path), via, step: this.#step, ...remark })
  }

  claim({ path, via }: Place, claimed: Claimed): void {
    this.claims.push({ ...claimed, path: formatPath(path), via, step: this.#step })
  }

  /** Claims the page or unit that holds an address. */
  claimUnit(place: Place, claimed: Omit<Claimed, 'pfns' | 'pointer'>, pa: bigint, pointer: PhysAddr): void {
    const pfns = Float64Array.of(this.subject.pfn(pa))
    this.claim(place, { ...claimed, pfns, pointer: () => pointer })
  }

  /** Whether nobody has claimed the page of a set of entries before. */
  isFirstClaim(pfn: number): boolean {
    if (this.#sets.has(pfn)) return false
    this.#sets.add(pfn)
    return true
  }

  /** Bytes that the kernel reads; undefined, with a remark where they are preserved, if the image lacks them. */
  bytes(pa: bigint, length: number, place: Place): Uint8Array | undefined {
    const read = readBytes(this.subject.memory, phys(pa), length)
    if ('bytes' in read) return read.bytes
    const { message, found, pa: missing } = read.unreadable
    if (!this.mayBePreserved(pa)) return undefined
    const rule = this.mayBePreserved(missing) ? 'RECORD_NOT_IN_IMAGE' : 'RECORD_CUT'
    // What looks at a record from two sides misses it twice.
    const last = this.violations(rule).at(-1)
    if (last?.pa === pa && last.path === formatPath(place.path)) return undefined
    this.report(rule, place, { pa: phys(pa), length, message, found })
    return undefined
  }

  /** A struct at an address, as `bytes`. */
  struct<T>(type: StructType, pa: bigint, place: Place): T | undefined {
    const bytes = this.bytes(pa, layoutOf(type, this.subject.target).size, place)
    return bytes && this.decode<T>(type, bytes)
  }

  /** The fields of a struct by the names of its declaration. */
  decode<T>(type: StructType, bytes: Uint8Array): T {
    return decodeStruct(type, bytes, this.subject.target) as unknown as T
  }

  /** Takes a page back; false where it has lost its mark, because something else took it before. */
  restore(pfn: number): boolean {
    if (this.#restored.has(pfn)) return false
    this.#restored.add(pfn)
    return true
  }

  /** Whether an address is preserved, as far as the map is known. */
  mayBePreserved(pa: bigint): boolean {
    const { map, units } = this.subject
    if (!map || map.missing.length > 0) return true
    return units.unitAt(this.subject.pfn(pa)) !== undefined
  }
}

/** The place of a field of the record at `pa`, and where it is stored. */
export interface Pointer {
  readonly path: Path
  readonly pa: PhysAddr
}
