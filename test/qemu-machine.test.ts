/** What a machine is made of, as far as it needs no QEMU: placement, kernels, device trees, archives, sums. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type PhysicalMemory, phys } from '../abi/memory.ts'
import { readExpectation } from '../bin/expectation-file.ts'
import { buildFdt } from '../encode/fdt.ts'
import { encodeScenario } from '../encode/scenario.ts'
import { decodeHandover, type Handover } from '../inspect/decode.ts'
import { readFdt } from '../inspect/fdt.ts'
import { child, itemsAt } from '../inspect/tree.ts'
import { bootOnImage } from '../qemu/boot.ts'
import { cpioArchive, withFiles } from '../qemu/cpio.ts'
import { chooseIn } from '../qemu/device-tree.ts'
import { type ExpectedFile, expectationOf, retrievalList } from '../qemu/expectation.ts'
import { architectureOf, readArm64Kernel, symbolAddress } from '../qemu/kernel-file.ts'
import { placeParts, scratchAreas } from '../qemu/placement.ts'
import { wordSum } from '../qemu/word-sum.ts'
import { ran } from './support/command-line.ts'
import { decodeReal, openReal } from './support/images.ts'
import { PatchedMemory } from './support/patched.ts'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

function file(name: string, bytes: Uint8Array | string): string {
  const path = `${directory}/${name}`
  mkdirSync(path.slice(0, path.lastIndexOf('/')), { recursive: true })
  writeFileSync(path, bytes)
  return path
}

test('the sum is FNV-1a over words, as defined with whole numbers', () => {
  const byDefinition = (bytes: Uint8Array): bigint => {
    let sum = 14_695_981_039_346_656_037n
    for (let at = 0; at < bytes.length; at += 8) {
      let word = 0n
      for (let i = 0; i < 8; i++) word |= BigInt(bytes[at + i] ?? 0) << BigInt(8 * i)
      sum = BigInt.asUintN(64, (sum ^ word) * 1_099_511_628_211n)
    }
    return sum
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      expect(wordSum(bytes)).toBe(byDefinition(bytes))
    }),
  )
})

describe('placement', () => {
  const MIB = 1 << 20
  const area = (start: bigint, mebibytes: number) => ({
    start: phys(start),
    end: start + BigInt(mebibytes * MIB),
  })
  const parts = [
    { size: 5 * MIB, align: 2 * MIB },
    { size: 100_000, align: 65536 },
    { size: MIB, align: 65536 },
  ]

  test('in the largest area, apart from each other and from the array', () => {
    const large = area(0x5_0010_0000n, 64)
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 63n }), (at) => {
        const taken = area(large.start + at * BigInt(MIB), 1)
        const starts = placeParts(parts, [area(0x4000_0000n, 16), large], taken)
        const ranges = [
          taken,
          ...starts.map((start, i) => ({ start, end: start + BigInt(parts[i]?.size ?? 0) })),
        ]
        ranges.sort((a, b) => Number(a.start - b.start))
        for (const [i, range] of ranges.entries()) {
          expect(range.start).toBeGreaterThanOrEqual(ranges[i - 1]?.end ?? large.start)
          expect(range.end).toBeLessThanOrEqual(large.end)
        }
        for (const [i, start] of starts.entries()) expect(start % BigInt(parts[i]?.align ?? 1)).toBe(0n)
      }),
    )
  })

  test('no area with room', () => {
    const nothing = { start: phys(0), end: 0n }
    expect(() => placeParts(parts, [area(0n, 6)], nothing)).toThrow('expected one of 9 MiB')
  })

  test('the areas of a real handover', async () => {
    const image = await openReal('linux-7.3-arm64-4k-basic')
    const entry = { fdt_addr: 0n, fdt_size: 0n, scratch_addr: 0x5eff0000n, scratch_size: 48n }
    const sizes = scratchAreas(image, entry).map(({ start, end }) => (end - start) / BigInt(MIB))
    expect(sizes).toEqual([16n, 64n, 16n])
    expect(() => scratchAreas(image, { ...entry, scratch_addr: 0n })).toThrow(
      'does not hold the scratch array',
    )
    expect(() => scratchAreas(image, { ...entry, scratch_size: 1n << 60n })).toThrow(
      'does not hold the scratch array',
    )
  })
})

describe('kernels', () => {
  /** Head of an Image that takes 5 MiB. */
  const image = new Uint8Array(100_000)
  image.set(Buffer.from('ARM\x64'), 56)
  image[18] = 0x50

  test('architecture and size by the header', () => {
    expect(architectureOf(file('Image', image))).toBe('arm64')
    expect(readArm64Kernel(file('Image', image))).toMatchObject({ size: 5 << 20, align: 2 << 20, offset: 0 })
    const bzImage = new Uint8Array(1024)
    bzImage.set(Buffer.from('HdrS'), 0x202)
    expect(architectureOf(file('bzImage', bzImage))).toBe('x86_64')
    expect(() => architectureOf(file('text', 'no kernel'))).toThrow('expected an x86 bzImage')
    expect(() => readArm64Kernel(file('bzImage', bzImage))).toThrow('expected an uncompressed arm64 Image')
    expect(() => architectureOf(`${directory}/none`)).toThrow('ENOENT')
  })

  test('a function by System.map: beside the kernel, above it, by version, by option', () => {
    const map =
      'ffffffff81000000 T _text\nffffffff813049d0 T kho_populate\nffffffff81304a00 t kho_populate_more\n'
    const address = 0xffffffff813049d0n
    expect(symbolAddress('kho_populate', file('a/Image', image), file('a/System.map', map))).toBe(address)
    expect(symbolAddress('kho_populate', file('a/Image', image), undefined)).toBe(address)
    file('b/System.map', map)
    expect(symbolAddress('kho_populate', file('b/arch/x86/boot/bzImage', image), undefined)).toBe(address)
    file('c/System.map-7.3.4-amd64', map)
    expect(symbolAddress('kho_populate', file('c/vmlinuz-7.3.4-amd64', image), undefined)).toBe(address)
    expect(() => symbolAddress('kho_populate', file('d/Image', image), undefined)).toThrow(
      '--system-map tells',
    )
    expect(() => symbolAddress('kho_popul', file('a/Image', image), undefined)).toThrow('no kho_popul;')
  })

  test.skipIf(spawnSync('gcc', ['--version']).error)('a function by the symbols of an ELF file', () => {
    const source = file('e/a.c', 'int before(void) { return 1; } int kho_populate(void) { return 2; }')
    const program = `${directory}/e/vmlinux`
    spawnSync('gcc', ['-nostdlib', '-static', '-Wl,-e,kho_populate', '-o', program, source])
    const entry = /Entry point address: +(0x\w+)/.exec(
      spawnSync('readelf', ['-h', program]).stdout.toString(),
    )?.[1]
    expect(symbolAddress('kho_populate', file('e/Image', image), undefined)).toBe(BigInt(entry ?? 0))
    expect(() => symbolAddress('kho_nothing', 'x', program)).toThrow('no kho_nothing')
  })
})

test("a machine's tree keeps what it has and tells of the handover", () => {
  const text = (value: string): Uint8Array => Buffer.from(`${value}\0`)
  const machine = {
    name: '',
    properties: [{ name: 'compatible', value: text('linux,dummy-virt') }],
    children: [
      { name: 'cpus', properties: [{ name: '#size-cells', value: new Uint8Array(4) }], children: [] },
      { name: 'chosen', properties: [{ name: 'bootargs', value: text('old') }], children: [] },
    ],
  }
  const blob = buildFdt(machine, 'sequential', 4096)?.buffer as Uint8Array
  const boot = { fdt_addr: 0x1_4020_0000n, fdt_size: 4096n, scratch_addr: 0x5fbf_0000n, scratch_size: 48n }
  const { root, faults } = readFdt(
    chooseIn(blob, { boot, commandLine: 'kho=on', initrd: { start: 0x10n, end: 0x20n } }),
  )
  expect(faults).toEqual([])
  expect(root?.children.map(({ name }) => name)).toEqual(['cpus', 'chosen'])
  const chosen = root?.children[1]?.properties.map(({ name, value }) => [
    name,
    Buffer.from(value).toString('hex'),
  ])
  expect(chosen).toEqual([
    ['linux,kho-fdt', '00000001402000000000000000001000'],
    ['linux,kho-scratch', '000000005fbf00000000000000000030'],
    ['bootargs', Buffer.from('kho=on\0').toString('hex')],
    ['linux,initrd-start', '0000000000000010'],
    ['linux,initrd-end', '0000000000000020'],
  ])
})

test.skipIf(spawnSync('cpio', ['--version']).error)('archives are what cpio reads', () => {
  const files = [
    { path: 'init', bytes: Buffer.from('#!'), executable: true },
    { path: 'kho-retrieve', bytes: Buffer.from('session 41\n') },
  ]
  const listed = spawnSync('cpio', ['-itv', '--quiet'], { input: cpioArchive(files) }).stdout.toString()
  expect(
    listed.split('\n').map((line) => line.replace(/^(\S+).*?(\d+) \w+ +\d+ +\S+ (\S+)$/, '$1 $2 $3')),
  ).toEqual(['-rwxr-xr-x 2 init', '-rw-r--r-- 11 kho-retrieve', ''])
  expect(withFiles(new Uint8Array(5), files).length).toBe(8 + cpioArchive(files).length)
})

test('what a real image is expected to give back', async () => {
  const expected = expectationOf(await decodeReal('linux-7.3-arm64-4k-basic'))
  expect(retrievalList(expected)).toBe(
    `session ${hexOf('vm-alpha')}\nfile 1\nfile 2\nfile deadbeefcafef00d\nsession ${hexOf('database')}\nfile 7\nfile 8\nsession ${hexOf('no-files-here')}\nregion ${hexOf('trace')} 5fcde000 1048576\nregion ${hexOf('oops')} 5fcc0000 65536\n`,
  )
  expect(expected.sessions[0]?.files[0]).toEqual({
    token: 1n,
    size: 10000n,
    pos: 1234n,
    seals: 0,
    sum: 0x2814eedbb8829359n,
  })
  expect(expected.regions).toEqual(['trace', 'oops'])
  expect(expected.flbs).toHaveLength(3)
})

test("the file of --expect takes a report's regions, but none that its guest could not read", () => {
  const region = { name: 'trace', address: '0x5fcde000', errno: 0, size: 4096, sum: '00000000000000ff' }
  const contents = (...regions: readonly object[]): string =>
    file('expect.json', JSON.stringify({ region_contents: regions }))
  expect(readExpectation(contents(region, { name: 'oops', address: '0x1000', errno: 2 }))).toMatchObject({
    regionContents: [{ name: 'trace', address: 0x5fcd_e000n, size: 4096n, sum: 0xffn }],
  })
  expect(() => readExpectation(contents({ ...region, size: 'much' }))).toThrow(
    'region_contents[0].size: expected an integer',
  )
  expect(() => readExpectation(contents({ ...region, seals: 0 }))).toThrow(
    'region_contents[0]: expected one of',
  )
})

test('a file of holes is summed up to 4 GiB; of one that says more there is only the size', async () => {
  const encoded = await encodeScenario(`
release: linux-7.3
sessions:
  - name: vm
    files: [{ token: 1, memfd: { size: 1MiB, folios: [{ hole: 256 }] } }]
`)
  if (!encoded.ok) throw new Error(JSON.stringify(encoded.problems))
  const { memory, boot } = encoded.written
  const decoded = (from: PhysicalMemory): Handover => decodeHandover(from, phys(boot.fdt_addr), { boot })
  const heldIn = (from: PhysicalMemory): ExpectedFile | undefined =>
    expectationOf(decoded(from)).sessions[0]?.files[0]
  expect(heldIn(memory)).toMatchObject({ size: 1n << 20n, sum: wordSum(new Uint8Array(1 << 20)) })

  const [session] = itemsAt(child(decoded(memory).tree, 'luo'), 'sessions')
  const size = child(child(itemsAt(session, 'files')[0], 'memfd'), 'size')
  const broken = new PatchedMemory(memory)
  broken.writeU64(size?.pa ?? 0n, 1n << 62n)
  expect(heldIn(broken)).toEqual({ token: 1n, size: 1n << 62n, pos: 0n, seals: 0 })
})

test('an image that does not say of which machine it is, but lies where another has its RAM', async () => {
  const encoded = await encodeScenario('{ release: linux-7.3, arch: x86_64 }')
  if (!encoded.ok) throw new Error(JSON.stringify(encoded.problems))
  const { memory, boot } = encoded.written
  expect(await bootOnImage({ memory, boot, kernel: 'x', timeout: 1 })).toEqual({
    problem: expect.stringContaining("below the RAM of arm64's machine at 0x40000000"),
  })
})

test('no directory for temporary files is a failure in one line', async () => {
  const before = process.env.TMPDIR
  process.env.TMPDIR = `${directory}/none`
  try {
    const boot = { fdt_addr: 0n, fdt_size: 0n, scratch_addr: 0n, scratch_size: 0n }
    const memory = await openReal('linux-7.3-arm64-4k-basic')
    expect(await bootOnImage({ memory, boot, kernel: 'x', timeout: 1 })).toEqual({
      problem: `${directory}/none, where temporary files go, cannot be written: ENOENT`,
    })
  } finally {
    if (before === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = before
  }
})

function hexOf(name: string): string {
  return Buffer.from(name).toString('hex')
}

describe('the commands say what is wrong', () => {
  const IMAGE = 'fixtures/real/linux-7.3-arm64-4k-basic.elf.gz'
  const X86_IMAGE = 'fixtures/real/linux-7.3-x86_64-basic.elf.gz'
  const wrong: readonly (readonly [string, readonly string[], number, RegExp])[] = [
    ['no kernel', ['boot', IMAGE], 2, /kernel/],
    [
      'image of another machine',
      ['boot', X86_IMAGE, '--kernel', 'x', '--fdt', '0x49c000', '--scratch', '0x1000,48'],
      3,
      /the image is of a machine with x86_64; only images of arm64 can be booted/,
    ],
    ['no note', ['boot', IMAGE, '--kernel', 'x'], 2, /no note KHO; expected --fdt ADDR and --scratch/],
    [
      'kernel that is none',
      ['boot', IMAGE, '--kernel', 'package.json', '--fdt', '0x40959000', '--scratch', '0x5eff0000,48'],
      3,
      /arm64 Image/,
    ],
    [
      'memory',
      ['boot', IMAGE, '--kernel', 'x', '--memory', 'much'],
      2,
      /--memory: expected 512M or 2G; found 'much'/,
    ],
    ['time', ['boot', IMAGE, '--kernel', 'x', '--timeout', '0'], 2, /--timeout: expected seconds/],
    [
      'expectation',
      ['boot', IMAGE, '--kernel', 'x', '--expect', 'package.json'],
      2,
      /the document: expected one of/,
    ],
    ['capture into a pipe', ['capture', '--kernel', 'x', '--initrd', 'x', '-o', '-'], 2, /name of a file/],
    [
      'capture into no folder',
      ['capture', '--kernel', 'x', '--initrd', 'x', '-o', 'fixtures/none/y'],
      3,
      /fixtures\/none\/y cannot be written: ENOENT/,
    ],
    ['capture without a guest', ['capture', '--kernel', 'x', '-o', 'y'], 2, /initrd/],
    [
      'capture of no kernel',
      ['capture', '--kernel', 'package.json', '--initrd', 'x', '-o', 'y'],
      3,
      /bzImage/,
    ],
  ]
  test.each(wrong)('%s', async (_title, args, status, message) => {
    const run = await ran(args)
    expect(run.stderr).toMatch(message)
    expect(run.status).toBe(status)
    expect(run.stderr.trim().split('\n')).toHaveLength(1)
  })
})
