/**
 * Memory as image files: flat raw, LiME, ELF core (image-elf.ts), kdump-compressed (image-kdump.ts).
 *
 * Every writer returns the file's length and its pieces in ascending order, in bounded memory. The same
 * memory gives the same bytes on every machine; compressed pages depend on the version of zlib in Node.
 */
import { CONTAINER_TARGET, LIME_MAGIC, LIME_VERSION, limeHeader } from '../abi/container.ts'
import { layoutOf } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import {
  type ImageFile,
  type Piece,
  runPieces,
  stateRuns,
  type Unwritable,
  type WritableMemory,
} from './image-pieces.ts'
import { encodeStruct } from './write.ts'

export { type Arch, type ElfOptions, writeElf } from './image-elf.ts'
export { type KdumpOptions, writeKdump } from './image-kdump.ts'
export type { KhoNote } from './image-note.ts'
export {
  type ImageFile,
  type Piece,
  sequential,
  trimmed,
  type Unwritable,
  type WritableMemory,
} from './image-pieces.ts'

/** Where file sizes end to be exact, and far above what file systems take. */
const MAX_FILE_BYTES = BigInt(Number.MAX_SAFE_INTEGER)

/**
 * Flat raw memory: byte i of the file is physical address `base` + i. Holes and what is left out become
 * zeros, since the format knows no other state; memory below `base` is not written.
 */
export function writeRaw(memory: WritableMemory, base: PhysAddr = phys(0)): ImageFile | Unwritable {
  const end = memory.ranges.at(-1)?.end ?? base
  if (end <= base) return { problem: `no memory at or above ${hex(base)}` }
  if (end - base > MAX_FILE_BYTES)
    return { problem: `flat raw memory up to ${hex(end)} is too large for a file` }
  return {
    size: Number(end - base),
    *pieces(): Generator<Piece> {
      for (const { start, end, state } of stateRuns(memory)) {
        if (state !== 'present' || end <= base) continue
        const from = start > base ? start : base
        yield* runPieces(memory, { start: from, end }, Number(from - base))
      }
    },
  }
}

/** LiME: each run that is present behind a header with its addresses. What is left out becomes a hole. */
export function writeLime(memory: WritableMemory): ImageFile {
  const headerBytes = layoutOf(limeHeader, CONTAINER_TARGET).size
  const runs = stateRuns(memory).filter(({ state }) => state === 'present')
  const length = runs.reduce((sum, { start, end }) => sum + headerBytes + Number(end - start), 0)
  return {
    size: length,
    *pieces(): Generator<Piece> {
      let offset = 0
      for (const run of runs) {
        const fields = {
          magic: LIME_MAGIC,
          version: LIME_VERSION,
          s_addr: run.start,
          e_addr: run.end - 1n,
          reserved: new Uint8Array(),
        }
        yield { offset, bytes: encodeStruct(limeHeader, fields, CONTAINER_TARGET) }
        offset += headerBytes
        yield* runPieces(memory, run, offset)
        offset += Number(run.end - run.start)
      }
    },
  }
}
