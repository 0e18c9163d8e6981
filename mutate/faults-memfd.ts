/** Faults of memfds: their records, the vmalloc memory of their lists, their folios. */

import { fieldOf, pageShift } from '../abi/layout.ts'
import { memfdFolioFlags, memfdSeals } from '../abi/memfd.ts'
import { type Change, together } from './change.ts'
import type { NamedFault } from './named-fault.ts'
import { fieldIn, type MemfdSite, memfds, setElement } from './record-site.ts'
import type { Site } from './site.ts'

type More = Pick<NamedFault, 'follows' | 'span' | 'class'>

/** A change to the first memfd with so many folios. */
function memfd(
  name: string,
  rule: string,
  folios: number,
  doc: string,
  change: (site: Site, file: MemfdSite) => Change,
  more: Partial<More> = {},
): NamedFault {
  const apply = (site: Site): Change => {
    const [file] = memfds(site, folios)
    return file ? change(site, file) : { unfit: `it has no memfd with ${folios} folios` }
  }
  return { name, doc, class: 'field', rule, apply, ...more }
}

/** A change to a stored number of the record. */
function number(
  name: string,
  rule: string,
  field: string,
  doc: string,
  change: (value: bigint, site: Site) => bigint,
  more: Partial<More> = {},
): NamedFault {
  return memfd(
    name,
    rule,
    2,
    doc,
    (site, { record }) => {
      const [key = '', inner] = field.split('.')
      const node = fieldIn(record, key)
      const place = inner === undefined || node?.kind !== 'record' ? node : fieldIn(node, inner)
      return site.alter(place, (value) => change(value, site))
    },
    more,
  )
}

/** Value of a field of a folio's record. */
function folioField({ folios }: MemfdSite, index: number, name: string): bigint {
  return BigInt(folios.valueAt(index)?.[name] ?? 0n)
}

function folioAddress(site: Site, file: MemfdSite, index: number): bigint {
  return folioField(file, index, 'pfn') << BigInt(pageShift(site.target.pageSize))
}

const LOST_PAGES = ['KHO_UNIT_UNCLAIMED']
const UPTODATE = BigInt(memfdFolioFlags.UPTODATE)
const DIRTY = BigInt(memfdFolioFlags.DIRTY)

export const memfdFaults: readonly NamedFault[] = [
  memfd(
    'memfd-not-preserved',
    'MEMFD_PRESERVED',
    0,
    'The record of a memfd is not preserved.',
    (site, { record }) => site.unpreserve(record.pa),
    { class: 'map' },
  ),
  number(
    'memfd-seals-unknown',
    'MEMFD_SEALS',
    'seals',
    'A memfd has a seal that no kernel knows.',
    (seals) => seals | 0x8000n,
    { follows: ['KHO_UNIT_UNCLAIMED'] },
  ),
  number(
    'memfd-seal-exec',
    'MEMFD_SEAL_EXEC',
    'seals',
    'A memfd is sealed against becoming executable.',
    (seals) => seals | BigInt(memfdSeals.EXEC),
    { span: { since: 'kho-v2' } },
  ),
  number('memfd-flags-set', 'MEMFD_FLAGS', 'flags', 'A memfd has a flag that nothing defines.', () => 1n, {
    span: { since: 'kho-v2' },
  }),
  number(
    'memfd-position-negative',
    'MEMFD_POSITION',
    'pos',
    'The position of a memfd is negative.',
    () => 1n << 63n,
  ),
  number('memfd-size-negative', 'MEMFD_SIZE', 'size', 'The size of a memfd is negative.', () => 1n << 63n, {
    follows: ['MEMFD_PAST_END'],
  }),
  number(
    'memfd-size-larger',
    'MEMFD_COVERAGE',
    'size',
    'A memfd is larger than its folios.',
    (size, site) => size + site.pageSize * 4n,
  ),
  number('memfd-size-smaller', 'MEMFD_PAST_END', 'size', 'A memfd is smaller than its folios.', () => 1n),
  number(
    'memfd-count-over',
    'MEMFD_COUNT',
    'nr_folios',
    'A memfd counts more folios than its list has room for.',
    (_count, site) => site.pageSize,
    { follows: ['MEMFD_EMPTY_RECORD'] },
  ),
  number(
    'memfd-folio-uncounted',
    'MEMFD_UNCOUNTED',
    'nr_folios',
    'The last folio of a memfd is not counted.',
    (count) => count - 1n,
    { follows: [...LOST_PAGES, 'MEMFD_COVERAGE'] },
  ),
  number(
    'vmalloc-total-pages-more',
    'KHO_VMALLOC_TOTAL',
    'folios.total_pages',
    'The list of folios says that it takes more pages than its chunks have.',
    (total) => total + 1n,
    { follows: ['KHO_UNIT_UNCLAIMED'] },
  ),
  number(
    'vmalloc-order-huge',
    'KHO_VMALLOC_ORDER',
    'folios.order',
    'The list of folios is of an order by which a shift of 32 bits wraps.',
    () => 32n,
    { follows: ['KHO_UNIT_UNCLAIMED'] },
  ),
  memfd(
    'vmalloc-page-misaligned',
    'KHO_VMALLOC_ALIGNED',
    1,
    'An address in the list of pages is inside of a page.',
    (site, { folios }) => {
      const [chunk = 0n] = folios.chunks
      const slot = chunk + BigInt(fieldOf(folios.chunk, 'phys', site.target).offset)
      return site.word(slot, (site.wordAt(slot) ?? 0n) + 8n)
    },
  ),
  number(
    'vmalloc-flags-unknown',
    'KHO_VMALLOC_FLAGS',
    'folios.flags',
    'The list of folios has a flag that nothing defines.',
    (flags) => flags | 0x80n,
  ),
  memfd(
    'folio-list-not-preserved',
    'MEMFD_FOLIOS',
    1,
    'A page with the list of folios is not preserved.',
    (site, { folios }) => site.unpreserve(folios.groups[0]),
    { class: 'map' },
  ),
  memfd(
    'folio-not-preserved',
    'MEMFD_FOLIO',
    2,
    'A folio of a memfd is not preserved.',
    (site, file) => site.unpreserve(folioAddress(site, file, 0)),
    { class: 'map' },
  ),
  memfd(
    'folio-index-duplicate',
    'MEMFD_INDEX',
    2,
    'Two folios have the same place in their file.',
    (site, file) => setElement(site, file, 1, 'index', folioField(file, 0, 'index')),
  ),
  memfd(
    'folio-hole',
    'MEMFD_HOLE',
    2,
    'A folio of a memfd has frame 0.',
    (site, file) => setElement(site, file, 1, 'pfn', 0n),
    { follows: LOST_PAGES },
  ),
  memfd(
    'folios-out-of-order',
    'MEMFD_ORDERED',
    2,
    'Two folios stand in the list in the wrong order.',
    (site, file) =>
      together(
        setElement(site, file, 0, 'index', folioField(file, 1, 'index')),
        setElement(site, file, 1, 'index', folioField(file, 0, 'index')),
      ),
  ),
  memfd('folio-not-uptodate', 'MEMFD_NOT_UPTODATE', 2, 'A folio is not marked as up to date.', (site, file) =>
    setElement(site, file, 1, 'flags', folioField(file, 1, 'flags') & ~UPTODATE),
  ),
  memfd('folio-clean', 'MEMFD_CLEAN', 2, 'A folio is not marked as dirty.', (site, file) =>
    setElement(site, file, 1, 'flags', folioField(file, 1, 'flags') & ~DIRTY),
  ),
  memfd(
    'folio-flags-unknown',
    'MEMFD_FOLIO_FLAGS',
    2,
    'A folio has a flag that nothing defines.',
    (site, file) => setElement(site, file, 1, 'flags', folioField(file, 1, 'flags') | 0x100n),
  ),
  number(
    'memfd-record-empty',
    'MEMFD_EMPTY_RECORD',
    'nr_folios',
    'A memfd counts a folio more than its list has.',
    (count) => count + 1n,
  ),
  {
    name: 'memfd-shared',
    doc: 'Two files have the same record.',
    class: 'field',
    rule: 'MEMFD_SHARED',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => {
      const [first, second] = site.nodes('luo.sessions[*].files[*].data')
      return first?.kind === 'value' && second
        ? site.set(second, first.value as bigint)
        : { unfit: 'it has no two files' }
    },
  },
  {
    name: 'folio-index-misaligned',
    doc: 'A folio of several pages lies at a place of its file that is no multiple of its size.',
    class: 'field',
    rule: 'MEMFD_INDEX_ALIGNED',
    apply: (site) => {
      for (const file of memfds(site, 1)) {
        for (let index = 0; index < Math.min(file.folios.available, 1000); index++) {
          const unit = site.unitAt(folioAddress(site, file, index))
          if (unit && unit.order > 0)
            return setElement(site, file, index, 'index', folioField(file, index, 'index') + 1n)
        }
      }
      return { unfit: 'it has no folio of several pages' }
    },
  },
]
