/**
 * Around all suites: collects the tables that they keep, prints them, and with REAL_KERNEL_DATE writes them
 * into docs/real-kernels.md; those of suites that did not run stay.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { ROOT } from '../support/images.ts'
import type { Table } from './lab.ts'

const PAGE = `${ROOT}docs/real-kernels.md`

let results = ''

export function setup(): void {
  results = mkdtempSync(`${tmpdir()}/real-kernel-`)
  process.env.REAL_KERNEL_RESULTS = results
}

export function teardown(): void {
  const date = process.env.REAL_KERNEL_DATE
  let page = readFileSync(PAGE, 'utf8')
  for (const file of readdirSync(results).sort()) {
    const table: Table = JSON.parse(readFileSync(`${results}/${file}`, 'utf8'))
    if (table.rows.length === 0) continue
    process.stdout.write(`\n${tableText(table, '')}`)
    page = withTable(page, file.slice(0, -'.json'.length), tableText(table, `, ${date}`))
  }
  rmSync(results, { recursive: true })
  if (date) writeFileSync(PAGE, page)
}

/** The page with a table in the place of the one of its name; a new one goes to the end. */
function withTable(page: string, name: string, text: string): string {
  const [begin, end] = [`<!-- ${name} -->\n`, `<!-- end of ${name} -->`]
  const [from, to] = [page.indexOf(begin), page.indexOf(end)]
  if (from < 0 || to < 0) return `${page}\n${begin}${text}${end}\n`
  return `${page.slice(0, from + begin.length)}${text}${page.slice(to)}`
}

function tableText({ title, kernel, rows }: Table, date: string): string {
  const columns = Object.keys(rows[0] ?? {})
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |\n`
  const body = rows.map((row) =>
    line(columns.map((column) => String(row[column] ?? '').replaceAll('|', '\\|'))),
  )
  const head = `${line(columns)}${line(columns.map(() => '---'))}`
  return `\n### ${title}\n\nLinux ${kernel}${date}.\n\n${head}${body.join('')}\n`
}
