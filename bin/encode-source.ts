/**
 * Where `kho-inspect encode` gets a handover from: a scenario, a handover document, or an image that is
 * decoded to one. Each source gives memory, and what the image's container has to say besides.
 */
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { Architecture } from '../abi/machine.ts'
import { HANDOVER_SCHEMA, type HandoverDocument } from '../encode/handover.ts'
import type { OutputMachine } from '../encode/image-format.ts'
import { heldMemory } from '../encode/image-held.ts'
import { trimmed, type WritableMemory } from '../encode/image-pieces.ts'
import { parseHandoverDocument } from '../encode/json-document.ts'
import {
  encodeScenario,
  type FileReader,
  formatScenarioProblem,
  type MachineOptions,
} from '../encode/scenario.ts'
import type { EncodeProblem } from '../encode/write.ts'
import { type WrittenHandover, writeHandover } from '../encode/write-handover.ts'
import { documentOf } from './document.ts'
import { complain, type ImageArguments, listCandidates, openHandover } from './image-arguments.ts'
import { ExitCode, type Terminal } from './terminal.ts'

export interface EncodeSource extends OutputMachine {
  readonly document: HandoverDocument
  /** `linux-7.3`, or the versions; for people. */
  readonly label: string
  /** All RAM, and what of it the handover owns. */
  readonly ram: WritableMemory
  readonly held: WritableMemory
}

/** The exit code, after the reason was printed. */
export interface NoSource {
  readonly exitCode: number
}

/** Problems beyond these are mostly echoes of the first. */
const SHOWN_PROBLEMS = 20

/** A scenario, or a document as `--from` makes them: told apart by what they say first. */
export async function sourceFromText(
  file: string,
  options: MachineOptions,
  terminal: Terminal,
): Promise<EncodeSource | NoSource> {
  const text = readText(file)
  if (typeof text !== 'string') {
    complain(terminal, `${file}: ${text.problem}`)
    return { exitCode: ExitCode.UNREADABLE }
  }
  return isDocument(text)
    ? sourceFromJson(file, text, terminal)
    : sourceFromScenario(file, text, options, terminal)
}

async function sourceFromScenario(
  file: string,
  text: string,
  options: MachineOptions,
  terminal: Terminal,
): Promise<EncodeSource | NoSource> {
  const encoded = await encodeScenario(text, { ...options, readFile: readerBeside(file) })
  if (!encoded.ok) {
    const lines = encoded.problems.map((problem) => formatScenarioProblem(file, problem))
    return refuse(file, lines, terminal)
  }
  const { document, label, written } = encoded
  return { ...machineOf(document, written), document, label, ram: written.memory, held: heldMemory(written) }
}

function isDocument(text: string): boolean {
  const [name] = HANDOVER_SCHEMA.split('@')
  return new RegExp(`^\\s*\\{\\s*"schema"\\s*:\\s*"${name}@`).test(text)
}

function sourceFromJson(file: string, text: string, terminal: Terminal): EncodeSource | NoSource {
  const { document, problems } = parseHandoverDocument(text)
  if (document && problems.length === 0) return sourceFromDocument(file, document, terminal)
  return refuse(file, problemLines(file, problems), terminal)
}

/** Decodes an image; what was found is encoded at the same addresses. */
export async function sourceFromImage(
  file: string,
  args: ImageArguments,
  arch: Architecture | undefined,
  terminal: Terminal,
): Promise<EncodeSource | NoSource> {
  const opened = await openHandover([file], args, terminal)
  if (!opened) return { exitCode: ExitCode.UNREADABLE }
  try {
    listCandidates(opened.candidates, terminal)
    const document = documentOf(opened.candidates[0].handover)
    return sourceFromDocument(file, { ...document, ...(arch && { arch }) }, terminal)
  } finally {
    opened.image.close()
  }
}

function sourceFromDocument(
  file: string,
  document: HandoverDocument,
  terminal: Terminal,
): EncodeSource | NoSource {
  const written = writeHandover(document)
  if (written.problems.length > 0) return refuse(file, problemLines(file, written.problems), terminal)
  // What a document does not describe is not known to be zeros.
  const held = trimmed(written.memory)
  const label = document.versions.kho ?? 'unknown version'
  return { ...machineOf(document, written), document, label, ram: written.memory, held }
}

function problemLines(file: string, problems: readonly EncodeProblem[]): readonly string[] {
  return problems.map(({ path, message }) => `${file}: ${path}: ${message}`)
}

function refuse(file: string, lines: readonly string[], terminal: Terminal): NoSource {
  for (const line of lines.slice(0, SHOWN_PROBLEMS)) complain(terminal, line)
  if (lines.length > SHOWN_PROBLEMS) {
    complain(terminal, `${file}: ${lines.length - SHOWN_PROBLEMS} more problems`)
  }
  return { exitCode: ExitCode.USAGE }
}

function machineOf(
  { arch, page_size: pageSize }: HandoverDocument,
  { boot }: WrittenHandover,
): OutputMachine {
  return { arch: arch ?? 'x86_64', pageSize, boot }
}

/** Files that a scenario names lie beside it. */
function readerBeside(scenario: string): FileReader {
  return (name) => readBytes(resolve(dirname(scenario), name))
}

function readBytes(path: string): Uint8Array | { readonly problem: string } {
  try {
    return readFileSync(path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    return { problem: `cannot be read: ${code}` }
  }
}

function readText(path: string): string | { readonly problem: string } {
  const bytes = readBytes(path)
  if (!(bytes instanceof Uint8Array)) return bytes
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return { problem: 'is no text in UTF-8; expected a scenario in YAML or JSON' }
  }
}
