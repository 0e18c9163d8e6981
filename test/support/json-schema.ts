/**
 * Holds JSON against a JSON Schema of draft 4, as far as SARIF's uses it. A keyword that is not known here
 * is an error, so that nothing passes unchecked.
 */

export interface Schema {
  readonly [keyword: string]: unknown
}

/** Keywords that say nothing about a value. */
const ANNOTATIONS = new Set(['$schema', 'id', 'title', 'description', 'default', 'definitions', 'format'])

type Checker = (value: unknown, argument: never, schema: Schema, at: string) => readonly string[]

/** What is wrong with a value, one line each; nothing where it fits. */
export function schemaProblems(root: Schema, value: unknown): readonly string[] {
  const check = (schema: Schema, tried: unknown, at: string): readonly string[] => {
    if (typeof schema.$ref === 'string') return check(referred(root, schema.$ref), tried, at)
    return Object.entries(schema).flatMap(([keyword, argument]) => {
      if (ANNOTATIONS.has(keyword)) return []
      const checker = checkers[keyword]
      if (!checker) throw new Error(`the schema uses ${keyword}, which is not checked here`)
      return checker(tried, argument as never, schema, at)
    })
  }

  const isRecord = (tried: unknown): tried is Record<string, unknown> => typeOf(tried) === 'object'

  const checkers: Readonly<Record<string, Checker>> = {
    type: (tried, wanted: string | readonly string[], _schema, at) => {
      const types = [wanted].flat()
      const own = typeOf(tried)
      return types.includes(own) || (own === 'integer' && types.includes('number'))
        ? []
        : [`${at}: expected ${types.join(' or ')}, found ${own}`]
    },
    enum: (tried, values: readonly unknown[], _schema, at) =>
      values.includes(tried) ? [] : [`${at}: ${JSON.stringify(tried)} is none of ${JSON.stringify(values)}`],
    required: (tried, names: readonly string[], _schema, at) =>
      isRecord(tried) ? names.filter((name) => !(name in tried)).map((name) => `${at}: no ${name}`) : [],
    properties: (tried, declared: Record<string, Schema>, _schema, at) =>
      isRecord(tried)
        ? Object.entries(declared).flatMap(([name, schema]) =>
            name in tried ? check(schema, tried[name], `${at}.${name}`) : [],
          )
        : [],
    additionalProperties: (tried, allowed: boolean | Schema, { properties = {} }, at) => {
      if (!isRecord(tried)) return []
      const others = Object.entries(tried).filter(([name]) => !(name in (properties as object)))
      if (allowed === false) return others.map(([name]) => `${at}: ${name} is not allowed`)
      return allowed === true ? [] : others.flatMap(([name, one]) => check(allowed, one, `${at}.${name}`))
    },
    items: (tried, schema: Schema, _schema, at) =>
      Array.isArray(tried) ? tried.flatMap((one, index) => check(schema, one, `${at}[${index}]`)) : [],
    minItems: (tried, least: number, _schema, at) =>
      Array.isArray(tried) && tried.length < least ? [`${at}: fewer than ${least} items`] : [],
    uniqueItems: (tried, wanted: boolean, _schema, at) =>
      wanted && Array.isArray(tried) && new Set(tried.map((one) => JSON.stringify(one))).size < tried.length
        ? [`${at}: items repeat`]
        : [],
    minimum: (tried, least: number, _schema, at) =>
      typeof tried === 'number' && tried < least ? [`${at}: below ${least}`] : [],
    maximum: (tried, most: number, _schema, at) =>
      typeof tried === 'number' && tried > most ? [`${at}: above ${most}`] : [],
    pattern: (tried, pattern: string, _schema, at) =>
      typeof tried === 'string' && !new RegExp(pattern).test(tried)
        ? [`${at}: does not match ${pattern}`]
        : [],
    anyOf: (tried, schemas: readonly Schema[], _schema, at) =>
      schemas.some((schema) => check(schema, tried, at).length === 0) ? [] : [`${at}: fits none of anyOf`],
    oneOf: (tried, schemas: readonly Schema[], _schema, at) => {
      const fitting = schemas.filter((schema) => check(schema, tried, at).length === 0).length
      return fitting === 1 ? [] : [`${at}: fits ${fitting} of oneOf`]
    },
  }
  return check(root, value, '$')
}

function typeOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  return Number.isInteger(value) ? 'integer' : typeof value
}

/** The part of a schema that `#/definitions/name` names. */
function referred(root: Schema, reference: string): Schema {
  let at: unknown = root
  for (const key of reference.split('/').slice(1)) at = (at as Record<string, unknown>)[key]
  if (at === undefined) throw new Error(`the schema has no ${reference}`)
  return at as Schema
}
