/**
 * Random damage to the metadata of captured images: whatever it is, decoding and printing end soon,
 * without a throw, with a bounded list of faults, and nothing harmful reaches a terminal.
 *
 * A few hundred runs are part of `npm test`. `npm run fuzz` makes many more: FUZZ_RUNS for each image,
 * and FUZZ_SEED with the seed that a failure prints repeats it.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { type DecodeOptions, decodeHandover, type Handover } from '../inspect/decode.ts'
import { noPaint } from '../inspect/paint.ts'
import { regionsIn } from '../inspect/regions.ts'
import { renderHex } from '../inspect/render-hex.ts'
import { handoverToJson, jsonText } from '../inspect/render-json.ts'
import { renderFaults, renderNode, renderText } from '../inspect/render-text.ts'
import { childrenOf, type Node } from '../inspect/tree.ts'
import { expectedOf, openReal, realImages } from './support/images.ts'
import { PatchedMemory } from './support/patched.ts'
import { harmfulCharacters } from './support/terminal-text.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 50)
const SEED = process.env.FUZZ_SEED === undefined ? {} : { seed: Number(process.env.FUZZ_SEED) }
/** Far above what a run takes, far below what a person waits; of processor time. */
const MAX_SECONDS = 10
/** Faults are listed up to 1000 of a code. */
const MAX_FAULTS = 1001 * 30

/** Where damage hurts: pages that were decoded, and in them the fields. */
interface Targets {
  readonly pages: readonly bigint[]
  readonly fields: readonly { readonly pa: bigint; readonly length: number }[]
}

function targetsOf(handover: Handover): Targets {
  const pages = new Set<bigint>()
  for (const { pa, length } of regionsIn(handover, 0n, 1n << 64n)) {
    for (let at = pa - (pa % 4096n); at < pa + BigInt(length); at += 4096n) pages.add(at)
  }
  const fields: { pa: bigint; length: number }[] = []
  const visit = (node: Node): void => {
    if (node.kind === 'value') fields.push({ pa: node.pa, length: node.length })
    for (const inner of childrenOf(node)) visit(inner)
  }
  visit(handover.tree)
  return { pages: [...pages], fields }
}

type Damage = (memory: PatchedMemory) => void

/** A place in a decoded page or at a field, and what is put there. */
function damageTo({ pages, fields }: Targets): fc.Arbitrary<Damage> {
  const page = fc.constantFrom(...pages)
  const anywhere = fc.tuple(page, fc.nat(4095)).map(([pa, offset]) => pa + BigInt(offset))
  const word = fc.tuple(page, fc.nat(511)).map(([pa, index]) => pa + BigInt(index * 8))
  const field = fc.constantFrom(...fields).map(({ pa }) => pa)
  const value = fc.oneof(
    fc.constantFrom(0n, 1n, 1n << 31n, 1n << 63n, (1n << 64n) - 1n, (1n << 64n) - 4096n),
    fc.tuple(page, fc.constantFrom(0n, 0n, 8n, 16n, -8n)).map(([pa, skew]) => pa + skew),
    fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  )
  const near = fc.bigInt({ min: -4096n, max: 4096n })
  return fc.oneof(
    fc.tuple(anywhere, fc.nat(7)).map(([pa, bit]): Damage => {
      return (memory) => memory.write(pa, Uint8Array.of(byteAt(memory, pa) ^ (1 << bit)))
    }),
    fc.tuple(fc.oneof(word, field, field), value).map(([pa, put]): Damage => {
      return (memory) => memory.writeU64(pa, BigInt.asUintN(64, put))
    }),
    fc.tuple(fc.oneof(word, field), near).map(([pa, by]): Damage => {
      return (memory) => memory.writeU64(pa, BigInt.asUintN(64, wordAt(memory, pa) + by))
    }),
    fc
      .tuple(fc.oneof(anywhere, field), fc.uint8Array({ minLength: 1, maxLength: 80 }))
      .map(([pa, bytes]): Damage => {
        return (memory) => memory.write(pa, bytes)
      }),
    fc.tuple(page, page).map(([to, from]): Damage => {
      return (memory) => memory.write(to, bytesAt(memory, from, 4096))
    }),
    page.map(
      (pa): Damage =>
        (memory) =>
          memory.remove(pa, 1),
    ),
    page.map((pa): Damage => {
      return (memory) => {
        for (const other of pages) if (other >= pa) memory.remove(other, 1)
      }
    }),
  )
}

function bytesAt(memory: PatchedMemory, pa: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  memory.read(phys(pa), bytes)
  return bytes
}

const byteAt = (memory: PatchedMemory, pa: bigint): number => bytesAt(memory, pa, 1)[0] as number
const wordAt = (memory: PatchedMemory, pa: bigint): bigint =>
  new DataView(bytesAt(memory, pa, 8).buffer).getBigUint64(0, true)

/** Decodes and prints all that can be printed; returns what went to a terminal. */
function decodeAndPrint(
  memory: PatchedMemory,
  root: PhysAddr,
  options: DecodeOptions,
  places: readonly bigint[],
) {
  const handover = decodeHandover(memory, root, options)
  const tree = renderText(handover, { paint: noPaint, extents: false })
  const json = [...jsonText(handoverToJson(handover, { folios: false }))].join('')
  expect(Array.isArray(JSON.parse(json).faults)).toBe(true)
  expect(handover.faults.length).toBeLessThanOrEqual(MAX_FAULTS)
  const shown = [tree, json, ...renderFaults(handover.faults, noPaint)]
  for (const node of handover.tree.children)
    shown.push(renderNode(handover, node, { paint: noPaint, extents: false }))
  for (const place of places) {
    const regions = regionsIn(handover, place, place + 4096n)
    for (const { spans, pa, length } of regions) {
      const sizes = spans().map((span) => span.length)
      expect([pa, sizes.reduce((sum, size) => sum + size, 0)]).toEqual([pa, length])
    }
    const hexOptions = { paint: noPaint, offsets: true, all: false }
    shown.push(...renderHex(memory, regions, phys(place), place + 4096n, hexOptions))
  }
  return shown.join('\n')
}

const options: fc.Arbitrary<DecodeOptions> = fc.oneof(
  fc.constant({}),
  fc.constantFrom<DecodeOptions>({ pageSize: 4096 }, { pageSize: 16384 }, { pageSize: 65536 }),
)

describe.each(realImages)('%s', (name) => {
  test(`survives ${RUNS} kinds of damage`, async () => {
    const image = await openReal(name)
    const root = phys(BigInt(expectedOf(name).kho.fdt))
    const targets = targetsOf(decodeHandover(image, root))
    const damages = fc.array(damageTo(targets), { minLength: 1, maxLength: 6 })
    const places = fc.array(fc.constantFrom(...targets.pages), { minLength: 1, maxLength: 2 })
    fc.assert(
      fc.property(damages, options, places, (made, told, looked) => {
        const memory = new PatchedMemory(image)
        for (const damage of made) damage(memory)
        const before = process.cpuUsage()
        const shown = decodeAndPrint(memory, root, told, looked)
        expect(harmfulCharacters(shown)).toEqual([])
        expect(process.cpuUsage(before).user / 1e6).toBeLessThan(MAX_SECONDS)
      }),
      { numRuns: RUNS, ...SEED },
    )
  })
})
