/**
 * The decoded tree: every node knows its schema, its physical address and length, and its value.
 *
 * Fields of a record are what is stored; links are what its pointers lead to. Bulk data (preserved
 * units, folio records) is not in the tree: a node holds a column reader for it.
 */
import type { PathSegment } from '../abi/fault.ts'
import type { PhysAddr } from '../abi/memory.ts'
import type { BitsType, FdtNodeType, IntType, PropertyType, StructType, TextType } from '../abi/schema.ts'
import type { BlockStorage, UnitStorage } from './chain.ts'
import type { PreservedMap } from './map.ts'
import type { VmallocArray } from './vmalloc.ts'

interface Placed {
  /** Key in the parent: a field's name, or a list element's index and natural key. */
  readonly segment: PathSegment
  readonly pa: PhysAddr
  /** Bytes that the node itself occupies; 0 for what is computed and stored nowhere. */
  readonly length: number
}

export type ScalarType = IntType | BitsType | TextType | PropertyType

/** One stored scalar: numbers exact, text as the bytes of its whole field. */
export interface ValueNode extends Placed {
  readonly kind: 'value'
  readonly type: ScalarType
  readonly value: number | bigint | Uint8Array
}

/** A fact about the handover that is no stored field: an address that led here, a count, a size. */
export interface FactNode extends Placed {
  readonly kind: 'fact'
  readonly value: number | bigint | string
  readonly show: 'dec' | 'hex' | 'bytes'
  readonly doc: string
}

export interface RecordNode extends Placed {
  readonly kind: 'record'
  readonly type: StructType | FdtNodeType | undefined
  readonly doc: string
  readonly children: Node[]
  /** Which version of its component this is, for a component's root or a file's record. */
  readonly version?: string
  /** For an embedded kho_vmalloc that could be followed. */
  readonly bulk?: VmallocArray
}

export interface ListNode extends Placed {
  readonly kind: 'list'
  readonly doc: string
  readonly items: Node[]
  /** The pages that hold the list. */
  readonly storage?: BlockStorage | UnitStorage
}

export interface PreservedNode extends Placed {
  readonly kind: 'preserved'
  readonly map: PreservedMap
}

/** Bytes without a known schema. */
export interface RawNode extends Placed {
  readonly kind: 'raw'
  readonly doc: string
  readonly bytes: Uint8Array
}

export type Node = ValueNode | FactNode | RecordNode | ListNode | PreservedNode | RawNode

export function childrenOf(node: Node): readonly Node[] {
  if (node.kind === 'record') return node.children
  return node.kind === 'list' ? node.items : []
}

/** The child under a plain key. */
export function child(node: Node | undefined, key: string): Node | undefined {
  if (node?.kind !== 'record') return undefined
  return node.children.find((candidate) => candidate.segment === key)
}

/** The number stored under a key, undefined where it is not there or no number. */
export function numberAt(node: Node | undefined, key: string): number | bigint | undefined {
  const found = child(node, key)
  if (found?.kind !== 'value' && found?.kind !== 'fact') return undefined
  return typeof found.value === 'number' || typeof found.value === 'bigint' ? found.value : undefined
}

/** The elements of the list under a key; none where there is no such list. */
export function itemsAt(node: Node | undefined, key: string): readonly Node[] {
  const found = child(node, key)
  return found?.kind === 'list' ? found.items : []
}

const PATH_TOKEN = /\.?([^.[\]"]+)|\[("(?:[^"\\]|\\.)*"|[^\]]*)\]/gy

/**
 * Splits a path as printed (`luo.sessions[vm-alpha].files[0x1]`) into keys; an element of a list is an
 * index where it is a bare decimal number, else a natural key. Undefined where the text is no path.
 */
export function parsePath(text: string): readonly (string | { element: string | number })[] | undefined {
  const segments: (string | { element: string | number })[] = []
  PATH_TOKEN.lastIndex = 0
  while (PATH_TOKEN.lastIndex < text.length) {
    const match = PATH_TOKEN.exec(text)
    if (!match) return undefined
    const [, key, element] = match
    if (key !== undefined) segments.push(key)
    else segments.push({ element: parseElement(element as string) })
  }
  return segments
}

function parseElement(text: string): string | number {
  if (/^[0-9]+$/.test(text)) return Number(text)
  if (!text.startsWith('"')) return text
  try {
    return String(JSON.parse(text))
  } catch {
    return text
  }
}

/** The node at a path; where it does not exist, how far the path goes and what would be there. */
export function findNode(root: Node, text: string): { readonly node: Node } | { readonly problem: string } {
  const segments = parsePath(text)
  if (!segments) return { problem: `'${text}' is not a path; expected keys as in luo.sessions[0].name` }
  let node: Node = root
  for (const segment of segments) {
    const next: Node | undefined =
      typeof segment === 'string' ? child(node, segment) : elementOf(node, segment.element)
    if (!next) return { problem: `no '${text}' in this handover; ${whatIsThere(node)}` }
    node = next
  }
  return { node }
}

function elementOf(node: Node, wanted: string | number): Node | undefined {
  if (node.kind !== 'list') return undefined
  if (typeof wanted === 'number') return node.items[wanted]
  return node.items.find((item) => typeof item.segment === 'object' && item.segment.key === wanted)
}

function whatIsThere(node: Node): string {
  const names = childrenOf(node).map((candidate) =>
    typeof candidate.segment === 'string'
      ? candidate.segment
      : `[${candidate.segment.key ?? candidate.segment.index}]`,
  )
  const where = typeof node.segment === 'string' && node.segment !== '' ? `'${node.segment}'` : 'it'
  if (names.length === 0) return `${where} has nothing below it`
  return `${where} has ${names.slice(0, 8).join(', ')}${names.length > 8 ? ', …' : ''}`
}
