/**
 * Long arrays of small elements, written in bulk from runs: each machine word of an element is an
 * arithmetic progression along a run, so no record and no bigint is made per element.
 */
import type { Path } from '../abi/fault.ts'
import { layoutOf, type Target } from '../abi/layout.ts'
import type { BitsType, FieldType, IntType, Measure, StructType } from '../abi/schema.ts'
import type { RunTable } from './runs.ts'
import type { Site } from './site.ts'
import { viewOf } from './write.ts'

/** The name of the only field of an element that is a plain integer. */
export const PLAIN_VALUE = 'value'

/** One field of an element and the word that it is part of. */
interface ElementField {
  readonly name: string
  readonly type: IntType | BitsType
  readonly offset: number
}

export function elementFields(element: StructType | IntType, target: Target): readonly ElementField[] {
  if (element.kind === 'int') return [{ name: PLAIN_VALUE, type: element, offset: 0 }]
  return layoutOf(element, target).fields.flatMap(({ name, type, offset }) =>
    isWord(type) ? [{ name, type, offset }] : [],
  )
}

/** The field that says where an element's memory lies, and the one that says where in a file it belongs. */
export function measuring(
  element: StructType | IntType,
  target: Target,
  ...measures: readonly Measure[]
): { readonly name: string; readonly measure: Measure } | undefined {
  for (const { name, type } of elementFields(element, target)) {
    if (type.measures && measures.includes(type.measures)) return { name, measure: type.measures }
  }
  return undefined
}

export function elementSize(element: StructType | IntType, target: Target): number {
  return element.kind === 'int' ? element.bytes : layoutOf(element, target).size
}

/** A field within its word. */
interface PartOfWord {
  readonly name: string
  readonly shift: bigint
  readonly width: number
  /** 2^width. */
  readonly room: bigint
}

/** A word of an element, and its next value while a run is written. */
interface Word {
  readonly offset: number
  readonly type: IntType
  readonly parts: PartOfWord[]
  start: bigint
  step: bigint
}

/** Most bytes that are staged before they go to their pages. */
const STAGE_BYTES = 64 * 1024

/** Where the bytes of an array go: called in order, without gaps. */
export type ByteSink = (bytes: Uint8Array) => void

/** Writes all elements of a table, in order. A value that does not fit its field is a problem of its run. */
export function writeElements(
  site: Site,
  element: StructType | IntType,
  table: RunTable<string>,
  path: Path,
  sink: ByteSink,
): void {
  const size = elementSize(element, site.target)
  const staged = Math.max(1, Math.min(table.total, Math.floor(STAGE_BYTES / size)))
  const stage = new Uint8Array(staged * size)
  const view = viewOf(stage)
  const words = wordsOf(elementFields(element, site.target))
  let filled = 0
  for (let run = 0; run < table.length; run++) {
    for (const word of words) startWord(site, word, table, run, path)
    const count = table.count(run)
    for (let done = 0; done < count; ) {
      const part = Math.min(count - done, (stage.length - filled) / size)
      for (const word of words) fillWord(view, filled, size, part, word)
      filled += part * size
      done += part
      if (filled === stage.length) {
        sink(stage)
        filled = 0
        stage.fill(0)
      }
    }
  }
  if (filled > 0) sink(stage.subarray(0, filled))
}

function wordsOf(fields: readonly ElementField[]): readonly Word[] {
  const words: Word[] = []
  for (const { name, type, offset } of fields) {
    const wordType = type.kind === 'bits' ? type.word : type
    const width = type.kind === 'bits' ? type.width : type.bytes * 8
    const shift = type.kind === 'bits' ? BigInt(type.shift) : 0n
    let word = words.find((one) => one.type === wordType)
    if (!word) {
      word = { offset, type: wordType, parts: [], start: 0n, step: 0n }
      words.push(word)
    }
    word.parts.push({ name, shift, width, room: 1n << BigInt(width) })
  }
  return words
}

/** Sets a word to the first record of a run. Fields are checked at both ends, and lie between in between. */
function startWord(site: Site, word: Word, table: RunTable<string>, run: number, path: Path): void {
  word.start = 0n
  word.step = 0n
  for (const { name, shift, width, room } of word.parts) {
    const start = table.start(name, run)
    const end = table.end(name, run)
    if (start >= room || end < 0n || end >= room) {
      site.report([...path, 'runs', { index: run }, name], `${start} to ${end} does not fit ${width} bits`)
    }
    word.start += start << shift
    word.step += BigInt(table.step(name, run)) << shift
  }
}

/** Writes the next `count` values of a word and moves it on. Sums wrap at 64 bits, so signs need no care. */
function fillWord(view: DataView, at: number, stride: number, count: number, word: Word): void {
  const { bytes, order } = word.type
  const littleEndian = order === 'le'
  const mask = 0xffff_ffffn
  let low = Number(word.start & mask)
  let high = Number((word.start >> 32n) & mask)
  const stepLow = Number(word.step & mask)
  const stepHigh = Number((word.step >> 32n) & mask)
  let offset = at + word.offset
  for (let index = 0; index < count; index++) {
    if (bytes === 8) {
      view.setUint32(offset, littleEndian ? low : high, littleEndian)
      view.setUint32(offset + 4, littleEndian ? high : low, littleEndian)
    } else if (bytes === 4) view.setUint32(offset, low, littleEndian)
    else if (bytes === 2) view.setUint16(offset, low, littleEndian)
    else view.setUint8(offset, low)
    offset += stride
    const sum = low + stepLow
    high = (high + stepHigh + (sum > 0xffff_ffff ? 1 : 0)) >>> 0
    low = sum >>> 0
  }
  word.start = BigInt.asUintN(64, word.start + BigInt(count) * word.step)
}

function isWord(type: FieldType): type is IntType | BitsType {
  return type.kind === 'int' || type.kind === 'bits'
}
