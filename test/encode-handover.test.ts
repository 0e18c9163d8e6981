/** Whole handovers: documents of real images written back, new ones placed, what cannot be written. */
import { describe, expect, test } from 'vitest'
import type { PhysAddr } from '../abi/memory.ts'
import type { HandoverDocument } from '../encode/handover.ts'
import { writeHandover } from '../encode/write-handover.ts'
import { REAL_IMAGES, RealImage } from './support/elf-core.ts'
import { readDocument } from './support/handover-reader.ts'

interface Range {
  readonly from: bigint
  readonly to: bigint
}

/**
 * Bytes of real pages that carry no meaning. 7.3: lib/test_kho.c allocates its FDT's unit without zeroing
 * and clears one page and 8 bytes a folio, the buffer that it makes the FDT in.
 */
const MEANINGLESS: Readonly<Record<string, readonly Range[]>> = {
  'linux-7.3-x86_64-basic': [{ from: 0x534000n + 4096n + 22n * 8n, to: 0x536000n }],
}

/**
 * What is compared of a written page: all of it, but of slab pages (512-byte bitmaps come from kmalloc)
 * the bitmaps only, since the kernel's other objects stand beside them.
 */
function compared(document: HandoverDocument, page: bigint): readonly Range[] {
  const whole = [{ from: page, to: page + 4096n }]
  if (document.versions.kho !== 'kho-v1/bitmap-512') return whole
  const bitmaps = (document.preserved?.chunks ?? [])
    .flatMap((chunk) => chunk.bitmaps.map(({ at = 0n }) => ({ from: at, to: at + 512n })))
    .filter(({ from }) => page <= from && from < page + 4096n)
  return bitmaps.length > 0 ? bitmaps : whole
}

describe.each(REAL_IMAGES)('%s', (name) => {
  const image = new RealImage(name)
  const document = readDocument(image, name)
  const { memory, boot, problems } = writeHandover(document)

  test('has nothing that cannot be written', () => {
    expect(problems).toEqual([])
    expect(boot).toEqual({
      fdt_addr: document.root.at,
      fdt_size: 4096n,
      scratch_addr: document.scratch?.at,
      scratch_size: 48n,
    })
  })

  test('every page that is written equals the real one', () => {
    const ignored = MEANINGLESS[name] ?? []
    const different: string[] = []
    let pages = 0
    for (const { start, end } of memory.extents()) {
      for (let page: bigint = start; page < end; page += 4096n, pages++) {
        for (const { from, to } of compared(document, page)) {
          const written = new Uint8Array(Number(to - from))
          memory.read(from as PhysAddr, written)
          const real = image.bytes(from, written.length)
          const at = written.findIndex(
            (byte, index) =>
              byte !== real[index] &&
              !ignored.some((range) => range.from <= from + BigInt(index) && from + BigInt(index) < range.to),
          )
          if (at >= 0) different.push(`0x${from.toString(16)}+${at}: ${written[at]} instead of ${real[at]}`)
        }
      }
    }
    expect(different).toEqual([])
    expect(pages).toBeGreaterThan(14)
  })
})
