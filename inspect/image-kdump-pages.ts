/**
 * The pages of a kdump-compressed dump as physical memory: descriptor by rank in the bitmap, data by
 * descriptor, decompressed and kept in a small cache.
 */
import { inflateSync } from 'node:zlib'
import { CONTAINER_TARGET, dumpFlags, kdumpPageDesc } from '../abi/container.ts'
import { fieldOf, type PageSize } from '../abi/layout.ts'
import type { FilePosition, PhysAddr, PhysicalMemory, PhysRange, Presence } from '../abi/memory.ts'
import { phys } from '../abi/memory.ts'
import type { FrameBitmap } from './image-bitmap.ts'
import { decodeLzo, decodeSnappy } from './image-codec.ts'
import { type ByteSource, describeEnd, fileOffset, headerSize } from './image-source.ts'

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

/** Bytes of a page, valid until the next page is loaded, or why they cannot be had. */
type Page = Uint8Array | { readonly missing: string }

interface Descriptor {
  /** Undefined where no file reaches. */
  readonly offset: number | undefined
  readonly size: number
  readonly flags: number
}

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
  readonly #cache: PageCache
  /** Compressed bytes on their way. */
  readonly #data: Uint8Array

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
    this.#cache = new PageCache(pageSize)
    this.#data = new Uint8Array(pageSize)
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
      const piece = page.subarray(within, within + out.length - done)
      out.set(piece, done)
      done += piece.length
    }
    return out.length
  }

  /**
   * A page that was dumped but cannot be had (damage) is excluded, with the reason. That shows only when it
   * is decompressed, so what is present is told page by page.
   */
  presence(pa: PhysAddr): { state: Presence; until: bigint; reason?: string } {
    const { frame } = this.#split(pa)
    if (frame >= this.#nrFrames) return { state: 'hole', until: ADDRESS_SPACE }
    const part = this.#partOf(frame)
    const { ram, dumped } = part ?? (this.#parts[0] as Part)
    if (!ram.has(frame) && !dumped.has(frame)) {
      const end = Math.min(ram.runEnd(frame), dumped.runEnd(frame))
      return { state: 'hole', until: this.#addressOf(end) }
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
    const until = this.#addressOf(frame + 1)
    return 'missing' in page
      ? { state: 'excluded', until, reason: page.missing }
      : { state: 'present', until }
  }

  filePosition(pa: PhysAddr): FilePosition | undefined {
    const { frame, within } = this.#split(pa)
    const part = this.#partOf(frame)
    const descriptor = part?.dumped.has(frame) ? readDescriptor(part, frame) : undefined
    if (!part || !descriptor?.offset || descriptor.flags & COMPRESSED) return undefined
    return part.source.position(descriptor.offset + within)
  }

  #split(pa: bigint): { frame: number; within: number } {
    const size = BigInt(this.#pageSize)
    return { frame: Number(pa / size), within: Number(pa % size) }
  }

  #addressOf(frame: number): bigint {
    return BigInt(frame) * BigInt(this.#pageSize)
  }

  #partOf(frame: number): Part | undefined {
    return this.#parts.find((part) => part.start <= frame && frame < part.end)
  }

  #load(part: Part, frame: number): Page {
    const { source } = part
    const descriptor = readDescriptor(part, frame)
    if (!descriptor)
      return { missing: `${source.name}: ${describeEnd(source)}, before this page's descriptor` }
    const { offset, size } = descriptor
    if (offset === 0) return { missing: `${source.name}: the dumper did not get to this page` }
    const known = offset === undefined ? undefined : this.#cache.find(source, offset)
    if (known) return known
    if (size === 0 || size > this.#pageSize) {
      return { missing: `${source.name}: page data of ${size} bytes; expected 1 to ${this.#pageSize}` }
    }
    const data = this.#data.subarray(0, size)
    if (offset === undefined || source.read(offset, data) < size) {
      const what = source.failure ?? `${source.name}: ${describeEnd(source)}`
      return { missing: `${what}, before this page's data` }
    }
    const page = this.#cache.take(source, offset)
    const damage = decompress(data, descriptor.flags, page, this.#zstd)
    if (damage === undefined) return page
    this.#cache.drop(source, offset)
    return { missing: `${source.name}: ${damage} (data at offset ${offset})` }
  }
}

/** Pages loaded of late, by file and place of the data: pages of zeros may all share one. */
class PageCache {
  readonly #slots: Uint8Array[] = []
  readonly #owners: (readonly [ByteSource, number])[] = []
  readonly #bySource = new Map<ByteSource, Map<number, number>>()
  readonly #pageSize: number
  #next = 0

  constructor(pageSize: number) {
    this.#pageSize = pageSize
  }

  find(source: ByteSource, offset: number): Uint8Array | undefined {
    const slot = this.#bySource.get(source)?.get(offset)
    return slot === undefined ? undefined : this.#slots[slot]
  }

  /** A page to be filled, which the oldest one makes room for. */
  take(source: ByteSource, offset: number): Uint8Array {
    const slot = this.#next
    this.#next = (slot + 1) % (CACHE_BYTES / this.#pageSize)
    const owner = this.#owners[slot]
    if (owner) this.drop(...owner)
    const page = this.#slots[slot] ?? new Uint8Array(this.#pageSize)
    this.#slots[slot] = page
    this.#owners[slot] = [source, offset]
    const places = this.#bySource.get(source) ?? new Map<number, number>()
    this.#bySource.set(source, places.set(offset, slot))
    return page
  }

  drop(source: ByteSource, offset: number): void {
    this.#bySource.get(source)?.delete(offset)
  }
}

const descriptorBytes = new Uint8Array(headerSize(kdumpPageDesc))
const descriptorView = new DataView(descriptorBytes.buffer)
const [offsetAt, sizeAt, flagsAt] = (['offset', 'size', 'flags'] as const).map(
  (name) => fieldOf(kdumpPageDesc, name, CONTAINER_TARGET).offset,
) as [number, number, number]

/** One per page of the dump, so read without an object parser. */
function readDescriptor(part: Part, frame: number): Descriptor | undefined {
  const index = part.dumped.rank(frame) - part.firstRank
  const at = part.descriptorsAt + index * descriptorBytes.length
  if (part.source.read(at, descriptorBytes) < descriptorBytes.length) return undefined
  const offset = fileOffset(descriptorView.getBigUint64(offsetAt, true))
  return {
    offset,
    size: descriptorView.getUint32(sizeAt, true),
    flags: descriptorView.getUint32(flagsAt, true),
  }
}

/** Fills the page; returns what kept it from that. */
function decompress(
  data: Uint8Array,
  flags: number,
  page: Uint8Array,
  zstd: ZstdDecode | undefined,
): string | undefined {
  switch (flags & COMPRESSED) {
    case 0:
      return fill(page, data) ? undefined : `uncompressed page of ${data.length} bytes`
    case dumpFlags.ZLIB:
      return fill(page, inflate(data, page.length)) ? undefined : 'page is damaged: no sound zlib data'
    case dumpFlags.LZO:
      return decodeLzo(data, page) ? undefined : 'page is damaged: no sound LZO data'
    case dumpFlags.SNAPPY:
      return decodeSnappy(data, page) ? undefined : 'page is damaged: no sound Snappy data'
    case dumpFlags.ZSTD:
      if (!zstd) return 'page is compressed with zstd, but the header does not say so'
      return fill(page, zstd(data, page.length)) ? undefined : 'page is damaged: no sound zstd data'
    default:
      return `page with several kinds of compression (flags ${flags})`
  }
}

function fill(page: Uint8Array, bytes: Uint8Array | undefined): boolean {
  if (bytes?.length !== page.length) return false
  page.set(bytes)
  return true
}

function inflate(data: Uint8Array, pageSize: number): Uint8Array | undefined {
  try {
    return inflateSync(data, { maxOutputLength: pageSize, chunkSize: pageSize })
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
