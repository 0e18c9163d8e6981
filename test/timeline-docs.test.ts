/** The reference of steps in docs/timelines.md: exactly what the reader of timelines takes. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import yargs, { type Argv } from 'yargs'
import { command } from '../bin/command-simulate.ts'
import { scenarioJsonSchema } from '../encode/scenario-schema.ts'
import { ROOT } from './support/images.ts'

interface Schema {
  readonly description?: string
  readonly $ref?: string
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
}

const schema: Schema & { readonly $defs: Readonly<Record<string, Schema>> } = JSON.parse(
  JSON.stringify(scenarioJsonSchema()),
)
/** Keys of every step, whatever it does. */
const COMMON = ['title', 'expect', 'only', 'repeat']

/** The keys of the first maps inside of a shape; a group's steps are no keys. */
function keysOf({ $ref, properties, items, anyOf = [] }: Schema): readonly string[] {
  const name = $ref?.slice('#/$defs/'.length)
  if (name !== undefined) return name === 'step' ? [] : keysOf(schema.$defs[name] ?? {})
  if (properties) return Object.keys(properties)
  if (items) return keysOf(items)
  return [...new Set(anyOf.flatMap(keysOf))]
}

const text = readFileSync(`${ROOT}docs/timelines.md`, 'utf8')

test('lists every option of the command', () => {
  const options = command.options(yargs().help(false).version(false) as Argv) as unknown as {
    getOptions(): { readonly key: Readonly<Record<string, unknown>> }
  }
  const names = Object.keys(options.getOptions().key).filter(
    (name) => /^[a-z-]+$/.test(name) && name !== 'scenario',
  )
  const [, rows = ''] = text.split(/^\| option \| .*\n\| --- .*\n/m)
  const shown = [...(rows.split('\n\n')[0] ?? '').matchAll(/^\| `--([a-z-]+)/gm)].map(([, name]) => name)
  expect(shown.sort()).toEqual(names.sort())
})

test('lists every step and key with what the schema says of it, and no other', () => {
  const step = schema.$defs.step?.anyOf?.find(({ properties }) => properties)
  const rows = Object.entries(step?.properties ?? {}).map(([name, shape]) => {
    const said = `| \`${name}\` | ${shape.description} |`
    if (COMMON.includes(name)) return said
    const keys = keysOf(shape).map((key) => `\`${key}\``)
    return `${said} ${keys.join(', ')} |`
  })
  const [, , steps = '', besides = ''] = text.split(/^\| (?:step|option|key) \| .*\n\| --- .*\n/m)
  const shown = `${steps}${besides}`.split('\n').filter((line) => line.startsWith('| `'))
  expect(rows.length).toBeGreaterThan(25)
  expect([...shown].sort()).toEqual([...rows].sort())
})
