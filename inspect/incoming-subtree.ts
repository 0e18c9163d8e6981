/** Subsystems' blobs as the next kernel finds them: kho_retrieve_subtree() (kernel/liveupdate/kexec_handover.c). */
import { fdtHeader } from '../abi/fdt.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { type ComponentName, componentByName, versionById } from '../abi/registry.ts'
import type { FdtNodeType, PropertyType } from '../abi/schema.ts'
import { MAX_FDT_BYTES } from './budget.ts'
import { stringList } from './component-fdt.ts'
import { behind, type Place, ROOT, within } from './faults.ts'
import { FDT_HEADER_SIZE } from './fdt.ts'
import type { Incoming, Pointer } from './incoming.ts'
import { KernelFdt } from './kernel-fdt.ts'
import { readLeading } from './read.ts'
import { decodeStruct } from './record.ts'
import { child, itemsAt, numberAt } from './tree.ts'

/** Where a subsystem's blob lies. */
export interface Blob {
  readonly pa: PhysAddr
  /** `blob-size`; undefined where the version has none. */
  readonly size: bigint | undefined
  readonly pointer: Pointer
  /** Where `blob-size` is stored. */
  readonly sizePa: PhysAddr
  /** The component's place in the tree, behind the pointer. */
  readonly place: Place
}

/** An FDT and where it lies. */
export interface BlobFdt {
  readonly fdt: KernelFdt
  readonly base: PhysAddr
}

/** The FDT of a subsystem, as much of it as the image holds; undefined where that is not even its head. */
export function blobFdt(incoming: Incoming, { pa, place }: Blob): BlobFdt | undefined {
  const head = incoming.bytes(pa, FDT_HEADER_SIZE, place)
  if (!head) return undefined
  // Most readers of libfdt do not ask for the magic number.
  const { totalsize } = decodeStruct(fdtHeader, head, incoming.subject.target)
  const length = Math.min(Math.max(totalsize, FDT_HEADER_SIZE), MAX_FDT_BYTES)
  return { fdt: new KernelFdt(readLeading(incoming.subject.memory, pa, length), pa), base: pa }
}

/** Names of the properties that tell address and size of a blob, as the kernel's version has them. */
function blobProperties(kho: string): { readonly address: string; readonly size: string | undefined } {
  const root = versionById(kho)?.root as FdtNodeType | undefined
  const properties: readonly [string, PropertyType][] = Object.entries(root?.each?.node.properties ?? {})
  for (const [address, type] of properties)
    if (type.kind === 'int' && type.to?.kind === 'blob') return { address, size: type.to.size }
  return { address: '', size: undefined }
}

/**
 * A subsystem's blob by the name of its node: `missing` where there is none, else the negative error
 * with which the kernel's function returns.
 */
export function retrieveSubtree(incoming: Incoming, component: ComponentName): Blob | 'missing' | 'broken' {
  const { subject } = incoming
  const { subtree: name, key } = componentByName(component)
  const kho = subject.speaks('kho')
  const { root: fdt } = subject
  const root = subject.handover.fdt
  const node = (name !== undefined && fdt?.subnode(0, name)) || -1
  if (!fdt) return subtreeInTree(incoming, component)
  if (name === undefined || root === undefined || kho === undefined || node < 0) return 'missing'
  const properties = blobProperties(kho)
  const address = fdt.property(node, properties.address)
  const pa = fdt.word64(node, properties.address)
  if (typeof address === 'number' || pa === undefined) return 'broken'
  const stored = properties.size === undefined ? undefined : fdt.property(node, properties.size)
  const size = properties.size === undefined ? undefined : fdt.word64(node, properties.size)
  if (stored !== undefined && size === undefined) return 'broken'
  const path = ['subtrees', { index: 0, key: name }, 'phys']
  const pointer: Pointer = { path, pa: phys(root + BigInt(address.offset)) }
  const sizePa = typeof stored === 'object' ? phys(root + BigInt(stored.offset)) : pointer.pa
  return { pa: phys(pa), size, pointer, sizePa, place: behind(within(ROOT, key), pointer, pa) }
}

/** A subsystem's blob where the image holds the root FDT in part only, as debugfs gives it: as the decoder has it. */
function subtreeInTree({ subject }: Incoming, component: ComponentName): Blob | 'missing' {
  const { subtree, key } = componentByName(component)
  const item = itemsAt(subject.handover.tree, 'subtrees').find(
    ({ segment }) => typeof segment === 'object' && segment.key === subtree,
  )
  const address = numberAt(item, 'phys')
  if (!item || address === undefined || address === 0n) return 'missing'
  const at = child(item, 'phys')?.pa ?? item.pa
  const pointer: Pointer = { path: ['subtrees', item.segment, 'phys'], pa: at }
  const size = numberAt(item, 'size')
  const sizePa = child(item, 'size')?.pa ?? at
  const place = behind(within(ROOT, key), pointer, BigInt(address))
  return { pa: phys(address), size: size === undefined ? undefined : BigInt(size), pointer, sizePa, place }
}

/** Where the node of a subsystem is in the tree, to say what is wrong with it. */
export function subtreePlace(component: ComponentName): Place {
  const { subtree } = componentByName(component)
  return within(ROOT, 'subtrees', { index: 0, key: subtree ?? component })
}

/** What stands where a version string is expected. */
export function compatibleOf(
  { fdt, base }: BlobFdt,
  node: number,
  expected: string,
): { pa: PhysAddr; length: number; expected: string; found: string } {
  const property = fdt.property(node, 'compatible')
  if (typeof property === 'number') return { pa: base, length: 4, expected, found: 'no such property' }
  const found = stringList(property.value).join(', ') || hex(property.value.length)
  return { pa: phys(base + BigInt(property.offset)), length: property.value.length, expected, found }
}
