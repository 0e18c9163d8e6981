/**
 * struct page of the frames in use, in columns: memory grows with what was ever used, not with RAM.
 *
 * Only the first page of a folio or of a preserved unit has an entry, as only there the kernel keeps
 * reference count, order and page->private.
 */

/** What starts at a frame. */
export const FrameState = { NONE: 0, FOLIO: 1, PRESERVED: 2 } as const
export type FrameState = (typeof FrameState)[keyof typeof FrameState]

const CHUNK = 1 << 15

interface Chunk {
  readonly state: Uint8Array
  readonly order: Uint8Array
  readonly refs: Int32Array
}

export class FrameTable {
  readonly #chunks = new Map<number, Chunk>()
  #index = -1
  #chunk: Chunk | undefined

  state(frame: number): FrameState {
    return (this.#find(frame)?.state[frame % CHUNK] ?? FrameState.NONE) as FrameState
  }

  order(frame: number): number {
    return this.#find(frame)?.order[frame % CHUNK] ?? 0
  }

  refs(frame: number): number {
    return this.#find(frame)?.refs[frame % CHUNK] ?? 0
  }

  set(frame: number, state: FrameState, order: number, refs: number): void {
    const chunk = this.#find(frame) ?? this.#add(frame)
    chunk.state[frame % CHUNK] = state
    chunk.order[frame % CHUNK] = order
    chunk.refs[frame % CHUNK] = refs
  }

  /** Frames in a state, ascending. */
  *in(state: FrameState): Generator<number> {
    for (const index of Float64Array.from(this.#chunks.keys()).sort()) {
      const column = (this.#chunks.get(index) as Chunk).state
      for (let at = column.indexOf(state); at >= 0; at = column.indexOf(state, at + 1)) {
        yield index * CHUNK + at
      }
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
      state: new Uint8Array(CHUNK),
      order: new Uint8Array(CHUNK),
      refs: new Int32Array(CHUNK),
    }
    this.#index = Math.floor(frame / CHUNK)
    this.#chunks.set(this.#index, this.#chunk)
    return this.#chunk
  }
}
