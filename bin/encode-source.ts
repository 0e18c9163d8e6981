/**
 * Where `kho-inspect encode` gets a handover from: a scenario, a handover document, or an image that is
 * decoded to one. Each source gives memory, and what the image's container has to say besides.
 */
import type { Architecture } from '../abi/machine.ts'
import { phys } from '../abi/memory.ts'
import { HANDOVER_SCHEMA, type HandoverDocument } from '../encode/handover.ts'
import type { OutputMachine } from '../encode/image-format.ts'
import { heldMemory } from '../encode/image-held.ts'
import { trimmed, type WritableMemory } from '../encode/image-pieces.ts'
import { parseHandoverDocument } from '../encode/json-document.ts'
import type { SparseMemory } from '../encode/memory.ts'
import { encodeScenario, formatScenarioProblem, type MachineOptions } from '../encode/scenario.ts'
import type { EncodeProblem } from '../encode/write.ts'
import { type WrittenHandover, writeHandover } from '../encode/write-handover.ts'
import type { Handover } from '../inspect/decode.ts'
import { child } from '../inspect/tree.ts'
import { documentOf } from './document.ts'
import { complain, type ImageArguments, listCandidates, openHandover } from './image-arguments.ts'
import { type NoSource, readerBeside, readText, refuse } from './scenario-file.ts'
import { ExitCode, type Terminal } from './terminal.ts'

export interface EncodeSource extends OutputMachine {
  readonly document: HandoverDocument
  /** `linux-7.3`, or the versions; for people. */
  readonly label: string
  /** All RAM, and what of it the handover owns. */
  readonly ram: WritableMemory
  readonly held: WritableMemory
  /** Ends what the memory is read from, where that is a file. */
  readonly close?: () => void
}

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

/**
 * Decodes an image; what was found is encoded at the same addresses, and what is preserved besides (the
 * contents of files and regions) is copied when it is written. The source holds the image open.
 */
export async function sourceFromImage(
  file: string,
  args: ImageArguments,
  arch: Architecture | undefined,
  terminal: Terminal,
): Promise<EncodeSource | NoSource> {
  const opened = await openHandover([file], args, terminal)
  if (!opened) return { exitCode: ExitCode.UNREADABLE }
  listCandidates(opened.candidates, terminal)
  const { handover } = opened.candidates[0]
  const machine = arch ?? opened.image.architecture
  const document = { ...documentOf(handover), ...(machine && { arch: machine }) }
  const copy = (memory: SparseMemory): void => copyPreserved(handover, memory)
  const source = sourceFromDocument(file, document, terminal, copy)
  return 'exitCode' in source ? source : { ...source, close: () => opened.image.close() }
}

/** Preserved memory that the image holds; pages that the encoder writes keep what it wrote. */
function copyPreserved({ tree, memory: image }: Handover, memory: SparseMemory): void {
  const preserved = child(tree, 'preserved')
  if (preserved?.kind !== 'preserved') return
  for (const { start, end } of preserved.map.extents()) {
    for (let at = start; at < end; ) {
      const { state, until } = image.presence(phys(at))
      const stop = until < end ? until : end
      if (state === 'present')
        memory.generate({ start: phys(at), end: stop }, (pa, out) => void image.read(pa, out))
      at = stop
    }
  }
}

function sourceFromDocument(
  file: string,
  document: HandoverDocument,
  terminal: Terminal,
  complete: (memory: SparseMemory) => void = () => {},
): EncodeSource | NoSource {
  const written = writeHandover(document)
  if (written.problems.length > 0) return refuse(file, problemLines(file, written.problems), terminal)
  complete(written.memory)
  // What a document does not describe is not known to be zeros.
  const held = trimmed(written.memory)
  const label = document.versions.kho ?? 'unknown version'
  return { ...machineOf(document, written), document, label, ram: written.memory, held }
}

function problemLines(file: string, problems: readonly EncodeProblem[]): readonly string[] {
  return problems.map(({ path, message }) => `${file}: ${path}: ${message}`)
}

function machineOf(
  { arch, page_size: pageSize }: HandoverDocument,
  { boot }: WrittenHandover,
): OutputMachine {
  return { arch: arch ?? 'x86_64', pageSize, boot }
}
