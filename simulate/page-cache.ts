/**
 * The page cache of one file: its folios by their place, in columns, so that a million pages are a few
 * typed arrays and no objects.
 *
 * Source: mm/shmem.c: shmem_add_to_page_cache(), mm/filemap.c.
 */

/** State of a folio. */
export const FolioState = { DIRTY: 1, UPTODATE: 2 } as const

const FIRST_CAPACITY = 16

/** Slots are numbered by ascending index and move when folios before them come or go. */
export class PageCache {
  length = 0
  #index = new Float64Array(FIRST_CAPACITY)
  #pfn = new Float64Array(FIRST_CAPACITY)
  #order = new Uint8Array(FIRST_CAPACITY)
  #state = new Uint8Array(FIRST_CAPACITY)
  #pins = new Uint32Array(FIRST_CAPACITY)

  /** Page offset of the folio within the file. */
  index(slot: number): number {
    return this.#index[slot] as number
  }

  /** Frame number of its first page. */
  pfn(slot: number): number {
    return this.#pfn[slot] as number
  }

  order(slot: number): number {
    return this.#order[slot] as number
  }

  nrPages(slot: number): number {
    return 2 ** this.order(slot)
  }

  /** Page offset behind the folio. */
  end(slot: number): number {
    return this.index(slot) + this.nrPages(slot)
  }

  is(slot: number, state: number): boolean {
    return ((this.#state[slot] as number) & state) !== 0
  }

  mark(slot: number, state: number): void {
    this.#state[slot] = (this.#state[slot] as number) | state
  }

  /** Whether somebody holds the folio besides the page cache. */
  isPinned(slot: number): boolean {
    return this.#pins[slot] !== 0
  }

  pin(slot: number, by: 1 | -1): void {
    this.#pins[slot] = (this.#pins[slot] as number) + by
  }

  /** The slot of the folio that holds a page offset, or of the first one behind it. */
  slotFrom(index: number): number {
    if (this.length === 0 || this.end(this.length - 1) <= index) return this.length
    let low = 0
    let high = this.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.end(middle) > index) high = middle
      else low = middle + 1
    }
    return low
  }

  /** The slot of the folio that holds a page offset; undefined at a hole. */
  find(index: number): number | undefined {
    const slot = this.slotFrom(index)
    return slot < this.length && this.index(slot) <= index ? slot : undefined
  }

  /** Whether a folio of this order at this index would not meet another. */
  fits(index: number, order: number): boolean {
    return this.#fitsAt(this.slotFrom(index), index, order)
  }

  /** The new folio's slot; undefined where another one is in the way. A large one stands at its own alignment. */
  insert(at: number, order: number, pfn: number): number | undefined {
    const index = at - (at % 2 ** order)
    const slot = this.slotFrom(index)
    if (!this.#fitsAt(slot, index, order)) return undefined
    if (this.length === this.#index.length) this.#resize(this.length * 2)
    // Files mostly grow at their end.
    if (slot < this.length) this.#makeRoom(slot)
    this.#index[slot] = index
    this.#pfn[slot] = pfn
    this.#order[slot] = order
    this.#state[slot] = 0
    this.#pins[slot] = 0
    this.length++
    return slot
  }

  /** Takes out the folios of slots `from` to `to` (exclusive). */
  remove(from: number, to: number): void {
    for (const column of this.#columns()) column.copyWithin(from, to, this.length)
    this.length -= to - from
  }

  #fitsAt(slot: number, index: number, order: number): boolean {
    return slot === this.length || this.index(slot) >= index + 2 ** order
  }

  #makeRoom(slot: number): void {
    for (const column of this.#columns()) column.copyWithin(slot + 1, slot, this.length)
  }

  #columns(): readonly (Float64Array | Uint8Array | Uint32Array)[] {
    return [this.#index, this.#pfn, this.#order, this.#state, this.#pins]
  }

  #resize(capacity: number): void {
    const grown = <T extends Float64Array | Uint8Array | Uint32Array>(out: T, column: T): T => {
      out.set(column)
      return out
    }
    this.#index = grown(new Float64Array(capacity), this.#index)
    this.#pfn = grown(new Float64Array(capacity), this.#pfn)
    this.#order = grown(new Uint8Array(capacity), this.#order)
    this.#state = grown(new Uint8Array(capacity), this.#state)
    this.#pins = grown(new Uint32Array(capacity), this.#pins)
  }
}
