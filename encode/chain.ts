/**
 * Writers of counted and linked lists of records: arrays in one unit of pages and chains of KHO blocks.
 *
 * Mirrors luo_session_serialize(), luo_file_freeze() (kernel/liveupdate/luo_session.c, luo_file.c) and
 * kho_block_set_grow() (kernel/liveupdate/kho_block.c).
 */
import type { Path } from '../abi/fault.ts'
import { blockCapacity } from '../abi/kho-block.ts'
import { layoutOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { ArrayEdge, BlocksEdge, StructType } from '../abi/schema.ts'
import type { Block, RecordList } from './handover.ts'
import type { Site } from './site.ts'
import { unitBytes } from './units.ts'
import { encodeStruct } from './write.ts'

/** A link as its owner stores it: where it leads, and how many elements are there. */
export interface Link {
  readonly pa: PhysAddr
  readonly count: bigint
}

/** Encodes one record by its struct; where it lies in a list is part of its path. */
export type RecordEncoder = (struct: StructType, record: unknown, path: Path) => Uint8Array

const NOTHING: Link = { pa: phys(0), count: 0n }

/**
 * Writes an array in one unit. An array with a header is there even if it is empty, one without comes
 * with its first element.
 */
export function writeArray(
  site: Site,
  edge: ArrayEdge,
  list: RecordList<unknown> | undefined,
  encode: RecordEncoder,
  path: Path,
): Link {
  if (list?.at === 0n) return NOTHING
  if (list && !list.entries && list.at !== undefined) return { pa: phys(list.at), count: list.count ?? 0n }
  const entries = list?.entries ?? []
  const count = BigInt(entries.length)
  if (!edge.header && entries.length === 0 && list?.at === undefined) return NOTHING
  const bytes = new Uint8Array(unitBytes(edge.order, site.target.pageSize))
  const elementSize = layoutOf(edge.element, site.target).size
  let offset = 0
  if (edge.header) {
    const header = encode(edge.header, { ...headerFields(list), [edge.count]: list?.count ?? count }, path)
    bytes.set(header)
    offset = header.length
  }
  const capacity = Math.floor((bytes.length - offset) / elementSize)
  if (entries.length > capacity) {
    site.report(path, `${entries.length} ${edge.as}, but the array has room for ${capacity}`)
  }
  for (const [index, entry] of entries.entries()) {
    const element = encode(edge.element, entry, [...path, elementSegment(edge, entry, index)])
    if (index < capacity) bytes.set(element, offset + index * elementSize)
  }
  const pa = site.unit(list?.at, edge.order, path)
  site.write(pa, bytes, path, offset + Math.min(entries.length, capacity) * elementSize)
  return { pa: pa ?? phys(0), count }
}

/** Writes a chain of blocks, each in one preserved page; without entries there is none. */
export function writeBlocks(
  site: Site,
  edge: BlocksEdge,
  list: RecordList<unknown> | undefined,
  encode: RecordEncoder,
  path: Path,
): Link {
  if (!list || list.at === 0n) return NOTHING
  if (!list.entries && list.at !== undefined) return { pa: phys(list.at), count: list.count ?? 0n }
  const entries = list.entries ?? []
  const elements = entries.map((entry, index) =>
    encode(edge.element, entry, [...path, elementSegment(edge, entry, index)]),
  )
  const blocks = blocksFor(site, edge, list, elements.length, path)
  const places = blocks.map((block, index) => {
    const inside = [...path, 'blocks', { index }]
    return site.unit(block.at ?? (index === 0 ? list.at : undefined), 0, inside)
  })
  let next = 0
  for (const [index, block] of blocks.entries()) {
    const inside = [...path, 'blocks', { index }]
    const mine = elements.slice(next, next + block.entries)
    next += block.entries
    const header = { next: places[index + 1] ?? 0n, count: block.count ?? BigInt(block.entries) }
    const bytes = new Uint8Array(site.target.pageSize)
    bytes.set(encodeStruct(edge.header, header, site.target, site.problems, inside))
    let offset = layoutOf(edge.header, site.target).size
    for (const element of mine) {
      if (offset + element.length <= bytes.length) bytes.set(element, offset)
      offset += element.length
    }
    site.write(places[index], bytes, inside, Math.min(offset, bytes.length))
  }
  return { pa: places[0] ?? phys(0), count: BigInt(entries.length) }
}

/** The boundaries that are given, then the last block filled up, then new blocks for what is left. */
function blocksFor(
  site: Site,
  edge: BlocksEdge,
  list: RecordList<unknown>,
  nrEntries: number,
  path: Path,
): readonly Block[] {
  const capacity = blockCapacity(edge, site.target)
  const blocks: Block[] = [...(list.blocks ?? [])]
  for (const [index, { entries }] of blocks.entries()) {
    if (entries <= capacity) continue
    site.report([...path, 'blocks', { index }], `${entries} entries, but a block has room for ${capacity}`)
  }
  let missing = nrEntries - blocks.reduce((sum, block) => sum + block.entries, 0)
  if (missing < 0) site.report([...path, 'blocks'], `${-missing} entries more than the list has`)
  const last = blocks.pop()
  if (last) {
    const more = last.count === undefined ? Math.max(0, Math.min(missing, capacity - last.entries)) : 0
    blocks.push({ ...last, entries: last.entries + more })
    missing -= more
  }
  for (; missing > 0; missing -= capacity) blocks.push({ entries: Math.min(missing, capacity) })
  if (blocks.length > edge.maxBlocks) {
    site.report(path, `${blocks.length} blocks, but the kernel takes at most ${edge.maxBlocks}`)
  }
  return blocks
}

/** What a list says of its header's fields: all that is not the list itself. */
function headerFields(list: RecordList<unknown> | undefined): Readonly<Record<string, unknown>> {
  const { at: _at, entries: _entries, blocks: _blocks, count: _count, ...fields } = list ?? {}
  return fields
}

/** An element in a path: by its natural key where that is short text or a number. */
function elementSegment(edge: ArrayEdge | BlocksEdge, entry: unknown, index: number) {
  const key = (entry as Readonly<Record<string, unknown>>)[edge.naturalKey]
  if (typeof key === 'bigint') return { index, key: `0x${key.toString(16)}` }
  return typeof key === 'string' ? { index, key } : { index }
}
