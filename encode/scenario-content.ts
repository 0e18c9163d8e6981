/** Contents of a scenario as contents of a document: text, bytes, files and sequences laid one over the other. */
import type { Path } from '../abi/fault.ts'
import { contentSource } from './content.ts'
import type { Content, ContentPart, PlainContent } from './handover.ts'
import type { ScenarioContent } from './scenario-file-schema.ts'
import type { ScenarioReport } from './scenario-text.ts'
import { textBytes } from './text.ts'

/** Reads a file that a scenario names: its bytes, or why not. */
export type FileReader = (name: string) => Uint8Array | { readonly problem: string }

export interface ContentContext {
  readonly readFile: FileReader | undefined
  readonly report: ScenarioReport
}

interface ContentPlace {
  /** Bytes that it may fill; undefined where the content decides. */
  readonly length: bigint | undefined
  /** What it is laid into, for messages. */
  readonly into: string
  /** Added to every seed: the number of a copy. */
  readonly copy?: bigint
}

/** Undefined where there is none, or after what is wrong was reported. */
export function contentOf(
  pieces: ScenarioContent | undefined,
  place: ContentPlace,
  path: Path,
  context: ContentContext,
): Content | undefined {
  if (!pieces) return undefined
  const parts: ContentPart[] = []
  for (const [index, piece] of pieces.entries()) {
    const at = pieces.length > 1 ? [...path, { index }] : path
    const content = plainContent(piece, place, at, context)
    if (content) parts.push({ offset: piece.at ?? 0n, content })
  }
  const [only] = parts
  return parts.length === 1 && only?.offset === 0n ? only.content : parts
}

/** Bytes up to the end of the last piece. */
export function contentLength(content: Content | undefined): bigint {
  return content ? contentSource(content).length : 0n
}

type Piece = ScenarioContent[number]

function plainContent(
  piece: Piece,
  { length, into, copy = 0n }: ContentPlace,
  path: Path,
  context: ContentContext,
): PlainContent | undefined {
  const { report } = context
  const start = piece.at ?? 0n
  const bytes = storedBytes(piece, path, context)
  if (bytes && piece.length !== undefined) {
    return report.wrong(
      [...path, 'length'],
      'length goes with byte, pattern or words; these bytes have their own',
    )
  }
  const rest = bytes
    ? BigInt(bytes.length)
    : (piece.length ?? (length === undefined ? undefined : length - start))
  if (rest === undefined) return report.wrong(path, `length is missing: ${into} has no size of its own`)
  if (length !== undefined && (rest < 0n || start + rest > length)) {
    const reach = rest < 0n ? start : start + rest
    return report.wrong(path, `reaches to offset ${reach}; expected at most ${length}, the bytes of ${into}`)
  }
  if (bytes) return bytes
  if (piece.byte !== undefined) return { byte: piece.byte, length: rest }
  const wrap = (value: bigint): bigint => BigInt.asUintN(64, value + copy)
  if (piece.words) {
    const every = period(piece.words.every, [...path, 'words', 'every'], report)
    return { word: wrap(piece.words.word), every, length: rest }
  }
  if (!piece.pattern) return undefined
  const { seed, every, run } = piece.pattern
  const step = period(every ?? (rest > 0n ? rest : 1n), [...path, 'pattern', 'every'], report)
  const drawn = period(run ?? BigInt(step), [...path, 'pattern', 'run'], report)
  return { seed: wrap(seed), every: step, run: drawn, length: rest }
}

/** A distance in bytes: at least one, and exact as a number. */
function period(bytes: bigint, path: Path, report: ScenarioReport): number {
  if (bytes > 0n && bytes <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(bytes)
  report.wrong(path, `expected from 1 to 2^53 - 1 bytes, found ${bytes}`)
  return 1
}

function storedBytes(piece: Piece, path: Path, { readFile, report }: ContentContext): Uint8Array | undefined {
  if (piece.text !== undefined) return textBytes(piece.text)
  if (piece.hex) return piece.hex
  if (piece.file === undefined) return undefined
  const read = readFile?.(piece.file) ?? { problem: 'there are no files here' }
  if (read instanceof Uint8Array) return read
  report.wrong([...path, 'file'], `${piece.file}: ${read.problem}`)
  return new Uint8Array()
}
