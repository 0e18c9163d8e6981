/** What a kernel's file says that it speaks: strings, BTF, release; and the verdict that follows. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { releases } from '../abi/registry.ts'
import { isProblem, openFile } from '../inspect/image-source.ts'
import { type KernelReading, readKernel } from '../inspect/preflight.ts'
import { ran } from './support/command-line.ts'
import { realPath } from './support/images.ts'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-preflight-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

const NOISE = Buffer.alloc(4096, 0x90)

/** Memory of a kernel that holds these constants, each with its NUL, as a linker lays them side by side. */
function kernelWith(...constants: readonly string[]): Buffer {
  return Buffer.concat([NOISE, Buffer.from(constants.map((text) => `${text}\0`).join('')), NOISE])
}

const BANNER = 'Linux version 7.3.4 (someone@somewhere) (gcc) #1 SMP'
const NEWEST = ['kho-v4', 'luo-v5', 'memfd-v2', 'memblock-v1', 'reserve-mem-v1']

function write(bytes: Uint8Array): string {
  const path = `${directory}/kernel`
  writeFileSync(path, bytes)
  return path
}

async function read(bytes: Uint8Array): Promise<KernelReading> {
  const source = openFile(write(bytes))
  const reading = isProblem(source) ? source : await readKernel(source)
  if (isProblem(reading)) throw new Error(reading.problem)
  return reading
}

describe('strings', () => {
  test('of a release: its versions, its readers', async () => {
    const { kernel, strings, unknown, version } = await read(kernelWith(BANNER, ...NEWEST))
    expect(version).toBe('7.3.4')
    expect(strings).toEqual([...NEWEST].sort())
    expect(unknown).toEqual([])
    expect(kernel.name).toBe('Linux 7.3.4')
    expect(kernel.release.name).toBe('linux-7.3')
    expect(kernel.versions).toEqual({
      kho: 'kho-v4',
      luo: 'luo-v5',
      memfd: 'memfd-v2',
      memblock: 'memblock-v1',
      'kexec-metadata': 'kexec-metadata-1',
    })
    expect(kernel.fileHandlers).toEqual(['memfd-v2'])
  })

  test('an unknown one is shown, and is no version', async () => {
    const { kernel, unknown } = await read(kernelWith(BANNER, 'kho-v9', ...NEWEST.slice(1), 'memfd-v7'))
    expect(unknown).toEqual(['kho-v9', 'memfd-v7'])
    expect(kernel.versions.kho).toBe('kho-v9')
    expect(kernel.fileHandlers).toEqual(['memfd-v2', 'memfd-v7'])
  })

  test('text that only looks like one is none', async () => {
    const { strings } = await read(
      kernelWith(
        BANNER,
        'kho-v4',
        'xkho-v3',
        'luo-v5: failed',
        'old-memfd-v1',
        'kho-vX',
        'kho-v',
        'luo-v55555',
      ),
    )
    expect(strings).toEqual(['kho-v4'])
  })

  test('a kernel without LUO speaks no version of it', async () => {
    const { kernel } = await read(kernelWith(BANNER, 'kho-v4', 'memblock-v1', 'reserve-mem-v1'))
    expect(kernel.versions.luo).toBeUndefined()
    expect(kernel.fileHandlers).toEqual([])
  })

  test('without a banner the release whose versions they are', async () => {
    const { kernel, version } = await read(
      kernelWith('kho-v3', 'luo-v1', 'luo-session-v2', 'luo-flb-v1', 'memfd-v2'),
    )
    expect(version).toBeUndefined()
    expect([kernel.release.name, kernel.versions.luo]).toEqual(['linux-7.1', 'luo-v1/flb'])
  })
})

describe('what shares a string is told apart', () => {
  test.each(
    releases
      .filter(({ unreleased }) => !unreleased)
      .map(({ name, versions }) => [name, versions.kho] as const),
  )('%s speaks %s', async (name, version) => {
    const banner = `Linux version ${name.slice('linux-'.length)}${/\d+\.\d+\.\d+$/.test(name) ? '' : '.0'}-distro`
    const { kernel } = await read(kernelWith(banner, (version as string).replace(/\/.*/, ''), 'memblock-v1'))
    expect(kernel.versions.kho).toBe(version)
  })
})

test('gzip-compressed, the same is found', async () => {
  const { strings } = await read(gzipSync(kernelWith(BANNER, ...NEWEST)))
  expect(strings).toEqual([...NEWEST].sort())
})

test.each([
  ['a text file', Buffer.from('no kernel at all\n'.repeat(100)), /is no Linux kernel/],
  ['nothing', Buffer.alloc(0), /is empty/],
  ['damaged gzip', Buffer.concat([gzipSync(kernelWith(BANNER)).subarray(0, 40), NOISE]), /.+/],
])('%s is refused with one line and exit code 3', async (_title, bytes, problem) => {
  const { status, stdout, stderr } = await ran([
    'validate',
    realPath('linux-7.3-x86_64-basic'),
    '--kernel',
    write(bytes),
  ])
  expect([status, stdout]).toEqual([3, ''])
  expect(stderr).toMatch(/^kho-inspect: [^\n]+\n$/)
  expect(stderr).toMatch(problem)
})

describe('the verdict', () => {
  const image = realPath('linux-7.3-x86_64-basic')

  test.each([
    ['the kernel that it comes from', [BANNER, ...NEWEST], 'takes-over', 0],
    ['one of another KHO', [BANNER, 'kho-v9', ...NEWEST.slice(1)], 'no-handover', 1],
    ['one without KHO', [BANNER], 'no-handover', 1],
    [
      'one of another LUO',
      [BANNER, 'kho-v4', 'luo-v6', 'memfd-v2', 'memblock-v1', 'reserve-mem-v1'],
      'panics',
      1,
    ],
    [
      'one of another memfd',
      [BANNER, 'kho-v4', 'luo-v5', 'memfd-v3', 'memblock-v1', 'reserve-mem-v1'],
      'device-fails',
      1,
    ],
  ])('for %s', async (_title, constants, outcome, code) => {
    const path = write(kernelWith(...constants))
    const { status, stdout } = await ran(['validate', image, '--kernel', path, '--json'])
    expect([JSON.parse(stdout).outcome, status]).toEqual([outcome, code])
  })

  test('an unknown version is named on stderr', async () => {
    const path = write(kernelWith(BANNER, 'kho-v9'))
    const { stderr } = await ran(['validate', image, '--kernel', path])
    expect(stderr).toMatch(/^kho-inspect: warning: .* speaks kho-v9, of which nothing is known here\n$/)
  })
})

test('the BTF of a real kernel is no kernel', async () => {
  const btf = readFileSync(new URL('../fixtures/btf/exported-16k.btf', import.meta.url))
  const { status } = await ran(['validate', realPath('linux-7.3-x86_64-basic'), '--kernel', write(btf)])
  expect(status).toBe(3)
})
