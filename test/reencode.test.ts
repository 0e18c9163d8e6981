/** Image → document → image: every byte of the handover's metadata comes out as the real kernel left it. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { expect, test } from 'vitest'
import { hex, type PhysicalMemory, phys } from '../abi/memory.ts'
import { documentOf } from '../bin/document.ts'
import { writeHandover } from '../encode/write-handover.ts'
import { decodeHandover, type Handover } from '../inspect/decode.ts'
import { openImage } from '../inspect/image.ts'
import { type Region, regionsIn } from '../inspect/regions.ts'
import { ran } from './support/command-line.ts'
import { decodeReal, openReal, realImages, realPath } from './support/images.ts'

function bytesAt(memory: PhysicalMemory, pa: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  memory.read(phys(pa), bytes)
  return bytes
}

/** Spans whose bytes differ, each with its place and both values. */
function differences(region: Region, before: PhysicalMemory, after: PhysicalMemory): readonly string[] {
  return region.spans().flatMap((span) => {
    const [a, b] = [before, after].map((memory) =>
      Buffer.from(bytesAt(memory, span.pa, span.length)).toString('hex'),
    )
    return a === b ? [] : [`${hex(span.pa)} ${region.title}: ${span.path}: ${a} became ${b}`]
  })
}

/** Runs of bytes that differ in the pages of a region, outside of all regions. */
function leftovers(handover: Handover, regions: readonly Region[], after: PhysicalMemory): readonly string[] {
  const { pageSize } = handover.target
  const pages = new Map<bigint, string>()
  for (const { pa, title } of regions) pages.set(pa - (pa % BigInt(pageSize)), title)
  return [...pages].flatMap(([page, title]) => {
    const before = bytesAt(handover.memory, page, pageSize)
    const now = bytesAt(after, page, pageSize)
    for (const region of regions) {
      const from = Number(region.pa - page)
      if (from + region.length <= 0 || from >= pageSize) continue
      now.set(before.subarray(Math.max(0, from), from + region.length), Math.max(0, from))
    }
    const first = before.findIndex((byte, at) => byte !== now[at])
    if (first < 0) return []
    const last = before.findLastIndex((byte, at) => byte !== now[at])
    return [`${title}: bytes ${first} to ${last} of the page at ${hex(page)}`]
  })
}

test.each(realImages)('%s: document and bytes', async (name) => {
  const handover = await decodeReal(name)
  const document = documentOf(handover)
  const { memory, problems } = writeHandover(document)
  expect(problems).toEqual([])
  const regions = regionsIn(handover, 0n, 1n << 64n)
  expect(regions.flatMap((region) => differences(region, handover.memory, memory))).toEqual([])
  expect(documentOf(decodeHandover(memory, phys(document.root.at ?? 0n)))).toEqual(document)
})

/**
 * Bytes without a meaning, page by page. Linux 6.17.8 takes its bitmaps from kmalloc (512 bytes), so that
 * other objects of the slab, no part of the handover, lie beside them in the same pages.
 */
const meaningless: Readonly<Record<string, readonly string[]>> = {
  'linux-6.17-x86_64-basic': [
    'map bitmap, struct kho_mem_phys_bits: bytes 0 to 1439 of the page at 0x4d4000',
    'map bitmap, struct kho_mem_phys_bits: bytes 2560 to 3999 of the page at 0x4da000',
    'map bitmap, struct kho_mem_phys_bits: bytes 536 to 3903 of the page at 0xe81000',
  ],
}

test.each(realImages)('%s: the rest of its pages', async (name) => {
  const handover = await decodeReal(name)
  const { memory } = writeHandover(documentOf(handover))
  const regions = regionsIn(handover, 0n, 1n << 64n)
  expect(leftovers(handover, regions, memory)).toEqual(meaningless[name] ?? [])
})

/**
 * lib/test_kho.c does not clear the second page of the unit that holds its FDT: what lies there is no part
 * of the FDT, and the encoder writes the unit whole.
 */
const notCopied: Readonly<Record<string, readonly string[]>> = { 'linux-7.3-x86_64-basic': ['0x535000'] }

test.each(realImages)('%s: encode --from copies the contents of what is preserved, too', async (name) => {
  const directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
  const path = `${directory}/again.elf`
  const handover = await decodeReal(name)
  expect((await ran(['encode', '--from', realPath(name), '-o', path])).status).toBe(0)
  const [before, after] = [await openReal(name), await openImage([{ path }])]
  if (!after.ok) throw new Error(after.problem)
  const preserved = handover.tree.children.find((node) => node.kind === 'preserved')
  if (preserved?.kind !== 'preserved') throw new Error('no map')
  const different: string[] = []
  for (const { start, end } of preserved.map.extents()) {
    for (let at = start; at < end; at += BigInt(handover.target.pageSize)) {
      if (before.presence(phys(at)).state !== 'present') continue
      const pages = [before, after.image].map((memory) =>
        Buffer.from(bytesAt(memory, at, handover.target.pageSize)),
      )
      if (!pages[0]?.equals(pages[1] as Buffer)) different.push(hex(at))
    }
  }
  expect(different).toEqual(notCopied[name] ?? [])
  after.image.close()
  rmSync(directory, { recursive: true })
})
