/**
 * Flat raw memory: the file's offset is the physical address, or FILE@ADDR says where its first byte
 * belongs. A bare FDT blob is the same with a blob instead of RAM.
 */
import { hex, type PhysAddr } from '../abi/memory.ts'
import { extentsOf, type OpenedMemory, SegmentMemory } from './image-segments.ts'
import { type ByteSource, type Problem, probeSize } from './image-source.ts'

export interface PlacedSource {
  readonly source: ByteSource
  readonly address: PhysAddr
}

/** RAM is handed out in pages, so a copy of it that ends inside of one has probably been cut off. */
const PAGE_BYTES = 4096

export function openRaw(pieces: readonly PlacedSource[]): OpenedMemory | Problem {
  const extents = []
  const warnings: string[] = []
  for (const { source, address } of pieces) {
    const size = source.size ?? probeSize(source)
    if (!Number.isFinite(size))
      return { problem: `${source.name}: has no end; expected a copy of physical memory` }
    extents.push(...extentsOf(source, address, BigInt(size), 0))
    if (source.cut) warnings.push(`${source.name}: ends at offset ${size}, ${source.cut}`)
    else if (size > PAGE_BYTES && size % PAGE_BYTES !== 0)
      warnings.push(`${source.name}: ${size} bytes are no whole number of pages; the end may be missing`)
  }
  const sorted = extents.toSorted((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0))
  for (const [index, extent] of sorted.entries()) {
    const before = sorted[index - 1]
    if (!before || extent.start >= before.end) continue
    const [first, second] = [before.source?.name, extent.source?.name]
    const overlap = `${first} (${hex(before.start)} to ${hex(before.end)}) and ${second} (from ${hex(extent.start)})`
    return { problem: `raw images overlap in physical memory: ${overlap}` }
  }
  return { memory: new SegmentMemory(sorted), notes: [], warnings }
}
