/** A comparison for people: as text for a terminal, as Markdown for a commit message or a review. */
import type { Behaviour } from '../abi/behaviour.ts'
import type { Check } from '../abi/check.ts'
import { PAGE_SIZES } from '../abi/layout.ts'
import type { CheckChange, Comparison, ComponentComparison } from './abi-compare.ts'
import type { Change } from './abi-diff.ts'
import type { Verdict, VerdictName } from './abi-verdict.ts'
import type { Paint } from './paint.ts'
import { formatPageSize } from './per-page.ts'
import { alignedTable, type Column, code, markdownTable, type Row } from './table.ts'
import { printable } from './text.ts'

const VERDICT_WORDS: Readonly<Record<VerdictName, string>> = {
  identical: 'identical',
  compatible: 'compatible',
  review: 'to be reviewed',
  incompatible: 'incompatible, and the version says so',
  silent: 'SILENT BREAK',
}

const CHANGE_COLUMNS: readonly Column[] = [
  { title: 'class', paint: 'key' },
  { title: 'change' },
  { title: 'where', paint: 'title' },
  { title: 'of' },
  { title: 'before -> after' },
]

const PER_PAGE_NOTE = `Where three values stand, they are for ${PAGE_SIZES.map(formatPageSize).join(', ')} pages.`

/** Text for a terminal. */
export function renderComparison(comparison: Comparison, paint: Paint): string {
  const blocks = [paint.title(printable(`${comparison.before} -> ${comparison.after}`))]
  for (const component of comparison.components) blocks.push(componentText(component, paint))
  if (comparison.checks.length > 0) {
    blocks.push(
      `${paint.title('checks of the readers')}\n${alignedTable(PLAIN, comparison.checks.map(checkRow), { paint })}`,
    )
  }
  if (comparison.behaviours.length > 0) {
    const rows = comparison.behaviours.map(
      ({ since, component, side, doc }): Row => [since, component, side, doc],
    )
    blocks.push(`${paint.title('behaviour')}\n${alignedTable(PLAIN, rows, { paint })}`)
  }
  if (comparison.components.some(({ changes }) => changes.some(isPerPage)))
    blocks.push(paint.dim(PER_PAGE_NOTE))
  for (const [takes, from, verdict] of directions(comparison)) {
    blocks.push(verdictText(`${takes} takes over from ${from}`, verdict, paint))
  }
  return `${blocks.join('\n\n')}\n`
}

const PLAIN: readonly Column[] = [{ title: '' }, { title: '' }, { title: '' }, { title: '' }]

function directions({
  before,
  after,
  forward,
  backward,
}: Comparison): readonly (readonly [string, string, Verdict])[] {
  return [
    [after, before, forward],
    [before, after, backward],
  ]
}

function componentText(component: ComponentComparison, paint: Paint): string {
  const head = printable(`${component.component}: ${versionsText(component)}`)
  const note = component.testOnly ? paint.dim(' (left by a test module; not counted)') : ''
  const verdicts = `  ${componentVerdicts(component, paint)}`
  const rows = component.changes.map(changeRow)
  return [
    `${paint.title(head)}${note}`,
    verdicts,
    ...(rows.length > 0 ? [alignedTable(CHANGE_COLUMNS, rows, { paint })] : []),
  ].join('\n')
}

/** The verdicts on a component, both ways where they differ. */
function componentVerdicts(component: ComponentComparison, paint: Paint): string {
  const { forward, backward, unreached = [] } = component
  const there = `${verdictPhrase(forward, paint)}${unreached.includes('forward') ? NOT_REACHED : ''}`
  const back = `${verdictPhrase(backward, paint)}${unreached.includes('backward') ? NOT_REACHED : ''}`
  return there === back ? there : `${there}; the other way: ${back}`
}

const NOT_REACHED = ', not reached'

function versionsText({ before, after }: ComponentComparison): string {
  if (before === undefined) return `added, ${after}`
  if (after === undefined) return `removed, ${before}`
  return before === after ? before : `${before} -> ${after}`
}

function changeRow(change: Change): [string, string, string, string, string] {
  const { before, after, pageSizes } = change
  const sizes =
    pageSizes.length < PAGE_SIZES.length ? ` (${pageSizes.map(formatPageSize).join(', ')} pages only)` : ''
  return [change.class, change.kind, change.where, change.aspect, `${transition(before, after)}${sizes}`]
}

function transition(before: string | undefined, after: string | undefined): string {
  if (before === undefined) return after ?? ''
  return after === undefined ? before : `${before} -> ${after}`
}

function isPerPage({ before, after }: Change): boolean {
  return [before, after].some((text) => text?.includes(' / '))
}

function checkRow({ kind, check, before }: CheckChange): Row {
  const outcome = before ? `${before.outcome} -> ${check.outcome}` : check.outcome
  return [kind, `${check.component} ${check.at}`, outcome, check.doc]
}

function behaviourRow({ since, component, side, doc }: Behaviour): Row {
  return [since, component, side, doc]
}

function verdictPhrase({ verdict, outcome, pageSizes }: Verdict, paint: Paint): string {
  const text = `${VERDICT_WORDS[verdict]}${outcome === undefined ? '' : ` (${outcome})`}${atPages(pageSizes)}`
  if (verdict === 'identical' || verdict === 'compatible') return paint.good(text)
  return verdict === 'silent' ? paint.fault(text) : paint.warn(text)
}

function atPages(pageSizes: Verdict['pageSizes']): string {
  return pageSizes.length === PAGE_SIZES.length ? '' : ` at ${pageSizes.map(formatPageSize).join(', ')} pages`
}

function verdictText(question: string, verdict: Verdict, paint: Paint): string {
  const lines = [...verdict.reasons, ...(verdict.check ? checkLines(verdict.check) : [])]
  return [
    `${paint.title(printable(question))}: ${verdictPhrase(verdict, paint)}`,
    ...lines.map((line) => `  ${printable(line)}`),
  ].join('\n')
}

function checkLines({ id, by, message, errno }: Check): readonly string[] {
  const answers = [
    ...(message === undefined ? [] : [`logs "${message}"`]),
    ...(errno === undefined ? [] : [`-${errno}`]),
  ]
  return [`stopped by ${id} in ${by}${answers.length > 0 ? `: ${answers.join(', ')}` : ''}`]
}

/** Markdown: the verdicts, then what changed as a table for each component. */
export function comparisonMarkdown(comparison: Comparison): string {
  const blocks = [
    `### ABI: ${code(comparison.before)} to ${code(comparison.after)}`,
    directions(comparison).map(verdictMarkdown).join('\n'),
  ]
  for (const component of comparison.components) blocks.push(...componentMarkdown(component))
  if (comparison.checks.length > 0) {
    const rows = comparison.checks.map(checkRow)
    blocks.push('#### Checks of the readers', markdownTable(['change', 'where', 'outcome', 'check'], rows))
  }
  if (comparison.behaviours.length > 0) {
    const rows = comparison.behaviours.map(behaviourRow)
    blocks.push('#### Behaviour', markdownTable(['since', 'component', 'side', 'what'], rows))
  }
  return `${blocks.join('\n\n')}\n`
}

function verdictMarkdown([takes, from, verdict]: readonly [string, string, Verdict]): string {
  const { verdict: name, outcome, check, pageSizes } = verdict
  const words = `${VERDICT_WORDS[name]}${outcome === undefined ? '' : ` (${outcome})`}`
  const reasons = [...verdict.reasons, ...(check ? checkLines(check) : [])]
  return [
    `- ${code(takes)} takes over from ${code(from)}: **${words}**${atPages(pageSizes)}`,
    ...reasons.map((reason) => `  - ${printable(reason)}`),
  ].join('\n')
}

function componentMarkdown(component: ComponentComparison): readonly string[] {
  if (component.changes.length === 0) return []
  const rows = component.changes.map((change): Row => {
    const [kind, how, where, aspect, values] = changeRow(change)
    return [kind, how, code(where), aspect, values]
  })
  const note = component.testOnly ? ' (left by a test module; not counted)' : ''
  return [
    `#### ${printable(component.component)}: ${printable(versionsText(component))}${note}`,
    markdownTable(['class', 'change', 'where', 'of', 'before -> after'], rows),
  ]
}
