/**
 * The pages of the map of preserved memory: kho_mem_deserialize() and kho_radix_walk_tree() follow every
 * pointer in them, none of which they check.
 */
import type { Fault, FaultCode } from '../abi/fault.ts'
import { losesOrder0Marker, radixShape } from '../abi/kho-map.ts'
import { hex, type PhysRange, parseAddress, phys } from '../abi/memory.ts'
import { formatContract } from '../abi/registry.ts'
import type { MapPage, PreservedMap } from './map.ts'
import { type Rule, silent, type Violation } from './rule.ts'
import type { Subject } from './subject.ts'
import { violationOf } from './violations.ts'

const MAP = 'kho.memory_map'

const walk = {
  component: 'kho',
  since: 'linux-6.16',
  requires: ['KHO_MAP_ADDRESS', 'KHO_MAP_FORM'],
  source: 'kho_mem_retrieve()',
  outcome: 'corrupts',
  stage: 'walk',
} as const

/** What a kernel that follows every pointer comes to, and does not survive. */
const FATAL: readonly FaultCode[] = ['MEMORY_HOLE', 'ADDRESS_OVERFLOW', 'RADIX_KEY', 'CHAIN_LIMIT']

/** Violations for the decoder's faults of the map, as they are or told more of. */
function* faultsOfMap(
  { faults }: Subject,
  codes: readonly FaultCode[],
  more: (fault: Fault) => Partial<Violation> = () => ({}),
): Generator<Violation> {
  for (const fault of faults.take(codes, MAP)) yield { ...violationOf(fault), ...more(fault) }
}

export const mapRules: readonly Rule[] = [
  silent({
    ...walk,
    id: 'KHO_MAP_FORM',
    requires: ['KHO_MAP_ADDRESS'],
    why: 'kho-v1 has bitmaps of 512 bytes or of a page, kho-v3 trees of two depths at 16K pages; the version string tells neither, and the kernel reads its own.',
    check: function* (subject) {
      const { written, handover } = subject
      const from = written.version
      const to = handover.version
      if (!from || !to || from === to || isSameMap(mapIn(written), mapIn(handover))) return
      yield {
        path: MAP,
        pa: handover.fdt ?? phys(0),
        length: 8,
        message: `the map was written as ${from.id} and is read as ${to.id}; both say ${formatContract(to.contract)}`,
        expected: to.id,
        found: from.id,
        hides: '',
      }
    },
  }),
  silent({
    ...walk,
    id: 'KHO_MAP_OUTSIDE',
    why: 'The walk follows every address that is not 0; where there is no memory the kernel dies of it.',
    check: function* (subject) {
      // A copy of debugfs holds no memory that a pointer could miss.
      if (subject.handover.fdt === undefined) return
      for (const fault of subject.faults.take(['MEMORY_HOLE', 'ADDRESS_OVERFLOW', 'ADDRESS_NULL'], MAP)) {
        const hop = fault.via.at(-1)
        const isWild = !subject.known.mayHold(hop?.target ?? fault.pa)
        const isFatal = isWild || fault.code === 'ADDRESS_NULL'
        yield { ...violationOf(fault), pa: hop?.pa ?? fault.pa, length: 8, ...(isFatal && { ends: true }) }
      }
    },
  }),
  silent({
    ...walk,
    id: 'KHO_MAP_MISALIGNED',
    why: 'The walk takes the bytes at any address for a page of the map; nobody checks that it starts one.',
    check: (subject) =>
      faultsOfMap(subject, ['ADDRESS_MISALIGNED'], ({ found }) => {
        const target = parseAddress(found ?? '')
        const isWild = target !== undefined && !subject.known.mayHold(target)
        return { ends: isWild || subject.map?.edge.kind !== 'chunks' }
      }),
  }),
  silent({
    ...walk,
    id: 'KHO_MAP_CYCLE',
    why: 'The walk has no limit: it goes on along a chain of chunks that leads back, and through a map of any size.',
    source: 'kho_mem_deserialize()',
    check: (subject) =>
      faultsOfMap(subject, ['CHAIN_CYCLE', 'CHAIN_LIMIT'], () => ({ ends: true, hides: 'preserved' })),
  }),
  silent({
    ...walk,
    id: 'KHO_MAP_TWICE',
    why: 'A page of the map that two pointers lead to is read twice: its bits then stand for other memory, too, which is reserved for nobody.',
    outcome: 'takes-over',
    check: (subject) => {
      const isFatal = subject.followedFaults.some(({ code }) => FATAL.includes(code))
      return faultsOfMap(subject, ['REACHED_TWICE'], () =>
        isFatal ? { outcome: 'corrupts', ends: true, stage: 'map' } : {},
      )
    },
  }),
  silent({
    ...walk,
    id: 'KHO_RADIX_KEY',
    since: 'kho-v2',
    why: 'A key is decoded whatever its top bit: without a place for an order it stands for memory that nobody preserved.',
    source: 'kho_radix_decode_key()',
    check: (subject) => faultsOfMap(subject, ['RADIX_KEY'], () => ({ ends: true, stage: 'map' })),
  }),
  silent({
    ...walk,
    id: 'KHO_CHUNK_ORDER',
    until: 'linux-7.0',
    why: 'The order of a chunk is shifted by as it is.',
    source: 'deserialize_bitmap()',
    check: (subject) => faultsOfMap(subject, ['ORDER_RANGE']),
  }),
  silent({
    ...walk,
    id: 'KHO_CHUNK_COUNT',
    until: 'linux-7.0',
    why: 'A chunk is read as far as it says, also beyond its page.',
    source: 'kho_mem_deserialize()',
    check: (subject) => faultsOfMap(subject, ['COUNT_RANGE'], () => ({ ends: true })),
  }),
  silent({
    ...walk,
    id: 'KHO_RADIX_DEPTH',
    since: 'kho-v2',
    why: 'Before commit d64b0372760e the tree had no level for the marker of order 0 at 16K pages: units of one page come back as others.',
    source: 'kho_radix_decode_key()',
    check: function* ({ map, target }) {
      if (map?.edge.kind !== 'radix' || !losesOrder0Marker(radixShape(map.edge, target))) return
      const order0 = map.summary().byOrder.get(0)
      if (order0 === undefined) return
      const root = map.pages[0]
      yield {
        path: MAP,
        pa: root?.pa ?? phys(0),
        length: target.pageSize,
        message: `the tree cannot hold the order of ${order0} units of one page`,
        expected: 'a tree with one level more, as from linux-7.1 on',
        found: `${order0} keys without a marker`,
        hides: '',
      }
    },
  }),
  silent({
    ...walk,
    id: 'KHO_MAP_IN_SCRATCH',
    why: 'The scratch areas are what the kernel allocates from while the map is still to be read.',
    source: 'memblock_set_kho_scratch_only()',
    check: function* (subject) {
      for (const page of subject.map?.pages ?? []) {
        const area = areaOf(subject.scratch, page)
        if (!area) continue
        yield {
          path: MAP,
          pa: page.pa,
          length: page.length,
          message: `a ${page.role} of the map lies in a scratch area`,
          expected: 'memory outside of all scratch areas',
          found: `${hex(page.pa)} in ${hex(area.start)} to ${hex(area.end)}`,
        }
      }
    },
  }),
  silent({
    ...walk,
    id: 'KHO_MAP_PRESERVED',
    severity: 'warning',
    why: "The map's own pages are not preserved; a unit that holds one keeps it from being freed, for nobody.",
    outcome: 'takes-over',
    check: function* (subject) {
      for (const page of subject.map?.pages ?? []) {
        const unit = subject.units.unitAt(subject.pfn(page.pa))
        if (!unit) continue
        yield {
          path: MAP,
          pa: page.pa,
          length: page.length,
          message: `a ${page.role} of the map is preserved itself`,
          expected: 'pages of the map are not preserved',
          found: `${hex(page.pa)} in a unit of order ${unit.order}`,
        }
      }
    },
  }),
]

function mapIn({ tree }: Subject['handover']): PreservedMap | undefined {
  const node = tree.children.find(({ kind }) => kind === 'preserved')
  return node?.kind === 'preserved' ? node.map : undefined
}

/** Whether two readings find the same units. */
function isSameMap(a: PreservedMap | undefined, b: PreservedMap | undefined): boolean {
  if (!a || !b) return a === b
  const one = a.summary()
  const other = b.summary()
  return one.entries === other.entries && one.bytes === other.bytes && one.extentCount === other.extentCount
}

function areaOf(areas: readonly PhysRange[], { pa, length }: MapPage): PhysRange | undefined {
  return areas.find(({ start, end }) => pa < end && pa + BigInt(length) > start)
}
