/**
 * makedumpfile's flattened form: a dump written to a pipe, as records of offset and bytes. QEMU writes
 * its kdump-compressed dumps so, too. Here it is put back into the order of offsets, without a copy.
 *
 * Source: makedumpfile IMPLEMENTATION and makedumpfile.h; QEMU dump/dump.c: write_buffer().
 */
import { firstIndex } from '../abi/bisect.ts'
import {
  FLAT_END,
  FLAT_HEADER_BYTES,
  FLAT_SIGNATURE,
  FLAT_TYPE,
  FLAT_VERSION,
  flatHeader,
  flatRecord,
} from '../abi/container.ts'
import { type FilePosition, hex } from '../abi/memory.ts'
import {
  type ByteSource,
  describeEnd,
  fileOffset,
  headerSize,
  isProblem,
  type Problem,
  readHeader,
} from './image-source.ts'
import { decodeText } from './text.ts'

/** Records taken; QEMU writes one per 16 KiB. */
const MAX_RECORDS = 1 << 21
/** Records that overwrite others: the headers that makedumpfile writes again at its end. */
const MAX_OVERWRITES = 4096

/** One record: bytes of the inner file, and where they are. */
interface Piece {
  readonly offset: number
  readonly length: number
  readonly at: number
}

/** The inner file of a flattened one; undefined where `outer` is none. */
export function unflatten(outer: ByteSource): ByteSource | Problem | undefined {
  const header = readHeader(outer, flatHeader, 0)
  if (!header || decodeText(header.signature) !== FLAT_SIGNATURE) return undefined
  if (header.type !== FLAT_TYPE || header.version !== FLAT_VERSION) {
    const found = `type ${header.type}, version ${header.version}`
    return {
      problem: `${outer.name}: flattened file of ${found}; expected type ${FLAT_TYPE}, version ${FLAT_VERSION}`,
    }
  }
  const records = readRecords(outer)
  if (isProblem(records)) return records
  const layers = separate(records.pieces)
  if (layers.overwrites.length > MAX_OVERWRITES) {
    return {
      problem: `${outer.name}: ${layers.overwrites.length} flattened records overlap others; limit is ${MAX_OVERWRITES}`,
    }
  }
  return new FlattenedSource(outer, layers, records.cut)
}

function readRecords(outer: ByteSource): { pieces: Piece[]; cut?: string } | Problem {
  const pieces: Piece[] = []
  const size = headerSize(flatRecord)
  for (let at = FLAT_HEADER_BYTES; ; ) {
    const record = readHeader(outer, flatRecord, at)
    if (!record) return { pieces, cut: `as ${describeEnd(outer)} inside of its list of flattened records` }
    if (record.offset === FLAT_END) return { pieces }
    const offset = fileOffset(record.offset)
    const length = fileOffset(record.buf_size)
    if (offset === undefined || length === undefined || length === 0) {
      const found = `offset ${hex(record.offset)}, size ${hex(record.buf_size)}`
      return { pieces, cut: `as the flattened record at offset ${at} has ${found}` }
    }
    if (pieces.length === MAX_RECORDS) {
      return {
        problem: `${outer.name}: more than ${MAX_RECORDS} flattened records; put it in order with makedumpfile -R first`,
      }
    }
    pieces.push({ offset, length, at: at + size })
    at += size + length
  }
}

interface Layers {
  /** Sorted and disjoint. */
  readonly disjoint: readonly Piece[]
  /** Those that overlap one of the others. */
  readonly overwrites: readonly Piece[]
  /** Where the last piece ends. */
  readonly end: number
}

function endOf({ offset, length }: Piece): number {
  return offset + length
}

function separate(pieces: readonly Piece[]): Layers {
  const disjoint: Piece[] = []
  const overwrites: Piece[] = []
  let [covered, end] = [0, 0]
  for (const piece of [...pieces].sort((a, b) => a.offset - b.offset)) {
    end = Math.max(end, endOf(piece))
    if (piece.offset < covered) {
      overwrites.push(piece)
      continue
    }
    disjoint.push(piece)
    covered = endOf(piece)
  }
  return { disjoint, overwrites, end }
}

class FlattenedSource implements ByteSource {
  readonly name: string
  readonly size: number
  readonly cut: string | undefined
  readonly #outer: ByteSource
  readonly #layers: Layers

  constructor(outer: ByteSource, layers: Layers, cut: string | undefined) {
    this.name = outer.name
    this.size = layers.end
    this.cut = cut
    this.#outer = outer
    this.#layers = layers
  }

  get failure(): string | undefined {
    return this.#outer.failure
  }

  /** What no record holds is missing: a dumper writes the zeros that it means. */
  read(offset: number, out: Uint8Array): number {
    const pieces = this.#piecesIn(offset, offset + out.length)
    const covered = coveredBytes(pieces, offset, out.length)
    let readable = covered
    for (const piece of pieces) {
      const from = Math.max(piece.offset, offset)
      const want = Math.min(endOf(piece), offset + covered) - from
      if (want <= 0) continue
      const target = out.subarray(from - offset, from - offset + want)
      const got = this.#outer.read(piece.at + (from - piece.offset), target)
      if (got < want) readable = Math.min(readable, from - offset + got)
    }
    return readable
  }

  position(offset: number): FilePosition | undefined {
    const piece = this.#piecesIn(offset, offset + 1).at(-1)
    return piece && this.#outer.position(piece.at + (offset - piece.offset))
  }

  close(): void {
    this.#outer.close()
  }

  /** Pieces that touch the range, in the order in which they were written: the last one counts. */
  #piecesIn(start: number, end: number): Piece[] {
    const { disjoint, overwrites } = this.#layers
    const found: Piece[] = []
    const endsAfter = (index: number): boolean => endOf(disjoint[index] as Piece) > start
    for (let index = firstIndex(disjoint.length, endsAfter); ; index += 1) {
      const piece = disjoint[index]
      if (!piece || piece.offset >= end) break
      found.push(piece)
    }
    const over = overwrites.filter((piece) => piece.offset < end && start < endOf(piece))
    return over.length > 0 ? [...found, ...over].sort((a, b) => a.at - b.at) : found
  }
}

/** Bytes from `offset` on that the pieces hold without a gap, at most `length`. */
function coveredBytes(pieces: readonly Piece[], offset: number, length: number): number {
  let end = offset
  for (const piece of [...pieces].sort((a, b) => a.offset - b.offset)) {
    if (piece.offset > end) break
    end = Math.max(end, endOf(piece))
  }
  return Math.min(length, end - offset)
}
