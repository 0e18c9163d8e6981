/**
 * Stored ABI documents, as `abi freeze` wrote them: read back for comparison with today's.
 *
 * A document comes from a file, so its shape is checked before anything is done with it.
 */
import { PAGE_SIZES } from '../abi/layout.ts'
import { ABI_SCHEMA, type AbiDocument } from './abi-document.ts'

export interface StoredProblem {
  readonly problem: string
}

/** What a value must be; a function looks at the value itself and gives what was expected instead. */
type Shape =
  | 'string'
  | 'number'
  | 'boolean'
  | { readonly array: Shape }
  | { readonly record: Shape }
  | { readonly object: Readonly<Record<string, Shape>>; readonly optional?: Readonly<Record<string, Shape>> }
  | { readonly oneOf: readonly string[] }
  | { readonly contract: true }
  | { readonly perPage: true }

const texts: Shape = { array: 'string' }
const perPage: Shape = { perPage: true }

const edge: Shape = {
  object: { kind: 'string', to: texts },
  optional: { pages: 'number', capacity: perPage, maxBlocks: 'number', depth: perPage, by: 'string' },
}

const member: Shape = {
  object: { name: 'string', type: 'string', encoding: 'string', doc: 'string' },
  optional: {
    offset: perPage,
    size: perPage,
    count: perPage,
    bits: { object: { shift: 'number', width: 'number' } },
    flags: { record: 'number' },
    only: 'number',
    part: 'string',
    leads: edge,
  },
}

const part: Shape = {
  object: {
    kind: { oneOf: ['struct', 'node'] },
    doc: 'string',
    source: 'string',
    guards: texts,
    members: { array: member },
  },
  optional: {
    packed: 'boolean',
    size: perPage,
    align: 'number',
    compatible: 'string',
    children: texts,
    shared: { object: {}, optional: { since: 'string' } },
  },
}

const version: Shape = {
  object: {
    id: 'string',
    component: 'string',
    contract: { contract: true },
    place: {
      object: { kind: { oneOf: ['fdt-compatible', 'field', 'referrer', 'none'] } },
      optional: { field: 'string' },
    },
    releases: texts,
    root: 'string',
    parts: { record: part },
    limits: {
      record: {
        object: { value: perPage, doc: 'string', part: 'string' },
        optional: { is: { oneOf: ['maximum', 'encoding'] } },
      },
    },
  },
  optional: { unreleased: 'string' },
}

const document: Shape = {
  object: {
    schema: { oneOf: [ABI_SCHEMA] },
    components: {
      record: {
        object: { doc: 'string', versions: texts },
        optional: { subtree: 'string', testOnly: 'boolean' },
      },
    },
    versions: { record: version },
    releases: {
      array: {
        object: { name: 'string', covers: 'string', versions: { record: 'string' } },
        optional: { unreleased: 'boolean' },
      },
    },
  },
}

/** Contracts by kind, and what each holds. */
const CONTRACTS: Readonly<Record<string, Shape>> = {
  string: { object: { kind: 'string', value: 'string' } },
  integer: { object: { kind: 'string', name: 'string', value: 'number' } },
  composite: { object: { kind: 'string', parts: texts } },
  list: { object: { kind: 'string', values: texts } },
  none: { object: { kind: 'string' } },
}

/** Reads a stored document. Any text gives a result or one sentence about what is wrong where. */
export function parseStored(text: string): AbiDocument | StoredProblem {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    return { problem: `is no JSON: ${(error as Error).message}` }
  }
  const wrong = mismatch(value, document, '')
  return wrong === undefined ? (value as AbiDocument) : { problem: `is no ABI document: ${wrong}` }
}

export function isStoredProblem(value: AbiDocument | StoredProblem): value is StoredProblem {
  return 'problem' in value
}

/** Where and how a value departs from its shape. */
function mismatch(value: unknown, shape: Shape, path: string): string | undefined {
  if (typeof shape === 'string')
    return typeof value === shape ? undefined : unexpected(path, `a ${shape}`, value)
  if ('oneOf' in shape) {
    return shape.oneOf.includes(value as string)
      ? undefined
      : unexpected(path, shape.oneOf.join(' or '), value)
  }
  if ('perPage' in shape)
    return isPerPage(value) ? undefined : unexpected(path, 'a number or one for each page size', value)
  if ('array' in shape) {
    if (!Array.isArray(value)) return unexpected(path, 'a list', value)
    return firstOf(value.map((item, index) => mismatch(item, shape.array, `${path}[${index}]`)))
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return unexpected(path, 'an object', value)
  const fields = value as Readonly<Record<string, unknown>>
  if ('record' in shape) {
    // Such a key would find what every object has where a name is looked up.
    const inherited = Object.keys(fields).find((key) => key in Object.prototype)
    if (inherited !== undefined) return unexpected(path, 'names', inherited)
    return firstOf(
      Object.entries(fields).map(([key, item]) => mismatch(item, shape.record, `${path}.${key}`)),
    )
  }
  if ('contract' in shape) {
    const kind =
      typeof fields.kind === 'string' && Object.hasOwn(CONTRACTS, fields.kind) ? fields.kind : undefined
    if (kind === undefined)
      return unexpected(`${path}.kind`, Object.keys(CONTRACTS).join(' or '), fields.kind)
    return mismatch(value, CONTRACTS[kind] as Shape, path)
  }
  const demanded = Object.entries(shape.object).map(([key, inner]) =>
    mismatch(fields[key], inner, `${path}.${key}`),
  )
  const allowed = Object.entries(shape.optional ?? {}).map(([key, inner]) =>
    fields[key] === undefined ? undefined : mismatch(fields[key], inner, `${path}.${key}`),
  )
  return firstOf([...demanded, ...allowed])
}

function firstOf(texts: readonly (string | undefined)[]): string | undefined {
  return texts.find((text) => text !== undefined)
}

function isPerPage(value: unknown): boolean {
  if (typeof value === 'number') return true
  if (typeof value !== 'object' || value === null) return false
  return PAGE_SIZES.every((pageSize) => typeof (value as Record<string, unknown>)[pageSize] === 'number')
}

function unexpected(path: string, expected: string, found: unknown): string {
  const text = JSON.stringify(found) ?? 'nothing'
  return `${path.replace(/^\./, '') || 'the document'}: expected ${expected}, found ${text.slice(0, 60)}`
}
