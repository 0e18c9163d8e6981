/** FDTs that we build against libfdt's own bytes, real kernels' FDTs, and the tools that read FDTs. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { FdtStyle } from '../abi/schema.ts'
import { buildFdt } from '../encode/fdt.ts'
import type { FdtTree } from '../encode/handover.ts'
import { REAL_IMAGES, RealImage } from './support/elf-core.ts'
import { readFdt } from './support/fdt-reader.ts'

interface HexTree {
  readonly name: string
  readonly properties: readonly { readonly name: string; readonly value: string }[]
  readonly children: readonly HexTree[]
}

interface LibfdtCase {
  readonly style: FdtStyle
  readonly size: number
  readonly tree: HexTree
  readonly buffer: string | null
}

function fromHex({ name, properties, children }: HexTree): FdtTree {
  return {
    name,
    properties: properties.map((property) => ({
      name: property.name,
      value: Uint8Array.from(Buffer.from(property.value, 'hex')),
    })),
    children: children.map(fromHex),
  }
}

const hexOf = (bytes: Uint8Array | undefined): string | undefined =>
  bytes && Buffer.from(bytes).toString('hex')

const cases: readonly LibfdtCase[] = JSON.parse(
  readFileSync(new URL('../fixtures/fdt/libfdt.json', import.meta.url), 'utf8'),
)

describe('libfdt', () => {
  test.each(cases.map((one, index) => ({ ...one, index })))(
    'case $index, $style in $size bytes, to the last byte',
    ({ style, size, tree, buffer }) => {
      const built = buildFdt(fromHex(tree), style, size)
      expect(hexOf(built?.buffer)).toBe(
        buffer === null ? undefined : Buffer.from(buffer, 'base64').toString('hex'),
      )
    },
  )
})

/** Capacities that were measured with libfdt, WIRE-FORMAT 2.4. */
describe('room in one page', () => {
  const value = new Uint8Array(8)
  const rootOf = (
    compatible: string,
    properties: readonly string[],
    nodes: number,
    length: number,
  ): FdtTree => ({
    name: '',
    properties: [
      { name: 'compatible', value: new TextEncoder().encode(`${compatible}\0`) },
      { name: 'preserved-memory-map', value },
    ],
    children: Array.from({ length: nodes }, (_, index) => ({
      name: index.toString(36).padStart(length, 'n'),
      properties: properties.map((name) => ({ name, value })),
      children: [],
    })),
  })
  const sized = ['blob-size', 'preserved-data']
  test.each([
    ['kho-v1', ['fdt'], 3, 4096, 123],
    ['kho-v1', ['fdt'], 3, 16384, 507],
    ['kho-v1', ['fdt'], 15, 65536, 1486],
    ['kho-v4', sized, 3, 4096, 75],
    ['kho-v4', sized, 15, 16384, 253],
    ['kho-v3', sized, 3, 16384, 311],
  ])('%s with %s: names of %i in %i bytes, %i nodes', (compatible, properties, length, size, nodes) => {
    expect(buildFdt(rootOf(compatible, properties, nodes, length), 'edited', size)).toBeDefined()
    expect(buildFdt(rootOf(compatible, properties, nodes + 1, length), 'edited', size)).toBeUndefined()
  })
})

describe.each(REAL_IMAGES)('FDTs of %s', (name) => {
  const image = new RealImage(name)
  const root = BigInt(image.expected.kho.fdt)
  const style: FdtStyle = name.startsWith('linux-6.17') ? 'sequential' : 'edited'

  test('the root FDT, its whole page', () => {
    const page = image.bytes(root, 4096)
    expect(hexOf(buildFdt(readFdt(page).tree, style, 4096)?.buffer)).toBe(hexOf(page))
  })

  const blobs = image.expected.subtrees as readonly { name: string; phys: string }[]
  const pageOf = (blob: string): Uint8Array =>
    image.bytes(BigInt(blobs.find((one) => one.name === blob)?.phys as string), 4096)
  const isFdt = (blob: string): boolean => hexOf(pageOf(blob).subarray(0, 4)) === 'd00dfeed'

  test.each(['memblock', ...blobs.map((blob) => blob.name).filter((blob) => blob === 'LUO' && isFdt(blob))])(
    'sub-FDT %s, its whole page',
    (blob) => {
      const page = pageOf(blob)
      expect(hexOf(buildFdt(readFdt(page).tree, 'sequential', 4096)?.buffer)).toBe(hexOf(page))
    },
  )

  test('sub-FDT kho_test, whose buffer has 8 bytes a folio more than a page', () => {
    const page = pageOf('kho_test')
    const { tree } = readFdt(page)
    const data = tree.children[0]?.properties.find((property) => property.name === 'nr_folios')
      ?.value as Uint8Array
    const folios = new DataView(data.buffer).getUint32(0, true)
    const built = buildFdt(tree, 'sequential', 4096 + 8 * folios)
    expect(hexOf(built?.buffer.subarray(0, 4096))).toBe(hexOf(page))
  })
})

const dtc = spawnSync('dtc', ['--version'])
if (dtc.error)
  process.stderr.write('device-tree-compiler is not installed: dtc and fdtdump do not check our FDTs\n')

describe.runIf(!dtc.error)('Debian device-tree-compiler', () => {
  test('dtc and fdtdump read every FDT that we build', () => {
    const folder = mkdtempSync(join(tmpdir(), 'kho-fdt-'))
    try {
      for (const [index, { style, size, tree, buffer }] of cases.entries()) {
        if (buffer === null) continue
        const built = buildFdt(fromHex(tree), style, size)
        const file = join(folder, `${index}.dtb`)
        writeFileSync(file, built?.buffer.subarray(0, built.totalsize) as Uint8Array)
        for (const [command, ...options] of [['dtc', '-q', '-I', 'dtb', '-O', 'dts'], ['fdtdump']]) {
          const { status, stdout } = spawnSync(command as string, [...options, file], { encoding: 'utf8' })
          expect([command, index, status]).toEqual([command, index, 0])
          for (const child of tree.children)
            expect(stdout.split(/[\s{]+/)).toEqual(expect.arrayContaining([child.name]))
        }
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
