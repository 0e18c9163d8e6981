/** Faults of the scratch areas and of what the next kernel is told of them. */
import { type Change, together, type Unfit } from './change.ts'
import type { NamedFault } from './named-fault.ts'
import type { Site } from './site.ts'

const UNKNOWN: Unfit = { unfit: 'its scratch areas are not known; tell them with --scratch' }

/** The area of the first node: none is taken from it until the others are full. */
const NODE_AREA = 2
/** The area for allocations of any kind. */
const MAIN_AREA = 1

/** Moves an area. */
function move(site: Site, index: number, addr: bigint, size?: bigint): Change {
  const area = site.nodes('scratch[*]')[index]
  if (area?.kind !== 'record') return UNKNOWN
  const field = (name: string) => area.children.find(({ segment }) => segment === name)
  const moved = site.set(field('addr'), addr)
  return size === undefined ? moved : together(moved, site.set(field('size'), size))
}

const ifKnown = (site: Site, change: () => Change): Change =>
  site.scratch.length > NODE_AREA ? change() : UNKNOWN

const areaOf = (site: Site, index: number): { start: bigint; size: bigint } => {
  const { start = 0n, end = 0n } = site.scratch[index] ?? {}
  return { start, size: end - start }
}

/** A multiple of the alignment of areas in every release and page size. */
const ALIGN = 1n << 29n

export const scratchFaults: readonly NamedFault[] = [
  {
    name: 'scratch-array-huge',
    doc: 'The next kernel is told of more scratch areas than it can map.',
    class: 'boot',
    rule: 'KHO_SCRATCH_MAPPED',
    apply: (site) => ifKnown(site, () => [{ boot: { scratch_size: 1n << 20n } }]),
  },
  {
    name: 'scratch-array-odd',
    doc: 'The length of the scratch array is no multiple of an area.',
    class: 'boot',
    rule: 'KHO_SCRATCH_LENGTH',
    apply: (site) =>
      ifKnown(site, () => [{ boot: { scratch_size: BigInt(site.scratch.length) * 16n + 8n } }]),
  },
  {
    name: 'scratch-array-untold',
    doc: 'The image does not say where the scratch array is.',
    class: 'boot',
    rule: 'KHO_SCRATCH_UNKNOWN',
    apply: (site) => ifKnown(site, () => [{ boot: { scratch_addr: 0n, scratch_size: 0n } }]),
  },
  {
    name: 'scratch-areas-empty',
    doc: 'No scratch area has any bytes.',
    class: 'field',
    rule: 'KHO_SCRATCH_NONE',
    apply: (site) =>
      ifKnown(site, () => together(...site.scratch.map(({ start }, index) => move(site, index, start, 0n)))),
  },
  {
    name: 'scratch-area-empty',
    doc: "A node's scratch area has no bytes.",
    class: 'field',
    rule: 'KHO_SCRATCH_EMPTY',
    apply: (site) => ifKnown(site, () => move(site, NODE_AREA, areaOf(site, NODE_AREA).start, 0n)),
  },
  {
    name: 'scratch-area-misaligned',
    doc: 'A scratch area starts a page later than the old kernel would place it.',
    class: 'field',
    rule: 'KHO_SCRATCH_MISALIGNED',
    apply: (site) =>
      ifKnown(site, () => {
        const { start, size } = areaOf(site, NODE_AREA)
        return move(site, NODE_AREA, start + site.pageSize, size - site.pageSize)
      }),
  },
  {
    name: 'scratch-areas-overlap',
    doc: 'Two scratch areas start at the same address.',
    class: 'field',
    rule: 'KHO_SCRATCH_OVERLAP',
    apply: (site) => ifKnown(site, () => move(site, NODE_AREA, areaOf(site, MAIN_AREA).start)),
  },
  {
    name: 'scratch-area-outside',
    doc: 'A scratch area lies where there is no memory.',
    class: 'field',
    rule: 'KHO_SCRATCH_OUTSIDE',
    apply: (site) => ifKnown(site, () => move(site, NODE_AREA, ALIGN << 16n)),
  },
  {
    name: 'unit-in-scratch',
    doc: 'A page of a scratch area is preserved, by nobody.',
    class: 'map',
    rule: 'KHO_UNIT_IN_SCRATCH',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) =>
      ifKnown(site, () => {
        const start = site.scratch
          .map((area) => area.start as bigint)
          .find((pa) => site.canPreserve({ pa, order: 0 }))
        return start === undefined
          ? { unfit: 'its map has no room for a page of scratch' }
          : site.preserve({ pa: start, order: 0 })
      }),
  },
  {
    name: 'map-in-scratch',
    doc: 'A scratch area is where the root of the map of preserved memory lies.',
    class: 'field',
    rule: 'KHO_MAP_IN_SCRATCH',
    follows: ['KHO_SCRATCH_MISALIGNED'],
    apply: (site) =>
      ifKnown(site, () => move(site, NODE_AREA, site.number('kho.memory_map') ?? 0n, site.pageSize)),
  },
  {
    name: 'root-in-scratch',
    doc: 'A scratch area is where the root FDT lies.',
    class: 'field',
    rule: 'KHO_SCRATCH_CLAIMED',
    follows: ['KHO_SCRATCH_MISALIGNED', 'KHO_UNIT_IN_SCRATCH'],
    apply: (site) => ifKnown(site, () => move(site, NODE_AREA, site.handover.fdt ?? 0n, site.pageSize)),
  },
]
