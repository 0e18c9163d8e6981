/**
 * Memory and files for tests of the image containers: a three-state memory given by its pieces, image
 * files in a directory of their own, and what a reader says of them in a form that compares.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll } from 'vitest'
import { type PhysAddr, type PhysicalMemory, type PhysRange, phys } from '../../abi/memory.ts'
import type { ImageFile, Unwritable } from '../../encode/image-pieces.ts'
import { type Image, type ImageSource, type OpenOptions, openImage } from '../../inspect/image.ts'
import { ROOT } from './images.ts'

export interface TestPiece {
  readonly start: bigint
  /** Bytes that are there, or the length of what was left out. */
  readonly content: Uint8Array | bigint
}

/** Memory made of pieces that must be sorted and disjoint. */
export class TestMemory implements PhysicalMemory {
  readonly #pieces: readonly (PhysRange & { readonly bytes?: Uint8Array })[]
  readonly ranges: readonly PhysRange[]

  constructor(pieces: readonly TestPiece[]) {
    this.#pieces = pieces.map(({ start, content }) =>
      typeof content === 'bigint'
        ? { start: phys(start), end: start + content }
        : { start: phys(start), end: start + BigInt(content.length), bytes: content },
    )
    const ranges: { start: PhysAddr; end: bigint }[] = []
    for (const { start, end } of this.#pieces) {
      const last = ranges.at(-1)
      if (last?.end === start) last.end = end
      else ranges.push({ start, end })
    }
    this.ranges = ranges
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    let done = 0
    while (done < out.length) {
      const at = pa + BigInt(done)
      const piece = this.#pieces.find(({ start, end, bytes }) => bytes && start <= at && at < end)
      if (!piece?.bytes) break
      const part = piece.bytes.subarray(Number(at - piece.start)).subarray(0, out.length - done)
      out.set(part, done)
      done += part.length
    }
    return done
  }

  presence(pa: PhysAddr): ReturnType<PhysicalMemory['presence']> {
    const piece = this.#pieces.find(({ end }) => pa < end)
    if (!piece) return { state: 'hole', until: 1n << 64n }
    if (pa < piece.start) return { state: 'hole', until: piece.start }
    return { state: piece.bytes ? 'present' : 'excluded', until: piece.end }
  }

  filePosition(): undefined {
    return undefined
  }
}

/** Bytes that differ from place to place and do not compress to nothing. */
export function noise(length: number, seed = 0x12345678): Uint8Array {
  let state = seed
  return Uint8Array.from({ length }, () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state & 0xff
  })
}

/** A directory for the test file, removed when it is done. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'kho-inspect-test-'))
  afterAll(() => rmSync(directory, { recursive: true }))
  return directory
}

export function isWritable(file: ImageFile | Unwritable): ImageFile {
  if ('problem' in file) throw new Error(file.problem)
  return file
}

/** Writes an image file piece by piece, as a program would, and checks that the pieces ascend. */
export function writeImage(path: string, written: ImageFile | Unwritable): string {
  const file = isWritable(written)
  const fd = openSync(path, 'w')
  let end = 0
  for (const { offset, bytes } of file.pieces()) {
    if (offset < end) throw new Error(`piece at ${offset} after ${end}`)
    writeSync(fd, bytes, 0, bytes.length, offset)
    end = offset + bytes.length
  }
  if (end > file.size) throw new Error(`pieces up to ${end} in a file of ${file.size}`)
  ftruncateSync(fd, file.size)
  closeSync(fd)
  return path
}

export function gzipFile(path: string): string {
  writeFileSync(`${path}.gz`, gzipSync(readFileSync(path)))
  return `${path}.gz`
}

export function containerFixture(name: string): string {
  return join(ROOT, 'fixtures', 'containers', name)
}

export function unpackedFixture(name: string): Uint8Array {
  return new Uint8Array(gunzipSync(readFileSync(containerFixture(name))))
}

/** Opens an image that must be sound. */
export async function open(
  sources: string | readonly ImageSource[],
  options: OpenOptions = {},
): Promise<Image> {
  const opened = await openImage(typeof sources === 'string' ? [{ path: sources }] : sources, options)
  if (!opened.ok) throw new Error(opened.problem)
  return opened.image
}

/** The one line that says why an image cannot be opened. */
export async function problemOf(
  sources: string | readonly ImageSource[],
  options: OpenOptions = {},
): Promise<string> {
  const opened = await openImage(typeof sources === 'string' ? [{ path: sources }] : sources, options)
  if (opened.ok) {
    opened.image.close()
    throw new Error(`opened as ${opened.image.format}`)
  }
  return opened.problem
}

export interface TestRun {
  readonly state: string
  readonly start: bigint
  readonly end: bigint
  /** Of the bytes of a present run. */
  readonly sha256?: string
}

/** Runs of one state from 0 to 2^64, found by `presence` alone. */
export function statesOf(memory: PhysicalMemory): TestRun[] {
  const runs: { state: string; start: bigint; end: bigint }[] = []
  for (let at = 0n; at < 1n << 64n; ) {
    const { state, until } = memory.presence(phys(at))
    if (until <= at) throw new Error(`presence at ${at} holds until ${until}`)
    const last = runs.at(-1)
    if (last?.state === state) last.end = until
    else runs.push({ state, start: at, end: until })
    at = until
  }
  return runs.map((run) => (run.state === 'present' ? { ...run, sha256: digest(bytesOf(memory, run)) } : run))
}

/** All the bytes of a range, which must be present. */
export function bytesOf(memory: PhysicalMemory, { start, end }: { start: bigint; end: bigint }): Uint8Array {
  const bytes = new Uint8Array(Number(end - start))
  const got = memory.read(phys(start), bytes)
  if (got !== bytes.length) throw new Error(`read ${got} of ${bytes.length} bytes at ${start}`)
  return bytes
}

export function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
