/**
 * The corrupted corpus: every recipe in fixtures/corrupt changes a captured image in one way, and the
 * decoder says exactly what is wrong with it, keeps the rest, and prints it without harm.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { phys } from '../abi/memory.ts'
import { sequential, writeLime } from '../encode/image.ts'
import { type DecodeOptions, decodeHandover, type Handover } from '../inspect/decode.ts'
import type { Image } from '../inspect/image.ts'
import { noPaint } from '../inspect/paint.ts'
import { handoverToJson, jsonText } from '../inspect/render-json.ts'
import { renderFaults, renderText } from '../inspect/render-text.ts'
import { findNode } from '../inspect/tree.ts'
import { ran } from './support/command-line.ts'
import { decodeReal, expectedOf, openReal, type Run, realImages } from './support/images.ts'
import { PatchedMemory } from './support/patched.ts'
import { applyChanges, causesOf, expectedCauses, type Recipe, readRecipes } from './support/recipes.ts'
import { harmfulCharacters } from './support/terminal-text.ts'

interface Base {
  readonly image: Image
  readonly handover: Handover
}

const bases = new Map<string, Base>()
for (const name of realImages) {
  bases.set(name, { image: await openReal(name), handover: await decodeReal(name) })
}

/** The root FDT's address in a captured image. */
const rootOf = (name: string) => phys(BigInt(expectedOf(name).kho.fdt))

function changed(name: string, { patch }: Pick<Recipe, 'patch'>): PatchedMemory {
  const { image, handover } = bases.get(name) as Base
  const memory = new PatchedMemory(image)
  applyChanges(memory, handover, patch)
  return memory
}

function optionsOf(name: string, { scratch }: Recipe): DecodeOptions {
  if (!scratch) return {}
  const boot = { fdt_addr: rootOf(name), fdt_size: 4096n }
  return { boot: { ...boot, scratch_addr: BigInt(scratch.addr), scratch_size: BigInt(scratch.size) } }
}

const isThere = (handover: Handover, path: string): boolean => 'node' in findNode(handover.tree, path)

/** Everything that is printed of a handover; nothing of it throws or reaches a terminal raw. */
function printed(handover: Handover): { readonly text: string; readonly json: string } {
  const tree = renderText(handover, { paint: noPaint, extents: false })
  const text = [tree, ...renderFaults(handover.faults, noPaint)].join('\n')
  return { text, json: [...jsonText(handoverToJson(handover, { folios: false }))].join('') }
}

const cases = readRecipes().map(({ cause, file }) => ({
  cause,
  recipes: file.recipes.flatMap((recipe) =>
    recipe.bases.map((base) => ({ title: recipe.title, base, recipe })),
  ),
}))

describe.each(cases)('$cause', ({ recipes }) => {
  test.each(recipes)('$title, in $base', ({ base, recipe }) => {
    const handover = decodeHandover(changed(base, recipe), rootOf(base), optionsOf(base, recipe))
    expect(causesOf(handover, 'error')).toEqual(expectedCauses(recipe.expect))
    expect(causesOf(handover, 'warning')).toEqual(expectedCauses(recipe.warns))
    if (recipe.notes) expect(causesOf(handover, 'note')).toEqual(expectedCauses(recipe.notes))
    expect(recipe.keeps?.filter((path) => !isThere(handover, path)) ?? []).toEqual([])
    expect(recipe.loses?.filter((path) => isThere(handover, path)) ?? []).toEqual([])
    const { text, json } = printed(handover)
    expect(harmfulCharacters(text)).toEqual([])
    expect(harmfulCharacters(json)).toEqual([])
    const { faults }: { faults: readonly Record<string, string>[] } = JSON.parse(json)
    expect(faults.filter((fault) => !(fault.code && fault.message && /^0x/.test(fault.phys ?? '')))).toEqual(
      [],
    )
  })
})

/** Runs the command on a changed image, as a LiME file. */
async function ranOn(memory: PatchedMemory, args: (path: string) => readonly string[]): Promise<Run> {
  const directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
  try {
    const path = `${directory}/image.lime`
    writeFileSync(path, Buffer.concat([...sequential(writeLime(memory))]))
    return await ran(args(path))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const recipesOf = (wanted: string) => cases.find(({ cause }) => cause === wanted)?.recipes ?? []

describe('the command on images with missing pages', () => {
  const wanted = ['the root of the map', 'the page of LUO', 'the page of a folio array']
  const recipes = recipesOf('missing-page').filter(({ title }) => wanted.includes(title))
  test.each(recipes)('$title, in $base: it dumps the rest and succeeds', async ({ base, recipe }) => {
    const { status, stdout, stderr } = await ranOn(changed(base, recipe), (path) => ['dump', path, '--json'])
    expect([status, stderr]).toEqual([0, ''])
    const [fault, ...others] = JSON.parse(stdout).faults
    expect(others).toEqual([])
    expect(fault).toMatchObject({ code: 'MEMORY_HOLE', path: recipe.warns?.[0]?.path })
  })
})

describe('a name of escape sequences', () => {
  const named = recipesOf('session-name').find(({ title }) => title === 'escape sequences')
  const memory = named && changed(named.base, named.recipe)
  const name = '\x1b[2J\x1b]0;x\x07\x90\x9b3m\x7f\r\n'
  const quotedName = '"\\u001b[2J\\u001b]0;x\\u0007\\x90\u009b3m\x7f\\r\\n"'
  test.each([
    ['dump'],
    ['dump', '--json'],
    ['dump', '--yaml'],
    ['dump', '--only', 'luo.sessions[0]'],
    ['dump', '--only', `luo.sessions[${quotedName}].nothing`],
    ['hex', 'luo.sessions'],
    ['hex', '0x1edc000', '0x1000'],
  ])('never reaches the terminal: %s %s %s', async (command, ...args) => {
    const { stdout, stderr } = await ranOn(memory as PatchedMemory, (path) => [command, path, ...args])
    expect(harmfulCharacters(stdout + stderr)).toEqual([])
    expect(stdout + stderr).toMatch(/2J/)
  })

  test('is the same in JSON and YAML once they are read', async () => {
    const run = async (form: string) =>
      (await ranOn(memory as PatchedMemory, (path) => ['dump', path, form])).stdout
    const names = [JSON.parse(await run('--json')), parse(await run('--yaml'))].map(
      (read) => read.luo.sessions[0].name,
    )
    expect(names).toEqual([name.replace('\x90', '\\x90'), name.replace('\x90', '\\x90')])
  })
})

test('harmful characters are found where they are', () => {
  expect(harmfulCharacters('a\tb\x1b[0m\x7f\x9b\u202e\u2028\n')).toEqual([
    'U+9',
    'U+1b',
    'U+7f',
    'U+9b',
    'U+202e',
    'U+2028',
  ])
})
