/** The kernel's log: declared lines and refusals with their prefix, as the release of the kernel words them. */
import {
  checkOf,
  consoleLine,
  DEFAULT_RATELIMIT_BURST,
  type FormatArgument,
  formatMessage,
  messagePrefix,
} from '../abi/console.ts'
import type { Errno } from '../abi/errno.ts'
import { invariant } from '../abi/fault.ts'
import { Failure } from './answer.ts'
import type { LogLine } from './core.ts'
import { KernelPanic } from './crash.ts'

export class KernelLog {
  readonly lines: LogLine[] = []
  readonly #release: string
  readonly #warned = new Set<string>()
  /** How often each rate-limited line was said. */
  readonly #bursts = new Map<string, number>()

  constructor(release: string) {
    this.#release = release
  }

  /** Logs the line, or the message of the check, that has this id; nothing where this release says nothing. */
  say(id: string, ...args: readonly FormatArgument[]): void {
    const line = consoleLine(id, this.#release)
    const check = line ? undefined : checkOf(id, this.#release)
    invariant(line || check, `${this.#release} knows no line ${id}`)
    const format = line?.format ?? check?.message
    if (format === undefined || (line?.isRateLimited && !this.#isWithinBurst(id))) return
    const by = line?.by ?? check?.by ?? ''
    const level = line?.level ?? check?.level ?? 'warn'
    this.lines.push({ level, text: messagePrefix(by) + formatMessage(format, ...args) })
  }

  /** ___ratelimit(): no time passes here, so that all of a boot falls into its first interval. */
  #isWithinBurst(id: string): boolean {
    const said = this.#bursts.get(id) ?? 0
    this.#bursts.set(id, said + 1)
    return said < DEFAULT_RATELIMIT_BURST
  }

  /** The same for a line that not every release has. */
  sayIfKnown(id: string, ...args: readonly FormatArgument[]): void {
    if (consoleLine(id, this.#release)) this.say(id, ...args)
  }

  /** Whether this release's line says more than its fixed text. */
  hasArguments(id: string): boolean {
    return consoleLine(id, this.#release)?.format.includes('%') ?? false
  }

  /** Logs a check's message and answers with its error. */
  refuse(id: string, ...args: readonly FormatArgument[]): Failure {
    this.say(id, ...args)
    const errno = checkOf(id, this.#release)?.errno
    invariant(errno !== undefined, `check ${id} answers no error`)
    return new Failure(errno as Errno)
  }

  /** WARN_ON() in a function of a source file; `text` where the warning has one of its own. */
  warn(file: string, function_: string, text?: string): void {
    if (text !== undefined) this.lines.push({ level: 'warn', text })
    this.say('WARNING', file, function_)
  }

  /** WARN_ON_ONCE(); `which` tells those of one function apart. */
  warnOnce(file: string, function_: string, which = ''): void {
    const place = `${file} ${function_} ${which}`
    if (this.#warned.has(place)) return
    this.#warned.add(place)
    this.warn(file, function_)
  }

  /** panic() with the line of this id. */
  panic(id: string, ...args: readonly FormatArgument[]): never {
    this.say(id, ...args)
    throw new KernelPanic(this.lines.at(-1)?.text)
  }
}
