/**
 * struct page of the frames in use, in columns: memory grows with what was ever used, not with RAM, and
 * not with how far apart it lies.
 *
 * Only the first page of a folio or of a preserved unit has an entry, as only there the kernel keeps
 * reference count, order and page->private. A page may be both: where units of a damaged map overlap.
 */
import { NumberIndex } from './number-index.ts'

/** Neighbouring frames share an entry of the index. */
const GROUP = 8
/** Groups in a block of the columns. */
const BLOCK = 1 << 12

interface Block {
  /** Of a folio. */
  readonly order: Uint8Array
  /** 0 where no folio starts. */
  readonly refs: Int32Array
  /** page->private: order of the unit that starts here, and 1; 0 for none. */
  readonly unit: Uint8Array
}

export class FrameTable {
  /** Groups in the order in which they came to be used. */
  readonly #groups = new NumberIndex()
  readonly #blocks: Block[] = []
  /** Where the last frame lies that was asked for; most lie next to it. */
  #group = -1
  #slot = -1

  order(frame: number): number {
    return this.#find(frame)?.order[this.#at(frame)] ?? 0
  }

  refs(frame: number): number {
    return this.#find(frame)?.refs[this.#at(frame)] ?? 0
  }

  /** Order of the preserved unit that starts at a frame; undefined where none does. */
  unit(frame: number): number | undefined {
    const unit = this.#find(frame)?.unit[this.#at(frame)] ?? 0
    return unit === 0 ? undefined : unit - 1
  }

  set(frame: number, order: number, refs: number): void {
    const block = this.#find(frame) ?? this.#add(frame)
    block.order[this.#at(frame)] = order
    block.refs[this.#at(frame)] = refs
  }

  setUnit(frame: number, order: number): void {
    const block = this.#find(frame) ?? this.#add(frame)
    block.unit[this.#at(frame)] = order + 1
  }

  /** No unit starts in these frames any more. */
  clearUnits(frame: number, end: number): void {
    const groups = Math.ceil(end / GROUP) - Math.floor(frame / GROUP)
    if (groups > this.#groups.size) this.#clearKnown(frame, end)
    else for (let at = frame; at < end; at += GROUP - (at % GROUP)) this.#clear(at, end)
  }

  /** Frames at which a folio starts, or a unit, ascending. */
  *starts(of: 'folio' | 'unit'): Generator<number> {
    for (const group of this.#groups.values().sort()) {
      const first = group * GROUP
      const block = this.#find(first) as Block
      const column = of === 'folio' ? block.refs : block.unit
      const from = this.#at(first)
      for (let at = 0; at < GROUP; at++) if (column[from + at] !== 0) yield first + at
    }
  }

  #clearKnown(frame: number, end: number): void {
    for (const group of this.#groups.values()) {
      const first = Math.max(frame, group * GROUP)
      if (first < Math.min(end, (group + 1) * GROUP)) this.#clear(first, end)
    }
  }

  /** From a frame to the end of its group, or `end`. */
  #clear(frame: number, end: number): void {
    const count = Math.min(end - frame, GROUP - (frame % GROUP))
    this.#find(frame)?.unit.fill(0, this.#at(frame), this.#at(frame) + count)
  }

  #find(frame: number): Block | undefined {
    const group = Math.floor(frame / GROUP)
    if (group !== this.#group) {
      this.#group = group
      this.#slot = this.#groups.find(group)
    }
    return this.#blocks[Math.floor(this.#slot / BLOCK)]
  }

  /** Place in its block of the frame that was just found. */
  #at(frame: number): number {
    return (this.#slot % BLOCK) * GROUP + (frame % GROUP)
  }

  #add(frame: number): Block {
    this.#group = Math.floor(frame / GROUP)
    this.#slot = this.#groups.add(this.#group)
    const index = Math.floor(this.#slot / BLOCK)
    const block = this.#blocks[index] ?? {
      order: new Uint8Array(BLOCK * GROUP),
      refs: new Int32Array(BLOCK * GROUP),
      unit: new Uint8Array(BLOCK * GROUP),
    }
    this.#blocks[index] = block
    return block
  }
}
