/**
 * Scalars for people: numbers in the base that their declaration asks for, flags by name, sizes with
 * units, text quoted and made harmless.
 */
import { hex } from '../abi/memory.ts'
import type { Flags, Show } from '../abi/schema.ts'
import { decodeText, formatBytes, formatCount, printable } from './text.ts'
import type { ScalarType } from './tree.ts'

export function showNumber(value: number | bigint, show: Show): string {
  if (show === 'hex') return hex(value)
  if (show === 'bytes') return `${formatCount(value)} (${formatBytes(value)})`
  return value > 0xffff_ffffn ? `${value} (${hex(value)})` : String(value)
}

/** `DIRTY|UPTODATE`, unknown bits in hex behind the names, `0` where nothing is set. */
export function showFlags(value: number | bigint, flags: Flags): string {
  let rest = BigInt(value)
  const names: string[] = []
  for (const [name, mask] of Object.entries(flags)) {
    if ((rest & BigInt(mask)) === 0n) continue
    names.push(name)
    rest &= ~BigInt(mask)
  }
  if (rest !== 0n) names.push(hex(rest))
  return names.length > 0 ? names.join('|') : '0'
}

/** One stored value by its schema. */
export function showScalar(type: ScalarType, value: number | bigint | Uint8Array): string {
  if (value instanceof Uint8Array) {
    return type.kind === 'inline-array' ? `${value.length} bytes` : quoted(decodeText(value))
  }
  if (type.kind !== 'int' && type.kind !== 'bits') return String(value)
  if (type.flags && BigInt(value) !== 0n) return `${hex(value)} (${showFlags(value, type.flags)})`
  return showNumber(value, type.show)
}

export function quoted(text: string): string {
  return `"${printable(text)}"`
}
