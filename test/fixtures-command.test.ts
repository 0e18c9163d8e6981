/** `kho-inspect encode` and `fixtures` as a user meets them: files that appear whole or not at all. */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { fixtureNames } from '../testing/fixtures.ts'
import { ran } from './support/command-line.ts'
import { kho, ROOT } from './support/images.ts'

const directory = mkdtempSync(join(tmpdir(), 'kho-encode-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const good =
  'release: linux-7.3\nsessions:\n  - name: vm\n    files:\n      - { token: 1, memfd: { content: { text: hello } } }\n'
const bad = good.replace('sessions:', 'sesions:')

/** A folder of its own with a scenario in it. */
function folder(name: string, scenario = good): string {
  const path = join(directory, name)
  mkdirSync(path)
  writeFileSync(join(path, 's.yaml'), scenario)
  return path
}

describe('encode', () => {
  test.each([
    ['image.elf', '\x7fELF'],
    ['image.lime', 'EMiL'],
    ['image.kdump', 'KDUMP   '],
  ])('%s gets its format from the name, and is read again', async (file, magic) => {
    const path = folder(`named-${file}`)
    const { status, stdout, stderr } = await ran(['encode', join(path, 's.yaml'), '-o', join(path, file)])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toBe(
      `${join(path, file)}: linux-7.3 on x86_64 with pages of 4 KiB; root FDT 0x100000, scratch array 0x1fff0000 (48 bytes)\n`,
    )
    expect(readFileSync(join(path, file)).toString('latin1').slice(0, magic.length)).toBe(magic)
    const dump = await ran([
      'dump',
      join(path, file),
      '--json',
      '--only',
      'luo.sessions[vm].files[0x1].memfd.size',
    ])
    expect(dump).toEqual({ status: 0, stdout: '5\n', stderr: '' })
  })

  test('a flat image is sparse: its offsets are addresses', async () => {
    const path = folder('flat')
    expect((await ran(['encode', join(path, 's.yaml'), '-o', join(path, 'image.bin')])).status).toBe(0)
    const { size, blocks } = statSync(join(path, 'image.bin'))
    expect(size).toBe(512 << 20)
    expect(blocks * 512).toBeLessThan(1 << 20)
    const dump = await ran([
      'dump',
      join(path, 'image.bin'),
      '--fdt',
      '0x100000',
      '--json',
      '--only',
      'luo.sessions[vm].files[0x1].token',
    ])
    expect(dump.stdout).toBe('"0x1"\n')
  })

  test('- writes the same bytes to a pipe', async () => {
    const path = folder('pipe')
    await ran(['encode', join(path, 's.yaml'), '-o', join(path, 'image.elf')])
    const cli = [
      `${ROOT}dist/bin/kho-inspect.js`,
      'encode',
      join(path, 's.yaml'),
      '-o',
      '-',
      '--format',
      'elf',
    ]
    const { stdout, status } = spawnSync(process.execPath, cli, { maxBuffer: 1 << 28 })
    expect(status).toBe(0)
    expect(Buffer.compare(stdout, readFileSync(join(path, 'image.elf')))).toBe(0)
  })

  test('all RAM is larger, and the same handover', async () => {
    const path = folder('all-ram')
    const [held, all] = [join(path, 'held.elf'), join(path, 'all.elf')]
    await ran(['encode', join(path, 's.yaml'), '-o', held])
    await ran(['encode', join(path, 's.yaml'), '-o', all, '--all-ram'])
    expect(statSync(held).size).toBeLessThan(1 << 20)
    expect(statSync(all).size).toBeGreaterThan(511 << 20)
    const tree = async (file: string): Promise<string> =>
      (await ran(['dump', file, '--json', '--only', 'luo'])).stdout
    expect(await tree(all)).toBe(await tree(held))
  })

  test('release, architecture and page size of the command line go first', async () => {
    const path = folder('options')
    const args = ['--release', '7.1', '--arch', 'arm64', '--page-size', '16K']
    const { stdout } = await ran(['encode', join(path, 's.yaml'), '-o', join(path, 'image.elf'), ...args])
    expect(stdout).toMatch(/: linux-7\.1 on arm64 with pages of 16 KiB; /)
  })

  test('contents that are files lie beside the scenario', async () => {
    const path = folder('files', good.replace('text: hello', 'file: contents.bin'))
    writeFileSync(join(path, 'contents.bin'), 'from a file')
    expect((await ran(['encode', join(path, 's.yaml'), '-o', join(path, 'image.elf')])).status).toBe(0)
    expect(readFileSync(join(path, 'image.elf')).toString('latin1')).toMatch(/from a file/)
  })

  test('the schema is the shipped one', async () => {
    const { stdout } = await ran(['encode', '--schema'])
    expect(stdout).toBe(readFileSync(`${ROOT}fixtures/scenario.schema.json`, 'utf8'))
  })

  test('an image becomes a document, and the document the image', async () => {
    const path = folder('document')
    const [image, document, again] = ['a.elf', 'a.json', 'b.elf'].map((file) => join(path, file)) as [
      string,
      string,
      string,
    ]
    const real = 'fixtures/real/linux-7.3-arm64-4k-basic.elf.gz'
    expect((await ran(['encode', '--from', real, '-o', image, '--arch', 'arm64'])).status).toBe(0)
    expect((await ran(['encode', '--from', real, '-o', document, '--arch', 'arm64'])).status).toBe(0)
    expect((await ran(['encode', document, '-o', again])).status).toBe(0)
    // A document holds no contents of files: these are only in the image that was made of the image.
    const luo = async (file: string): Promise<string> =>
      (await ran(['dump', file, '--json', '--only', 'luo'])).stdout
    expect(await luo(again)).toBe(await luo(image))
    expect(await luo(again)).toMatch(/vm-alpha/)
  })
})

describe('what goes wrong', () => {
  test('a wrong scenario leaves an image that was there as it was', async () => {
    const path = folder('kept', bad)
    writeFileSync(join(path, 'image.elf'), 'precious')
    const { status, stdout, stderr } = await ran([
      'encode',
      join(path, 's.yaml'),
      '-o',
      join(path, 'image.elf'),
    ])
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
    expect(stderr).toBe(
      `kho-inspect: ${join(path, 's.yaml')}:2:1: sesions: unknown key; did you mean sessions?\n`,
    )
    expect(readFileSync(join(path, 'image.elf'), 'utf8')).toBe('precious')
    expect(readdirSync(path).sort()).toEqual(['image.elf', 's.yaml'])
  })

  test('of many mistakes twenty are shown', async () => {
    const path = folder(
      'many',
      `release: linux-7.3\n${Array.from({ length: 25 }, (_, index) => `k${index}: 1\n`).join('')}`,
    )
    const { status, stderr } = await ran(['encode', join(path, 's.yaml'), '-o', join(path, 'image.elf')])
    expect(status).toBe(2)
    expect(stderr.trimEnd().split('\n')).toHaveLength(21)
    expect(stderr).toMatch(/: 5 more problems\n$/)
  })

  test.each([
    ['no output', ['s.yaml'], /expected an image to write: -o FILE/],
    ['a name without a format', ['s.yaml', '-o', 'image'], /expected --format raw, elf, lime, kdump/],
    [
      'a pipe without a format',
      ['s.yaml', '-o', '-'],
      /expected --format raw, elf, lime, kdump, json, for a pipe/,
    ],
    ['nothing to encode', ['-o', 'image.elf'], /expected a scenario, or --from with an image/],
    [
      'two things to encode',
      ['s.yaml', '--from', 'a.elf', '-o', 'image.elf'],
      /expected a scenario, or --from with an image/,
    ],
    [
      'a page size that is none',
      ['s.yaml', '--page-size', '5K', '-o', 'image.elf'],
      /--page-size: expected 4K, 16K, 64K; found '5K'/,
    ],
  ])('%s is a mistake of usage', async (_, args, message) => {
    const { status, stderr } = await ran(['encode', ...args])
    expect(status).toBe(2)
    expect(stderr).toMatch(message)
  })

  test.each([
    ['a scenario that is not there', 'no-such.yaml', 'image.elf', /no-such\.yaml: cannot be read: ENOENT\n$/],
    [
      'a folder that is not there',
      's.yaml',
      'no/such/image.elf',
      /no\/such\/image\.elf cannot be written: ENOENT\n$/,
    ],
    ['a folder in its place', 's.yaml', '.', /cannot be written: EISDIR\n$/],
  ])('%s is not readable or writable', async (name, scenario, output, message) => {
    const path = folder(name.replaceAll(' ', '-'))
    const { status, stderr } = await ran([
      'encode',
      join(path, scenario),
      '--format',
      'elf',
      '-o',
      join(path, output),
    ])
    expect(status).toBe(3)
    expect(stderr).toMatch(message)
    expect(readdirSync(path)).toEqual(['s.yaml'])
  })

  test('a text in another encoding is no scenario', async () => {
    const path = folder('latin1')
    writeFileSync(join(path, 's.yaml'), Buffer.from('title: gr\xfc\xdfe\n', 'latin1'))
    const { status, stderr } = await ran(['encode', join(path, 's.yaml'), '-o', join(path, 'image.elf')])
    expect(status).toBe(3)
    expect(stderr).toMatch(/is no text in UTF-8/)
  })

  test('a full device is an error, and stays a device', () => {
    const path = folder('full')
    const { status, stderr } = kho(['encode', join(path, 's.yaml'), '--format', 'elf', '-o', '/dev/full'])
    expect(status).toBe(3)
    expect(stderr).toBe('kho-inspect: /dev/full cannot be written: ENOSPC\n')
    expect(statSync('/dev/full').isCharacterDevice()).toBe(true)
  })

  test('an image behind a link is replaced, the link stays', async () => {
    const path = folder('link')
    writeFileSync(join(path, 'real.elf'), 'old')
    symlinkSync('real.elf', join(path, 'link.elf'))
    expect((await ran(['encode', join(path, 's.yaml'), '-o', join(path, 'link.elf')])).status).toBe(0)
    expect(readFileSync(join(path, 'real.elf')).toString('latin1').slice(1, 4)).toBe('ELF')
    expect(readdirSync(path).sort()).toEqual(['link.elf', 'real.elf', 's.yaml'])
  })
})

describe('fixtures', () => {
  test('writes a documented set with scenarios that give the same images', async () => {
    const path = join(directory, 'set')
    const { status, stdout, stderr } = await ran(['fixtures', path, '--release', '7.2'])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toBe(`${path}: ${fixtureNames().length} images of linux-7.2\n`)
    const files = fixtureNames().flatMap((name) => [`${name}.elf`, `${name}.yaml`])
    expect(readdirSync(path).sort()).toEqual([...files, 'README.md', 'manifest.json'].sort())
    const manifest = JSON.parse(readFileSync(join(path, 'manifest.json'), 'utf8'))
    expect(manifest).toMatchObject({
      schema: 'kho-inspect/fixtures@1',
      release: 'linux-7.2',
      arch: 'x86_64',
      page_size: 4096,
      format: 'elf',
      skipped: [],
    })
    const entry = manifest.fixtures.find(({ name }: { name: string }) => name === 'shared-flbs')
    expect(entry).toMatchObject({
      file: 'shared-flbs.elf',
      scenario: 'shared-flbs.yaml',
      fdt: '0x100000',
      sessions: 2,
      files: 3,
    })
    expect(entry.flbs).toEqual([
      'iommu-domains-v1',
      'pci-devices-v2',
      'liveupdate-test-flb-v0',
      'liveupdate-test-flb-v1',
      'liveupdate-test-flb-v2',
    ])
    for (const name of ['one-session', 'reserve-mem', 'many-extents']) {
      await ran(['encode', join(path, `${name}.yaml`), '-o', join(directory, 'again.elf')])
      expect(
        Buffer.compare(readFileSync(join(directory, 'again.elf')), readFileSync(join(path, `${name}.elf`))),
      ).toBe(0)
    }
  })

  test('says what a release has not, and why', async () => {
    const path = join(directory, 'old')
    const { stdout } = await ran([
      'fixtures',
      path,
      '--release',
      'linux-6.18',
      '--arch',
      'arm64',
      '--page-size',
      '64K',
      '--format',
      'lime',
    ])
    const { fixtures, skipped } = JSON.parse(readFileSync(join(path, 'manifest.json'), 'utf8'))
    expect(stdout).toBe(
      `${path}: ${fixtures.length} images of linux-6.18; ${skipped.length} concepts are not there (see README.md)\n`,
    )
    expect(fixtures.length + skipped.length).toBe(fixtureNames().length)
    expect(skipped.find(({ name }: { name: string }) => name === 'one-session').reason).toMatch(
      /^linux-6\.18 has no sessions/,
    )
    const readme = readFileSync(join(path, 'README.md'), 'utf8')
    expect(readme).toMatch(/^# Handover images of linux-6\.18 on arm64 with pages of 64 KiB\n/)
    for (const { file, title } of fixtures)
      expect(readme.split('\n')).toEqual(expect.arrayContaining([`| ${file} | ${title} |`]))
  })

  test.each([
    [['--release', '5.10'], /--release: expected one of linux-6\.16/],
    [['--release', '7.3', '--page-size', '16K'], /--page-size: x86_64 has pages of 4K; found 16K/],
    [[], /release/],
  ])('%s is a mistake of usage, and nothing is written', async (args, message) => {
    const path = join(directory, 'usage')
    const { status, stderr } = await ran(['fixtures', path, ...args])
    expect(status).toBe(2)
    expect(stderr).toMatch(message)
    expect(existsSync(path)).toBe(false)
  })

  test.each([
    ['/proc/kho-fixtures', 'ENOENT'],
    ['package.json', 'EEXIST'],
  ])('a folder %s that cannot be made is told as %s', async (path, code) => {
    const { status, stderr } = await ran(['fixtures', path, '--release', '6.17'])
    expect(status).toBe(3)
    expect(stderr).toBe(`kho-inspect: ${path} cannot be made: ${code}\n`)
  })

  test('nothing is left of a set that cannot be written', async () => {
    const path = join(directory, 'blocked')
    mkdirSync(join(path, 'manifest.json'), { recursive: true })
    writeFileSync(join(path, 'manifest.json', 'in-the-way'), '')
    chmodSync(path, 0o755)
    const { status, stderr } = await ran(['fixtures', path, '--release', '6.17'])
    expect(status).toBe(3)
    expect(stderr).toMatch(/manifest\.json cannot be written: (EISDIR|ENOTEMPTY)/)
    expect(readdirSync(path)).toEqual(['manifest.json'])
  })
})
