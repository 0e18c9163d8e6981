/**
 * Faults: what is wrong with a handover, as data. Bad input is never an exception.
 *
 * A fault names its cause by a code, its place by a path in the decoded tree and a physical address,
 * and the pointers that were followed to get there.
 */
import type { FilePosition, PhysAddr } from './memory.ts'
import { hex } from './memory.ts'

/** One element of a path: a key, or an element of a list with its index and (if unique) natural key. */
export type PathSegment = string | { readonly index: number; readonly key?: string }
export type Path = readonly PathSegment[]

/** Closed list of causes. One cause per code; codes are stable. */
export type FaultCode =
  // memory
  | 'ADDRESS_NULL'
  | 'ADDRESS_OVERFLOW'
  | 'ADDRESS_MISALIGNED'
  | 'MEMORY_EXCLUDED'
  | 'MEMORY_HOLE'
  // flattened device tree
  | 'FDT_MAGIC'
  | 'FDT_VERSION'
  | 'FDT_HEADER'
  | 'FDT_TRUNCATED'
  | 'FDT_STRUCTURE'
  | 'FDT_STRING'
  | 'FDT_DEPTH'
  // contract
  | 'COMPATIBLE_UNKNOWN'
  | 'PROPERTY_MISSING'
  | 'PROPERTY_LENGTH'
  | 'NODE_MISSING'
  | 'BLOB_SIZE'
  | 'VALUE_UNEXPECTED'
  // linked structures
  | 'CHAIN_CYCLE'
  | 'CHAIN_LIMIT'
  | 'COUNT_ZERO'
  | 'COUNT_RANGE'
  | 'COUNT_MISMATCH'
  | 'REACHED_TWICE'
  | 'RADIX_KEY'
  | 'ORDER_RANGE'
  | 'VMALLOC_PAGES'
  | 'MAP_AMBIGUOUS'
  | 'LINK_EMPTY'

export type Severity = 'error' | 'warning' | 'note'

/** A pointer that was followed: the field's path, where it is stored, and what it holds. */
export interface Hop {
  readonly path: string
  readonly pa: PhysAddr
  readonly target: PhysAddr
}

export interface Fault {
  readonly code: FaultCode
  readonly severity: Severity
  readonly path: string
  /** Where the offending bytes are. */
  readonly pa: PhysAddr
  /** How many bytes are concerned. */
  readonly length: number
  readonly file?: FilePosition
  readonly message: string
  readonly expected?: string
  readonly found?: string
  readonly via: readonly Hop[]
}

/** Thrown for our own bugs only, never on account of input. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`internal error: ${message}`)
}

const PLAIN_KEY = /^[A-Za-z0-9_.-]*[A-Za-z_.-][A-Za-z0-9_.-]*$/

/** A list key as it stands between brackets: bare if plain and not a bare index, else a JSON string. */
function bracketed(key: string): string {
  return PLAIN_KEY.test(key) ? key : JSON.stringify(key)
}

/** Prints a path: `luo.sessions[vm-alpha].files[0x1].memfd.size`. */
export function formatPath(path: Path): string {
  let text = ''
  for (const segment of path) {
    if (typeof segment === 'string') text += text === '' ? segment : `.${segment}`
    else text += `[${segment.key === undefined ? segment.index : bracketed(segment.key)}]`
  }
  return text
}

/** Prints the pointers that led to a place, one `field at pa -> target` each. */
export function formatHop(hop: Hop): string {
  return `${hop.path} at ${hex(hop.pa)} -> ${hex(hop.target)}`
}
