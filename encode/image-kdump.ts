/**
 * Memory as a kdump-compressed file with zlib, as makedumpfile -c and QEMU write it: headers, notes,
 * the two bitmaps, a descriptor per dumped page, then the pages' data. All pages of zeros share one.
 *
 * A descriptor says how long a page is when compressed, and stands before all data: pages are therefore
 * compressed twice, once for their length and once to be written, rather than kept.
 */
import { deflateSync } from 'node:zlib'
import {
  CONTAINER_TARGET,
  DISKDUMP_HEADER_BLOCKS,
  diskDumpHeader,
  dumpFlags,
  KDUMP_SIGNATURE,
  KDUMP_VERSION_64,
  kdumpPageDesc,
  kdumpSubHeader,
  MAX_DUMP_FRAMES,
} from '../abi/container.ts'
import { invariant } from '../abi/fault.ts'
import { fieldOf, layoutOf, type PageSize } from '../abi/layout.ts'
import { hex, phys } from '../abi/memory.ts'
import type { StructType } from '../abi/schema.ts'
import type { Arch } from './image-elf.ts'
import { encodeKhoNote, type KhoNote } from './image-note.ts'
import {
  concatenate,
  type ImageFile,
  isZero,
  type Piece,
  type StateRun,
  stateRuns,
  type Unwritable,
  type WritableMemory,
  writtenParts,
} from './image-pieces.ts'
import { encodeStruct } from './write.ts'

export interface KdumpOptions {
  readonly arch: Arch
  /** Unit of the file: the page size of the kernel whose memory it is. */
  readonly pageSize: PageSize
  /** Where the handover is, for readers. */
  readonly note?: KhoNote | undefined
}

/** Z_BEST_SPEED, what makedumpfile and QEMU use. */
const ZLIB_LEVEL = 1
const BITMAP_PIECE_BYTES = 64 * 1024
/** Descriptors written at a time. */
const DESCRIPTORS_PER_PIECE = 4096
const DATA_PIECE_BYTES = 256 * 1024

/** Page frames, `end` exclusive. */
interface FrameRun {
  readonly start: number
  readonly end: number
}

/** Everything about the file that is known before a page is read. */
interface Plan {
  readonly memory: WritableMemory
  readonly pageSize: PageSize
  /** Frames that are RAM, and those that are dumped. */
  readonly ram: readonly FrameRun[]
  readonly dumped: readonly FrameRun[]
  readonly head: Uint8Array
  /** Of one of the two bitmaps. */
  readonly bitmapBytes: number
  readonly descriptorsAt: number
  readonly dataAt: number
}

export function writeKdump(memory: WritableMemory, options: KdumpOptions): ImageFile | Unwritable {
  const plan = planFile(memory, options)
  if ('problem' in plan) return plan
  let lengths: PageLengths | undefined
  const measured = (): PageLengths => {
    lengths ??= measurePages(plan)
    return lengths
  }
  return {
    get size() {
      return plan.dataAt + measured().total
    },
    *pieces(): Generator<Piece> {
      yield { offset: 0, bytes: plan.head }
      yield* bitmapPieces(plan.ram, plan.head.length, plan.bitmapBytes)
      yield* bitmapPieces(plan.dumped, plan.head.length + plan.bitmapBytes, plan.bitmapBytes)
      yield* descriptorPieces(plan, measured())
      yield* dataPieces(plan, measured())
    },
  }
}

function planFile(memory: WritableMemory, { arch, pageSize, note }: KdumpOptions): Plan | Unwritable {
  const runs = stateRuns(memory)
  const ram = ramFrames(runs, pageSize)
  const dumped = wholeFrames(runs, pageSize)
  const nrFrames = ram.at(-1)?.end ?? 0
  if (nrFrames === 0) return { problem: 'no memory' }
  if (nrFrames > MAX_DUMP_FRAMES)
    return {
      problem: `memory up to ${hex(BigInt(nrFrames) * BigInt(pageSize))} is too large for a kdump file`,
    }
  const notes = note ? encodeKhoNote(note) : new Uint8Array()
  const subBlocks = Math.ceil((sizeOf(kdumpSubHeader) + notes.length) / pageSize)
  const bitmapBlocks = Math.ceil(nrFrames / 8 / pageSize)
  const nrDumped = dumped.reduce((sum, run) => sum + run.end - run.start, 0)
  const headBytes = (DISKDUMP_HEADER_BLOCKS + subBlocks) * pageSize
  const descriptorsAt = headBytes + 2 * bitmapBlocks * pageSize
  const head = new Uint8Array(headBytes)
  head.set(encodeMain(arch, pageSize, subBlocks, bitmapBlocks, nrFrames))
  head.set(encodeSub(pageSize, nrFrames, notes), DISKDUMP_HEADER_BLOCKS * pageSize)
  return {
    memory,
    pageSize,
    ram,
    dumped,
    head,
    bitmapBytes: bitmapBlocks * pageSize,
    descriptorsAt,
    dataAt: descriptorsAt + nrDumped * sizeOf(kdumpPageDesc),
  }
}

/** Frames of which any byte is RAM. */
function ramFrames(runs: readonly StateRun[], pageSize: PageSize): FrameRun[] {
  const frames: { start: number; end: number }[] = []
  for (const run of runs) {
    const start = Number(run.start / BigInt(pageSize))
    const end = Number((run.end + BigInt(pageSize) - 1n) / BigInt(pageSize))
    const last = frames.at(-1)
    if (last && start <= last.end) last.end = end
    else frames.push({ start, end })
  }
  return frames
}

/** Frames that are present as a whole: the format knows no parts of pages. */
function wholeFrames(runs: readonly StateRun[], pageSize: PageSize): FrameRun[] {
  const frames: FrameRun[] = []
  for (const run of runs) {
    const start = Number((run.start + BigInt(pageSize) - 1n) / BigInt(pageSize))
    const end = Number(run.end / BigInt(pageSize))
    if (run.state === 'present' && end > start) frames.push({ start, end })
  }
  return frames
}

function encodeMain(
  arch: Arch,
  pageSize: PageSize,
  subBlocks: number,
  bitmapBlocks: number,
  nrFrames: number,
): Uint8Array {
  const utsname = {
    sysname: 'Linux',
    nodename: '',
    release: '',
    version: '',
    machine: arch === 'arm64' ? 'aarch64' : 'x86_64',
    domainname: '',
  }
  return encodeStruct(
    diskDumpHeader,
    {
      signature: new TextEncoder().encode(KDUMP_SIGNATURE),
      header_version: KDUMP_VERSION_64,
      utsname,
      timestamp: [0n, 0n],
      status: dumpFlags.ZLIB,
      block_size: pageSize,
      sub_hdr_size: subBlocks,
      bitmap_blocks: 2 * bitmapBlocks,
      max_mapnr: Math.min(nrFrames, 0xffff_ffff),
      total_ram_blocks: 0,
      device_blocks: 0,
      written_blocks: 0,
      current_cpu: 0,
      nr_cpus: 1,
    },
    CONTAINER_TARGET,
  )
}

/** The sub header with the notes behind it. */
function encodeSub(pageSize: PageSize, nrFrames: number, notes: Uint8Array): Uint8Array {
  const notesAt = DISKDUMP_HEADER_BLOCKS * pageSize + sizeOf(kdumpSubHeader)
  const header = encodeStruct(
    kdumpSubHeader,
    {
      phys_base: 0n,
      dump_level: 0,
      split: 0,
      start_pfn: 0n,
      end_pfn: 0n,
      offset_vmcoreinfo: 0n,
      size_vmcoreinfo: 0n,
      offset_note: notes.length > 0 ? BigInt(notesAt) : 0n,
      size_note: BigInt(notes.length),
      offset_eraseinfo: 0n,
      size_eraseinfo: 0n,
      start_pfn_64: 0n,
      end_pfn_64: 0n,
      max_mapnr_64: BigInt(nrFrames),
    },
    CONTAINER_TARGET,
  )
  return concatenate([header, notes])
}

/** One of the bitmaps, `length` bytes, with the runs' bits set, as far as it is not zero. */
function* bitmapPieces(runs: readonly FrameRun[], offset: number, length: number): Generator<Piece> {
  const pieceBits = BITMAP_PIECE_BYTES * 8
  const piece = (base: number): Piece => ({
    offset: offset + base / 8,
    bytes: new Uint8Array(Math.min(BITMAP_PIECE_BYTES, length - base / 8)),
  })
  let base = -1
  let current = piece(0)
  for (const run of runs) {
    for (let bit = run.start; bit < run.end; ) {
      const wanted = bit - (bit % pieceBits)
      if (wanted !== base) {
        if (base >= 0) yield current
        current = piece(wanted)
        base = wanted
      }
      const end = Math.min(run.end, base + pieceBits)
      setBits(current.bytes, bit - base, end - base)
      bit = end
    }
  }
  if (base >= 0) yield current
}

function setBits(bytes: Uint8Array, start: number, end: number): void {
  for (let bit = start; bit < end; ) {
    if ((bit & 7) === 0 && bit + 8 <= end) {
      const whole = (end - bit) >> 3
      bytes.fill(0xff, bit >> 3, (bit >> 3) + whole)
      bit += whole * 8
    } else {
      bytes[bit >> 3] = (bytes[bit >> 3] as number) | (1 << (bit & 7))
      bit += 1
    }
  }
}

/** Dumped frames in ascending order, by whether they may hold something else than zeros. */
function* frameGroups({
  memory,
  pageSize,
  dumped,
}: Plan): Generator<FrameRun & { readonly written: boolean }> {
  const size = BigInt(pageSize)
  for (const run of dumped) {
    let next = run.start
    for (const part of writtenParts(memory, {
      start: phys(BigInt(run.start) * size),
      end: BigInt(run.end) * size,
    })) {
      const start = Math.max(next, Number(part.start / size))
      const end = Number((part.end + size - 1n) / size)
      if (start > next) yield { start: next, end: start, written: false }
      if (end > start) yield { start, end, written: true }
      next = Math.max(next, end)
    }
    if (run.end > next) yield { start: next, end: run.end, written: false }
  }
}

/** Bytes in the file of each page that was read, in order; 0 for a page of zeros. */
interface PageLengths {
  readonly list: Uint32Array
  /** With the shared page of zeros. */
  readonly total: number
}

function measurePages(plan: Plan): PageLengths {
  let nrPages = 0
  for (const { start, end, written } of frameGroups(plan)) nrPages += written ? end - start : 0
  const list = new Uint32Array(nrPages)
  let total: number = plan.pageSize
  let index = 0
  for (const page of writtenPages(plan)) {
    const length = isZero(page) ? 0 : compress(page).length
    list[index] = length
    index += 1
    total += length
  }
  return { list, total }
}

/** Each page of the written groups; the buffer is used again. */
function* writtenPages(plan: Plan): Generator<Uint8Array> {
  const page = new Uint8Array(plan.pageSize)
  for (const { start, end, written } of frameGroups(plan)) {
    for (let frame = start; written && frame < end; frame += 1) {
      // What cannot be read after all (a damaged source) becomes zeros, as in other dumpers' files.
      page.fill(0, plan.memory.read(phys(BigInt(frame) * BigInt(plan.pageSize)), page))
      yield page
    }
  }
}

/** Compressed where that saves anything, else as it is. */
function compress(page: Uint8Array): Uint8Array {
  const packed = deflateSync(page, { level: ZLIB_LEVEL })
  return packed.length < page.length ? packed : page
}

const [offsetAt, sizeAt, flagsAt] = (['offset', 'size', 'flags'] as const).map(
  (name) => fieldOf(kdumpPageDesc, name, CONTAINER_TARGET).offset,
) as [number, number, number]

/** One per page of the dump, so written without an object encoder. */
function* descriptorPieces(plan: Plan, { list }: PageLengths): Generator<Piece> {
  const { pageSize, dataAt } = plan
  const step = sizeOf(kdumpPageDesc)
  let offset = plan.descriptorsAt
  let data = dataAt + pageSize
  let index = 0
  let view: DataView | undefined
  let filled = 0
  for (const { start, end, written } of frameGroups(plan)) {
    for (let frame = start; frame < end; frame += 1) {
      view ??= new DataView(new ArrayBuffer(Math.min(DESCRIPTORS_PER_PIECE * step, dataAt - offset)))
      const length = written ? (list[index] as number) : 0
      const isCompressed = length > 0 && length < pageSize
      view.setBigUint64(filled + offsetAt, BigInt(length === 0 ? dataAt : data), true)
      view.setUint32(filled + sizeAt, length || pageSize, true)
      view.setUint32(filled + flagsAt, isCompressed ? dumpFlags.ZLIB : 0, true)
      data += length
      index += written ? 1 : 0
      filled += step
      if (filled < view.byteLength) continue
      yield { offset, bytes: new Uint8Array(view.buffer) }
      offset += filled
      filled = 0
      view = undefined
    }
  }
}

function* dataPieces(plan: Plan, { list }: PageLengths): Generator<Piece> {
  let offset = plan.dataAt + plan.pageSize
  let index = 0
  let waiting: Uint8Array[] = []
  let bytes = 0
  for (const page of writtenPages(plan)) {
    if (list[index] !== 0) {
      const data = compress(page)
      invariant(data.length === list[index], 'a page changed while it was written')
      waiting.push(data === page ? page.slice() : data)
      bytes += data.length
    }
    index += 1
    if (bytes < DATA_PIECE_BYTES) continue
    yield { offset, bytes: concatenate(waiting) }
    offset += bytes
    waiting = []
    bytes = 0
  }
  if (bytes > 0) yield { offset, bytes: concatenate(waiting) }
}

function sizeOf(struct: StructType): number {
  return layoutOf(struct, CONTAINER_TARGET).size
}
