/**
 * Files that appear whole or not at all: each is written under a temporary name beside its place and
 * renamed at the end. Images get holes where they hold zeros.
 */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { type ImageFile, sequential } from '../encode/image-pieces.ts'

/** What kept a file from being written: one line. */
export interface OutputProblem {
  readonly problem: string
}

interface Pending {
  readonly temporary: string
  readonly path: string
}

/** Called with bytes done and bytes in all. */
export type OutputProgress = (done: number, total: number) => void

export class OutputFiles {
  readonly #pending: Pending[] = []

  /** Writes a file under its temporary name; a device or pipe is written at once. */
  add(path: string, file: ImageFile, progress?: OutputProgress): OutputProblem | undefined {
    try {
      const target = resolved(path)
      if (target.isDirectory) return { problem: `${path} cannot be written: EISDIR` }
      if (target.isSpecial) writeSequence(path, file)
      else {
        const temporary = `${target.path}.${process.pid}.tmp`
        this.#pending.push({ temporary, path: target.path })
        writeSparse(temporary, file, progress)
      }
      return undefined
    } catch (error) {
      this.discard()
      return { problem: `${path} cannot be written: ${systemCode(error)}` }
    }
  }

  addText(path: string, text: string): OutputProblem | undefined {
    return this.add(path, bytesFile(new TextEncoder().encode(text)))
  }

  /** Gives all files their names. */
  commit(): OutputProblem | undefined {
    for (let next = this.#pending.shift(); next; next = this.#pending.shift()) {
      const { temporary, path } = next
      try {
        renameSync(temporary, path)
      } catch (error) {
        rmSync(temporary, { force: true })
        this.discard()
        return { problem: `${path} cannot be written: ${systemCode(error)}` }
      }
    }
    return undefined
  }

  /** Removes what was written so far. */
  discard(): void {
    for (const { temporary } of this.#pending.splice(0)) rmSync(temporary, { force: true })
  }
}

/** What would keep a file from being written, for who makes it only after a while. A pipe is not tried. */
export function unwritable(path: string): OutputProblem | undefined {
  const files = new OutputFiles()
  const problem = isSpecial(path) ? undefined : files.addText(path, '')
  files.discard()
  return problem
}

/**
 * Makes a folder and those above it. mkdir's own `recursive` never comes back from a file system that
 * answers ENOENT below a folder that is there, as /proc does.
 */
export function makeFolder(path: string): OutputProblem | undefined {
  const missing: string[] = []
  try {
    for (let folder = path; !statSync(folder, { throwIfNoEntry: false }); folder = dirname(folder)) {
      missing.push(folder)
    }
    for (const folder of missing.reverse()) mkdirSync(folder)
    if (statSync(path).isDirectory()) return undefined
    return { problem: `${path} cannot be made: EEXIST` }
  } catch (error) {
    return { problem: `${path} cannot be made: ${systemCode(error)}` }
  }
}

/** Bytes that are there already, as a file. */
export function bytesFile(bytes: Uint8Array): ImageFile {
  return { size: bytes.length, pieces: () => [{ offset: 0, bytes }] }
}

interface OutputTarget {
  /** Behind links. */
  readonly path: string
  readonly isDirectory: boolean
  /** A device or pipe, nothing that a rename should replace. */
  readonly isSpecial: boolean
}

function resolved(path: string): OutputTarget {
  const stat = statSync(path, { throwIfNoEntry: false })
  if (!stat) return { path, isDirectory: false, isSpecial: false }
  const isDirectory = stat.isDirectory()
  return { path: realpathSync(path), isDirectory, isSpecial: !stat.isFile() && !isDirectory }
}

function isSpecial(path: string): boolean {
  try {
    return resolved(path).isSpecial
  } catch {
    return false
  }
}

/** Progress is told after this many bytes. */
const PROGRESS_BYTES = 16 * 1024 * 1024

function writeSparse(path: string, file: ImageFile, progress: OutputProgress | undefined): void {
  const descriptor = openSync(path, 'wx')
  try {
    let told = 0
    for (const { offset, bytes } of file.pieces()) {
      writeAt(descriptor, bytes, offset)
      if (offset - told < PROGRESS_BYTES) continue
      told = offset
      progress?.(offset, file.size)
    }
    ftruncateSync(descriptor, file.size)
  } finally {
    closeSync(descriptor)
  }
}

function writeSequence(path: string, file: ImageFile): void {
  const descriptor = openSync(path, 'w')
  try {
    for (const bytes of sequential(file)) writeAt(descriptor, bytes, null)
  } finally {
    closeSync(descriptor)
  }
}

function writeAt(descriptor: number, bytes: Uint8Array, offset: number | null): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(descriptor, bytes, done, bytes.length - done, offset === null ? null : offset + done)
  }
}

function systemCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error)
}
