/**
 * Limits of a version by the kernel's own constant names, derived from the declarations that imply
 * them: capacities from edges, lengths of names from their fields, the shape of the radix tree.
 *
 * Values depend on the page size where the kernel's macros do.
 */
import { blockCapacity } from './kho-block.ts'
import { radixShape } from './kho-map.ts'
import { vmallocChunkCapacity } from './kho-vmalloc.ts'
import type { Target } from './layout.ts'
import { countOf, layoutOf } from './layout.ts'
import { memblockV1, RESERVE_MEM_MAX_ENTRIES, RESERVE_MEM_NAME_SIZE } from './memblock.ts'
import { edgeOf, partsOf } from './parts.ts'
import type { ArrayEdge, ChunksEdge, Edge, FdtNodeType, StructType } from './schema.ts'

export interface Limit {
  /** The kernel's constant, or a phrase where it has none. */
  readonly name: string
  readonly value: number
  readonly doc: string
  /** Key of the part that implies it. */
  readonly part: string
}

/** Capacity and size in pages of the arrays of luo-v1, by the element's tag. */
const ARRAY_LIMITS: Readonly<Record<string, readonly [max: string, pages: string]>> = {
  luo_session_ser: ['LUO_SESSION_MAX', 'LUO_SESSION_PGCNT'],
  luo_file_ser: ['LUO_FILE_MAX', 'LUO_FILE_PGCNT'],
  luo_flb_ser: ['LUO_FLB_MAX', 'LUO_FLB_PGCNT'],
}

/** Lengths of text fields, by struct and field. */
const TEXT_LIMITS: Readonly<Record<string, string>> = {
  'luo_session_ser.name': 'LIVEUPDATE_SESSION_NAME_LENGTH',
  'luo_file_ser.compatible': 'LIVEUPDATE_HNDL_COMPAT_LENGTH',
  'luo_flb_ser.name': 'LIVEUPDATE_FLB_COMPAT_LENGTH',
  'luo_ser.compatible': 'LUO_ABI_COMPAT_LEN',
}

type EdgeLimit = Omit<Limit, 'part'>

const TEXT_DOC = 'Bytes of the text, its NUL counted.'
const REGION_LIMITS: readonly EdgeLimit[] = [
  { name: 'RESERVE_MEM_MAX_ENTRIES', value: RESERVE_MEM_MAX_ENTRIES, doc: 'Regions.' },
  {
    name: 'RESERVE_MEM_NAME_SIZE',
    value: RESERVE_MEM_NAME_SIZE,
    doc: "Bytes of a region's name, its NUL counted.",
  },
]

/** Everything that a version limits for a page size, each name once. */
export function limitsOf(root: StructType | FdtNodeType, target: Target): readonly Limit[] {
  const limits = new Map<string, Limit>()
  for (const { key, type } of partsOf(root)) {
    const add = ({ name, value, doc }: EdgeLimit): void => {
      if (!limits.has(name)) limits.set(name, { name, value, doc, part: key })
    }
    const members = Object.entries(type.kind === 'struct' ? type.fields : type.properties)
    for (const [name, member] of members) {
      const known = type.kind === 'struct' && TEXT_LIMITS[`${type.name}.${name}`]
      if (known && member.kind === 'text') add({ name: known, value: member.bytes, doc: TEXT_DOC })
      const edge = edgeOf(member)
      if (edge) edgeLimits(edge, target).forEach(add)
    }
    if (type === memblockV1) REGION_LIMITS.forEach(add)
  }
  return [...limits.values()]
}

/** Elements that fit into the unit of an array, behind its header. */
export function arrayCapacity(edge: ArrayEdge, target: Target): number {
  const header = edge.header ? layoutOf(edge.header, target).size : 0
  return Math.floor((target.pageSize * 2 ** edge.order - header) / layoutOf(edge.element, target).size)
}

function edgeLimits(edge: Edge, target: Target): readonly EdgeLimit[] {
  switch (edge.kind) {
    case 'array':
      return arrayLimits(edge, target)
    case 'blocks':
      return [
        { name: 'KHO_BLOCK_SIZE', value: target.pageSize, doc: 'Bytes of a block.' },
        { name: 'KHO_MAX_BLOCKS', value: edge.maxBlocks, doc: 'Blocks of a chain.' },
        {
          name: `${edge.element.name} per block`,
          value: blockCapacity(edge, target),
          doc: 'Entries of a block.',
        },
      ]
    case 'vmalloc':
      return [
        {
          name: 'KHO_VMALLOC_SIZE',
          value: vmallocChunkCapacity(edge.chunk, target),
          doc: 'Addresses of a chunk.',
        },
      ]
    case 'chunks':
      return chunkLimits(edge, target)
    case 'radix': {
      const shape = radixShape(edge, target)
      return [
        { name: 'KHO_ORDER_0_LOG2', value: shape.order0Log2, doc: 'Position of the marker bit of order 0.' },
        { name: 'KHO_RADIX_KEY_WIDTH', value: shape.order0Log2 + 1, doc: 'Bits of a key.' },
        { name: 'KHO_TABLE_SIZE_LOG2', value: shape.tableLog2, doc: 'Entries of a node, as a power of two.' },
        { name: 'KHO_BITMAP_SIZE_LOG2', value: shape.leafLog2, doc: 'Bits of a leaf, as a power of two.' },
        { name: 'KHO_TREE_MAX_DEPTH', value: shape.depth, doc: 'Levels of the tree, the leaf counted.' },
      ]
    }
    default:
      return []
  }
}

function arrayLimits(edge: ArrayEdge, target: Target): readonly EdgeLimit[] {
  const names = ARRAY_LIMITS[edge.element.name]
  if (!names) return []
  return [
    { name: names[0], value: arrayCapacity(edge, target), doc: 'Elements of the array.' },
    { name: names[1], value: 2 ** edge.order, doc: 'Pages of the array.' },
  ]
}

function chunkLimits(edge: ChunksEdge, target: Target): readonly EdgeLimit[] {
  const bits = 8 * layoutOf(edge.bitmap, target).size
  const entries = layoutOf(edge.chunk, target).fields.find(({ type }) => type.kind === 'array')
  const capacity = entries?.type.kind === 'array' ? countOf(entries.type, target, entries.offset) : 0
  return [
    { name: 'KHOSER_BITMAP_SIZE', value: capacity, doc: 'Bitmaps of a chunk.' },
    { name: 'PRESERVE_BITS', value: bits, doc: 'Units that a bitmap describes.' },
  ]
}
