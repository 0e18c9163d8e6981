/** Every decoded structure knows its bytes: spans cover each region exactly, hex dumps name every row. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { gunzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { regionsIn } from '../inspect/regions.ts'
import { childrenOf, type Node } from '../inspect/tree.ts'
import { ran } from './support/command-line.ts'
import { decodeReal, realImages, realPath } from './support/images.ts'

describe.each(realImages)('%s', (name) => {
  test('the spans of every region cover it without overlap or hole', async () => {
    const handover = await decodeReal(name)
    const regions = regionsIn(handover, 0n, 1n << 64n)
    expect(regions.length).toBeGreaterThan(10)
    const wrong: string[] = []
    for (const region of regions) {
      let at: bigint = region.pa
      for (const { path, pa, length } of region.spans()) {
        if (pa !== at) wrong.push(`${region.title}: ${path} starts at ${pa}, not at ${at}`)
        if (length <= 0) wrong.push(`${region.title}: ${path} has ${length} bytes`)
        at += BigInt(length)
      }
      const end = region.pa + BigInt(region.length)
      if (at !== end) wrong.push(`${region.title}: its spans end at ${at}, not at ${end}`)
    }
    expect(wrong).toEqual([])
  })

  test('every stored value of the tree lies in a region, under a span that starts there', async () => {
    const handover = await decodeReal(name)
    const starts = new Set(
      regionsIn(handover, 0n, 1n << 64n).flatMap(({ spans }) => spans().map(({ pa }) => pa)),
    )
    const outside: string[] = []
    const visit = (node: Node): void => {
      if (node.kind === 'value' && !starts.has(node.pa)) outside.push(`${String(node.segment)} at ${node.pa}`)
      for (const inner of childrenOf(node)) visit(inner)
    }
    visit(handover.tree)
    expect(outside).toEqual([])
  })
})

const image = realPath('linux-7.3-x86_64-basic')

test.each([
  ['memfd-record', 'luo.sessions[vm-alpha].files[0x1].memfd'],
  ['session-block', 'luo.sessions'],
  ['root-fdt', 'kho'],
  ['kexec-metadata', 'kexec_metadata'],
  ['radix-leaf', '0x1ebe000'],
  ['folio-array', '0x1edf000'],
  ['vmalloc-chunk', '0x1ee0000'],
])('hex of the %s names every byte', async (title, place) => {
  const { stdout, stderr, status } = await ran(['hex', image, place])
  expect(stderr).toBe('')
  expect(status).toBe(0)
  await expect(stdout).toMatchFileSnapshot(`expected/hex/${title}.txt`)
})

test('each row says where its bytes are in the image file', async () => {
  const directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
  const path = `${directory}/image.elf`
  const elf = gunzipSync(readFileSync(image))
  writeFileSync(path, elf)
  const { stdout } = await ran(['hex', path, 'luo.sessions[vm-alpha].files[0x1].memfd'])
  rmSync(directory, { recursive: true })
  const rows = stdout.split('\n').filter((line) => line.startsWith('0x'))
  expect(rows).toHaveLength(3)
  for (const row of rows) {
    const [, offset, ...bytes] = row.split(/\s+/).slice(0, 18)
    const at = Number((offset as string).slice(1))
    expect(bytes.join('')).toBe(elf.subarray(at, at + 16).toString('hex'))
  }
})

test('a missing page is shown as missing, not as zeros', async () => {
  const { stdout } = await ran(['hex', image, '0x1000', '16'])
  expect(stdout).toBe('0x0000000000001000  16 bytes missing: no memory there in the image\n')
})

test('addresses above 2^53 stay exact', async () => {
  const { stdout } = await ran(['hex', image, '0xffffffffffffff01', '3'])
  expect(stdout).toBe('0xffffffffffffff01  3 bytes missing: no memory there in the image\n')
})
