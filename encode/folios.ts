/**
 * The folios that an array's records name: placed where the document leaves that open, preserved as
 * units of their order, and filled with the file's bytes.
 */
import type { Path } from '../abi/fault.ts'
import { type PageSize, pageShift } from '../abi/layout.ts'
import type { IntType, StructType } from '../abi/schema.ts'
import { type ContentSource, contentSource } from './content.ts'
import { measuring } from './elements.ts'
import type { Content } from './handover.ts'
import { type Run, RunTable, UNPLACED } from './runs.ts'
import type { Site } from './site.ts'
import { neighbourRuns, type UnitRun, unitBytes } from './units.ts'

/** Places, preserves and fills the folios; gives back the records as they are stored. */
export function writeFolios(
  site: Site,
  element: StructType | IntType,
  records: RunTable<string>,
  bytes: Content | undefined,
  path: Path,
): RunTable<string> {
  const place = measuring(element, site.target, 'frame', 'address-order')
  if (!place) return records
  const content = bytes && contentSource(bytes)
  const shift = place.measure === 'frame' ? BigInt(pageShift(site.target.pageSize)) : 0n
  const index = measuring(element, site.target, 'page-index')?.name
  const lay = (table: RunTable<string>, run: number, given: boolean): void => {
    for (const units of unitsOf(table, run, place.name, shift, site.target.pageSize)) {
      if (given) site.preserve(units)
      if (content && index) fillFolios(site, units, table.run(run), index, content, path)
    }
  }
  if (!needsPlaces(records, place.name)) {
    for (let run = 0; run < records.length; run++) lay(records, run, true)
    return records
  }
  const stored = new RunTable(records.fields)
  for (const run of records) {
    const given = run.start[place.name] !== UNPLACED
    for (const part of given ? [run] : placeFolios(site, run, place.name, shift, path)) {
      stored.push(part)
      lay(stored, stored.length - 1, given)
    }
  }
  return stored
}

function needsPlaces(records: RunTable<string>, field: string): boolean {
  for (let run = 0; run < records.length; run++) if (records.start(field, run) === UNPLACED) return true
  return false
}

/** The memory that a run's records name; none for holes. Where address and order share a word, both may change. */
function* unitsOf(
  table: RunTable<string>,
  run: number,
  field: string,
  shift: bigint,
  pageSize: PageSize,
): Generator<UnitRun> {
  const value = table.start(field, run)
  const step = table.step(field, run)
  const count = table.count(run)
  if (value === 0n) return
  if (shift > 0n) yield { start: value << shift, order: table.order(run), count, step: step * pageSize }
  else if (step % pageSize === 0 || count === 1) {
    const order = value % BigInt(pageSize)
    yield { start: value - order, order: Number(order), count, step }
  } else {
    for (let at = 0n; at < count; at++) {
      const record = value + at * BigInt(step)
      const order = record % BigInt(pageSize)
      yield { start: record - order, order: Number(order), count: 1, step: 0 }
    }
  }
}

/** Cuts a run where the memory that it gets is not in one piece. */
function placeFolios(site: Site, run: Run, field: string, shift: bigint, path: Path): readonly Run[] {
  const placed = site.units(run.order, run.count, path)
  if (!placed) return []
  const step = unitBytes(run.order, site.target.pageSize)
  let done = 0
  return placed.map(({ start, count }) => {
    const part: Run = {
      ...run,
      count,
      start: {
        ...mapFields(run, (name) => (run.start[name] ?? 0n) + BigInt(done) * BigInt(run.step[name] ?? 0)),
        [field]: shift > 0n ? start >> shift : start | BigInt(run.order),
      },
      step: { ...run.step, [field]: step / 2 ** Number(shift) },
    }
    done += count
    return part
  })
}

function mapFields(run: Run, value: (name: string) => bigint): Record<string, bigint> {
  return Object.fromEntries(Object.keys(run.start).map((name) => [name, value(name)]))
}

/** Lays a file's bytes into the folios of a run. */
function fillFolios(
  site: Site,
  units: UnitRun,
  run: Run,
  index: string,
  content: ContentSource,
  path: Path,
): void {
  if (site.surveying) return
  const { pageSize } = site.target
  const bytes = BigInt(unitBytes(units.order, pageSize))
  const indexStart = run.start[index] ?? 0n
  const indexStep = BigInt(run.step[index] ?? 0)
  for (const piece of neighbourRuns(units, pageSize)) {
    const firstRecord = (piece.start - units.start) / BigInt(units.step || 1)
    const direction = units.step < 0 ? -1n : 1n
    const offsetAt = (pa: bigint): bigint => {
      const inPiece = pa - piece.start
      const record = firstRecord + direction * (inPiece / bytes)
      return (indexStart + record * indexStep) * BigInt(pageSize) + (inPiece % bytes)
    }
    const length = bytes * BigInt(piece.count)
    if (!site.checkRam(piece.start, length, path)) continue
    const fill = (pa: bigint, out: Uint8Array): void => {
      const offset = offsetAt(pa)
      if (offset >= content.length) return
      const known = Number(minimum(BigInt(out.length), content.length - offset))
      content.fill(offset, out.subarray(0, known))
    }
    const inOrder = direction > 0n && indexStep * BigInt(pageSize) === bytes
    const first = offsetAt(piece.start)
    const parts = inOrder ? content.parts(first, first + length) : [{ start: first, end: first + length }]
    for (const { start, end } of parts) {
      const at = piece.start - first
      site.fill(at + start, end - start, fill)
    }
  }
}

function minimum(one: bigint, other: bigint): bigint {
  return one < other ? one : other
}
