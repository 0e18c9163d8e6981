/**
 * What the KHO code of a release does that its formats do not say: one table, so that nothing else asks
 * for a release by name. (LUO's part stands with LUO, in luo-context.ts.)
 *
 * Sources: kernel/kexec_handover.c (6.17.8), kernel/liveupdate/kexec_handover.c (6.19.11, 7.1.13, 7.3.4),
 * mm/memblock.c, lib/test_kho.c; what lies between these releases: the changes listed in abi/behaviour.ts.
 */
import { appliesTo, type Span } from '../abi/check.ts'
import { invariant } from '../abi/fault.ts'
import { FDT_BLOCKS_ALIGNED_SINCE } from '../abi/fdt.ts'
import { type ComponentVersion, releaseByName, versionById } from '../abi/registry.ts'
import type { ChunksEdge, FdtNodeType, RadixEdge } from '../abi/schema.ts'

const SPANS = {
  /** kho_init() is a late_initcall and the root FDT comes with finalize; later fs_initcall, edited in place. */
  buildsAtFinalize: { since: 'linux-6.16', until: 'linux-6.18' },
  /** After finalize nothing more can be preserved. */
  locksAtFinalize: { since: 'linux-6.16', until: 'linux-6.18' },
  /** That is looked at for each unit; before, ahead of everything else. */
  locksUnits: { since: 'linux-6.18', until: 'linux-6.18' },
  /** debugfs kho/out/finalize takes 0 for an abort, and refuses to repeat itself. */
  togglesFinalize: { since: 'linux-6.16', until: 'linux-6.18' },
  /** debugfs kho/out/finalize is there; written non-zero it (re)writes the map. */
  hasFinalize: { since: 'linux-6.16', until: 'linux-7.0' },
  /** The root FDT's own page is taken back. */
  restoresRootFdt: { since: 'linux-6.16', until: 'linux-6.18' },
  /** kho_preserve_pages() instead of kho_preserve_phys(), which takes whole pages only. */
  preservesPages: { since: 'linux-6.18' },
  /** It and its counterparts take an unsigned int. */
  narrowCounts: { since: 'linux-6.18', until: 'linux-6.19' },
  hasVmalloc: { since: 'linux-6.18' },
  /** page->private holds a magic number beside the order. */
  checksMagic: { since: 'linux-6.18' },
  /** Units above MAX_PAGE_ORDER are not restored. */
  limitsOrder: { since: 'linux-6.16', until: 'linux-7.0' },
  /** unpreserve of something unknown warns; before, its loop never ended. */
  warnsOfUnknown: { since: 'linux-6.17.9' },
  /** And leaves what follows of the range as it is. */
  endsAtUnknown: { since: 'linux-6.17.9', until: 'linux-6.18' },
  /** A map at address 0 is refused in kho_populate(). */
  demandsMap: { since: 'linux-6.19' },
  /** The map's property is looked up again when it is walked. */
  looksTwice: { since: 'kho-v2', until: 'linux-7.2' },
  /** With CONFIG_KEXEC_HANDOVER_DEBUG: nothing inside scratch memory is preserved, nor does kho-v1's map lie there. */
  checksScratch: { since: 'linux-6.17.9' },
  /** The node stays when its property has no room, and libfdt's code is the answer. */
  keepsEmptyNode: { since: 'linux-6.19', until: 'linux-6.19' },
  /** A unit lies in one NUMA node. */
  splitsAtNodes: { since: 'linux-7.1' },
  /** The size of a unit is computed in 64 bits when it is reserved. */
  wideUnits: { since: 'linux-7.2' },
  /** Keys wider than KHO_RADIX_KEY_WIDTH are refused. */
  checksKeyWidth: { since: 'linux-7.3' },
  /** kho_radix_add_key() and kho_radix_destroy_tree(); before, kho_init() frees no more of a tree than its root. */
  destroysTree: { since: 'linux-7.3' },
  /** Blocks of 1 GiB without preserved memory serve as scratch memory. */
  extendsScratch: { since: 'linux-7.3' },
  /** fdt_check_header() asks for the alignment of the blocks. */
  alignsFdtBlocks: { since: FDT_BLOCKS_ALIGNED_SINCE },
  /** `kho=` has a default in the configuration. */
  hasDefault: { since: 'linux-6.19' },
  /** lib/test_kho.c does nothing without KHO. */
  testNeedsKho: { since: 'linux-6.19' },
} as const satisfies Readonly<Record<string, Span>>

export type KhoTraits = Readonly<Record<keyof typeof SPANS, boolean>>

/** How a release stores its root FDT. */
export interface KhoForm {
  readonly root: FdtNodeType
  readonly compatible: string
  readonly mapProperty: string
  readonly map: ChunksEdge | RadixEdge
  /** Property of a subtree with its address, and with its size if there is one. */
  readonly addressProperty: string
  readonly sizeProperty: string | undefined
}

export interface SimulatedRelease {
  readonly name: string
  /** utsname release, as it goes into kexec-metadata. */
  readonly version: string
  readonly khoVersion: string
  readonly form: KhoForm
  readonly traits: KhoTraits
  /** Root of the memblock, kexec-metadata and kho_test blobs it writes; undefined where it has none. */
  readonly metadata: ComponentVersion | undefined
  readonly khoTest: ComponentVersion | undefined
  readonly hasLuo: boolean
  /** Where KHO's source stands, as warnings name it. */
  readonly source: string
}

/** The stable release that each one behaves as. */
const VERSIONS: Readonly<Record<string, string>> = {
  'linux-6.16': '6.16.0',
  'linux-6.17': '6.17.8',
  'linux-6.17.9': '6.17.9',
  'linux-6.18': '6.18.15',
  'linux-6.19': '6.19.11',
  'linux-7.0': '7.0.0',
  'kho-v2': '7.0.0+',
  'linux-7.1': '7.1.13',
  'linux-7.2': '7.2.13',
  'linux-7.3': '7.3.4',
}

export const simulatedReleases: readonly string[] = Object.keys(VERSIONS)

/** Undefined for a name that no release has. */
export function simulatedRelease(name: string): SimulatedRelease | undefined {
  const release = releaseByName(name)
  const version = VERSIONS[name]
  if (!release || version === undefined) return undefined
  const { kho, luo, 'kexec-metadata': metadata, 'kho-test': khoTest } = release.versions
  invariant(kho !== undefined, `${name} has no KHO`)
  const root = versionById(kho)?.root
  invariant(root?.kind === 'fdt-node', `${kho} is an FDT`)
  const traits = Object.entries(SPANS).map(([trait, span]) => [trait, appliesTo(span, name)])
  return {
    name,
    version,
    khoVersion: kho,
    form: formOf(root),
    traits: Object.fromEntries(traits) as KhoTraits,
    metadata: metadata === undefined ? undefined : versionById(metadata),
    khoTest: khoTest === undefined ? undefined : versionById(khoTest),
    hasLuo: luo !== undefined,
    source: luo === undefined ? 'kernel/kexec_handover.c' : 'kernel/liveupdate/kexec_handover.c',
  }
}

/** `compatible` of a declared root. */
export function compatibleOf(root: FdtNodeType): string {
  const { compatible } = root.properties
  invariant(compatible?.kind === 'compatible', 'a root FDT has a compatible property')
  return compatible.value
}

function formOf(root: FdtNodeType): KhoForm {
  const [mapProperty, map] = Object.entries(root.properties).find(([, type]) => type.kind === 'int') ?? []
  const edge = map?.kind === 'int' ? map.to : undefined
  invariant(
    mapProperty !== undefined && (edge?.kind === 'chunks' || edge?.kind === 'radix'),
    'a root FDT names the map',
  )
  const [address, size] = Object.keys(root.each?.node.properties ?? {})
  invariant(address !== undefined, 'a subtree has an address')
  return {
    root,
    compatible: compatibleOf(root),
    mapProperty,
    map: edge,
    addressProperty: address,
    sizeProperty: size,
  }
}
