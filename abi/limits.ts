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

/**
 * How much a kernel takes, which may grow without harm to who reads more; or part of how things are
 * written, which must be the same on both sides.
 */
export type LimitKind = 'maximum' | 'encoding'

export interface Limit {
  /** The kernel's constant, or a phrase where it has none. */
  readonly name: string
  readonly value: number
  readonly is: LimitKind
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
  { name: 'RESERVE_MEM_MAX_ENTRIES', value: RESERVE_MEM_MAX_ENTRIES, is: 'maximum', doc: 'Regions.' },
  {
    name: 'RESERVE_MEM_NAME_SIZE',
    value: RESERVE_MEM_NAME_SIZE,
    is: 'maximum',
    doc: "Bytes of a region's name, its NUL counted.",
  },
]

/** Everything that a version limits for a page size, each name once. */
export function limitsOf(root: StructType | FdtNodeType, target: Target): readonly Limit[] {
  const limits = new Map<string, Limit>()
  for (const { key, type } of partsOf(root)) {
    const add = (limit: EdgeLimit): void => {
      if (!limits.has(limit.name)) limits.set(limit.name, { ...limit, part: key })
    }
    const members = Object.entries(type.kind === 'struct' ? type.fields : type.properties)
    for (const [name, member] of members) {
      const known = type.kind === 'struct' && TEXT_LIMITS[`${type.name}.${name}`]
      if (known && member.kind === 'text')
        add({ name: known, value: member.bytes, is: 'encoding', doc: TEXT_DOC })
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
        { name: 'KHO_BLOCK_SIZE', value: target.pageSize, is: 'encoding', doc: 'Bytes of a block.' },
        { name: 'KHO_MAX_BLOCKS', value: edge.maxBlocks, is: 'maximum', doc: 'Blocks of a chain.' },
        {
          name: `${edge.element.name} per block`,
          value: blockCapacity(edge, target),
          is: 'maximum',
          doc: 'Entries of a block.',
        },
      ]
    case 'vmalloc':
      return [
        {
          name: 'KHO_VMALLOC_SIZE',
          value: vmallocChunkCapacity(edge.chunk, target),
          is: 'encoding',
          doc: 'Addresses of a chunk.',
        },
      ]
    case 'chunks':
      return chunkLimits(edge, target)
    case 'radix': {
      const { order0Log2, tableLog2, leafLog2, depth } = radixShape(edge, target)
      const radix: readonly (readonly [name: string, value: number, doc: string])[] = [
        ['KHO_ORDER_0_LOG2', order0Log2, 'Position of the marker bit of order 0.'],
        ['KHO_RADIX_KEY_WIDTH', order0Log2 + 1, 'Bits of a key.'],
        ['KHO_TABLE_SIZE_LOG2', tableLog2, 'Entries of a node, as a power of two.'],
        ['KHO_BITMAP_SIZE_LOG2', leafLog2, 'Bits of a leaf, as a power of two.'],
        ['KHO_TREE_MAX_DEPTH', depth, 'Levels of the tree, the leaf counted.'],
      ]
      return radix.map(([name, value, doc]) => ({ name, value, is: 'encoding', doc }))
    }
    default:
      return []
  }
}

function arrayLimits(edge: ArrayEdge, target: Target): readonly EdgeLimit[] {
  const names = ARRAY_LIMITS[edge.element.name]
  if (!names) return []
  return [
    { name: names[0], value: arrayCapacity(edge, target), is: 'maximum', doc: 'Elements of the array.' },
    { name: names[1], value: 2 ** edge.order, is: 'maximum', doc: 'Pages of the array.' },
  ]
}

function chunkLimits(edge: ChunksEdge, target: Target): readonly EdgeLimit[] {
  const bits = 8 * layoutOf(edge.bitmap, target).size
  const entries = layoutOf(edge.chunk, target).fields.find(({ type }) => type.kind === 'array')
  const capacity = entries?.type.kind === 'array' ? countOf(entries.type, target, entries.offset) : 0
  return [
    { name: 'KHOSER_BITMAP_SIZE', value: capacity, is: 'encoding', doc: 'Bitmaps of a chunk.' },
    { name: 'PRESERVE_BITS', value: bits, is: 'encoding', doc: 'Units that a bitmap describes.' },
  ]
}
