/**
 * The corrupted corpus: every recipe in fixtures/corrupt changes a captured image in one way, and the
 * decoder says exactly what is wrong with it, keeps the rest, and prints it without harm.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { sequential, writeLime } from '../encode/image.ts'
import { type DecodeOptions, decodeHandover, type Handover } from '../inspect/decode.ts'
import type { Image } from '../inspect/image.ts'
import { noPaint } from '../inspect/paint.ts'
import { handoverToJson, jsonText } from '../inspect/render-json.ts'
import { renderFaults, renderText } from '../inspect/render-text.ts'
import { findNode } from '../inspect/tree.ts'
import { decodeReal, expectedOf, kho, openReal, realImages } from './support/images.ts'
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

describe('the command on images with missing pages', () => {
  const recipes = cases.find(({ cause }) => cause === 'missing-page')?.recipes ?? []
  const wanted = ['the root of the map', 'the page of LUO', 'the page of a folio array']
  test.each(recipes.filter(({ title }) => wanted.includes(title)))(
    '$title, in $base: it dumps the rest and succeeds',
    ({ base, recipe }) => {
      const directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
      try {
        const path = `${directory}/image.lime`
        writeFileSync(path, Buffer.concat([...sequential(writeLime(changed(base, recipe)))]))
        const { status, stdout, stderr } = kho(['dump', path, '--json'])
        expect([status, stderr]).toEqual([0, ''])
        const [fault, ...others] = JSON.parse(stdout).faults
        expect(others).toEqual([])
        expect(fault).toMatchObject({ code: 'MEMORY_HOLE', path: recipe.warns?.[0]?.path })
      } finally {
        rmSync(directory, { recursive: true })
      }
    },
  )
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
