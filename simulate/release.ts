/** The releases that can be simulated: their versions, the forms in which they store, and what their code does. */
import { invariant } from '../abi/fault.ts'
import { type KernelTraits, kernelTraits } from '../abi/kernel-traits.ts'
import { type ComponentVersion, releaseByName, versionById } from '../abi/registry.ts'
import type { ChunksEdge, FdtNodeType, RadixEdge } from '../abi/schema.ts'

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
  readonly traits: KernelTraits
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
  return {
    name,
    version,
    khoVersion: kho,
    form: formOf(root),
    traits: kernelTraits(name),
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
