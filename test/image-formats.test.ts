/**
 * What each container format has of its own: /proc/kcore's unknown addresses, overlapping segments,
 * split dumps, damaged pages, notes; built here byte by byte, from the declared headers.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  CONTAINER_TARGET,
  diskDumpHeader,
  dumpFlags,
  ET_CORE,
  elf64Ehdr,
  elf64Nhdr,
  elf64Phdr,
  kdumpPageDesc,
  kdumpSubHeader,
  limeHeader,
  PT_LOAD,
  PT_NOTE,
} from '../abi/container.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { phys } from '../abi/memory.ts'
import { writeElf } from '../encode/image-elf.ts'
import { writeKdump } from '../encode/image-kdump.ts'
import { encodeStruct } from '../encode/write.ts'
import {
  bytesOf,
  digest,
  noise,
  open,
  problemOf,
  statesOf,
  TestMemory,
  temporaryDirectory,
  unpackedFixture,
  writeImage,
} from './support/containers.ts'

const directory = temporaryDirectory()
let files = 0

function save(bytes: Uint8Array): string {
  files += 1
  const path = join(directory, `file${files}`)
  writeFileSync(path, bytes)
  return path
}

interface Load {
  readonly pa: bigint
  readonly bytes: Uint8Array
  readonly va?: bigint
  readonly memsz?: bigint
  readonly type?: number
}

/** An ELF core file of the given segments, their bytes one after the other. */
function elfOf(
  loads: readonly Load[],
  header: { e_type?: number; ei_class?: number; ei_data?: number; e_phentsize?: number } = {},
): Uint8Array {
  const ehdrBytes = layoutOf(elf64Ehdr, CONTAINER_TARGET).size
  const phdrBytes = layoutOf(elf64Phdr, CONTAINER_TARGET).size
  const ehdr = encodeStruct(
    elf64Ehdr,
    {
      ei_magic: Uint8Array.of(0x7f, 0x45, 0x4c, 0x46),
      ei_class: 2,
      ei_data: 1,
      ei_version: 1,
      ei_osabi: 0,
      ei_pad: new Uint8Array(),
      e_type: ET_CORE,
      e_machine: 62,
      e_version: 1,
      e_entry: 0n,
      e_phoff: BigInt(ehdrBytes),
      e_shoff: 0n,
      e_flags: 0,
      e_ehsize: ehdrBytes,
      e_phentsize: phdrBytes,
      e_phnum: loads.length,
      e_shentsize: 0,
      e_shnum: 0,
      e_shstrndx: 0,
      ...header,
    },
    CONTAINER_TARGET,
  )
  let offset = ehdrBytes + loads.length * phdrBytes
  const phdrs = loads.map(({ pa, bytes, va = 0n, memsz = BigInt(bytes.length), type = PT_LOAD }) => {
    const p_offset = BigInt(offset)
    offset += bytes.length
    const sizes = { p_filesz: BigInt(bytes.length), p_memsz: memsz }
    return encodeStruct(
      elf64Phdr,
      { p_type: type, p_flags: 4, p_offset, p_vaddr: va, p_paddr: pa, ...sizes, p_align: 0n },
      CONTAINER_TARGET,
    )
  })
  return Buffer.concat([ehdr, ...phdrs, ...loads.map(({ bytes }) => bytes)])
}

const KERNEL = 0xffff_8880_0000_0000n

describe('ELF core', () => {
  it('leaves segments of /proc/kcore out that have no physical address', async () => {
    const unknown = { pa: (1n << 64n) - 1n, va: 0xffff_c900_0000_0000n, bytes: noise(4096) }
    const known = { pa: 0x10_0000n, va: KERNEL + 0x10_0000n, bytes: noise(8192, 5) }
    const image = await open(save(elfOf([unknown, known])))
    expect(image.ranges).toEqual([{ start: 0x10_0000n, end: 0x10_2000n }])
    expect(image.warnings).toEqual([
      expect.stringContaining('1 segments without a physical address are left out'),
    ])
    image.close()
  })

  it('takes 0 for an address, unless several kernel mappings claim it', async () => {
    const low = { pa: 0n, va: KERNEL, bytes: noise(4096) }
    const image = await open(save(elfOf([low])))
    expect(image.ranges).toEqual([{ start: 0n, end: 0x1000n }])
    image.close()
    const kcore = save(elfOf([low, { ...low, va: 0xffff_c900_0000_0000n }]))
    expect(await problemOf(kcore)).toBe(
      `${kcore}: ELF core file whose 2 memory segments have no physical address`,
    )
  })

  it('takes the first of overlapping segments, and what is there before what was left out', async () => {
    const first = { pa: 0x2000n, bytes: noise(0x2000, 1) }
    const second = { pa: 0x1000n, bytes: noise(0x4000, 2) }
    const leftOut = { pa: 0x0n, bytes: new Uint8Array(), memsz: 0x8000n }
    const image = await open(save(elfOf([leftOut, first, second])))
    expect(statesOf(image).map(({ state, start, end }) => [state, start, end])).toEqual([
      ['excluded', 0n, 0x1000n],
      ['present', 0x1000n, 0x5000n],
      ['excluded', 0x5000n, 0x8000n],
      ['hole', 0x8000n, 1n << 64n],
    ])
    expect(bytesOf(image, { start: 0x2000n, end: 0x4000n })).toEqual(first.bytes)
    expect(bytesOf(image, { start: 0x4000n, end: 0x5000n })).toEqual(second.bytes.subarray(0x3000))
    expect(image.warnings).toEqual([expect.stringContaining('1 segments overlap earlier ones')])
    expect(image.presence(phys(0x6000n)).reason).toMatch(
      /left out by the dumper \(segment at 0x0 has 0x0 of 0x8000 bytes/,
    )
    image.close()
  })

  it('excludes what lies behind the end of the file', async () => {
    const path = save(elfOf([{ pa: 0x1000n, bytes: noise(0x3000) }]).subarray(0, 120 + 0x1800))
    const image = await open(path)
    expect(
      statesOf(image)
        .map(({ state, start, end }) => [state, start, end])
        .slice(1, 3),
    ).toEqual([
      ['present', 0x1000n, 0x2800n],
      ['excluded', 0x2800n, 0x4000n],
    ])
    expect(image.presence(phys(0x3000n)).reason).toBe(
      `${path}: the file ends at offset ${120 + 0x1800}, before this memory`,
    )
    expect(image.warnings).toEqual([
      `${path}: is cut off: the file ends at offset ${120 + 0x1800}, ${0x1800} bytes of memory early`,
    ])
    image.close()
  })

  it('finds its way among thousands of segments in any order', async () => {
    const loads = Array.from({ length: 5000 }, (_, index) => ({
      pa: BigInt(((index * 7919) % 5000) * 0x3000),
      bytes: Uint8Array.of(index & 0xff, index >> 8),
    }))
    const image = await open(save(elfOf(loads)))
    expect(image.ranges.length).toBe(5000)
    for (const { pa, bytes } of loads) expect(bytesOf(image, { start: pa, end: pa + 2n })).toEqual(bytes)
    image.close()
  })

  it('reads notes, and says where one does not fit', async () => {
    const noteOf = (name: string, type: number, desc: Uint8Array, descsz = desc.length): Uint8Array => {
      const text = new TextEncoder().encode(`${name}\0`)
      const header = encodeStruct(
        elf64Nhdr,
        { n_namesz: text.length, n_descsz: descsz, n_type: type },
        CONTAINER_TARGET,
      )
      const pad = (bytes: Uint8Array): Uint8Array => Buffer.concat([bytes, new Uint8Array(-bytes.length & 3)])
      return Buffer.concat([header, pad(text), pad(desc)])
    }
    const info = noteOf(
      'VMCOREINFO',
      0,
      new TextEncoder().encode('OSRELEASE=7.3.4\nPAGESIZE=16384\nSYMBOL(x)=0\n'),
    )
    const notes = Buffer.concat([noteOf('KHO', 1, noise(32)), info, noteOf('LATE', 3, noise(8), 4000)])
    const path = save(
      elfOf([
        { pa: 0n, bytes: notes, memsz: 0n, type: PT_NOTE },
        { pa: 0x1000n, bytes: noise(8192) },
      ]),
    )
    const image = await open(path)
    expect(image.notes.map(({ name, type, desc }) => [name, type, desc.length])).toEqual([
      ['KHO', 1, 32],
      ['VMCOREINFO', 0, 43],
    ])
    expect(image.notes[0]?.desc).toEqual(noise(32))
    expect(image.pageSize).toBe(16384)
    expect(image.warnings).toEqual([
      `${path}: note at offset ${176 + notes.length - 28} does not fit its ${notes.length} bytes of notes`,
    ])
    image.close()
  })

  it('says what it is that is no core file of a 64-bit little-endian machine', async () => {
    const load = [{ pa: 0n, bytes: noise(16) }]
    const cases: readonly [Uint8Array, RegExp][] = [
      [elfOf(load, { ei_class: 1 }), /32-bit ELF file \(class 1 at offset 4\)/],
      [elfOf(load, { ei_data: 2 }), /big-endian ELF file \(data 2 at offset 5\)/],
      [elfOf(load, { e_type: 2 }), /e_type at offset 16 is 2 \(executable\), expected 4 \(core\)/],
      [elfOf(load, { e_type: 3 }), /e_type at offset 16 is 3 \(shared object\)/],
      [elfOf(load, { e_phentsize: 32 }), /program headers of 32 bytes \(offset 54\), expected 56/],
      [elfOf(load).subarray(0, 40), /ELF header is cut off; expected 64 bytes, the file ends at offset 40/],
      [
        elfOf(load).subarray(0, 100),
        /expected 1 program headers at offset 0x40, number 0 is missing, the file ends at offset 100/,
      ],
      [elfOf([]), /ELF core file without memory segments \(PT_LOAD\)/],
    ]
    for (const [bytes, message] of cases) expect(await problemOf(save(bytes))).toMatch(message)
  })
})

describe('LiME', () => {
  const range = (
    start: bigint,
    bytes: Uint8Array,
    fields: { magic?: number; version?: number; e_addr?: bigint } = {},
  ): Uint8Array => {
    const header = {
      magic: 0x4c69_4d45,
      version: 1,
      s_addr: start,
      e_addr: start + BigInt(bytes.length) - 1n,
      reserved: new Uint8Array(),
      ...fields,
    }
    return Buffer.concat([encodeStruct(limeHeader, header, CONTAINER_TARGET), bytes])
  }
  const first = range(0x1000n, noise(0x9e400))
  const second = range(0x10_0000n, noise(0x2000, 2))

  it('takes ranges with their inclusive ends', async () => {
    const image = await open(save(Buffer.concat([first, second])))
    expect(image.format).toBe('lime')
    expect(image.ranges).toEqual([
      { start: 0x1000n, end: 0x9_f400n },
      { start: 0x10_0000n, end: 0x10_2000n },
    ])
    expect(image.filePosition(phys(0x10_0004n))).toMatchObject({ offset: first.length + 32 + 4 })
    expect(bytesOf(image, { start: 0x10_0000n, end: 0x10_2000n })).toEqual(noise(0x2000, 2))
    image.close()
  })

  it('keeps the ranges before damage, and says where that is', async () => {
    const cases: readonly [Uint8Array, RegExp][] = [
      [
        range(0x20_0000n, noise(16), { magic: 0x1234 }),
        /no LiME header: expected the magic 0x4c694d45, found 0x1234 \(offset 656448\)/,
      ],
      [range(0x20_0000n, noise(16), { version: 7 }), /LiME header of version 7; expected 1 \(offset/],
      [
        range(0x20_0000n, noise(16), { e_addr: 0n }),
        /LiME range ends before it starts \(0x200000 to 0x0\) \(offset/,
      ],
      [
        second.subarray(0, 20),
        /LiME header is cut off; expected 32 bytes, the file ends at offset 656468 \(offset 656448\)/,
      ],
    ]
    for (const [rest, message] of cases) {
      const image = await open(save(Buffer.concat([first, second, rest])))
      expect(image.ranges.length).toBe(2)
      expect(image.warnings).toEqual([expect.stringMatching(message)])
      image.close()
    }
  })

  it('excludes what lies behind the end of the file', async () => {
    const image = await open(save(Buffer.concat([first, second.subarray(0, 32 + 0x800)])))
    expect(
      statesOf(image)
        .map(({ state, end }) => [state, end])
        .slice(3, 5),
    ).toEqual([
      ['present', 0x10_0800n],
      ['excluded', 0x10_2000n],
    ])
    expect(image.warnings).toEqual([
      expect.stringMatching(/is cut off: the file ends at offset \d+, 6144 bytes of memory early$/),
    ])
    image.close()
  })

  it('names compressed AVML images', async () => {
    const path = save(range(0x1000n, noise(64), { magic: 0x4c4d_5641, version: 2 }))
    expect(await problemOf(path)).toBe(
      `${path}: AVML's compressed form, version 2; make it a LiME image with avml-convert (offset 0)`,
    )
  })
})

describe('kdump', () => {
  const memory = new TestMemory([
    { start: 0x1000n, content: noise(0x4000) },
    { start: 0x5000n, content: 0x1000n },
    { start: 0x10_0000n, content: new TextEncoder().encode('0123456789abcdef'.repeat(1024)) },
  ])
  const path = writeImage(
    join(directory, 'base.kdump'),
    writeKdump(memory, { arch: 'x86_64', pageSize: 4096 }),
  )
  const at = {
    status: fieldOf(diskDumpHeader, 'status', CONTAINER_TARGET).offset,
    blockSize: fieldOf(diskDumpHeader, 'block_size', CONTAINER_TARGET).offset,
    split: 4096 + fieldOf(kdumpSubHeader, 'split', CONTAINER_TARGET).offset,
    start: 4096 + fieldOf(kdumpSubHeader, 'start_pfn_64', CONTAINER_TARGET).offset,
    end: 4096 + fieldOf(kdumpSubHeader, 'end_pfn_64', CONTAINER_TARGET).offset,
    descriptors: 4 * 4096,
    flags: fieldOf(kdumpPageDesc, 'flags', CONTAINER_TARGET).offset,
  }
  const descriptorBytes = layoutOf(kdumpPageDesc, CONTAINER_TARGET).size

  function patched(change: (view: DataView, bytes: Uint8Array) => void) {
    const bytes = new Uint8Array(readFileSync(path))
    change(new DataView(bytes.buffer, bytes.byteOffset), bytes)
    return save(bytes)
  }

  /** The uncompressed dump of QEMU as makedumpfile --split makes it: a part holds its frames' descriptors. */
  function partOf(start: number, end: number): string {
    const bytes = unpackedFixture('qemu-x86_64.kdump-none.gz')
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    view.setUint32(at.split, 1, true)
    view.setBigUint64(at.start, BigInt(start), true)
    view.setBigUint64(at.end, BigInt(end), true)
    const blocks = 1 + view.getUint32(432, true) + view.getUint32(436, true)
    // Below 4 MiB every frame was dumped, so a frame's rank is its number.
    const table = blocks * 4096
    bytes.copyWithin(table, table + start * descriptorBytes, table + 1024 * descriptorBytes)
    bytes.fill(0, table + (1024 - start) * descriptorBytes, table + 1024 * descriptorBytes)
    return save(bytes)
  }

  it('reads split dumps, in any order of the files', async () => {
    const whole = await open(save(unpackedFixture('qemu-x86_64.kdump-none.gz')))
    const parts = [partOf(0, 0x210), partOf(0x210, 0x301), partOf(0x301, 0x400)].map((part) => ({
      path: part,
    }))
    const image = await open([parts[2], parts[0], parts[1]] as { path: string }[])
    const low = { start: 0n, end: 0x40_0000n }
    expect(digest(bytesOf(image, low))).toBe(digest(bytesOf(whole, low)))
    expect(image.presence(phys(0xffff_0000n))).toMatchObject({
      state: 'excluded',
      reason: 'in another file of this split dump',
    })
    image.close()
    const incomplete = await open([parts[0], parts[2]] as { path: string }[])
    expect(
      statesOf(incomplete)
        .map(({ state, start, end }) => [state, start, end])
        .slice(0, 3),
    ).toEqual([
      ['present', 0n, 0x21_0000n],
      ['excluded', 0x21_0000n, 0x30_1000n],
      ['present', 0x30_1000n, 0x40_0000n],
    ])
    incomplete.close()
    whole.close()
    expect(await problemOf([parts[0], parts[0]] as { path: string }[])).toMatch(
      /both hold page frame 0; expected the files of one split dump/,
    )
    expect(await problemOf([{ path }, parts[0]] as { path: string }[])).toMatch(
      /does not belong to the same dump/,
    )
  })

  it('excludes damaged pages one by one, each with its reason', async () => {
    const cases: readonly [(view: DataView, descriptor: number) => void, RegExp][] = [
      [
        (view, descriptor) => view.setUint32(descriptor + at.flags, dumpFlags.ZLIB, true),
        /page is damaged: no sound zlib data \(data at offset \d+\)/,
      ],
      [
        (view, descriptor) => view.setUint32(descriptor + at.flags, dumpFlags.LZO, true),
        /page is damaged: no sound LZO data/,
      ],
      [
        (view, descriptor) => view.setUint32(descriptor + at.flags, dumpFlags.SNAPPY, true),
        /page is damaged: no sound Snappy data/,
      ],
      [
        (view, descriptor) => view.setUint32(descriptor + at.flags, dumpFlags.ZSTD, true),
        /compressed with zstd, but the header does not say so/,
      ],
      [
        (view, descriptor) => view.setUint32(descriptor + at.flags, 3, true),
        /several kinds of compression \(flags 3\)/,
      ],
      [
        (view, descriptor) => view.setUint32(descriptor + 8, 0, true),
        /page data of 0 bytes; expected 1 to 4096/,
      ],
      [
        (view, descriptor) => view.setUint32(descriptor + 8, 0xffff_ffff, true),
        /page data of 4294967295 bytes; expected 1 to 4096/,
      ],
      [(view, descriptor) => view.setUint32(descriptor + 8, 100, true), /uncompressed page of 100 bytes/],
      [
        (view, descriptor) => view.setBigUint64(descriptor, 1n << 40n, true),
        /the file ends at offset \d+, before this page's data/,
      ],
      [
        (view, descriptor) => view.setBigUint64(descriptor, (1n << 64n) - 1n, true),
        /before this page's data/,
      ],
      [(view, descriptor) => view.setBigUint64(descriptor, 0n, true), /the dumper did not get to this page/],
    ]
    for (const [change, reason] of cases) {
      const image = await open(patched((view) => change(view, at.descriptors + descriptorBytes)))
      expect(
        statesOf(image)
          .map(({ state, start, end }) => [state, start, end])
          .slice(1, 4),
      ).toEqual([
        ['present', 0x1000n, 0x2000n],
        ['excluded', 0x2000n, 0x3000n],
        ['present', 0x3000n, 0x5000n],
      ])
      expect(image.presence(phys(0x2fffn)).reason).toMatch(reason)
      expect(image.read(phys(0x1f00n), new Uint8Array(0x300))).toBe(0x100)
      image.close()
    }
  })

  it('reports a damaged zstd page', async () => {
    const image = await open(
      patched((view) => {
        view.setUint32(at.status, dumpFlags.ZSTD, true)
        view.setUint32(at.descriptors + at.flags, dumpFlags.ZSTD, true)
      }),
    )
    expect(image.presence(phys(0x1000n)).reason).toMatch(/page is damaged: no sound zstd data/)
    expect(image.presence(phys(0x2000n)).state).toBe('present')
    image.close()
  })

  it('excludes pages behind the end of the file', async () => {
    const bytes = new Uint8Array(readFileSync(path))
    const image = await open(save(bytes.subarray(0, at.descriptors + descriptorBytes * 2 + 5)))
    expect(image.presence(phys(0x3000n)).reason).toMatch(
      /the file ends at offset \d+, before this page's descriptor/,
    )
    expect(image.presence(phys(0x2000n)).reason).toMatch(/before this page's data/)
    image.close()
  })

  it('refuses headers that cannot be', async () => {
    const cases: readonly [(view: DataView, bytes: Uint8Array) => void, RegExp][] = [
      [
        (view) => view.setUint32(at.blockSize, 4096),
        /block size 1048576, a big-endian machine; expected 4096, 16384 or 65536/,
      ],
      [
        (view) => view.setUint32(at.blockSize, 12345, true),
        /block size 12345, a damaged file, or of a 32-bit machine/,
      ],
      [(view) => view.setBigUint64(4096 + 96, 0n, true), /gives 0 page frames/],
      [
        (view) => view.setBigUint64(4096 + 96, 1n << 60n, true),
        /gives 1152921504606847000 page frames; expected 1 to 68719476736/,
      ],
      [
        (view) => view.setBigUint64(4096 + 96, 1n << 30n, true),
        /bitmap of 8192 bytes is too short for 1073741824 page frames/,
      ],
      [
        (view) => view.setUint32(436, 0xffff_ffff, true),
        /bitmaps are cut off; expected 17592186040320 bytes at offset 8192/,
      ],
      [
        (view) => view.setUint32(432, 0xffff_ffff, true),
        /bitmaps are cut off; expected 8192 bytes at offset 17592186044416/,
      ],
    ]
    for (const [change, message] of cases) expect(await problemOf(patched(change))).toMatch(message)
  })

  it('reads more pages than it keeps', async () => {
    const many = new TestMemory([{ start: 0x1000n, content: noise(700 * 4096) }])
    const image = await open(
      writeImage(join(directory, 'many.kdump'), writeKdump(many, { arch: 'x86_64', pageSize: 4096 })),
    )
    const all = { start: 0x1000n, end: 0x1000n + 700n * 4096n }
    for (let round = 0; round < 3; round += 1)
      expect(digest(bytesOf(image, all))).toBe(digest(bytesOf(many, all)))
    image.close()
  })

  it('warns of a dump that its dumper could not finish', async () => {
    const image = await open(
      patched((view) => view.setUint32(at.status, dumpFlags.ZLIB | dumpFlags.INCOMPLETE, true)),
    )
    expect(image.warnings).toEqual([expect.stringContaining('its dumper marked it as incomplete')])
    image.close()
  })

  it('is not cut by an ELF image of the same memory', async () => {
    const elf = await open(writeImage(join(directory, 'base.elf'), writeElf(memory, { arch: 'x86_64' })))
    const kdump = await open(path)
    expect(statesOf(kdump)).toEqual(statesOf(elf))
    elf.close()
    kdump.close()
  })
})
