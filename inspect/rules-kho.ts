/**
 * The root FDT: whether kho_populate() takes it, and what it does not look at.
 */
import { EARLY_MEMREMAP_MAX } from '../abi/boot.ts'
import { formatPath } from '../abi/fault.ts'
import { FDT_ERR, fdtHeader } from '../abi/fdt.ts'
import { layoutOf } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName, formatContract, versionById } from '../abi/registry.ts'
import { mapEdge } from './reading.ts'
import { type Rule, refuses, silent, type Violation } from './rule.ts'
import type { Subject } from './subject.ts'
import { numberAt } from './tree.ts'
import { violationOf } from './violations.ts'

const ROOT_PATH = 'kho'
const HEADER_SIZE = layoutOf(fdtHeader, { pageSize: 4096 }).size

/** Address of the root FDT, 0 for one of which nobody knows it. */
function rootAddress({ handover }: Subject): PhysAddr {
  return handover.fdt ?? phys(0)
}

/** Where a property of the root is stored, and how long it is; the root itself where it has none such. */
function propertyPlace(subject: Subject, name: string): Pick<Violation, 'pa' | 'length'> {
  const property = subject.root?.property(0, name)
  const base = rootAddress(subject)
  if (property === undefined || typeof property === 'number') return { pa: base, length: HEADER_SIZE }
  return { pa: phys(base + BigInt(property.offset)), length: property.value.length }
}

/** The string that the kernel demands of the root. */
function wantedContract({ kernel }: Subject): string {
  const version = kernel.versions.kho === undefined ? undefined : versionById(kernel.versions.kho)
  return version ? formatContract(version.contract) : (kernel.versions.kho ?? '')
}

/** fdt_node_check_compatible() for the root; for a root of which only the decoder has seen all, by its version. */
function checkCompatible({ root, written }: Subject, wanted: string): number {
  if (root) return root.checkCompatible(0, wanted)
  return written.version && formatContract(written.version.contract) === wanted ? 0 : 1
}

/** Name of the property that points to the map. */
function mapProperty({ kernel }: Subject): string {
  const version = componentByName('kho').versions.find(({ id }) => id === kernel.versions.kho)
  return (version && mapEdge(version)?.property) ?? ''
}

const MAP_PATH = 'kho.memory_map'

/** The word in the map property; undefined where the kernel finds no property of 8 bytes. */
function mapAddress(subject: Subject): bigint | undefined {
  const { root, handover } = subject
  if (root) return root.word64(0, mapProperty(subject))
  const stored = numberAt(subject.record(ROOT_PATH), 'memory_map')
  return stored === undefined && handover.version === undefined
    ? 0n
    : stored === undefined
      ? undefined
      : BigInt(stored)
}

const FDT_CODES = ['FDT_MAGIC', 'FDT_VERSION', 'FDT_HEADER', 'FDT_TRUNCATED'] as const

/** What libfdt's error means. */
function fdtError(error: number): string {
  const name = Object.entries(FDT_ERR).find(([, value]) => value === error)?.[0] ?? 'unknown'
  return `FDT_ERR_${name} (${error})`
}

export const khoRules: readonly Rule[] = [
  refuses({
    id: 'KHO_FDT_MAPPED',
    stage: 'populate',
    check: function* (subject) {
      const size = numberAt(subject.node('boot'), 'fdt_size')
      if (size === undefined || (BigInt(size) > 0n && BigInt(size) <= BigInt(EARLY_MEMREMAP_MAX))) return
      yield {
        path: 'boot.fdt_size',
        pa: rootAddress(subject),
        length: 0,
        message: 'the root FDT cannot be mapped',
        expected: `1 to ${EARLY_MEMREMAP_MAX} bytes`,
        found: `${size} bytes`,
        hides: '',
        log: [rootAddress(subject)],
      }
    },
  }),
  refuses({
    id: 'KHO_FDT_HEADER',
    stage: 'populate',
    requires: ['KHO_FDT_MAPPED'],
    check: function* (subject) {
      const { handover, faults } = subject
      if (handover.fdt === undefined) return
      const pa = rootAddress(subject)
      const placed = handover.fdts.find(({ path }) => path === ROOT_PATH)
      const error = placed
        ? (subject.headerError ?? 0)
        : handover.faults.some(({ code, path }) => path === ROOT_PATH && code === 'MEMORY_EXCLUDED')
          ? 0
          : FDT_ERR.BADMAGIC
      if (error === 0) return
      const [fault] = faults.takeIf(
        ({ code, path }) => path === ROOT_PATH && (FDT_CODES as readonly string[]).includes(code),
      )
      yield {
        path: ROOT_PATH,
        pa: fault?.pa ?? pa,
        length: fault?.length ?? HEADER_SIZE,
        message: fault?.message ?? `no FDT at ${hex(pa)}`,
        expected: fault?.expected ?? 'a header that fdt_check_header() accepts',
        found: `${fault?.found ?? 'no such memory'}: ${fdtError(error)}`,
        hides: '',
        log: [pa, error],
      }
    },
  }),
  refuses({
    id: 'KHO_COMPATIBLE',
    stage: 'populate',
    requires: ['KHO_FDT_HEADER'],
    check: function* (subject) {
      const wanted = wantedContract(subject)
      const error = checkCompatible(subject, wanted)
      const taken = subject.faults.takeIf(
        ({ code, path }) =>
          path === 'kho.compatible' && (code === 'COMPATIBLE_UNKNOWN' || code === 'PROPERTY_MISSING'),
      )
      if (error === 0) return
      const written = subject.written.version
      yield {
        path: 'kho.compatible',
        ...propertyPlace(subject, 'compatible'),
        message: `the root FDT is not compatible with ${wanted}`,
        expected: wanted,
        found: taken[0]?.found ?? (written ? formatContract(written.contract) : fdtError(error)),
        hides: '',
        ...(subject.handover.fdt !== undefined && { log: [rootAddress(subject), wanted, error] }),
      }
    },
  }),
  refuses({
    id: 'KHO_MAP_PROPERTY',
    stage: 'populate',
    requires: ['KHO_COMPATIBLE'],
    check: function* (subject) {
      if (mapAddress(subject) !== undefined) return
      const [fault] = subject.faults.take(['PROPERTY_MISSING', 'PROPERTY_LENGTH'], MAP_PATH)
      const name = mapProperty(subject)
      yield {
        path: MAP_PATH,
        ...propertyPlace(subject, name),
        message: fault?.message ?? `the kernel does not find the property ${name}`,
        expected: fault?.expected ?? `a property ${name} of 8 bytes`,
        found: fault?.found ?? 'none that libfdt finds',
        hides: '',
        log: [],
      }
    },
  }),
  refuses({
    id: 'KHO_MAP_ADDRESS',
    stage: 'populate',
    requires: ['KHO_MAP_PROPERTY'],
    check: function* (subject) {
      if (mapAddress(subject) !== 0n) return
      yield {
        path: MAP_PATH,
        ...propertyPlace(subject, mapProperty(subject)),
        message: 'the map of preserved memory has address 0',
        expected: 'an address',
        found: '0x0',
        hides: '',
        log: [],
      }
    },
  }),
  silent({
    id: 'KHO_FDT_FORM',
    component: 'kho',
    severity: 'warning',
    since: 'linux-6.16',
    requires: ['KHO_MAP_PROPERTY'],
    why: 'fdt_check_header() looks at the header only, and libfdt ends a search at what it cannot read: nodes behind that place are not found.',
    source: 'fdt_check_full()',
    outcome: 'takes-over',
    stage: 'populate',
    check: function* (subject) {
      const broken = structureError(subject)
      const codes = [...FDT_CODES, 'FDT_STRUCTURE', 'FDT_STRING', 'FDT_DEPTH'] as const
      const taken = subject.faults.takeIf(
        ({ code, path, severity }) =>
          severity === 'error' && isRootPath(path) && (codes as readonly string[]).includes(code),
      )
      for (const fault of taken)
        yield { ...violationOf(fault), ...(broken && { outcome: 'loses', severity: 'error' }) }
      if (taken.length > 0 || !broken) return
      yield {
        path: ROOT_PATH,
        pa: rootAddress(subject),
        length: HEADER_SIZE,
        message: 'libfdt cannot read the nodes of the root FDT to their end',
        expected: 'the end of the root node',
        found: fdtError(broken),
        outcome: 'loses',
        severity: 'error',
      }
    },
  }),
  silent({
    id: 'KHO_FDT_DUPLICATE',
    component: 'kho',
    severity: 'warning',
    since: 'linux-6.16',
    requires: ['KHO_FDT_HEADER'],
    why: 'fdt_getprop() and fdt_subnode_offset() take the first of a name; what else has that name is never seen.',
    source: 'kho_retrieve_subtree()',
    outcome: 'takes-over',
    stage: 'populate',
    check: function* ({ handover, faults }) {
      for (const fault of faults.take('VALUE_UNEXPECTED', 'subtrees')) yield violationOf(fault)
      for (const { path, pa, fdt } of handover.fdts) {
        for (const node of fdt.root ? [fdt.root, ...fdt.root.children] : []) {
          const counts = new Map<string | undefined, number>()
          for (const { name } of node.properties) counts.set(name, (counts.get(name) ?? 0) + 1)
          const seen = new Set<string>()
          for (const { name, offset, value } of node.properties) {
            if (name === undefined || counts.get(name) === 1) continue
            if (!seen.has(name)) {
              seen.add(name)
              continue
            }
            const at = node === fdt.root ? [path] : [path === ROOT_PATH ? 'subtrees' : path, node.name]
            yield {
              path: formatPath([...at, name]),
              pa: phys(pa + BigInt(offset)),
              length: value.length,
              message: `a further property ${name}; the kernel finds the first one only`,
              expected: 'one property of this name',
              found: `${counts.get(name)} of them`,
            }
          }
        }
      }
    },
  }),
]

/** Whether a path is that of the root FDT or of one of its nodes. */
function isRootPath(path: string): boolean {
  return /^(kho|subtrees)\b/.test(path) && !/\]\.blob\b/.test(path)
}

/** The error of libfdt where it does not come to the end of all nodes. */
function structureError({ root }: Subject): number | undefined {
  return root?.hasRest() ? FDT_ERR.BADSTRUCTURE : undefined
}
