/**
 * Images that other programs wrote (fixtures/containers): QEMU, makedumpfile, and pages compressed by
 * the real codec libraries; and the container headers against what a C compiler says of them.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as container from '../abi/container.ts'
import { layoutOf, sizeOf } from '../abi/layout.ts'
import { phys } from '../abi/memory.ts'
import type { StructType } from '../abi/schema.ts'
import {
  containerFixture,
  digest,
  noise,
  open,
  statesOf,
  temporaryDirectory,
  unpackedFixture,
} from './support/containers.ts'
import { openReal, realImages, realPath } from './support/images.ts'

const MIB = 1024 * 1024
const directory = temporaryDirectory()

/** What content.py writes into the machine, made again here. */
function expectedLowMemory(): Uint8Array {
  const memory = new Uint8Array(4 * MIB)
  memory.set(
    new TextEncoder().encode('kho-inspect container fixture\n'.repeat(400)).subarray(0, 8192),
    2 * MIB,
  )
  memory.set(wordPages(), 3 * MIB)
  memory.set(noise(4096), 4 * MIB - 4096)
  return memory
}

function wordPages(): Uint8Array {
  const words =
    'kho luo session memfd folio page vmalloc chunk radix block fdt scratch handover kexec token seal'.split(
      ' ',
    )
  const source = noise(16384 * 2, 0x2545f491).values()
  const next = (): number => source.next().value as number
  const out: number[] = []
  while (out.length < 16384) {
    out.push(...new TextEncoder().encode(`${words[next() & 15]} `))
    if (next() >= 16) continue
    const count = next() & 63
    for (let index = 0; index < count; index += 1) out.push(next())
  }
  return Uint8Array.from(out.slice(0, 16384))
}

const low = expectedLowMemory()
const lowDigest = digest(low)

/** The x86_64 machine: 4 MiB, a BIOS of zeros below 4 GiB, 2 MiB above. */
const x86States = [
  { state: 'present', start: 0n, end: 0x40_0000n, sha256: lowDigest },
  { state: 'hole', start: 0x40_0000n, end: 0xffff_0000n },
  { state: 'present', start: 0xffff_0000n, end: 0x1_0020_0000n, sha256: digest(new Uint8Array(0x21_0000)) },
  { state: 'hole', start: 0x1_0020_0000n, end: 1n << 64n },
]

describe('dumps of a QEMU machine', () => {
  for (const name of [
    'qemu-x86_64.elf.gz',
    'qemu-x86_64.kdump-zlib.flat.gz',
    'qemu-x86_64.kdump-zlib.gz',
    'qemu-x86_64.kdump-none.gz',
    'qemu-x86_64.kdump-lzo.gz',
    'qemu-x86_64.kdump-snappy.gz',
    'qemu-x86_64.kdump-zstd.gz',
  ]) {
    it(`reads ${name}, packed and unpacked`, async () => {
      const plain = join(directory, name.slice(0, -'.gz'.length))
      writeFileSync(plain, unpackedFixture(name))
      for (const path of [containerFixture(name), plain]) {
        const image = await open(path)
        expect(image.format).toBe(name.includes('kdump') ? 'kdump' : 'elf')
        expect(image.warnings).toEqual([])
        expect(image.notes.map(({ name, type }) => [name, type])).toEqual([
          ['CORE', 1],
          ['QEMU', 0],
        ])
        expect(statesOf(image)).toStrictEqual(x86States)
        image.close()
      }
    })
  }

  it('reads an arm64 machine from ELF and from blocks of 64 KiB', async () => {
    for (const name of ['qemu-aarch64.elf.gz', 'qemu-aarch64.kdump-zlib.flat.gz']) {
      const image = await open(containerFixture(name))
      expect(statesOf(image)).toStrictEqual([
        { state: 'present', start: 0n, end: 0x40_0000n, sha256: lowDigest },
        { state: 'hole', start: 0x40_0000n, end: 1n << 64n },
      ])
      expect(image.notes.map(({ name }) => name)).toEqual(['CORE', 'CORE'])
      image.close()
    }
  })

  it('reads a part of a machine', async () => {
    const image = await open(containerFixture('qemu-x86_64-part.elf.gz'))
    expect(image.ranges).toEqual([{ start: 0x1f_f000n, end: 0x20_2000n }])
    expect(statesOf(image)[1]?.sha256).toBe(digest(low.subarray(0x1f_f000, 0x20_2000)))
    image.close()
  })

  it('knows where bytes are in the file, unless they are compressed there', async () => {
    const elf = join(directory, 'position.elf')
    writeFileSync(elf, unpackedFixture('qemu-x86_64.elf.gz'))
    const kdump = join(directory, 'position.kdump')
    writeFileSync(kdump, unpackedFixture('qemu-x86_64.kdump-zlib.gz'))
    const flat = join(directory, 'position.flat')
    writeFileSync(flat, unpackedFixture('qemu-x86_64.kdump-zlib.flat.gz'))
    for (const path of [elf, kdump, flat]) {
      const image = await open(path)
      // No codec makes the page of noise smaller, so it stands as it is in each of them.
      const position = image.filePosition(phys(0x3f_f123n))
      expect(position?.file).toBe(path)
      const file = await open([{ path, address: phys(0) }], { format: 'raw' })
      const bytes = new Uint8Array(64)
      file.read(phys(position?.offset ?? 0), bytes)
      expect(bytes).toEqual(low.subarray(0x3f_f123, 0x3f_f163))
      expect(image.filePosition(phys(0x30_0000n)) === undefined).toBe(path !== elf)
      expect(image.filePosition(phys(0x40_0000n))).toBeUndefined()
      image.close()
      file.close()
    }
    const packed = await open(containerFixture('qemu-x86_64.elf.gz'))
    expect(packed.filePosition(phys(0))).toBeUndefined()
    packed.close()
  })
})

describe('captured images of real kernels', () => {
  it('holds each segment of the ELF file', async () => {
    expect(realImages.length).toBeGreaterThan(0)
    for (const name of realImages) {
      const image = await openReal(name)
      expect(image.format).toBe('elf')
      expect(image.files).toEqual([realPath(name)])
      const present = statesOf(image).filter(({ state }) => state === 'present')
      expect(present.map(({ start, end }) => ({ start, end }))).toEqual(image.ranges)
    }
  })
})

describe('container headers', () => {
  // sizeof and offsetof, printed by gcc 12.2 for x86_64 from <elf.h> and the structs of the named sources.
  const measured: Record<string, Record<string, number>> = {
    elf64Ehdr: { sizeof: 64, e_type: 16, e_phoff: 32, e_phnum: 56, e_shstrndx: 62 },
    elf64Phdr: { sizeof: 56, p_flags: 4, p_paddr: 24, p_memsz: 40 },
    elf64Shdr: { sizeof: 64, sh_info: 44 },
    elf64Nhdr: { sizeof: 12 },
    limeHeader: { sizeof: 32, e_addr: 16 },
    diskDumpHeader: {
      sizeof: 464,
      utsname: 12,
      timestamp: 408,
      status: 424,
      block_size: 428,
      bitmap_blocks: 436,
      max_mapnr: 440,
      nr_cpus: 460,
    },
    kdumpSubHeader: { sizeof: 104, split: 12, offset_note: 48, size_note: 56, max_mapnr_64: 96 },
    kdumpPageDesc: { sizeof: 24, flags: 12 },
    flatHeader: { sizeof: 32, version: 24 },
    flatRecord: { sizeof: 16 },
  }

  for (const [name, numbers] of Object.entries(measured)) {
    it(`lays out ${name} as the C compiler does`, () => {
      const struct = (container as unknown as Record<string, StructType>)[name] as StructType
      const fields = layoutOf(struct, container.CONTAINER_TARGET).fields
      for (const [field, number] of Object.entries(numbers)) {
        if (field === 'sizeof') expect(sizeOf(struct, container.CONTAINER_TARGET)).toBe(number)
        else expect(fields.find((candidate) => candidate.name === field)?.offset, field).toBe(number)
      }
    })
  }
})
