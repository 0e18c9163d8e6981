/**
 * The choke point: every byte of an image that is interpreted comes through `readBytes`, which checks
 * for overflow and presence before anything is looked at, and never returns a short buffer.
 */
import type { FaultCode } from '../abi/fault.ts'
import type { Target } from '../abi/layout.ts'
import { layoutOf } from '../abi/layout.ts'
import type { PhysAddr, PhysicalMemory } from '../abi/memory.ts'
import { hex, phys } from '../abi/memory.ts'
import type { Infer, StructType } from '../abi/schema.ts'
import { decodeStruct } from './record.ts'

/** Why bytes could not be had. */
export interface Unreadable {
  readonly code: FaultCode
  readonly message: string
  readonly expected: string
  readonly found: string
  /** First byte that is missing. */
  readonly pa: PhysAddr
}

export type Read = { readonly bytes: Uint8Array } | { readonly unreadable: Unreadable }

/** Largest single read; what is longer is read in pieces by its walker. */
export const MAX_READ_BYTES = 16 * 1024 * 1024

const ADDRESS_SPACE = 1n << 64n

/** Reads exactly `length` bytes at `pa`, or says which byte is missing and why. */
export function readBytes(memory: PhysicalMemory, pa: PhysAddr, length: number): Read {
  const expected = `${length} bytes at ${hex(pa)}`
  if (length > MAX_READ_BYTES || pa + BigInt(length) > ADDRESS_SPACE) {
    const message = `range ends beyond ${length > MAX_READ_BYTES ? 'the limit of one read' : 'the address space'}`
    return { unreadable: { code: 'ADDRESS_OVERFLOW', message, expected, found: `${length} bytes`, pa } }
  }
  const bytes = new Uint8Array(length)
  const present = memory.read(pa, bytes)
  if (present >= length) return { bytes }
  return { unreadable: { ...whyMissing(memory, phys(pa + BigInt(present))), expected } }
}

/** The leading bytes of a range that are present, at most `length`; empty where the first is missing. */
export function readLeading(memory: PhysicalMemory, pa: PhysAddr, length: number): Uint8Array {
  const room = Number(ADDRESS_SPACE - pa)
  const bytes = new Uint8Array(Math.min(length, MAX_READ_BYTES, room))
  return bytes.subarray(0, Math.min(bytes.length, memory.read(pa, bytes)))
}

function whyMissing(memory: PhysicalMemory, pa: PhysAddr): Omit<Unreadable, 'expected'> {
  const { state, reason } = memory.presence(pa)
  const excluded = state !== 'hole'
  const found = reason ?? (excluded ? 'the dumper left this memory out' : 'no memory there in the image')
  return {
    code: excluded ? 'MEMORY_EXCLUDED' : 'MEMORY_HOLE',
    message: `memory at ${hex(pa)} is not in the image`,
    found,
    pa,
  }
}

/** Reads and decodes one struct; its bytes are returned, too, for those that need them raw. */
export function readStruct<S extends StructType>(
  memory: PhysicalMemory,
  struct: S,
  pa: PhysAddr,
  target: Target,
): { readonly value: Infer<S>; readonly bytes: Uint8Array } | { readonly unreadable: Unreadable } {
  const read = readBytes(memory, pa, layoutOf(struct, target).size)
  if ('unreadable' in read) return read
  return { value: decodeStruct(struct, read.bytes, target), bytes: read.bytes }
}

/** Where the first byte stands that is not zero; -1 where there is none. */
export function firstNonZero(bytes: Uint8Array): number {
  for (let at = 0; at < bytes.length; at++) if (bytes[at] !== 0) return at
  return -1
}
