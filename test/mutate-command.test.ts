/** `kho-inspect mutate` as a user meets it: images that differ from the right one where they should. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { openImage } from '../inspect/image.ts'
import { faults } from '../mutate/catalogue.ts'
import { ran } from './support/command-line.ts'
import { openReal, ROOT, type Run, realPath } from './support/images.ts'

const NAME = 'linux-7.3-arm64-4k-basic'
const image = realPath(NAME)
const FAULT = 'root-compatible-unknown'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-mutate-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

function mutate(file: string, from = image): Promise<Run> {
  return ran(['mutate', from, '--fault', FAULT, '-o', `${directory}/${file}`])
}

describe('formats', () => {
  /** Flat files start at 0 with a hole of a gigabyte, through which nobody has to search. */
  const flat = ['--fdt', '0x40959000']
  test.each([
    ['bad.elf', []],
    ['bad.raw', flat],
    ['bad.lime', []],
    ['bad.kdump', []],
    ['no-extension', flat],
  ])('%s', async (file, where) => {
    const { status, stdout, stderr } = await mutate(file)
    expect([status, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(
      /: root-compatible-unknown, 7 bytes at 0x[0-9a-f]+; root FDT 0x40959000; breaks KHO_COMPATIBLE\n$/,
    )
    const { findings } = JSON.parse(
      (await ran(['validate', `${directory}/${file}`, ...where, '--json'])).stdout,
    )
    expect(findings.map(({ rule }: { rule: string }) => rule)).toEqual(['KHO_COMPATIBLE'])
  })

  test('the machine stays the same', async () => {
    await mutate('machine.elf')
    const opened = await openImage([{ path: `${directory}/machine.elf` }])
    expect(opened.ok && opened.image.architecture).toBe('arm64')
  })
})

test('nothing but the patch differs', async () => {
  await mutate('differs.elf')
  const [before, after] = [await openReal(NAME), await openImage([{ path: `${directory}/differs.elf` }])]
  if (!after.ok) throw new Error(after.problem)
  const differing: bigint[] = []
  const [left, right] = [Buffer.alloc(4096), Buffer.alloc(4096)]
  for (const { start, end } of before.ranges) {
    for (let pa: bigint = start; pa < end; pa += 4096n) {
      const present = before.read(phys(pa), left)
      expect(after.image.read(phys(pa), right)).toBe(present)
      if (!left.equals(right)) differing.push(pa)
    }
  }
  expect(differing).toEqual([0x40959000n])
})

test.each(['reserve-mem-missing', 'reserve-mem-size-other', 'reserve-mem-not-asked'])(
  '%s names the command line with which it shows',
  async (fault) => {
    const path = `${directory}/${fault}.elf`
    const { stdout } = await ran(['mutate', image, '--fault', fault, '-o', path])
    const told = / breaks (\w+); shows with --cmdline '([^']+)'\n$/.exec(stdout)
    const [, rule = '', cmdline = ''] = told ?? []
    const rulesFound = async (...more: readonly string[]): Promise<readonly string[]> =>
      JSON.parse((await ran(['validate', path, '--json', ...more])).stdout).findings.map(
        (finding: { rule: string }) => finding.rule,
      )
    expect(await rulesFound('--cmdline', cmdline)).toContain(rule)
  },
)

test('the same seed gives the same file, whatever the fault', async () => {
  const [one, two] = ['seed-1.elf', 'seed-2.elf'].map((file) => `${directory}/${file}`) as [string, string]
  for (const path of [one, two]) {
    expect((await ran(['mutate', image, '--fault', FAULT, '-o', path, '--seed', '7'])).status).toBe(0)
  }
  expect(readFileSync(one).equals(readFileSync(two))).toBe(true)
})

test('--list names every fault, as text and JSON', async () => {
  const text = (await ran(['mutate', '--list'])).stdout
  for (const { name, rule } of faults) expect(text).toMatch(new RegExp(`^${name} +${rule} `, 'm'))
  const listed = JSON.parse((await ran(['mutate', '--list', '--json'])).stdout).faults
  expect(listed.map(({ name }: { name: string }) => name)).toEqual(faults.map(({ name }) => name))
})

describe('wrong usage', () => {
  test.each([
    ['no fault', [image, '-o', 'x.elf'], /expected an image, --fault NAME and -o FILE/],
    ['an unknown fault', [image, '--fault', 'no-such', '-o', 'x.elf'], /--fault: no fault 'no-such'/],
    ['no output', [image, '--fault', FAULT], /expected an image/],
    ['no image', ['--fault', FAULT, '-o', 'x.elf'], /expected an image/],
    ['a seed that is no number', [image, '--fault', FAULT, '-o', 'x.elf', '--seed', 'x'], /--seed: expected/],
  ])('%s gives one line and exit code 2', async (_title, args, message) => {
    const { status, stderr } = await ran(['mutate', ...args])
    expect(status).toBe(2)
    expect(stderr).toMatch(/^kho-inspect: [^\n]+\n$/)
    expect(stderr).toMatch(message)
  })

  test.each([
    ['a fault that the release does not know', realPath('linux-6.17-x86_64-basic'), 'map-address-zero'],
    ['a copy of debugfs', `${ROOT}fixtures/real/linux-7.3-x86_64-debugfs`, FAULT],
  ])('%s does not fit: exit code 2, and nothing is written', async (_title, from, fault) => {
    const path = `${directory}/unfit.elf`
    const { status, stderr } = await ran(['mutate', from, '--fault', fault, '-o', path])
    expect(status).toBe(2)
    expect(stderr).toMatch(/^kho-inspect: [^\n]* does not fit this image: [^\n]+\n$/)
    expect(() => readFileSync(path)).toThrow()
  })

  test('an unreadable image gives exit code 3', async () => {
    writeFileSync(`${directory}/text`, 'no image\n')
    expect((await mutate('x.elf', `${directory}/text`)).status).toBe(3)
    const cut = gunzipSync(readFileSync(image)).subarray(0, 300)
    writeFileSync(`${directory}/cut.elf`, cut)
    expect((await mutate('x.elf', `${directory}/cut.elf`)).status).toBe(3)
  })
})
