/**
 * Gzip around a container: unpacked once as a stream, since images are read at arbitrary places.
 *
 * What is not zero is kept in memory up to a limit, above it in an unlinked temporary file with holes.
 * A stream that unpacks beyond the total limit is refused. One that ends early or turns out damaged
 * keeps what came before, and says so.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { type ByteSource, type Problem, systemError } from './image-source.ts'

/** Method deflate, no reserved flag: RFC 1952, 2.3.1. */
export function isGzip(head: Uint8Array): boolean {
  return head[0] === 0x1f && head[1] === 0x8b && head[2] === 8 && ((head[3] ?? 0xff) & 0xe0) === 0
}

export interface UnpackOptions {
  /** Directory for the temporary file. */
  readonly tempDir: string
  /** Bytes other than zero that are kept in memory. */
  readonly memoryBytes: number
  /** Bytes that a file may unpack to. */
  readonly totalBytes: number
  /** Called now and then with compressed bytes read and their total. */
  readonly progress?: ((done: number, total: number) => void) | undefined
}

export const UNPACK_DEFAULTS: UnpackOptions = {
  tempDir: '/tmp',
  memoryBytes: 64 * 1024 * 1024,
  totalBytes: 16 * 1024 * 1024 * 1024,
}

const BLOCK_BYTES = 256 * 1024
const READ_BYTES = 1024 * 1024
const ZERO_BLOCK = new Uint8Array(BLOCK_BYTES)

/** Unpacks `packed` whole and closes it; several gzip members count as one stream. */
export async function unpackGzip(packed: ByteSource, options: UnpackOptions): Promise<ByteSource | Problem> {
  const store = new UnpackedStore(packed.name, options)
  const damage = await inflateInto(store, packed, options)
  packed.close()
  const refuse = (problem: string): Problem => {
    store.close()
    return { problem: `${packed.name}: ${problem}` }
  }
  if (store.refusal) return refuse(store.refusal)
  if (damage && store.size === 0) return refuse(`gzip data is damaged: ${damage}`)
  store.finish(damage && `where its gzip data is cut off or damaged (${damage})`)
  return store
}

/** Resolves to what is wrong with the stream; all that came out before has been stored by then. */
async function inflateInto(
  store: UnpackedStore,
  packed: ByteSource,
  options: UnpackOptions,
): Promise<string | undefined> {
  const gunzip = createGunzip({ chunkSize: BLOCK_BYTES })
  const input = Readable.from(piecesOf(packed, options), { objectMode: false })
  const damage = await new Promise<string | undefined>((resolve) => {
    gunzip.on('data', (piece: Uint8Array) => {
      if (!store.append(piece)) resolve(undefined)
    })
    gunzip.on('end', () => resolve(undefined))
    gunzip.on('error', (error) => resolve(error.message))
    input.pipe(gunzip)
  })
  input.destroy()
  gunzip.destroy()
  return damage
}

function* piecesOf(packed: ByteSource, options: UnpackOptions): Generator<Uint8Array> {
  for (let offset = 0; ; ) {
    const piece = new Uint8Array(READ_BYTES)
    const count = packed.read(offset, piece)
    if (count === 0) return
    offset += count
    options.progress?.(offset, packed.size ?? offset)
    yield piece.subarray(0, count)
  }
}

/** Unpacked bytes in blocks; blocks of zeros take no room. */
class UnpackedStore implements ByteSource {
  readonly name: string
  cut: string | undefined
  failure: string | undefined
  /** Why no more bytes are taken. */
  refusal: string | undefined
  readonly #options: UnpackOptions
  /** In memory; a missing one is zeros. */
  readonly #blocks: (Uint8Array | undefined)[] = []
  #heldBytes = 0
  #filling = new Uint8Array(BLOCK_BYTES)
  #filled = 0
  #nrBlocks = 0
  #fd: number | undefined

  constructor(name: string, options: UnpackOptions) {
    this.name = name
    this.#options = options
  }

  get size(): number {
    return this.#nrBlocks * BLOCK_BYTES + this.#filled
  }

  /** False, with `refusal`, when no more is taken. */
  append(piece: Uint8Array): boolean {
    const { totalBytes } = this.#options
    if (this.size + piece.length > totalBytes) {
      this.refusal = `unpacks to more than ${totalBytes} bytes; unpack it to a file first`
    }
    for (let done = 0; done < piece.length && !this.refusal; ) {
      const count = Math.min(BLOCK_BYTES - this.#filled, piece.length - done)
      this.#filling.set(piece.subarray(done, done + count), this.#filled)
      done += count
      this.#filled += count
      if (this.#filled === BLOCK_BYTES) this.#keepBlock()
    }
    return this.refusal === undefined
  }

  finish(cut: string | undefined): void {
    this.cut = cut
    // The last block stays as it is, with zeros behind the end that no read returns.
    this.#filling.fill(0, this.#filled)
    this.#blocks[this.#nrBlocks] = this.#filling
  }

  read(offset: number, out: Uint8Array): number {
    const length = Math.max(0, Math.min(out.length, this.size - offset))
    for (let done = 0; done < length; ) {
      const at = offset + done
      const index = Math.floor(at / BLOCK_BYTES)
      const skip = at - index * BLOCK_BYTES
      const count = Math.min(BLOCK_BYTES - skip, length - done)
      if (!this.#readBlock(index, skip, out.subarray(done, done + count))) return done
      done += count
    }
    return length
  }

  position(): undefined {
    return undefined
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
    this.#blocks.length = 0
  }

  #readBlock(index: number, skip: number, out: Uint8Array): boolean {
    const block = this.#blocks[index]
    if (block) {
      out.set(block.subarray(skip, skip + out.length))
      return true
    }
    out.fill(0)
    if (this.#fd === undefined) return true
    try {
      readSync(this.#fd, out, 0, out.length, index * BLOCK_BYTES + skip)
      return true
    } catch (error) {
      this.failure = `${this.name} cannot be read back from ${this.#options.tempDir}: ${systemError(error)}`
      return false
    }
  }

  #keepBlock(): void {
    const index = this.#nrBlocks
    this.#nrBlocks += 1
    this.#filled = 0
    if (Buffer.compare(this.#filling, ZERO_BLOCK) === 0) return
    if (this.#heldBytes + BLOCK_BYTES <= this.#options.memoryBytes) {
      this.#heldBytes += BLOCK_BYTES
      this.#blocks[index] = this.#filling
      this.#filling = new Uint8Array(BLOCK_BYTES)
      return
    }
    this.#spill(index)
  }

  #spill(index: number): void {
    try {
      this.#fd ??= openUnlinked(this.#options.tempDir)
      ftruncateSync(this.#fd, (index + 1) * BLOCK_BYTES)
      writeSync(this.#fd, this.#filling, 0, BLOCK_BYTES, index * BLOCK_BYTES)
    } catch (error) {
      this.refusal = `cannot be unpacked to ${this.#options.tempDir}: ${systemError(error)}`
    }
  }
}

/** A temporary file that no directory names any more, so that nothing is left behind. */
function openUnlinked(tempDir: string): number {
  const directory = mkdtempSync(`${tempDir}/kho-inspect-`)
  try {
    return openSync(`${directory}/image`, 'wx+', 0o600)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
