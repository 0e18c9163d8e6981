/**
 * What the container writers have in common: runs of memory by state, and files as pieces in ascending
 * order. What lies between pieces is zeros, so that a file gets holes and a pipe a plain stream.
 */
import { firstIndex } from '../abi/bisect.ts'
import { type PhysAddr, type PhysicalMemory, type PhysRange, type Presence, phys } from '../abi/memory.ts'

/** Memory to be written. Any opened image, and the encoder's own sparse memory. */
export interface WritableMemory extends PhysicalMemory {
  /** Sorted and disjoint; memory outside of them is known to be zeros. Without it all is looked at. */
  extents?(): readonly PhysRange[]
}

export interface Piece {
  readonly offset: number
  readonly bytes: Uint8Array
}

/** A container file: its length, and its bytes other than zero. */
export interface ImageFile {
  readonly size: number
  /** Ascending, disjoint, at most 1 MiB each; every call starts anew. Buffers are not used again. */
  pieces(): Iterable<Piece>
}

/** Why memory cannot be written in a format. */
export interface Unwritable {
  readonly problem: string
}

export interface StateRun extends PhysRange {
  readonly state: Exclude<Presence, 'hole'>
}

const PIECE_BYTES = 1024 * 1024
/** Grain at which zeros are left out: smaller holes save nothing in a file system. */
const ZERO_BYTES = 64 * 1024
const ZEROS = new Uint8Array(ZERO_BYTES)

/** The memory as runs of one state, ascending; holes are left out. */
export function stateRuns(memory: PhysicalMemory): StateRun[] {
  const runs: { start: PhysAddr; end: bigint; state: StateRun['state'] }[] = []
  for (const range of memory.ranges) {
    for (let at: bigint = range.start; at < range.end; ) {
      const { state, until } = memory.presence(phys(at))
      const end = until < range.end ? until : range.end
      const last = runs.at(-1)
      if (last?.end === at && last.state === state) last.end = end
      else if (state !== 'hole') runs.push({ start: phys(at), end, state })
      at = end
    }
  }
  return runs
}

/**
 * A view of sparse memory in which RAM outside of `held` (sorted and disjoint; what was written, if not
 * given) counts as left out by the dumper. Images made of it are small, and say so.
 */
export function trimmed(
  memory: WritableMemory & { extents(): readonly PhysRange[] },
  held: readonly PhysRange[] = memory.extents(),
): WritableMemory {
  const written = memory.extents()
  return {
    ranges: memory.ranges,
    extents: () => written,
    read(pa, out) {
      const { state, until } = this.presence(pa)
      if (state !== 'present') return 0
      const room = until - pa
      return memory.read(pa, room < BigInt(out.length) ? out.subarray(0, Number(room)) : out)
    },
    presence(pa) {
      const whole = memory.presence(pa)
      if (whole.state !== 'present') return whole
      const range = held[firstEndingAfter(held, pa)]
      const isHeld = range !== undefined && range.start <= pa
      const edge = isHeld ? range.end : (range?.start ?? whole.until)
      const until = edge < whole.until ? edge : whole.until
      return isHeld ? { state: 'present', until } : { state: 'excluded', until, reason: 'never written' }
    },
    filePosition: (pa) => memory.filePosition(pa),
  }
}

function firstEndingAfter(ranges: readonly PhysRange[], pa: bigint): number {
  return firstIndex(ranges.length, (index) => (ranges[index] as PhysRange).end > pa)
}

/** The bytes of a present run as pieces, the run's first byte at `offset`. */
export function* runPieces(memory: WritableMemory, run: PhysRange, offset: number): Generator<Piece> {
  for (const part of writtenParts(memory, run)) {
    for (let at: bigint = part.start; at < part.end; ) {
      const room = part.end - at
      const bytes = new Uint8Array(room < BigInt(PIECE_BYTES) ? Number(room) : PIECE_BYTES)
      // What cannot be read after all (a damaged source) stays zeros, as in other dumpers' files.
      memory.read(phys(at), bytes)
      yield* withoutZeros({ offset: offset + Number(at - run.start), bytes })
      at += BigInt(bytes.length)
    }
  }
}

/** The parts of a run that may hold something else than zeros. */
export function* writtenParts(memory: WritableMemory, run: PhysRange): Generator<PhysRange> {
  const extents = memory.extents?.()
  if (!extents) {
    yield run
    return
  }
  for (let index = firstEndingAfter(extents, run.start); index < extents.length; index += 1) {
    const { start, end } = extents[index] as PhysRange
    if (start >= run.end) return
    yield { start: start > run.start ? start : run.start, end: end < run.end ? end : run.end }
  }
}

function* withoutZeros({ offset, bytes }: Piece): Generator<Piece> {
  let from = 0
  for (let at = 0; at < bytes.length; at += ZERO_BYTES) {
    const end = Math.min(at + ZERO_BYTES, bytes.length)
    if (!isZero(bytes.subarray(at, end))) continue
    if (at > from) yield { offset: offset + from, bytes: bytes.subarray(from, at) }
    from = end
  }
  if (from < bytes.length) yield { offset: offset + from, bytes: bytes.subarray(from) }
}

/** Whether at most 64 KiB are all zeros. */
export function isZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, ZEROS.subarray(0, bytes.length)) === 0
}

/** A file from its first to its last byte, the zeros between the pieces too: for pipes. */
export function* sequential(file: ImageFile): Generator<Uint8Array> {
  let at = 0
  for (const { offset, bytes } of file.pieces()) {
    yield* zeros(offset - at)
    yield bytes
    at = offset + bytes.length
  }
  yield* zeros(file.size - at)
}

function* zeros(length: number): Generator<Uint8Array> {
  for (let left = length; left > 0; left -= ZERO_BYTES) yield ZEROS.subarray(0, Math.min(left, ZERO_BYTES))
}

/** Joins headers that follow each other. */
export function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
