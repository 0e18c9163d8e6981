/**
 * The nodes of the root FDT: where a subsystem's blob is, how long it is, and who looks for it.
 */

import { checkOf } from '../abi/console.ts'
import { formatPath } from '../abi/fault.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { type Component, componentOfSubtree, components, versionById, versionsFor } from '../abi/registry.ts'
import type { FdtNodeType } from '../abi/schema.ts'
import type { ClaimGroup } from './claim.ts'
import { compatiblesOf } from './component-fdt.ts'
import { FDT_HEADER_SIZE, type Fdt, fdtTotalSize, hasFdtMagic, readFdt } from './fdt.ts'
import { readLeading } from './read.ts'
import { note, type Rule, refuses, type Stage, silent, type Violation } from './rule.ts'
import type { Subject } from './subject.ts'
import { decodeText } from './text.ts'
import { child, itemsAt, type Node, numberAt } from './tree.ts'
import { violationOf } from './violations.ts'

/** When each subsystem comes to its blob. */
const STAGE_OF: Readonly<Record<string, Stage>> = { memblock: 'reserve-mem', LUO: 'luo' }

/** One node of the root FDT as the decoder has it. */
interface Subtree {
  readonly name: string
  readonly path: string
  readonly node: Node
  readonly address: bigint | undefined
  readonly size: bigint | undefined
  readonly component: Component | undefined
  readonly stage: Stage
}

function* subtreesOf({ handover }: Subject): Generator<Subtree> {
  const list = child(handover.tree, 'subtrees')
  for (const node of list ? itemsAt(handover.tree, 'subtrees') : []) {
    const stored = child(node, 'name')
    const name =
      stored?.kind === 'value' && stored.value instanceof Uint8Array ? decodeText(stored.value) : ''
    const base = name.split('@')[0] as string
    const address = numberAt(node, 'phys')
    const size = numberAt(node, 'size')
    yield {
      name,
      path: formatPath(['subtrees', node.segment]),
      node,
      address: address === undefined ? undefined : BigInt(address),
      size: size === undefined ? undefined : BigInt(size),
      component: componentOfSubtree(base),
      stage: STAGE_OF[base] ?? 'initcalls',
    }
  }
}

/** Names of the nodes for which nothing here has a decoder. */
export function unknownSubtrees(subject: Subject): readonly string[] {
  return [...subtreesOf(subject)].filter(({ component }) => !component).map(({ name }) => name)
}

/** Names of the properties of a node in the kernel's version, by what they are for. */
function blobProperties({ kernel }: Subject): { readonly phys: string; readonly size: string | undefined } {
  const version = kernel.versions.kho === undefined ? undefined : versionById(kernel.versions.kho)
  const node = (version?.root as FdtNodeType | undefined)?.each?.node
  for (const [name, type] of Object.entries(node?.properties ?? {})) {
    if (type.kind === 'int' && type.to?.kind === 'blob') return { phys: name, size: type.to.size }
  }
  return { phys: '', size: undefined }
}

/** Whether the kernel finds a property of 8 bytes in the node of that name, or no such node at all. */
function isFound({ root }: Subject, subtree: string, property: string): boolean {
  const node = root?.subnode(0, subtree) ?? -1
  return node < 0 || root?.word64(node, property) !== undefined
}

/** Nodes in which the kernel does not find a property of 8 bytes. */
function* withoutProperty(subject: Subject, rule: string, key: 'phys' | 'size'): Generator<Violation> {
  const name = blobProperties(subject)[key]
  if (name === undefined) return
  for (const { path, node, stage, name: subtree } of subtreesOf(subject)) {
    if (subject.root ? isFound(subject, subtree, name) : child(node, key)) continue
    const [fault] = subject.faults.take(['PROPERTY_MISSING', 'PROPERTY_LENGTH'], `${path}.${key}`)
    if (!subject.root && fault?.severity === 'warning') continue
    const says = checkOf(rule, subject.release)?.message !== undefined
    yield {
      path: `${path}.${key}`,
      pa: fault?.pa ?? node.pa,
      length: fault?.length ?? node.length,
      message: fault?.message ?? `property ${name} is missing`,
      expected: fault?.expected ?? `a property ${name} of 8 bytes`,
      found: fault?.found ?? 'it is not there',
      hides: path,
      stage,
      ...(says && { log: [subtree] }),
    }
  }
}

export const subtreeRules: readonly Rule[] = [
  refuses({
    id: 'KHO_SUBTREE_ADDRESS',
    stage: 'initcalls',
    requires: ['KHO_MAP_ADDRESS'],
    check: (subject) => withoutProperty(subject, 'KHO_SUBTREE_ADDRESS', 'phys'),
  }),
  refuses({
    id: 'KHO_BLOB_SIZE',
    stage: 'initcalls',
    requires: ['KHO_MAP_ADDRESS', 'KHO_SUBTREE_ADDRESS'],
    check: (subject) => withoutProperty(subject, 'KHO_BLOB_SIZE', 'size'),
  }),
  silent({
    id: 'KHO_BLOB_LENGTH',
    component: 'kho',
    severity: 'warning',
    since: 'linux-7.1',
    requires: ['KHO_BLOB_SIZE'],
    why: 'Readers of FDTs go by totalsize; only debugfs shows as many bytes as blob-size says.',
    source: 'kho_retrieve_subtree()',
    outcome: 'takes-over',
    stage: 'initcalls',
    check: function* ({ faults }) {
      for (const fault of faults.takeIf(
        ({ code, severity }) => code === 'BLOB_SIZE' && severity === 'warning',
      ))
        yield violationOf(fault)
    },
  }),
  silent({
    id: 'KHO_SUBTREE_NAME',
    component: 'kho',
    since: 'linux-6.16',
    requires: ['KHO_SUBTREE_ADDRESS'],
    why: 'A subsystem looks for its node by name; it takes one of another name for none, and begins anew.',
    source: 'kho_retrieve_subtree()',
    outcome: 'loses',
    stage: 'initcalls',
    check: function* (subject) {
      const names = new Set([...subtreesOf(subject)].map(({ component }) => component?.name))
      for (const { path, node, name, address, component } of subtreesOf(subject)) {
        if (component || address === undefined) continue
        const owner = ownerOf(subject, phys(address)) ?? misspelt(name)
        if (!owner || names.has(owner.name)) continue
        const stored = child(node, 'name') ?? node
        yield {
          path: `${path}.name`,
          pa: stored.pa,
          length: stored.length,
          message: `'${name}' is the node of ${owner.name}, which nobody looks for by this name`,
          expected: owner.subtree as string,
          found: name,
          stage: STAGE_OF[owner.subtree as string] ?? 'initcalls',
          outcome: owner.testOnly || owner.name === 'kexec-metadata' ? 'takes-over' : 'loses',
        }
      }
    },
  }),
  note({
    id: 'KHO_SUBTREE_UNKNOWN',
    component: 'kho',
    since: 'linux-6.16',
    requires: ['KHO_SUBTREE_NAME'],
    why: 'Any kernel module may leave a node; what its blob says only that module knows.',
    source: 'kho_add_subtree()',
    stage: 'initcalls',
    check: function* (subject) {
      for (const { path, node, name, component, address } of subtreesOf(subject)) {
        if (component) continue
        yield {
          path,
          pa: node.pa,
          length: node.length,
          message: `nothing here knows subtree '${name}'; its blob${address === undefined ? '' : ` at ${hex(address)}`} and what that refers to are not judged`,
        }
      }
    },
  }),
  silent({
    id: 'KHO_BLOB_OUTSIDE',
    component: 'kho',
    since: 'linux-6.16',
    requires: ['KHO_SUBTREE_ADDRESS'],
    why: "A blob's address is followed as it is.",
    source: 'kho_retrieve_subtree()',
    outcome: 'corrupts',
    stage: 'initcalls',
    check: function* (subject) {
      for (const { path, node, address, stage, name, component } of subtreesOf(subject)) {
        if (address === undefined || subject.known.mayHold(address) || subject.handover.fdt === undefined)
          continue
        if (component && subject.speaks(component.name) === undefined) continue
        const stored = child(node, 'phys') ?? node
        takeBlobFaults(subject, component?.key ?? path)
        yield {
          path: `${path}.phys`,
          pa: stored.pa,
          length: stored.length,
          message: `the blob of '${name}' is where there is no memory`,
          expected: `an address between ${hex(subject.known.start)} and ${hex(subject.known.end)}`,
          found: hex(address),
          stage,
          hides: path,
          ends: component !== undefined,
          ...(component && { affects: [component.key] }),
        }
      }
    },
  }),
]

/** Takes what the decoder says of a blob that is not there, as it is said already. */
function takeBlobFaults({ faults }: Subject, key: string): void {
  faults.takeIf(
    ({ code, path }) =>
      (code === 'ADDRESS_NULL' || code === 'MEMORY_HOLE' || code === 'ADDRESS_OVERFLOW') &&
      (path === key || path === `${key}.blob`),
  )
}

/** The component whose contract a blob of an unknown name satisfies. */
function ownerOf({ memory }: Subject, pa: PhysAddr): Component | undefined {
  const head = readLeading(memory, pa, FDT_HEADER_SIZE)
  const strings = hasFdtMagic(head)
    ? compatiblesOf(blobFdt(readLeading(memory, pa, Math.min(fdtTotalSize(head) ?? 0, MAX_BLOB)))?.root)
    : [decodeText(head.subarray(0, CONTRACT_BYTES))]
  return components.find(
    (component) =>
      component.subtree !== undefined && strings.some((text) => versionsFor(component, text).length > 0),
  )
}

/** The component whose subtree has this name but for one byte; one that is no text is shown as an escape. */
function misspelt(name: string): Component | undefined {
  const letters = name.replace(/\\x[0-9a-f]{2}/g, '?')
  return components.find(
    ({ subtree }) =>
      subtree?.length === letters.length &&
      [...subtree].filter((letter, at) => letter !== letters[at]).length === 1,
  )
}

/** Bytes of a blob that are searched for a contract, and of a struct's string. */
const MAX_BLOB = 65536
const CONTRACT_BYTES = 8

function blobFdt(bytes: Uint8Array): Fdt | undefined {
  return bytes.length === 0 ? undefined : readFdt(bytes)
}

/** What the root FDT and the blobs that only their own modules know claim. */
export function* subtreeClaims(subject: Subject): Generator<ClaimGroup> {
  const { handover } = subject
  if (handover.fdt === undefined) return
  const root = handover.fdt
  yield {
    rule: 'KHO_FDT_PRESERVED',
    path: 'kho',
    what: 'the root FDT',
    via: [],
    restore: subject.traits.restoresRootFdt ? 'folio' : 'read',
    pfns: Float64Array.of(subject.pfn(root)),
    pages: 1,
    pointer: () => root,
  }
  for (const { path, node, address, size, component, name } of subtreesOf(subject)) {
    if (address === undefined || address === 0n || CLAIMED_ELSEWHERE.includes(component?.name ?? '')) continue
    const stored = child(node, 'phys') ?? node
    const length = blobLength(subject, phys(address), size)
    const first = subject.pfn(address)
    yield {
      rule: 'KHO_BLOB_PRESERVED',
      path: `${path}.phys`,
      what: `the blob of '${name}'`,
      via: [{ path: `${path}.phys`, pa: stored.pa, target: phys(address) }],
      restore: 'read',
      pfns: Float64Array.of(first),
      pages: Math.max(1, subject.pfn(address + length - 1n) - first + 1),
      pointer: () => stored.pa,
    }
  }
}

/** Components that claim their blobs themselves. */
const CLAIMED_ELSEWHERE: readonly string[] = ['luo', 'memblock', 'kexec-metadata']

/** Bytes of a blob: what the root FDT says, else what it says itself if it is an FDT. */
function blobLength({ memory }: Subject, pa: PhysAddr, size: bigint | undefined): bigint {
  if (size !== undefined && size > 0n && size < BigInt(MAX_CLAIM)) return size
  const head = readLeading(memory, pa, FDT_HEADER_SIZE)
  return BigInt(Math.min(Math.max(fdtTotalSize(head) ?? 1, 1), MAX_CLAIM))
}

/** No blob of one unit is larger. */
const MAX_CLAIM = 1 << 30
