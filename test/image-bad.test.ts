/**
 * Bad input: files cut at every place, bits flipped anywhere, counts that promise more than there is.
 * Whatever a file holds, opening it gives an image or one line, in bounded time and memory, and an
 * image that was opened answers every question without throwing.
 */
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CONTAINER_TARGET,
  diskDumpHeader,
  elf64Ehdr,
  elf64Phdr,
  FLAT_HEADER_BYTES,
  kdumpSubHeader,
  MAX_SEGMENTS,
} from '../abi/container.ts'
import { fieldOf } from '../abi/layout.ts'
import { phys } from '../abi/memory.ts'
import type { StructType } from '../abi/schema.ts'
import { writeLime } from '../encode/image.ts'
import { writeElf } from '../encode/image-elf.ts'
import { writeKdump } from '../encode/image-kdump.ts'
import { openImage } from '../inspect/image.ts'
import { scanPages } from '../inspect/image-scan.ts'
import {
  noise,
  open,
  problemOf,
  TestMemory,
  temporaryDirectory,
  unpackedFixture,
  writeImage,
} from './support/containers.ts'

const directory = temporaryDirectory()
const path = join(directory, 'bad')
/** Kept open: to empty a file and fill it again thousands of times makes file systems write it out each time. */
const descriptor = openSync(path, 'w')
afterAll(() => closeSync(descriptor))

const memory = new TestMemory([
  { start: 0x1000n, content: noise(0x1000) },
  { start: 0x2000n, content: 0x1000n },
  { start: 0x10_0000n, content: new TextEncoder().encode('handover '.repeat(1024)).subarray(0, 8192) },
])
const note = { fdt_addr: 0x1000n, fdt_size: 4096n, scratch_addr: 0x2000n, scratch_size: 48n }

const elf = readFileSync(writeImage(join(directory, 'elf'), writeElf(memory, { arch: 'x86_64', note })))
const kdump = readFileSync(
  writeImage(join(directory, 'kdump'), writeKdump(memory, { arch: 'x86_64', pageSize: 4096, note })),
)
const lime = readFileSync(writeImage(join(directory, 'lime'), writeLime(memory)))
const flat = Buffer.from(unpackedFixture('qemu-aarch64.kdump-zlib.flat.gz')).subarray(
  0,
  FLAT_HEADER_BYTES + 200_000,
)
const zstd = Buffer.from(unpackedFixture('qemu-x86_64.kdump-zstd.gz'))
const files = { elf, kdump, lime, gzip: gzipSync(elf) }

/** Opens the file and asks everything that a reader asks; whether it opened. */
async function survives(bytes: Uint8Array): Promise<boolean> {
  writeSync(descriptor, bytes, 0, bytes.length, 0)
  ftruncateSync(descriptor, bytes.length)
  const opened = await openImage([{ path }])
  if (!opened.ok) {
    expect(opened.problem).toMatch(/^\S.*$/)
    expect(opened.problem).not.toMatch(/undefined|NaN|internal error/)
    return false
  }
  const { image } = opened
  const buffer = new Uint8Array(300)
  for (const { start, end } of image.ranges.slice(0, 50)) {
    for (const pa of [start, end - 1n, end, start - 1n]) {
      if (pa < 0n || pa >= 1n << 64n) continue
      const count = image.read(phys(pa), buffer)
      const { state, until } = image.presence(phys(pa))
      expect(until).toBeGreaterThan(pa)
      expect(state === 'present').toBe(count > 0)
      image.filePosition(phys(pa))
    }
  }
  let visited = 0
  scanPages(image, 4096, 16, () => {
    visited += 1
  })
  expect(visited).toBeLessThan(1 << 20)
  image.close()
  return true
}

describe('files cut off', () => {
  for (const [name, bytes] of Object.entries(files)) {
    it(`${name}, at each byte of its headers and then at every 97th`, async () => {
      for (let length = 0; length < bytes.length; length += length < 600 ? 1 : 97)
        await survives(bytes.subarray(0, length))
    })
  }

  it('flattened kdump', async () => {
    for (let length = 0; length < flat.length; length += length < 4200 ? 31 : 1999)
      await survives(flat.subarray(0, length))
  })
})

describe('bits flipped', () => {
  const change = fc.record({
    at: fc.nat({ max: 1 << 20 }),
    bytes: fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 8 }),
      fc.constantFrom(
        new Uint8Array(8).fill(0xff),
        new Uint8Array(8),
        Uint8Array.of(0xff, 0xff, 0xff, 0x7f),
        Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0x80),
      ),
    ),
  })
  for (const [name, bytes] of Object.entries({ ...files, flat, zstd })) {
    it(`${name}, up to six changes, most of them in the headers`, async () => {
      const headers = Math.min(bytes.length, name === 'flat' ? 12_000 : 700)
      await fc.assert(
        fc.asyncProperty(
          fc.array(change, { minLength: 1, maxLength: 6 }),
          fc.boolean(),
          async (changes, anywhere) => {
            const hurt = Buffer.from(bytes)
            for (const { at, bytes: patch } of changes) {
              const offset = at % (anywhere ? hurt.length : headers)
              hurt.set(patch.subarray(0, hurt.length - offset), offset)
            }
            await survives(hurt)
          },
        ),
        { numRuns: name === 'zstd' || name === 'flat' ? 60 : 250 },
      )
    })
  }
})

describe('counts that promise more than there is', () => {
  const offsetOf = (struct: StructType, field: string): number =>
    fieldOf(struct, field, CONTAINER_TARGET).offset

  /** A changed copy of a file, which may grow to `size` without taking room. */
  function save(bytes: Uint8Array, change: (view: DataView) => void, size = bytes.length): string {
    const copy = new Uint8Array(bytes)
    change(new DataView(copy.buffer))
    const fd = openSync(path, 'w')
    writeSync(fd, copy)
    ftruncateSync(fd, size)
    return path
  }

  it('allocates nothing for them', async () => {
    const before = process.memoryUsage().rss
    const phnum = offsetOf(elf64Ehdr, 'e_phnum')
    expect(await problemOf(save(elf, (view) => view.setUint16(phnum, 0xfffe, true)))).toMatch(
      /expected 65534 program headers at offset 0x40, number \d+ is missing/,
    )
    expect(
      await problemOf(
        save(elf, (view) => {
          view.setUint16(phnum, 0xffff, true)
          view.setBigUint64(offsetOf(elf64Ehdr, 'e_shoff'), 4096n, true)
        }),
      ),
    ).toMatch(new RegExp(`: \\d+ ELF segments; at most ${MAX_SEGMENTS} are read`))
    expect(await problemOf(save(elf, (view) => view.setUint16(phnum, 0xffff, true)))).toMatch(
      /e_phnum is 65535, so the number is in section header 0, but offset 0x0 holds none/,
    )
    const phoff = offsetOf(elf64Ehdr, 'e_phoff')
    expect(await problemOf(save(elf, (view) => view.setBigUint64(phoff, (1n << 64n) - 1n, true)))).toMatch(
      /number 0 is missing/,
    )
    const bitmaps = offsetOf(diskDumpHeader, 'bitmap_blocks')
    const frames = 4096 + offsetOf(kdumpSubHeader, 'max_mapnr_64')
    expect(await problemOf(save(kdump, (view) => view.setUint32(bitmaps, 0xffff_fffe, true)))).toMatch(
      /bitmaps are cut off/,
    )
    expect(await problemOf(save(kdump, (view) => view.setBigUint64(frames, 1n << 36n, true)))).toMatch(
      /too short for/,
    )
    expect(
      await problemOf(
        save(kdump, (view) => {
          view.setUint32(bitmaps, 1 << 22, true)
          view.setBigUint64(frames, 1n << 36n, true)
        }),
      ),
    ).toMatch(/bitmaps are cut off/)
    expect(process.memoryUsage().rss - before).toBeLessThan(64 << 20)
  })

  it('refuses segments that share bytes of the file over and over', async () => {
    const size = offsetOf(elf64Phdr, 'p_align') + 8
    const phdr = 64 + 2 * size
    const shared = save(
      elf,
      (view) => view.setBigUint64(phdr + offsetOf(elf64Phdr, 'p_filesz'), 1n << 20n, true),
      1 << 20,
    )
    expect((await open(shared)).ranges.length).toBe(2)
    const loads = 2000
    const many = new Uint8Array(64 + loads * size + 0x10_0000)
    many.set(elf.subarray(0, 64))
    const view = new DataView(many.buffer)
    view.setUint16(offsetOf(elf64Ehdr, 'e_phnum'), loads, true)
    for (let index = 0; index < loads; index += 1) {
      many.set(elf.subarray(64 + size, 64 + 2 * size), 64 + index * size)
      const field = (name: string): number => 64 + index * size + offsetOf(elf64Phdr, name)
      view.setBigUint64(field('p_paddr'), BigInt(index) << 32n, true)
      view.setBigUint64(field('p_filesz'), 0x8_0000n, true)
      view.setBigUint64(field('p_memsz'), 0x8_0000n, true)
    }
    writeFileSync(path, many)
    expect(await problemOf(path)).toMatch(/its segments have 1048576000 bytes in the file, which has \d+/)
  })
})
