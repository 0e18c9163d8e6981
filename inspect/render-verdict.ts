/**
 * The validator's verdict as text for a terminal: what the target kernel does, what it logs, and the
 * findings by their place in the handover.
 */
import type { Outcome } from '../abi/check.ts'
import { formatHop, type Severity } from '../abi/fault.ts'
import { hex64 } from '../abi/memory.ts'
import { isWithin } from './fault-pool.ts'
import type { Paint } from './paint.ts'
import { linesOf, paragraph } from './paragraph.ts'
import { alignedTable, type Column, type Row } from './table.ts'
import type { TargetKernel } from './target-kernel.ts'
import { printable } from './text.ts'
import type { Finding, PartOutcome, Verdict } from './verdict.ts'

export interface VerdictTextOptions {
  readonly paint: Paint
  readonly columns: number
}

/** What is to be shown of a verdict: the findings that are not left out. */
export interface ShownFindings {
  readonly findings: readonly Finding[]
  /** Findings of rules that the user ignores. */
  readonly ignored: number
}

/** What a kernel does with a handover, in a few words. */
const OUTCOME_TEXT: Readonly<Record<Outcome, string>> = {
  'takes-over': 'takes over',
  loses: 'takes over with loss',
  'device-fails': '/dev/liveupdate: EIO',
  'no-handover': 'no handover',
  panics: 'panics',
  corrupts: 'corrupts, unnoticed',
}

/** Text never gets wider than this: it is prose. */
const MAX_COLUMNS = 100

export function renderVerdict(verdict: Verdict, shown: ShownFindings, options: VerdictTextOptions): string {
  return new VerdictText(verdict, shown, options).text()
}

class VerdictText {
  readonly #verdict: Verdict
  readonly #shown: ShownFindings
  readonly #paint: Paint
  readonly #width: number

  constructor(verdict: Verdict, shown: ShownFindings, { paint, columns }: VerdictTextOptions) {
    this.#verdict = verdict
    this.#shown = shown
    this.#paint = paint
    this.#width = Math.min(columns, MAX_COLUMNS)
  }

  text(): string {
    const blocks = [this.#head(), this.#parts(), this.#console(), ...this.#groups(), this.#counts()]
    return `${blocks.filter((block) => block !== '').join('\n\n')}\n`
  }

  #head(): string {
    const { kernel, outcome } = this.#verdict
    return `${this.#paint.title(kernelText(kernel))}: ${paintOutcome(outcome, this.#paint)}`
  }

  /** Components always; what is in one where it does not come back as it was and not all of it fares alike. */
  #parts(): string {
    const { parts } = this.#verdict
    const outcomes = new Map<string, Set<Outcome>>()
    for (const one of parts) {
      const component = componentOf(one)
      outcomes.set(component, (outcomes.get(component) ?? new Set()).add(one.outcome))
    }
    const shown = parts.filter((one) => {
      const component = componentOf(one)
      const isMixed = (outcomes.get(component)?.size ?? 0) > 1
      return one.part === component || (isMixed && one.outcome !== 'takes-over')
    })
    const rows = shown.map(({ part, outcome }): Row => [part, OUTCOME_TEXT[outcome]])
    const columns: readonly Column[] = [{ title: '', paint: 'key' }, { title: '' }]
    return rows.length > 0 ? alignedTable(columns, rows, { paint: this.#paint }) : ''
  }

  #console(): string {
    const lines = this.#verdict.console.flatMap((line) => {
      const [first = '', ...more] = linesOf(printable(line), this.#width - 4)
      return [`  ${first}`, ...more.map((rest) => `    ${rest}`)]
    })
    return lines.length > 0 ? [this.#paint.title('console lines to expect'), ...lines].join('\n') : ''
  }

  /** Findings below the part of the handover that they are of. */
  #groups(): readonly string[] {
    const groups = new Map<string, Finding[]>()
    for (const finding of this.#shown.findings) {
      const place = this.#placeOf(finding)
      const group = groups.get(place) ?? []
      groups.set(place, group)
      group.push(finding)
    }
    return [...groups].map(([place, findings]) =>
      [this.#paint.title(printable(place)), ...findings.map((finding) => this.#finding(finding))].join('\n'),
    )
  }

  /** The innermost part that holds a finding, else the component of its path. */
  #placeOf({ path }: Finding): string {
    const holding = this.#verdict.parts
      .map(({ part }) => part)
      .filter((part) => isWithin(path, part))
      .sort((a, b) => b.length - a.length)
    return holding[0] ?? componentOf({ part: path })
  }

  #finding(finding: Finding): string {
    const { rule, severity, kind, outcome, message } = finding
    const effect = kind === 'note' ? '' : `, ${OUTCOME_TEXT[outcome]}`
    const title = `${paintSeverity(severity, this.#paint)} ${this.#paint.key(rule)} ${this.#paint.dim(`${kind}${effect}`)}`
    const facts = [
      ['path', finding.path],
      ['at', placeText(finding)],
      ...finding.via.map((hop) => ['via', formatHop(hop)] as const),
      ['expected', finding.expected],
      ['found', finding.found],
      ['why', `${finding.why} ${finding.source}`],
    ] as const
    const lines = facts.flatMap(([key, value]) => (value === undefined ? [] : this.#fact(key, value)))
    return [`  ${title}`, ...paragraph(printable(message), '    ', this.#width), ...lines].join('\n')
  }

  #fact(key: string, value: string): readonly string[] {
    const indent = ' '.repeat(4 + 'expected'.length + 2)
    const [first = '', ...more] = linesOf(printable(value), this.#width - indent.length)
    const label = this.#paint.dim(key.padEnd('expected'.length))
    return [`    ${label}  ${first}`, ...more.map((line) => `${indent}${line}`)]
  }

  #counts(): string {
    const { findings, ignored } = this.#shown
    const count = (severity: Severity): number => findings.filter((one) => one.severity === severity).length
    const counted = (severity: Severity): string => {
      return `${count(severity)} ${severity}${count(severity) === 1 ? '' : 's'}`
    }
    const omitted = [...this.#verdict.omitted.values()].reduce((sum, more) => sum + more, 0)
    const parts = [counted('error'), counted('warning'), counted('note')]
    if (omitted > 0) parts.push(`${omitted} more of the same not listed`)
    if (ignored > 0) parts.push(`${ignored} ignored`)
    const text = parts.join(', ')
    if (count('error') > 0) return this.#paint.fault(text)
    return count('warning') > 0 ? this.#paint.warn(text) : this.#paint.good(text)
  }
}

/** `luo` of `luo.sessions[vm-alpha]`. */
function componentOf({ part }: Pick<PartOutcome, 'part'>): string {
  return /^[^.[]*/.exec(part)?.[0] ?? part
}

function placeText({ pa, length, position }: Finding): string {
  const bytes = length > 0 ? `, ${length} bytes` : ''
  const offset = position ? `, image offset ${position.offset}` : ''
  return `${hex64(pa)}${bytes}${offset}`
}

/** `linux-7.3 (kho-v4, luo-v5, memfd-v2)` */
function kernelText({ name, versions }: TargetKernel): string {
  const { kho, luo, memfd } = versions
  const spoken = [kho ?? 'no version of KHO', luo, memfd].filter((id) => id !== undefined)
  return `${printable(name)} (${spoken.join(', ')})`
}

function paintOutcome(outcome: Outcome, paint: Paint): string {
  const text = OUTCOME_TEXT[outcome]
  if (outcome === 'takes-over') return paint.good(text)
  return outcome === 'loses' ? paint.warn(text) : paint.fault(text)
}

function paintSeverity(severity: Severity, paint: Paint): string {
  if (severity === 'note') return paint.dim(severity)
  return severity === 'error' ? paint.fault(severity) : paint.warn(severity)
}

const MATRIX_PARTS = ['kho', 'memblock', 'kexec-metadata', 'luo'] as const

/** What every kernel does with a handover, one line each. */
export function renderMatrix(verdicts: readonly Verdict[], paint: Paint): string {
  const titles = ['kernel', 'handover', ...MATRIX_PARTS]
  const columns = titles.map((title, index): Column => (index === 0 ? { title, paint: 'key' } : { title }))
  const rows = verdicts.map(({ kernel, outcome, parts }): Row => {
    const of = (name: string): string => parts.find(({ part }) => part === name)?.outcome ?? '-'
    return [kernel.name, outcome, ...MATRIX_PARTS.map(of)]
  })
  return `${alignedTable(columns, rows, { paint, indent: '' })}\n`
}
