/**
 * Around all suites: collects the tables that they keep, prints them, and with REAL_KERNEL_DATE writes them
 * into docs/real-kernels.md; those of suites that did not run stay.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { ROOT } from '../support/images.ts'
import type { Table } from './lab.ts'

const TABLES = ['generated-4k', 'generated-16k', 'generated-64k', 'wrong', 'recorded', 'real'] as const
const PAGE = `${ROOT}docs/real-kernels.md`

let results = ''

export function setup(): void {
  results = mkdtempSync(`${tmpdir()}/real-kernel-`)
  process.env.REAL_KERNEL_RESULTS = results
}

export function teardown(): void {
  const date = process.env.REAL_KERNEL_DATE
  let page = readFileSync(PAGE, 'utf8')
  for (const name of TABLES) {
    const path = `${results}/${name}.json`
    if (!existsSync(path)) continue
    const table: Table = JSON.parse(readFileSync(path, 'utf8'))
    if (table.rows.length === 0) continue
    process.stdout.write(`\n${tableText(table, '')}`)
    const mark = new RegExp(`(<!-- ${name} -->\\n)[\\s\\S]*?(<!-- end of ${name} -->)`)
    page = page.replace(mark, (_, begin, end) => `${begin}${tableText(table, `, ${date}`)}${end}`)
  }
  rmSync(results, { recursive: true })
  if (date) writeFileSync(PAGE, page)
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
