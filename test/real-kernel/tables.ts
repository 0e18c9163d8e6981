/**
 * Before and after all suites: forgets the tables of the last run, prints those of this one, and with
 * REAL_KERNEL_DATE writes them into docs/real-kernels.md.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { ROOT } from '../support/images.ts'
import { forgetTables, keptTable, type Table } from './lab.ts'

const TABLES = ['generated', 'wrong', 'recorded', 'real'] as const
const PAGE = `${ROOT}docs/real-kernels.md`
const MARK = /(<!-- tables -->\n)[\s\S]*(<!-- end of tables -->)/

export function setup(): void {
  forgetTables(TABLES)
}

export function teardown(): void {
  const tables = TABLES.flatMap((name) => keptTable(name) ?? [])
  const text = tables.map(tableText).join('\n')
  process.stdout.write(`\n${text}\n`)
  const date = process.env.REAL_KERNEL_DATE
  if (!date || tables.length < TABLES.length) return
  const page = readFileSync(PAGE, 'utf8')
  writeFileSync(
    PAGE,
    page.replace(MARK, (_, begin, end) => `${begin}\nAs of ${date}.\n\n${text}\n${end}`),
  )
}

function tableText({ title, kernel, rows }: Table): string {
  const columns = Object.keys(rows[0] ?? {})
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |\n`
  const body = rows.map((row) =>
    line(columns.map((column) => String(row[column] ?? '').replaceAll('|', '\\|'))),
  )
  return `### ${title} (Linux ${kernel})\n\n${line(columns)}${line(columns.map(() => '---'))}${body.join('')}`
}
