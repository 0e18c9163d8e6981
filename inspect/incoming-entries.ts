/**
 * Sets of entries as the next kernel reads them: chains of KHO blocks by kho_block_set_restore()
 * (kernel/liveupdate/kho_block.c), arrays behind a header or a pointer by luo_session_deserialize() and
 * luo_file_deserialize() of Linux 6.19 to 7.1, which ask for no bound.
 */
import type { Outcome } from '../abi/check.ts'
import { ERRNO, type Errno } from '../abi/errno.ts'
import type { khoBlockHeader } from '../abi/kho-block.ts'
import { blockCapacity } from '../abi/kho-block.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { arrayCapacity } from '../abi/limits.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import type { ArrayEdge, BlocksEdge, Infer } from '../abi/schema.ts'
import { behind, type Place } from './faults.ts'
import type { Incoming, Pointer, Remark } from './incoming.ts'
import { firstNonZero, readLeading } from './read.ts'
import type { Stage } from './rule.ts'

/** A pointer to a set of entries. */
export interface SetPointer {
  readonly edge: ArrayEdge | BlocksEdge
  readonly target: bigint
  readonly pointer: Pointer
}

export interface Entry {
  readonly pa: PhysAddr
  readonly bytes: Uint8Array
}

export interface Entries {
  readonly entries: readonly Entry[]
  /** Whether the kernel gets to the end of them, or to a check that refuses them, or to memory that is not there. */
  readonly end: 'complete' | 'refused' | 'unknown'
  /** Behind the pointer. */
  readonly place: Place
  readonly overrun?: Overrun
}

/** More entries are counted than the pages hold. */
export interface Overrun {
  /** What is to be said if the kernel reads all entries: it goes on behind them. */
  readonly remark: Remark
  /** Behind the last that is counted. */
  readonly end: bigint
}

/** What stands for a set of entries in the findings. */
export interface SetNames {
  /** Where a check is made in several places, in which (`Check.at`). */
  readonly at: string
  /** Rule of the pages that hold the set. */
  readonly preserved: string
  readonly stage: Stage
  /** The session whose files these are; named once more where they are refused. */
  readonly session?: string
}

interface Block {
  readonly pa: PhysAddr
  readonly next: bigint
  readonly count: bigint
  /** Where the pointer to it is stored. */
  readonly pointer: PhysAddr
}

/** kho_block_set_is_cyclic() takes two blocks a step. */
const BLOCKS_PER_STEP = 2

/** The blocks in order: the chain as long as it can be followed, and whether it ends. */
function chainOf(
  incoming: Incoming,
  edge: BlocksEdge,
  first: bigint,
  place: Place,
  pointer: Pointer,
): { readonly blocks: readonly Block[]; readonly end: 'complete' | 'cyclic' | 'unknown' } {
  const { target } = incoming.subject
  const next = BigInt(fieldOf(edge.header, 'next', target).offset)
  const blocks: Block[] = []
  const seen = new Set<bigint>()
  let from = pointer.pa
  for (let pa = first; pa !== 0n; ) {
    if (seen.has(pa) || blocks.length > BLOCKS_PER_STEP * edge.maxBlocks) return { blocks, end: 'cyclic' }
    seen.add(pa)
    const isMisaligned = reportMisaligned(incoming, edge, pa, from, place, 'corrupts')
    const isSpent = incoming.budget.takeRecords(1) === 0
    const header =
      isMisaligned || isSpent
        ? undefined
        : incoming.struct<Infer<typeof khoBlockHeader>>(edge.header, pa, place)
    if (!header)
      return { blocks: [...blocks, { pa: phys(pa), next: 0n, count: 0n, pointer: from }], end: 'unknown' }
    blocks.push({ pa: phys(pa), ...header, pointer: from })
    from = phys(pa + next)
    pa = header.next
  }
  return { blocks, end: 'complete' }
}

/** kho_block_set_restore() and the reading of all entries. */
export function readBlocks(
  incoming: Incoming,
  edge: BlocksEdge,
  first: bigint,
  listPlace: Place,
  pointer: Pointer,
  names: SetNames,
): Entries {
  const place = behind(listPlace, pointer, first)
  const { blocks, end } = chainOf(incoming, edge, first, place, pointer)
  claimBlocks(incoming, edge, blocks, place, names.preserved)
  const last = blocks.at(-1)
  if (end === 'cyclic') {
    incoming.report('KHO_BLOCK_CYCLE', place, {
      pa: last?.pa ?? pointer.pa,
      length: 8,
      at: names.at,
      stage: names.stage,
      message: `the chain of ${edge.as} leads back to one of its ${blocks.length} blocks`,
      expected: '0x0 or the address of a further block',
      found: hex(last?.next ?? first),
      log: [],
      ...lineFor(names, 'EINVAL'),
    })
    return { entries: [], end: 'refused', place }
  }
  const known = end === 'unknown' ? blocks.slice(0, -1) : blocks
  if (!checkBlocks(incoming, edge, known, place, names)) return { entries: [], end: 'refused', place }
  return entriesOf(incoming, edge, known, place, end)
}

/** What is logged of a session whose files are refused. */
export function lineFor({ session }: Pick<SetNames, 'session'>, errno: Errno): Pick<Remark, 'further'> {
  return session === undefined ? {} : { further: [['LUO_SESSION_FILES', session, -ERRNO[errno]]] }
}

function claimBlocks(
  incoming: Incoming,
  edge: BlocksEdge,
  blocks: readonly Block[],
  place: Place,
  rule: string,
): void {
  const { subject } = incoming
  const own = blocks.filter(({ pa }) => incoming.isFirstClaim(subject.pfn(pa)))
  const pfns = Float64Array.from(own, ({ pa }) => subject.pfn(pa))
  const pointer = (index: number): PhysAddr => (own[index] as Block).pointer
  incoming.claim(place, { rule, what: `blocks of ${edge.as}`, restore: 'folio', pages: 1, pfns, pointer })
}

/** What holds entries is read at whatever address is told; what then is read is nothing to go by. */
function reportMisaligned(
  incoming: Incoming,
  edge: ArrayEdge | BlocksEdge,
  pa: bigint,
  from: PhysAddr,
  place: Place,
  outcome: Outcome,
): boolean {
  const { pageSize } = incoming.subject.target
  if (pa % BigInt(pageSize) === 0n) return false
  const message = `what holds the ${edge.as} does not start at a page`
  const told = { message, expected: `a multiple of ${pageSize}`, found: hex(pa) }
  const details = { pa: from, length: 8, ...told, outcome }
  incoming.report('LUO_ADDRESS_ALIGNED', place, details)
  return true
}

/**
 * What comes of a misaligned array, where no pointer is read out of place: of sessions and files what the
 * entries then say; FLBs are not found, and the look-up goes as far as is then counted.
 */
function outOfPlace({ as }: ArrayEdge, isOverrun: boolean): Outcome {
  if (as !== 'flbs') return 'takes-over'
  return isOverrun ? 'corrupts' : 'loses'
}

/** The checks that are made of each block, in the chain's order. */
function checkBlocks(
  incoming: Incoming,
  edge: BlocksEdge,
  blocks: readonly Block[],
  place: Place,
  names: SetNames,
): boolean {
  const { at, stage } = names
  const { target } = incoming.subject
  const capacity = blockCapacity(edge, target)
  const offset = BigInt(fieldOf(edge.header, 'count', target).offset)
  for (const [index, { pa, count }] of blocks.entries()) {
    const where = { pa: phys(pa + offset), length: 8, at, stage, found: String(count) }
    if (count === 0n || count > BigInt(capacity)) {
      const message = `block ${index} of ${edge.as} has count ${count}`
      incoming.report('KHO_BLOCK_COUNT', place, {
        ...where,
        message,
        expected: `1 to ${capacity}`,
        log: [count],
        ...lineFor(names, 'EINVAL'),
      })
      if (count === 0n && index > 0 && index === blocks.length - 1)
        incoming.report('KHO_BLOCK_EMPTY_TAIL', place, {
          ...where,
          message: `the last block of ${edge.as} is empty`,
        })
      return false
    }
    if (index >= edge.maxBlocks) {
      const message = `the chain of ${edge.as} has more blocks than the kernel takes`
      const expected = `at most ${edge.maxBlocks} blocks`
      incoming.report('KHO_BLOCK_LIMIT', place, {
        ...where,
        message,
        expected,
        found: `${blocks.length} blocks`,
        ...lineFor(names, 'ENOSPC'),
      })
      return false
    }
  }
  return true
}

function entriesOf(
  incoming: Incoming,
  edge: BlocksEdge,
  blocks: readonly Block[],
  place: Place,
  end: 'complete' | 'unknown',
): Entries {
  const { target } = incoming.subject
  const { size } = layoutOf(edge.element, target)
  const head = BigInt(layoutOf(edge.header, target).size)
  const capacity = blockCapacity(edge, target)
  const entries: Entry[] = []
  for (const [index, { pa, count }] of blocks.entries()) {
    const start = phys(pa + head)
    const isSpent = incoming.budget.takeRecords(Number(count)) < Number(count)
    const bytes = isSpent ? undefined : incoming.bytes(start, capacity * size, place)
    if (!bytes) return { entries, end: 'unknown', place }
    for (let i = 0; i < Number(count); i++)
      entries.push({ pa: phys(start + BigInt(i * size)), bytes: bytes.subarray(i * size, (i + 1) * size) })
    const isLast = index === blocks.length - 1
    if (!isLast && count < BigInt(capacity)) {
      incoming.report('KHO_BLOCK_FILL', place, {
        pa,
        length: 16,
        message: `block ${index} of ${edge.as} is not full, and another follows`,
        expected: String(capacity),
        found: String(count),
      })
    }
    reportBeyond(incoming, edge, { pa: start, bytes, size, count: Number(count) }, place)
  }
  return { entries, end, place }
}

/** Entries that no count covers: the kernel clears a block when it takes it, and fills it from the front. */
function reportBeyond(
  incoming: Incoming,
  edge: BlocksEdge | ArrayEdge,
  { pa, bytes, size, count }: { pa: PhysAddr; bytes: Uint8Array; size: number; count: number },
  place: Place,
): void {
  const rest = bytes.subarray(count * size)
  const first = firstNonZero(rest)
  if (first < 0) return
  incoming.report('LUO_ENTRY_BEYOND_COUNT', place, {
    pa: phys(pa + BigInt(count * size + first)),
    length: size,
    message: `there are ${edge.as} behind the ${count} that are counted`,
    expected: 'zeros',
    found: `an entry number ${count + Math.floor(first / size)}`,
  })
}

/** An array and the count in its header or beside the pointer to it, of which no kernel asks whether it fits. */
export function readArray(
  incoming: Incoming,
  edge: ArrayEdge,
  first: bigint,
  countBeside: bigint,
  listPlace: Place,
  pointer: Pointer,
  preserved: string,
): Entries {
  const { target } = incoming.subject
  const place = behind(listPlace, pointer, first)
  const pages = 2 ** edge.order
  const restore = edge.as === 'flbs' ? 'read' : 'folio'
  const claimed = { rule: preserved, what: `array of ${edge.as}`, restore, pages } as const
  if (incoming.isFirstClaim(incoming.subject.pfn(first)))
    incoming.claimUnit(place, claimed, first, pointer.pa)
  const head = edge.header ? incoming.struct<Record<string, bigint>>(edge.header, first, place) : undefined
  const count = head ? (head[edge.count] as bigint) : countBeside
  const capacity = arrayCapacity(edge, target)
  const isOverrun = count > BigInt(capacity)
  // An array is read from there on all the same: its entries are judged as what they then are.
  reportMisaligned(incoming, edge, first, pointer.pa, place, outOfPlace(edge, isOverrun))
  if (edge.header && !head) return { entries: [], end: 'unknown', place }
  const { size } = layoutOf(edge.element, target)
  const start = phys(first + BigInt(edge.header ? layoutOf(edge.header, target).size : 0))
  const fitting = count < BigInt(capacity) ? Number(count) : capacity
  const bytes = readLeading(incoming.subject.memory, start, capacity * size)
  const held = incoming.budget.takeRecords(Math.min(fitting, Math.floor(bytes.length / size)))
  if (held < fitting) incoming.bytes(start + BigInt(held * size), size, place)
  reportBeyond(incoming, edge, { pa: start, bytes, size, count: fitting }, place)
  const entries = Array.from(
    { length: held },
    (_, i): Entry => ({
      pa: phys(start + BigInt(i * size)),
      bytes: bytes.subarray(i * size, (i + 1) * size),
    }),
  )
  const end = held < fitting ? 'unknown' : 'complete'
  if (!isOverrun) return { entries, end, place }
  const message = `the array of ${edge.as} counts more than its pages hold`
  const told = { message, expected: `at most ${capacity}`, found: String(count) }
  const remark = { pa: pointer.pa, length: 8, ...told }
  return { entries, end, place, overrun: { remark, end: start + count * BigInt(size) } }
}
