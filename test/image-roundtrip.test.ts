/**
 * The same memory in every container: what the writers of encode/ put into a file the readers of
 * inspect/ must find there, byte by byte and state by state, packed or not; and readelf must agree.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FLAT_HEADER_BYTES, PN_XNUM } from '../abi/container.ts'
import { PAGE_SIZES } from '../abi/layout.ts'
import { phys } from '../abi/memory.ts'
import { writeLime, writeRaw } from '../encode/image.ts'
import { writeElf } from '../encode/image-elf.ts'
import { writeKdump } from '../encode/image-kdump.ts'
import { type ImageFile, sequential, trimmed } from '../encode/image-pieces.ts'
import { SparseMemory } from '../encode/memory.ts'
import type { Image } from '../inspect/image.ts'
import { scanPages } from '../inspect/image-scan.ts'
import {
  bytesOf,
  digest,
  gzipFile,
  isWritable,
  noise,
  open,
  problemOf,
  statesOf,
  TestMemory,
  type TestRun,
  temporaryDirectory,
  writeImage,
} from './support/containers.ts'

const directory = temporaryDirectory()
const file = (name: string): string => join(directory, name)

const note = { fdt_addr: 0x10_4000n, fdt_size: 4096n, scratch_addr: 0x6000n, scratch_size: 48n }
const arch = 'x86_64'

/** Zeros before, between and behind other bytes, longer than what a writer leaves out at a time. */
const holey = new Uint8Array(0x30_0000)
holey.set(noise(0x1_2345, 3), 0x4_0000)
holey.set(noise(0x100, 4), 0x11_fff0)
holey.set(noise(0x2_0000, 5), 0x1e_0000)

/** All three states, neighbours in each combination, zeros, text, noise, and memory above 4 GiB. */
const memory = new TestMemory([
  { start: 0x1000n, content: noise(0x3000) },
  { start: 0x4000n, content: 0x2000n },
  { start: 0x6000n, content: noise(0x1000, 99) },
  { start: 0x10_0000n, content: 0x3000n },
  { start: 0x10_3000n, content: new Uint8Array(0x1000) },
  { start: 0x10_4000n, content: new TextEncoder().encode('handover '.repeat(8192)).subarray(0, 0x1_0000) },
  { start: 0x20_0000n, content: 0x1000n },
  { start: 0x1_0000_0000n, content: holey },
  { start: 0x1_4000_0000n, content: noise(0x2000, 7) },
])
const states = statesOf(memory)
const withoutExcluded = joinHoles(states)

/** The runs as a format shows them that knows present memory and holes only. */
function joinHoles(runs: readonly TestRun[]): TestRun[] {
  const joined: TestRun[] = []
  for (const run of runs) {
    const last = joined.at(-1)
    if (run.state === 'present') joined.push(run)
    else if (last?.state === 'hole') joined[joined.length - 1] = { ...last, end: run.end }
    else joined.push({ ...run, state: 'hole' })
  }
  return joined
}

/** The flattened form of a file, its pieces in reverse order, as makedumpfile -F may write them. */
function flattened(path: string, image: ImageFile): string {
  const header = new Uint8Array(FLAT_HEADER_BYTES)
  header.set(new TextEncoder().encode('makedumpfile'))
  header[23] = 1
  header[31] = 1
  const record = (offset: bigint, size: bigint): Buffer => {
    const bytes = Buffer.alloc(16)
    bytes.writeBigInt64BE(offset)
    bytes.writeBigInt64BE(size, 8)
    return bytes
  }
  const whole = Buffer.concat([...sequential(image)])
  const pieces = Array.from({ length: Math.ceil(whole.length / 16384) }, (_, index) => ({
    offset: index * 16384,
    bytes: whole.subarray(index * 16384, (index + 1) * 16384),
  })).reverse()
  // Some bytes are written twice, the first time wrong: the later record counts.
  const inverted = (offset: number, end: number) => ({
    offset,
    bytes: whole.subarray(offset, end).map((byte) => byte ^ 0xff),
  })
  const records = [inverted(0, 8192), inverted(100, 200), ...pieces].flatMap(({ offset, bytes }) => [
    record(BigInt(offset), BigInt(bytes.length)),
    bytes,
  ])
  writeFileSync(path, Buffer.concat([header, ...records, record(-1n, -1n)]))
  return path
}

async function expectStates(path: string, expected: readonly TestRun[], format: string): Promise<Image> {
  const image = await open(path)
  expect(image.format).toBe(format)
  expect(image.warnings).toEqual([])
  expect(statesOf(image)).toEqual(expected)
  image.close()
  return image
}

describe('the same memory in every container', () => {
  it('ELF core keeps all three states', async () => {
    const path = writeImage(file('a.elf'), writeElf(memory, { arch, note }))
    const image = await expectStates(path, states, 'elf')
    expect(image.ranges).toEqual(memory.ranges)
    expect(image.notes.map(({ name, type, desc }) => [name, type, desc.length])).toEqual([['KHO', 1, 32]])
    await expectStates(gzipFile(path), states, 'elf')
    await expectStates(
      flattened(file('a.elf.flat'), isWritable(writeElf(memory, { arch, note }))),
      states,
      'elf',
    )
  })

  it('kdump keeps all three states', async () => {
    const written = isWritable(writeKdump(memory, { arch, pageSize: 4096, note }))
    const path = writeImage(file('a.kdump'), written)
    const image = await expectStates(path, states, 'kdump')
    expect(image.ranges).toEqual(memory.ranges)
    expect(image.notes.map(({ name, type, desc }) => [name, type, desc.length])).toEqual([['KHO', 1, 32]])
    await expectStates(gzipFile(path), states, 'kdump')
    const flat = flattened(file('a.kdump.flat'), written)
    await expectStates(flat, states, 'kdump')
    await expectStates(gzipFile(flat), states, 'kdump')
  })

  it('LiME keeps what is present', async () => {
    const path = writeImage(file('a.lime'), writeLime(memory))
    await expectStates(path, withoutExcluded, 'lime')
    await expectStates(gzipFile(path), withoutExcluded, 'lime')
  })

  it('flat raw memory has zeros where nothing is', async () => {
    const path = writeImage(file('a.raw'), writeRaw(memory))
    const size = 0x1_4000_2000
    expect(statSync(path).size).toBe(size)
    // 5 GiB in name, but holes take no room.
    expect(statSync(path).blocks * 512).toBeLessThan(1024 * 1024)
    const image = await open(path)
    expect(image.ranges).toEqual([{ start: 0n, end: BigInt(size) }])
    for (const { state, start, end, sha256 } of states) {
      if (state === 'present') expect(digest(bytesOf(image, { start, end }))).toBe(sha256)
      else if (end < BigInt(size))
        expect(bytesOf(image, { start, end: start + 0x1000n }).every((byte) => byte === 0)).toBe(true)
    }
    image.close()
  })

  it('pieces of flat raw memory at their addresses', async () => {
    const sources = states.flatMap(({ state, start, end }, index) => {
      if (state !== 'present') return []
      const path = file(`piece${index}.bin`)
      writeFileSync(path, bytesOf(memory, { start, end }))
      return [{ path: index % 2 ? gzipFile(path) : path, address: phys(start) }]
    })
    const image = await open(sources.reverse())
    expect(image.format).toBe('raw')
    expect(statesOf(image)).toEqual(withoutExcluded)
    image.close()
    const [first = { path: '', address: phys(0) }] = sources
    const overlapping = { path: first.path, address: phys(first.address + 0x1000n) }
    expect(await problemOf([...sources, overlapping])).toMatch(
      /raw images overlap in physical memory: .*piece/,
    )
  })

  it('flat raw memory that starts elsewhere', async () => {
    const path = writeImage(file('high.raw'), writeRaw(memory, phys(0x1_4000_0000n)))
    expect(statSync(path).size).toBe(0x2000)
    const image = await open([{ path, address: phys(0x1_4000_0000n) }])
    expect(statesOf(image)).toEqual([
      { state: 'hole', start: 0n, end: 0x1_4000_0000n },
      states.find(({ start }) => start === 0x1_4000_0000n),
      { state: 'hole', start: 0x1_4000_2000n, end: 1n << 64n },
    ])
    image.close()
  })

  for (const pageSize of PAGE_SIZES) {
    it(`kdump in pages of ${pageSize}`, async () => {
      const bytes = Uint8Array.from({ length: 4 * pageSize }, (_, index) => (index >> 10) & 0xff)
      const pages = new TestMemory([
        { start: BigInt(pageSize), content: bytes },
        { start: BigInt(5 * pageSize), content: BigInt(pageSize) },
        { start: BigInt(100 * pageSize), content: noise(2 * pageSize) },
      ])
      const path = writeImage(file(`pages${pageSize}`), writeKdump(pages, { arch: 'arm64', pageSize }))
      const image = await expectStates(path, statesOf(pages), 'kdump')
      expect(image.notes).toEqual([])
    })
  }
})

describe('reads', () => {
  it('give the same bytes as the memory, from any address, of any length', async () => {
    const images = await Promise.all([
      open(writeImage(file('r.elf'), writeElf(memory, { arch }))),
      open(writeImage(file('r.kdump'), writeKdump(memory, { arch, pageSize: 4096 }))),
      open(gzipFile(writeImage(file('s.elf'), writeElf(memory, { arch })))),
    ])
    const edges = states.flatMap(({ start, end }) => [start, end]).filter((edge) => edge < 1n << 40n)
    const place = fc.tuple(fc.constantFrom(...edges), fc.integer({ min: -70, max: 70 }))
    fc.assert(
      fc.property(place, fc.integer({ min: 0, max: 0x2800 }), ([edge, skew], length) => {
        const pa = phys(edge + BigInt(skew) < 0n ? 0n : edge + BigInt(skew))
        const wanted = new Uint8Array(length)
        const count = memory.read(pa, wanted)
        for (const image of images) {
          const got = new Uint8Array(length)
          expect(image.read(pa, got)).toBe(count)
          expect(Buffer.compare(got, wanted)).toBe(0)
        }
      }),
      { numRuns: 400 },
    )
    for (const image of images) image.close()
  })

  it('end at the end of the address space', async () => {
    const top = new TestMemory([{ start: (1n << 64n) - 0x1000n, content: noise(0x1000) }])
    const image = await open(writeImage(file('top.elf'), writeElf(top, { arch })))
    expect(image.read(phys((1n << 64n) - 16n), new Uint8Array(64))).toBe(16)
    expect(statesOf(image)).toEqual(statesOf(top))
    image.close()
  })
})

describe('writers', () => {
  it('write the same bytes every time, and to a pipe as to a file', () => {
    const writers = {
      elf: () => isWritable(writeElf(memory, { arch, note })),
      kdump: () => isWritable(writeKdump(memory, { arch, pageSize: 4096, note })),
      lime: () => writeLime(memory),
      raw: () => isWritable(writeRaw(memory, phys(0x10_0000n))),
    }
    for (const [name, write] of Object.entries(writers)) {
      if (name === 'raw') continue
      const path = writeImage(file(`same.${name}`), write())
      const image = write()
      const stream = Buffer.concat([...sequential(image)])
      expect(stream.length).toBe(image.size)
      expect(Buffer.compare(stream, readFileSync(path))).toBe(0)
      expect(digest(Buffer.concat([...sequential(image)]))).toBe(digest(stream))
    }
  })

  it('leave out what sparse memory does not hold, if asked to', async () => {
    const sparse = new SparseMemory(4096, [{ start: phys(0), end: 0x200_0000n }])
    sparse.write(phys(0x123_4567n), noise(100))
    const whole = isWritable(writeElf(sparse, { arch }))
    const small = isWritable(writeElf(trimmed(sparse), { arch }))
    expect(whole.size).toBe(0x200_0000 + 4096)
    expect(small.size).toBe(4096 + 4096)
    const image = await open(writeImage(file('trimmed.elf'), small))
    expect(statesOf(image).map(({ state, start, end }) => [state, start, end])).toEqual([
      ['excluded', 0n, 0x123_4000n],
      ['present', 0x123_4000n, 0x123_5000n],
      ['excluded', 0x123_5000n, 0x200_0000n],
      ['hole', 0x200_0000n, 1n << 64n],
    ])
    image.close()
    const complete = await open(writeImage(file('whole.elf'), whole))
    expect(statesOf(complete)[0]?.sha256).toBe(digest(bytesOf(sparse, { start: 0n, end: 0x200_0000n })))
    complete.close()
  })

  it('write a kdump of zeros without reading them', () => {
    class Watched extends SparseMemory {
      bytesRead = 0
      override read(...[pa, out]: Parameters<SparseMemory['read']>): number {
        this.bytesRead += out.length
        return super.read(pa, out)
      }
    }
    const sparse = new Watched(4096, [{ start: phys(0), end: 1n << 34n }])
    sparse.write(phys(0x3_0000_0000n), noise(4096))
    const image = isWritable(writeKdump(sparse, { arch, pageSize: 4096 }))
    // 4 Mi descriptors of 24 bytes, and two pages.
    expect(image.size).toBe(3 * 4096 - 4096 + 2 * 2 ** 19 + 2 ** 22 * 24 + 2 * 4096)
    expect(sparse.bytesRead).toBe(4096)
  })
})

describe('readelf', () => {
  const readelf = (...args: string[]): string =>
    execFileSync('readelf', ['-W', ...args], { encoding: 'utf8' })

  it('shows the segments and the note', () => {
    const path = writeImage(file('e.elf'), writeElf(memory, { arch, note }))
    const loads = [...readelf('-l', path).matchAll(/^ +LOAD +0x(\w+) 0x(\w+) 0x(\w+) 0x(\w+) 0x(\w+)/gm)]
    const seen = loads.map(([, offset, , pa, inFile, inMemory]) =>
      [offset, pa, inFile, inMemory].map((hex) => BigInt(`0x${hex}`)),
    )
    expect(seen.map(([, pa, inFile, inMemory]) => [pa, inFile, inMemory])).toEqual([
      [0x1000n, 0x3000n, 0x5000n],
      [0x6000n, 0x1000n, 0x1000n],
      [0x10_0000n, 0n, 0x3000n],
      [0x10_3000n, 0x1_1000n, 0x1_1000n],
      [0x20_0000n, 0n, 0x1000n],
      [0x1_0000_0000n, 0x30_0000n, 0x30_0000n],
      [0x1_4000_0000n, 0x2000n, 0x2000n],
    ])
    const bytes = readFileSync(path)
    for (const [offset = 0n, pa = 0n, inFile = 0n] of seen) {
      const segment = bytes.subarray(Number(offset), Number(offset + inFile))
      expect(digest(segment)).toBe(digest(bytesOf(memory, { start: pa, end: pa + inFile })))
    }
    expect(readelf('-n', path)).toMatch(/KHO\s+0x00000020/)
    expect(readelf('-h', path)).toMatch(/Type: +CORE.*\n.*Machine: +Advanced Micro Devices X86-64/)
    const arm = writeImage(file('arm.elf'), writeElf(memory, { arch: 'arm64' }))
    expect(readelf('-h', arm)).toMatch(/Machine: +AArch64/)
  })

  it('counts more segments than e_phnum holds', async () => {
    const sparse = new SparseMemory(4096)
    const count = PN_XNUM + 3
    for (let index = 0; index < count; index += 1)
      sparse.write(phys(0x2000 * index + 0x1000), Uint8Array.of(index & 0xff))
    const path = writeImage(file('many.elf'), writeElf(sparse, { arch, note }))
    expect(readelf('-h', path)).toMatch(new RegExp(`Number of program headers: +65535 \\(${count + 1}\\)`))
    const image = await open(path)
    expect(image.ranges.length).toBe(count)
    const byte = new Uint8Array(1)
    for (const index of [0, 1, 65_533, 65_534, count - 1]) {
      expect(image.read(phys(0x2000 * index + 0x1000), byte)).toBe(1)
      expect(byte[0]).toBe(index & 0xff)
      expect(image.presence(phys(0x2000 * index)).state).toBe('hole')
    }
    image.close()
  })
})

describe('scanPages', () => {
  it('visits each page that is present once, in ascending order', async () => {
    for (const path of [
      writeImage(file('scan.elf'), writeElf(memory, { arch })),
      writeImage(file('scan.kdump'), writeKdump(memory, { arch, pageSize: 4096 })),
    ]) {
      const image = await open(path)
      const visited: bigint[] = []
      scanPages(image, 4096, 16, (pa, head) => {
        expect(Buffer.compare(head, bytesOf(memory, { start: pa, end: pa + 16n }))).toBe(0)
        visited.push(pa)
      })
      const present = states.filter(({ state }) => state === 'present')
      const pages = present.flatMap(({ start, end }) =>
        Array.from({ length: Number(end - start) / 4096 }, (_, page) => start + BigInt(page * 4096)),
      )
      expect(visited).toEqual(pages)
      image.close()
    }
  })

  it('takes whole pages only, also where memory starts or ends inside of one', () => {
    const odd = new TestMemory([
      { start: 0x800n, content: new Uint8Array(0x1000) },
      { start: 0x2ff8n, content: new Uint8Array(0x1010) },
    ])
    const visited: bigint[] = []
    scanPages(odd, 4096, 16, (pa) => visited.push(pa))
    expect(visited).toEqual([0x1000n, 0x3000n])
  })

  it('reads a flat file of 512 MiB once, in large pieces and little memory', async () => {
    const sparse = new SparseMemory(4096, [{ start: phys(0), end: 512n << 20n }])
    sparse.write(phys(0x1234_5000n), noise(4096))
    const image = await open(writeImage(file('large.raw'), writeRaw(sparse)))
    let reads = 0
    let bytes = 0
    const counted = {
      ...image,
      ranges: image.ranges,
      read: (pa: Parameters<Image['read']>[0], out: Uint8Array) => {
        reads += 1
        bytes += out.length
        return image.read(pa, out)
      },
    }
    const found: bigint[] = []
    const progress: number[] = []
    const before = process.memoryUsage().rss
    scanPages(
      counted,
      4096,
      8,
      (pa, head) => head[0] && found.push(pa),
      (done) => progress.push(done),
    )
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20)
    expect(found).toEqual([0x1234_5000n])
    expect({ reads, bytes }).toEqual({ reads: 2048, bytes: 512 << 20 })
    expect(progress).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((step) => step * (64 << 20)))
    image.close()
  })
})
