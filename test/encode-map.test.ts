/** The map of preserved memory: any units come back, in every form and page size; and which units the kernel makes. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PAGE_SIZES, type PageSize } from '../abi/layout.ts'
import type { ReleaseVersions } from '../abi/registry.ts'
import type { Preserved, Subtree } from '../encode/handover.ts'
import { RunTable } from '../encode/runs.ts'
import { splitPages, type UnitTable, unitTable } from '../encode/units.ts'
import { writeHandover } from '../encode/write-handover.ts'
import { REAL_IMAGES, RealImage } from './support/elf-core.ts'
import { readDocument } from './support/handover-reader.ts'
import { luoOnly, machine, readWritten, sourceOf, u64At } from './support/written.ts'

const chunkForms = ['kho-v1/bitmap-512', 'kho-v1/bitmap-page'] as const
const treeForms = ['kho-v2', 'kho-v3/rc', 'kho-v3', 'kho-v4'] as const

/** `order start` of every unit, sorted. */
function listed(table: UnitTable | undefined): readonly string[] {
  const units: string[] = []
  for (const { count, order, start, step } of table ?? []) {
    for (let at = 0; at < count; at++) {
      units.push(`${order} 0x${(start.start + BigInt(at) * BigInt(step.start)).toString(16)}`)
    }
  }
  return units.sort()
}

/** Writes only a root FDT and a map; the root's own page is in the map, too, if it was placed. */
function mapOf(pageSize: PageSize, kho: string, preserved: Preserved) {
  const versions: ReleaseVersions = { kho }
  const document = {
    ...machine(pageSize, versions, []),
    ram: [{ start: 0n, size: 1n << 46n }],
    root: { at: 0x40000000n },
    preserved,
  }
  const written = writeHandover(document)
  return { ...written, read: () => readWritten(document, written).preserved ?? {} }
}

/** Units aligned to their size, anywhere in 64 TiB, alone and in long runs. */
function arbitraryUnits(pageSize: PageSize): fc.Arbitrary<UnitTable> {
  const unit = fc.record({
    order: fc.integer({ min: 0, max: 20 }),
    place: fc.nat({ max: 2 ** 20 }),
    count: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 3000 })),
  })
  return fc.array(unit, { maxLength: 12 }).map((units) => {
    const table: UnitTable = new RunTable(['start'])
    for (const { order, place, count } of units) {
      const bytes = pageSize * 2 ** order
      const number = BigInt(place) % ((1n << 45n) / BigInt(bytes))
      const down = count > 1 && place % 3 === 0
      const first = down ? number + BigInt(count) : number
      table.push({
        count,
        order,
        start: { start: first * BigInt(bytes) },
        step: { start: down ? -bytes : bytes },
      })
    }
    return table
  })
}

describe.each(PAGE_SIZES)('at %i bytes a page', (pageSize) => {
  const forms = [...chunkForms, ...treeForms].filter(
    (form) => pageSize !== 16384 || (form !== 'kho-v2' && form !== 'kho-v3/rc'),
  )
  test.each(forms)('%s: any units come back', (kho) => {
    fc.assert(
      fc.property(arbitraryUnits(pageSize), (units) => {
        const { read, problems } = mapOf(pageSize, kho, { units })
        expect(problems).toEqual([])
        expect([...new Set(listed(read().units))]).toEqual([...new Set(listed(units))])
      }),
      { numRuns: pageSize === 65536 ? 4 : 12 },
    )
  })
})

describe('the tree of 16K pages that is a level short', () => {
  test.each(['kho-v2', 'kho-v3/rc'])('%s: the marker of order 0 is lost, higher orders are not', (kho) => {
    const units = unitTable(16384, [{ start: 0x40000000n }, { start: 0x80000000n, order: 3 }])
    const { boot, memory } = mapOf(16384, kho, { units })
    const source = sourceOf(memory)
    expect(boot.fdt_addr).toBe(0x40000000n)
    // Keys: 1 << 50 | 0x10000 and 1 << 47 | 0x4000; 17 bits in the leaf, 11 in each of three levels.
    const root = u64At(source, 0x40000000n + BigInt(mapOffset(source.bytes(0x40000000n, 4096))))
    const walk = (indexes: readonly bigint[]): bigint =>
      indexes.reduce((node, index) => u64At(source, node + index * 8n), root)
    const leafOf = (key: bigint): bigint => walk([39n, 28n, 17n].map((shift) => (key >> shift) & 0x7ffn))
    const bit = (leaf: bigint, index: number): boolean =>
      ((source.bytes(leaf + BigInt(index >> 3), 1)[0] ?? 0) & (1 << (index & 7))) !== 0
    expect(bit(leafOf((1n << 47n) | 0x4000n), 0x4000)).toBe(true)
    expect(leafOf(0x10000n)).not.toBe(0n)
    expect(bit(leafOf(0x10000n), 0x10000)).toBe(true)
  })
})

/** Where the value of `preserved-memory-map` stands: behind `compatible` with its 7 bytes. */
function mapOffset(fdt: Uint8Array): number {
  const struct = new DataView(fdt.buffer, fdt.byteOffset).getUint32(8)
  return struct + 8 + 12 + 8 + 12
}

describe('chunks', () => {
  const windows = Array.from({ length: 256 }, (_, index) => ({ start: BigInt(index) << 24n }))

  test('a full chunk is followed by another, a new order starts one', () => {
    const units = unitTable(4096, [...windows, { start: 0n, order: 4 }])
    const { chunks } = mapOf(4096, 'kho-v1/bitmap-512', { units }).read()
    expect(chunks?.map(({ order, bitmaps }) => [order, bitmaps.length])).toEqual([
      [0, 255],
      [0, 1],
      [4, 1],
    ])
    expect(chunks?.[0]?.bitmaps.map(({ phys_start }) => phys_start)).toEqual(
      windows.slice(0, 255).map(({ start }) => start),
    )
  })

  test('exactly one chunk where the bitmaps fill it', () => {
    const { chunks } = mapOf(4096, 'kho-v1/bitmap-512', {
      units: unitTable(4096, windows.slice(0, 255)),
    }).read()
    expect(chunks?.length).toBe(1)
  })

  test('bitmaps of 512 bytes share pages, larger ones do not', () => {
    const units = unitTable(4096, windows.slice(0, 9))
    const small = mapOf(4096, 'kho-v1/bitmap-512', { units }).read().chunks?.[0]?.bitmaps ?? []
    expect(new Set(small.map(({ at = 0n }) => at >> 12n)).size).toBe(2)
    expect(small.every(({ at = 1n }) => at % 512n === 0n)).toBe(true)
  })

  test('given chunks are kept: addresses, empty bitmaps, odd starts, a count that lies', () => {
    const chunks = [
      { at: 0x50000n, order: 3, bitmaps: [] },
      {
        at: 0x51000n,
        order: 0,
        bitmaps: [
          { phys_start: 0x8000000n, at: 0x52000n },
          { phys_start: 0x20001000n, at: 0x53000n },
        ],
      },
    ]
    const units = unitTable(4096, [
      { start: 0x20001000n },
      { start: 0x28000000n },
      { start: 0x40000000n, order: 1 },
    ])
    const { memory, read, problems } = mapOf(4096, 'kho-v1/bitmap-page', { units, chunks })
    expect(problems).toEqual([])
    const found = read()
    expect(found.chunks?.slice(0, 1)).toEqual(chunks.slice(0, 1))
    expect(found.chunks?.[1]?.bitmaps.slice(0, 2)).toEqual(chunks[1]?.bitmaps)
    expect(found.chunks?.map(({ order, bitmaps }) => [order, bitmaps.length])).toEqual([
      [3, 0],
      [0, 2],
      [1, 1],
    ])
    expect(sourceOf(memory).bytes(0x53000n, 1)).toEqual(Uint8Array.of(1))
    expect(listed(found.units)).toEqual(listed(units))
    const lying = mapOf(4096, 'kho-v1/bitmap-page', {
      units: unitTable(4096),
      chunks: [{ at: 0x50000n, order: 0, bitmaps: [], num_elms: 7 }],
    })
    expect(u64At(sourceOf(lying.memory), 0x50008n)).toBe(7n << 32n)
  })
})

describe('radix pages', () => {
  test('given ones are kept, empty ones too, the rest is placed', () => {
    const nodes = [
      { path: [], at: 0x50000n },
      { path: [1], at: 0x51000n },
      { path: [1, 0, 0, 0, 7], at: 0x52000n },
    ]
    const { read, problems } = mapOf(4096, 'kho-v4', {
      units: unitTable(4096, [{ start: 0x40000000n }]),
      nodes,
    })
    expect(problems).toEqual([])
    const found = read().nodes ?? []
    expect(found.filter(({ at }) => nodes.some((node) => node.at === at))).toEqual(nodes)
    expect(found.length).toBe(3 + 3 + 5)
  })

  test('indexes that the tree does not have are a problem', () => {
    const { problems } = mapOf(4096, 'kho-v4', { nodes: [{ path: [0, 0, 0, 0, 0, 0] }, { path: [512] }] })
    const message = 'a tree of 6 levels has at most 5 indexes below 512'
    expect(problems).toEqual([
      { path: 'preserved.nodes.0/0/0/0/0/0', message },
      { path: 'preserved.nodes.512', message },
    ])
  })
})

test('units that no kernel could preserve are problems', () => {
  const units = unitTable(4096, [
    { start: 0x1000n, order: 1 },
    { start: 0n, order: 53 },
  ])
  expect(mapOf(4096, 'kho-v4', { units }).problems.slice(0, 2)).toEqual([
    { path: 'preserved', message: '0x1000 is not aligned to a unit of order 1' },
    { path: 'preserved', message: 'a unit of order 53 is larger than memory' },
  ])
})

describe('ranges are split as kho_preserve_pages() does', () => {
  test.each([
    [0x12345n, 1n, ['0 0x12345000']],
    [0x7ffn, 4n, ['0 0x7ff000', '1 0x800000', '0 0x802000']],
    [
      0x1fa82n,
      256n,
      [
        '1 0x1fa82000',
        '2 0x1fa84000',
        '3 0x1fa88000',
        '4 0x1fa90000',
        '5 0x1faa0000',
        '6 0x1fac0000',
        '7 0x1fb00000',
        '1 0x1fb80000',
      ],
    ],
    [0n, 3n, ['1 0x0', '0 0x2000']],
  ])('frame %s, %s pages', (frame, pages, expected) => {
    const units = [...splitPages(frame << 12n, pages, 4096)]
    expect(units.map(({ order, start }) => `${order} 0x${start.toString(16)}`)).toEqual(expected)
  })
})

/** WIRE-FORMAT 7.7: what of a handover is preserved, and in units of which order. */
describe('units that a document does not give', () => {
  test.each(REAL_IMAGES)('%s: they are those that the kernel preserved', (name) => {
    const document = readDocument(new RealImage(name), name)
    const units = listed(document.preserved?.units)
    const orders = new Map(units.map((unit) => unit.split(' ').toReversed() as [string, string]))
    for (const { luo } of document.subtrees) {
      for (const session of luo?.sessions?.entries ?? []) {
        for (const { memfd } of session.files?.entries ?? []) {
          if (memfd?.folios?.records)
            Object.assign(memfd.folios, { records: withOrders(memfd.folios.records, orders) })
        }
      }
    }
    const { units: _given, ...map } = document.preserved as Preserved
    const written = writeHandover({ ...document, preserved: map })
    expect(written.problems).toEqual([])
    expect(listed(readWritten(document, written).preserved?.units)).toEqual(units)
  })

  function withOrders(records: RunTable<'pfn' | 'flags' | 'index'>, orders: ReadonlyMap<string, string>) {
    const table: typeof records = new RunTable(['pfn', 'flags', 'index'])
    for (const { count, start, step } of records) {
      for (let at = 0; at < count; at++) {
        const field = (key: 'pfn' | 'flags' | 'index') => start[key] + BigInt(at) * BigInt(step[key])
        const order = orders.get(`0x${(field('pfn') << 12n).toString(16)}`)
        table.append(Number(order), { pfn: field('pfn'), flags: field('flags'), index: field('index') })
      }
    }
    return table
  }

  test('ranges of their own join the units that a document lists', () => {
    const ranges = [{ start: 0x4a000000n, size: 0x3000n }]
    const { read, problems } = mapOf(4096, 'kho-v4', {
      units: unitTable(4096, [{ start: 0x40000000n }]),
      ranges,
    })
    expect(problems).toEqual([])
    expect(listed(read().units)).toEqual(['0 0x40000000', '0 0x4a002000', '1 0x4a000000'])
  })

  test('ranges of their own, regions and blobs of several pages', () => {
    const subtrees: readonly Subtree[] = [
      {
        name: 'memblock',
        memblock: { reserve_mem: { entries: [{ name: 'trace', start: 0x48003000n, size: 0x5000n }] } },
      },
      { name: 'blob', at: 0x49000000n, bytes: new Uint8Array(4097) },
      ...luoOnly({ liveupdate_num: 1n, sessions: { entries: [] } }),
    ]
    const document = {
      ...machine(4096, { kho: 'kho-v3', luo: 'luo-v1/flb', memblock: 'memblock-v1' }, subtrees),
      preserved: { ranges: [{ start: 0x4a000000n, size: 0x3000n }] },
    }
    const written = writeHandover(document)
    expect(written.problems).toEqual([])
    const read = readWritten(document, written)
    const luo = read.subtrees.at(-1)
    const hex = (value: bigint | undefined): string => `0x${value?.toString(16)}`
    expect(listed(read.preserved?.units)).toEqual(
      [
        `0 ${hex(written.boot.fdt_addr)}`,
        `0 ${hex(read.subtrees[0]?.at)}`,
        ...['0 0x48003000', '2 0x48004000', '1 0x49000000', '1 0x4a000000', '0 0x4a002000'],
        ...[`0 ${hex(luo?.at)}`, `4 ${hex(luo?.luo?.sessions?.at)}`, `0 ${hex(luo?.luo?.flbs?.at)}`],
      ].toSorted(),
    )
  })
})
