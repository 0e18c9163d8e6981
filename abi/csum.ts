/**
 * csum_partial() as the kernels of each architecture compute it: the checksum that lib/test_kho.c keeps
 * over its folios. It is not folded, so that the same memory has another one on each of them.
 *
 * Sources: arch/x86/lib/csum-partial_64.c, arch/arm64/lib/csum.c, lib/checksum.c (the same in 6.17.8 to
 * 7.3.4).
 */
import type { Architecture } from './machine.ts'

const MAX_16 = 0xffff
const MAX_32 = 0xffff_ffff
/** So many words add up to less than 2^53. */
const WORDS_AT_ONCE = 1 << 20

/** Adds a folio, by the sum of its words, to a running sum. */
export function csumPartial(arch: Architecture, words: number, sum: number): number {
  // x86 carries the sum along and folds to 32 bits.
  if (arch === 'x86_64') return onesComplement(words + sum, MAX_32)
  // arm64 folds the bytes to 16 bits; the common code adds the sum with its carry.
  const total = onesComplement(words, MAX_16) + sum
  return total > MAX_32 ? total - MAX_32 : total
}

/**
 * The one's complement sum of all little-endian 32-bit words, after that of the words before them; sums of
 * 16 bits follow from it. Pages have no word that is cut.
 */
export function sumOfWords(bytes: Uint8Array, before = 0): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let sum = before
  for (let from = 0; from < bytes.length; from += 4 * WORDS_AT_ONCE) {
    const end = Math.min(bytes.length, from + 4 * WORDS_AT_ONCE)
    for (let at = from; at < end; at += 4) sum += view.getUint32(at, true)
    sum = onesComplement(sum, MAX_32)
  }
  return sum
}

/** A one's complement sum never comes back to 0. */
function onesComplement(total: number, largest: number): number {
  return total === 0 ? 0 : total % largest || largest
}
