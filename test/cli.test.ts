/** The command line as a stranger meets it: one clear line per mistake, exit codes, colour, bad names. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RealImage } from './support/elf-core.ts'
import { kho, ROOT, realPath } from './support/images.ts'

const image = realPath('linux-7.3-x86_64-basic')
let directory: string

/** The root FDT of the 7.3 image as a file of its own, with some bytes replaced. */
function rootFdt(name: string, patch: (bytes: Buffer) => void): string {
  const { segments } = new RealImage('linux-7.3-x86_64-basic')
  const segment = segments.find(({ pa, bytes }) => pa <= 0x49c000n && 0x49c000n < pa + BigInt(bytes.length))
  if (!segment) throw new Error('the image does not hold its root FDT')
  const offset = Number(0x49c000n - segment.pa)
  const bytes = Buffer.from(segment.bytes.subarray(offset, offset + 405))
  patch(bytes)
  const path = `${directory}/${name}`
  writeFileSync(path, bytes)
  return path
}

beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
  mkdirSync(`${directory}/directory`)
  writeFileSync(`${directory}/empty`, '')
  writeFileSync(`${directory}/text`, 'This is a text file, and no image of physical memory.\n'.repeat(200))
  writeFileSync(`${directory}/zeros`, Buffer.alloc(1 << 20))
  const elf = gunzipSync(readFileSync(image))
  writeFileSync(`${directory}/head.elf`, elf.subarray(0, 40))
  writeFileSync(`${directory}/truncated.elf`, elf.subarray(0, 300))
})
afterAll(() => rmSync(directory, { recursive: true }))

describe('bad input gives one line on stderr, exit code 3 and no stack trace', () => {
  test.each([
    ['a file that is not there', ['absent']],
    ['an empty file', ['empty']],
    ['a directory', ['directory']],
    ['a text file', ['text']],
    ['an image without a handover', ['zeros']],
    ['an ELF header that is cut', ['head.elf']],
    ['program headers that are cut', ['truncated.elf']],
    ['--fdt that points to other data', [image, '--fdt', '0x49b000']],
    ['--fdt that points nowhere', [image, '--fdt', '0xffffffffffff0000']],
    ['the wrong --format', [image, '--format', 'lime']],
  ])('%s', async (title, args) => {
    const paths = args.map((arg, i) => (i === 0 && !arg.startsWith('/') ? `${directory}/${arg}` : arg))
    const { stdout, stderr, status } = kho(['dump', ...paths])
    const line = stderr.replaceAll(`${directory}/`, '').replaceAll(ROOT, '')
    expect(status).toBe(3)
    expect(stdout).toBe('')
    expect(line).toMatch(/^kho-inspect: [^\n]+\n$/)
    await expect(line).toMatchFileSnapshot(`expected/errors/${title.replaceAll(' ', '-')}.txt`)
  })

  test('an FDT with a bad magic', () => {
    const path = rootFdt('magic.dtb', (bytes) => bytes.writeUInt32BE(0xd00dfeee, 0))
    const { stderr, status } = kho(['dump', path, '--format', 'fdt'])
    expect(stderr).toMatch(/^kho-inspect: [^\n]*0xd00dfeed[^\n]*0xd00dfeee[^\n]*\n$/)
    expect(status).toBe(3)
  })

  test('an unknown compatible string: the FDT is shown, the line says what was expected and found', () => {
    const path = rootFdt('v9.dtb', (bytes) => bytes.write('kho-v9', 76))
    const { stdout, stderr, status } = kho(['dump', path])
    expect(status).toBe(3)
    expect(stdout).toContain('kexec-metadata')
    expect(stderr.trimEnd().split('\n').at(-1)).toMatch(
      /^kho-inspect: .*'kho-v9'.*expected kho-v1, kho-v2, kho-v3, kho-v4, found kho-v9$/,
    )
    const document = JSON.parse(kho(['dump', path, '--json']).stdout)
    expect(document.kho).toEqual({ totalsize: 405, compatible: 'kho-v9', memory_map: '0x49b000' })
    expect(document.subtrees[3]).toEqual({ name: 'kexec-metadata', phys: '0x4a2000', size: 73 })
    expect(document.faults.map(({ code, path }: { code: string; path: string }) => [code, path])).toEqual([
      ['COMPATIBLE_UNKNOWN', 'kho.compatible'],
    ])
  })

  test('a bare FDT is dumped as far as it goes', () => {
    const path = rootFdt('bare.dtb', () => {})
    const { stdout, status } = kho(['dump', '--json', path])
    expect(status).toBe(0)
    const { kho: root, subtrees, faults } = JSON.parse(stdout)
    expect(root).toEqual({ totalsize: 405, compatible: 'kho-v4', memory_map: '0x49b000' })
    expect(subtrees.map(({ name }: { name: string }) => name)).toEqual([
      'memblock',
      'LUO',
      'kho_test',
      'kexec-metadata',
    ])
    expect(new Set(faults.map(({ code }: { code: string }) => code))).toEqual(new Set(['MEMORY_HOLE']))
  })
})

describe('wrong usage gives one line and exit code 2', () => {
  test.each([
    ['no command', []],
    ['unknown command', ['dmup', image]],
    ['unknown option', ['dump', image, '--jsn']],
    ['format that is none', ['dump', image, '--format', 'nope']],
    ['length of zero', ['hex', image, '0x49c000', '0']],
    ['no image', ['dump']],
    ['address that is none', ['dump', image, '--fdt', '0xzz']],
    ['address of more than 64 bits', ['dump', image, '--fdt', '0x10000000000000000']],
    ['page size that is none', ['dump', image, '--page-size', '8K']],
    ['unknown version', ['dump', image, '--abi', 'linux-5.4']],
    ['path that is not there', ['dump', image, '--only', 'luo.sessions[nobody]']],
    ['address behind the @ that is none', ['dump', `${image}@zz`]],
    ['option given twice', ['dump', image, '--fdt', '0x1000', '--fdt=0x2000']],
    ['two output formats', ['dump', image, '--json', '--yaml']],
    ['hex without a place', ['hex', image]],
    ['hex of a path that is not there', ['hex', image, 'luo.nothing']],
  ])('%s', async (title, args) => {
    const { stdout, stderr, status } = kho(args)
    expect(stderr).toMatch(/^kho-inspect: [^\n]+\n$/)
    expect(stdout).toBe('')
    expect(status).toBe(2)
    await expect(stderr.replaceAll(ROOT, '')).toMatchFileSnapshot(
      `expected/errors/usage-${title.replaceAll(' ', '-')}.txt`,
    )
  })
})

describe('output', () => {
  test('--version and --help go to stdout', () => {
    expect(kho(['--version']).stdout).toBe(
      `${JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8')).version}\n`,
    )
    const { stdout, status } = kho(['--help'])
    expect(stdout).toContain('kho-inspect dump <image..>')
    expect(status).toBe(0)
  })

  test('no colour into a pipe, colour if asked for, NO_COLOR obeyed, --color stronger', () => {
    const sequence = '\u001b['
    const only = ['dump', image, '--only', 'luo']
    expect(kho(only).stdout.includes(sequence)).toBe(false)
    expect(kho([...only, '--color', 'always']).stdout.includes(sequence)).toBe(true)
    expect(kho([...only], { FORCE_COLOR: '1' }).stdout.includes(sequence)).toBe(true)
    expect(kho([...only], { FORCE_COLOR: '1', NO_COLOR: '1' }).stdout.includes(sequence)).toBe(false)
    expect(kho([...only, '--color', 'always'], { NO_COLOR: '1' }).stdout.includes(sequence)).toBe(true)
    expect(kho([...only, '--color', 'never'], { FORCE_COLOR: '1' }).stdout.includes(sequence)).toBe(false)
    expect(kho([...only, '--no-color'], { FORCE_COLOR: '1' }).stdout.includes(sequence)).toBe(false)
    expect(kho(['dump', '--color', ...only.slice(1)]).stdout.includes(sequence)).toBe(true)
  })

  test('on a terminal colours come by themselves, and NO_COLOR takes them away', () => {
    const run = (prefix: string): string =>
      execFileSync(
        'script',
        [
          '-qec',
          `${prefix} ${process.execPath} dist/bin/kho-inspect.js dump ${image} --only luo`,
          '/dev/null',
        ],
        {
          cwd: ROOT,
          encoding: 'utf8',
        },
      )
    expect(run('env -u NO_COLOR -u FORCE_COLOR TERM=xterm')).toContain('\u001b[')
    expect(run('env NO_COLOR=1 TERM=xterm')).not.toContain('\u001b[')
  })

  test('--only picks one part, by key or index', () => {
    const size = ['dump', image, '--json', '--only']
    expect(
      JSON.parse(kho([...size, 'luo.sessions[vm-alpha].files[0xdeadbeefcafef00d].memfd.size']).stdout),
    ).toBe(3145728)
    expect(JSON.parse(kho([...size, 'luo.sessions[0].files[2].memfd.size']).stdout)).toBe(3145728)
    expect(JSON.parse(kho([...size, 'memblock.reserve_mem[trace]']).stdout)).toEqual({
      name: 'trace',
      compatible: 'reserve-mem-v1',
      start: '0x1fa82000',
      size: 1048576,
    })
  })

  test('--only takes what the document computes, too', () => {
    const only = (path: string): unknown => JSON.parse(kho(['dump', image, '--json', '--only', path]).stdout)
    expect(only('preserved.entries')).toBe(577)
    expect(only('preserved.by_order.9')).toBe(3)
    expect(only('page_size')).toBe(4096)
    expect(only('faults')).toEqual([])
  })

  test('--folios lists every record', () => {
    const { files } = JSON.parse(
      kho(['dump', image, '--json', '--folios', '--only', 'luo.sessions[vm-alpha]']).stdout,
    )
    const { folio_list: list, first_folio: first, last_folio: last, nr_folios: count } = files[2].memfd
    expect(list).toHaveLength(count)
    expect(list[0]).toEqual(first)
    expect(list.at(-1)).toEqual(last)
    expect(list[1]).toEqual({ pfn: '0x17ed', flags: 3, index: 512 })
  })

  test('--yaml is the same document', async () => {
    const { parse } = await import('yaml')
    const yaml = parse(kho(['dump', image, '--yaml']).stdout)
    expect(yaml).toEqual(JSON.parse(kho(['dump', image, '--json']).stdout))
  })

  test('a reader that goes away is no error', () => {
    const output = execFileSync(
      'sh',
      ['-c', `"${process.execPath}" dist/bin/kho-inspect.js dump "${image}" --json --folios | head -1`],
      {
        cwd: ROOT,
        encoding: 'utf8',
      },
    )
    expect(output).toBe('{\n')
  })
})
