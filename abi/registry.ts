/**
 * The registry: every component of a handover, its versions oldest first, and the Linux releases that
 * carry them. Adding an ABI version is one entry here and the schema that it names.
 */
import { chosenNode, khoData, khoScratch, setupData } from './boot.ts'
import { invariant } from './fault.ts'
import { KHO_KEXEC_METADATA_VERSION, khoKexecMetadata } from './kexec-metadata.ts'
import { khoV1Bitmap512, khoV1BitmapPage, khoV2, khoV3, khoV3Rc, khoV4 } from './kho.ts'
import { khoBlockHeader } from './kho-block.ts'
import { khoTestV1, khoTestV1Inline } from './kho-test.ts'
import { khoVmalloc, khoVmallocChunk, khoVmallocHdr } from './kho-vmalloc.ts'
import { luoV1, luoV1Flb, luoV1SessionV1, luoV2, luoV3, luoV4, luoV5 } from './luo.ts'
import { memblockV1 } from './memblock.ts'
import { memfdV1, memfdV2 } from './memfd.ts'
import type { FdtNodeType, FdtStyle, StructType } from './schema.ts'

/**
 * How a version says in the image which it is. Kernel developers move between the shapes: a string, a
 * name with an integer, several strings joined by `;`, or a list of alternatives.
 */
export type Contract =
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'integer'; readonly name: string; readonly value: number }
  | { readonly kind: 'composite'; readonly parts: readonly string[] }
  | { readonly kind: 'list'; readonly values: readonly string[] }
  /** Not versioned: nothing in the image guards the layout. */
  | { readonly kind: 'none' }

/** Where the contract stands: the root node's `compatible`, a field of the struct, or the record that points here. */
export type ContractPlace =
  | { readonly kind: 'fdt-compatible' }
  | { readonly kind: 'field'; readonly field: string }
  | { readonly kind: 'referrer' }
  | { readonly kind: 'none' }

export interface ComponentVersion {
  /** Unique; `/form` tells apart versions that share one contract. */
  readonly id: string
  readonly contract: Contract
  readonly place: ContractPlace
  readonly root: FdtNodeType | StructType
  /** Structs of other components that this version's contract guards, too. */
  readonly shares?: readonly SharedStruct[]
  /** Never in a release; the commit or window in which it lived. */
  readonly unreleased?: string
}

export interface SharedStruct {
  readonly struct: StructType
  /** First release of this version that has it, where not all do. */
  readonly since?: string
}

export interface Component {
  readonly name: ComponentName
  readonly doc: string
  /** Node of the root FDT that points to it, where it is a subsystem's blob. */
  readonly subtree?: string
  /** Key of its record in the decoded tree. */
  readonly key: string
  /** A test module's: no production kernel leaves it. */
  readonly testOnly?: boolean
  /** Oldest first. */
  readonly versions: readonly ComponentVersion[]
}

export type ComponentName = 'boot' | 'kho' | 'memblock' | 'kexec-metadata' | 'luo' | 'memfd' | 'kho-test'

const byCompatible = (value: string): Pick<ComponentVersion, 'contract' | 'place'> => ({
  contract: { kind: 'string', value },
  place: { kind: 'fdt-compatible' },
})

const byField = (field: string, value: string): Pick<ComponentVersion, 'contract' | 'place'> => ({
  contract: { kind: 'string', value },
  place: { kind: 'field', field },
})

const byReferrer = (value: string): Pick<ComponentVersion, 'contract' | 'place'> => ({
  contract: { kind: 'string', value },
  place: { kind: 'referrer' },
})

const unversioned: Pick<ComponentVersion, 'contract' | 'place'> = {
  contract: { kind: 'none' },
  place: { kind: 'none' },
}

const vmalloc: readonly SharedStruct[] = [khoVmalloc, khoVmallocChunk, khoVmallocHdr].map((struct) => ({
  struct,
}))

export const components: readonly Component[] = [
  {
    name: 'kho',
    doc: 'Root FDT and map of preserved memory.',
    key: 'kho',
    versions: [
      { id: 'kho-v1/bitmap-512', ...byCompatible('kho-v1'), root: khoV1Bitmap512 },
      {
        id: 'kho-v1/bitmap-page',
        ...byCompatible('kho-v1'),
        root: khoV1BitmapPage,
        shares: vmalloc.map((shared) => ({ ...shared, since: 'linux-6.18' })),
      },
      {
        id: 'kho-v2',
        ...byCompatible('kho-v2'),
        root: khoV2,
        shares: vmalloc,
        unreleased: '3f2ad90060f6 (7.1 window)',
      },
      {
        id: 'kho-v3/rc',
        ...byCompatible('kho-v3'),
        root: khoV3Rc,
        shares: vmalloc,
        unreleased: '7.1-rc1 to -rc5',
      },
      { id: 'kho-v3', ...byCompatible('kho-v3'), root: khoV3, shares: vmalloc },
      {
        id: 'kho-v4',
        ...byCompatible('kho-v4'),
        root: khoV4,
        shares: [...vmalloc, { struct: khoBlockHeader }],
      },
    ],
  },
  {
    name: 'memblock',
    doc: 'reserve_mem regions.',
    subtree: 'memblock',
    key: 'memblock',
    versions: [{ id: 'memblock-v1', ...byCompatible('memblock-v1'), root: memblockV1 }],
  },
  {
    name: 'kexec-metadata',
    doc: 'Release of the old kernel and count of handovers.',
    subtree: 'kexec-metadata',
    key: 'kexec_metadata',
    versions: [
      {
        id: 'kexec-metadata-1',
        contract: { kind: 'integer', name: 'kexec-metadata', value: KHO_KEXEC_METADATA_VERSION },
        place: { kind: 'field', field: 'version' },
        root: khoKexecMetadata,
      },
    ],
  },
  {
    name: 'luo',
    doc: 'Live update orchestrator: sessions, files, FLBs.',
    subtree: 'LUO',
    key: 'luo',
    versions: [
      {
        id: 'luo-v1/session-v1',
        ...byCompatible('luo-v1'),
        root: luoV1SessionV1,
        unreleased: '0153094d03df (6.19 window)',
      },
      { id: 'luo-v1', ...byCompatible('luo-v1'), root: luoV1 },
      { id: 'luo-v1/flb', ...byCompatible('luo-v1'), root: luoV1Flb },
      { id: 'luo-v2', ...byCompatible('luo-v2'), root: luoV2, unreleased: 'd376e4b55c9a (7.2 window)' },
      {
        id: 'luo-v3',
        ...byField('compatible', 'luo-v3'),
        root: luoV3,
        unreleased: 'cf071b3536df (7.2 window)',
      },
      {
        id: 'luo-v4',
        ...byField('compatible', 'luo-v4'),
        root: luoV4,
        unreleased: '2a441a14c2c0 (7.2 window)',
      },
      { id: 'luo-v5', ...byField('compatible', 'luo-v5'), root: luoV5 },
    ],
  },
  {
    name: 'memfd',
    doc: 'File handler of memfd.',
    key: 'memfd',
    versions: [
      { id: 'memfd-v1', ...byReferrer('memfd-v1'), root: memfdV1 },
      { id: 'memfd-v2', ...byReferrer('memfd-v2'), root: memfdV2 },
    ],
  },
  {
    name: 'kho-test',
    doc: "State of the kernel's KHO test module.",
    subtree: 'kho_test',
    key: 'kho_test',
    testOnly: true,
    versions: [
      { id: 'kho-test-v1/inline', ...byCompatible('kho-test-v1'), root: khoTestV1Inline },
      { id: 'kho-test-v1', ...byCompatible('kho-test-v1'), root: khoTestV1 },
    ],
  },
  {
    name: 'boot',
    doc: 'How the new kernel is told where the handover is.',
    key: 'boot',
    versions: [
      { id: 'setup_data', ...unversioned, root: setupData },
      { id: 'kho_data', ...unversioned, root: khoData },
      { id: 'kho_scratch', ...unversioned, root: khoScratch },
      { id: 'chosen', ...unversioned, root: chosenNode },
    ],
  },
]

/** Versions of the components that a release speaks, by component. */
export type ReleaseVersions = Partial<Readonly<Record<ComponentName, string>>>

export interface Release {
  readonly name: string
  /** Stable releases covered, as far as known. */
  readonly covers: string
  readonly versions: ReleaseVersions
  /** How it writes its root FDT, where not as the version's declaration says. */
  readonly rootStyle?: FdtStyle
  /** Not a release: a state of the tree between two. */
  readonly unreleased?: boolean
}

/** Oldest first. Evidence: release trees of 6.17.8, 6.18.15, 6.19.6, 6.19.11, 7.1.3, 7.1.13, 7.2.13, 7.3.4. */
export const releases: readonly Release[] = [
  { name: 'linux-6.16', covers: '6.16', versions: { kho: 'kho-v1/bitmap-512', memblock: 'memblock-v1' } },
  {
    name: 'linux-6.17',
    covers: '6.17.0 to 6.17.8',
    versions: { kho: 'kho-v1/bitmap-512', memblock: 'memblock-v1', 'kho-test': 'kho-test-v1/inline' },
  },
  {
    name: 'linux-6.17.9',
    covers: '6.17.9 and later 6.17',
    rootStyle: 'sequential',
    versions: { kho: 'kho-v1/bitmap-page', memblock: 'memblock-v1', 'kho-test': 'kho-test-v1/inline' },
  },
  {
    name: 'linux-6.18',
    covers: '6.18',
    rootStyle: 'sequential',
    versions: { kho: 'kho-v1/bitmap-page', memblock: 'memblock-v1', 'kho-test': 'kho-test-v1' },
  },
  {
    name: 'linux-6.19',
    covers: '6.19',
    versions: {
      kho: 'kho-v1/bitmap-page',
      memblock: 'memblock-v1',
      luo: 'luo-v1',
      memfd: 'memfd-v1',
      'kho-test': 'kho-test-v1',
    },
  },
  {
    name: 'linux-7.0',
    covers: '7.0',
    versions: {
      kho: 'kho-v1/bitmap-page',
      memblock: 'memblock-v1',
      luo: 'luo-v1/flb',
      memfd: 'memfd-v1',
      'kho-test': 'kho-test-v1',
    },
  },
  {
    name: 'kho-v2',
    covers: 'between 7.0 and 7.1-rc1',
    unreleased: true,
    versions: {
      kho: 'kho-v2',
      memblock: 'memblock-v1',
      luo: 'luo-v1/flb',
      memfd: 'memfd-v2',
      'kexec-metadata': 'kexec-metadata-1',
      'kho-test': 'kho-test-v1',
    },
  },
  {
    name: 'linux-7.1',
    covers: '7.1',
    versions: {
      kho: 'kho-v3',
      memblock: 'memblock-v1',
      luo: 'luo-v1/flb',
      memfd: 'memfd-v2',
      'kexec-metadata': 'kexec-metadata-1',
      'kho-test': 'kho-test-v1',
    },
  },
  {
    name: 'linux-7.2',
    covers: '7.2',
    versions: {
      kho: 'kho-v4',
      memblock: 'memblock-v1',
      luo: 'luo-v5',
      memfd: 'memfd-v2',
      'kexec-metadata': 'kexec-metadata-1',
      'kho-test': 'kho-test-v1',
    },
  },
  {
    name: 'linux-7.3',
    covers: '7.3',
    versions: {
      kho: 'kho-v4',
      memblock: 'memblock-v1',
      luo: 'luo-v5',
      memfd: 'memfd-v2',
      'kexec-metadata': 'kexec-metadata-1',
      'kho-test': 'kho-test-v1',
    },
  },
]

export function componentByName(name: ComponentName): Component {
  return components.find((component) => component.name === name) as Component
}

/** The component that a node of the root FDT points to; undefined for subsystems not known here. */
export function componentOfSubtree(node: string): Component | undefined {
  return components.find((component) => component.subtree === node)
}

/** Whether a text found in an image is what the contract demands. */
export function satisfies(contract: Contract, found: string | number): boolean {
  switch (contract.kind) {
    case 'string':
      return found === contract.value
    case 'integer':
      return found === contract.value
    case 'composite':
      return found === contract.parts.join(';')
    case 'list':
      return typeof found === 'string' && contract.values.includes(found)
    case 'none':
      return false
  }
}

/** All versions of a component whose contract the found text satisfies, oldest first. */
export function versionsFor(component: Component, found: string | number): readonly ComponentVersion[] {
  return component.versions.filter((version) => satisfies(version.contract, found))
}

/** Any component's version with that id. */
export function versionById(id: string): ComponentVersion | undefined {
  return components.flatMap((component) => component.versions).find((version) => version.id === id)
}

export function releaseByName(name: string): Release | undefined {
  return releases.find((release) => release.name === name)
}

/**
 * The release that a kernel's version belongs to: `linux-7.2`, `7.2`, `v7.2.13`, and where a stable
 * update changed the format the one in force (`6.17.8` is linux-6.17, `6.17.12` is linux-6.17.9).
 */
export function releaseFor(text: string): Release | undefined {
  const exact = releaseByName(text)
  const version = /^(?:linux-|v)?(\d+)\.(\d+)(?:\.(\d+))?$/.exec(text)
  if (exact || !version) return exact
  const [, major, minor, update = '0'] = version
  return releases.findLast((release) => {
    const known = /^linux-(\d+)\.(\d+)(?:\.(\d+))?$/.exec(release.name)
    if (!known) return false
    return known[1] === major && known[2] === minor && Number(known[3] ?? 0) <= Number(update)
  })
}

/** The update of a stable series that a release was said as: `7.1.3` of `linux-7.1.3`; undefined of `7.1`. */
export function updateOf(text: string): string | undefined {
  return /^(?:linux-|v)?(\d+\.\d+\.\d+)$/.exec(text)?.[1]
}

/** Position of a release in time; a name that is not registered is our bug. */
export function releaseIndex(name: string): number {
  const index = releases.findIndex((release) => release.name === name)
  invariant(index >= 0, `no release ${name}`)
  return index
}

/** Releases that carry a version, oldest first. */
export function releasesWith(versionId: string): readonly Release[] {
  return releases.filter((release) => Object.values(release.versions).includes(versionId))
}

/** What a contract says, for people: `kho-v4`, `kexec-metadata 1`. */
export function formatContract(contract: Contract): string {
  switch (contract.kind) {
    case 'string':
      return contract.value
    case 'integer':
      return `${contract.name} ${contract.value}`
    case 'composite':
      return contract.parts.join(';')
    case 'list':
      return contract.values.join(' | ')
    case 'none':
      return 'not versioned'
  }
}
