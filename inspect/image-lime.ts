/**
 * LiME images: ranges of RAM one after the other, each behind a header with its first and last physical
 * address. Also what AVML writes in its uncompressed form.
 *
 * Source: LiME src/lime.h and src/main.c: write_lime_header(); AVML src/image.rs.
 */
import { AVML_MAGIC, LIME_MAGIC, LIME_VERSION, limeHeader, MAX_SEGMENTS } from '../abi/container.ts'
import { hex } from '../abi/memory.ts'
import type { Infer } from '../abi/schema.ts'
import { type Extent, extentsOf, memoryOf, type OpenedMemory } from './image-segments.ts'
import {
  type ByteSource,
  describeEnd,
  headerSize,
  isProblem,
  type Problem,
  readHeader,
} from './image-source.ts'

/** The magic number at the start of a file: LiME's, or AVML's own. */
export function isLime(head: Uint8Array): boolean {
  if (head.length < 4) return false
  const magic = new DataView(head.buffer, head.byteOffset).getUint32(0, true)
  return magic === LIME_MAGIC || magic === AVML_MAGIC
}

export function openLime(source: ByteSource): OpenedMemory | Problem {
  const extents: Extent[] = []
  const size = headerSize(limeHeader)
  let damage: string | undefined
  for (let at = 0; ; ) {
    const header = readHeader(source, limeHeader, at)
    damage = header ? whyUnfit(header) : whyNoHeader(source, at)
    if (extents.length >= MAX_SEGMENTS) damage = `more than ${MAX_SEGMENTS} LiME ranges`
    if (!header || damage) {
      damage &&= `${source.name}: ${damage} (offset ${at})`
      break
    }
    const length = header.e_addr - header.s_addr + 1n
    extents.push(...extentsOf(source, header.s_addr, length, at + size))
    const next = BigInt(at + size) + length
    if (next >= BigInt(source.size ?? Number.MAX_SAFE_INTEGER)) break
    at = Number(next)
  }
  if (extents.length === 0) return { problem: damage ?? `${source.name}: LiME image without memory` }
  const taken = memoryOf(source, extents)
  if (isProblem(taken)) return taken
  const warnings = damage ? [`${damage}; what follows is left out`] : []
  return { memory: taken.memory, notes: [], warnings: [...warnings, ...taken.warnings] }
}

function whyUnfit({ magic, version, s_addr, e_addr }: Infer<typeof limeHeader>): string | undefined {
  if (magic === AVML_MAGIC)
    return `AVML's compressed form, version ${version}; make it a LiME image with avml-convert`
  if (magic !== LIME_MAGIC)
    return `no LiME header: expected the magic ${hex(LIME_MAGIC)}, found ${hex(magic)}`
  if (version !== LIME_VERSION) return `LiME header of version ${version}; expected ${LIME_VERSION}`
  if (e_addr < s_addr) return `LiME range ends before it starts (${hex(s_addr)} to ${hex(e_addr)})`
  return undefined
}

/** Undefined at the proper end of the file. */
function whyNoHeader(source: ByteSource, at: number): string | undefined {
  if (source.read(at, new Uint8Array(1)) === 0 && !source.cut) return undefined
  return `LiME header is cut off; expected ${headerSize(limeHeader)} bytes, ${describeEnd(source)}`
}
