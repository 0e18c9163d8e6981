/**
 * KHO's own part of a verdict: that nothing the decoder finds gets lost on the way to a finding, which
 * kernel judges, and what hostile trees cost. What real kernels did is held against in measured.test.ts.
 */
import { describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { releases } from '../abi/registry.ts'
import { type DecodeOptions, decodeHandover } from '../inspect/decode.ts'
import { isWithin } from '../inspect/fault-pool.ts'
import { kernelOfRelease, parseTargetKernel } from '../inspect/target-kernel.ts'
import { ownKernel, validate, validateForAll } from '../inspect/validate.ts'
import { decodeReal, expectedOf, openReal, realImages } from './support/images.ts'
import { PatchedMemory } from './support/patched.ts'
import { applyChanges, type Recipe, readRecipes } from './support/recipes.ts'

const BASE = 'linux-7.3-arm64-4k-basic'
const boot = { fdt_addr: 0x40959000n, fdt_size: 4096n, scratch_addr: 0x5eff0000n, scratch_size: 48n }
const image = await openReal(BASE)

/** The record that holds a field: what is wrong with one may be said of the other. */
const holderOf = (path: string): string => path.replace(/\.folios$/, '')

describe('what the decoder finds', () => {
  const recipes = readRecipes().flatMap(({ cause, file }) =>
    file.recipes.flatMap((recipe) =>
      recipe.bases.map((base) => ({ cause, base, title: recipe.title, recipe })),
    ),
  )

  function decodeOptions(base: string, { scratch }: Recipe): DecodeOptions {
    if (!scratch) return {}
    const fdt_addr = BigInt(expectedOf(base).kho.fdt)
    return {
      boot: {
        fdt_addr,
        fdt_size: 4096n,
        scratch_addr: BigInt(scratch.addr),
        scratch_size: BigInt(scratch.size),
      },
    }
  }

  test.each(recipes)('$cause: $title, in $base', async ({ base, recipe }) => {
    const right = await decodeReal(base)
    const memory = new PatchedMemory(right.memory)
    applyChanges(memory, right, recipe.patch)
    const decode = decodeOptions(base, recipe)
    const handover = decodeHandover(memory, phys(BigInt(expectedOf(base).kho.fdt)), decode)
    const verdict = validate(handover, { decode, kernel: ownKernel(right) })
    const told = verdict.findings.filter(({ severity }) => severity !== 'note')
    const errors = handover.faults.filter(({ severity }) => severity === 'error')
    const untold = errors.filter(
      (fault) =>
        !told.some(
          ({ path, pa }) =>
            pa === fault.pa || isWithin(path, holderOf(fault.path)) || isWithin(fault.path, path),
        ),
    )
    if (verdict.outcome === 'no-handover') expect(told).not.toEqual([])
    else expect(untold.map(({ code, path }) => `${code} ${path}`)).toEqual([])
  })
})

describe('the kernel that judges', () => {
  test.each(realImages)('%s is judged for the release that it is from', async (name) => {
    const { release } = ownKernel(await decodeReal(name))
    expect(name).toContain(release.name)
  })

  test('another string ends the matter, another form under the same string corrupts', async () => {
    const outcomes = async (name: string) =>
      Object.fromEntries(
        validateForAll(await decodeReal(name)).map(({ kernel, outcome }) => [kernel.name, outcome]),
      )
    const none = Object.fromEntries(releases.map(({ name }) => [name, 'no-handover']))
    expect(await outcomes('linux-7.3-x86_64-basic')).toEqual({
      ...none,
      'linux-7.2': 'takes-over',
      'linux-7.3': 'takes-over',
    })
    expect(await outcomes('linux-6.17-x86_64-basic')).toMatchObject({
      'linux-6.16': 'takes-over',
      'linux-6.17': 'takes-over',
      'linux-6.17.9': 'corrupts',
      'linux-6.18': 'corrupts',
      'linux-7.1': 'no-handover',
    })
  })

  test('of an image that is not taken nothing else is judged', async () => {
    const verdict = validate(await decodeReal('linux-7.1-x86_64-basic'), {
      kernel: kernelOfRelease(releases.at(-1) as (typeof releases)[number]),
    })
    expect(verdict.findings.map(({ rule }) => rule)).toEqual(['KHO_COMPATIBLE'])
    expect(new Set(verdict.parts.map(({ outcome }) => outcome))).toEqual(new Set(['no-handover']))
    expect(verdict.console).toEqual([
      "KHO: setup: handover FDT (0x491000) is incompatible with 'kho-v4': 1",
      'KHO: disabling KHO revival',
    ])
  })

  test.each([
    ['linux-7.3', 'linux-7.3', 'memfd-v2'],
    ['7.1.13', 'linux-7.1', 'memfd-v2'],
    ['kho-v4,luo-v5,memfd-v2', 'linux-7.3', 'memfd-v2'],
    ['kho-v1/bitmap-page,luo-v1,memfd-v1', 'linux-6.19', 'memfd-v1'],
  ])('%s has the readers of %s', (text, release, handler) => {
    const kernel = parseTargetKernel(text)
    expect(kernel?.release.name).toBe(release)
    expect(kernel?.fileHandlers).toEqual([handler])
  })

  test.each(['', 'linux-9.9', 'kho-v9', 'luo-v5', 'kho-v4,kho-v3', 'kho-v4;luo-v5'])(
    "'%s' is no kernel",
    (text) => {
      expect(parseTargetKernel(text)).toBeUndefined()
    },
  )
})

/** Entries of a page of the tree, and bits that make as many runs as there can be. */
function filled(memory: PatchedMemory, page: bigint, word: bigint): void {
  for (let at = 0n; at < 4096n; at += 8n) memory.writeU64(page + at, word)
}

test.each([
  ['every entry of the root leads back to it', [[0x40958000n, 0x40958000n]]],
  [
    'every entry of a node leads to one leaf, every second bit of which is set',
    [
      [0x4095d000n, 0x4095e000n],
      [0x4095e000n, 0x5555555555555555n],
    ],
  ],
] as const)(
  'a tree that is hostile costs seconds at most: %s',
  (_what, pages) => {
    const memory = new PatchedMemory(image)
    for (const [page, word] of pages) filled(memory, page, word)
    const { outcome } = validate(decodeHandover(memory, phys(boot.fdt_addr), { boot }), { decode: { boot } })
    expect(outcome).toBe('corrupts')
  },
  10_000,
)
