/**
 * Preserved units: blocks of 2^order pages, aligned to their own size, in runs.
 *
 * Mirrors __kho_preserve_pages() in kernel/liveupdate/kexec_handover.c; without its NUMA rule, since a
 * document knows no nodes.
 */
import { type PageSize, pageShift } from '../abi/layout.ts'
import { RunTable } from './runs.ts'

/** A list of units: the address of each; the step of a run is the size of a unit unless told otherwise. */
export type UnitTable = RunTable<'start'>

/** Units of one order, `step` bytes from one to the next. */
export interface UnitRun {
  readonly start: bigint
  readonly order: number
  readonly count: number
  /** The size of a unit where they are neighbours, its negative where they lie downwards. */
  readonly step: number
}

/** Bytes of a unit. */
export function unitBytes(order: number, pageSize: PageSize): number {
  return pageSize * 2 ** order
}

/** The order of a unit that is all of 64 bits of addresses. */
export function largestOrder(pageSize: PageSize): number {
  return 64 - pageShift(pageSize)
}

/** Builds a table of units from runs of neighbours: `count` units of 2^order pages from `start` on. */
export function unitTable(
  pageSize: PageSize,
  runs: readonly { readonly start: bigint; readonly order?: number; readonly count?: number }[] = [],
): UnitTable {
  const table: UnitTable = new RunTable(['start'])
  for (const { start, order = 0, count = 1 } of runs) {
    pushUnits(table, { start, order, count, step: unitBytes(order, pageSize) })
  }
  return table
}

export function pushUnits(table: UnitTable, { start, order, count, step }: UnitRun): void {
  table.push({ count, order, start: { start }, step: { start: step } })
}

/** A run of a table by its index. */
export function unitRun(table: UnitTable, index: number): UnitRun {
  return {
    start: table.start('start', index),
    order: table.order(index),
    count: table.count(index),
    step: table.step('start', index),
  }
}

/** The same units in runs of neighbours, upwards; units apart from each other become runs of one. */
export function* neighbourRuns(
  { start, order, count, step }: UnitRun,
  pageSize: PageSize,
): Generator<UnitRun> {
  const bytes = unitBytes(order, pageSize)
  if (count === 1 || step === bytes) yield { start, order, count, step: bytes }
  else if (step === -bytes) {
    yield { start: start - BigInt(bytes) * BigInt(count - 1), order, count, step: bytes }
  } else {
    for (let at = 0; at < count; at++) {
      yield { start: start + BigInt(at) * BigInt(step), order, count: 1, step: bytes }
    }
  }
}

/**
 * Splits whole pages into units as kho_preserve_pages() does: each as large as its address is aligned
 * and what is left allows.
 */
export function* splitPages(start: bigint, nrPages: bigint, pageSize: PageSize): Generator<UnitRun> {
  const shift = BigInt(pageShift(pageSize))
  let frame = start >> shift
  const end = frame + nrPages
  while (frame < end) {
    const left = floorLog2(end - frame)
    const order = frame === 0n ? left : Math.min(trailingZeros(frame), left)
    yield { start: frame << shift, order, count: 1, step: unitBytes(order, pageSize) }
    frame += 1n << BigInt(order)
  }
}

function floorLog2(value: bigint): number {
  return value.toString(2).length - 1
}

function trailingZeros(value: bigint): number {
  return floorLog2(value & -value)
}
