/**
 * csum_partial() as the kernels of each architecture compute it: the checksum that lib/test_kho.c keeps
 * over its folios, unfolded, so that the two forms differ.
 */
import type { Architecture } from '../abi/machine.ts'
import { viewOf } from './write.ts'

const MAX_16 = 0xffff
const MAX_32 = 0xffff_ffff

/** Adds whole pages to a running sum. */
export function csumPartial(arch: Architecture, bytes: Uint8Array, sum: number): number {
  const words = sumOfWords(bytes)
  // arch/x86/lib/csum-partial_64.c carries the sum along and folds to 32 bits.
  if (arch === 'x86_64') return onesComplement(words + sum, MAX_32)
  // arch/arm64/lib/csum.c folds the bytes to 16 bits; lib/checksum.c adds the sum with its carry.
  const total = onesComplement(words, MAX_16) + sum
  return total > MAX_32 ? total - MAX_32 : total
}

/** A one's complement sum never comes back to 0. */
function onesComplement(total: number, largest: number): number {
  return total === 0 ? 0 : total % largest || largest
}

/** All little-endian 32-bit words, reduced so that it stays exact; sums of 16 bits follow from it. */
function sumOfWords(bytes: Uint8Array): number {
  const view = viewOf(bytes)
  let sum = 0
  for (let at = 0; at < bytes.length; at += 4) {
    sum += view.getUint32(at, true)
    if (sum > Number.MAX_SAFE_INTEGER - MAX_32) sum = onesComplement(sum, MAX_32)
  }
  return onesComplement(sum, MAX_32)
}
