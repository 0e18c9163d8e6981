/**
 * vmalloc memory as kho_restore_vmalloc() rebuilds it (kernel/liveupdate/kexec_handover.c of Linux 6.19.11
 * and 7.3.4): chunk by chunk, each address one group of pages, until the groups add up.
 */
import { khoVmalloc, vmallocFlags } from '../abi/kho-vmalloc.ts'
import { fieldOf } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import type { VmallocEdge } from '../abi/schema.ts'
import { behind, type Place } from './faults.ts'
import type { Incoming, Pointer } from './incoming.ts'
import { readLeading } from './read.ts'
import type { VmallocDescriptor } from './vmalloc.ts'

/** The rebuilt area; undefined where the kernel refuses, or nobody can tell. */
export interface IncomingArea {
  /** First frame of each group. */
  readonly groups: Float64Array
  readonly groupBytes: number
  readonly bytes: number
}

/** The kernel shifts a 32-bit 1, of which the processor looks at the low five bits of the distance. */
const SHIFT_BITS = 32
const KNOWN_FLAGS = vmallocFlags.ALLOC | vmallocFlags.HUGE_VMAP
/** kvmalloc() gives no more at once, and there are 8 bytes for each page. */
const MAX_PAGES = Math.floor(0x7fff_ffff / 8)

export interface AreaOf {
  readonly edge: VmallocEdge
  readonly descriptor: VmallocDescriptor
  /** Where the descriptor is stored. */
  readonly pa: PhysAddr
  /** The descriptor's own place. */
  readonly place: Place
  /** Rules of the pages of chunks and groups. */
  readonly preserved: { readonly chunks: string; readonly groups: string }
}

/** Walks the chunks. */
export function readVmalloc(incoming: Incoming, area: AreaOf): IncomingArea | undefined {
  const { descriptor, pa, place } = area
  const { total_pages: total, order } = descriptor
  reportFlags(incoming, area)
  const perGroup =
    order % SHIFT_BITS === SHIFT_BITS - 1 ? Number.POSITIVE_INFINITY : 2 ** (order % SHIFT_BITS)
  const walked: Walked | undefined =
    total > MAX_PAGES ? { groups: [], ended: false } : walkChunks(incoming, area, perGroup)
  if (walked === undefined) return undefined
  const { groups, ended, takenAt } = walked
  if (takenAt !== undefined) {
    const message = 'a page of the area was taken back before, and has lost its mark'
    incoming.report(area.preserved.groups, place, {
      pa: takenAt,
      length: 8,
      message,
      expected: 'pages of its own',
    })
    return undefined
  }
  if (!ended || groups.length * perGroup !== total || total === 0) {
    const found = `${groups.length}${ended ? '' : ' or more'} groups of order ${order}`
    const message =
      total === 0 ? 'the area has no pages' : 'the chunks do not list as many pages as the descriptor says'
    const expected = total === 0 ? 'at least one page' : `${total} pages`
    incoming.report('KHO_VMALLOC_TOTAL', place, {
      pa: fieldAt(incoming, pa, 'total_pages'),
      length: 4,
      message,
      expected,
      found,
    })
    return undefined
  }
  claimGroups(incoming, area, groups, perGroup)
  if (order >= SHIFT_BITS) {
    const message = `groups of order ${order} make the kernel map nothing, and read it`
    const told = { message, expected: `below ${SHIFT_BITS}`, found: String(order) }
    incoming.report('KHO_VMALLOC_ORDER', place, { pa: fieldAt(incoming, pa, 'order'), length: 2, ...told })
    return undefined
  }
  const { pageSize } = incoming.subject.target
  return {
    groups: Float64Array.from(groups, ({ pfn }) => pfn),
    groupBytes: perGroup * pageSize,
    bytes: total * pageSize,
  }
}

function fieldAt(incoming: Incoming, pa: bigint, field: string): PhysAddr {
  return phys(pa + BigInt(fieldOf(khoVmalloc, field, incoming.subject.target).offset))
}

function reportFlags(incoming: Incoming, { descriptor: { flags }, pa, place }: AreaOf): void {
  const isKnown = (flags & ~KNOWN_FLAGS) === 0
  if (isKnown && (flags & vmallocFlags.ALLOC) !== 0) return
  incoming.report('KHO_VMALLOC_FLAGS', place, {
    pa: fieldAt(incoming, pa, 'flags'),
    length: 2,
    message: isKnown ? 'the area was not allocated by vmalloc()' : 'flags that no kernel knows',
    expected: `${hex(vmallocFlags.ALLOC)} or ${hex(KNOWN_FLAGS)}`,
    found: hex(flags),
  })
}

interface Walked {
  readonly groups: readonly Group[]
  /** The chain came to its end. */
  readonly ended: boolean
  /** Where a page is named that was taken back before. */
  readonly takenAt?: PhysAddr
}

interface Group {
  readonly pfn: number
  readonly pointer: PhysAddr
}

/** The groups that the chunks list, up to one more than there may be; undefined behind a chunk that cannot be read. */
function walkChunks(
  incoming: Incoming,
  { edge, descriptor, pa: descriptorPa, place, preserved: { chunks: rule } }: AreaOf,
  perGroup: number,
): Walked | undefined {
  const { subject } = incoming
  const next = fieldOf(edge.chunk, 'hdr', subject.target).offset
  const slots = fieldOf(edge.chunk, 'phys', subject.target).offset
  const most = Math.floor(descriptor.total_pages / perGroup)
  const groups: Group[] = []
  let chunks = 0
  let pointer: Pointer = { path: [...place.path, 'first'], pa: descriptorPa }
  for (let pa = descriptor.first; pa !== 0n; ) {
    const inside = behind(place, pointer, pa)
    const pfn = subject.pfn(pa)
    const claimed = { rule, what: 'chunk', restore: 'pages', pages: 1 } as const
    const { pageSize } = subject.target
    const word = readChunk(incoming, pa, inside)
    if (!word) {
      incoming.claimUnit(inside, claimed, pa, pointer.pa)
      return undefined
    }
    for (let at = slots; at < pageSize; at += 8) {
      const group = word(at)
      if (group === 0n) break
      if (group === undefined) return { groups, ended: false }
      if (groups.length >= most) return { groups, ended: false }
      if (!incoming.restore(subject.pfn(group)))
        return { groups, ended: false, takenAt: phys(pa + BigInt(at)) }
      if (group % BigInt(pageSize) !== 0n) reportMisaligned(incoming, inside, phys(pa + BigInt(at)), group)
      groups.push({ pfn: subject.pfn(group), pointer: phys(pa + BigInt(at)) })
    }
    if (!incoming.restore(pfn)) return { groups, ended: false, takenAt: pointer.pa }
    incoming.claimUnit(inside, claimed, pa, pointer.pa)
    chunks += 1
    if (chunks > most + 1) return { groups, ended: false }
    const path = [...place.path, 'chunks', { index: chunks - 1 }, 'next']
    pointer = { path, pa: phys(pa + BigInt(next)) }
    const following = word(next)
    if (following === undefined) return { groups, ended: false }
    pa = following
  }
  return { groups, ended: true }
}

/**
 * The words of a chunk, wherever it starts; undefined where the image lacks the page in which it does. One
 * that does not start at a page reaches into the next, of which a word may not be known.
 */
function readChunk(
  incoming: Incoming,
  pa: bigint,
  place: Place,
): ((at: number) => bigint | undefined) | undefined {
  const { memory, target } = incoming.subject
  const inPage = target.pageSize - Number(pa % BigInt(target.pageSize))
  if (!incoming.bytes(pa, inPage, place)) return undefined
  const bytes = readLeading(memory, phys(pa), target.pageSize)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return (at) => (at + 8 <= bytes.length ? view.getBigUint64(at, true) : undefined)
}

/** kho_restore_pages() looks at the frame only. */
function reportMisaligned(incoming: Incoming, place: Place, pa: PhysAddr, group: bigint): void {
  const message = 'the address of a group is not that of a page; the kernel takes the page that holds it'
  const expected = `a multiple of ${incoming.subject.target.pageSize}`
  incoming.report('KHO_VMALLOC_ALIGNED', place, { pa, length: 8, message, expected, found: hex(group) })
}

function claimGroups(
  incoming: Incoming,
  { place, descriptor, preserved: { groups: rule }, pa }: AreaOf,
  groups: readonly Group[],
  pages: number,
): void {
  incoming.claim(behind(place, { path: [...place.path, 'first'], pa }, descriptor.first), {
    rule,
    what: 'group of pages',
    restore: 'pages',
    pages,
    pfns: Float64Array.from(groups, ({ pfn }) => pfn),
    pointer: (index) => (groups[index] as Group).pointer,
  })
}
