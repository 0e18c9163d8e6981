/**
 * The kernel's command line: parameters in their order, the numbers in them, and reserve_mem=.
 *
 * Sources: lib/cmdline.c: next_arg(), memparse(); kernel/params.c: parse_args(); lib/kstrtox.c:
 * _parse_integer_limit(); mm/memblock.c: reserve_mem(). Numbers of more than 64 bits are those of Linux 7.3;
 * before, their upper bits were lost.
 */
import { RESERVE_MEM_NAME_SIZE, SMP_CACHE_BYTES } from './memblock.ts'

export interface Parameter {
  /** With underscores for hyphens, which the kernel takes for the same. */
  readonly name: string
  /** The name as it is written. */
  readonly spelling: string
  /** Behind the first `=`; undefined where there is none. */
  readonly value: string | undefined
}

/** isspace() */
const SPACE = /[ \t-\r]/

/** The kernel's parameters; what stands behind `--` is for init. */
export function parseCommandLine(text: string): readonly Parameter[] {
  const parameters: Parameter[] = []
  for (let at = 0; at < text.length; ) {
    if (SPACE.test(text.charAt(at))) {
      at += 1
      continue
    }
    const word = wordAt(text, at)
    at += word.length
    const parameter = parameterOf(word)
    if (parameter.spelling === '--' && parameter.value === undefined) break
    parameters.push({ ...parameter, name: parameter.spelling.replaceAll('-', '_') })
  }
  return parameters
}

/** Up to the next space that is not between quotes. */
function wordAt(text: string, start: number): string {
  let isQuoted = false
  let at = start
  for (; at < text.length && (isQuoted || !SPACE.test(text.charAt(at))); at++) {
    if (text.charAt(at) === '"') isQuoted = !isQuoted
  }
  return text.slice(start, at)
}

/** Quotes around the whole or around the value are left out. */
function parameterOf(word: string): Omit<Parameter, 'name'> {
  const unquoted = word.startsWith('"') ? withoutQuotes(word) : word
  const equals = unquoted.indexOf('=', 1)
  if (equals < 0) return { spelling: unquoted, value: undefined }
  const value = unquoted.slice(equals + 1)
  return { spelling: unquoted.slice(0, equals), value: value.startsWith('"') ? withoutQuotes(value) : value }
}

function withoutQuotes(text: string): string {
  return text.slice(1, text.length > 1 && text.endsWith('"') ? -1 : undefined)
}

/** In the order of powers of 1024. */
const SUFFIXES = 'kmgtpe'
const ULLONG_MAX = (1n << 64n) - 1n

/** memparse(): a number in base 8, 10 or 16 with a suffix, and what follows; no digits give 0 and all the text. */
export function memparse(text: string): { readonly value: bigint; readonly rest: string } {
  const [digits] = /^(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)/.exec(text) ?? []
  if (digits === undefined) return { value: 0n, rest: text }
  const value = BigInt(/^0[0-7]/.test(digits) ? `0o${digits.slice(1)}` : digits)
  const suffix = text.charAt(digits.length).toLowerCase()
  const power = suffix === '' ? 0 : SUFFIXES.indexOf(suffix) + 1
  const shifted = value << BigInt(10 * power)
  const rest = text.slice(digits.length + (power > 0 ? 1 : 0))
  return { value: shifted > ULLONG_MAX ? ULLONG_MAX : shifted, rest }
}

/** A region that a `reserve_mem=size:align:name` asks for. */
export interface ReserveMem {
  readonly name: string
  readonly size: bigint
  readonly align: bigint
}

/** The value of a `reserve_mem=`; undefined where the kernel calls it malformed. */
export function parseReserveMem(text: string): ReserveMem | undefined {
  const size = memparse(text)
  if (size.value === 0n || !size.rest.startsWith(':')) return undefined
  const align = memparse(size.rest.slice(1))
  if (!align.rest.startsWith(':')) return undefined
  const name = align.rest.slice(1)
  const hasText = [...name].some((character) => !SPACE.test(character))
  if (!hasText || new TextEncoder().encode(name).length >= RESERVE_MEM_NAME_SIZE) return undefined
  return { name, size: size.value, align: align.value < SMP_CACHE_BYTES ? SMP_CACHE_BYTES : align.value }
}
