/** The table of rules for people and programs. */
import type { Paint } from './paint.ts'
import { paragraph } from './paragraph.ts'
import type { Json } from './render-json.ts'
import type { Rule } from './rule.ts'
import { code, markdownTable, type Row } from './table.ts'

const RULES_SCHEMA = 'kho-inspect/rules@1'

/** `linux-6.19 to linux-7.0`, `linux-7.2 and later`. */
export function releasesText({ since, until }: Pick<Rule, 'since' | 'until'>): string {
  if (until === undefined) return `${since} and later`
  return since === until ? since : `${since} to ${until}`
}

export function renderRules(rules: readonly Rule[], paint: Paint, columns: number): string {
  const blocks = rules.map((rule) => {
    const facts = `${rule.severity}, ${rule.kind}, ${rule.outcome}, ${releasesText(rule)}`
    const lines = paragraph(`${rule.why} ${rule.source}`, '  ', Math.min(columns, 100))
    return [`${paint.key(rule.id)}  ${paint.dim(facts)}`, ...lines].join('\n')
  })
  return `${blocks.join('\n')}\n`
}

export function rulesToJson(rules: readonly Rule[]): Json {
  const listed = rules.map(({ check: _check, until, requires, ...told }) => ({
    ...told,
    until: until ?? null,
    requires: [...requires],
  }))
  return { schema: RULES_SCHEMA, rules: listed }
}

/** The table of docs/validate.md. */
export function rulesMarkdown(rules: readonly Rule[]): string {
  const rows = rules.map((rule): Row => {
    const { id, severity, kind, outcome, why, source, requires } = rule
    const after = requires.length > 0 ? `After ${requires.map(code).join(', ')}.` : ''
    return [
      code(id),
      severity,
      kind,
      outcome,
      releasesText(rule),
      `${why} ${code(source)}. ${after}`.trimEnd(),
    ]
  })
  return `${markdownTable(['rule', 'severity', 'kind', 'outcome', 'releases', 'why'], rows)}\n`
}
