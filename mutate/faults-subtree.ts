/** Faults of the nodes of the root FDT and of the blobs that they point to. */
import { versionById } from '../abi/registry.ts'
import type { FdtNodeType } from '../abi/schema.ts'
import { type Change, isUnfit, together, type Unfit } from './change.ts'
import type { FdtSite } from './fdt-site.ts'
import type { NamedFault } from './named-fault.ts'
import { testFolio } from './record-site.ts'
import type { Site } from './site.ts'

/** A page that no machine has. */
const NOWHERE = 0x7fff_ffff_0000n
/** No blob of a page has so many bytes. */
const FAR_BEYOND = 200_000

const NO_TEST: Unfit = { unfit: 'the KHO test module has left nothing' }

/** What becomes of the root FDT. */
function inRoot(site: Site, change: (root: FdtSite) => Change): Change {
  const fdt = site.fdt('kho')
  return isUnfit(fdt) ? fdt : change(fdt)
}

/** The property that points to a blob, in the version of the image. */
function addressProperty({ handover }: Site): string {
  const version = versionById(handover.version?.id ?? '')
  const types = Object.entries((version?.root as FdtNodeType | undefined)?.each?.node.properties ?? {})
  return types.find(([, type]) => type.kind === 'int' && type.to?.kind === 'blob')?.[0] ?? ''
}

function word(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, value, true)
  return bytes
}

/** Lets a subsystem's node point elsewhere. */
function pointTo(site: Site, subtree: string, pa: bigint): Change {
  return inRoot(site, (root) => root.replace(root.node(subtree), addressProperty(site), word(pa)))
}

const UNCLAIMED = 'KHO_UNIT_UNCLAIMED'

export const subtreeFaults: readonly NamedFault[] = [
  {
    name: 'subtree-address-missing',
    doc: "A subsystem's node does not say where its blob is.",
    class: 'fdt',
    rule: 'KHO_SUBTREE_ADDRESS',
    follows: [UNCLAIMED],
    apply: (site) => inRoot(site, (root) => root.drop(root.node('kho_test'), addressProperty(site))),
  },
  {
    name: 'subtree-size-missing',
    doc: "A subsystem's node does not say how long its blob is.",
    class: 'fdt',
    rule: 'KHO_BLOB_SIZE',
    apply: (site) => inRoot(site, (root) => root.drop(root.node('kho_test'), 'blob-size')),
  },
  {
    name: 'subtree-size-other',
    doc: 'A node says that its blob has other bytes than the blob itself says.',
    class: 'fdt',
    rule: 'KHO_BLOB_LENGTH',
    apply: (site) => inRoot(site, (root) => root.replace(root.node('memblock'), 'blob-size', word(8n))),
  },
  {
    name: 'subtree-outside',
    doc: "A subsystem's blob is where there is no memory.",
    class: 'fdt',
    rule: 'KHO_BLOB_OUTSIDE',
    follows: [UNCLAIMED],
    apply: (site) => pointTo(site, 'kho_test', NOWHERE),
  },
  {
    name: 'subtree-not-preserved',
    doc: "A subsystem's blob is in memory that is not preserved.",
    class: 'map',
    rule: 'KHO_BLOB_PRESERVED',
    apply: (site) => site.unpreserve(site.node('kho_test')?.pa),
  },
  {
    name: 'subtree-into-nothing',
    doc: "A subsystem's blob is in memory that nobody kept.",
    class: 'fdt',
    rule: 'POINTER_INTO_NOTHING',
    follows: ['KHO_BLOB_PRESERVED', UNCLAIMED],
    apply: (site) => {
      const [page] = site.freePages(1)
      return page === undefined ? { unfit: 'there is no free memory' } : pointTo(site, 'kho_test', page)
    },
  },
  {
    name: 'subtree-name-other',
    doc: "memblock's node has another name, so that nobody finds it.",
    class: 'fdt',
    rule: 'KHO_SUBTREE_NAME',
    follows: ['KHO_SUBTREE_UNKNOWN', UNCLAIMED],
    apply: (site) => inRoot(site, (root) => root.rename(root.node('memblock'), 'a-module')),
  },
  {
    name: 'subtree-unknown',
    doc: "The node of the old kernel's metadata has a name that nothing known here has.",
    class: 'fdt',
    rule: 'KHO_SUBTREE_UNKNOWN',
    apply: (site) => inRoot(site, (root) => root.rename(root.node('kexec-metadata'), 'kexec-history')),
  },
  {
    name: 'subtree-unknown-broken',
    doc: 'A blob that nothing known here reads is an FDT of a version that there is not.',
    class: 'fdt',
    rule: 'FORMAT',
    follows: ['KHO_SUBTREE_NAME', 'KHO_SUBTREE_UNKNOWN', UNCLAIMED],
    apply: (site) => {
      const fdt = site.fdt('memblock')
      if (isUnfit(fdt)) return fdt
      const renamed = inRoot(site, (root) => root.rename(root.node('memblock'), 'a-module'))
      return together(renamed, fdt.header('last_comp_version', 99))
    },
  },
  {
    name: 'root-longer-than-image',
    doc: 'The root FDT claims more bytes than the image holds.',
    class: 'fdt',
    rule: 'NOT_IN_IMAGE',
    apply: (site) => inRoot(site, (root) => root.header('totalsize', FAR_BEYOND)),
  },
  {
    name: 'page-claimed-twice',
    doc: "A folio of the KHO test module is memblock's FDT.",
    class: 'map',
    rule: 'KHO_CLAIMED_TWICE',
    follows: [UNCLAIMED, 'KHO_TEST_SUM'],
    apply: (site) => {
      const folio = testFolio(site)
      const pa = site.node('memblock')?.pa
      return folio && pa !== undefined ? site.word(folio.pa, pa) : NO_TEST
    },
  },
]
