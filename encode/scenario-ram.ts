/**
 * The machine's RAM while a scenario is laid out: what stands where, and where the kernel's boot
 * allocator would put the next thing: as high as it goes.
 */
import { formatPath, type Path } from '../abi/fault.ts'
import { machines } from '../abi/machine.ts'
import { hex, MAX_PHYS, type PhysRange, phys } from '../abi/memory.ts'
import { mergeRanges } from './memory.ts'
import type { ScenarioMachine } from './scenario-machine.ts'
import type { ScenarioRam } from './scenario-schema.ts'
import type { ScenarioReport } from './scenario-text.ts'

const MIB = 1n << 20n

/** What is enough for the usual scratch areas and some hundred MiB besides, by page size. */
const USUAL_RAM: Readonly<Record<number, bigint>> = {
  4096: 512n * MIB,
  16384: 1024n * MIB,
  65536: 4096n * MIB,
}

interface Taken {
  readonly start: bigint
  readonly end: bigint
  readonly path: Path
  readonly what: string
}

/** A thing that has a place already. */
export interface PlacedRange {
  readonly start: bigint
  readonly size: bigint
  /** `scratch area`, for messages. */
  readonly what: string
}

export class RamPlan {
  readonly ranges: readonly PhysRange[]
  /** Start of RAM, which firmware uses. */
  readonly firmware: PhysRange
  readonly #report: ScenarioReport
  readonly #taken: Taken[] = []

  constructor(ranges: readonly PhysRange[], firmware: PhysRange, report: ScenarioReport) {
    this.ranges = mergeRanges(ranges)
    this.firmware = firmware
    this.#report = report
  }

  get bytes(): bigint {
    return this.ranges.reduce((sum, { start, end }) => sum + end - start, 0n)
  }

  /** Takes a range that the scenario places itself; what is wrong with the place is reported. */
  take({ start, size, what }: PlacedRange, align: bigint, path: Path): boolean {
    const end = start + size
    if (start % align !== 0n) {
      this.#report.wrong(
        [...path, 'start'],
        `${hex(start)} is not a multiple of ${formatSize(align)}; expected ${hex(start - (start % align))} or ${hex(start - (start % align) + align)}`,
      )
      return false
    }
    if (!this.ranges.some((range) => range.start <= start && end <= range.end)) {
      const known = this.ranges.map((range) => `${hex(range.start)} to ${hex(range.end)}`).join(', ')
      this.#report.wrong(path, `${hex(start)} to ${hex(end)} is not RAM; RAM is ${known}`)
      return false
    }
    const other = this.#taken.find((one) => one.start < end && start < one.end)
    if (other) {
      this.#report.wrong(
        path,
        `${hex(start)} to ${hex(end)} overlaps the ${other.what} of ${formatPath(other.path)} from ${hex(other.start)} to ${hex(other.end)}`,
      )
      return false
    }
    this.#taken.push({ start, end, path, what })
    return true
  }

  /** Places a range as high as it goes below `limit`; undefined, and reported, where no gap is large enough. */
  place(size: bigint, align: bigint, what: string, path: Path, limit = MAX_PHYS): bigint | undefined {
    const start = this.#highestGap(size, align, limit)
    if (start === undefined) {
      const below = limit < (this.ranges.at(-1)?.end ?? 0n) ? ` below ${hex(limit)}` : ''
      return this.#report.wrong(
        path,
        `memory too small: no ${formatSize(size)} in one piece, aligned to ${formatSize(align)}, are left for this ${what}${below} in ${formatSize(this.bytes)} of RAM`,
      )
    }
    this.#taken.push({ start, end: start + size, path, what })
    return start
  }

  #highestGap(size: bigint, align: bigint, limit: bigint): bigint | undefined {
    const blocked = [this.firmware, ...this.#taken].sort((a, b) => (a.start < b.start ? 1 : -1))
    for (const range of this.ranges.toReversed()) {
      let top = range.end < limit ? range.end : limit
      for (const { start, end } of [...blocked, { start: range.start, end: range.start }]) {
        if (start >= top || end < range.start) continue
        const bottom = end > range.start ? end : range.start
        const at = top - size - ((top - size) % align)
        if (top >= size && at >= bottom) return at
        top = start < top ? start : top
      }
    }
    return undefined
  }
}

/** RAM as the scenario says; undefined after what is wrong was reported. */
export function ramOf(
  ram: ScenarioRam | undefined,
  { arch, target }: ScenarioMachine,
  report: ScenarioReport,
): RamPlan | undefined {
  const { ramStart, firmwareBytes } = machines[arch]
  const start = ram?.start ?? ramStart
  const size = ram?.size ?? (USUAL_RAM[target.pageSize] as bigint)
  const page = BigInt(target.pageSize)
  const end = start + size
  if (size === 0n || start % page !== 0n || size % page !== 0n || end > MAX_PHYS) {
    return report.wrong(
      ['ram'],
      `RAM from ${hex(start)} to ${hex(end)}; expected whole pages of ${formatSize(page)}, at least one, below 2^64`,
    )
  }
  const ranges: PhysRange[] = []
  let from = start
  const holes = [...(ram?.holes ?? [])].sort((a, b) => (a.start < b.start ? -1 : 1))
  for (const hole of holes) {
    const isInside = start <= hole.start && hole.start + hole.size <= end
    if (!isInside || hole.start < from || hole.start % page !== 0n || hole.size % page !== 0n) {
      const index = ram?.holes?.indexOf(hole) ?? 0
      return report.wrong(
        ['ram', 'holes', { index }],
        `${hex(hole.start)} to ${hex(hole.start + hole.size)}; expected whole pages inside of RAM (${hex(start)} to ${hex(end)}), apart from the other holes`,
      )
    }
    if (hole.start > from) ranges.push({ start: phys(from), end: hole.start })
    from = hole.start + hole.size
  }
  if (from < end) ranges.push({ start: phys(from), end })
  const firmware = { start: phys(start), end: start + firmwareBytes }
  return new RamPlan(ranges, firmware, report)
}

const STEPS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const

/** Bytes in the largest unit that divides them: `64MiB`. */
export function formatSize(bytes: bigint): string {
  let step = 0
  let value = bytes
  while (value > 0n && value % 1024n === 0n && step < STEPS.length - 1) {
    value /= 1024n
    step++
  }
  return step === 0 ? `${value} bytes` : `${value}${STEPS[step]}`
}
