/**
 * The folios of a memfd as memfd_luo_retrieve_folios() puts them into the page cache, one after the
 * other, and the part of the file that they then hold. Streams the records: no object for each.
 */
import { ERRNO } from '../abi/errno.ts'
import { layoutOf } from '../abi/layout.ts'
import { memfdFolioFlags } from '../abi/memfd.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { StructType, VmallocEdge } from '../abi/schema.ts'
import { columnOf } from './columns.ts'
import { type Place, within } from './faults.ts'
import type { Incoming, Remark } from './incoming.ts'
import type { IncomingArea } from './incoming-vmalloc.ts'
import { firstNonZero } from './read.ts'

/** The file that the folios make up. */
interface MemfdOf {
  /** Place of the folios. */
  readonly place: Place
  readonly size: bigint
  /** Where the size is stored. */
  readonly sizeAt: PhysAddr
}

/** What is said once for all records of a file that have it. */
interface Tally {
  readonly rule: string
  readonly message: string
  readonly expected: string
  count: number
  first: { readonly index: number; readonly pa: PhysAddr; readonly found: string } | undefined
}

const KNOWN_FLAGS = memfdFolioFlags.DIRTY | memfdFolioFlags.UPTODATE

export class FolioReader {
  readonly #incoming: Incoming
  readonly #element: StructType
  readonly #file: MemfdOf
  readonly #tallies: readonly Tally[] = [
    tally('MEMFD_NOT_UPTODATE', 'not up to date: its contents are read as zeros', 'UPTODATE'),
    tally('MEMFD_CLEAN', 'not dirty: memory pressure drops its contents', 'DIRTY'),
    tally('MEMFD_FOLIO_FLAGS', 'flags that no kernel knows', 'no more than DIRTY and UPTODATE'),
    tally('MEMFD_HOLE', 'frame 0: a hole, which is read as zeros', 'the frame of a folio'),
    tally('MEMFD_PAST_END', 'it lies behind the end of the file', 'an index within the size'),
    tally(
      'MEMFD_INDEX_ALIGNED',
      'its place in the file is no multiple of its pages',
      'a multiple of its pages',
    ),
    tally('MEMFD_ORDERED', 'its place in the file is before that of the record in front of it', 'ascending'),
  ]
  /** Folios in order of their records: frame, first page in the file, pages. */
  #pfns = new Float64Array(0)
  #starts = new Float64Array(0)
  #orders = new Uint8Array(0)
  #records = new Uint32Array(0)
  #count = 0
  /** Records of zeros. */
  readonly #empty: number[] = []
  #addressOf: (record: number) => PhysAddr = () => phys(0)

  constructor(incoming: Incoming, edge: VmallocEdge, file: MemfdOf) {
    this.#incoming = incoming
    this.#element = edge.element as StructType
    this.#file = file
  }

  get elementSize(): number {
    return layoutOf(this.#element, this.#incoming.subject.target).size
  }

  /** Reads `count` records of the array, and looks what stands in the rest of the `capacity`. */
  read(area: IncomingArea, count: number, capacity: number): void {
    const { subject } = this.#incoming
    const perGroup = area.groupBytes / this.elementSize
    if (this.#incoming.budget.takeElements(count) < count) return
    this.#addressOf = (record) =>
      phys(
        subject.address(area.groups[Math.floor(record / perGroup)] as number) +
          BigInt((record % perGroup) * this.elementSize),
      )
    this.#pfns = new Float64Array(count)
    this.#starts = new Float64Array(count)
    this.#orders = new Uint8Array(count)
    this.#records = new Uint32Array(count)
    for (let first = 0; first < capacity; first += perGroup) {
      const records = Math.min(perGroup, capacity - first)
      const bytes = this.#incoming.bytes(this.#addressOf(first), records * this.elementSize, this.#file.place)
      if (!bytes) return
      this.#readGroup(bytes, first, Math.min(records, count - first))
      if (first + records > count) this.#reportBeyond(bytes, first, Math.max(0, count - first))
    }
    this.finish()
  }

  #readGroup(bytes: Uint8Array, first: number, count: number): void {
    const { subject } = this.#incoming
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const pfnOf = columnOf(this.#element, 'pfn', subject.target)
    const flagsOf = columnOf(this.#element, 'flags', subject.target)
    const indexOf = columnOf(this.#element, 'index', subject.target)
    for (let i = 0; i < count; i++) {
      const offset = i * this.elementSize
      const pfn = pfnOf(view, offset)
      const index = indexOf(view, offset)
      if (pfn !== 0) this.#add(first + i, pfn, index, flagsOf(view, offset))
      else if (index === 0 && flagsOf(view, offset) === 0) this.#empty.push(first + i)
      else this.#note(3, first + i, `frame 0 at page ${index}`)
    }
  }

  #add(record: number, pfn: number, index: number, flags: number): void {
    const order = this.#incoming.subject.units.orderAt(pfn) ?? 0
    const pages = 2 ** order
    if ((flags & memfdFolioFlags.UPTODATE) === 0) this.#note(0, record, `flags ${flags}`)
    else if ((flags & memfdFolioFlags.DIRTY) === 0) this.#note(1, record, `flags ${flags}`)
    if ((flags & ~KNOWN_FLAGS) !== 0) this.#note(2, record, `flags ${flags}`)
    if (index >= this.#pagesOfFile) this.#note(4, record, `page ${index} of ${this.#pagesOfFile}`)
    if (index % pages !== 0) this.#note(5, record, `page ${index}, ${pages} pages`)
    const previous = this.#count > 0 ? (this.#starts[this.#count - 1] as number) : -1
    if (index < previous) this.#note(6, record, `page ${index} behind page ${previous}`)
    this.#pfns[this.#count] = pfn
    this.#starts[this.#count] = Math.floor(index / pages) * pages
    this.#orders[this.#count] = order
    this.#records[this.#count] = record
    this.#count += 1
  }

  get #pagesOfFile(): number {
    const size = BigInt.asIntN(64, this.#file.size)
    const page = BigInt(this.#incoming.subject.target.pageSize)
    return size <= 0n ? 0 : Number((size + page - 1n) / page)
  }

  #note(which: number, record: number, found: string): void {
    const entry = this.#tallies[which] as Tally
    entry.count += 1
    entry.first ??= { index: record, pa: this.#addressOf(record), found }
  }

  /** Records that the count leaves out. */
  #reportBeyond(bytes: Uint8Array, first: number, count: number): void {
    const rest = bytes.subarray(count * this.elementSize)
    const at = firstNonZero(rest)
    if (at < 0) return
    const record = first + count + Math.floor(at / this.elementSize)
    const message = 'the array has records behind those that are counted'
    this.#report('MEMFD_UNCOUNTED', record, { message, expected: 'zeros', found: `record ${record}` })
  }

  #report(
    rule: string,
    record: number,
    remark: Pick<Remark, 'message' | 'expected' | 'found' | 'log' | 'outcome'>,
  ): void {
    const where = { pa: this.#addressOf(record), length: this.elementSize }
    this.#incoming.report(rule, this.#file.place, { ...where, ...remark })
  }

  /** Records of zeros: behind all others they are too many, among them they are holes. */
  #sortEmpty(): void {
    const last = this.#count === 0 ? -1 : (this.#records[this.#count - 1] as number)
    const surplus = this.#empty.filter((record) => record > last)
    for (const record of this.#empty) if (record < last) this.#note(3, record, 'a record of zeros')
    const [first] = surplus
    if (first === undefined) return
    const message = `${surplus.length} records of zeros are counted`
    this.#report('MEMFD_EMPTY_RECORD', first, {
      message,
      expected: `${first} records`,
      found: `${first + surplus.length}`,
    })
  }

  /** Judges what was read: folios claimed, the kernel's own checks, then the file that comes of it. */
  finish(): void {
    const twice = firstRepeated(this.#pfns.subarray(0, this.#count))
    this.#claim(twice)
    if (twice !== undefined) this.#reportTwice(twice)
    if (twice !== undefined || this.#checkIndexes()) return
    this.#sortEmpty()
    for (const { rule, message, expected, count, first } of this.#tallies) {
      if (!first) continue
      const others = count > 1 ? ` (and ${count - 1} more)` : ''
      const found = `${first.found}${others}`
      const place = within(this.#file.place, 'folio_list', { index: first.index })
      const where = { pa: first.pa, length: this.elementSize }
      this.#incoming.report(rule, place, {
        ...where,
        message: `folio ${first.index}: ${message}`,
        expected,
        found,
      })
    }
    this.#checkCoverage()
  }

  /** Each folio once, as the kernel restores it once. */
  #claim(twice: number | undefined): void {
    const pfns = this.#pfns.subarray(0, twice ?? this.#count)
    const pointer = (index: number): PhysAddr => this.#addressOf(this.#records[index] as number)
    const claimed = { rule: 'MEMFD_FOLIO', what: 'folio', restore: 'folio', pages: undefined } as const
    this.#incoming.claim(this.#file.place, { ...claimed, pfns, pointer })
  }

  /** A folio can be restored once only; the second time its page has lost the mark. */
  #reportTwice(twice: number): void {
    const pfn = this.#pfns[twice] as number
    const { subject } = this.#incoming
    this.#report('MEMFD_FOLIO', this.#records[twice] as number, {
      message: `folio ${twice} of the file is one that it has already`,
      expected: 'a folio of its own',
      found: `frame 0x${pfn.toString(16)}`,
      log: [subject.address(pfn)],
      ...(!subject.traits.failsForLaterFolio && { outcome: 'corrupts' }),
    })
  }

  /** shmem_add_to_page_cache() finds the place taken. */
  #checkIndexes(): boolean {
    const folioAt = ascending(this.#starts, this.#count)
    for (let i = 1; i < this.#count; i++) {
      const [a, b] = [folioAt(i - 1), folioAt(i)]
      if (this.#end(a) <= (this.#starts[b] as number)) continue
      const later = Math.max(a, b)
      const record = this.#records[later] as number
      this.#report('MEMFD_INDEX', record, {
        message: `folio ${later} stands where folio ${Math.min(a, b)} is`,
        expected: 'a place of its own in the file',
        found: `page ${this.#starts[later]}, ${2 ** (this.#orders[later] as number)} pages`,
        log: [record, -ERRNO.EEXIST],
      })
      return true
    }
    return false
  }

  /** The first page of the file behind a folio. */
  #end(folio: number): number {
    return (this.#starts[folio] as number) + 2 ** (this.#orders[folio] as number)
  }

  /** Every page of the file is in a folio: the old kernel fills holes before it preserves a file. */
  #checkCoverage(): void {
    const { map } = this.#incoming.subject
    // Only the map tells how many pages a folio has.
    if (!map || map.missing.length > 0) return
    const folioAt = ascending(this.#starts, this.#count)
    let next = 0
    for (let i = 0; i < this.#count && (this.#starts[folioAt(i)] as number) <= next; i++)
      next = Math.max(next, this.#end(folioAt(i)))
    if (next >= this.#pagesOfFile) return
    const hasHoles = (this.#tallies[3] as Tally).count > 0
    if (hasHoles) return
    this.#incoming.report('MEMFD_COVERAGE', this.#file.place, {
      pa: this.#file.sizeAt,
      length: 8,
      message: `page ${next} of the file has no folio, and is read as zeros`,
      expected: `folios for ${this.#pagesOfFile} pages`,
      found: `no folio at page ${next}`,
    })
  }
}

function tally(rule: string, message: string, expected: string): Tally {
  return { rule, message, expected, count: 0, first: undefined }
}

/** Which value is number `i` in ascending order; they mostly are in it already. */
function ascending(values: Float64Array, count: number): (i: number) => number {
  let sorted = 1
  while (sorted < count && (values[sorted - 1] as number) <= (values[sorted] as number)) sorted += 1
  if (sorted >= count) return (i) => i
  const order = Uint32Array.from({ length: count }, (_, i) => i)
  order.sort((a, b) => (values[a] as number) - (values[b] as number) || a - b)
  return (i) => order[i] as number
}

/** Position of the first value that another one before it has. */
function firstRepeated(values: Float64Array): number | undefined {
  const sorted = values.slice().sort()
  const repeated = new Set<number>()
  for (let i = 1; i < sorted.length; i++) if (sorted[i] === sorted[i - 1]) repeated.add(sorted[i] as number)
  if (repeated.size === 0) return undefined
  const seen = new Set<number>()
  const at = values.findIndex((value) => {
    if (!repeated.has(value)) return false
    if (seen.has(value)) return true
    seen.add(value)
    return false
  })
  return at < 0 ? undefined : at
}
