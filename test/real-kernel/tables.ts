/**
 * Around all suites: says which of them were skipped and why, collects the tables that they keep, prints
 * them, and with REAL_KERNEL_DATE writes those of whole suites into docs/real-kernels.md. The tables of suites
 * that did not run, or in part or with failures, stay; of a developer's own kernel nothing is written.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { ROOT } from '../support/images.ts'
import { type KeptTable, SKIPPED, type Table } from './lab.ts'

const PAGE = `${ROOT}docs/real-kernels.md`

let results = ''

export function setup(): void {
  results = mkdtempSync(`${tmpdir()}/real-kernel-`)
  process.env.REAL_KERNEL_RESULTS = results
}

export function teardown(): void {
  const { REAL_KERNEL_DATE: date, KERNEL } = process.env
  let page = readFileSync(PAGE, 'utf8')
  for (const file of readdirSync(results).sort()) {
    if (!file.endsWith('.json')) continue
    const table: KeptTable = JSON.parse(readFileSync(`${results}/${file}`, 'utf8'))
    if (table.rows.length === 0) continue
    process.stdout.write(`\n${tableText(table, '')}`)
    if (!table.whole) process.stdout.write('Not for docs: not all tests of this suite ran and passed.\n')
    else page = withTable(page, file.slice(0, -'.json'.length), tableText(table, `, ${date}`))
  }
  const skipped = `${results}/${SKIPPED}`
  if (existsSync(skipped)) {
    process.stdout.write(
      readFileSync(skipped, 'utf8')
        .replaceAll(/^/gm, 'SKIPPED ')
        .replace(/SKIPPED $/, ''),
    )
  }
  rmSync(results, { recursive: true })
  if (date && !KERNEL) writeFileSync(PAGE, page)
}

/** The page with a table in the place of the one of its name; a new one goes to the end. */
function withTable(page: string, name: string, text: string): string {
  const [begin, end] = [`<!-- ${name} -->\n`, `<!-- end of ${name} -->`]
  const [from, to] = [page.indexOf(begin), page.indexOf(end)]
  if (from < 0 || to < 0) return `${page}\n${begin}${text}${end}\n`
  return `${page.slice(0, from + begin.length)}${text}${page.slice(to)}`
}

function tableText({ title, kernel, rows, note }: Table, date: string): string {
  const columns = Object.keys(rows[0] ?? {})
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |\n`
  const body = rows.map((row) =>
    line(columns.map((column) => String(row[column] ?? '').replaceAll('|', '\\|'))),
  )
  const head = `${line(columns)}${line(columns.map(() => '---'))}`
  return `\n### ${title}\n\nLinux ${kernel}${date}.\n\n${head}${body.join('')}\n${note ? `${note}\n\n` : ''}`
}
