/**
 * Opening images as a user names them: FILE@ADDR, recognition by content, what is no image, gzip with
 * its limits, copies of debugfs, and files whose size nothing tells.
 */
import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { phys } from '../abi/memory.ts'
import { writeElf } from '../encode/image-elf.ts'
import { writeKdump } from '../encode/image-kdump.ts'
import { openImage, parseImageSource } from '../inspect/image.ts'
import {
  bytesOf,
  containerFixture,
  digest,
  gzipFile,
  noise,
  open,
  problemOf,
  statesOf,
  TestMemory,
  temporaryDirectory,
  writeImage,
} from './support/containers.ts'
import { ROOT } from './support/images.ts'

const directory = temporaryDirectory()
const file = (name: string, content?: Uint8Array | string): string => {
  const path = join(directory, name)
  if (content !== undefined) writeFileSync(path, content)
  return path
}

describe('FILE@ADDR', () => {
  it('takes hexadecimal and decimal addresses', () => {
    const path = file('ram', noise(16))
    expect(parseImageSource(`${path}@0x40000000`)).toEqual({
      ok: true,
      source: { path, address: 0x4000_0000n },
    })
    expect(parseImageSource(`${path}@4096`)).toEqual({ ok: true, source: { path, address: 4096n } })
    expect(parseImageSource(`${path}@0xFFFFFFFFFFFFFFFF`)).toEqual({
      ok: true,
      source: { path, address: (1n << 64n) - 1n },
    })
    expect(parseImageSource(path)).toEqual({ ok: true, source: { path } })
  })

  it('prefers a file whose name holds the @', () => {
    const path = file('odd@0x1000', noise(16))
    expect(parseImageSource(path)).toEqual({ ok: true, source: { path } })
    expect(parseImageSource(`${path}@0x2000`)).toEqual({ ok: true, source: { path, address: 0x2000n } })
  })

  it('says what is wrong with an address', () => {
    const path = file('ram', noise(16))
    for (const text of ['0x', 'top', '-1', '0x10000000000000000', '12k', '']) {
      const expected = 'expected an address behind the @, hexadecimal (0x…) or decimal'
      expect(parseImageSource(`${path}@${text}`)).toEqual({
        ok: false,
        problem: `${path}@${text}: ${expected}; found ${JSON.stringify(text)}`,
      })
    }
    expect(parseImageSource('no@such')).toMatchObject({
      ok: false,
      problem: expect.stringContaining('neither no@such nor no exists'),
    })
  })
})

describe('recognition', () => {
  it('goes by content, not by name', async () => {
    const memory = new TestMemory([{ start: 0x1000n, content: noise(4096) }])
    const elf = writeImage(file('really-an-elf.raw'), writeElf(memory, { arch: 'x86_64' }))
    const image = await open(elf)
    expect(image.format).toBe('elf')
    image.close()
    const asRaw = await open(elf, { format: 'raw' })
    expect(asRaw.format).toBe('raw')
    expect(bytesOf(asRaw, { start: 0n, end: 4n })).toEqual(Uint8Array.of(0x7f, 0x45, 0x4c, 0x46))
    asRaw.close()
    const flat = await open(file('a.flat', `makedumpfile${'\0'.repeat(5000)}`), { format: 'raw' })
    expect(new TextDecoder().decode(bytesOf(flat, { start: 0n, end: 12n }))).toBe('makedumpfile')
    flat.close()
    expect(await problemOf(elf, { format: 'lime' })).toMatch(
      /no LiME header: expected the magic 0x4c694d45, found 0x464c457f \(offset 0\)/,
    )
    expect(await problemOf(elf, { format: 'kdump' })).toMatch(
      /no kdump-compressed file: expected "KDUMP {3}" at offset 0/,
    )
    expect(await problemOf(file('a.raw', noise(8192)), { format: 'elf' })).toMatch(
      /no ELF file; expected 7f 45 4c 46 at offset 0, found a5 a3 c4 98/,
    )
  })

  it('takes a small file with the magic number of an FDT for one', async () => {
    const fdt = join(ROOT, 'fixtures/real/linux-7.3-x86_64-debugfs/kho/out/fdt')
    const bytes = readFileSync(fdt)
    const image = await open(fdt)
    expect(image.format).toBe('fdt')
    expect(image.ranges).toEqual([{ start: 0n, end: BigInt(bytes.length) }])
    image.close()
    const placed = await open([{ path: fdt, address: phys(0x7e_d000n) }])
    expect(placed.format).toBe('fdt')
    expect(bytesOf(placed, { start: 0x7e_d000n, end: 0x7e_d000n + BigInt(bytes.length) })).toEqual(
      new Uint8Array(bytes),
    )
    placed.close()
    // RAM of an arm64 machine starts with the firmware's device tree.
    const ram = file('ram-with-dtb', bytes)
    truncateSync(ram, 16 << 20)
    const flat = await open([{ path: ram, address: phys(0x4000_0000n) }])
    expect(flat.format).toBe('raw')
    flat.close()
  })

  it('names what is no image, in one line', async () => {
    const expected =
      'expected an image of physical memory (raw, ELF core, LiME, kdump-compressed), an FDT or a copy of debugfs kho; found'
    const cases: readonly [Uint8Array | string, string][] = [
      ['hello, this is a text file\nwith two lines\n', `${expected} a text file`],
      ['Ümläute sind auch Text\n'.repeat(1000), `${expected} a text file`],
      [
        Uint8Array.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 1, 2),
        `${expected} compressed with xz; unpack it first (unxz)`,
      ],
      [
        Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 1, 2),
        `${expected} compressed with zstd; unpack it first (unzstd)`,
      ],
      ['QEVM\0\0\0\x03', `${expected} a saved QEMU machine; write its memory with dump-guest-memory`],
      ['QFI\xfb\0\0\0\x03', `${expected} a qcow2 disk image, no memory`],
      [noise(100), `${expected} 100 bytes of no known format (--format raw takes them as memory)`],
    ]
    for (const [content, problem] of cases) {
      const path = file(
        'alien',
        typeof content === 'string'
          ? Buffer.from(content, content.startsWith('Q') ? 'latin1' : 'utf8')
          : content,
      )
      expect(await problemOf(path)).toBe(`${path}: ${problem}`)
      const packed = gzipFile(path)
      expect(await problemOf(packed)).toBe(`${packed}: ${problem}`)
      const forced = await open(path, { format: 'raw' })
      expect(forced.format).toBe('raw')
      forced.close()
    }
  })

  it('names what cannot be read', async () => {
    const missing = file('missing')
    expect(await problemOf(missing)).toBe(`${missing}: cannot be opened: ENOENT`)
    const empty = file('empty', '')
    expect(await problemOf(empty)).toBe(`${empty}: is empty; expected an image of physical memory`)
    expect(await problemOf(directory)).toMatch(
      /is a directory; expected an image file, or a copy of debugfs kho, kho\/in or kho\/out/,
    )
    expect(await problemOf([{ path: directory, address: phys(0) }, { path: empty }])).toMatch(
      /is a directory; expected an image file$/,
    )
    const pipe = file('pipe')
    execFileSync('mkfifo', [pipe])
    expect(await problemOf(pipe)).toMatch(
      /is a pipe; an image is read at arbitrary places, so save it to a file/,
    )
    const loop = file('loop')
    symlinkSync(loop, loop)
    expect(await problemOf(loop)).toBe(`${loop}: cannot be opened: ELOOP`)
    expect(await problemOf([])).toBe('no image given; expected a file')
  })

  it('takes several files as pieces of flat memory or parts of a kdump, nothing else', async () => {
    const elf = writeImage(
      file('one.elf'),
      writeElf(new TestMemory([{ start: 0n, content: noise(4096) }]), { arch: 'x86_64' }),
    )
    const raw = file('one.raw', noise(8192))
    expect(await problemOf([{ path: raw }, { path: elf }])).toBe(
      `${elf}: expected a piece of flat raw memory (FILE@ADDR) or a part of a split kdump; found a complete image (elf)`,
    )
    expect(await problemOf([{ path: elf, address: phys(0x1000n) }], { format: 'elf' })).toBe(
      `${elf}: an address goes with flat raw memory only; elf images hold their addresses`,
    )
    expect(await problemOf([{ path: raw }, { path: raw }])).toMatch(/raw images overlap in physical memory/)
    const two = await open([{ path: raw }, { path: raw, address: phys(0x10_0000n) }])
    expect(two.ranges.length).toBe(2)
    expect(two.hint).toMatch(/LiME's raw format has lost its addresses/)
    expect(two.filePosition(phys(0x10_0010n))).toEqual({ file: raw, offset: 16 })
    two.close()
  })

  it('warns of a flat file that ends inside of a page', async () => {
    const path = file('odd.raw', noise(10_000))
    const image = await open(path)
    expect(image.warnings).toEqual([
      `${path}: 10000 bytes are no whole number of pages; the end may be missing`,
    ])
    image.close()
  })
})

describe('files whose size nothing tells', () => {
  it('are read nevertheless', async () => {
    // /proc files report size 0; this one is text.
    expect(await problemOf('/proc/version')).toMatch(/found a text file$/)
    const asRaw = await open('/proc/version', { format: 'raw' })
    const { length } = readFileSync('/proc/version')
    expect(asRaw.ranges).toEqual([{ start: 0n, end: BigInt(length) }])
    expect(bytesOf(asRaw, { start: 0n, end: BigInt(length) })).toEqual(
      new Uint8Array(readFileSync('/proc/version')),
    )
    asRaw.close()
  })

  it('are refused if they never end', async () => {
    expect(await problemOf('/dev/zero')).toBe('/dev/zero: has no end; expected a copy of physical memory')
    expect(await problemOf('/dev/null')).toBe('/dev/null: is empty; expected an image of physical memory')
  })
})

describe('gzip', () => {
  const content = Buffer.concat([noise(300_000), new Uint8Array(1 << 20), noise(200_000, 3)])
  const image = new TestMemory([{ start: 0x1000n, content: noise(0x20_0000) }])

  it('may have several members and stand around each format', async () => {
    const path = file(
      'members.gz',
      Buffer.concat([gzipSync(content.subarray(0, 123_456)), gzipSync(content.subarray(123_456))]),
    )
    const opened = await open([{ path, address: phys(0x1000n) }])
    expect(digest(bytesOf(opened, { start: 0x1000n, end: 0x1000n + BigInt(content.length) }))).toBe(
      digest(content),
    )
    expect(opened.filePosition(phys(0x1000n))).toBeUndefined()
    opened.close()
  })

  it('that is cut off gives what came before, and says so', async () => {
    const elf = writeImage(file('cut.elf'), writeElf(image, { arch: 'x86_64' }))
    const packed = gzipSync(readFileSync(elf))
    const path = file('cut.elf.gz', packed.subarray(0, packed.length >> 1))
    const opened = await open(path)
    const [, present, excluded] = statesOf(opened)
    expect([present?.state, excluded?.state]).toEqual(['present', 'excluded'])
    expect(Number(present?.end)).toBeGreaterThan(0x8_0000)
    const bytes = bytesOf(opened, { start: present?.start ?? 0n, end: present?.end ?? 0n })
    expect(Buffer.compare(bytes, noise(0x20_0000).subarray(0, bytes.length))).toBe(0)
    expect(opened.presence(phys(excluded?.start ?? 0n)).reason).toMatch(
      /where its gzip data is cut off or damaged \(unexpected end of file\), before this memory$/,
    )
    opened.close()
    const stump = file('stump.gz', packed.subarray(0, 12))
    expect(await problemOf(stump)).toBe(`${stump}: gzip data is damaged: unexpected end of file`)
  })

  it('that is damaged gives what came before, and says so', async () => {
    const packed = gzipSync(content)
    packed.fill(0xff, packed.length - 100_000, packed.length - 99_900)
    const path = file('damaged.raw.gz', packed)
    const opened = await open(path)
    expect(opened.warnings).toEqual([
      expect.stringMatching(/ends at offset \d+, where its gzip data is cut off or damaged \(.+\)$/),
    ])
    const end = opened.ranges[0]?.end ?? 0n
    expect(Number(end)).toBeGreaterThan(1_000_000)
    opened.close()
    const checksum = gzipSync(content)
    checksum[checksum.length - 6] = (checksum[checksum.length - 6] as number) ^ 1
    const wrong = await open(file('checksum.raw.gz', checksum))
    expect(wrong.warnings).toEqual([expect.stringMatching(/damaged \(incorrect data check\)$/)])
    wrong.close()
  })

  it('is spilled to a temporary file above a limit, which leaves nothing behind', async () => {
    const tempDir = file('spill')
    mkdirSync(tempDir)
    const large = Buffer.concat([noise(900_000), new Uint8Array(2 << 20), noise(900_000, 9)])
    const path = file('large.raw.gz', gzipSync(large))
    const opened = await open(path, { tempDir, memoryBytes: 600_000 })
    expect(readdirSync(tempDir)).toEqual([])
    expect(digest(bytesOf(opened, { start: 0n, end: BigInt(large.length) }))).toBe(digest(large))
    opened.close()
    rmSync(tempDir, { recursive: true })
    expect(await problemOf(path, { tempDir, memoryBytes: 600_000 })).toBe(
      `${path}: cannot be unpacked to ${tempDir}: ENOENT`,
    )
  })

  it('does not unpack without end', async () => {
    const bomb = file('bomb.gz', gzipSync(new Uint8Array(8 << 20)))
    const limit = { totalBytes: 4 << 20 }
    expect(await problemOf(bomb, limit)).toBe(
      `${bomb}: unpacks to more than ${4 << 20} bytes; unpack it to a file first`,
    )
    const nested = file('nested.gz', gzipSync(gzipSync(content)))
    expect(await problemOf(nested)).toBe(`${nested}: gzip inside of gzip; unpack it once first`)
  })

  it('reports how far it is', async () => {
    const path = file('progress.raw.gz', gzipSync(noise(3 << 20)))
    const seen: [number, number][] = []
    const opened = await open(path, { progress: (done, total) => seen.push([done, total]) })
    const { length } = readFileSync(path)
    expect(seen.at(-1)).toEqual([length, length])
    opened.close()
  })
})

describe('a copy of debugfs', () => {
  const real = join(ROOT, 'fixtures/real/linux-7.3-x86_64-debugfs')

  it('is found at kho, kho/out, or above kho', async () => {
    for (const path of [real, `${real}/kho`, `${real}/kho/out`, `${real}/kho/out/`]) {
      const image = await open(path)
      expect(image.format).toBe('debugfs')
      expect(image.ranges).toEqual([])
      const [tree, ...others] = image.debugfs ?? []
      expect(others).toEqual([])
      expect(tree?.direction).toBe('out')
      expect(tree?.fdt).toEqual(new Uint8Array(readFileSync(`${real}/kho/out/fdt`)))
      expect([...(tree?.blobs ?? [])].map(([name, bytes]) => [name, bytes.length])).toEqual([
        ['LUO', 32],
        ['kexec-metadata', 73],
        ['kho_test', 240],
        ['memblock', 210],
      ])
      expect(tree?.scratch).toEqual([
        { addr: 0xe80_0000n, size: 0x100_0000n },
        { addr: 0xa80_0000n, size: 0x400_0000n },
        { addr: 0x980_0000n, size: 0x100_0000n },
      ])
      expect(image.warnings).toEqual([])
      image.close()
    }
  })

  it('becomes memory where its blobs are placed', async () => {
    const image = await open(`${real}/kho`)
    const tree = image.debugfs?.[0]
    const luo = tree?.blobs.get('LUO') as Uint8Array
    tree?.placeBlob(phys(0x7000_1000n), luo)
    tree?.placeBlob(phys(0x7000_1010n), noise(64))
    expect(image.ranges).toEqual([{ start: 0x7000_1000n, end: 0x7000_1050n }])
    expect(bytesOf(image, { start: 0x7000_1000n, end: 0x7000_1020n })).toEqual(luo)
    expect(bytesOf(image, { start: 0x7000_1020n, end: 0x7000_1050n })).toEqual(noise(64).subarray(16))
    expect(image.filePosition(phys(0x7000_1008n))).toEqual({
      file: `${real}/kho/out/sub_fdts/LUO`,
      offset: 8,
    })
    expect(image.filePosition(phys(0x7000_1028n))).toBeUndefined()
    expect(image.presence(phys(0n))).toEqual({ state: 'hole', until: 0x7000_1000n })
    image.close()
  })

  it('may hold both directions, links, odd files and gaps', async () => {
    const copy = file('debugfs')
    cpSync(`${real}/kho/out`, join(copy, 'out'), { recursive: true })
    cpSync(`${real}/kho/out`, join(copy, 'in'), { recursive: true })
    rmSync(join(copy, 'in/scratch_len'))
    rmSync(join(copy, 'in/sub_fdts'), { recursive: true })
    writeFileSync(join(copy, 'out/scratch_phys'), '0x1000000\nlots\n0x4000000\n')
    symlinkSync('LUO', join(copy, 'out/sub_fdts/link'))
    symlinkSync('nowhere', join(copy, 'out/sub_fdts/dangling'))
    mkdirSync(join(copy, 'out/sub_fdts/subdirectory'))
    writeFileSync(join(copy, 'out/sub_fdts/huge'), '')
    truncateSync(join(copy, 'out/sub_fdts/huge'), 1 << 30)
    const image = await open(copy)
    const [out, into] = image.debugfs ?? []
    expect([out?.direction, into?.direction]).toEqual(['out', 'in'])
    expect([...(out?.blobs.keys() ?? [])]).toEqual(['LUO', 'kexec-metadata', 'kho_test', 'link', 'memblock'])
    expect(out?.scratch).toEqual([
      { addr: 0x100_0000n, size: 0x100_0000n },
      { addr: 0x400_0000n, size: 0x100_0000n },
    ])
    expect([into?.blobs.size, into?.scratch]).toEqual([0, []])
    expect(image.warnings.map((warning) => warning.slice(copy.length + 1))).toEqual([
      'out/sub_fdts/dangling: cannot be read: ENOENT',
      'out/sub_fdts/huge: has 1073741824 bytes; expected at most 4194304',
      'out/sub_fdts/subdirectory: is no regular file',
      'out/scratch_phys: expected an address a line, found "lots"',
      'in: scratch_phys has 3 lines, scratch_len 0',
    ])
    image.close()
    const lone = await open(join(copy, 'in'))
    expect(lone.debugfs?.map(({ direction }) => direction)).toEqual(['in'])
    lone.close()
  })

  it('is one directory', async () => {
    expect(await problemOf([{ path: real }, { path: real }], { format: 'debugfs' })).toMatch(
      /a copy of debugfs is one directory; expected no second one/,
    )
    const path = containerFixture('README.md')
    expect(await problemOf(path, { format: 'debugfs' })).toMatch(/is a file; expected a copy of debugfs/)
  })
})

describe('closing', () => {
  it('gives the descriptors back, also where opening failed', async () => {
    if (!existsSync('/proc/self/fd')) return
    const nrOpen = (): number => readdirSync('/proc/self/fd').length
    const elf = writeImage(
      file('close.elf'),
      writeElf(new TestMemory([{ start: 0n, content: noise(4096) }]), { arch: 'x86_64' }),
    )
    const kdump = writeImage(
      file('close.kdump'),
      writeKdump(new TestMemory([{ start: 0n, content: noise(4096) }]), { arch: 'x86_64', pageSize: 4096 }),
    )
    const before = nrOpen()
    for (const path of [
      elf,
      kdump,
      gzipFile(elf),
      file('missing'),
      file('close.text', 'text\n'),
      directory,
    ]) {
      const opened = await openImage([{ path }])
      if (opened.ok) opened.image.close()
      const twice = await openImage([{ path }, { path: elf }])
      if (twice.ok) twice.image.close()
    }
    expect(nrOpen()).toBe(before)
  })
})
