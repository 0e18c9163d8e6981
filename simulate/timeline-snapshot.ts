/** What a preserved file was like when the old kernel went, for comparison in the next one. */
import type { File } from './file.ts'
import { handleOf } from './opaque-handler.ts'

export interface Snapshot {
  readonly size: bigint
  readonly position: bigint
  readonly seals: number
  /** Of a file whose driver is not modelled. */
  readonly handle: bigint | undefined
  /** Of each block of the contents. */
  readonly sums: Float64Array
}

const BLOCK_BYTES = 1 << 16

/** `spend` is told how many bytes were summed up. */
export function snapshotOf(file: File, spend: (bytes: number) => void): Snapshot {
  const { inode, position } = file
  const size = inode?.size ?? 0n
  const sums = new Float64Array(Number((size + BigInt(BLOCK_BYTES) - 1n) / BigInt(BLOCK_BYTES)))
  for (let at = 0; inode && at < sums.length; at++) {
    const bytes = inode.read(BigInt(at) * BigInt(BLOCK_BYTES), BLOCK_BYTES)
    spend(bytes.length)
    sums[at] = sumOf(bytes)
  }
  return { size, position, seals: inode?.seals ?? 0, handle: handleOf(file), sums }
}

/** The first block whose contents differ. */
export function firstChange(
  before: Snapshot,
  now: Snapshot,
): { readonly start: number; readonly end: number } | undefined {
  const at = before.sums.findIndex((sum, index) => sum !== now.sums[index])
  return at < 0 ? undefined : { start: at * BLOCK_BYTES, end: (at + 1) * BLOCK_BYTES }
}

/** Two sums of 26 bits in one number. */
function sumOf(bytes: Uint8Array): number {
  let one = 0
  let two = 1
  for (const byte of bytes) {
    one = Math.imul(one ^ byte, 0x0100_0193)
    two = (Math.imul(two, 31) + byte) | 0
  }
  return (one & 0x3ff_ffff) * 2 ** 26 + (two & 0x3ff_ffff)
}
