/**
 * The pages of a kdump-compressed dump as physical memory: descriptor by rank in the bitmap, data by
 * descriptor, decompressed and kept in a small cache.
 */
import { inflateSync } from 'node:zlib'
import { dumpFlags, kdumpPageDesc } from '../abi/container.ts'
import type { PageSize } from '../abi/layout.ts'
import type { FilePosition, PhysAddr, PhysicalMemory, PhysRange, Presence } from '../abi/memory.ts'
import { phys } from '../abi/memory.ts'
import type { Infer } from '../abi/schema.ts'
import type { FrameBitmap } from './image-bitmap.ts'
import { decodeLzo, decodeSnappy } from './image-codec.ts'
import {
  type ByteSource,
  describeEnd,
  fileOffset,
  headerSize,
  readHeader,
  readSource,
} from './image-source.ts'

/** One file of a dump, and the frames whose pages it holds. */
export interface Part {
  readonly source: ByteSource
  /** Frames that are RAM, and those of them that were dumped. */
  readonly ram: FrameBitmap
  readonly dumped: FrameBitmap
  readonly start: number
  readonly end: number
  /** Rank of `start` among the dumped frames: the file's first descriptor is for it. */
  readonly firstRank: number
  readonly descriptorsAt: number
  /** The main header's: compression that pages may have. */
  readonly status: number
}

type Page = { readonly bytes: Uint8Array } | { readonly missing: string }
type Descriptor = Infer<typeof kdumpPageDesc>
/** Returns something of another length where the data is damaged. */
type ZstdDecode = (input: Uint8Array, length: number) => Uint8Array

const CACHE_BYTES = 2 * 1024 * 1024
const ADDRESS_SPACE = 1n << 64n
/** Ranges listed; the last one then reaches to the end of the dump, over the holes in it. */
const MAX_RANGES = 1 << 16
const COMPRESSED = dumpFlags.ZLIB | dumpFlags.LZO | dumpFlags.SNAPPY | dumpFlags.ZSTD

export class KdumpMemory implements PhysicalMemory {
  readonly ranges: readonly PhysRange[]
  readonly #parts: readonly Part[]
  readonly #pageSize: PageSize
  readonly #nrFrames: number
  readonly #zstd: ZstdDecode | undefined
  /** By file and place of the data: pages of zeros may all share one. */
  readonly #pages = new Map<string, Page>()

  private constructor(
    parts: readonly Part[],
    pageSize: PageSize,
    nrFrames: number,
    zstd: ZstdDecode | undefined,
  ) {
    this.#parts = parts
    this.#pageSize = pageSize
    this.#nrFrames = nrFrames
    this.#zstd = zstd
    this.ranges = ramRanges((parts[0] as Part).ram, BigInt(pageSize))
  }

  /** Loads the decoder for Zstandard where a part says that it uses it. */
  static async open(parts: readonly Part[], pageSize: PageSize, nrFrames: number): Promise<KdumpMemory> {
    const usesZstd = parts.some((part) => part.status & dumpFlags.ZSTD)
    return new KdumpMemory(parts, pageSize, nrFrames, usesZstd ? await loadZstd() : undefined)
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    for (let done = 0; done < out.length; ) {
      const { frame, within } = this.#split(pa + BigInt(done))
      const part = this.#partOf(frame)
      const page = part?.dumped.has(frame) ? this.#load(part, frame) : undefined
      if (!page || 'missing' in page) return done
      const piece = page.bytes.subarray(within, within + out.length - done)
      out.set(piece, done)
      done += piece.length
    }
    return out.length
  }

  /** A page that was dumped but cannot be had (damage, a missing decoder) is excluded, with the reason. */
  presence(pa: PhysAddr): { state: Presence; until: bigint; reason?: string } {
    const { frame } = this.#split(pa)
    if (frame >= this.#nrFrames) return { state: 'hole', until: ADDRESS_SPACE }
    const part = this.#partOf(frame)
    const { ram, dumped } = part ?? (this.#parts[0] as Part)
    if (!ram.has(frame) && !dumped.has(frame)) {
      return { state: 'hole', until: this.#addressOf(Math.min(ram.runEnd(frame), dumped.runEnd(frame))) }
    }
    if (!part) {
      const until = Math.min(
        ram.runEnd(frame),
        ...this.#parts.map(({ start }) => (start > frame ? start : Number.POSITIVE_INFINITY)),
      )
      return {
        state: 'excluded',
        until: this.#addressOf(until),
        reason: 'in another file of this split dump',
      }
    }
    if (!dumped.has(frame)) {
      const until = Math.min(ram.runEnd(frame), dumped.runEnd(frame), part.end)
      return {
        state: 'excluded',
        until: this.#addressOf(until),
        reason: `${part.source.name}: left out by the dumper`,
      }
    }
    const page = this.#load(part, frame)
    if ('missing' in page)
      return { state: 'excluded', until: this.#addressOf(frame + 1), reason: page.missing }
    return { state: 'present', until: this.#addressOf(Math.min(dumped.runEnd(frame), part.end)) }
  }

  filePosition(pa: PhysAddr): FilePosition | undefined {
    const { frame, within } = this.#split(pa)
    const part = this.#partOf(frame)
    const descriptor = part?.dumped.has(frame) ? readDescriptor(part, frame) : undefined
    if (!part || !descriptor || descriptor.offset === 0n || descriptor.flags & COMPRESSED) return undefined
    const offset = fileOffset(descriptor.offset)
    return offset === undefined ? undefined : part.source.position(offset + within)
  }

  #split(pa: bigint): { frame: number; within: number } {
    const size = BigInt(this.#pageSize)
    return { frame: Number(pa / size), within: Number(pa % size) }
  }

  /** Frames from the end of the dump on are holes up to the end of the address space. */
  #addressOf(frame: number): bigint {
    return frame >= this.#nrFrames ? ADDRESS_SPACE : BigInt(frame) * BigInt(this.#pageSize)
  }

  #partOf(frame: number): Part | undefined {
    return this.#parts.find((part) => part.start <= frame && frame < part.end)
  }

  #load(part: Part, frame: number): Page {
    const descriptor = readDescriptor(part, frame)
    if (!descriptor)
      return { missing: `${part.source.name}: ${describeEnd(part.source)}, before this page's descriptor` }
    const key = `${this.#parts.indexOf(part)}:${descriptor.offset}`
    const known = this.#pages.get(key)
    if (known) return known
    const page = readPage(part.source, descriptor, this.#pageSize, this.#zstd)
    const oldest = this.#pages.keys().next()
    if (this.#pages.size * this.#pageSize >= CACHE_BYTES && !oldest.done) this.#pages.delete(oldest.value)
    this.#pages.set(key, page)
    return page
  }
}

function readDescriptor(part: Part, frame: number): Descriptor | undefined {
  const index = part.dumped.rank(frame) - part.firstRank
  return readHeader(part.source, kdumpPageDesc, part.descriptorsAt + index * headerSize(kdumpPageDesc))
}

function readPage(
  source: ByteSource,
  descriptor: Descriptor,
  pageSize: PageSize,
  zstd: ZstdDecode | undefined,
): Page {
  const fail = (what: string): Page => ({ missing: `${source.name}: ${what}` })
  const offset = fileOffset(descriptor.offset)
  if (offset === 0) return fail('the dumper did not get to this page')
  if (descriptor.size === 0 || descriptor.size > pageSize) {
    return fail(`page data of ${descriptor.size} bytes; expected 1 to ${pageSize}`)
  }
  const data = offset === undefined ? undefined : readSource(source, offset, descriptor.size)
  if (!data)
    return fail(
      source.failure ?? `${describeEnd(source)}, before this page's data at offset ${descriptor.offset}`,
    )
  const bytes = decompress(data, descriptor.flags, pageSize, zstd)
  if (typeof bytes === 'string') return fail(`${bytes} (data at offset ${descriptor.offset})`)
  return { bytes }
}

/** The page, or what kept it from being decompressed. */
function decompress(
  data: Uint8Array,
  flags: number,
  pageSize: PageSize,
  zstd: ZstdDecode | undefined,
): Uint8Array | string {
  const page = new Uint8Array(pageSize)
  switch (flags & COMPRESSED) {
    case 0:
      return data.length === pageSize ? data : `uncompressed page of ${data.length} bytes`
    case dumpFlags.ZLIB:
      return inflate(data, pageSize) ?? 'page is damaged: no sound zlib data'
    case dumpFlags.LZO:
      return decodeLzo(data, page) ? page : 'page is damaged: no sound LZO data'
    case dumpFlags.SNAPPY:
      return decodeSnappy(data, page) ? page : 'page is damaged: no sound Snappy data'
    case dumpFlags.ZSTD: {
      if (!zstd) return 'page is compressed with zstd, but the header does not say so'
      const decoded = zstd(data, pageSize)
      return decoded.length === pageSize ? decoded : 'page is damaged: no sound zstd data'
    }
    default:
      return `page with several kinds of compression (flags ${flags})`
  }
}

function inflate(data: Uint8Array, pageSize: number): Uint8Array | undefined {
  try {
    const page = inflateSync(data, { maxOutputLength: pageSize, chunkSize: pageSize })
    return page.length === pageSize ? page : undefined
  } catch {
    return undefined
  }
}

/** Node has no Zstandard of its own before version 22.15. */
async function loadZstd(): Promise<ZstdDecode> {
  const { ZSTDDecoder } = await import('zstddec')
  const decoder = new ZSTDDecoder()
  await decoder.init()
  return (input, length) => decoder.decode(input, length)
}

/** Runs of RAM frames as physical ranges. */
function ramRanges(ram: FrameBitmap, pageSize: bigint): PhysRange[] {
  const ranges: { start: PhysAddr; end: bigint }[] = []
  for (let frame = ram.has(0) ? 0 : ram.runEnd(0); frame < ram.length; ) {
    const end = ram.runEnd(frame)
    const last = ranges.at(-1)
    if (last && ranges.length === MAX_RANGES) {
      last.end = BigInt(ram.length) * pageSize
      break
    }
    ranges.push({ start: phys(BigInt(frame) * pageSize), end: BigInt(end) * pageSize })
    frame = ram.runEnd(end)
  }
  return ranges
}
