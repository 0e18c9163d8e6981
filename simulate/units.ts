/**
 * Units of preserved memory by frame number, and the arithmetic that the kernel does with them.
 *
 * Source: kernel/liveupdate/kexec_handover.c: kho_preserve_pages(), __kho_preserve_pages_order().
 */

import { KernelOops } from './crash.ts'

/** What a walk over a map calls for each unit: first frame and order. Frames are exact up to 2^53. */
export type UnitVisitor = (frame: number, order: number) => void

/** Units that a walk reads before the kernel counts as hung: a damaged map names the same memory for ever. */
const MAX_UNITS = 2 ** 26
/** Pages of a map that are reached a second time before that; a sound one has none. */
const MAX_REPEATS = 1024

/** Ends walks that the real kernel would be stuck in. */
export class WalkBudget {
  readonly #seen = new Set<bigint>()
  #repeats = 0
  #units = 0

  page(pa: bigint): void {
    if (!this.#seen.has(pa)) this.#seen.add(pa)
    else if (++this.#repeats > MAX_REPEATS) throw new KernelOops(LOCKUP)
  }

  unit(): void {
    if (++this.#units > MAX_UNITS) throw new KernelOops(LOCKUP)
  }
}

const LOCKUP = 'soft lockup - CPU#0 stuck'

/** count_trailing_zeros() of a frame number, at most 52. */
export function trailingZeros(frame: number): number {
  if (frame === 0) return 52
  const low = frame % 2 ** 32
  if (low !== 0) return 31 - Math.clz32(low & -low)
  return 32 + trailingZeros(Math.floor(frame / 2 ** 32))
}

/** ilog2(), exact up to 2^53. */
export function log2Floor(pages: number): number {
  return pages < 2 ** 32 ? 31 - Math.clz32(pages) : 32 + log2Floor(Math.floor(pages / 2 ** 32))
}

/**
 * Splits neighbouring pages into units as kho_preserve_pages() does: each as large as its frame number is
 * aligned and what is left allows. `nodeOf` keeps a unit inside of one NUMA node.
 */
export function* splitFrames(
  frame: number,
  end: number,
  nodeOf?: (frame: number) => number | undefined,
): Generator<readonly [frame: number, order: number]> {
  let at = frame
  while (at < end) {
    let order = Math.min(trailingZeros(at), log2Floor(end - at))
    while (order > 0 && nodeOf && nodeOf(at) !== nodeOf(at + 2 ** order - 1)) order--
    yield [at, order]
    at += 2 ** order
  }
}

/** Calls back for every set bit of a bitmap, ascending. */
export function forEachBit(bitmap: Uint8Array, visit: (bit: number) => void): void {
  const view = new DataView(bitmap.buffer, bitmap.byteOffset, bitmap.byteLength)
  for (let at = 0; at < bitmap.length; at += 4) {
    let word = view.getUint32(at, true)
    while (word !== 0) {
      visit(at * 8 + 31 - Math.clz32(word & -word))
      word &= word - 1
    }
  }
}
