/**
 * Numbers in a scenario: sizes and addresses with binary units, integers in decimal or hex, bytes in
 * hex. All exact to 64 bits; quoted numbers are numbers, too, since JSON has no hex.
 */
import type { Path } from '../abi/fault.ts'
import { MAX_PHYS } from '../abi/memory.ts'
import { defined, describe, type Shape } from './scenario-shape.ts'
import type { ScenarioReport } from './scenario-text.ts'

/** As the kernel's memparse(): powers of 1024. */
const UNITS: Readonly<Record<string, bigint>> = {
  B: 1n,
  K: 1n << 10n,
  M: 1n << 20n,
  G: 1n << 30n,
  T: 1n << 40n,
  P: 1n << 50n,
  E: 1n << 60n,
}

const INTEGER = /^(?:0[xX][0-9a-fA-F]+|[0-9]+)$/
const SIZE = /^(0[xX][0-9a-fA-F]+|[0-9]+)\s*([A-Za-z]*)$/
const SIZE_PATTERN = '^(0[xX][0-9a-fA-F]+|[0-9]+)( *([KMGTPE](iB)?|B))?$'
const SIZE_EXPECTED = 'a size such as 4096, 64KiB or 2GiB'

function unitOf(suffix: string): bigint | undefined {
  if (suffix === '') return 1n
  return UNITS[suffix.endsWith('iB') ? suffix.slice(0, -2) : suffix]
}

/** Bytes: a length or an address. */
function bytesShape(expects: string): Shape<bigint> {
  return {
    expects,
    read(value, path, report) {
      const bytes = typeof value === 'string' ? parseSize(value, expects, path, report) : value
      if (bytes === undefined) return undefined
      return inRange(bytes, 0n, MAX_PHYS, expects, path, report)
    },
    schema: () => ({
      anyOf: [
        { type: 'integer', minimum: 0 },
        { type: 'string', pattern: SIZE_PATTERN },
      ],
      examples: ['64MiB'],
    }),
  }
}

function parseSize(text: string, expects: string, path: Path, report: ScenarioReport): bigint | undefined {
  const [, digits, suffix = ''] = SIZE.exec(text) ?? []
  if (digits === undefined) return report.wrong(path, `expected ${expects}, found ${describe(text)}`)
  const unit = unitOf(suffix)
  if (unit !== undefined) return BigInt(digits) * unit
  const known = 'K, M, G, T, P, E, alone or with iB behind, all of them powers of 1024'
  return report.wrong(path, `unknown unit ${describe(suffix)} in ${describe(text)}; expected ${known}`)
}

export const size = defined('bytes', () => bytesShape(SIZE_EXPECTED))
export const address = defined('bytes', () => bytesShape('an address such as 0x40000000 or 1GiB'))

/** An integer between two bounds, both included. */
export function integer(min: bigint, max: bigint, what = 'an integer'): Shape<bigint> {
  const expects = `${what} from ${bound(min)} to ${bound(max)}`
  return {
    expects,
    read(value, path, report) {
      const parsed = typeof value === 'string' && INTEGER.test(value) ? BigInt(value) : value
      return inRange(parsed, min, max, expects, path, report)
    },
    schema: () => ({
      anyOf: [
        // Editors count in doubles: above 2^53 the bound would be another number.
        { type: 'integer', minimum: Number(min), ...(max < 2n ** 53n && { maximum: Number(max) }) },
        { type: 'string', pattern: INTEGER.source },
      ],
    }),
  }
}

function bound(value: bigint): string {
  return value < 2n ** 20n ? value.toString() : `0x${value.toString(16)}`
}

function inRange(
  value: unknown,
  min: bigint,
  max: bigint,
  expects: string,
  path: Path,
  report: ScenarioReport,
): bigint | undefined {
  if (typeof value === 'bigint' && min <= value && value <= max) return value
  if (typeof value === 'bigint' && value > MAX_PHYS)
    return report.wrong(path, `${value} has more than 64 bits; expected ${expects}`)
  return report.wrong(path, `expected ${expects}, found ${describe(value)}`)
}

export const u64 = defined('u64', () => integer(0n, MAX_PHYS))

/** A small integer as a number. */
export function count(min: number, max: number, what = 'an integer'): Shape<number> {
  const wide = integer(BigInt(min), BigInt(max), what)
  return {
    expects: wide.expects,
    read(value, path, report) {
      const read = wide.read(value, path, report)
      return read === undefined ? undefined : Number(read)
    },
    schema: (definitions) => wide.schema(definitions),
  }
}

/** Bytes as pairs of hex digits, with white space wherever it helps. */
export const hexBytes: Shape<Uint8Array> = {
  expects: 'bytes in hex such as "d0 0d fe ed"',
  read(value, path, report) {
    const digits = typeof value === 'string' ? value.replaceAll(/\s/g, '') : undefined
    if (digits !== undefined && /^([0-9a-fA-F]{2})*$/.test(digits)) {
      return Uint8Array.from({ length: digits.length / 2 }, (_, at) =>
        Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16),
      )
    }
    const hint = typeof value === 'bigint' ? '; put it in quotes' : ''
    return report.wrong(path, `expected ${this.expects}, found ${describe(value)}${hint}`)
  },
  schema: () => ({ type: 'string', pattern: '^\\s*([0-9a-fA-F]{2}\\s*)*$' }),
}
