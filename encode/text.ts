/**
 * Text of a document as bytes. Names may hold any bytes but NUL; what is no UTF-8 is given as bytes.
 */
import type { Text } from './handover.ts'

const encoder = new TextEncoder()

/** The bytes of a name, without a terminating NUL. */
export function textBytes(text: Text): Uint8Array {
  return typeof text === 'string' ? encoder.encode(text) : text
}

/** For paths and messages: text as it is, bytes that are no UTF-8 replaced. */
export function textLabel(text: Text): string {
  return typeof text === 'string' ? text : new TextDecoder().decode(text)
}
