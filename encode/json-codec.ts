/**
 * Plain values to JSON and back, with the place of everything that is wrong.
 *
 * Integers are JSON numbers up to 2^53 - 1 and hex strings above, addresses always hex strings; both forms
 * are read everywhere. Text that is no UTF-8 is `{ "hex": … }`.
 */
import { formatPath, type Path } from '../abi/fault.ts'
import { hex, MAX_PHYS } from '../abi/memory.ts'
import type { Show } from '../abi/schema.ts'
import type { Text } from './handover.ts'
import type { EncodeProblem } from './write.ts'

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** Both directions for one kind of value. `parse` reports what is wrong and then returns undefined. */
export interface Codec<T> {
  readonly parse: (json: unknown, path: Path, problems: EncodeProblem[]) => T | undefined
  readonly print: (value: T) => Json
}

export interface Member {
  readonly codec: Codec<never>
  readonly optional: boolean
}

export function required<T>(codec: Codec<T>): Member {
  return { codec: codec as unknown as Codec<never>, optional: false }
}

export function optional<T>(codec: Codec<T>): Member {
  return { codec: codec as unknown as Codec<never>, optional: true }
}

/** A codec for each key of a type; those that may be missing are made by `optional`. */
export type Shape<T> = { readonly [K in keyof T]-?: Member }

export function complain(problems: EncodeProblem[], path: Path, message: string): undefined {
  problems.push({ path: formatPath(path), message })
  return undefined
}

export function isObject(json: unknown): json is Readonly<Record<string, unknown>> {
  return typeof json === 'object' && json !== null && !Array.isArray(json)
}

/** An object with exactly these keys. The shape may depend on the object itself. */
export function object<T extends object>(
  shape: Shape<T> | ((value: Readonly<Record<string, unknown>>) => Readonly<Record<string, Member>>),
): Codec<T> {
  const membersFor = (value: Readonly<Record<string, unknown>>): Readonly<Record<string, Member>> =>
    typeof shape === 'function' ? shape(value) : shape
  return {
    parse(json, path, problems) {
      if (!isObject(json)) return complain(problems, path, 'expected an object')
      const members = membersFor(json)
      for (const key of Object.keys(json)) {
        if (!Object.hasOwn(members, key)) {
          complain(problems, [...path, key], `unknown key; known are ${Object.keys(members).join(', ')}`)
        }
      }
      const value: Record<string, unknown> = {}
      for (const [key, { codec, optional: mayMiss }] of Object.entries(members)) {
        const given = Object.hasOwn(json, key) ? json[key] : undefined
        if (given !== undefined) value[key] = codec.parse(given, [...path, key], problems)
        else if (!mayMiss) complain(problems, [...path, key], 'this key is needed')
      }
      return value as T
    },
    print(value) {
      const fields = value as Readonly<Record<string, never>>
      const json: Record<string, Json> = {}
      for (const [key, { codec }] of Object.entries(membersFor(fields))) {
        if (fields[key] !== undefined) json[key] = codec.print(fields[key])
      }
      return json
    },
  }
}

export function list<T>(element: Codec<T>): Codec<readonly T[]> {
  return {
    parse(json, path, problems) {
      if (!Array.isArray(json)) return complain(problems, path, 'expected a list')
      return json.map((one, index) => element.parse(one, [...path, { index }], problems) as T)
    },
    print: (values) => values.map(element.print),
  }
}

/** A value that may also be null. */
export function nullable<T>(codec: Codec<T>): Codec<T | null> {
  return {
    parse: (json, path, problems) => (json === null ? null : codec.parse(json, path, problems)),
    print: (value) => (value === null ? null : codec.print(value)),
  }
}

export function oneOf<V extends string | number>(values: readonly V[]): Codec<V> {
  return {
    parse: (json, path, problems) =>
      values.find((value) => value === json) ?? complain(problems, path, `expected ${values.join(' or ')}`),
    print: (value) => value,
  }
}

/** 0 to 2^64 - 1 as bigint. */
export function u64(show: Show): Codec<bigint> {
  return { parse: parseInteger, print: (value) => printInteger(value, show) }
}

/** 0 to 2^32 - 1 as number. */
export function u32(show: Show): Codec<number> {
  return {
    parse(json, path, problems) {
      const value = parseInteger(json, path, problems)
      if (value === undefined || value <= 0xffff_ffffn) return value === undefined ? value : Number(value)
      return complain(problems, path, `${hex(value)} has more than 32 bits`)
    },
    print: (value) => printInteger(BigInt(value), show),
  }
}

export const address: Codec<bigint> = u64('hex')
export const size: Codec<bigint> = u64('bytes')

/** `least` to 2^53 - 1, or to `most`. */
export function count(least = 0, most = Number.MAX_SAFE_INTEGER): Codec<number> {
  return {
    parse(json, path, problems) {
      const value = typeof json === 'string' ? parseInteger(json, path, problems) : json
      if (value === undefined) return undefined
      const number = typeof value === 'bigint' ? Number(value) : value
      if (Number.isSafeInteger(number) && least <= (number as number) && (number as number) <= most) {
        return number as number
      }
      const upTo = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`
      return complain(problems, path, `expected an integer ${upTo}`)
    },
    print: (value) => value,
  }
}

/** The order of a unit of pages, up to all of 64 bits of addresses in pages of 4K. */
export const order: Codec<number> = count(0, 52)

const TOO_LARGE = 'integers above 2^53 - 1 are rounded by JSON; write this one as a hex string, "0x…"'

function parseInteger(json: unknown, path: Path, problems: EncodeProblem[]): bigint | undefined {
  if (typeof json === 'number' && Number.isInteger(json) && json >= 0) {
    return Number.isSafeInteger(json) ? BigInt(json) : complain(problems, path, TOO_LARGE)
  }
  if (typeof json === 'string' && /^0[xX][0-9a-fA-F]+$/.test(json)) {
    const value = BigInt(json)
    return value <= MAX_PHYS ? value : complain(problems, path, `${json} has more than 64 bits`)
  }
  return complain(problems, path, 'expected a non-negative integer or a hex string, "0x…"')
}

function printInteger(value: bigint, show: Show): Json {
  return show === 'hex' || value > BigInt(Number.MAX_SAFE_INTEGER) ? hex(value) : Number(value)
}

/** Bytes as pairs of hex digits; white space between them is skipped. */
export const hexBytes: Codec<Uint8Array> = {
  parse(json, path, problems) {
    const digits = typeof json === 'string' ? json.replaceAll(/\s/g, '') : 'x'
    if (!/^([0-9a-fA-F]{2})*$/.test(digits)) return complain(problems, path, 'expected pairs of hex digits')
    return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
  },
  print: (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(''),
}

const holder = object<{ hex: Uint8Array }>({ hex: required(hexBytes) })

/** A name: a string without NUL, or its bytes. */
export const text: Codec<Text> = {
  parse(json, path, problems) {
    if (typeof json !== 'string') {
      if (isObject(json)) return holder.parse(json, path, problems)?.hex
      return complain(problems, path, 'expected a string, or { "hex": … } for bytes that are no UTF-8')
    }
    if (json.includes('\0'))
      return complain(problems, path, 'a name ends at NUL; write its bytes as { "hex": … }')
    if (/\p{Surrogate}/u.test(json))
      return complain(problems, path, 'half a surrogate pair; write bytes as { "hex": … }')
    return json
  },
  print: (value) => (typeof value === 'string' ? value : holder.print({ hex: value })),
}
