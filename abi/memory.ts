/**
 * Physical memory as every part of the project sees it: addresses, ranges, and the read-only
 * interface that image readers, debugfs directories and in-memory images implement.
 *
 * A byte of physical memory is in one of three states, never zeros in silence: `present` (the image
 * holds it), `excluded` (RAM that the dumper left out) or `hole` (nothing says that RAM is there).
 */

declare const physAddr: unique symbol

/** Physical byte address, 0 to 2^64 - 1. Zero means "none" wherever the kernel stores a link. */
export type PhysAddr = bigint & { readonly [physAddr]: true }

export const MAX_PHYS = 0xffff_ffff_ffff_ffffn

/** Wraps an address modulo 2^64, as the kernel's `phys_addr_t` arithmetic does. */
export function phys(value: bigint | number): PhysAddr {
  return BigInt.asUintN(64, BigInt(value)) as PhysAddr
}

/** Half-open range of physical bytes. `end` may be 2^64, so it is a plain bigint. */
export interface PhysRange {
  readonly start: PhysAddr
  readonly end: bigint
}

export type Presence = 'present' | 'excluded' | 'hole'

/** Where a byte sits in the container: an offset in bytes within one of the files of the image. */
export interface FilePosition {
  readonly file: string
  readonly offset: number
}

export interface PhysicalMemory {
  /** RAM that the image describes, sorted and disjoint. Bytes inside may still be `excluded`. */
  readonly ranges: readonly PhysRange[]

  /**
   * Copies physical bytes from `pa` on into `out` and returns how many leading bytes were present.
   * Never throws on account of the image's content: unreadable bytes are simply not present.
   */
  read(pa: PhysAddr, out: Uint8Array): number

  /** The state of the byte at `pa` and the address (exclusive, at most 2^64) up to which it holds. */
  presence(pa: PhysAddr): { readonly state: Presence; readonly until: bigint; readonly reason?: string }

  /** Position of the byte at `pa` in the image file, where the container stores it uncompressed. */
  filePosition(pa: PhysAddr): FilePosition | undefined
}

/** Lower-case hex without leading zeros, as in `contract` documents and on the command line: `0x1ff0000`. */
export function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`
}

/** Fixed width of 16 digits, for columns that line up: `0x0000000001ff0000`. */
export function hex64(value: bigint | number): string {
  return `0x${value.toString(16).padStart(16, '0')}`
}

/** Parses `0x…` or decimal into an address or size; undefined where the text is neither or exceeds 64 bits. */
export function parseAddress(text: string): PhysAddr | undefined {
  if (!/^(0[xX][0-9a-fA-F]+|[0-9]+)$/.test(text)) return undefined
  const value = BigInt(text)
  return value <= MAX_PHYS ? (value as PhysAddr) : undefined
}
