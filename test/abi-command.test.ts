/** `kho-inspect abi` as users meet it: names, formats, files, exit codes, mistakes. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AbiArguments } from '../bin/abi-arguments.ts'
import { runAbi } from './support/abi-command.ts'
import { BtfBuilder } from './support/btf.ts'
import { ran } from './support/command-line.ts'
import { ROOT } from './support/images.ts'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-abi-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

const abi = (action: string, names?: readonly string[], options?: Partial<AbiArguments>) =>
  runAbi(directory, action, names, options)

describe('diff', () => {
  test.each([
    ['linux-7.2', 'linux-7.3', 0],
    ['linux-6.18', 'linux-6.19', 0],
    ['linux-7.0', 'linux-6.19', 0],
    ['7.1.13', 'v7.2', 1],
    ['linux-7.1', 'linux-7.0', 1],
    ['kho-v2', 'kho-v3', 1],
    ['memfd-v1', 'memfd-v2', 1],
    ['linux-6.17', 'linux-6.18', 4],
    ['6.17.8', '6.17.9', 4],
    ['linux-6.18', 'linux-6.17', 4],
    ['linux-6.19', 'linux-7.0', 4],
    ['kho-v3/rc', 'kho-v3', 4],
    ['luo-v1', 'luo-v1/flb', 4],
    ['kho-test-v1/inline', 'kho-test-v1', 4],
    ['reserve-mem-v1', 'reserve-mem-v1', 0],
  ])('%s %s: exit code %i', async (before, after, status) => {
    expect((await abi('diff', [before, after])).status).toBe(status)
  })

  test('for one page size', async () => {
    expect((await abi('diff', ['kho-v3/rc', 'kho-v3'], { pageSize: 4096 })).status).toBe(0)
    expect((await abi('diff', ['kho-v3/rc', 'kho-v3'], { pageSize: 16384 })).status).toBe(4)
  })

  test('a string of several forms is taken as the newest, and that is said', async () => {
    const { status, err } = await abi('diff', ['kho-v1', 'kho-v2'])
    expect([status, err]).toEqual([
      1,
      "kho-inspect: note: 'kho-v1' may be kho-v1/bitmap-512, kho-v1/bitmap-page; taking kho-v1/bitmap-page\n",
    ])
  })

  test('as JSON', async () => {
    const { status, out } = await abi('diff', ['linux-6.19', 'linux-7.0'], { json: true })
    const { schema, forward, components } = JSON.parse(out)
    expect(status).toBe(4)
    expect([schema, forward.verdict, forward.outcome, forward.check.id, forward.check.message]).toEqual([
      'kho-inspect/abi-diff@1',
      'silent',
      'panics',
      'LUO_FLB_NODE',
      'Unable to get FLB node [%s]',
    ])
    expect(components.map(({ component }: { component: string }) => component)).toEqual([
      'kho',
      'memblock',
      'luo',
      'memfd',
      'kho-test',
    ])
  })

  test.each([
    [['kho-v4'], {}, 'expected kho-inspect abi diff A B, or abi diff --against FILE'],
    [['a', 'b', 'c'], {}, 'expected kho-inspect abi diff A B | diff [A] --against FILE'],
    [
      ['kho-v9', 'kho-v4'],
      {},
      "'kho-v9' is no version, release or struct; known are kho-v1/bitmap-512, kho-v1/bitmap-page, kho-v2, kho-v3/rc, kho-v3, kho-v4",
    ],
    [
      ['constructor', 'toString'],
      {},
      "'constructor' is no version, release or struct; see kho-inspect abi list",
    ],
    [['memfd-v1', 'kho-v4'], {}, 'memfd-v1 is a version of memfd, kho-v4 of kho: nothing to compare'],
    [['kho_data', 'kho_scratch'], {}, 'kho_data and kho_scratch are different things, not versions of one'],
    [['linux-7.2', 'kho-v4'], {}, 'linux-7.2 is a release; compare it with another release'],
    [['kho-v3', 'kho-v4'], { json: true, markdown: true }, '--json and --markdown exclude each other'],
    [
      ['kho-v3', 'kho-v4'],
      { btf: 'x' },
      '--btf has no meaning here; expected kho-inspect abi diff A B | diff [A] --against FILE',
    ],
  ])('%o %o', async (names, options, message) => {
    expect((await abi('diff', names, options)).status).toBe(message)
  })
})

describe('freeze and diff --against', () => {
  test('a change that a person must judge passes no gate', async () => {
    const output = `${directory}/review.json`
    await abi('freeze', [], { output })
    writeFileSync(output, readFileSync(output, 'utf8').replaceAll('"liveupdate_num"', '"update_count"'))
    const { status, out } = await abi('diff', ['luo-v5'], { against: output })
    expect([status, out.includes('to be reviewed')]).toEqual([1, true])
  })

  test('today is what was frozen, until something changes', async () => {
    const output = `${directory}/abi.json`
    expect(await abi('freeze', [], { output })).toEqual({ status: 0, out: '', err: '' })
    expect((await abi('diff', [], { against: output })).status).toBe(0)
    expect((await abi('diff', ['memfd-v2'], { against: output })).status).toBe(0)
    const altered = readFileSync(output, 'utf8').replace('"offset": 20', '"offset": 18')
    writeFileSync(output, altered)
    const { status, out } = await abi('diff', [], { against: output })
    expect(status).toBe(4)
    expect(out.split('\n')[0]).toBe('DIR/abi.json -> today')
    expect((await abi('diff', ['kho-v4'], { against: output })).status).toBe(0)
  })

  test('nothing is left behind where a file cannot be written', async () => {
    const { status, err } = await abi('freeze', [], { output: `${directory}/absent/abi.json` })
    expect([status, err]).toEqual([3, 'kho-inspect: DIR/absent/abi.json: cannot be written: ENOENT\n'])
    expect(readdirSync(directory).filter((name) => name.endsWith('.part'))).toEqual([])
  })

  test.each([
    ['absent.json', undefined, 'kho-inspect: DIR/absent.json: cannot be read: ENOENT\n'],
    [
      'text.json',
      'no JSON',
      'kho-inspect: DIR/text.json: is no JSON: Unexpected token \'o\', "no JSON" is not valid JSON; expected what kho-inspect abi freeze writes\n',
    ],
    [
      'other.json',
      '{"schema":"other"}',
      'kho-inspect: DIR/other.json: is no ABI document: schema: expected kho-inspect/abi@1, found "other"; expected what kho-inspect abi freeze writes\n',
    ],
    [
      'bell.json',
      '{"schema":"\\u001b[31m"}',
      'kho-inspect: DIR/bell.json: is no ABI document: schema: expected kho-inspect/abi@1, found "\\u001b[31m"; expected what kho-inspect abi freeze writes\n',
    ],
  ])('%s', async (name, text, err) => {
    if (text !== undefined) writeFileSync(`${directory}/${name}`, text)
    expect(await abi('diff', [], { against: `${directory}/${name}` })).toEqual({ status: 3, out: '', err })
  })

  test('what a stored document says cannot reach the terminal raw', async () => {
    const output = `${directory}/escape.json`
    await abi('freeze', [], { output })
    writeFileSync(
      output,
      readFileSync(output, 'utf8').replaceAll('"liveupdate_num"', '"\\u001b[31mred\\u0007"'),
    )
    const { out } = await abi('diff', [], { against: output })
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
    expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/)
  })
})

describe('show, list, releases', () => {
  test('a release is all of its versions', async () => {
    const { out } = await abi('show', ['linux-6.19'], { json: true })
    expect(JSON.parse(out).versions.map(({ id }: { id: string }) => id)).toEqual([
      'kho-v1/bitmap-page',
      'memblock-v1',
      'luo-v1',
      'memfd-v1',
      'kho-test-v1',
    ])
  })

  test('a struct by its tag', async () => {
    const { out } = await abi('show', ['struct luo_ser'], { json: true })
    const [struct] = JSON.parse(out).structs
    expect(
      struct.forms.map(({ versions, part }: { versions: string[]; part: { size: number } }) => [
        versions,
        part.size,
      ]),
    ).toEqual([
      [['luo-v2'], 24],
      [['luo-v3'], 32],
      [['luo-v4', 'luo-v5'], 32],
    ])
  })

  test('fields have offsets, sizes, bits, types and meanings', async () => {
    const { out } = await abi('show', ['memfd-v2'], { json: true })
    const [version] = JSON.parse(out).versions
    expect(version.parts.memfd_luo_folio_ser.members[0]).toEqual({
      name: 'pfn',
      type: 'u64',
      encoding: 'le64',
      bits: { shift: 0, width: 52 },
      offset: 0,
      size: 8,
      doc: "Frame number of the folio's first page; 0 is a hole.",
    })
    expect(version.checks.map(({ id }: { id: string }) => id)).toEqual([
      'LUO_FILE_HANDLER',
      'MEMFD_SEALS',
      'MEMFD_FOLIOS',
      'MEMFD_FOLIO',
      'MEMFD_INDEX',
    ])
  })

  test('list and releases as JSON', async () => {
    const list = JSON.parse((await abi('list', [], { json: true })).out)
    const releases = JSON.parse((await abi('releases', [], { json: true })).out)
    expect(list.versions).toHaveLength(23)
    expect(releases.releases.map(({ name }: { name: string }) => name)).toEqual([
      'linux-6.16',
      'linux-6.17',
      'linux-6.17.9',
      'linux-6.18',
      'linux-6.19',
      'linux-7.0',
      'kho-v2',
      'linux-7.1',
      'linux-7.2',
      'linux-7.3',
    ])
  })
})

describe('check', () => {
  const real = `${ROOT}fixtures/btf/linux-7.3-x86_64.btf.gz`

  test('a real kernel', async () => {
    const { status, out } = await abi('check', [], { btf: real })
    expect(status).toBe(0)
    await expect(out.replaceAll(ROOT, '')).toMatchFileSnapshot('expected/abi/check-linux-7.3.txt')
  })

  test('for another page size its pages differ', async () => {
    const { status, out } = await abi('check', [], { btf: real, pageSize: 65536 })
    expect(status).toBe(1)
    expect(out.trimEnd().split('\n').at(-1)).toBe(
      '3 of 24 structs match no declared version: kho_vmalloc_chunk, kho_radix_node, kho_radix_leaf',
    )
  })

  test('as JSON', async () => {
    const { out } = await abi('check', [], { btf: `${ROOT}fixtures/btf/small-zstd.bzimage`, json: true })
    const { schema, found, pageSizes, structs } = JSON.parse(out)
    expect([schema, found, pageSizes]).toEqual([
      'kho-inspect/abi-check@1',
      '.BTF section of an ELF file, zstd in a bzImage',
      [16384],
    ])
    expect(structs.filter(({ status }: { status: string }) => status === 'matches')).toHaveLength(15)
  })

  test.each([
    ['absent', 'kho-inspect: DIR/absent: cannot be opened: ENOENT\n'],
    [
      'text',
      'kho-inspect: DIR/text: no BTF found; expected a vmlinux (ELF), a BTF blob, a bzImage, or one of them gzip-compressed\n',
    ],
    ['cut', 'kho-inspect: DIR/cut: BTF header is cut off: 10 of 24 bytes\n'],
  ])('%s', async (name, err) => {
    writeFileSync(`${directory}/text`, 'This is a text file.\n')
    writeFileSync(`${directory}/cut`, readFileSync(`${ROOT}fixtures/btf/exported-16k.btf`).subarray(0, 10))
    expect(await abi('check', [], { btf: `${directory}/${name}` })).toEqual({ status: 3, out: '', err })
  })

  const twisted = (build: (btf: BtfBuilder, u64: number) => void): string => {
    const btf = new BtfBuilder()
    build(btf, btf.int('long unsigned int', 8))
    writeFileSync(`${directory}/twisted`, btf.build())
    return `${directory}/twisted`
  }

  test('structs that match for different page sizes', async () => {
    const btf = twisted((builder, u64) => {
      builder.struct('kho_radix_node', 4096, [['table', builder.array(u64, 512), 0]])
      builder.struct('kho_radix_leaf', 16384, [['bitmap', builder.array(u64, 2048), 0]])
    })
    const { status, out } = await abi('check', [], { btf })
    expect([status, out.trimEnd().split('\n').at(-1)]).toEqual([
      1,
      'the structs match, but not all for the same page size',
    ])
  })

  test('a constant that no version has', async () => {
    const btf = twisted((builder) => builder.type('', 6, 1, 4, [builder.name('KHO_TREE_MAX_DEPTH'), 9]))
    const { status, out } = await abi('check', [], { btf })
    expect([status, out.trimEnd().split('\n').at(-1)]).toEqual([
      1,
      'no declared version gives these values: KHO_TREE_MAX_DEPTH',
    ])
  })

  test('without a file', async () => {
    expect((await abi('check')).status).toBe('expected kho-inspect abi check --btf FILE')
  })
})

describe('export', () => {
  test.each([
    [[], {}, '--format: expected c, ksy, json, markdown'],
    [[], { format: 'c' }, 'expected a version or release to export, such as kho-v4 or linux-7.3'],
    [['kho-v1'], { format: 'c' }, "'kho-v1' may be kho-v1/bitmap-512, kho-v1/bitmap-page; name one"],
    [
      ['luo'],
      { format: 'ksy' },
      "'luo' may be luo-v1/session-v1, luo-v1, luo-v1/flb, luo-v2, luo-v3, luo-v4, luo-v5; name one",
    ],
    [['kho-v4'], { format: 'markdown' }, 'the Markdown reference is of everything; it takes no name'],
    [['nothing'], { format: 'json' }, "'nothing' is no version, release or struct; see kho-inspect abi list"],
  ] as const)('%o %o', async (names, options, message) => {
    expect((await abi('export', names, options)).status).toBe(message)
  })

  test('JSON of everything is the frozen document', async () => {
    const [all, frozen] = [await abi('export', [], { format: 'json' }), await abi('freeze')]
    expect(all.out).toBe(frozen.out)
  })

  test('JSON of a release has its versions only', async () => {
    const { out } = await abi('export', ['linux-6.16'], { format: 'json' })
    expect(Object.keys(JSON.parse(out).versions)).toEqual(['kho-v1/bitmap-512', 'memblock-v1'])
  })
})

describe('through the entry', () => {
  test.each([
    [['abi', 'diff', 'linux-6.17', 'linux-6.18'], 4, ''],
    [['abi', 'diff', 'kho-v3', 'kho-v4', '--page-size', '16K', '--json'], 1, ''],
    [
      ['abi', 'shw', 'kho-v4'],
      2,
      'kho-inspect: Invalid values: Argument: action, Given: "shw", Choices: "list", "releases", "show", "diff", "check", "lint", "export", "freeze" (see kho-inspect --help)\n',
    ],
    [['abi', 'show'], 2, 'kho-inspect: expected kho-inspect abi show NAME... (see kho-inspect --help)\n'],
    [
      ['abi', 'show', 'kho-v4', '--page-size', '8K'],
      2,
      "kho-inspect: --page-size: expected 4K, 16K, 64K; found '8K' (see kho-inspect --help)\n",
    ],
    [['abi', 'list', '--frmt', 'c'], 2, 'kho-inspect: Unknown argument: frmt (see kho-inspect --help)\n'],
  ])('%o', async (args, status, stderr) => {
    const { status: code, stderr: said } = await ran(args)
    expect([code, said]).toEqual([status, stderr])
  })
})
