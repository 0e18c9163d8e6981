/** Faults of the map of preserved memory: its pages and what their bits say. */
import { khoMemPhysBits512, khoserMemBitmapPtr, khoserMemChunkHdr, radixShape } from '../abi/kho-map.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { memoryOrders } from '../abi/machine.ts'
import type { MapPage } from '../inspect/map.ts'
import type { Change, Unfit } from './change.ts'
import type { NamedFault } from './named-fault.ts'
import type { PlacedUnit, Site } from './site.ts'

const NO_TREE: Unfit = { unfit: 'its map is no radix tree' }
const NO_CHUNKS: Unfit = { unfit: 'its map is no chain of chunks' }
/** A page that no machine has. */
const NOWHERE = 0x7fff_ffff_0000n

function pagesOf(site: Site, role: MapPage['role']): readonly MapPage[] {
  return site.map?.pages.filter((page) => page.role === role) ?? []
}

/** Address of the last entry of the root of the tree, which no key leads to. */
function freeEntry(site: Site): bigint | undefined {
  const root = site.number('kho.memory_map')
  return site.map?.edge.kind === 'radix' && root !== undefined ? root + site.pageSize - 8n : undefined
}

/** A field of a chunk's header. */
function inChunk(
  site: Site,
  chunk: MapPage | undefined,
  field: keyof (typeof khoserMemChunkHdr)['fields'],
): bigint {
  return (chunk?.pa ?? 0n) + BigInt(fieldOf(khoserMemChunkHdr, field, site.target).offset)
}

/** A pointer of the map: an empty entry of the tree's root, or the address of a bitmap. */
function point(site: Site, to: bigint): Change {
  const entry = freeEntry(site)
  if (entry !== undefined) return site.word(entry, to)
  const [chunk] = pagesOf(site, 'chunk')
  if (!chunk) return { unfit: 'its map has no pointer to spare' }
  return site.word(inChunk(site, pagesOf(site, 'chunk').at(-1), 'next'), to)
}

/** A unit of preserved memory that nobody refers to is made of a free page. */
function freeUnit(site: Site, order: number): PlacedUnit | undefined {
  const size = site.pageSize << BigInt(order)
  const pa = site.freePages(64).find((page) => page % size === 0n)
  return pa === undefined ? undefined : { pa, order }
}

/** Bytes of the smaller kind of bitmap. */
const BITMAP_BYTES = BigInt(layoutOf(khoMemPhysBits512, { pageSize: 4096 }).size)

/** What refers to the units of a chunk that cannot be read. */
const CHUNK_LOST = ['KHO_TEST_PRESERVED', 'MEMFD_FOLIO', 'MEMFD_COVERAGE']

export const mapFaults: readonly NamedFault[] = [
  {
    name: 'map-pointer-outside',
    doc: 'A pointer in the map of preserved memory leads to where there is no memory.',
    class: 'map',
    rule: 'KHO_MAP_OUTSIDE',
    apply: (site) => point(site, NOWHERE),
  },
  {
    name: 'map-pointer-misaligned',
    doc: 'A pointer in the map of preserved memory leads into a page.',
    class: 'map',
    rule: 'KHO_MAP_MISALIGNED',
    apply: (site) => point(site, (site.freePages(1)[0] ?? 0n) + 8n),
  },
  {
    name: 'map-chunks-cycle',
    doc: 'The last chunk of the map leads back to the first.',
    class: 'map',
    rule: 'KHO_MAP_CYCLE',
    apply: (site) => {
      const chunks = pagesOf(site, 'chunk')
      const [first] = chunks
      return first ? site.word(inChunk(site, chunks.at(-1), 'next'), first.pa) : NO_CHUNKS
    },
  },
  {
    name: 'map-page-twice',
    doc: 'Two entries of a node of the map lead to the same page.',
    class: 'map',
    rule: 'KHO_MAP_TWICE',
    apply: (site) => {
      const entry = freeEntry(site)
      const child = pagesOf(site, 'node')[1]
      return entry !== undefined && child ? site.word(entry, child.pa) : NO_TREE
    },
  },
  {
    name: 'radix-key-without-order',
    doc: 'A key of the tree has its top bit above the one of order 0.',
    class: 'map',
    rule: 'KHO_RADIX_KEY',
    apply: (site) => {
      if (site.map?.edge.kind !== 'radix') return NO_TREE
      return site.setKey(1n << BigInt(radixShape(site.map.edge, site.target).order0Log2 + 1))
    },
  },
  {
    name: 'chunk-order-huge',
    doc: 'A chunk of the map is of an order that no memory has.',
    class: 'map',
    rule: 'KHO_CHUNK_ORDER',
    follows: CHUNK_LOST,
    apply: (site) => {
      const chunk = pagesOf(site, 'chunk').at(-1)
      return chunk ? site.word(inChunk(site, chunk, 'order'), 64n, 4) : NO_CHUNKS
    },
  },
  {
    name: 'chunk-count-huge',
    doc: 'A chunk of the map claims more bitmaps than its page has room for.',
    class: 'map',
    rule: 'KHO_CHUNK_COUNT',
    follows: CHUNK_LOST,
    apply: (site) => {
      const chunk = pagesOf(site, 'chunk').at(-1)
      return chunk ? site.word(inChunk(site, chunk, 'num_elms'), site.pageSize, 4) : NO_CHUNKS
    },
  },
  {
    name: 'bitmap-of-other-size',
    doc: 'A bitmap starts inside of a page, as only those of 512 bytes do; the next kernel reads whole pages.',
    class: 'map',
    rule: 'KHO_MAP_FORM',
    follows: ['MEMFD_FOLIO', 'MEMFD_COVERAGE'],
    span: { since: 'linux-6.17.9', until: 'linux-7.0' },
    apply: (site) => {
      const chunk = pagesOf(site, 'chunk').at(-1)
      if (!chunk) return NO_CHUNKS
      const { offset } = fieldOf(khoserMemBitmapPtr, 'bitmap', site.target)
      const pointer = chunk.pa + BigInt(layoutOf(khoserMemChunkHdr, site.target).size + offset)
      return site.word(pointer, (site.wordAt(pointer) ?? 0n) + BITMAP_BYTES)
    },
  },
  {
    name: 'map-page-preserved',
    doc: 'A page of the map is preserved itself.',
    class: 'map',
    rule: 'KHO_MAP_PRESERVED',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => site.preserve({ pa: site.number('kho.memory_map') ?? 0n, order: 0 }),
  },
  {
    name: 'unit-outside',
    doc: 'A unit is preserved where there is no memory.',
    class: 'map',
    rule: 'KHO_UNIT_OUTSIDE',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => site.preserve({ pa: 1n << 45n, order: 0 }),
  },
  {
    name: 'units-overlap',
    doc: 'A page is preserved as a unit of its own and as a part of a larger one.',
    class: 'map',
    rule: 'KHO_UNIT_OVERLAP',
    apply: (site) => {
      const unit = site.unitsOf(2)[0] ?? site.unitsOf(1)[0]
      if (!unit) return { unfit: 'nothing larger than a page is preserved' }
      return site.preserve({ pa: unit.pa + site.pageSize, order: 0 })
    },
  },
  {
    name: 'unit-of-two-gib',
    doc: 'A unit of 2 GiB is preserved, whose size an int cannot hold.',
    class: 'map',
    rule: 'KHO_UNIT_INT_SHIFT',
    follows: ['KHO_UNIT_OVERLAP', 'KHO_MAP_PRESERVED', 'KHO_UNIT_TOO_LARGE'],
    apply: (site) => site.preserve({ pa: 0n, order: 31 - Math.log2(site.target.pageSize) }),
  },
  {
    name: 'unit-above-largest-order',
    doc: 'A unit is larger than the page allocator of the next kernel knows.',
    class: 'map',
    rule: 'KHO_UNIT_TOO_LARGE',
    follows: ['KHO_UNIT_OVERLAP', 'KHO_MAP_PRESERVED'],
    apply: (site) => site.preserve({ pa: 0n, order: memoryOrders[site.target.pageSize].largest + 1 }),
  },
  {
    name: 'unit-unclaimed',
    doc: 'A page is preserved that nothing refers to.',
    class: 'map',
    rule: 'KHO_UNIT_UNCLAIMED',
    apply: (site) => {
      const unit = freeUnit(site, 0)
      return unit ? site.preserve(unit) : { unfit: 'there is no free memory' }
    },
  },
  {
    name: 'root-not-preserved',
    doc: 'The page of the root FDT is not preserved.',
    class: 'map',
    rule: 'KHO_FDT_PRESERVED',
    apply: (site) => site.unpreserve(site.handover.fdt),
  },
]
