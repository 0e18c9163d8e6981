/**
 * The scratch areas: the only memory that the next kernel allocates from until it has read the map. None
 * of their properties is checked.
 */
import { EARLY_MEMREMAP_MAX, khoScratch } from '../abi/boot.ts'
import { layoutOf } from '../abi/layout.ts'
import { scratchRules as placementOf } from '../abi/machine.ts'
import { hex, type PhysRange, phys } from '../abi/memory.ts'
import { KnownMemory } from './known-memory.ts'
import { note, type Rule, refuses, silent, type Violation } from './rule.ts'
import type { Subject } from './subject.ts'
import { violationOf } from './violations.ts'

const area = {
  component: 'kho',
  since: 'linux-6.16',
  requires: ['KHO_MAP_ADDRESS', 'KHO_SCRATCH_MAPPED'],
  source: 'kho_populate()',
  stage: 'populate',
} as const

const SIZE = layoutOf(khoScratch, { pageSize: 4096 }).size

/** A violation at one area. */
function atArea({ handover, scratch }: Subject, range: PhysRange): Pick<Violation, 'path' | 'pa' | 'length'> {
  const index = scratch.indexOf(range)
  const list = handover.tree.children.find(({ segment }) => segment === 'scratch')
  const item = list?.kind === 'list' ? list.items[index] : undefined
  return { path: `scratch[${index}]`, pa: item?.pa ?? range.start, length: item?.length ?? SIZE }
}

const isEmpty = ({ start, end }: PhysRange): boolean => end <= start

export const scratchRules: readonly Rule[] = [
  refuses({
    id: 'KHO_SCRATCH_MAPPED',
    stage: 'populate',
    requires: ['KHO_MAP_ADDRESS'],
    check: function* (subject) {
      const taken = subject.faults.take('COUNT_RANGE', 'boot.scratch_size')
      const { scratch_addr: address = 0n, scratch_size: size = 0n } = subject.handover.scratchArray ?? {}
      if (address === 0n || (size > 0n && size <= BigInt(EARLY_MEMREMAP_MAX))) return
      yield {
        path: 'boot.scratch_size',
        pa: phys(address),
        length: 0,
        message: taken[0]?.message ?? 'the kernel cannot map the scratch array',
        expected: `1 to ${EARLY_MEMREMAP_MAX} bytes`,
        found: `${size} bytes`,
        hides: '',
        log: [address, size],
      }
    },
  }),
  silent({
    ...area,
    id: 'KHO_SCRATCH_LENGTH',
    severity: 'warning',
    why: 'The number of areas is the length divided by 16; what is left over is not seen.',
    outcome: 'takes-over',
    check: function* ({ faults }) {
      for (const fault of faults.take('VALUE_UNEXPECTED', 'boot.scratch_size')) yield violationOf(fault)
    },
  }),
  silent({
    ...area,
    id: 'KHO_SCRATCH_NONE',
    why: 'Until it has read the map the kernel allocates from scratch areas alone; without any byte of them its first allocation fails, and with it the boot.',
    source: 'memblock_set_kho_scratch_only()',
    outcome: 'panics',
    check: function* (subject) {
      const { scratch } = subject
      const array = subject.node('scratch')
      if (!array || !scratch.every(isEmpty)) return
      const [first] = scratch
      yield {
        ...(first ? atArea(subject, first) : { path: 'scratch', pa: array.pa, length: 0 }),
        message: 'no scratch area has any memory',
        expected: 'an area with memory',
        found: `${scratch.length} areas of 0 bytes`,
        hides: 'scratch',
        ends: true,
      }
    },
  }),
  silent({
    ...area,
    id: 'KHO_SCRATCH_EMPTY',
    severity: 'warning',
    requires: [...area.requires, 'KHO_SCRATCH_NONE'],
    why: 'An area of no bytes is none; what would be allocated there comes from the others.',
    outcome: 'takes-over',
    check: function* (subject) {
      const { scratch } = subject
      for (let first = 0; first < scratch.length; first++) {
        const range = scratch[first] as PhysRange
        if (!isEmpty(range)) continue
        const rest = scratch.slice(first)
        const other = rest.findIndex((area) => !isEmpty(area))
        const areas = other < 0 ? rest.length : other
        yield {
          ...atArea(subject, range),
          message:
            areas > 1 ? `${areas} scratch areas in a row have no memory` : 'a scratch area has no memory',
          expected: 'an area with memory',
          found: '0 bytes',
        }
        first += areas
      }
    },
  }),
  silent({
    ...area,
    id: 'KHO_SCRATCH_MISALIGNED',
    severity: 'warning',
    why: 'The old kernel places areas at multiples of the largest unit of the page allocator, before 7.2 of a pageblock; inside of a page, an area gives away memory that is not its own.',
    outcome: 'takes-over',
    check: function* (subject) {
      const { kernel, target, written } = subject
      const version = written.version?.id ?? kernel.versions.kho
      if (version === undefined) return
      const { align } = placementOf(version, target.pageSize)
      const page = BigInt(target.pageSize)
      for (const range of subject.scratch) {
        if (range.start % align === 0n) continue
        const isInPage = range.start % page !== 0n
        yield {
          ...atArea(subject, range),
          message: `a scratch area starts at ${hex(range.start)}`,
          expected: `a multiple of ${hex(align)}`,
          found: hex(range.start),
          ...(isInPage && { outcome: 'corrupts', severity: 'error', stage: 'walk', ends: true }),
        }
      }
    },
  }),
  silent({
    ...area,
    id: 'KHO_SCRATCH_OVERLAP',
    severity: 'warning',
    why: 'memblock joins areas that overlap; the old kernel makes none such.',
    source: 'memblock_mark_kho_scratch()',
    outcome: 'takes-over',
    check: function* (subject) {
      const areas = subject.scratch.filter((range) => !isEmpty(range))
      areas.sort((a, b) => (a.start < b.start ? -1 : 1))
      let before: PhysRange | undefined
      for (const range of areas) {
        if (before && range.start < before.end) {
          yield {
            ...atArea(subject, range),
            message: 'two scratch areas overlap',
            expected: `a start at ${hex(before.end)} or above`,
            found: `${hex(range.start)}, in the area at ${hex(before.start)}`,
          }
        }
        if (!before || range.end > before.end) before = range
      }
    },
  }),
  silent({
    ...area,
    id: 'KHO_SCRATCH_OUTSIDE',
    why: 'Every area is added to the memory that there is, and allocated from.',
    source: 'memblock_add()',
    outcome: 'corrupts',
    stage: 'walk',
    check: function* (subject) {
      const ram = new KnownMemory(subject.memory.ranges, subject.target.pageSize)
      if (subject.memory.ranges.length === 0 || subject.handover.fdt === undefined) return
      for (const range of subject.scratch) {
        if (isEmpty(range) || (ram.mayHold(range.start) && range.end <= ram.end)) continue
        yield {
          ...atArea(subject, range),
          message: 'a scratch area is where there is no memory',
          expected: `memory between ${hex(ram.start)} and ${hex(ram.end)}`,
          found: `${hex(range.start)} to ${hex(range.end)}`,
          ends: true,
        }
      }
    },
  }),
  silent({
    ...area,
    id: 'KHO_SCRATCH_CLAIMED',
    requires: [...area.requires, 'KHO_MAP_FORM'],
    why: 'What lies in a scratch area is overwritten before anybody reads it: the next kernel itself is loaded there.',
    source: 'memblock_set_kho_scratch_only()',
    outcome: 'corrupts',
    stage: 'retrieve',
    check: function* (subject) {
      for (const range of subject.scratch) {
        if (isEmpty(range)) continue
        const page = BigInt(subject.target.pageSize)
        const [from, to] = [Number(range.start / page), Number((range.end + page - 1n) / page)]
        for (const { group, pfn } of subject.claimed.within(from, to)) {
          yield {
            path: group.path,
            pa: subject.address(pfn),
            length: subject.target.pageSize,
            via: group.via,
            message: `${group.what} lies in a scratch area`,
            expected: 'memory outside of all scratch areas',
            found: `${hex(subject.address(pfn))} in ${hex(range.start)} to ${hex(range.end)}`,
          }
        }
      }
    },
  }),
  note({
    ...area,
    id: 'KHO_SCRATCH_UNKNOWN',
    why: 'The scratch array is handed over beside the root FDT and is not preserved; where it is not told, nothing is held against it.',
    check: function* (subject) {
      const { handover, faults } = subject
      faults.take(['MEMORY_HOLE', 'MEMORY_EXCLUDED'], 'scratch')
      if (subject.node('scratch')) return
      yield {
        path: 'scratch',
        pa: handover.fdt ?? phys(0),
        length: 0,
        message: 'the scratch areas are not known; that nothing lies in them was not checked',
      }
    },
  }),
]
