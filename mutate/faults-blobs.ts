/** Faults of what subsystems leave: reserve_mem regions, kexec-metadata, the KHO test module. */
import { RESERVE_MEM_MAX_ENTRIES } from '../abi/memblock.ts'
import { phys } from '../abi/memory.ts'
import type { FdtNode } from '../inspect/fdt.ts'
import { type Change, isUnfit, together } from './change.ts'
import { concat, type FdtSite, propertyOf } from './fdt-site.ts'
import type { NamedFault } from './named-fault.ts'
import { memfds, testFolio } from './record-site.ts'
import { littleEndian, type Site } from './site.ts'

type More = Partial<Pick<NamedFault, 'follows' | 'span' | 'class'>>

/** What is said of memory whose owner is lost. */
const ORPHANS = ['KHO_UNIT_UNCLAIMED']
/** A page that no machine has. */
const NOWHERE = 0x7fff_ffff_0000n
/** Names of the property with a subsystem's address. */
const ADDRESS = ['fdt', 'preserved-data']

/** A subsystem whose node has no address any more. */
export function withoutAddress(
  name: string,
  rule: string,
  subtree: string,
  doc: string,
  more: More = {},
): NamedFault {
  const change = (root: FdtSite): Change => {
    const node = root.node(subtree)
    const property = ADDRESS.find((one) => node?.properties.some((stored) => stored.name === one))
    return property === undefined ? { unfit: `${subtree} has no address` } : root.drop(node, property)
  }
  return inFdt(name, rule, 'kho', doc, change, more)
}

/** A change to an FDT. */
function inFdt(
  name: string,
  rule: string,
  path: string,
  doc: string,
  change: (fdt: FdtSite) => Change,
  more: More = {},
): NamedFault {
  const apply = (site: Site): Change => {
    const place = site.fdt(path)
    return isUnfit(place) ? place : change(place)
  }
  return { name, doc, class: 'fdt', rule, apply, ...more }
}

/** A change to a field, or to the map. */
function field(
  name: string,
  rule: string,
  doc: string,
  apply: (site: Site) => Change,
  more: More = {},
): NamedFault {
  return { name, doc, class: 'field', rule, apply, ...more }
}

const REGION = 'memblock.reserve_mem[*]'

const memblockFaults: readonly NamedFault[] = [
  withoutAddress(
    'memblock-address-missing',
    'MEMBLOCK_SUBTREE',
    'memblock',
    'The reserve_mem regions have no address.',
    { follows: [...ORPHANS, 'KHO_SUBTREE_ADDRESS'] },
  ),
  field(
    'memblock-compatible-unknown',
    'MEMBLOCK_COMPATIBLE',
    'The reserve_mem regions are of a version that no kernel knows.',
    (site) => site.set('memblock.compatible', 'memblock-v9'),
    { follows: ORPHANS },
  ),
  inFdt(
    'reserve-mem-missing',
    'RESERVE_MEM_NODE',
    'memblock',
    'A region that the next kernel asks for is not there.',
    (tree) => tree.dropNode(tree.node('trace')),
    { follows: ORPHANS },
  ),
  field(
    'reserve-mem-compatible-unknown',
    'RESERVE_MEM_COMPATIBLE',
    'A region is of a version that no kernel knows.',
    (site) => site.set(`${REGION}.compatible`, 'reserve-mem-v9'),
    { follows: ORPHANS },
  ),
  inFdt(
    'reserve-mem-start-missing',
    'RESERVE_MEM_START',
    'memblock',
    'A region has no start.',
    (tree) => tree.drop(tree.node('trace'), 'start'),
    { follows: ORPHANS },
  ),
  inFdt(
    'reserve-mem-size-missing',
    'RESERVE_MEM_SIZE',
    'memblock',
    'A region has no size.',
    (tree) => tree.drop(tree.node('trace'), 'size'),
    { follows: ORPHANS },
  ),
  field(
    'reserve-mem-misaligned',
    'RESERVE_MEM_ALIGNMENT',
    'A region is not aligned as the next kernel asks.',
    (site) => site.alter(`${REGION}.start`, (start) => start + 8n),
    { follows: ['KHO_UNIT_UNCLAIMED'] },
  ),
  field(
    'reserve-mem-size-other',
    'RESERVE_MEM_SAME_SIZE',
    'A region is smaller than the next kernel asks.',
    (site) => site.alter(`${REGION}.size`, (size) => size - site.pageSize),
    { follows: ORPHANS },
  ),
  field(
    'memblock-not-preserved',
    'MEMBLOCK_PRESERVED',
    'The FDT of the regions is not preserved.',
    (site) => site.unpreserve(site.node('memblock')?.pa),
    { class: 'map' },
  ),
  field(
    'reserve-mem-not-preserved',
    'RESERVE_MEM_PRESERVED',
    'A region is not preserved.',
    (site) => site.unpreserve(site.number(`${REGION}.start`)),
    { class: 'map' },
  ),
  field(
    'reserve-mem-tail',
    'RESERVE_MEM_TAIL',
    'The size of a region is no multiple of the page size.',
    (site) => site.alter(`${REGION}.size`, (size) => size + 100n),
  ),
  field(
    'reserve-mem-overlap',
    'RESERVE_MEM_OVERLAP',
    'Two regions share memory.',
    (site) => {
      const [first, second] = site.nodes(`${REGION}.start`)
      return first?.kind === 'value' && second
        ? site.set(second, first.value as bigint)
        : { unfit: 'it has no two regions' }
    },
    { follows: ['KHO_UNIT_UNCLAIMED', 'KHO_CLAIMED_TWICE'] },
  ),
  field(
    'reserve-mem-in-file',
    'KHO_CLAIMED_TWICE',
    'A region is where a file has its pages.',
    (site) => {
      const folio = largeFolio(site)
      return folio === undefined
        ? { unfit: 'it has no file with a folio of 2 MiB' }
        : site.set(`${REGION}.start`, folio)
    },
    { follows: ORPHANS },
  ),
  inFdt(
    'reserve-mem-name-duplicate',
    'RESERVE_MEM_NAME',
    'memblock',
    'Two regions have the same name.',
    (tree) => tree.rename(tree.node('trace'), 'oops'),
    { follows: ['KHO_UNIT_UNCLAIMED', 'RESERVE_MEM_NODE', 'RESERVE_MEM_SAME_SIZE'] },
  ),
  {
    name: 'reserve-mem-too-many',
    doc: 'A region is cut into more of them than the kernel has room for.',
    class: 'fdt',
    rule: 'RESERVE_MEM_FULL',
    follows: ['KHO_UNIT_UNCLAIMED', 'RESERVE_MEM_NOT_ASKED', 'RESERVE_MEM_SAME_SIZE'],
    apply: manyRegions,
  },
  inFdt(
    'reserve-mem-not-asked',
    'RESERVE_MEM_NOT_ASKED',
    'memblock',
    'A region has a name for which nobody asks.',
    (tree) => tree.rename(tree.node('trace'), 'tracf'),
    { follows: ['RESERVE_MEM_NODE', ...ORPHANS] },
  ),
]

/** The largest region becomes so many, one behind the other in its memory, that they are one too many. */
function manyRegions(site: Site): Change {
  const place = site.fdt('memblock')
  if (isUnfit(place)) return place
  const regions = place.root.children.map((node) => ({ node, ...extentOf(node) }))
  const [largest] = regions.toSorted((a, b) => (a.size > b.size ? -1 : 1))
  if (!largest) return { unfit: 'it has no regions' }
  const more = RESERVE_MEM_MAX_ENTRIES + 1 - regions.length
  const { node, start, size } = largest
  const piece = (size / BigInt(more + 1) / site.pageSize) * site.pageSize
  if (more < 1 || piece === 0n) return { unfit: 'it has no region to cut into more' }
  const copies = Array.from({ length: more }, (_, i) =>
    place.copyOf(node, `${node.name.slice(0, -1)}${i}`, {
      start: littleEndian(start + BigInt(i + 1) * piece, 8),
      size: littleEndian(piece, 8),
    }),
  )
  const change = place.insertBehind(node, concat(copies), site.target.pageSize)
  return together(place.replace(node, 'size', littleEndian(piece, 8)), change)
}

/** `start` and `size` of a region's node. */
function extentOf(node: FdtNode): { readonly start: bigint; readonly size: bigint } {
  const word = (name: string): bigint => {
    const value = propertyOf(node, name)?.value
    return value?.length === 8 ? new DataView(value.buffer, value.byteOffset).getBigUint64(0, true) : 0n
  }
  return { start: word('start'), size: word('size') }
}

/** The head of the first unit of a file that is at least as large as the smaller region. */
function largeFolio(site: Site): bigint | undefined {
  const orders = site.map?.orders.filter((order) => order >= LARGE) ?? []
  const units = new Set(orders.flatMap((order) => site.unitsOf(order).map(({ pa }) => pa)))
  for (const { folios } of memfds(site, 1)) {
    for (const { pfn } of folios.values()) {
      const pa = BigInt(pfn ?? 0n) * site.pageSize
      if (units.has(pa)) return pa
    }
  }
  return undefined
}

/** log2 of the pages of 2 MiB. */
const LARGE = 9

const metadataFaults: readonly NamedFault[] = [
  field(
    'metadata-not-preserved',
    'METADATA_PRESERVED',
    'The kexec-metadata are not preserved.',
    (site) => site.unpreserve(site.node('kexec_metadata')?.pa),
    { class: 'map' },
  ),
  field(
    'metadata-version-unknown',
    'METADATA_VERSION',
    'The kexec-metadata are of a version that no kernel knows.',
    (site) => site.set('kexec_metadata.version', 9n),
  ),
  field(
    'metadata-size-small',
    'METADATA_SIZE',
    'The root FDT says that the kexec-metadata are smaller than they are.',
    (site) => site.set(site.subtreeField('kexec-metadata', 'size'), 8n),
  ),
  field(
    'metadata-release-without-end',
    'METADATA_RELEASE',
    'The release of the old kernel has no NUL.',
    (site) => site.set('kexec_metadata.previous_release', new Uint8Array(65).fill(0x37)),
  ),
  field(
    'metadata-count-zero',
    'METADATA_COUNT',
    'The old kernel counted no handover.',
    (site) => site.set('kexec_metadata.kexec_count', 0n),
    { follows: ['LUO_NUMBERS_DIFFER'] },
  ),
]

const testFaults: readonly NamedFault[] = [
  field(
    'test-compatible-unknown',
    'KHO_TEST_COMPATIBLE',
    'The state of the KHO test is of a version that no kernel knows.',
    (site) => site.set('kho_test.compatible', 'kho-test-v9'),
    { follows: ORPHANS },
  ),
  field(
    'test-magic-wrong',
    'KHO_TEST_MAGIC',
    'The state of the KHO test has lost its magic number.',
    (site) => site.set('kho_test.magic', 7n),
  ),
  inFdt(
    'test-folio-count-missing',
    'KHO_TEST_NR_FOLIOS',
    'kho_test',
    'The KHO test does not say how many folios it has.',
    (tree) => tree.drop(tree.node('data'), 'nr_folios'),
    { follows: ['KHO_UNIT_UNCLAIMED', 'KHO_TEST_FOLIOS_INFO'] },
  ),
  inFdt(
    'test-sum-missing',
    'KHO_TEST_CSUM',
    'kho_test',
    'The KHO test does not have the sum of its folios.',
    (tree) => tree.drop(tree.node('data'), 'csum'),
  ),
  field('test-sum-wrong', 'KHO_TEST_SUM', 'The KHO test has the sum of other folios.', (site) =>
    site.alter('kho_test.data.csum', (sum) => sum + 1n),
  ),
  field('test-folio-changed', 'KHO_TEST_SUM', 'A bit of a folio of the KHO test has changed.', changedFolio),
  inFdt(
    'test-folios-missing',
    'KHO_TEST_FOLIOS_INFO',
    'kho_test',
    'The KHO test does not say where its folios are.',
    (tree) => tree.drop(tree.node('data'), 'folios_info'),
    { follows: ORPHANS },
  ),
  field(
    'test-list-not-preserved',
    'KHO_TEST_PRESERVED',
    'The list of folios of the KHO test is not preserved.',
    (site) => site.unpreserve(site.number('kho_test.data.folios_info.first')),
    { class: 'map', span: { since: 'linux-6.18' } },
  ),
  field(
    'test-list-outside',
    'POINTER_INTO_NOTHING',
    'The list of folios of the KHO test is where there is no memory.',
    (site) => site.set('kho_test.data.folios_info.first', NOWHERE),
    { follows: ['KHO_UNIT_UNCLAIMED'] },
  ),
  field(
    'test-list-left-out',
    'NOT_IN_IMAGE',
    'The list of folios of the KHO test lies where the image holds no memory.',
    (site) => {
      const [page] = site.freePages(1)
      // What an image does not even mention is taken for no memory at all.
      const isMentioned = page !== undefined && site.handover.memory.presence(phys(page)).state !== 'hole'
      return isMentioned
        ? site.set('kho_test.data.folios_info.first', page)
        : { unfit: 'it mentions no memory that it leaves out' }
    },
  ),
  inFdt(
    'luo-for-older-kernel',
    'LUO_IGNORED',
    'kho',
    'There is a node of LUO, of which the next kernel knows nothing.',
    (root) => root.rename(root.node('kho_test'), 'LUO'),
    { follows: ORPHANS, span: { since: 'linux-6.17', until: 'linux-6.18' } },
  ),
  inFdt(
    'blob-end-missing',
    'BLOB_FDT_FORM',
    'memblock',
    'The structure block of a subsystem has no FDT_END.',
    (tree) => tree.header('size_dt_struct', tree.fdt.header.size_dt_struct - 4),
  ),
]

function changedFolio(site: Site): Change {
  const folio = testFolio(site)
  const byte = folio && site.bytesAt(folio.word, 1)?.[0]
  return folio && byte !== undefined
    ? site.write(folio.word, Uint8Array.of(byte ^ 1))
    : { unfit: 'the image does not hold a folio of the KHO test' }
}

export const blobFaults: readonly NamedFault[] = [...memblockFaults, ...metadataFaults, ...testFaults]
