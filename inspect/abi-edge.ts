/** What an address leads to, as plain data and in words. */
import { blockCapacity } from '../abi/kho-block.ts'
import { radixShape } from '../abi/kho-map.ts'
import { vmallocChunkCapacity } from '../abi/kho-vmalloc.ts'
import { arrayCapacity } from '../abi/limits.ts'
import { targetsOf } from '../abi/parts.ts'
import type { Edge } from '../abi/schema.ts'
import { formatPerPage, type PerPage, perPage } from './per-page.ts'

export interface EdgeDescription {
  readonly kind: Edge['kind']
  /** Keys of the parts that it leads to. */
  readonly to: readonly string[]
  /** Pages of the preserved unit. */
  readonly pages?: number
  /** Elements that fit: into the unit, into a block, addresses into a chunk of a vmalloc list. */
  readonly capacity?: PerPage
  /** Longest chain that readers accept. */
  readonly maxBlocks?: number
  /** Levels of a radix tree, the leaf counted. */
  readonly depth?: PerPage
  /** Field that counts the elements, says the length, or names the handler. */
  readonly by?: string
}

export function describeEdge(edge: Edge): EdgeDescription {
  const base = { kind: edge.kind, to: targetsOf(edge).map(({ name }) => name) }
  switch (edge.kind) {
    case 'object':
      return { ...base, pages: 2 ** edge.order }
    case 'array':
      return {
        ...base,
        pages: 2 ** edge.order,
        capacity: perPage((target) => arrayCapacity(edge, target)),
        by: edge.count,
      }
    case 'blocks':
      return {
        ...base,
        capacity: perPage((target) => blockCapacity(edge, target)),
        maxBlocks: edge.maxBlocks,
        ...(edge.total === undefined ? {} : { by: edge.total }),
      }
    case 'vmalloc':
      return {
        ...base,
        capacity: perPage((target) => vmallocChunkCapacity(edge.chunk, target)),
        by: edge.count,
      }
    case 'radix':
      return { ...base, depth: perPage((target) => radixShape(edge, target).depth) }
    case 'handler':
      return { ...base, by: edge.by }
    case 'blob':
    case 'region':
      return edge.size === undefined ? base : { ...base, by: edge.size }
    case 'chunks':
      return base
  }
}

/** One phrase: `KHO blocks of struct luo_session_ser, 51 / 204 / 819 each`. */
export function formatEdge({ kind, to, pages, capacity, depth, by }: EdgeDescription): string {
  const element = `struct ${to.at(-1)}`
  const each = capacity === undefined ? '' : formatPerPage(capacity)
  switch (kind) {
    case 'object':
      return element
    case 'array':
      return `array of ${element} in ${pages === 1 ? '1 page' : `${pages} pages`}, at most ${each}`
    case 'blocks':
      return `KHO blocks of ${element}, ${each} each`
    case 'vmalloc':
      return `${to.length > 1 ? `vmalloc area of ${element}` : 'vmalloc area'}, ${each} pages per chunk`
    case 'chunks':
      return `chain of struct ${to[0]}, ${element} each`
    case 'radix':
      return `radix tree of ${depth === undefined ? 0 : formatPerPage(depth)} levels, ${element} at the leaves`
    case 'handler':
      return `what the handler named by ${by} keeps there`
    case 'blob':
      return by === undefined ? "the subsystem's FDT" : `the subsystem's blob of ${by} bytes`
    case 'region':
      return `memory of ${by} bytes`
  }
}
