/**
 * Layout arithmetic: sizes, offsets, alignment and padding of a schema, by C's rules or `__packed`,
 * for a given page size. Bit fields of one word share the word's offset.
 */
import { invariant } from './fault.ts'
import type { FieldType, StructType } from './schema.ts'

/** What a layout depends on besides its declaration. */
export interface Target {
  readonly pageSize: PageSize
}

export type PageSize = 4096 | 16384 | 65536
export const PAGE_SIZES: readonly PageSize[] = [4096, 16384, 65536]

export function isPageSize(bytes: number): bytes is PageSize {
  return bytes === 4096 || bytes === 16384 || bytes === 65536
}

/** PAGE_SHIFT: 12, 14 or 16. */
export function pageShift(pageSize: PageSize): number {
  return Math.log2(pageSize)
}

/** Smallest order whose unit of 2^order pages holds `length` bytes; the kernel's get_order(). */
export function orderOf(length: number, pageSize: PageSize): number {
  return Math.max(0, Math.ceil(Math.log2(length / pageSize)))
}

export interface FieldLayout {
  readonly name: string
  readonly type: FieldType
  /** Bytes from the start of the struct. */
  readonly offset: number
  readonly size: number
}

export interface StructLayout {
  readonly size: number
  readonly align: number
  readonly fields: readonly FieldLayout[]
  /** Bytes that no field covers, as C leaves them for alignment. */
  readonly padding: readonly { readonly offset: number; readonly size: number }[]
}

const cache = new WeakMap<StructType, Map<PageSize, StructLayout>>()

/** Computes where each field of `struct` lies; the result is shared between calls. */
export function layoutOf(struct: StructType, target: Target): StructLayout {
  const known = cache.get(struct) ?? new Map<PageSize, StructLayout>()
  cache.set(struct, known)
  const found = known.get(target.pageSize)
  if (found) return found
  const layout = computeLayout(struct, target)
  known.set(target.pageSize, layout)
  return layout
}

/** Size in bytes of a field that starts at `offset` of its struct. */
export function sizeOf(type: FieldType, target: Target, offset = 0): number {
  switch (type.kind) {
    case 'int':
    case 'text':
    case 'bytes':
      return type.bytes
    case 'bits':
      return type.word.bytes
    case 'bitmap':
      return type.bytes === 'page' ? target.pageSize : type.bytes
    case 'array':
      return countOf(type, target, offset) * sizeOf(type.element, target)
    case 'struct':
      return layoutOf(type, target).size
  }
}

/** Number of elements of an array that starts at `offset` of its struct. */
export function countOf(
  type: { count: number | 'page'; element: FieldType },
  target: Target,
  offset = 0,
): number {
  if (type.count !== 'page') return type.count
  return Math.floor((target.pageSize - offset) / sizeOf(type.element, target))
}

function alignOf(type: FieldType, target: Target): number {
  switch (type.kind) {
    case 'int':
      return type.bytes
    case 'bits':
      return type.word.bytes
    case 'text':
    case 'bytes':
      return 1
    case 'bitmap':
      return 8
    case 'array':
      return alignOf(type.element, target)
    case 'struct':
      return layoutOf(type, target).align
  }
}

function computeLayout(struct: StructType, target: Target): StructLayout {
  const fields: FieldLayout[] = []
  const padding: { offset: number; size: number }[] = []
  let offset = 0
  let align = 1
  let word: unknown
  const padTo = (boundary: number): void => {
    const aligned = Math.ceil(offset / boundary) * boundary
    if (aligned > offset) padding.push({ offset, size: aligned - offset })
    offset = aligned
  }
  for (const [name, type] of Object.entries(struct.fields)) {
    if (type.kind === 'bits' && type.word === word) {
      const size = type.word.bytes
      fields.push({ name, type, offset: offset - size, size })
      continue
    }
    word = type.kind === 'bits' ? type.word : undefined
    const fieldAlign = struct.packed ? 1 : alignOf(type, target)
    padTo(fieldAlign)
    align = Math.max(align, fieldAlign)
    const size = sizeOf(type, target, offset)
    fields.push({ name, type, offset, size })
    offset += size
  }
  padTo(align)
  invariant(offset > 0, `struct ${struct.name} is empty`)
  return { size: offset, align, fields, padding }
}

/** The field of that name; a schema that asks for a field it does not have is our bug. */
export function fieldOf(struct: StructType, name: string, target: Target): FieldLayout {
  const field = layoutOf(struct, target).fields.find((candidate) => candidate.name === name)
  invariant(field, `struct ${struct.name} has no field ${name}`)
  return field
}
