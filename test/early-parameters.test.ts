/** What kernels say of their early parameters: as real ones did in boots with good and odd values. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parseCommandLine } from '../abi/command-line.ts'
import { EARLY, earlyLines, parseBool, parseScratchSizes } from '../abi/early-parameters.ts'
import { parseAddress, phys } from '../abi/memory.ts'
import { releaseByName } from '../abi/registry.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { kernelOfRelease } from '../inspect/target-kernel.ts'
import { validate } from '../inspect/validate.ts'
import { capturedConsole, LAB_CMDLINE, releaseOf } from './support/captured.ts'
import { expectedOf, openReal, ROOT, realImages } from './support/images.ts'

interface Boots {
  readonly name: string
  readonly cmdlines: readonly string[]
  readonly console: readonly string[]
}

const SIZES = /^KHO: scratch (areas|scale)/
const MALFORMED = /^Malformed/
const isEarly = (line: string): boolean => SIZES.test(line) || MALFORMED.test(line)

describe.each(['linux-6.19', 'linux-7.3'])('%s', (release) => {
  const file = `${ROOT}fixtures/behaviour/command-lines-${release}.json`
  const { boots }: { readonly boots: readonly Boots[] } = JSON.parse(readFileSync(file, 'utf8'))

  test.each(boots)('$name: a line for each early parameter that is refused, and for sizes', (recorded) => {
    const said = recorded.cmdlines.flatMap((line) =>
      earlyLines(parseCommandLine(line), [EARLY.kho, EARLY.liveupdate], release),
    )
    const malformed = said.flatMap(([id, spelling]) => (id === 'EARLY_PARAMETER' ? [spelling] : []))
    const real = recorded.console.filter(isEarly)
    expect(said).toHaveLength(real.length)
    expect(malformed.map((name) => `Malformed early option '${name}'`)).toEqual(
      real.filter((line) => MALFORMED.test(line)),
    )
  })
})

test('the spelling of a name is kept, its hyphens are underscores', () => {
  const parameters = parseCommandLine('kho-scratch=1 kho_scratch --  kho=maybe')
  expect(earlyLines(parameters, [EARLY.kho], 'linux-7.3')).toEqual([
    ['EARLY_PARAMETER', 'kho-scratch'],
    ['EARLY_PARAMETER', 'kho_scratch'],
  ])
})

test.each([
  ['16M,0,0', undefined, { lowmem: 1n << 24n, global: 0n, pernode: 0n }],
  ['16M,1M,1M,', { lowmem: 1n << 24n, global: 1n << 20n, pernode: 1n << 20n }, undefined],
  ['0,0,0', undefined, undefined],
  ['200%', { scale: 200n }, { scale: 200n }],
  ['4294967296%', undefined, undefined],
] as const)('kho_scratch=%s: up to 6.18, and from 6.19 on', (text, before, since) => {
  expect(parseScratchSizes(text, 'linux-6.18')).toEqual(before)
  expect(parseScratchSizes(text, 'linux-6.19')).toEqual(since)
})

test.each([
  ['enable', true],
  ['On', true],
  ['1', true],
  ['disable', false],
  ['OFF', false],
  ['o', undefined],
  ['', undefined],
] as const)('%s as a switch', (text, value) => {
  expect(parseBool(text)).toBe(value)
})

const withConsole = realImages.filter((image) => !image.includes('arm64'))

test.each(withConsole)(
  '%s: the validator foresees the lines in the places of the real console',
  async (image) => {
    const release = releaseByName(releaseOf(image))
    const fdt = parseAddress(expectedOf(image).kho.fdt)
    if (!release || fdt === undefined) throw new Error(`${image} cannot be judged`)
    const handover = decodeHandover(await openReal(image), phys(fdt), {})
    const options = { kernel: kernelOfRelease(release), commandLine: LAB_CMDLINE }
    const foreseen = validate(handover, options).console
    const real = capturedConsole(image)
    const early = real.filter(isEarly)
    expect(early).toHaveLength(1)
    expect(foreseen.filter(isEarly)).toEqual(early)
    expect(foreseen).toEqual(real.filter((line) => foreseen.includes(line)))

    const odd = validate(handover, { ...options, commandLine: 'kho=maybe' }).console
    expect(odd.filter(isEarly)).toEqual(["Malformed early option 'kho'"])
  },
)
