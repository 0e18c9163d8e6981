/**
 * The declared ABI as plain data: what `abi show`, `diff`, `export` and `freeze` work on.
 *
 * A description holds everything that is on the wire and nothing of how this project reads it, so that
 * a stored one can be compared with today's. Values that depend on the page size are objects by page
 * size, as in `fixtures/layouts/layouts.json`; values that do not are single numbers.
 */
import type { PageSize } from '../abi/layout.ts'
import { countOf, layoutOf, PAGE_SIZES, sizeOf } from '../abi/layout.ts'
import { type LimitKind, limitsOf } from '../abi/limits.ts'
import { childrenOf, edgeOf, partsOf } from '../abi/parts.ts'
import type { Component, ComponentVersion, Contract, ContractPlace, Release } from '../abi/registry.ts'
import { components, releases, releasesWith } from '../abi/registry.ts'
import type { FdtNodeType, FieldType, IntType, PropertyType, StructType } from '../abi/schema.ts'
import { describeEdge, type EdgeDescription } from './abi-edge.ts'
import { type PerPage, perPage } from './per-page.ts'

export const ABI_SCHEMA = 'kho-inspect/abi@1'

export interface AbiDocument {
  readonly schema: string
  readonly components: Readonly<Record<string, ComponentDescription>>
  readonly versions: Readonly<Record<string, VersionDescription>>
  /** Oldest first. */
  readonly releases: readonly ReleaseDescription[]
}

export interface ComponentDescription {
  readonly doc: string
  readonly subtree?: string
  readonly testOnly?: boolean
  /** Oldest first. */
  readonly versions: readonly string[]
}

export interface ReleaseDescription {
  readonly name: string
  readonly covers: string
  readonly unreleased?: boolean
  readonly versions: Readonly<Record<string, string>>
}

export interface VersionDescription {
  readonly id: string
  readonly component: string
  readonly contract: Contract
  readonly place: ContractPlace
  readonly unreleased?: string
  readonly releases: readonly string[]
  /** Key of the part that the component's pointer leads to. */
  readonly root: string
  /** By struct tag or node path. */
  readonly parts: Readonly<Record<string, PartDescription>>
  readonly limits: Readonly<Record<string, LimitDescription>>
}

export interface LimitDescription {
  readonly value: PerPage
  /** Documents that were stored before limits said so have none. */
  readonly is?: LimitKind
  readonly doc: string
  /** Key of the part that implies it. */
  readonly part: string
}

export interface PartDescription {
  readonly kind: 'struct' | 'node'
  readonly doc: string
  readonly source: string
  readonly packed?: boolean
  readonly size?: PerPage
  readonly align?: number
  /** Version string of the node itself. */
  readonly compatible?: string
  /** Paths of the nodes whose version strings guard this part; the version's own contract always does. */
  readonly guards: readonly string[]
  /** Fields by offset, or properties. */
  readonly members: readonly MemberDescription[]
  /** Paths of a node's children. */
  readonly children?: readonly string[]
  /** A struct of other components that this contract guards; in all its releases, or from one on. */
  readonly shared?: { readonly since?: string }
}

export interface MemberDescription {
  readonly name: string
  /** As in the header: `u64`, `char[48]`, `struct luo_file_set_ser`. */
  readonly type: string
  /** `le64`, `be32`, `text`, `bitmap`, `struct`, `array of le64` and the like. */
  readonly encoding: string
  /** Bytes from the start of the struct; properties have none. */
  readonly offset?: PerPage
  /** Bytes; none if any length is possible. */
  readonly size?: PerPage
  /** Elements of an array. */
  readonly count?: PerPage
  readonly bits?: { readonly shift: number; readonly width: number }
  readonly flags?: Readonly<Record<string, number>>
  /** The only value allowed. */
  readonly only?: number
  /** Key of the embedded struct's part, or of an array's elements. */
  readonly part?: string
  readonly leads?: EdgeDescription
  readonly doc: string
}

/** Describes everything that is declared. */
export function describeAbi(): AbiDocument {
  const versions = components.flatMap((component) =>
    component.versions.map((version) => describeVersion(component, version)),
  )
  return {
    schema: ABI_SCHEMA,
    components: Object.fromEntries(
      components.map((component) => [component.name, describeComponent(component)]),
    ),
    versions: Object.fromEntries(versions.map((version) => [version.id, version])),
    releases: releases.map(describeRelease),
  }
}

function describeComponent({ doc, subtree, testOnly, versions }: Component): ComponentDescription {
  return {
    doc,
    ...(subtree === undefined ? {} : { subtree }),
    ...(testOnly ? { testOnly } : {}),
    versions: versions.map(({ id }) => id),
  }
}

function describeRelease({ name, covers, unreleased, versions }: Release): ReleaseDescription {
  return { name, covers, ...(unreleased ? { unreleased } : {}), versions }
}

/** Describes one version of a component, with the parts that its contract guards for others. */
export function describeVersion(component: Component, version: ComponentVersion): VersionDescription {
  const parts = partsOf(version.root).map(
    ({ key, type, guards }) => [key, describePart(type, key, guards)] as const,
  )
  const shared = (version.shares ?? []).map(
    ({ struct, since }) =>
      [struct.name, { ...describeStruct(struct, []), shared: since === undefined ? {} : { since } }] as const,
  )
  return {
    id: version.id,
    component: component.name,
    contract: version.contract,
    place: version.place,
    ...(version.unreleased === undefined ? {} : { unreleased: version.unreleased }),
    releases: releasesWith(version.id).map(({ name }) => name),
    root: version.root.kind === 'struct' ? version.root.name : '/',
    parts: Object.fromEntries([...parts, ...shared]),
    limits: describeLimits(version.root),
  }
}

function describeLimits(root: StructType | FdtNodeType): Record<string, LimitDescription> {
  const limits: Record<string, LimitDescription> = {}
  for (const { name, is, doc, part } of limitsOf(root, { pageSize: PAGE_SIZES[0] as PageSize })) {
    const value = perPage((target) => limitsOf(root, target).find((limit) => limit.name === name)?.value ?? 0)
    limits[name] = { value, is, doc, part }
  }
  return limits
}

function describePart(
  type: StructType | FdtNodeType,
  key: string,
  guards: readonly string[],
): PartDescription {
  return type.kind === 'struct' ? describeStruct(type, guards) : describeNode(type, key, guards)
}

export function describeStruct(struct: StructType, guards: readonly string[]): PartDescription {
  const first = layoutOf(struct, { pageSize: PAGE_SIZES[0] as PageSize })
  return {
    kind: 'struct',
    doc: struct.doc,
    source: struct.source,
    packed: struct.packed,
    size: perPage((target) => layoutOf(struct, target).size),
    align: first.align,
    guards,
    members: first.fields.map(({ name, type }, index) => ({
      ...describeMember(name, type),
      offset: perPage((target) => layoutOf(struct, target).fields[index]?.offset ?? 0),
      size: perPage((target) => layoutOf(struct, target).fields[index]?.size ?? 0),
      ...(type.kind === 'array' && {
        count: perPage((target) => countOf(type, target, layoutOf(struct, target).fields[index]?.offset)),
      }),
    })),
  }
}

function describeNode(node: FdtNodeType, path: string, guards: readonly string[]): PartDescription {
  const own = node.properties.compatible
  return {
    kind: 'node',
    doc: node.doc,
    source: node.source,
    ...(own?.kind === 'compatible' ? { compatible: own.value } : {}),
    guards,
    members: Object.entries(node.properties).map(([name, type]) => ({
      ...describeMember(name, type),
      ...propertySize(type),
    })),
    children: childrenOf(node, path).map(([child]) => child),
  }
}

function propertySize(type: PropertyType): { size?: PerPage } {
  if (type.kind === 'inline-array') return {}
  if (type.kind === 'compatible') return { size: type.value.length + 1 }
  return { size: perPage((target) => sizeOf(type, target)) }
}

function describeMember(name: string, type: FieldType | PropertyType): MemberDescription {
  const edge = edgeOf(type)
  const number = type.kind === 'int' || type.kind === 'bits' ? type : undefined
  const part = type.kind === 'array' ? type.element : type
  return {
    name,
    type: cType(type),
    encoding: encodingOf(type),
    ...(type.kind === 'bits' ? { bits: { shift: type.shift, width: type.width } } : {}),
    ...(number?.flags ? { flags: number.flags } : {}),
    ...(type.kind === 'int' && type.only !== undefined ? { only: type.only } : {}),
    ...(part.kind === 'struct' ? { part: part.name } : {}),
    ...(edge ? { leads: describeEdge(edge) } : {}),
    doc: type.doc,
  }
}

function cType(type: FieldType | PropertyType): string {
  switch (type.kind) {
    case 'int':
      return type.ctype
    case 'bits':
      return type.word.ctype
    case 'text':
      return `char[${type.bytes}]`
    case 'bytes':
      return `u8[${type.bytes}]`
    case 'bitmap':
      return 'u64[]'
    case 'array':
      return `${cType(type.element)}[${type.count === 'page' ? '' : type.count}]`
    case 'struct':
      return `struct ${type.name}`
    case 'compatible':
      return 'string'
    case 'inline-array':
      return `${type.element.ctype}[]`
  }
}

/** Byte order and width of a word: `le64`, `be32`, `u8`; signed ones begin with `s`. */
export function encodingOfInt({ order, bytes, signed }: IntType): string {
  if (bytes === 1) return signed ? 's8' : 'u8'
  return `${signed ? 's' : ''}${order}${bytes * 8}`
}

function encodingOf(type: FieldType | PropertyType): string {
  switch (type.kind) {
    case 'int':
      return encodingOfInt(type)
    case 'bits':
      return encodingOfInt(type.word)
    case 'array':
    case 'inline-array':
      return `array of ${encodingOf(type.element)}`
    case 'compatible':
      return 'string'
    default:
      return type.kind
  }
}

/** Prints a document so that equal ABIs give equal texts: keys sorted, two spaces, a newline at the end. */
export function stableJson(value: unknown): string {
  return `${JSON.stringify(sorted(value), undefined, 2)}\n`
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, sorted(item)]),
  )
}
