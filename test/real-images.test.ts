/** The captured images, through every container, against what an independent reader says of them. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ran } from './support/command-line.ts'
import { RealImage, type Segment } from './support/elf-core.ts'
import { expectedOf, realImages, realPath } from './support/images.ts'
import { isWhole } from './support/machines.ts'

/** Every key of the expected document equals ours; arrays have the same length and order. */
function picked(expected: unknown, found: unknown): unknown {
  if (Array.isArray(expected)) {
    if (!Array.isArray(found)) return found
    return [...expected.map((item, i) => picked(item, found[i])), ...found.slice(expected.length)]
  }
  if (typeof expected !== 'object' || expected === null || typeof found !== 'object' || found === null)
    return found
  return Object.fromEntries(
    Object.keys(expected).map((key) => [
      key,
      picked((expected as Record<string, unknown>)[key], (found as Record<string, unknown>)[key]),
    ]),
  )
}

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

function ramBase(name: string): bigint {
  return name.includes('arm64') ? 0x4000_0000n : 0n
}

/** Flat memory from `base` on; the file is sparse between the segments. */
function writeRaw(path: string, segments: readonly Segment[], base: bigint): void {
  const fd = openSync(path, 'w')
  for (const { pa, bytes } of segments) writeSync(fd, bytes, 0, bytes.length, Number(pa - base))
  closeSync(fd)
}

/** Segments that lie less than 32 MiB apart. */
function clusters(segments: readonly Segment[]): readonly (readonly Segment[])[] {
  const found: Segment[][] = []
  let end: bigint | undefined
  for (const segment of segments) {
    if (end !== undefined && segment.pa - end < 1n << 25n) found.at(-1)?.push(segment)
    else found.push([segment])
    end = segment.pa + BigInt(segment.bytes.length)
  }
  return found
}

/** LiME: for each range a header of magic, version 1, first and last address, 8 bytes reserved. */
function writeLime(path: string, segments: readonly Segment[]): void {
  const pieces = segments.flatMap(({ pa, bytes }) => {
    const header = Buffer.alloc(32)
    header.write('EMiL')
    header.writeUInt32LE(1, 4)
    header.writeBigUInt64LE(pa, 8)
    header.writeBigUInt64LE(pa + BigInt(bytes.length) - 1n, 16)
    return [header, bytes]
  })
  writeFileSync(path, Buffer.concat(pieces))
}

/** One of each architecture in every container; in `npm run fuzz` all of them. */
const inContainers = isWhole ? realImages : ['linux-7.3-x86_64-basic', 'linux-7.3-arm64-4k-basic']

describe.each(realImages)('%s', (name) => {
  const expected = expectedOf(name)

  async function expectDump(...args: string[]): Promise<void> {
    const { stdout, stderr, status } = await ran(['dump', '--json', ...args])
    expect(stderr).toBe('')
    expect(status).toBe(0)
    const found = JSON.parse(stdout)
    expect(picked(expected, found)).toEqual(expected)
    expect(found.faults).toEqual([])
    expect(found.schema).toBe('kho-inspect/dump@1')
  }

  test('from the gzip-compressed ELF core', () => expectDump(realPath(name)))

  test('the tree for people is as reviewed', async () => {
    const { stdout, status } = await ran(['dump', realPath(name)])
    expect(status).toBe(0)
    await expect(stdout).toMatchFileSnapshot(`expected/dump/${name}.txt`)
  })

  if (!inContainers.includes(name)) return

  test('from the ELF core', async () => {
    const path = `${directory}/${name}.elf`
    writeFileSync(path, gunzipSync(readFileSync(realPath(name))))
    await expectDump(path)
  })

  test('from flat raw memory', async () => {
    const path = `${directory}/${name}.raw`
    const base = ramBase(name)
    writeRaw(path, new RealImage(name).segments, base)
    await expectDump(base === 0n ? path : `${path}@0x${base.toString(16)}`)
  })

  test('from flat pieces, each with its address', async () => {
    const parts = clusters(new RealImage(name).segments)
    expect(parts.length).toBeGreaterThan(1)
    const pieces = parts.map((part, i) => {
      const path = `${directory}/${name}.${i}`
      const base = (part[0] as Segment).pa
      writeRaw(path, part, base)
      return `${path}@0x${base.toString(16)}`
    })
    await expectDump(...pieces)
  })

  test('from LiME', async () => {
    const path = `${directory}/${name}.lime`
    writeLime(path, new RealImage(name).segments)
    await expectDump(path)
  })
})

test.each(['linux-7.1-x86_64-debugfs', 'linux-7.3-x86_64-debugfs'])(
  '%s is dumped as far as it goes',
  async (name) => {
    const { stdout, status, stderr } = await ran(['dump', `fixtures/real/${name}`])
    expect(status).toBe(0)
    await expect(`${stdout}\n${stderr}`).toMatchFileSnapshot(`expected/dump/${name}.txt`)
  },
)

test.each(['', '/kho', '/kho/out'])('a debugfs copy may be named at any level (%s)', async (below) => {
  const document = JSON.parse(
    (await ran(['dump', '--json', `fixtures/real/linux-7.1-x86_64-debugfs${below}`])).stdout,
  )
  expect(document.kho).toEqual({ totalsize: 405, compatible: 'kho-v3', memory_map: '0x47a000' })
  expect(document.luo.liveupdate_num).toBe(1)
  expect(document.memblock.reserve_mem).toEqual([
    { name: 'trace', compatible: 'reserve-mem-v1', start: '0xf900000', size: 1048576 },
  ])
  expect(document.kexec_metadata).toEqual({ version: 1, previous_release: '7.1.13', kexec_count: 1 })
})
