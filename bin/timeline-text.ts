/** A timeline's events as a log for people: steps, what came of them, where things lie, what kernels said. */
import { hex64 } from '../abi/memory.ts'
import type { Paint } from '../inspect/paint.ts'
import { formatBytes, formatCount, printable } from '../inspect/text.ts'
import type { LogLine } from '../simulate/core.ts'
import type { Fact, OutcomeCount, StepEvent, TimelineResult } from '../simulate/timeline-event.ts'

const NUMBER_COLUMNS = 4
const INDENT = ' '.repeat(NUMBER_COLUMNS + 2)
/** Repetitions of a group that are shown; of the others only what went wrong. */
const SHOWN_REPETITIONS = 2

/** Lines of one step; none for a repetition that went as those before it. */
export function stepLines(event: StepEvent, paint: Paint, columns: number): readonly string[] {
  if (event.repetition >= SHOWN_REPETITIONS && event.wrong.length === 0) {
    return []
  }
  const lines: string[] = []
  const margin = INDENT + '  '.repeat(event.depth)
  const first = `${event.number.padStart(NUMBER_COLUMNS)}  ${'  '.repeat(event.depth)}`
  const title = event.title === undefined ? [] : wrapped(printable(event.title), first, columns, margin)
  lines.push(...painted(title, paint.title))
  lines.push(...headLines(title.length > 0 ? margin : first, event, paint, columns))
  for (const message of event.wrong)
    lines.push(...painted(wrapped(printable(message), `${margin}  `, columns), paint.fault))
  lines.push(...factLines(event.facts, `${margin}  `, paint, columns))
  for (const line of event.console) lines.push(...consoleLines(line, `${margin}  `, paint, columns))
  return lines
}

/** The step and, at the right edge, what came of it. */
function headLines(head: string, event: StepEvent, paint: Paint, columns: number): readonly string[] {
  if (event.verb === 'steps') return event.title === undefined ? [`${head}${event.said}`] : []
  const outcome = outcomeText(event)
  const shown =
    event.wrong.length > 0
      ? paint.fault(outcome)
      : event.expectedOther
        ? paint.warn(outcome)
        : paint.good(outcome)
  const said = wrapped(printable(event.said), head, columns, ' '.repeat(head.length + 2))
  const last = said.at(-1) ?? head
  const gap = columns - last.length - outcome.length
  if (gap < 2) return [...said, `${' '.repeat(Math.max(head.length, columns - outcome.length))}${shown}`]
  return [...said.slice(0, -1), `${last}${' '.repeat(gap)}${shown}`]
}

/** `ok`, `EEXIST as expected`, `128 ok, then ENOSPC`. */
function outcomeText({ outcomes, wrong, expectedOther }: StepEvent): string {
  const [only] = outcomes
  const text =
    outcomes.length === 1 && only?.times === 1 ? only.outcome : outcomes.map(countText).join(', then ')
  if (wrong.length > 0) return `${text}, not as expected`
  return expectedOther ? `${text}, as expected` : text
}

function countText({ outcome, times }: OutcomeCount): string {
  return times === 1 ? outcome : `${formatCount(times)} × ${outcome}`
}

/** Facts without an address share lines, those with one have their own. */
function factLines(facts: readonly Fact[], margin: string, paint: Paint, columns: number): readonly string[] {
  const plain = facts.filter(({ pa }) => pa === undefined).map(factText)
  const placed = facts.filter(({ pa }) => pa !== undefined)
  const width = Math.max(0, ...placed.map(({ name }) => name.length))
  return [
    ...(plain.length > 0 ? painted(wrapped(plain.join(', '), margin, columns), paint.dim) : []),
    ...placed.map(({ name, pa = 0n, value }) => {
      const behind = value === undefined ? '' : `  ${paint.dim(printable(String(value)))}`
      return `${margin}${paint.key(printable(name).padEnd(width))}  ${paint.address(hex64(pa))}${behind}`
    }),
  ]
}

function factText({ name, value = '', isBytes }: Fact): string {
  if (typeof value === 'string') return printable(`${name} ${value}`.trim())
  return `${printable(name)} ${isBytes ? formatBytes(value) : formatCount(value)}`
}

function consoleLines(line: LogLine, margin: string, paint: Paint, columns: number): readonly string[] {
  const tint = line.level === 'err' ? paint.fault : line.level === 'warn' ? paint.warn : paint.text
  return painted(wrapped(printable(line.text), `${margin}| `, columns, `${margin}|   `), tint)
}

/** chalk would take the index that map() passes on for more text. */
function painted(lines: readonly string[], paint: (text: string) => string): readonly string[] {
  return lines.map((line) => paint(line))
}

/** Breaks text at spaces; a word that is longer than a line stays whole. */
function wrapped(text: string, first: string, columns: number, next = first): string[] {
  const lines: string[] = []
  let line = first
  let isEmpty = true
  for (const word of text.split(' ')) {
    if (!isEmpty && line.length + 1 + word.length > columns) {
      lines.push(line)
      line = next
      isEmpty = true
    }
    line += isEmpty ? word : ` ${word}`
    isEmpty = false
  }
  return [...lines, line]
}

/** What the log ends with. */
export function summaryLine({ events, failure, kexecs }: TimelineResult, paint: Paint): string {
  const steps = count(events.filter(({ verb }) => verb !== 'steps').length, 'step')
  if (failure) return paint.fault(`step ${failure.number} did not go as expected`)
  return paint.good(`${steps} as expected, ${count(kexecs, 'kexec')}`)
}

function count(value: number, thing: string): string {
  return `${formatCount(value)} ${thing}${value === 1 ? '' : 's'}`
}
