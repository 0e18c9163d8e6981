/** The declared ABI as others use it: shown, exported to C, Kaitai and Markdown, held against compilers. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { PAGE_SIZES, type PageSize } from '../abi/layout.ts'
import { struct, u8, u64le } from '../abi/schema.ts'
import { describeAbi, describeStruct, type VersionDescription } from '../inspect/abi-document.ts'
import { exportC } from '../inspect/abi-export-c.ts'
import { exportKsy, ksyId } from '../inspect/abi-export-ksy.ts'
import { exportMarkdown } from '../inspect/abi-export-markdown.ts'
import { versionsNamed, versionsWithStruct } from '../inspect/abi-names.ts'
import { conflictingStructs } from '../inspect/abi-parts.ts'
import { renderList, renderReleases, renderStruct, renderVersion } from '../inspect/abi-show.ts'
import { byteRuler } from '../inspect/byte-ruler.ts'
import { noPaint } from '../inspect/paint.ts'
import { forPage, type PerPage } from '../inspect/per-page.ts'
import { RealImage } from './support/elf-core.ts'
import { ROOT } from './support/images.ts'

const document = describeAbi()
const versions = Object.values(document.versions)
const require = createRequire(import.meta.url)

interface Layouts {
  readonly structs: Record<
    string,
    {
      kernel_name: string
      sizeof: PerPage
      fields: { name: string; offset: PerPage; size: PerPage; bit_offset?: number }[]
    }
  >
  readonly constants_by_page_size: Record<string, PerPage>
}

const layouts: Layouts = JSON.parse(readFileSync(`${ROOT}fixtures/layouts/layouts.json`, 'utf8'))

/** The measured form of a struct in a version: its own where a struct has had several. */
function measuredOf(tag: string, { id }: VersionDescription): Layouts['structs'][string] | undefined {
  const forms: Record<string, Record<string, string>> = {
    kho_mem_phys_bits: {
      'kho-v1/bitmap-512': 'kho_mem_phys_bits_512',
      'kho-v1/bitmap-page': 'kho_mem_phys_bits_page',
    },
    luo_session_ser: { 'luo-v1/session-v1': 'luo_session_ser_v1' },
    luo_ser: { 'luo-v2': 'luo_ser_v2' },
    memfd_luo_ser: { 'memfd-v1': 'memfd_luo_ser_v1', 'memfd-v2': 'memfd_luo_ser_v2' },
  }
  return layouts.structs[forms[tag]?.[id] ?? tag]
}

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-export-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

describe('C headers', () => {
  const compilers = ['gcc', 'clang'].filter((compiler) => spawnSync(compiler, ['--version']).status === 0)

  /** Compiles sources with all warnings as errors; static assertions are checked by that. */
  function compile(compiler: string, pageSize: PageSize, sources: readonly string[]): string {
    const flags = ['-std=c11', '-Wall', '-Wextra', '-Werror', '-fsyntax-only', `-DKHO_PAGE_SIZE=${pageSize}`]
    const { status, stderr } = spawnSync(compiler, [...flags, ...sources], {
      encoding: 'utf8',
      cwd: directory,
    })
    return status === 0 ? '' : stderr
  }

  /** Assertions out of what a compiler measured from the kernel's own headers. */
  function measuredAssertions(version: VersionDescription, pageSize: PageSize): string {
    return Object.entries(version.parts)
      .flatMap(([tag, { kind }]) => {
        const measured = kind === 'struct' ? measuredOf(tag, version) : undefined
        if (!measured) return []
        const plain = measured.fields.filter((field) => field.bit_offset === undefined)
        return [
          `_Static_assert(sizeof(struct ${tag}) == ${forPage(measured.sizeof, pageSize)}, "size");`,
          ...plain.map(
            ({ name, offset }) =>
              `_Static_assert(offsetof(struct ${tag}, ${name}) == ${forPage(offset, pageSize)}, "${name}");`,
          ),
        ]
      })
      .join('\n')
  }

  test('gcc is there to check them', () => {
    expect(compilers[0]).toBe('gcc')
  })

  test.each(PAGE_SIZES)(
    'of every version compile, their assertions and the measured ones hold: %i',
    (pageSize) => {
      const sources = versions.map((version) => {
        const name = ksyId(version.id)
        writeFileSync(`${directory}/${name}.h`, exportC(version.id, [version]))
        writeFileSync(
          `${directory}/${name}.c`,
          `#include "${name}.h"\n${measuredAssertions(version, pageSize)}\n`,
        )
        return `${name}.c`
      })
      for (const compiler of compilers) expect(compile(compiler, pageSize, sources)).toBe('')
    },
  )

  test('of every release compile', () => {
    const sources = document.releases.map(({ name, versions: spoken }) => {
      const described = Object.values(spoken).map((id) => document.versions[id] as VersionDescription)
      expect(conflictingStructs(described)).toEqual([])
      writeFileSync(`${directory}/${name}.c`, exportC(name, described))
      return `${name}.c`
    })
    for (const compiler of compilers) expect(compile(compiler, 16384, sources)).toBe('')
  })

  test('an assertion that does not hold is an error', () => {
    const header = exportC('memfd-v2', [document.versions['memfd-v2'] as VersionDescription])
    writeFileSync(`${directory}/wrong.c`, header.replace('u32 seals;', 'u64 seals;'))
    expect(compile('gcc', 4096, ['wrong.c'])).toMatch(
      /static assertion failed: "sizeof\(struct memfd_luo_ser\) == 48"/,
    )
  })

  test('a page size that does not exist is an error', () => {
    writeFileSync(
      `${directory}/page.c`,
      exportC('kho-v4', [document.versions['kho-v4'] as VersionDescription]),
    )
    expect(compile('gcc', 8192 as PageSize, ['page.c'])).toMatch(/KHO_PAGE_SIZE must be 4096, 16384, 65536/)
  })

  test('constants are those of the kernel', () => {
    const wanted = [
      'KHO_VMALLOC_SIZE',
      'KHO_TABLE_SIZE_LOG2',
      'KHO_BITMAP_SIZE_LOG2',
      'KHO_TREE_MAX_DEPTH',
      'KHO_RADIX_KEY_WIDTH',
      'KHO_ORDER_0_LOG2',
      'LUO_SESSION_MAX',
      'LUO_FILE_MAX',
      'LUO_FLB_MAX',
      'KHO_BLOCK_SIZE',
      'KHOSER_BITMAP_SIZE',
    ]
    const limits = Object.assign(
      {},
      ...['kho-v1/bitmap-page', 'luo-v1/flb', 'luo-v5', 'memfd-v2', 'kho-v4'].map(
        (id) => document.versions[id]?.limits,
      ),
    )
    for (const name of wanted)
      expect([name, limits[name].value]).toEqual([name, layouts.constants_by_page_size[name]])
    const { 'kho-v3/rc': early, 'kho-v1/bitmap-512': small, 'luo-v5': luo } = document.versions
    expect(early?.limits.KHO_TREE_MAX_DEPTH?.value).toEqual(
      layouts.constants_by_page_size.KHO_TREE_MAX_DEPTH_without_plus1,
    )
    expect(small?.limits.PRESERVE_BITS?.value).toBe(layouts.constants_by_page_size.PRESERVE_BITS_512)
    expect(limits.PRESERVE_BITS.value).toEqual(layouts.constants_by_page_size.PRESERVE_BITS_PAGE)
    expect(luo?.limits['luo_session_ser per block']?.value).toEqual(
      layouts.constants_by_page_size.sessions_per_block,
    )
    expect(luo?.limits['luo_file_ser per block']?.value).toEqual(
      layouts.constants_by_page_size.files_per_block,
    )
  })

  test.each(['memfd-v2', 'kho-v4'])('%s, as written', async (id) => {
    await expect(exportC(id, [document.versions[id] as VersionDescription])).toMatchFileSnapshot(
      `expected/abi/${id}.h`,
    )
  })
})

describe('Kaitai specifications', () => {
  const compiler = require('kaitai-struct-compiler')
  const KaitaiStream = require('kaitai-struct/KaitaiStream')

  /** The parser that the compiler makes of a version's specification. */
  // biome-ignore lint/suspicious/noExplicitAny: code that did not exist when this was written.
  async function parserOf(id: string): Promise<any> {
    const specification = exportKsy(document.versions[id] as VersionDescription)
    const files = await compiler.compile('javascript', parse(specification), null, false)
    const [[name, source]] = Object.entries(files) as [[string, string]]
    const path = `${directory}/${name.replace('.js', '.cjs')}`
    writeFileSync(
      path,
      source.replaceAll(
        "'kaitai-struct/KaitaiStream'",
        JSON.stringify(require.resolve('kaitai-struct/KaitaiStream')),
      ),
    )
    const loaded = require(path)
    return loaded[name.replace('.js', '')]
  }

  test.each(versions.map(({ id }) => id))('%s is accepted', async (id) => {
    const specification = parse(exportKsy(document.versions[id] as VersionDescription))
    expect(specification.meta.id).toBe(ksyId(id))
    expect(Object.keys(await compiler.compile('javascript', specification, null, false))).toHaveLength(1)
  })

  test('the parser reads what a real 7.3 kernel left', async () => {
    const image = new RealImage('linux-7.3-x86_64-basic')
    const { luo, kexec_metadata: metadata, subtrees } = image.expected
    const stream = (pa: string | bigint, length: number) =>
      new KaitaiStream(image.bytes(BigInt(pa), length).slice().buffer)
    const at = (name: string): string => subtrees.find((one: { name: string }) => one.name === name).phys

    const Luo = await parserOf('luo-v5')
    const { luoSer } = new Luo(stream(at('LUO'), 32))
    expect([luoSer.compatible, luoSer.liveupdateNum]).toEqual([luo.compatible, luo.liveupdate_num])
    const sessions = stream(BigInt(luoSer.sessionsPa), 4096)
    const block = new Luo.KhoBlockHeaderSer(sessions, null, null)
    const read = Array.from({ length: block.count }, () => new Luo.LuoSessionSer(sessions, null, null))
    expect(read.map(({ name }) => name)).toEqual(luo.sessions.map(({ name }: { name: string }) => name))
    expect(read.map(({ fileSetSer }) => fileSetSer.count)).toEqual(
      luo.sessions.map(({ files }: { files: unknown[] }) => files.length),
    )

    const { KhoKexecMetadata } = await parserOf('kexec-metadata-1')
    const { version, previousRelease, kexecCount } = new KhoKexecMetadata(
      stream(at('kexec-metadata'), 73),
      null,
      null,
    )
    expect({ version, previous_release: previousRelease, kexec_count: kexecCount }).toEqual(metadata)
  })

  test('the parser reads memfds and their folios, in both versions', async () => {
    for (const [name, id, size] of [
      ['linux-6.19-x86_64-basic', 'memfd-v1', 40],
      ['linux-7.3-arm64-4k-basic', 'memfd-v2', 48],
    ] as const) {
      const image = new RealImage(name)
      const Memfd = await parserOf(id)
      for (const { data, memfd } of image.expected.luo.sessions.flatMap(
        ({ files }: { files: unknown[] }) => files,
      )) {
        const stream = new KaitaiStream(image.bytes(BigInt(data), size).slice().buffer)
        const ser = new Memfd.MemfdLuoSer(stream, null, null)
        const { pos, size: bytes, nr_folios: count } = memfd
        expect([ser.pos, ser.size, ser.nrFolios]).toEqual([pos, bytes, count])
        if (id === 'memfd-v2') expect([ser.seals, ser.flags]).toEqual([memfd.seals, memfd.flags])
        if (count === 0) continue
        expect([`0x${ser.folios.first.toString(16)}`, ser.folios.totalPages]).toEqual([
          memfd.folios.first,
          memfd.folios.total_pages,
        ])
        const chunk = new Memfd.KhoVmallocChunk(
          new KaitaiStream(image.bytes(BigInt(ser.folios.first), 4096).slice().buffer),
          null,
          { pageSize: 4096 },
        )
        expect(chunk.phys).toHaveLength(511)
        const folio = new Memfd.MemfdLuoFolioSer(
          new KaitaiStream(image.bytes(BigInt(chunk.phys[0]), 16).slice().buffer),
          null,
          null,
        )
        expect({ pfn: `0x${folio.pfn.toString(16)}`, flags: folio.flags, index: folio.index }).toEqual(
          memfd.first_folio,
        )
      }
    }
  })

  test('memfd-v2, as written', async () => {
    await expect(exportKsy(document.versions['memfd-v2'] as VersionDescription)).toMatchFileSnapshot(
      'expected/abi/memfd-v2.ksy',
    )
  })
})

test('docs/abi.md is what is declared', () => {
  const written = readFileSync(`${ROOT}docs/abi.md`, 'utf8')
  const stale = 'docs/abi.md is stale: kho-inspect abi export --format markdown -o docs/abi.md'
  expect(written === exportMarkdown(document) ? 'up to date' : stale).toBe('up to date')
})

describe('as people read it', () => {
  test('list and releases', async () => {
    await expect(renderList(document, noPaint)).toMatchFileSnapshot('expected/abi/list.txt')
    await expect(renderReleases(document, noPaint)).toMatchFileSnapshot('expected/abi/releases.txt')
  })

  test.each(['memfd-v2', 'kho-v4', 'luo-v1/flb', 'luo-v5', 'kexec-metadata-1', 'reserve-mem-v1'])(
    'show %s',
    async (name) => {
      const [version] = versionsNamed(document, name)
      const text = renderVersion(version as VersionDescription, 4096, noPaint)
      await expect(text).toMatchFileSnapshot(`expected/abi/show-${name.replaceAll('/', '-')}.txt`)
    },
  )

  test('show a struct in all its forms', async () => {
    const holders = versionsWithStruct(document, 'memfd_luo_ser')
    await expect(renderStruct('memfd_luo_ser', holders, 4096, noPaint)).toMatchFileSnapshot(
      'expected/abi/show-memfd_luo_ser.txt',
    )
  })

  test('the ruler draws every byte of a struct once', () => {
    const small = versions
      .flatMap((version) => Object.values(version.parts))
      .filter(({ kind, size }) => kind === 'struct' && typeof size === 'number' && size <= 64)
    for (const part of small) {
      const rows = byteRuler(part, 4096, noPaint).split('\n').slice(1)
      const drawn = rows.map((row) => (row.slice(row.indexOf('|')).length - 1) / 3)
      expect(drawn.reduce((sum, bytes) => sum + bytes, 0)).toBe(part.size)
    }
  })

  test('padding is drawn, and read over by Kaitai', () => {
    const padded = struct(
      'toy',
      { doc: 'A toy.', source: 'toy.h' },
      { small: u8('Small.'), large: u64le('Large.'), last: u8('Last.') },
    )
    const part = describeStruct(padded, [])
    expect(byteRuler(part, 4096, noPaint).split('\n').slice(1)).toEqual([
      '  0x00 |s~|padding             |large                  |',
      '  0x10 |l~|padding             |',
    ])
    const version = {
      ...(document.versions['memfd-v2'] as VersionDescription),
      root: 'toy',
      parts: { toy: part },
    }
    expect(parse(exportKsy(version)).types.toy.seq).toEqual([
      { id: 'small', type: 'u1', doc: 'Small.' },
      { size: 7, doc: 'Padding.' },
      { id: 'large', type: 'u8', doc: 'Large.' },
      { id: 'last', type: 'u1', doc: 'Last.' },
      { size: 7, doc: 'Padding.' },
    ])
  })

  test('every part and member says what it is', () => {
    for (const { parts } of versions) {
      for (const { doc, source, members } of Object.values(parts)) {
        expect(
          [doc, source, ...members.map((member) => member.doc)].filter((text) => text.trim() === ''),
        ).toEqual([])
      }
    }
  })
})

test('gcc agrees with the header on values, bit fields included', () => {
  writeFileSync(
    `${directory}/abi.h`,
    exportC('memfd-v2', [document.versions['memfd-v2'] as VersionDescription]),
  )
  writeFileSync(
    `${directory}/value.c`,
    `#include <stdio.h>
#include "abi.h"
int main(void)
{
	union { struct memfd_luo_folio_ser ser; unsigned char bytes[16]; } u = { .bytes = { 0x78, 0x56, 0x34, 0x12, 0, 0, 0x30, 0x00, 7 } };
	printf("%llx %llx %llu\\n", (unsigned long long)u.ser.pfn, (unsigned long long)u.ser.flags, (unsigned long long)u.ser.index);
	return 0;
}
`,
  )
  execFileSync('gcc', ['-Wall', '-Wextra', '-Werror', '-o', 'value', 'value.c'], { cwd: directory })
  expect(execFileSync(`${directory}/value`, { encoding: 'utf8' })).toBe('12345678 3 7\n')
})
