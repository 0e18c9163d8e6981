/** Tables of text: aligned columns for terminals, pipes for Markdown. Cells may hold anything. */
import { noPaint, type Paint } from './paint.ts'
import { printable } from './text.ts'

export type Row = readonly string[]

/** How a column looks: its paint, and whether numbers stand at the right. */
export interface Column {
  readonly title: string
  readonly align?: 'right'
  readonly paint?: keyof Omit<Paint, 'tint'>
}

/** Aligned columns under their titles, indented; without titles if all are empty. */
export function alignedTable(
  columns: readonly Column[],
  rows: readonly Row[],
  { paint = noPaint, indent = '  ' }: { readonly paint?: Paint; readonly indent?: string } = {},
): string {
  const safe = rows.map((row) => columns.map((_, index) => printable(row[index] ?? '')))
  const widths = columns.map(({ title }, index) =>
    Math.max(title.length, ...safe.map((row) => (row[index] as string).length)),
  )
  const line = (cells: Row, style: (text: string, column: Column) => string): string =>
    `${indent}${columns
      .map((column, index) => {
        const cell = cells[index] as string
        const width = widths[index] as number
        const last = index === columns.length - 1 && column.align !== 'right'
        const padding = ' '.repeat(last ? 0 : width - cell.length)
        const text = cell === '' ? '' : style(cell, column)
        return column.align === 'right' ? `${padding}${text}` : `${text}${padding}`
      })
      .join('  ')}`.trimEnd()
  const titles = columns.map(({ title }) => title)
  const head = titles.every((title) => title === '') ? [] : [line(titles, (text) => paint.dim(text))]
  const body = safe.map((row) =>
    line(row, (text, column) => (column.paint ? paint[column.paint](text) : text)),
  )
  return [...head, ...body].join('\n')
}

/** A Markdown table; pipes in cells are escaped. */
export function markdownTable(titles: Row, rows: readonly Row[]): string {
  const line = (cells: Row): string => `| ${cells.map(escapeCell).join(' | ')} |`
  return [line(titles), `| ${titles.map(() => '---').join(' | ')} |`, ...rows.map(line)].join('\n')
}

/** A bar would end the cell, `<` outside of code would open a tag. */
function escapeCell(text: string): string {
  const pieces = printable(text).replaceAll('|', '\\|').split('`')
  return pieces.map((piece, index) => (index % 2 === 0 ? piece.replaceAll('<', '&lt;') : piece)).join('`')
}

/** Text as Markdown code; a backtick in it widens the fence. */
export function code(text: string): string {
  const safe = printable(text)
  return safe.includes('`') ? `\`\` ${safe} \`\`` : `\`${safe}\``
}
