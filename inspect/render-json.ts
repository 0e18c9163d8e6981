/**
 * The decoded tree as plain JSON values, under the names and in the number forms that
 * `kho-inspect/dump@1` lays down: addresses, frame numbers, tokens and handles as hex strings, counts
 * and sizes as numbers up to 2^53 - 1 and hex strings above, text with invalid bytes as `\xNN`.
 */
import type { Fault } from '../abi/fault.ts'
import { hex } from '../abi/memory.ts'
import type { Show } from '../abi/schema.ts'
import type { Handover } from './decode.ts'
import type { PreservedMap } from './map.ts'
import type { Reading } from './reading.ts'
import { decodeText, escapeUnprintable, isPrintable } from './text.ts'
import { type Node, parsePath, type RecordNode, type ValueNode } from './tree.ts'
import type { ElementValue, VmallocArray } from './vmalloc.ts'

export type Json = string | number | boolean | null | Json[] | JsonStream | { [key: string]: Json }

/** An array that is produced while it is written, because it may be longer than memory. */
export class JsonStream {
  readonly items: () => Iterable<Json>

  constructor(items: () => Iterable<Json>) {
    this.items = items
  }
}

/** Changes when a key of the contract changes. */
export const DUMP_SCHEMA = 'kho-inspect/dump@1'

export interface JsonOptions {
  /** Every folio record, as `folio_list`. */
  readonly folios: boolean
}

export function handoverToJson(handover: Handover, options: JsonOptions): Json {
  const tree = nodeToJson(handover.tree, options) as { [key: string]: Json }
  const best = handover.readings[0]
  return {
    schema: DUMP_SCHEMA,
    page_size: handover.target.pageSize,
    ...(best && { reading: readingToJson(handover.readings) }),
    ...tree,
    faults: handover.faults.map(faultToJson),
  }
}

/** How the image was read, why, and what spoke against each other way. */
function readingToJson([best, ...others]: Handover['readings']): Json {
  const shown = (reading: Reading): { [key: string]: Json } => ({
    version: reading.version.id,
    page_size: reading.target.pageSize,
    reasons: [...reading.reasons],
  })
  return best ? { ...shown(best), others: others.map(shown) } : {}
}

export function nodeToJson(node: Node, options: JsonOptions): Json {
  switch (node.kind) {
    case 'value':
      return valueToJson(node)
    case 'fact':
      return typeof node.value === 'string' ? node.value : numberToJson(node.value, node.show)
    case 'record':
      return recordToJson(node, options)
    case 'list':
      return node.items.map((item) => nodeToJson(item, options))
    case 'preserved':
      return preservedToJson(node.map)
    case 'raw':
      return { phys: hex(node.pa), length: node.length, bytes: Buffer.from(node.bytes).toString('hex') }
  }
}

function recordToJson(record: RecordNode, options: JsonOptions): Json {
  const object = new Map<string, Json>()
  for (const item of record.children) {
    if (typeof item.segment === 'string') object.set(freeKey(object, item.segment), nodeToJson(item, options))
    if (item.kind !== 'record' || !item.bulk) continue
    for (const [key, value] of Object.entries(bulkToJson(item.bulk, options))) object.set(key, value)
  }
  if (record.bulk?.complete) object.set('chunks', record.bulk.chunks.length)
  return Object.fromEntries(object)
}

/** What the image names itself may be named like something else; nothing is overwritten. */
function freeKey(object: ReadonlyMap<string, Json>, segment: string): string {
  let key = segment
  for (let n = 2; object.has(key); n++) key = `${segment}#${n}`
  return key
}

/** `first_folio`, `last_folio` and, if asked for, `folio_list`. */
function bulkToJson(bulk: VmallocArray, options: JsonOptions): { [key: string]: Json } {
  const object: { [key: string]: Json } = {}
  for (const [key, index] of [
    ['first', 0],
    ['last', bulk.count - 1],
  ] as const) {
    const value = index >= 0 && index < bulk.available ? bulk.valueAt(index) : undefined
    if (value) object[`${key}_${bulk.item}`] = elementToJson(bulk, value)
  }
  if (options.folios) object[`${bulk.item}_list`] = new JsonStream(() => elementsToJson(bulk))
  return object
}

function* elementsToJson(bulk: VmallocArray): Generator<Json> {
  for (const value of bulk.values()) yield elementToJson(bulk, value)
}

function elementToJson({ element }: VmallocArray, value: ElementValue): Json {
  const shown: { [key: string]: Json } = {}
  for (const [name, number] of Object.entries(value)) {
    const type = element.kind === 'struct' ? element.fields[name] : element
    shown[name] = numberToJson(number, type?.kind === 'int' || type?.kind === 'bits' ? type.show : 'dec')
  }
  return shown
}

function valueToJson({ type, value }: ValueNode): Json {
  if (value instanceof Uint8Array) {
    if (type.kind !== 'inline-array') return decodeText(value)
    const words = new BigUint64Array(value.slice().buffer)
    return Array.from(words, (word) => numberToJson(word, type.element.show))
  }
  return numberToJson(value, type.kind === 'int' || type.kind === 'bits' ? type.show : 'dec')
}

function numberToJson(value: number | bigint, show: Show): Json {
  if (show === 'hex' || value > Number.MAX_SAFE_INTEGER) return hex(value)
  return Number(value)
}

function preservedToJson(map: PreservedMap): Json {
  const { entries, bytes, byOrder, extentCount, firstExtent, lastExtent } = map.summary()
  const extent = (range: { start: bigint; end: bigint }): Json => ({
    start: hex(range.start),
    end: hex(range.end),
  })
  const totals: Json = {
    entries,
    bytes: numberToJson(bytes, 'bytes'),
    by_order: Object.fromEntries([...byOrder].map(([order, count]) => [String(order), count])),
    extent_count: extentCount,
    ...(firstExtent && { first_extent: extent(firstExtent) }),
    ...(lastExtent && { last_extent: extent(lastExtent) }),
  }
  // Totals of a map with missing pages would pass for the whole.
  return map.missing.length === 0 ? totals : { missing_map_pages: map.missing.length, known: totals }
}

export function faultToJson(fault: Fault): Json {
  return {
    code: fault.code,
    severity: fault.severity,
    path: fault.path,
    phys: hex(fault.pa),
    length: fault.length,
    ...(fault.file && { image_file: fault.file.file, image_offset: fault.file.offset }),
    message: fault.message,
    ...(fault.expected !== undefined && { expected: fault.expected }),
    ...(fault.found !== undefined && { found: fault.found }),
    via: fault.via.map((hop) => ({ path: hop.path, phys: hex(hop.pa), target: hex(hop.target) })),
  }
}

/** JSON text in pieces, indented by two; streams are written element by element. */
export function* jsonText(value: Json, indent = ''): Generator<string> {
  if (value instanceof JsonStream || Array.isArray(value)) {
    yield* sequenceText(value, indent)
  } else if (value !== null && typeof value === 'object') {
    const inner = `${indent}  `
    let separator = '{\n'
    for (const [key, item] of Object.entries(value)) {
      yield `${separator}${inner}${quotedJson(key)}: `
      yield* jsonText(item, inner)
      separator = ',\n'
    }
    yield separator === '{\n' ? '{}' : `\n${indent}}`
  } else {
    yield quotedJson(value)
  }
}

/** JSON leaves alone what a terminal must not get: DEL, C1 controls, invisible and reordering characters. */
function quotedJson(value: string | number | boolean | null): string {
  const text = JSON.stringify(value)
  if (typeof value !== 'string' || isPrintable(text)) return text
  return escapeUnprintable(text, (character) =>
    Array.from({ length: character.length }, (_, i) => {
      return `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`
    }).join(''),
  )
}

/** Elements of a stream take one line each: there may be millions. */
function* sequenceText(value: JsonStream | Json[], indent: string): Generator<string> {
  const isStream = value instanceof JsonStream
  const items = isStream ? value.items() : value
  const inner = `${indent}  `
  let separator = '[\n'
  for (const item of items) {
    yield `${separator}${inner}`
    if (isStream) yield JSON.stringify(item)
    else yield* jsonText(item, inner)
    separator = ',\n'
  }
  yield separator === '[\n' ? '[]' : `\n${indent}]`
}

/** The value under a path of keys and indexes; undefined where there is none. */
export function jsonAt(value: Json, path: string): Json | undefined {
  let at: Json | undefined = value
  for (const segment of parsePath(path) ?? ['']) {
    if (at === null || typeof at !== 'object' || at instanceof JsonStream) return undefined
    const key = typeof segment === 'string' ? segment : String(segment.element)
    at = Object.hasOwn(at, key) ? (at as { [key: string]: Json })[key] : undefined
  }
  return at
}

/** The same value with streams turned into arrays, for writers that need it whole. */
export function materialized(value: Json): Json {
  if (value instanceof JsonStream) return Array.from(value.items(), materialized)
  if (Array.isArray(value)) return value.map(materialized)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, materialized(item)]))
}
