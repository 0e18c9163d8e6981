/**
 * struct page of the frames in use, in columns: memory grows with what was ever used, not with RAM.
 *
 * Only the first page of a folio or of a preserved unit has an entry, as only there the kernel keeps
 * reference count, order and page->private. A page may be both: where units of a damaged map overlap.
 */

const CHUNK = 1 << 15

interface Chunk {
  /** Of a folio. */
  readonly order: Uint8Array
  /** 0 where no folio starts. */
  readonly refs: Int32Array
  /** page->private: order of the unit that starts here, and 1; 0 for none. */
  readonly unit: Uint8Array
}

export class FrameTable {
  readonly #chunks = new Map<number, Chunk>()
  #index = -1
  #chunk: Chunk | undefined

  order(frame: number): number {
    return this.#find(frame)?.order[frame % CHUNK] ?? 0
  }

  refs(frame: number): number {
    return this.#find(frame)?.refs[frame % CHUNK] ?? 0
  }

  /** Order of the preserved unit that starts at a frame; undefined where none does. */
  unit(frame: number): number | undefined {
    const unit = this.#find(frame)?.unit[frame % CHUNK] ?? 0
    return unit === 0 ? undefined : unit - 1
  }

  set(frame: number, order: number, refs: number): void {
    const chunk = this.#find(frame) ?? this.#add(frame)
    chunk.order[frame % CHUNK] = order
    chunk.refs[frame % CHUNK] = refs
  }

  setUnit(frame: number, order: number): void {
    const chunk = this.#find(frame) ?? this.#add(frame)
    chunk.unit[frame % CHUNK] = order + 1
  }

  /** No unit starts in these frames any more. */
  clearUnits(frame: number, end: number): void {
    for (let at = frame; at < end; at = (Math.floor(at / CHUNK) + 1) * CHUNK) {
      this.#find(at)?.unit.fill(0, at % CHUNK, (at % CHUNK) + end - at)
    }
  }

  /** Frames at which a folio starts, or a unit, ascending. */
  *starts(of: 'folio' | 'unit'): Generator<number> {
    for (const index of Float64Array.from(this.#chunks.keys()).sort()) {
      const chunk = this.#chunks.get(index) as Chunk
      const column = of === 'folio' ? chunk.refs : chunk.unit
      for (let at = 0; at < CHUNK; at++) if (column[at] !== 0) yield index * CHUNK + at
    }
  }

  #find(frame: number): Chunk | undefined {
    const index = Math.floor(frame / CHUNK)
    if (index !== this.#index || !this.#chunk) {
      this.#index = index
      this.#chunk = this.#chunks.get(index)
    }
    return this.#chunk
  }

  #add(frame: number): Chunk {
    this.#chunk = {
      order: new Uint8Array(CHUNK),
      refs: new Int32Array(CHUNK),
      unit: new Uint8Array(CHUNK),
    }
    this.#index = Math.floor(frame / CHUNK)
    this.#chunks.set(this.#index, this.#chunk)
    return this.#chunk
  }
}
