/** `validate --sarif`: a log that fits the schema of SARIF 2.1.0 and says what the other formats say. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ran } from './support/command-line.ts'
import { ROOT, realImages, realPath } from './support/images.ts'
import { type Schema, schemaProblems } from './support/json-schema.ts'

const schema: Schema = JSON.parse(readFileSync(`${ROOT}fixtures/sarif/sarif-2.1.0-rtm.5.json`, 'utf8'))

interface Result {
  readonly ruleId: string
  readonly ruleIndex: number
  readonly level: string
  readonly locations: readonly {
    readonly physicalLocation: {
      readonly artifactLocation: { readonly uri: string }
      readonly region?: { readonly byteOffset: number; readonly byteLength: number }
      readonly address: { readonly absoluteAddress: number }
    }
    readonly logicalLocations: readonly { readonly fullyQualifiedName: string }[]
  }[]
  readonly relatedLocations?: readonly unknown[]
  readonly fingerprints: Readonly<Record<string, string>>
}

interface Log {
  readonly runs: readonly [
    {
      readonly tool: { readonly driver: { readonly rules: readonly { readonly id: string }[] } }
      readonly results: readonly Result[]
    },
  ]
}

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-sarif-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

async function logOf(args: readonly string[]): Promise<Log> {
  return JSON.parse((await ran(['validate', ...args, '--sarif'])).stdout)
}

describe.each(realImages)('%s', (name) => {
  test('as it is', async () => {
    expect(schemaProblems(schema, await logOf([realPath(name)]))).toEqual([])
  })

  test('for a kernel that refuses it', async () => {
    const log = await logOf([realPath(name), '--as', name.includes('7.3') ? 'linux-7.1' : 'linux-7.3'])
    expect(schemaProblems(schema, log)).toEqual([])
    expect(log.runs[0].results.map(({ ruleId, level }) => [ruleId, level])).toContainEqual([
      'KHO_COMPATIBLE',
      'error',
    ])
  })
})

test('a broken image: the same findings as in JSON, at the same bytes', async () => {
  const path = `${directory}/bad image.elf`
  await ran(['mutate', realPath('linux-7.3-x86_64-basic'), '--fault', 'root-compatible-unknown', '-o', path])
  const log = await logOf([path])
  expect(schemaProblems(schema, log)).toEqual([])
  const { findings } = JSON.parse((await ran(['validate', path, '--json'])).stdout)
  const [{ tool, results }] = log.runs
  expect(
    results.map(({ ruleId, level, locations: [location] }) => ({
      rule: ruleId,
      severity: level,
      path: location?.logicalLocations[0]?.fullyQualifiedName,
      phys: `0x${location?.physicalLocation.address.absoluteAddress.toString(16)}`,
      image_offset: location?.physicalLocation.region?.byteOffset,
      length: location?.physicalLocation.region?.byteLength,
    })),
  ).toEqual(
    findings.map(({ rule, severity, path, phys, image_offset, length }: Record<string, unknown>) => ({
      rule,
      severity,
      path,
      phys,
      image_offset,
      length,
    })),
  )
  for (const { ruleId, ruleIndex, locations, fingerprints } of results) {
    expect(tool.driver.rules[ruleIndex]?.id).toBe(ruleId)
    expect(locations[0]?.physicalLocation.artifactLocation.uri).toBe(`file://${encodeURI(path)}`)
    expect(Object.values(fingerprints)).toHaveLength(1)
  }
  const [{ locations }] = results as [Result]
  const { byteOffset = 0, byteLength } = locations[0]?.physicalLocation.region ?? {}
  expect(byteLength).toBe(7)
  expect(readFileSync(path).toString('latin1', byteOffset, byteOffset + 6)).toBe('kho-v9')
})

test('what does not fit the schema is seen', async () => {
  const log = await logOf([realPath('linux-7.3-x86_64-basic'), '--as', 'linux-7.1'])
  const [result] = log.runs[0].results
  const withResult = (changed: object): unknown => ({
    ...log,
    runs: [{ ...log.runs[0], results: [{ ...result, ...changed }] }],
  })
  expect(schemaProblems(schema, withResult({ level: 'fatal' }))).toHaveLength(1)
  expect(schemaProblems(schema, withResult({ message: {} }))).toHaveLength(1)
  expect(schemaProblems(schema, withResult({ ruleIndex: -2 }))).toHaveLength(1)
  expect(schemaProblems(schema, withResult({ locations: [{ physicalLocation: {} }] }))).toHaveLength(1)
  expect(schemaProblems(schema, withResult({ unknown: 1 }))).toHaveLength(1)
  expect(schemaProblems(schema, { ...log, version: '2.0.0' })).toHaveLength(1)
  expect(schemaProblems(schema, { version: '2.1.0' })).toEqual(['$: no runs'])
})

test('the result in docs/validate.md is that of the run above it', async () => {
  const text = readFileSync(`${ROOT}docs/validate.md`, 'utf8')
  const [, command] = /^\$ kho-inspect (validate .*) --json$/m.exec(text) ?? []
  const [, shown] = /^```json\n([\s\S]*?)^```$/m.exec(text) ?? []
  const log: Log = JSON.parse((await ran([...(command as string).split(' '), '--sarif'])).stdout)
  expect(log.runs[0].results).toEqual([JSON.parse(shown as string)])
})
