/**
 * Byte sources: where the bytes of a container come from. A file read through a descriptor, or what a
 * wrapping (gzip, flattened) makes of another source. Container formats are read from a source and
 * never see a descriptor.
 *
 * Offsets are JavaScript numbers: files end below 2^53 bytes. An offset that a header gives is checked
 * by `fileOffset` before it is used.
 */
import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { CONTAINER_TARGET } from '../abi/container.ts'
import { layoutOf } from '../abi/layout.ts'
import type { FilePosition } from '../abi/memory.ts'
import type { Infer, StructType } from '../abi/schema.ts'
import { decodeStruct } from './record.ts'

export interface ByteSource {
  /** The file as the user named it. */
  readonly name: string
  /** Bytes; undefined where nothing can tell (devices, files of /proc). */
  readonly size: number | undefined
  /** Why the source ends where it does, if that is too early. */
  readonly cut?: string | undefined
  /** Why the latest read fell short, if the system said so. */
  readonly failure?: string | undefined
  /** Copies bytes from `offset` on and returns how many there were. Never throws. */
  read(offset: number, out: Uint8Array): number
  /** Position in the file itself; undefined where the bytes are compressed there. */
  position(offset: number): FilePosition | undefined
  close(): void
}

/** What keeps a file from being read as an image: one line, what was expected and what was found, where. */
export interface Problem {
  readonly problem: string
}

export function isProblem(value: object): value is Problem {
  return 'problem' in value
}

const BLOCK_BYTES = 16 * 1024
const CACHED_BLOCKS = 128

/** A file, read in place. Short reads go through a small cache of blocks, long ones do not. */
class FileSource implements ByteSource {
  readonly name: string
  readonly size: number | undefined
  failure: string | undefined
  readonly #fd: number
  readonly #blocks = new Map<number, Uint8Array>()

  constructor(name: string, fd: number, size: number | undefined) {
    this.name = name
    this.size = size
    this.#fd = fd
  }

  read(offset: number, out: Uint8Array): number {
    if (out.length >= BLOCK_BYTES) return this.#readFile(offset, out)
    let done = 0
    while (done < out.length) {
      const at = offset + done
      const index = Math.floor(at / BLOCK_BYTES)
      const skip = at - index * BLOCK_BYTES
      const piece = this.#block(index).subarray(skip, skip + out.length - done)
      // A block that the system cuts short may still hold what was asked for (an unreadable page in it).
      if (piece.length === 0) return done + this.#readFile(at, out.subarray(done))
      out.set(piece, done)
      done += piece.length
    }
    return done
  }

  position(offset: number): FilePosition {
    return { file: this.name, offset }
  }

  close(): void {
    closeSync(this.#fd)
  }

  #block(index: number): Uint8Array {
    const known = this.#blocks.get(index)
    if (known) return known
    const block = new Uint8Array(BLOCK_BYTES)
    const filled = block.subarray(0, this.#readFile(index * BLOCK_BYTES, block))
    const oldest = this.#blocks.keys().next()
    if (this.#blocks.size >= CACHED_BLOCKS && !oldest.done) this.#blocks.delete(oldest.value)
    this.#blocks.set(index, filled)
    return filled
  }

  #readFile(offset: number, out: Uint8Array): number {
    let done = 0
    this.failure = undefined
    try {
      while (done < out.length) {
        const count = readSync(this.#fd, out, done, out.length - done, offset + done)
        if (count === 0) break
        done += count
      }
    } catch (error) {
      this.failure = `${this.name} cannot be read at offset ${offset + done}: ${systemError(error)}`
    }
    return done
  }
}

/** Bytes in memory that were read from a file, or (without a name) made up from one. */
export class BytesSource implements ByteSource {
  readonly name: string
  readonly #file: string | undefined
  readonly #bytes: Uint8Array

  constructor(file: string | undefined, bytes: Uint8Array) {
    this.name = file ?? 'blob'
    this.#file = file
    this.#bytes = bytes
  }

  get size(): number {
    return this.#bytes.length
  }

  read(offset: number, out: Uint8Array): number {
    const piece = this.#bytes.subarray(offset, offset + out.length)
    out.set(piece)
    return piece.length
  }

  position(offset: number): FilePosition | undefined {
    return this.#file === undefined ? undefined : { file: this.#file, offset }
  }

  close(): void {}
}

/** Opens a file for reading at arbitrary offsets; pipes and directories are refused. */
export function openFile(path: string): ByteSource | Problem {
  try {
    // Before it is opened: opening a pipe waits for its writer.
    const stat = statSync(path)
    if (stat.isFIFO() || stat.isSocket()) {
      return { problem: `${path}: is a pipe; an image is read at arbitrary places, so save it to a file` }
    }
    if (stat.isDirectory()) return { problem: `${path}: is a directory; expected an image file` }
    const size = stat.isFile() && stat.size > 0 ? stat.size : undefined
    return refuseEmpty(new FileSource(path, openSync(path, 'r'), size))
  } catch (error) {
    return { problem: `${path}: cannot be opened: ${systemError(error)}` }
  }
}

/** Files of /proc report size 0, devices none at all: only a read tells whether there is something. */
function refuseEmpty(source: ByteSource): ByteSource | Problem {
  if (source.size !== undefined || source.read(0, new Uint8Array(1)) === 1) return source
  source.close()
  return { problem: source.failure ?? `${source.name}: is empty; expected an image of physical memory` }
}

/** ENOENT, EACCES …, as the system names it. */
export function systemError(error: unknown): string {
  if (error instanceof Error && 'code' in error) return String(error.code)
  return String(error)
}

/** Reads exactly `length` bytes; undefined where the source does not hold them all. */
export function readSource(source: ByteSource, offset: number, length: number): Uint8Array | undefined {
  if (source.size !== undefined && offset + length > source.size) return undefined
  const bytes = new Uint8Array(length)
  return source.read(offset, bytes) === length ? bytes : undefined
}

/** Reads and decodes one header; undefined where the source does not hold it whole. */
export function readHeader<S extends StructType>(
  source: ByteSource,
  struct: S,
  offset: number,
): Infer<S> | undefined {
  const bytes = readSource(source, offset, headerSize(struct))
  return bytes && decodeStruct(struct, bytes, CONTAINER_TARGET)
}

export function headerSize(struct: StructType): number {
  return layoutOf(struct, CONTAINER_TARGET).size
}

/** An offset or length out of a header as a number; undefined at or above 2^53, where no file reaches. */
export function fileOffset(value: bigint): number | undefined {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : undefined
}

/** `4096 bytes`, or what else is known about where a source ends. */
export function describeEnd(source: ByteSource): string {
  const end = source.size === undefined ? 'the file' : `the file ends at offset ${source.size}`
  return source.cut ? `${end}, ${source.cut}` : end
}

/** No physical memory is larger: addresses have at most 52 bits. */
const MAX_PROBED_BYTES = 2 ** 52

/** Bytes of a source whose size nothing tells, found by reading single bytes; infinite if it has no end. */
export function probeSize(source: ByteSource): number {
  const byte = new Uint8Array(1)
  const readable = (offset: number): boolean => source.read(offset, byte) === 1
  let end = 1
  while (readable(end)) {
    end *= 2
    if (end > MAX_PROBED_BYTES) return Number.POSITIVE_INFINITY
  }
  let last = Math.floor(end / 2)
  while (end - last > 1) {
    const middle = Math.floor((end + last) / 2)
    if (readable(middle)) last = middle
    else end = middle
  }
  return end
}
