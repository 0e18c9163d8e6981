/**
 * Where things of a scenario stand in RAM that the allocator of the encoder does not place: scratch
 * areas, reserve_mem regions, extra ranges and the folios of the KHO test, from the top down, as the
 * kernel's boot allocator goes.
 */
import { csumPartial, sumOfWords } from '../abi/csum.ts'
import type { Path } from '../abi/fault.ts'
import { orderOf } from '../abi/layout.ts'
import { lowMemoryEnd, MIN_SCRATCH_AREAS, memoryOrders, scratchRules } from '../abi/machine.ts'
import { RESERVE_MEM_MAX_ENTRIES, RESERVE_MEM_NAME_SIZE } from '../abi/memblock.ts'
import { contentSource } from './content.ts'
import type { KhoTest, PlacedContent, RamRange, ReserveMem, Scratch } from './handover.ts'
import { RunTable } from './runs.ts'
import { type ContentContext, contentOf } from './scenario-content.ts'
import { releasesThatHave, type ScenarioMachine } from './scenario-machine.ts'
import { formatSize, type RamPlan } from './scenario-ram.ts'
import type { Scenario, ScenarioKhoTest, ScenarioPreserved, ScenarioReserveMem } from './scenario-schema.ts'
import { checkText } from './scenario-sessions.ts'
import { unitBytes } from './units.ts'

const MIB = 1n << 20n
/** Low memory, any use, node 0: what `kho_scratch=16M,64M,16M` gives. */
export const USUAL_SCRATCH: readonly ScratchArea[] = [16n * MIB, 64n * MIB, 16n * MIB].map((size) => ({
  size,
}))

type ScratchArea = NonNullable<Scenario['scratch']>[number]

/** Everything that places itself in RAM. */
export class MemoryBuilder {
  readonly #machine: ScenarioMachine
  readonly #ram: RamPlan
  readonly #context: ContentContext
  /** Contents at addresses. */
  readonly contents: PlacedContent[] = []

  constructor(machine: ScenarioMachine, ram: RamPlan, context: ContentContext) {
    this.#machine = machine
    this.#ram = ram
    this.#context = context
  }

  /** The areas in their order; the first is taken from low memory, as its index says. */
  scratch(areas: Scenario['scratch']): Scratch {
    const { report } = this.#context
    const listed: readonly ScratchArea[] = areas ?? USUAL_SCRATCH
    if (listed.length < MIN_SCRATCH_AREAS) {
      const why = 'one in low memory, one for any use, one for each node'
      report.wrong(
        ['scratch'],
        `expected at least ${MIN_SCRATCH_AREAS} areas (${why}), found ${listed.length}`,
      )
    }
    const rules = scratchRules(this.#machine.versions.kho as string, this.#machine.target.pageSize)
    const low = lowMemoryEnd(this.#machine.arch, this.#ram.ranges[0]?.start ?? 0n)
    const made = listed.map(({ start, size }, index) => {
      const path: Path = areas ? ['scratch', { index }] : ['scratch']
      const rounded = rules.roundsSizes ? size + ((rules.align - (size % rules.align)) % rules.align) : size
      if (size === 0n || rounded % BigInt(this.#machine.target.pageSize) !== 0n) {
        report.wrong(path, `${size} bytes; expected whole pages, at least one`)
        return { addr: 0n, size: 0n }
      }
      if (start === undefined) {
        const limit = index === 0 ? low : undefined
        return {
          addr: this.#ram.place(rounded, rules.align, 'scratch area', path, limit) ?? 0n,
          size: rounded,
        }
      }
      this.#ram.take({ start, size: rounded, what: 'scratch area' }, rules.align, path)
      return { addr: start, size: rounded }
    })
    return { areas: made }
  }

  reserveMem(regions: readonly ScenarioReserveMem[]): readonly ReserveMem[] {
    const { report } = this.#context
    if (regions.length > RESERVE_MEM_MAX_ENTRIES) {
      report.wrong(
        ['reserve_mem', { index: RESERVE_MEM_MAX_ENTRIES }],
        `${regions.length} regions; the kernel takes at most ${RESERVE_MEM_MAX_ENTRIES} (RESERVE_MEM_MAX_ENTRIES)`,
      )
    }
    const names = new Set<string>()
    return regions.flatMap((region, index) => {
      const path = ['reserve_mem', { index }]
      if (names.has(region.name)) {
        report.wrong(
          [...path, 'name'],
          `the name ${JSON.stringify(region.name)} is there twice; expected another one`,
        )
      }
      names.add(region.name)
      const made = this.#region(region, path)
      return made ? [made] : []
    })
  }

  #region(region: ScenarioReserveMem, path: Path): ReserveMem | undefined {
    const { report } = this.#context
    const { name, size, start: given } = region
    const named = checkText(
      name,
      RESERVE_MEM_NAME_SIZE - 1,
      'the name of a region',
      [...path, 'name'],
      this.#context,
    )
    if (named && name.trim() === '')
      report.wrong([...path, 'name'], 'expected a name that is not only white space')
    const page = BigInt(this.#machine.target.pageSize)
    if (size === 0n || size % page !== 0n) {
      const reason = 'what follows the last whole page is not handed over'
      return report.wrong(
        [...path, 'size'],
        `${size} bytes; expected a multiple of ${formatSize(page)}: ${reason}`,
      )
    }
    const align = region.align ?? page
    if ((align & (align - 1n)) !== 0n) {
      return report.wrong([...path, 'align'], `${align} is not a power of two`)
    }
    const least = align > page ? align : page
    if (given !== undefined) this.#ram.take({ start: given, size, what: 'region' }, least, path)
    const start = given ?? this.#ram.place(size, least, 'region', path)
    const place = { length: size, into: 'the region' }
    const content = contentOf(region.content, place, [...path, 'content'], this.#context)
    return start === undefined ? undefined : { name, start, size, ...(content && { content }) }
  }

  /** More preserved ranges, each in whole pages. */
  preserved(ranges: readonly ScenarioPreserved[]): readonly RamRange[] {
    return ranges.flatMap((range, index) => this.#pieces(range, ['preserved', { index }]))
  }

  #pieces(range: ScenarioPreserved, path: Path): readonly RamRange[] {
    const { report } = this.#context
    const { size, count = 1, every = size } = range
    const page = BigInt(this.#machine.target.pageSize)
    if (size === 0n || size % page !== 0n) {
      report.wrong(
        [...path, 'size'],
        `${size} bytes; expected a multiple of ${formatSize(page)}, at least one`,
      )
      return []
    }
    if (every < size || every % page !== 0n) {
      const least = formatSize(size)
      report.wrong(
        [...path, 'every'],
        `${every} bytes; expected a multiple of ${formatSize(page)}, at least ${least}`,
      )
      return []
    }
    const length = BigInt(count - 1) * every + size
    if (range.start !== undefined)
      this.#ram.take({ start: range.start, size: length, what: 'range' }, page, path)
    const start = range.start ?? this.#ram.place(length, page, 'range', path)
    if (start === undefined) return []
    const place = { length, into: 'the range' }
    const content = contentOf(range.content, place, [...path, 'content'], this.#context)
    if (content) this.contents.push({ at: start, content })
    return Array.from({ length: count }, (_, at) => ({ start: start + BigInt(at) * every, size }))
  }

  /** What lib/test_kho.c preserves: folios of several orders full of noise, and their checksum. */
  khoTest({ orders = [0, 1, 2, 3, 0], seed = 1n, off }: ScenarioKhoTest): KhoTest | undefined {
    const path = ['kho_test']
    const { report } = this.#context
    if (off) return undefined
    if (this.#machine.versions['kho-test'] === undefined) {
      const those = releasesThatHave((versions) => versions['kho-test'] !== undefined)
      return report.absent(path, `${this.#machine.label} has no KHO test; expected one of ${those}`)
    }
    const { pageSize } = this.#machine.target
    const records = new RunTable<'value'>(['value'])
    let csum = 0
    for (const [index, order] of orders.entries()) {
      const { largest } = memoryOrders[pageSize]
      const at = [...path, 'orders', { index }]
      if (order > largest) return report.wrong(at, `order ${order}; the largest here is ${largest}`)
      const bytes = unitBytes(order, pageSize)
      const start = this.#ram.place(BigInt(bytes), BigInt(bytes), 'folio of the KHO test', at)
      if (start === undefined) return undefined
      const content = {
        seed: BigInt.asUintN(64, seed + BigInt(index)),
        every: bytes,
        run: bytes,
        length: BigInt(bytes),
      }
      const folio = new Uint8Array(bytes)
      contentSource(content).fill(0n, folio)
      csum = csumPartial(this.#machine.arch, sumOfWords(folio), csum)
      this.contents.push({ at: start, content })
      records.push({ count: 1, order, start: { value: start | BigInt(order) }, step: { value: 0 } })
    }
    return { csum, folios_info: { records } }
  }

  /** Whether a blob of its own fits one unit of the page allocator. */
  checkBlob(bytes: number, path: Path): boolean {
    const { pageSize } = this.#machine.target
    const { largest } = memoryOrders[pageSize]
    if (orderOf(bytes, pageSize) <= largest) return true
    const most = formatSize(BigInt(unitBytes(largest, pageSize)))
    this.#context.report.wrong(path, `${bytes} bytes; expected at most ${most}, the largest unit`)
    return false
  }
}
