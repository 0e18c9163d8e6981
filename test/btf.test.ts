/** A kernel's BTF: the real one, altered ones, wrong ones, and the files in which it is found. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { gunzipSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { PAGE_SIZES } from '../abi/layout.ts'
import {
  checkConstants,
  checkStructs,
  declaredConstants,
  declaredStructs,
  type StructCheck,
  versionChecks,
} from '../inspect/abi-check.ts'
import { type Btf, findConstants, findStructs, isBtfProblem, openBtf } from '../inspect/btf.ts'
import { isProblem, openFile } from '../inspect/image-source.ts'
import { findKernelBtf } from '../inspect/kernel-image.ts'
import { BtfBuilder } from './support/btf.ts'
import { ROOT } from './support/images.ts'

const FIXTURES = `${ROOT}fixtures/btf/`
const blob = new Uint8Array(gunzipSync(readFileSync(`${FIXTURES}linux-7.3-x86_64.btf.gz`)))

function opened(bytes: Uint8Array): Btf {
  const btf = openBtf(bytes)
  if (isBtfProblem(btf)) throw new Error(btf.problem)
  return btf
}

function problemOf(bytes: Uint8Array): string {
  const btf = openBtf(bytes)
  return isBtfProblem(btf) ? btf.problem : 'none'
}

function check(bytes: Uint8Array): readonly StructCheck[] {
  return checkStructs(findStructs(opened(bytes), new Set(declaredStructs().keys())), PAGE_SIZES)
}

describe('a real 7.3 kernel', () => {
  const structs = check(blob)

  test('every struct that it has matches', () => {
    expect(structs.filter(({ status }) => status === 'differs')).toEqual([])
    expect(
      structs
        .filter(({ status }) => status === 'matches')
        .map(({ name, versions, pageSizes }) => [name, versions.at(-1), pageSizes.length]),
    ).toEqual([
      ['kho_vmalloc', 'kho-test-v1', 3],
      ['kho_vmalloc_chunk', 'kho-test-v1', 1],
      ['kho_vmalloc_hdr', 'kho-test-v1', 3],
      ['kho_radix_node', 'kho-v4', 1],
      ['kho_radix_leaf', 'kho-v4', 1],
      ['kho_block_header_ser', 'luo-v5', 3],
      ['kho_kexec_metadata', 'kexec-metadata-1', 3],
      ['luo_session_ser', 'luo-v5', 3],
      ['luo_file_set_ser', 'luo-v5', 3],
      ['luo_file_ser', 'luo-v5', 3],
      ['luo_flb_header_ser', 'luo-v5', 3],
      ['luo_flb_ser', 'luo-v5', 3],
      ['luo_ser', 'luo-v5', 3],
      ['memfd_luo_ser', 'memfd-v2', 3],
      ['memfd_luo_folio_ser', 'memfd-v2', 3],
      ['setup_data', 'setup_data', 3],
      ['kho_data', 'kho_data', 3],
      ['kho_scratch', 'kho_scratch', 3],
      ['liveupdate_ioctl_create_session', '/dev/liveupdate', 3],
      ['liveupdate_ioctl_retrieve_session', '/dev/liveupdate', 3],
      ['liveupdate_session_preserve_fd', '/dev/liveupdate', 3],
      ['liveupdate_session_retrieve_fd', '/dev/liveupdate', 3],
      ['liveupdate_session_finish', '/dev/liveupdate', 3],
      ['liveupdate_session_get_name', '/dev/liveupdate', 3],
    ])
  })

  test('structs of older kernels are absent', () => {
    expect(structs.filter(({ status }) => status === 'absent').map(({ name }) => name)).toEqual([
      'khoser_mem_chunk',
      'khoser_mem_chunk_hdr',
      'khoser_mem_bitmap_ptr',
      'kho_mem_phys_bits',
      'luo_session_header_ser',
    ])
  })

  test('which versions that makes', () => {
    const status = Object.fromEntries(
      versionChecks(structs).map(({ version, status: one }) => [version, one]),
    )
    expect([
      status['luo-v5'],
      status['luo-v1'],
      status['luo-v2'],
      status['memfd-v2'],
      status['memfd-v1'],
    ]).toEqual(['matches', 'partly', 'differs', 'matches', 'differs'])
    expect([status['kho-v1/bitmap-512'], status['kho-v4'], status['/dev/liveupdate']]).toEqual([
      'absent',
      'matches',
      'matches',
    ])
  })

  test('its constants give the page size', () => {
    const constants = checkConstants(findConstants(opened(blob), declaredConstants()), PAGE_SIZES)
    expect(constants.map(({ name, value, pageSizes }) => [name, value, pageSizes])).toEqual([
      ['KHO_RADIX_KEY_WIDTH', 53, [4096]],
      ['KHO_TABLE_SIZE_LOG2', 9, [4096]],
      ['KHO_BITMAP_SIZE_LOG2', 15, [4096]],
      ['KHO_TREE_MAX_DEPTH', 6, [4096]],
    ])
  })
})

describe('altered kernels are refused with the field named', () => {
  const { altered } = JSON.parse(readFileSync(`${FIXTURES}altered.json`, 'utf8')) as {
    altered: {
      name: string
      struct: string
      patch: { at: number; from: string; to: string }[]
      expect: { where: string; expected: string; found: string }[]
    }[]
  }

  test.each(altered)('$name', ({ struct, patch, expect: differences }) => {
    const bytes = Buffer.from(blob)
    for (const { at, from, to } of patch) {
      expect(bytes.subarray(at, at + 4).toString('hex')).toBe(from)
      bytes.write(to, at, 'hex')
    }
    const differing = check(bytes).filter(({ status }) => status === 'differs')
    expect(differing.map(({ name }) => name)).toEqual([struct])
    expect(differing[0]?.nearest?.differences).toEqual(differences)
  })
})

test('what gcc and pahole make of the exported header, at 16K pages', () => {
  const structs = check(new Uint8Array(readFileSync(`${FIXTURES}exported-16k.btf`)))
  const present = structs.filter(({ status }) => status !== 'absent')
  expect(present.map(({ status }) => status)).toEqual(Array(15).fill('matches'))
  expect(
    present
      .filter(({ pageSizes }) => pageSizes.length === 1)
      .map(({ name, pageSizes }) => [name, pageSizes[0]]),
  ).toEqual([
    ['kho_vmalloc_chunk', 16384],
    ['kho_radix_node', 16384],
    ['kho_radix_leaf', 16384],
  ])
})

describe('types in every form', () => {
  test('typedefs, anonymous unions and unnamed bit fields', () => {
    const btf = new BtfBuilder()
    const u64 = btf.typedef('u64', btf.int('long unsigned int', 8))
    const u32 = btf.int('unsigned int', 4)
    const union = btf.struct(
      '',
      8,
      [
        ['phys', u64, 0],
        ['ptr', btf.type('', 2, 0, 0), 0],
      ],
      5,
    )
    btf.struct('kho_block_header_ser', 16, [
      ['next', u64, 0],
      ['count', btf.type('', 10, 0, u64), 64],
    ])
    btf.struct('kho_data', 40, [
      ['', union, 0],
      ['', u32, 64, 20],
      ['tail', btf.array(btf.array(u32, 2), 3), 128],
    ])
    const found = findStructs(opened(btf.build()), new Set(['kho_block_header_ser', 'kho_data']))
    expect(checkStructs(found, [4096]).find(({ name }) => name === 'kho_block_header_ser')?.status).toBe(
      'matches',
    )
    expect(found.get('kho_data')?.[0]?.members).toEqual([
      { name: 'phys', bitOffset: 0, bits: 64, bitField: false },
      { name: 'ptr', bitOffset: 0, bits: 64, bitField: false },
      { name: '', bitOffset: 64, bits: 20, bitField: true },
      { name: 'tail', bitOffset: 128, bits: 192, bitField: false, count: 6 },
    ])
  })

  test('one name, two structs: a match of either decides', () => {
    const btf = new BtfBuilder()
    const u64 = btf.int('long unsigned int', 8)
    btf.struct('kho_block_header_ser', 8, [['other', u64, 0]])
    btf.struct('kho_block_header_ser', 16, [
      ['next', u64, 0],
      ['count', u64, 64],
    ])
    expect(check(btf.build()).find(({ name }) => name === 'kho_block_header_ser')?.status).toBe('matches')
  })

  test('an unknown member is named', () => {
    const btf = new BtfBuilder()
    const u64 = btf.int('long unsigned int', 8)
    btf.struct('kho_block_header_ser', 24, [
      ['next', u64, 0],
      ['count', u64, 64],
      ['crc', u64, 128],
    ])
    expect(
      check(btf.build()).find(({ name }) => name === 'kho_block_header_ser')?.nearest?.differences,
    ).toEqual([
      { where: 'kho_block_header_ser', expected: '16 bytes', found: '24 bytes' },
      { where: 'kho_block_header_ser.crc', expected: 'no such member', found: '8 bytes at offset 16' },
    ])
  })
})

describe('malformed blobs', () => {
  const patched = (at: number, bytes: readonly number[], base = blob): Uint8Array => {
    const copy = base.slice()
    copy.set(bytes, at)
    return copy
  }

  test.each([
    ['empty', new Uint8Array(), 'BTF magic 0xeb9f expected, found 0x0'],
    ['another magic', patched(0, [0x7f, 0x45]), 'BTF magic 0xeb9f expected, found 0x457f'],
    ['big-endian', patched(0, [0xeb, 0x9f]), 'BTF is big-endian; KHO exists on little-endian machines only'],
    ['another version', patched(2, [9]), 'BTF version 1 expected, found 9'],
    ['a header that is cut off', blob.slice(0, 23), 'BTF header is cut off: 23 of 24 bytes'],
    ['a header without room', patched(4, [0, 0, 0, 0]), 'BTF header length 0 is impossible in 2051417 bytes'],
    [
      'types that are cut off',
      blob.slice(0, 1000),
      'BTF types end at offset 1208260, the blob has 1000 bytes: it is cut off',
    ],
    [
      'names that are cut off',
      blob.slice(0, -1),
      'BTF names end at offset 2051417, the blob has 2051416 bytes: it is cut off',
    ],
    ['names without an end', patched(blob.length - 1, [65]), 'BTF names must begin and end with a NUL'],
    ['an unknown kind', patched(24 + 7, [0x1f]), 'BTF type 1 at offset 0x0 is of unknown kind 31'],
    [
      'a name beyond the names',
      patched(24, [0xff, 0xff, 0xff, 0x7f]),
      'BTF type 1 at offset 0x0 has its name at 0x7fffffff, beyond the 843157 bytes of names',
    ],
  ])('%s', (_title, bytes, problem) => {
    expect(problemOf(bytes)).toBe(problem)
  })

  test('a record that reaches beyond the types', () => {
    const btf = new BtfBuilder()
    btf.type('short', 4, 1000, 8)
    expect(problemOf(btf.build())).toBe('BTF type 1 at offset 0x0 reaches beyond the end of the types')
  })

  test('a type that does not exist', () => {
    const btf = new BtfBuilder()
    btf.struct('memfd_luo_ser', 8, [['pos', 7, 0]])
    expect(problemOf(btf.build())).toBe(
      "BTF type 1 at offset 0x0 refers to type 7 of 1; a module's BTF needs the kernel's",
    )
  })

  test.each([
    ['a typedef of itself', (btf: BtfBuilder) => btf.typedef('loop', 1), 'BTF type 1 (loop) contains itself'],
    [
      'a struct inside itself',
      (btf: BtfBuilder) => btf.struct('kho_data', 8, [['inner', 1, 0]]),
      'BTF type 1 (kho_data) contains itself',
    ],
    [
      'a cycle of three',
      (btf: BtfBuilder) => {
        btf.typedef('a', 2)
        btf.array(3, 4)
        btf.struct('kho_data', 8, [['inner', 1, 0]])
      },
      'BTF type 1 (a) contains itself',
    ],
    [
      'a tower of typedefs',
      (btf: BtfBuilder) => {
        for (let id = 1; id < 2000; id += 1) btf.typedef('', id + 1)
        btf.int('int', 4)
      },
      'BTF type 1488 holds types 513 levels deep',
    ],
  ])('%s', (_title, build, problem) => {
    const btf = new BtfBuilder()
    build(btf)
    expect(problemOf(btf.build())).toBe(problem)
  })

  test('a pointer to itself is no cycle', () => {
    const btf = new BtfBuilder()
    btf.struct('kho_data', 8, [['next', 2, 0]])
    btf.type('', 2, 0, 1)
    expect(problemOf(btf.build())).toBe('none')
  })

  test('cut off at any place of a small one', () => {
    const small = new Uint8Array(readFileSync(`${FIXTURES}exported-16k.btf`))
    for (let length = 0; length < small.length; length += 1)
      expect(problemOf(small.slice(0, length))).not.toBe('none')
  })

  test('random bytes and random changes never throw, nor take long', () => {
    const small = new Uint8Array(readFileSync(`${FIXTURES}exported-16k.btf`))
    const changes = fc.array(fc.tuple(fc.nat(small.length - 1), fc.integer({ min: 0, max: 255 })), {
      maxLength: 8,
    })
    const header = Uint8Array.of(0x9f, 0xeb, 1, 0, 24, 0, 0, 0)
    const use = (bytes: Uint8Array): void => {
      const btf = openBtf(bytes)
      if (isBtfProblem(btf)) return
      checkStructs(findStructs(btf, new Set(declaredStructs().keys())), PAGE_SIZES)
      findConstants(btf, declaredConstants())
    }
    fc.assert(
      fc.property(changes, fc.uint8Array({ maxLength: 400 }), (patches, noise) => {
        const bytes = small.slice()
        for (const [at, byte] of patches) bytes[at] = byte
        use(bytes)
        use(noise)
        use(Uint8Array.of(...header, ...noise))
      }),
      { numRuns: 400, verbose: true },
    )
  })
})

describe('where it is found', () => {
  let directory: string
  beforeAll(() => {
    directory = mkdtempSync(`${tmpdir()}/kho-inspect-btf-`)
  })
  afterAll(() => rmSync(directory, { recursive: true }))

  const small = readFileSync(`${FIXTURES}exported-16k.btf`)

  async function find(bytes: Uint8Array): Promise<string> {
    const path = `${directory}/file`
    writeFileSync(path, bytes)
    const source = openFile(path)
    if (isProblem(source)) return source.problem
    const found = await findKernelBtf(source)
    if (isProblem(found)) return found.problem.replace(path, 'file')
    expect(Buffer.from(found.blob)).toEqual(small)
    return found.found
  }

  /** An ELF file with one section besides its names. */
  function elf(name: string, content: Uint8Array): Buffer {
    const names = Buffer.from(`\0${name}\0`)
    const header = Buffer.alloc(64)
    header.write('\x7fELF', 0, 'latin1')
    header.set([2, 1, 1], 4)
    const table = 64 + content.length + names.length
    header.writeBigUInt64LE(BigInt(table), 40)
    header.writeUInt16LE(64, 58)
    header.writeUInt16LE(3, 60)
    header.writeUInt16LE(2, 62)
    const section = (nameAt: number, offset: number, size: number): Buffer => {
      const record = Buffer.alloc(64)
      record.writeUInt32LE(nameAt, 0)
      record.writeBigUInt64LE(BigInt(offset), 24)
      record.writeBigUInt64LE(BigInt(size), 32)
      return record
    }
    const sections = [
      section(0, 0, 0),
      section(1, 64, content.length),
      section(0, 64 + content.length, names.length),
    ]
    return Buffer.concat([header, content, names, ...sections])
  }

  /** A bzImage with a payload, as the boot protocol lays it out. */
  function bzImage(payload: Uint8Array): Buffer {
    const setup = Buffer.alloc(1024)
    setup[0x1f1] = 1
    setup.write('HdrS', 0x202, 'latin1')
    setup.writeUInt16LE(0x020f, 0x206)
    setup.writeUInt32LE(0, 0x248)
    setup.writeUInt32LE(payload.length, 0x24c)
    return Buffer.concat([setup, payload])
  }

  test.each([
    ['a bare blob', small, 'BTF blob'],
    ['a blob, gzip-compressed', gzipSync(small), 'BTF blob, gzip-compressed'],
    ['a vmlinux', elf('.BTF', small), '.BTF section of an ELF file'],
    [
      'a vmlinux, gzip-compressed',
      gzipSync(elf('.BTF', small)),
      '.BTF section of an ELF file, gzip-compressed',
    ],
    [
      'a bzImage with gzip',
      bzImage(gzipSync(elf('.BTF', small))),
      '.BTF section of an ELF file, gzip in a bzImage',
    ],
    [
      'a bzImage that is not compressed',
      bzImage(elf('.BTF', small)),
      '.BTF section of an ELF file, ELF in a bzImage',
    ],
    [
      'a bzImage with zstd',
      readFileSync(`${FIXTURES}small-zstd.bzimage`),
      '.BTF section of an ELF file, zstd in a bzImage',
    ],
    [
      'an image that is memory',
      Buffer.concat([Buffer.alloc(4096, 0x90), small, Buffer.alloc(100)]),
      'BTF blob at offset 4096',
    ],
  ])('%s', async (_title, bytes, found) => {
    expect(await find(bytes)).toBe(found)
  })

  const xz = Uint8Array.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 4, 0, 0, 0, 0)
  test.each([
    [
      'an ELF file without BTF',
      elf('.text', small),
      'file: ELF file without a section .BTF: not a vmlinux, or built without CONFIG_DEBUG_INFO_BTF',
    ],
    [
      'an ELF file that is cut off',
      elf('.BTF', small).subarray(0, 200),
      'file: ELF section names are cut off; expected a vmlinux',
    ],
    [
      'a 32-bit ELF file',
      Buffer.concat([Buffer.from('\x7fELF\x01\x01\x01', 'latin1'), Buffer.alloc(100)]),
      'file: expected a 64-bit little-endian ELF file; KHO exists on no other machine',
    ],
    [
      'a bzImage with xz',
      bzImage(xz),
      "file: the kernel in this bzImage is compressed with xz, for which there is no decoder here; unpack it first (scripts/extract-vmlinux of the kernel's sources)",
    ],
    [
      'a bzImage with lz4',
      bzImage(Uint8Array.of(2, 0x21, 0x4c, 0x18, 0, 0, 0, 0)),
      "file: the kernel in this bzImage is compressed with lz4, for which there is no decoder here; unpack it first (scripts/extract-vmlinux of the kernel's sources)",
    ],
    [
      'a bzImage that is cut off',
      bzImage(gzipSync(small)).subarray(0, 1100),
      "file: the bzImage's payload of 774 bytes is cut off",
    ],
    [
      'a text file',
      Buffer.from('This is a text file.\n'.repeat(100)),
      'file: no BTF found; expected a vmlinux (ELF), a BTF blob, a bzImage, or one of them gzip-compressed',
    ],
  ])('%s', async (_title, bytes, problem) => {
    expect((await find(bytes)).replace(/payload of \d+/, 'payload of 774')).toBe(problem)
  })

  test('damaged zstd data', async () => {
    const bytes = readFileSync(`${FIXTURES}small-zstd.bzimage`)
    bytes.fill(0xa5, 1024 + 64 + 8, bytes.length - 4)
    expect(await find(bytes)).toMatch(/^file: (the zstd data of this bzImage is damaged: .*|ELF .*)$/)
  })
})
