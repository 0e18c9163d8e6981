/** The lines that a booting kernel logs about a handover, in its order and without time stamps. */
import type { Check } from '../abi/check.ts'
import { parseCommandLine } from '../abi/command-line.ts'
import { checkOf, consoleLine, type FormatArgument, formatMessage, messagePrefix } from '../abi/console.ts'
import { EARLY, earlyLines } from '../abi/early-parameters.ts'
import { ERRNO, type Errno } from '../abi/errno.ts'
import { type ComponentName, componentByName } from '../abi/registry.ts'
import { incomingOf } from './incoming-all.ts'
import type { FurtherLine, Stage } from './rule.ts'
import type { Subject } from './subject.ts'
import { numberAt } from './tree.ts'
import { type Finding, stagesOf } from './verdict.ts'

/** The line of a check, its conversions filled in, and what other functions log on account of it. */
export function linesOf(
  check: Check | undefined,
  values: readonly FormatArgument[] | undefined,
  further: readonly FurtherLine[],
  release: string,
): readonly string[] {
  const own =
    check?.message !== undefined && values
      ? [messagePrefix(check.by) + formatMessage(check.message, ...values)]
      : []
  return [...own, ...further.flatMap(([id, ...rest]) => say(release, id, ...rest))]
}

/** A line as a release says it; none where it does not. */
function say(release: string, id: string, ...values: readonly FormatArgument[]): readonly string[] {
  const line = consoleLine(id, release)
  return line ? [messagePrefix(line.by) + formatMessage(line.format, ...values)] : []
}

/** What the kernel is expected to log about a handover, given the findings that it gets to. */
export function expectedConsole(subject: Subject, reached: readonly Finding[]): readonly string[] {
  const log = new BootLog(subject, reached)
  return log.lines()
}

class BootLog {
  readonly #subject: Subject
  readonly #reached: readonly Finding[]
  readonly #lines: string[] = []
  readonly #last: Finding | undefined

  constructor(subject: Subject, reached: readonly Finding[]) {
    this.#subject = subject
    this.#reached = reached
    this.#last = reached.at(-1)
  }

  lines(): readonly string[] {
    this.#linesAt('populate')
    if (this.#last?.outcome === 'no-handover') {
      this.#say('KHO_NO_REVIVAL', ...this.#revivalError(this.#last))
      this.#earlyParameters()
      return this.#lines
    }
    this.#say('KHO_FOUND')
    this.#earlyParameters()
    const { release } = this.#subject
    for (const stage of stagesOf(release).slice(1)) {
      if (stage === 'reserve-mem') this.#reserveMem()
      else if (stage === 'luo') this.#luo()
      else if (stage === 'initcalls') this.#initcalls()
      else this.#linesAt(stage)
      if (this.#endsAt(stage)) break
    }
    return this.#lines
  }

  #say(id: string, ...values: readonly FormatArgument[]): void {
    this.#lines.push(...say(this.#subject.release, id, ...values))
  }

  #at(stage: Stage): readonly Finding[] {
    return this.#reached.filter((finding) => finding.stage === stage)
  }

  /** The lines of the findings of a stage, or of one component's. */
  #linesAt(stage: Stage, only?: ComponentName): void {
    for (const { log, component } of this.#at(stage))
      if (only === undefined || component === only) this.#lines.push(...log)
  }

  /** Whether the kernel gets no further than this stage, or may not: what LUO reads in the boot decides over it. */
  #endsAt(stage: Stage): boolean {
    return this.#at(stage).some(
      ({ outcome, ends }) => ends || outcome === 'panics' || (stage === 'luo' && outcome === 'corrupts'),
    )
  }

  /** Up to 6.19 the line ends with the error. */
  #revivalError({ errno }: Finding): readonly FormatArgument[] {
    const line = consoleLine('KHO_NO_REVIVAL', this.#subject.release)
    if (!line?.format.includes('%')) return []
    return [errno === undefined ? 0 : -ERRNO[errno as Errno]]
  }

  #earlyParameters(): void {
    const { commandLine = '', release } = this.#subject
    const live = this.#subject.speaks('luo') === undefined ? [] : [EARLY.liveupdate]
    const lines = earlyLines(parseCommandLine(commandLine), [EARLY.kho, ...live], release)
    for (const [id, ...values] of lines) this.#say(id, ...values)
  }

  /** One line for each region that is asked for: of its refusal, or that it was revived. */
  #reserveMem(): void {
    const { release } = this.#subject
    for (const { kind, id, values } of incomingOf(this.#subject).regionLines) {
      if (id === 'MEMBLOCK_SUBTREE') this.#linesAt('reserve-mem', 'kho')
      if (kind === 'line') this.#say(id, ...values)
      else this.#lines.push(...linesOf(checkOf(id, release), values, [], release))
    }
  }

  #luo(): void {
    const findings = this.#at('luo')
    const luo = this.#subject.record(componentByName('luo').key)
    const number = numberAt(luo, 'liveupdate_num')
    const isRefused = findings.some(
      ({ source, outcome }) => outcome === 'panics' && source === 'luo_early_startup()',
    )
    this.#linesAt('luo', 'kho')
    if (!isRefused && number !== undefined && this.#subject.speaks('luo') !== undefined)
      this.#say('LUO_RETRIEVED', number)
    for (const { component, log } of findings) if (component !== 'kho') this.#lines.push(...log)
    const panic = findings.find(({ outcome }) => outcome === 'panics')
    if (panic) this.#say('LUO_PANIC', -ERRNO[(panic.errno ?? 'EINVAL') as Errno])
  }

  #initcalls(): void {
    this.#linesAt('initcalls')
    const { metadata } = incomingOf(this.#subject)
    if (metadata) this.#say('METADATA_FOUND', metadata.release, metadata.count)
    // Whatever it was, the test module has one line for it.
    const isOfTest = ({ component, outcome }: Finding): boolean =>
      component === 'kho-test' && outcome === 'loses'
    if (this.#at('initcalls').some(isOfTest)) this.#say('KHO_TEST_FAILED')
  }
}
