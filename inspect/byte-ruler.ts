/**
 * A struct drawn byte by byte: sixteen bytes a row, each field as wide as it is long.
 *
 *         0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f
 *   0x00 |pos                    |size                   |
 */
import type { PageSize } from '../abi/layout.ts'
import type { MemberDescription, PartDescription } from './abi-document.ts'
import type { Paint } from './paint.ts'
import { forPage } from './per-page.ts'
import { printable } from './text.ts'

const ROW_BYTES = 16
const BYTE_WIDTH = 3
/** Rows of one field before and after the ones left out. */
const SHOWN_ROWS = 2

interface Cell {
  readonly start: number
  readonly end: number
  readonly label: string
  readonly index: number
}

/** Draws a struct for one page size. Rows inside long fields are left out and said to be. */
export function byteRuler(part: PartDescription, pageSize: PageSize, paint: Paint): string {
  const size = forPage(part.size ?? 0, pageSize)
  const cells = cellsOf(part.members, size, pageSize)
  const rows = Math.ceil(size / ROW_BYTES)
  const width = Math.max(2, ((rows - 1) * ROW_BYTES).toString(16).length)
  const indent = '  '
  const digits = Array.from({ length: Math.min(ROW_BYTES, size) }, (_, byte) =>
    byte.toString(16).padEnd(BYTE_WIDTH),
  )
  const lines = [paint.dim(`${indent}${' '.repeat(width + 3)} ${digits.join('').trimEnd()}`)]
  let skipped = false
  for (let row = 0; row < rows; row += 1) {
    const [start, end] = [row * ROW_BYTES, Math.min(size, (row + 1) * ROW_BYTES)]
    if (isInside(cells, start, end)) {
      if (!skipped) lines.push(paint.dim(`${indent}${' '.repeat(width + 2)} :`))
      skipped = true
      continue
    }
    skipped = false
    const inRow = cells.filter((cell) => cell.start < end && cell.end > start)
    const address = paint.dim(`0x${start.toString(16).padStart(width, '0')}`)
    lines.push(`${indent}${address} |${inRow.map((cell) => drawCell(cell, start, end, paint)).join('|')}|`)
  }
  return lines.join('\n')
}

/** A row in the middle of one long field. */
function isInside(cells: readonly Cell[], start: number, end: number): boolean {
  const margin = (SHOWN_ROWS - 1) * ROW_BYTES
  return cells.some(
    (cell) =>
      cell.start <= start - margin && cell.end >= end + margin && cell.end - cell.start > 4 * ROW_BYTES,
  )
}

function drawCell(cell: Cell, rowStart: number, rowEnd: number, paint: Paint): string {
  const [from, to] = [Math.max(cell.start, rowStart), Math.min(cell.end, rowEnd)]
  const width = (to - from) * BYTE_WIDTH - 1
  const label = from === cell.start ? cell.label : ''
  const text = label.length > width ? `${label.slice(0, width - 1)}~` : label
  return paint.tint(cell.index, text.padEnd(width))
}

/** Fields in order, those of one word together, the padding between them named. */
function cellsOf(members: readonly MemberDescription[], size: number, pageSize: PageSize): readonly Cell[] {
  const cells: Cell[] = []
  let at = 0
  const pad = (until: number): void => {
    if (until > at) cells.push({ start: at, end: until, label: 'padding', index: cells.length })
  }
  for (const member of members) {
    const start = forPage(member.offset ?? 0, pageSize)
    const end = start + forPage(member.size ?? 0, pageSize)
    const label = printable(member.bits ? `${member.name}:${member.bits.width}` : member.name)
    const word = cells.at(-1)
    if (member.bits && word && word.start === start && word.end === end) {
      cells[cells.length - 1] = { ...word, label: `${word.label} ${label}` }
      continue
    }
    pad(start)
    cells.push({ start, end, label, index: cells.length })
    at = end
  }
  pad(size)
  return cells
}
