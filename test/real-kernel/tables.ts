/**
 * Around all suites: collects the tables that they keep, prints them, and with REAL_KERNEL_DATE writes them
 * into docs/real-kernels.md.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { ROOT } from '../support/images.ts'
import type { Table } from './lab.ts'

const TABLES = ['generated', 'wrong', 'recorded', 'real'] as const
const PAGE = `${ROOT}docs/real-kernels.md`
const MARK = /(<!-- tables -->\n)[\s\S]*(<!-- end of tables -->)/

let results = ''

export function setup(): void {
  results = mkdtempSync(`${tmpdir()}/real-kernel-`)
  process.env.REAL_KERNEL_RESULTS = results
}

export function teardown(): void {
  const tables = TABLES.flatMap(keptTable)
  rmSync(results, { recursive: true })
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

function keptTable(name: string): Table[] {
  const path = `${results}/${name}.json`
  return existsSync(path) ? [JSON.parse(readFileSync(path, 'utf8'))] : []
}

function tableText({ title, kernel, rows }: Table): string {
  const columns = Object.keys(rows[0] ?? {})
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |\n`
  const body = rows.map((row) =>
    line(columns.map((column) => String(row[column] ?? '').replaceAll('|', '\\|'))),
  )
  return `### ${title} (Linux ${kernel})\n\n${line(columns)}${line(columns.map(() => '---'))}${body.join('')}`
}
