/** Finding the handover: what is looked at in which order, and several handovers in one image. */

import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RealImage } from './support/elf-core.ts'
import { kho, ROOT } from './support/images.ts'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

type Patch = (pa: bigint, bytes: Buffer) => void

/** The RAM of a captured image as a flat file, up to the last byte that was captured. */
function flatFile(name: string, image: string, base = 0n, patch: Patch = () => {}): string {
  const path = `${directory}/${name}`
  const fd = openSync(path, 'w')
  for (const { pa, bytes } of new RealImage(image).segments) {
    const copy = Buffer.from(bytes)
    patch(pa, copy)
    writeSync(fd, copy, 0, copy.length, Number(pa - base))
  }
  closeSync(fd)
  return path
}

/** kexec_count stands at offset 69 of the metadata of the arm64 image. */
function countTwo(address: bigint): Patch {
  return (pa, bytes) => {
    const offset = Number(address - pa) + 69
    if (offset >= 0 && offset < bytes.length) bytes.writeUInt32LE(2, offset)
  }
}

describe('an image with an incoming and an outgoing handover', () => {
  /** x86's RAM ends where arm64's starts. */
  let both: readonly string[]
  const incoming = '0x49c000'
  const outgoing = '0x40959000'

  beforeAll(() => {
    const { expected } = new RealImage('linux-7.3-arm64-4k-basic')
    const metadata = expected.subtrees.find(({ name }: { name: string }) => name === 'kexec-metadata')
    const start = 0x4000_0000n
    const above = flatFile('above.raw', 'linux-7.3-arm64-4k-basic', start, countTwo(BigInt(metadata.phys)))
    both = [flatFile('below.raw', 'linux-7.3-x86_64-basic'), `${above}@${start}`]
  })

  test('both are listed, ranked, with what tells them apart; the first is dumped', () => {
    const { stdout, stderr, status } = kho(['dump', '--json', ...both])
    expect(stderr).toBe(
      'kho-inspect: 2 handovers found; this is the first, take another with --fdt:\n' +
        `  ${outgoing}  kho-v4  3 sessions; kexec_count 2; live update 1; outgoing: counts one more than another one here\n` +
        `  ${incoming}  kho-v4  3 sessions; kexec_count 1; live update 1; incoming: another one here counts one more\n`,
    )
    expect(JSON.parse(stdout).kho.fdt).toBe(outgoing)
    expect(status).toBe(0)
  })

  test('the one asked for is taken', () => {
    const { stdout, stderr } = kho(['dump', '--json', ...both, '--fdt', incoming])
    expect(stderr).toBe('')
    expect(JSON.parse(stdout).kho.fdt).toBe(incoming)
  })
})

test('a flat dump of 512 MiB is scanned in less than 200 MiB of memory', () => {
  const path = flatFile('full.raw', 'linux-7.3-x86_64-basic')
  truncateSync(path, 512 << 20)
  const report = 'process.on("exit",()=>process.stderr.write(String(process.resourceUsage().maxRSS)))'
  const args = [
    '--import',
    `data:text/javascript,${report}`,
    `${ROOT}dist/bin/kho-inspect.js`,
    'dump',
    '--json',
    path,
  ]
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  expect(status).toBe(0)
  expect(JSON.parse(stdout).kho.fdt).toBe('0x49c000')
  expect(Number(stderr)).toBeLessThan(200 * 1024)
})
