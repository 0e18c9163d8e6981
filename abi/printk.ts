/**
 * printk(): a line that the kernel says, and the part of its formats that occurs.
 *
 * Source: lib/vsprintf.c.
 */
import type { LogLevel, Outcome, Span } from './check.ts'
import { invariant } from './fault.ts'
import { hex64 } from './memory.ts'

export interface ConsoleLine extends Span {
  /** Stable; a line whose text changed between releases has one entry for each. */
  readonly id: string
  /** The kernel function that says it; the prefix follows from it. */
  readonly by: string
  readonly level: LogLevel
  /** The kernel's format string, without prefix and line feed. */
  readonly format: string
  /** pr_warn_ratelimited() and its like: DEFAULT_RATELIMIT_BURST of them within 5 s, then none. */
  readonly isRateLimited?: true
  /** What has become of the handover at least where a kernel says so; left out where that does not follow. */
  readonly outcome?: Outcome
}

/** include/linux/ratelimit_types.h */
export const DEFAULT_RATELIMIT_BURST = 10

export type FormatArgument = string | number | bigint

const CONVERSION = /%(?:%|([#0]*)(\d+)?(\.\*)?(?:ll|l|z)?(pe|pa|px|[sdiuxc]))/g

/**
 * printk() for the conversions that occur here. A `%.*s` takes length and text. `%pe` takes the negative
 * error number and prints it as it is; with CONFIG_SYMBOLIC_ERRNAME the kernel prints `-ENOENT`: pass that
 * text instead. `%pa` takes the address itself, `%px` the pointer.
 */
export function formatMessage(format: string, ...args: readonly FormatArgument[]): string {
  let next = 0
  const take = (): FormatArgument => {
    const argument = args[next++]
    invariant(argument !== undefined, `too few arguments for "${format}"`)
    return argument
  }
  const convert = (all: string, flags: string, width: string, precision: string, kind: string): string => {
    if (all === '%%') return '%'
    const length = precision ? Number(take()) : undefined
    const one = formatOne(all, flags, kind, take()).slice(0, length)
    return one.padStart(Number(width ?? 0), flags.includes('0') ? '0' : ' ')
  }
  const text = format.replace(CONVERSION, convert)
  invariant(next === args.length, `too many arguments for "${format}"`)
  return text
}

/** What lines of a format look like: a pattern for the whole message, with a group for each conversion. */
export function formatPattern(format: string): RegExp {
  let pattern = ''
  let from = 0
  for (const { 0: all, 4: kind, index } of format.matchAll(CONVERSION)) {
    const group = kind === undefined ? '%' : /[diu]/.test(kind) ? '(-?\\d+)' : '(.*?)'
    pattern += escaped(format.slice(from, index)) + group
    from = index + all.length
  }
  return new RegExp(`^${pattern}${escaped(format.slice(from))}$`)
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

function formatOne(all: string, flags: string, kind: string, argument: FormatArgument): string {
  if (kind === 's' || kind === 'c' || typeof argument === 'string') return String(argument)
  const wide = /l|z/.test(all) ? 64 : 32
  switch (kind) {
    case 'd':
    case 'i':
      return String(BigInt.asIntN(wide, BigInt(argument)))
    case 'u':
      return String(BigInt.asUintN(wide, BigInt(argument)))
    case 'x':
      return (
        (flags.includes('#') && argument ? '0x' : '') + BigInt.asUintN(wide, BigInt(argument)).toString(16)
      )
    case 'pa':
      return hex64(BigInt(argument))
    case 'px':
      return hex64(BigInt(argument)).slice(2)
    default:
      return String(argument)
  }
}
