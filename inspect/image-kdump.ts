/**
 * kdump-compressed files: makedumpfile's format for crash dumps, also written by QEMU. Pages are
 * compressed one by one; two bitmaps say which frames are RAM and which of them were dumped.
 *
 * Sources: makedumpfile IMPLEMENTATION and diskdump_mod.h; QEMU dump/dump.c: create_header64(),
 * write_dump_bitmap(), write_dump_pages(). A dump may be split over several files
 * (makedumpfile --split): each repeats headers and bitmaps, and holds the pages of its own frames.
 */
import {
  DISKDUMP_HEADER_BLOCKS,
  DISKDUMP_SIGNATURE,
  diskDumpHeader,
  dumpFlags,
  KDUMP_SIGNATURE,
  KDUMP_VERSION_64,
  KDUMP_VERSION_NOTES,
  KDUMP_VERSION_SPLIT,
  kdumpSubHeader,
  MAX_DUMP_FRAMES,
} from '../abi/container.ts'
import { isPageSize, type PageSize } from '../abi/layout.ts'
import type { Architecture } from '../abi/machine.ts'
import type { Infer } from '../abi/schema.ts'
import { FrameBitmap } from './image-bitmap.ts'
import { KdumpMemory, type Part } from './image-kdump-pages.ts'
import { type Notes, readNotes } from './image-notes.ts'
import type { OpenedMemory } from './image-segments.ts'
import {
  type ByteSource,
  describeEnd,
  fileOffset,
  headerSize,
  isProblem,
  type Problem,
  readHeader,
} from './image-source.ts'
import { decodeText } from './text.ts'

type MainHeader = Infer<typeof diskDumpHeader>
type SubHeader = Infer<typeof kdumpSubHeader>

export function isKdump(head: Uint8Array): boolean {
  const signature = decodeText(head.subarray(0, KDUMP_SIGNATURE.length))
  return signature === KDUMP_SIGNATURE || signature === DISKDUMP_SIGNATURE
}

/** What the headers of one file say. */
interface Headers {
  readonly source: ByteSource
  readonly main: MainHeader
  /** Not there in diskdump files and in version 0. */
  readonly sub?: SubHeader
  readonly pageSize: PageSize
  readonly nrFrames: number
}

/** Opens one file, or all the files of a split dump. */
export async function openKdump(
  sources: readonly ByteSource[],
): Promise<OpenedMemory<KdumpMemory> | Problem> {
  const files: Headers[] = []
  for (const source of sources) {
    const headers = readHeaders(source)
    if (isProblem(headers)) return headers
    files.push(headers)
  }
  const [first] = files as [Headers]
  const other = files.find(
    ({ pageSize, nrFrames }) => pageSize !== first.pageSize || nrFrames !== first.nrFrames,
  )
  if (other)
    return { problem: `${other.source.name}: does not belong to the same dump as ${first.source.name}` }
  const parts: Part[] = []
  for (const headers of files) {
    const part = openPart(headers)
    if (isProblem(part)) return part
    parts.push(part)
  }
  const overlap = overlapOf(parts)
  if (overlap) return { problem: overlap }
  const { notes, warning } = notesOf(first)
  const warnings = warning ? [warning] : []
  if (first.main.status & dumpFlags.INCOMPLETE)
    warnings.push(`${first.source.name}: its dumper marked it as incomplete`)
  return {
    memory: await KdumpMemory.open(parts, first.pageSize, first.nrFrames),
    notes,
    warnings,
    architecture: architectures.get(decodeText(first.main.utsname.machine)),
  }
}

/** By what uname(2) calls them. */
const architectures = new Map<string, Architecture>([
  ['x86_64', 'x86_64'],
  ['aarch64', 'arm64'],
])

function readHeaders(source: ByteSource): Headers | Problem {
  const fail = (problem: string): Problem => ({ problem: `${source.name}: ${problem}` })
  const main = readHeader(source, diskDumpHeader, 0)
  if (!main)
    return fail(
      `kdump header is cut off; expected ${headerSize(diskDumpHeader)} bytes, ${describeEnd(source)}`,
    )
  if (!isKdump(main.signature)) {
    return fail(
      `no kdump-compressed file: expected "${KDUMP_SIGNATURE}" at offset 0, found ${JSON.stringify(decodeText(main.signature))}`,
    )
  }
  const pageSize = main.block_size
  if (!isPageSize(pageSize)) return fail(whyNoPageSize(pageSize))
  const isDiskdump = decodeText(main.signature) === DISKDUMP_SIGNATURE
  const sub =
    isDiskdump || main.header_version < 1
      ? undefined
      : readHeader(source, kdumpSubHeader, DISKDUMP_HEADER_BLOCKS * pageSize)
  if (!sub && !isDiskdump && main.header_version >= 1) {
    return fail(
      `kdump sub header is cut off; expected ${headerSize(kdumpSubHeader)} bytes at offset ${pageSize}, ${describeEnd(source)}`,
    )
  }
  const nrFrames = sub && main.header_version >= KDUMP_VERSION_64 ? Number(sub.max_mapnr_64) : main.max_mapnr
  if (nrFrames === 0 || nrFrames > MAX_DUMP_FRAMES) {
    return fail(`kdump header gives ${nrFrames} page frames; expected 1 to ${MAX_DUMP_FRAMES}`)
  }
  return { source, main, pageSize, nrFrames, ...(sub && { sub }) }
}

/** The header's layout depends on the dumped machine; only that of 64-bit little-endian ones is read. */
function whyNoPageSize(found: number): string {
  const swapped = new DataView(Uint32Array.of(found).buffer).getUint32(0)
  const isOther = isPageSize(swapped)
  const machine = isOther ? 'a big-endian machine' : 'a damaged file, or of a 32-bit machine'
  return `kdump header with block size ${found}, ${machine}; expected 4096, 16384 or 65536`
}

function openPart({ source, main, sub, pageSize, nrFrames }: Headers): Part | Problem {
  const bitmapsAt = (DISKDUMP_HEADER_BLOCKS + main.sub_hdr_size) * pageSize
  const bitmapBytes = main.bitmap_blocks * pageSize
  // Both bitmaps have the same length; where one alone fills the room, there is one, of dumped frames.
  const isPair = nrFrames <= (bitmapBytes / 2) * 8
  if (!isPair && nrFrames > bitmapBytes * 8) {
    return {
      problem: `${source.name}: kdump bitmap of ${bitmapBytes} bytes is too short for ${nrFrames} page frames`,
    }
  }
  const ram = FrameBitmap.open(source, bitmapsAt, nrFrames)
  const dumped = isPair ? FrameBitmap.open(source, bitmapsAt + bitmapBytes / 2, nrFrames) : ram
  if (!ram || !dumped) {
    return {
      problem: `${source.name}: kdump bitmaps are cut off; expected ${bitmapBytes} bytes at offset ${bitmapsAt}, ${describeEnd(source)}`,
    }
  }
  const { start, end } = framesOf(main, sub, nrFrames)
  const descriptorsAt = bitmapsAt + bitmapBytes
  return {
    source,
    ram,
    dumped,
    start,
    end,
    firstRank: dumped.rank(start),
    descriptorsAt,
    status: main.status,
  }
}

/** The frames whose pages this file holds. */
function framesOf(
  main: MainHeader,
  sub: SubHeader | undefined,
  nrFrames: number,
): { start: number; end: number } {
  if (!sub?.split || main.header_version < KDUMP_VERSION_SPLIT) return { start: 0, end: nrFrames }
  const wide = main.header_version >= KDUMP_VERSION_64
  const start = Math.min(Number(wide ? sub.start_pfn_64 : sub.start_pfn), nrFrames)
  const end = Math.min(Number(wide ? sub.end_pfn_64 : sub.end_pfn), nrFrames)
  return { start, end: Math.max(start, end) }
}

function overlapOf(parts: readonly Part[]): string | undefined {
  const sorted = parts.toSorted((a, b) => a.start - b.start)
  for (const [index, part] of sorted.entries()) {
    const before = sorted[index - 1]
    if (before && part.start < before.end) {
      return `${before.source.name} and ${part.source.name}: both hold page frame ${part.start}; expected the files of one split dump`
    }
  }
  return undefined
}

function notesOf({ source, main, sub }: Headers): Notes {
  if (!sub || main.header_version < KDUMP_VERSION_NOTES || sub.size_note === 0n) return { notes: [] }
  return readNotes(source, fileOffset(sub.offset_note) ?? Number.MAX_SAFE_INTEGER, Number(sub.size_note))
}
