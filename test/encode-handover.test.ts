/** Whole handovers: documents of real images written back, new ones placed, what cannot be written. */
import { describe, expect, test } from 'vitest'
import type { PhysAddr, PhysicalMemory } from '../abi/memory.ts'
import type { Flb, HandoverDocument, RecordList } from '../encode/handover.ts'
import { writeHandover } from '../encode/write-handover.ts'
import { REAL_IMAGES, RealImage } from './support/elf-core.ts'
import { readFdt } from './support/fdt-reader.ts'
import { readDocument } from './support/handover-reader.ts'
import { machine, NEWEST, oneOfEverything, readWritten, sourceOf, u64At } from './support/written.ts'

interface Range {
  readonly from: bigint
  readonly to: bigint
}

/**
 * Bytes of real pages that carry no meaning. 7.3: lib/test_kho.c allocates its FDT's unit without zeroing
 * and clears one page and 8 bytes a folio, the buffer that it makes the FDT in.
 */
const MEANINGLESS: Readonly<Record<string, readonly Range[]>> = {
  'linux-7.3-x86_64-basic': [{ from: 0x534000n + 4096n + 22n * 8n, to: 0x536000n }],
}

/**
 * What is compared of a written page: all of it, but of slab pages (512-byte bitmaps come from kmalloc)
 * the bitmaps only, since the kernel's other objects stand beside them.
 */
function compared(document: HandoverDocument, page: bigint): readonly Range[] {
  const whole = [{ from: page, to: page + 4096n }]
  if (document.versions.kho !== 'kho-v1/bitmap-512') return whole
  const bitmaps = (document.preserved?.chunks ?? [])
    .flatMap((chunk) => chunk.bitmaps.map(({ at = 0n }) => ({ from: at, to: at + 512n })))
    .filter(({ from }) => page <= from && from < page + 4096n)
  return bitmaps.length > 0 ? bitmaps : whole
}

describe.each(REAL_IMAGES)('%s', (name) => {
  const image = new RealImage(name)
  const document = readDocument(image, name)
  const { memory, boot, problems } = writeHandover(document)

  test('has nothing that cannot be written', () => {
    expect(problems).toEqual([])
    expect(boot).toEqual({
      fdt_addr: document.root.at,
      fdt_size: 4096n,
      scratch_addr: document.scratch?.at,
      scratch_size: 48n,
    })
  })

  test('every page that is written equals the real one', () => {
    const ignored = MEANINGLESS[name] ?? []
    const different: string[] = []
    let pages = 0
    for (const { start, end } of memory.extents()) {
      for (let page: bigint = start; page < end; page += 4096n, pages++) {
        for (const { from, to } of compared(document, page)) {
          const written = new Uint8Array(Number(to - from))
          memory.read(from as PhysAddr, written)
          const real = image.bytes(from, written.length)
          const at = written.findIndex(
            (byte, index) =>
              byte !== real[index] &&
              !ignored.some((range) => range.from <= from + BigInt(index) && from + BigInt(index) < range.to),
          )
          if (at >= 0) different.push(`0x${from.toString(16)}+${at}: ${written[at]} instead of ${real[at]}`)
        }
      }
    }
    expect(different).toEqual([])
    expect(pages).toBeGreaterThan(14)
  })
})

describe('a document without addresses', () => {
  const document = oneOfEverything()
  const written = writeHandover(document)
  const read = readWritten(document, written)
  const source = sourceOf(written.memory)

  test('comes back with all that it said', () => {
    expect(written.problems).toEqual([])
    const [memblock, luo, khoTest, metadata] = read.subtrees
    expect(memblock?.memblock?.reserve_mem.entries?.map(({ name, size }) => [name, size])).toEqual([
      ['trace', 0x6000n],
    ])
    expect(luo?.luo?.liveupdate_num).toBe(9n)
    const [first, second] = luo?.luo?.sessions?.entries ?? []
    expect([first?.name, second?.name, second?.files?.entries]).toEqual(['a', 'b', []])
    const [file, other] = first?.files?.entries ?? []
    expect([
      file?.token,
      file?.memfd?.pos,
      file?.memfd?.size,
      file?.memfd?.seals,
      file?.memfd?.flags,
    ]).toEqual([2n ** 64n - 1n, 7n, 40000n, 6, 0])
    expect(other).toEqual({ compatible: 'other', token: 0n, data: 0x123n })
    expect(luo?.luo?.flbs?.entries).toEqual([{ name: 'f', data: 1n, count: 2n }])
    expect(khoTest?.kho_test?.csum).toBe(5)
    expect(khoTest?.kho_test?.folios_info.records?.total).toBe(2)
    expect(metadata?.kexec_metadata).toEqual({ previous_release: '7.2.13', kexec_count: 4 })
  })

  test('contents lie where the records say', () => {
    const region = read.subtrees[0]?.memblock?.reserve_mem.entries?.[0]
    expect([...source.bytes((region?.start ?? 0n) + 0x5ffen, 2)]).toEqual([0, 1])
    const records = read.subtrees[1]?.luo?.sessions?.entries?.[0]?.files?.entries?.[0]?.memfd?.folios?.records
    const first = (records?.start('pfn', 0) ?? 0n) << 12n
    const bytes = source.bytes(first, 3 << 14)
    expect(bytes.subarray(0, 40000).every((byte) => byte === 0x5a)).toBe(true)
    expect(bytes.subarray(40000).every((byte) => byte === 0)).toBe(true)
    expect([0, 1, 2].map((at) => (records?.start('pfn', 0) ?? 0n) % 4n === 0n && at)).toEqual([0, 1, 2])
  })

  test('nothing but the scratch array lies in scratch, and all units are in RAM and apart', () => {
    const areas = document.scratch?.areas ?? []
    const units = [...(read.preserved?.units ?? [])].map(
      ({ start, order }) => [start.start, start.start + (4096n << BigInt(order))] as const,
    )
    units.sort(([a], [b]) => (a < b ? -1 : 1))
    for (const [index, [start, end]] of units.entries()) {
      expect(end <= (units[index + 1]?.[0] ?? 0x80000000n)).toBe(true)
      expect(start >= 0x40000000n).toBe(true)
      expect(areas.some(({ addr, size }) => start < addr + size && addr < end)).toBe(false)
    }
    const inScratch = written.memory
      .extents()
      .filter(({ start, end }) => areas.some(({ addr, size }) => start < addr + size && addr < end))
    expect(inScratch).toEqual([{ start: 0x41ff0000n, end: 0x41ff1000n }])
    expect(written.boot.scratch_addr).toBe(0x41ff0000n)
  })

  test('is written the same again', () => {
    const again = writeHandover(oneOfEverything())
    expect(again.memory.extents()).toEqual(written.memory.extents())
    for (const { start, end } of written.memory.extents()) {
      const length = Number(end - start)
      expect(Buffer.compare(source.bytes(start, length), sourceOf(again.memory).bytes(start, length))).toBe(0)
    }
  })
})

describe('what a document says against its own structure', () => {
  const writeWith = (change: Partial<HandoverDocument>) => {
    const document = { ...machine(4096, NEWEST, []), root: { at: 0x40000000n }, ...change }
    return { ...writeHandover(document), document }
  }
  const nodeAt = (memory: PhysicalMemory) => readFdt(sourceOf(memory).bytes(0x40000000n, 4096)).tree
  const numberOf = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).readBigUInt64LE()
  const property = (memory: PhysicalMemory, name: string) =>
    numberOf(nodeAt(memory).children[0]?.properties.find((one) => one.name === name)?.value)

  test('a subtree may point to memory that nobody describes, or claim another size', () => {
    const pointer = writeWith({ subtrees: [{ name: 'x', at: 0xdeadn, size: 5n }] })
    expect(pointer.problems).toEqual([])
    expect([property(pointer.memory, 'preserved-data'), property(pointer.memory, 'blob-size')]).toEqual([
      0xdeadn,
      5n,
    ])
    const sized = writeWith({ subtrees: [{ name: 'x', bytes: Uint8Array.of(1, 2), size: 99n }] })
    expect(property(sized.memory, 'blob-size')).toBe(99n)
  })

  test('unknown FDTs are written as they are told', () => {
    const fdt = {
      name: '',
      properties: [{ name: 'compatible', value: new TextEncoder().encode('mine\0') }],
      children: [],
    }
    const { memory, problems } = writeWith({ subtrees: [{ name: 'mine', at: 0x40010000n, fdt }] })
    expect(problems).toEqual([])
    expect(readFdt(sourceOf(memory).bytes(0x40010000n, 4096)).tree).toEqual(fdt)
    expect(property(memory, 'blob-size')).toBe(
      BigInt(readFdt(sourceOf(memory).bytes(0x40010000n, 4096)).totalsize),
    )
  })

  test('the map may be elsewhere or not at all', () => {
    const { memory, problems } = writeWith({
      preserved: null,
      root: { at: 0x40000000n, memory_map: 0x7000n, fdt_size: 8192n },
    })
    expect(problems).toEqual([])
    expect(
      numberOf(nodeAt(memory).properties.find((one) => one.name === 'preserved-memory-map')?.value),
    ).toBe(0x7000n)
    expect(memory.extents().length).toBe(2)
  })

  test('lists may be links without a body, or no link', () => {
    const luo = (flbs: RecordList<Flb>) => ({
      subtrees: [{ name: 'LUO', at: 0x40010000n, luo: { liveupdate_num: 1n, flbs } }],
    })
    const dangling = writeWith(luo({ at: 0xabc000n }))
    expect(u64At(sourceOf(dangling.memory), 0x40010018n)).toBe(0xabc000n)
    expect(u64At(sourceOf(writeWith(luo({ at: 0n })).memory), 0x40010018n)).toBe(0n)
  })

  test('contents lie over everything', () => {
    const { memory, problems } = writeWith({
      subtrees: [{ name: 'x', at: 0x40010000n, bytes: Uint8Array.of(1, 2, 3) }],
      contents: [
        { at: 0x40010001n, content: Uint8Array.of(9) },
        { at: 0x40010ffen, content: Uint8Array.of(7, 7, 7) },
      ],
    })
    expect(problems).toEqual([])
    expect([...sourceOf(memory).bytes(0x40010000n, 4)]).toEqual([1, 9, 3, 0])
    expect([...sourceOf(memory).bytes(0x40010ffdn, 5)]).toEqual([0, 7, 7, 7, 0])
  })

  test('without RAM, RAM is what is written', () => {
    const { ram: _ram, scratch: _scratch, ...rest } = machine(4096, NEWEST, [])
    const placed = writeHandover({ ...rest, root: { at: 0x9000n }, preserved: null })
    expect(placed.problems).toEqual([])
    expect(placed.memory.ranges).toEqual([{ start: 0x9000n, end: 0xa000n }])
    expect(placed.boot.scratch_size).toBe(0n)
  })
})

/** FNV-1a of 64 bits with the guest's own start value, in two halves; the prime is 2^40 + 0x1b3. */
function fnv1a(bytes: Uint8Array): string {
  let [high, low] = [0x14650fb0, 0x739d0383]
  for (const byte of bytes) {
    low = (low ^ byte) >>> 0
    const product = low * 0x1b3
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0
    low = product >>> 0
  }
  return high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0')
}

/** The lab's guest fills its files so; the sums are what kernels and guests of both sides printed. */
describe('patterns', () => {
  test.each([
    [{ seed: 11n, every: 16384, run: 16384, length: 10000n }, '5d73c07134004785'],
    [{ seed: 33n, every: 4096, run: 512, length: 3n << 20n }, '37a6056ac5371464'],
    [{ seed: 44n, every: 1 << 20, run: 20480, length: 20480n }, 'abd15aad7ab19156'],
    [{ seed: 55n, every: 65536, run: 512, length: 1n << 20n }, '4c139be68aa5e327'],
  ])('%o', (pattern, sum) => {
    const { memory } = writeHandover({
      ...machine(4096, NEWEST, []),
      contents: [{ at: 0x60000000n, content: pattern }],
    })
    expect(fnv1a(sourceOf(memory).bytes(0x60000000n, Number(pattern.length)))).toBe(sum)
  })
})
