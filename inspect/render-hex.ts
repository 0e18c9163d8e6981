/**
 * Annotated hex dump: physical address, image offset, bytes coloured by field, ASCII, and beside them
 * what each byte is. Built on hexy for the bytes of one row; addresses are ours, as hexy's end at 4 GiB.
 */
import { hexy } from 'hexy'
import { hex64, type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import type { Paint } from './paint.ts'
import { readLeading } from './read.ts'
import type { Region, Span } from './regions.ts'
import { printable } from './text.ts'

const ADDRESS_SPACE = 1n << 64n
const ROW = 16
/** hexy's columns with one byte per group: byte i at 3 * i, ASCII from 51 on. */
const ASCII_COLUMN = 51
/** Room for `+0x` and nine digits: files up to 64 GiB line up. */
const OFFSET_COLUMN = 12

export interface HexOptions {
  readonly paint: Paint
  /** Show where the bytes are in the image file; a compressed container has no such place. */
  readonly offsets: boolean
  /** Print every row, also those that repeat the one before within the same gap. */
  readonly all: boolean
}

/** Renders `[start, until)` line by line, to the end of the address space at most; regions as regionsIn() gives them. */
export function* renderHex(
  memory: PhysicalMemory,
  regions: readonly Region[],
  start: PhysAddr,
  until: bigint,
  options: HexOptions,
): Generator<string> {
  const { paint } = options
  const end = until < ADDRESS_SPACE ? until : ADDRESS_SPACE
  let at: bigint = start
  for (const region of regions) {
    const regionEnd = region.pa + BigInt(region.length)
    if (regionEnd <= at) continue
    if (region.pa > at) {
      yield* renderBytes(memory, undecoded(at, region.pa < end ? region.pa : end), options)
      at = region.pa
    }
    if (at >= end) return
    yield paint.title(`${printable(region.path)}: ${printable(region.title)}, ${region.length} bytes`)
    const stop = regionEnd < end ? regionEnd : end
    const spans = region.spans().filter((span) => span.pa < stop && span.pa + BigInt(span.length) > at)
    yield* renderBytes(memory, { start: at, end: stop, spans }, options)
    at = stop
  }
  if (at < end) yield* renderBytes(memory, undecoded(at, end), options)
}

interface Stretch {
  readonly start: bigint
  readonly end: bigint
  readonly spans: readonly Span[]
}

function undecoded(start: bigint, end: bigint): Stretch {
  const span: Span = {
    pa: phys(start),
    length: Number(end - start),
    path: 'not decoded',
    value: '',
    gap: true,
  }
  return { start, end, spans: [span] }
}

function* renderBytes(memory: PhysicalMemory, stretch: Stretch, options: HexOptions): Generator<string> {
  let at = stretch.start
  let first = 0
  while (at < stretch.end) {
    const { state, until, reason } = memory.presence(phys(at))
    const stop = until < stretch.end ? until : stretch.end
    if (state === 'present') {
      first = skipSpans(stretch.spans, first, at)
      yield* renderRows(memory, { start: at, end: stop, spans: stretch.spans.slice(first) }, options)
    } else {
      const why = reason ?? (state === 'hole' ? 'no memory there in the image' : 'left out by the dumper')
      yield options.paint.warn(`${hex64(at)}  ${stop - at} bytes missing: ${printable(why)}`)
    }
    at = stop
  }
}

function skipSpans(spans: readonly Span[], from: number, pa: bigint): number {
  let index = from
  while (index < spans.length && (spans[index] as Span).pa + BigInt((spans[index] as Span).length) <= pa)
    index += 1
  return index
}

function* renderRows(memory: PhysicalMemory, stretch: Stretch, options: HexOptions): Generator<string> {
  let span = 0
  let squeezed = 0
  let before: string | undefined
  for (let row = stretch.start - (stretch.start % BigInt(ROW)); row < stretch.end; row += BigInt(ROW)) {
    const from = row < stretch.start ? stretch.start : row
    const to = row + BigInt(ROW) < stretch.end ? row + BigInt(ROW) : stretch.end
    const bytes = readLeading(memory, phys(from), Number(to - from))
    span = skipSpans(stretch.spans, span, from)
    const touching = spansIn(stretch.spans, span, to)
    const inGap = touching.every((candidate) => candidate.gap)
    const print = Buffer.from(bytes).toString('hex')
    if (!options.all && inGap && print === before && to < stretch.end) {
      squeezed += 1
      continue
    }
    if (squeezed > 0) yield options.paint.dim(`*  ${squeezed} rows of the same`)
    squeezed = 0
    before = inGap ? print : undefined
    const numbers = new Map(touching.map((candidate, i) => [candidate, span + i]))
    yield* rowLines(memory, { row, from, bytes, touching, numbers }, options)
  }
}

function spansIn(spans: readonly Span[], from: number, end: bigint): readonly Span[] {
  let to = from
  while (to < spans.length && (spans[to] as Span).pa < end) to += 1
  return spans.slice(from, to)
}

interface Row {
  readonly row: bigint
  readonly from: bigint
  readonly bytes: Uint8Array
  readonly touching: readonly Span[]
  /** Of the touching spans among all; neighbours get different tints. */
  readonly numbers: ReadonlyMap<Span, number>
}

/** The row itself with its first annotation, then one line for each further field that starts in it. */
function* rowLines(memory: PhysicalMemory, row: Row, { paint, offsets }: HexOptions): Generator<string> {
  const position = memory.filePosition(phys(row.from))
  const offset = offsets
    ? ` ${(position ? `+0x${position.offset.toString(16)}` : '').padStart(OFFSET_COLUMN)}`
    : ''
  const head = `${paint.address(hex64(row.row))}${paint.dim(offset)}  `
  const blank = ' '.repeat(hex64(row.row).length + offset.length + 2 + ROW * 3 + 1 + ROW + 2)
  const starting = row.touching.filter((span) => span.pa >= row.from)
  const notes = (starting.length > 0 ? starting : row.touching.slice(0, 1)).map((span) => {
    if (span.pa < row.from) return tinted(row, span, paint, `… ${printable(span.path)}`)
    const value = span.value === '' ? '' : ` = ${printable(span.value)}`
    return tinted(row, span, paint, `${printable(span.path)}${value}`)
  })
  yield `${head}${bytesText(row, paint)}  ${notes[0] ?? ''}`.trimEnd()
  for (const note of notes.slice(1)) yield blank + note
}

function tinted(row: Row, span: Span, paint: Paint, text: string): string {
  return span.gap ? paint.dim(text) : paint.tint(row.numbers.get(span) ?? 0, text)
}

/** Hex and ASCII columns of a row, each byte in its field's tint; bytes outside of the range are blank. */
function bytesText(row: Row, paint: Paint): string {
  const skipped = Number(row.from - row.row)
  const line = hexy(Buffer.from(row.bytes), { showAddress: false, bytesPerGroup: 1, bytesPerLine: ROW })
  const columns: string[] = new Array(ROW).fill('  ')
  const ascii: string[] = new Array(ROW).fill(' ')
  for (let i = 0; i < row.bytes.length; i++) {
    const pa = row.from + BigInt(i)
    const span = row.touching.find(
      (candidate) => candidate.pa <= pa && pa < candidate.pa + BigInt(candidate.length),
    )
    const paintByte = (text: string): string => (span ? tinted(row, span, paint, text) : text)
    const byte = row.bytes[i] as number
    columns[skipped + i] = paintByte(line.slice(3 * i, 3 * i + 2))
    ascii[skipped + i] = paintByte(byte === 0x7f ? '.' : (line[ASCII_COLUMN + i] ?? '.'))
  }
  return `${columns.join(' ')}  ${ascii.join('')}`
}
