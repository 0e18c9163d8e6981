/**
 * The language in which a scenario's format is declared: shapes of values, each of which reads a value,
 * says what it expects, and describes itself as JSON Schema. One declaration, so that the reader, its
 * messages and the editors' schema cannot disagree.
 */
import type { Path } from '../abi/fault.ts'
import type { ScenarioReport } from './scenario-text.ts'

export type JsonSchema = { readonly [key: string]: JsonSchemaValue }
export type JsonSchemaValue =
  | string
  | number
  | boolean
  | JsonSchema
  | readonly (string | number | boolean | JsonSchema)[]

/** Shapes that are described once and referred to, by name. */
export type Definitions = Map<string, JsonSchema>

export interface Shape<T> {
  /** What is expected, with an example: `a size such as 4096, 64KiB or 2GiB`. */
  readonly expects: string
  /** It may be a list: as a short form it takes them. */
  readonly isList?: true
  /** The value, or undefined after what is wrong with it was reported. */
  read(value: unknown, path: Path, report: ScenarioReport): T | undefined
  schema(definitions: Definitions): JsonSchema
}

export interface Field<T, Needed extends boolean = boolean> {
  readonly shape: Shape<T>
  /** One sentence, for editors and the documentation. */
  readonly doc: string
  readonly needed: Needed
}

export function needed<T>(shape: Shape<T>, doc: string): Field<T, true> {
  return { shape, doc, needed: true }
}

export function optional<T>(shape: Shape<T>, doc: string): Field<T, false> {
  return { shape, doc, needed: false }
}

export type Fields = Readonly<Record<string, Field<unknown>>>

type ReadBy<F> = F extends Field<infer T> ? T : never

/** The value of an object with these fields. */
export type ObjectOf<F extends Fields> = {
  readonly [K in keyof F as F[K] extends Field<unknown, true> ? K : never]: ReadBy<F[K]>
} & {
  readonly [K in keyof F as F[K] extends Field<unknown, true> ? never : K]?: ReadBy<F[K]>
}

/** What a shape reads. */
export type Read<S> = S extends Shape<infer T> ? T : never

export function text(expects = 'text', schema: JsonSchema = {}): Shape<string> {
  return {
    expects,
    read(value, path, report) {
      if (typeof value === 'string') return value
      const hint = typeof value === 'bigint' || typeof value === 'boolean' ? '; put it in quotes' : ''
      return report.wrong(path, `expected ${expects}, found ${describe(value)}${hint}`)
    },
    schema: () => ({ type: 'string', ...schema }),
  }
}

export const flag: Shape<boolean> = {
  expects: 'true or false',
  read(value, path, report) {
    if (typeof value === 'boolean') return value
    return report.wrong(path, `expected true or false, found ${describe(value)}`)
  },
  schema: () => ({ type: 'boolean' }),
}

/** One of a few words. */
export function choice<const W extends string>(words: readonly W[]): Shape<W> {
  const expects = `one of ${words.join(', ')}`
  return {
    expects,
    read(value, path, report) {
      const word = words.find((known) => known === value)
      if (word !== undefined) return word
      const near = typeof value === 'string' ? nearest(value, words) : undefined
      const hint = near === undefined ? '' : `; did you mean ${near}?`
      return report.wrong(path, `expected ${expects}, found ${describe(value)}${hint}`)
    },
    schema: () => ({ enum: [...words] }),
  }
}

export function list<T>(element: Shape<T>, things: string): Shape<readonly T[]> {
  const expects = `a list of ${things}`
  return {
    expects,
    read(value, path, report) {
      if (!Array.isArray(value)) return report.wrong(path, `expected ${expects}, found ${describe(value)}`)
      return value.map((one, index) => element.read(one, [...path, { index }], report) as T)
    },
    schema: (definitions) => ({ type: 'array', items: element.schema(definitions) }),
  }
}

/** A map with exactly these keys. */
export function object<F extends Fields>(thing: string, fields: F): Shape<ObjectOf<F>> {
  const names = Object.keys(fields)
  const expects = `${thing} (a map with ${names.join(', ')})`
  return {
    expects,
    read(value, path, report) {
      if (!(value instanceof Map)) return report.wrong(path, `expected ${expects}, found ${describe(value)}`)
      for (const key of value.keys()) if (!isKnown(fields, key)) reportUnknown(key, names, path, report)
      const read: Record<string, unknown> = {}
      for (const [name, { shape, needed: mustBe }] of Object.entries(fields)) {
        if (!value.has(name)) {
          if (mustBe) report.wrong(path, `${name} is missing; expected ${shape.expects}`)
          continue
        }
        const member = shape.read(value.get(name), [...path, name], report)
        if (member !== undefined) read[name] = member
      }
      return read as ObjectOf<F>
    },
    schema: (definitions) => objectSchema(fields, definitions),
  }
}

function isKnown(fields: Fields, key: unknown): boolean {
  return typeof key === 'string' && Object.hasOwn(fields, key)
}

function reportUnknown(key: unknown, names: readonly string[], path: Path, report: ScenarioReport): void {
  const name = typeof key === 'string' ? key : String(key)
  const near = nearest(name, names)
  const hint = near === undefined ? `expected ${names.join(', ')}` : `did you mean ${near}?`
  report.wrongKey([...path, name], `unknown key; ${hint}`)
}

function objectSchema(fields: Fields, definitions: Definitions): JsonSchema {
  const members = Object.entries(fields)
  const required = members.filter(([, field]) => field.needed).map(([name]) => name)
  return {
    type: 'object',
    properties: Object.fromEntries(
      members.map(([name, { shape, doc }]) => [name, { description: doc, ...shape.schema(definitions) }]),
    ),
    ...(required.length > 0 && { required }),
    additionalProperties: false,
  }
}

/** A map whose keys are names that the user chooses. */
export function named<T>(element: Shape<T>, things: string): Shape<ReadonlyMap<string, T>> {
  const expects = `a map of ${things} by name`
  return {
    expects,
    read(value, path, report) {
      if (!(value instanceof Map)) return report.wrong(path, `expected ${expects}, found ${describe(value)}`)
      const read = new Map<string, T>()
      for (const [key, one] of value) {
        const name = String(key)
        const member = element.read(one, [...path, name], report)
        if (member !== undefined) read.set(name, member)
      }
      return read
    },
    schema: (definitions) => ({ type: 'object', additionalProperties: element.schema(definitions) }),
  }
}

/** A shape whose value means something else to the rest of the program. */
export function meaning<T, M>(shape: Shape<T>, of: (value: T) => M): Shape<M> {
  return {
    expects: shape.expects,
    read(value, path, report) {
      const read = shape.read(value, path, report)
      return read === undefined ? undefined : of(read)
    },
    schema: (definitions) => shape.schema(definitions),
  }
}

/** A map, or a short form for it. */
export function orShort<T, S>(whole: Shape<T>, short: Shape<S>, of: (value: S) => T): Shape<T> {
  const expects = `${short.expects}, or ${whole.expects}`
  return {
    expects,
    read(value, path, report) {
      if (value instanceof Map) return whole.read(value, path, report)
      if ((Array.isArray(value) && !short.isList) || value === null)
        return report.wrong(path, `expected ${expects}, found ${describe(value)}`)
      const read = short.read(value, path, report)
      return read === undefined ? undefined : of(read)
    },
    schema: (definitions) => ({ anyOf: [short.schema(definitions), whole.schema(definitions)] }),
  }
}

/** A key alone, without a value, means `empty`. */
export function orNothing<T>(shape: Shape<T>, empty: T): Shape<T> {
  return {
    expects: `${shape.expects}, or nothing`,
    read: (value, path, report) => (value === null ? empty : shape.read(value, path, report)),
    schema: (definitions) => ({ anyOf: [{ type: 'null' }, shape.schema(definitions)] }),
  }
}

/** One value, or a list of them. */
export function orList<T>(element: Shape<T>, things: string): Shape<readonly T[]> {
  const many = list(element, things)
  return {
    expects: `${element.expects}, or ${many.expects}`,
    isList: true,
    read(value, path, report) {
      if (Array.isArray(value)) return many.read(value, path, report)
      const one = element.read(value, path, report)
      return one === undefined ? undefined : [one]
    },
    schema: (definitions) => ({ anyOf: [element.schema(definitions), many.schema(definitions)] }),
  }
}

/** Exactly one of some keys has to be there. */
export function oneKeyOf<T extends object>(whole: Shape<T>, keys: readonly string[]): Shape<T> {
  return {
    expects: whole.expects,
    read(value, path, report) {
      const read = whole.read(value, path, report)
      if (read === undefined) return undefined
      const given = keys.filter((key) => (value as ReadonlyMap<unknown, unknown>).has(key))
      if (given.length === 1) return read
      const found = given.length === 0 ? 'none of them' : given.join(' and ')
      return report.wrong(path, `expected exactly one of ${keys.join(', ')}; found ${found}`)
    },
    schema: (definitions) => ({
      ...whole.schema(definitions),
      oneOf: keys.map((key) => ({ required: [key] })),
    }),
  }
}

/** A shape with a name in the schema: used in several places, or in its own declaration. */
export function defined<T>(name: string, shape: () => Shape<T>): Shape<T> {
  return {
    get expects() {
      return shape().expects
    },
    read: (value, path, report) => shape().read(value, path, report),
    schema(definitions) {
      if (!definitions.has(name)) {
        definitions.set(name, {})
        definitions.set(name, shape().schema(definitions))
      }
      return { $ref: `#/$defs/${name}` }
    },
  }
}

const SHOWN_CHARACTERS = 60

/** A value in a message. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return 'nothing'
  if (value instanceof Map) return 'a map'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'string') {
    const shown = value.length > SHOWN_CHARACTERS ? `${value.slice(0, SHOWN_CHARACTERS)}…` : value
    return JSON.stringify(shown)
  }
  return String(value)
}

/** The word that was probably meant: at most two letters away, fewer than half of them, and no digit. */
export function nearest(found: string, words: readonly string[]): string | undefined {
  const digits = (word: string): string => word.replaceAll(/\D/g, '')
  const candidates = words.filter((word) => digits(word) === digits(found))
  const distances = candidates.map((word) => ({
    word,
    distance: distanceOf(found.toLowerCase(), word.toLowerCase()),
  }))
  const best = distances.sort((a, b) => a.distance - b.distance)[0]
  return best && best.distance <= 2 && best.distance * 2 < best.word.length ? best.word : undefined
}

/** Letters to insert, remove, replace or swap to get from one word to the other. */
function distanceOf(one: string, other: string): number {
  if (one.length > SHOWN_CHARACTERS) return one.length
  const rows: number[][] = [Array.from({ length: other.length + 1 }, (_, column) => column)]
  const at = (row: number, column: number): number => rows[row]?.[column] ?? Number.POSITIVE_INFINITY
  for (let row = 1; row <= one.length; row++) {
    rows.push([row])
    for (let column = 1; column <= other.length; column++) {
      const same = one[row - 1] === other[column - 1]
      const swapped = one[row - 1] === other[column - 2] && one[row - 2] === other[column - 1]
      const step = Math.min(
        at(row - 1, column) + 1,
        at(row, column - 1) + 1,
        at(row - 1, column - 1) + Number(!same),
      )
      rows[row]?.push(swapped ? Math.min(step, at(row - 2, column - 2) + 1) : step)
    }
  }
  return at(one.length, other.length)
}
