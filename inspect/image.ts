/**
 * Opening images: files or directories that hold physical memory in one of the known containers,
 * recognised by their content, possibly gzip-compressed or flattened.
 *
 * Nothing is loaded whole, nothing in a file is trusted. A file that cannot be used gives one line that
 * says what was expected, what was found, and where.
 */
import { existsSync, statSync } from 'node:fs'
import type { PageSize } from '../abi/layout.ts'
import type { Architecture } from '../abi/machine.ts'
import { type PhysAddr, type PhysicalMemory, parseAddress, phys } from '../abi/memory.ts'
import { type DebugfsTree, openDebugfs } from './image-debugfs.ts'
import { openElf } from './image-elf.ts'
import { unflatten } from './image-flat.ts'
import { isGzip, UNPACK_DEFAULTS, type UnpackOptions, unpackGzip } from './image-gzip.ts'
import { openKdump } from './image-kdump.ts'
import { openLime } from './image-lime.ts'
import { type Note, statedPageSize } from './image-notes.ts'
import { headOf, isSmallFdt, recognise } from './image-probe.ts'
import { openRaw, type PlacedSource } from './image-raw.ts'
import type { OpenedMemory } from './image-segments.ts'
import { type ByteSource, BytesSource, isProblem, openFile, type Problem } from './image-source.ts'

export type { DebugfsTree, Note }

export const imageFormats = ['raw', 'elf', 'lime', 'kdump', 'debugfs', 'fdt'] as const
export type ImageFormat = (typeof imageFormats)[number]

/** A file or directory, and for flat raw memory the physical address of its first byte. */
export interface ImageSource {
  readonly path: string
  /** What the file holds, where it is not read; `path` is its name then. */
  readonly bytes?: Uint8Array
  readonly address?: PhysAddr
}

export interface Image extends PhysicalMemory {
  readonly format: ImageFormat
  /** As named by the user. */
  readonly files: readonly string[]
  /** ELF notes, of a core file or of a kdump-compressed file. */
  readonly notes: readonly Note[]
  /** What a reader should know: damage, leftovers, things ignored. One line each. */
  readonly warnings: readonly string[]
  /** The machine that was dumped, where the container says it. */
  readonly architecture?: Architecture
  /** Page size of the dumped kernel, where it left a VMCOREINFO note that says so. */
  readonly pageSize?: PageSize
  /** A copy of debugfs: what it holds, and how its blobs get into memory. What goes out comes first. */
  readonly debugfs?: readonly DebugfsTree[]
  /** Where a handover is missing, what may be wrong with such an image. */
  readonly hint?: string
  close(): void
}

export interface OpenOptions extends Partial<UnpackOptions> {
  /** Instead of what the content looks like. */
  readonly format?: ImageFormat
}

export type Opened =
  | { readonly ok: true; readonly image: Image }
  | { readonly ok: false; readonly problem: string }

/** Reads `FILE` or `FILE@ADDR`, the address hex or decimal. A file whose name holds the `@` goes before. */
export function parseImageSource(
  text: string,
): { readonly ok: true; readonly source: ImageSource } | { readonly ok: false; readonly problem: string } {
  const at = text.lastIndexOf('@')
  if (at <= 0 || existsSync(text)) return { ok: true, source: { path: text } }
  const path = text.slice(0, at)
  const address = parseAddress(text.slice(at + 1))
  if (address !== undefined) return { ok: true, source: { path, address } }
  const found = existsSync(path)
    ? `found ${JSON.stringify(text.slice(at + 1))}`
    : `and neither ${text} nor ${path} exists`
  return {
    ok: false,
    problem: `${text}: expected an address behind the @, hexadecimal (0x…) or decimal; ${found}`,
  }
}

/**
 * Opens one image: one file or directory, several pieces of flat raw memory (FILE@ADDR), or the files
 * of a split kdump. The caller closes it.
 */
export async function openImage(sources: readonly ImageSource[], options: OpenOptions = {}): Promise<Opened> {
  const [first] = sources
  if (!first) return { ok: false, problem: 'no image given; expected a file' }
  const files = sources.map(({ path }) => path)
  if (options.format === 'debugfs' || (sources.length === 1 && !first.bytes && isDirectory(first.path))) {
    if (sources.length > 1)
      return { ok: false, problem: `${files[1]}: a copy of debugfs is one directory; expected no second one` }
    const opened = openDebugfs(first.path)
    if (isProblem(opened)) return { ok: false, problem: opened.problem }
    return {
      ok: true,
      image: assemble({ ...opened, format: 'debugfs' }, { files, debugfs: opened.trees, close: () => {} }),
    }
  }
  const inner: ByteSource[] = []
  const close = (): void => {
    for (const source of inner) source.close()
  }
  for (const named of sources) {
    const source = await openInner(named, options)
    if (isProblem(source)) {
      close()
      return { ok: false, problem: source.problem }
    }
    inner.push(source)
  }
  const opened = await openContainer(inner, sources, options.format)
  if (!isProblem(opened)) return { ok: true, image: assemble(opened, { files, close }) }
  close()
  return { ok: false, problem: opened.problem }
}

/** The file without what is wrapped around the container. */
async function openInner({ path, bytes }: ImageSource, options: OpenOptions): Promise<ByteSource | Problem> {
  const file = bytes ? new BytesSource(path, bytes) : openFile(path)
  if (isProblem(file) || !isGzip(headOf(file))) return file
  const unpacked = await unpackGzip(file, { ...UNPACK_DEFAULTS, ...options })
  if (!isProblem(unpacked) && isGzip(headOf(unpacked))) {
    unpacked.close()
    return { problem: `${path}: gzip inside of gzip; unpack it once first` }
  }
  return unpacked
}

/** A container opened, and what it says besides its memory. */
type Contents = OpenedMemory<PhysicalMemory> & Pick<Image, 'format' | 'hint'>

async function openContainer(
  files: readonly ByteSource[],
  named: readonly ImageSource[],
  wanted: Exclude<ImageFormat, 'debugfs'> | undefined,
): Promise<Contents | Problem> {
  const sources: ByteSource[] = []
  for (const [index, file] of files.entries()) {
    // Flat memory is never flattened; what looks so is memory that holds such a file.
    const isFlat = wanted === 'raw' || named[index]?.address !== undefined
    const source = (isFlat ? undefined : unflatten(file)) ?? file
    if (isProblem(source)) return source
    sources.push(source)
  }
  const format = wanted ?? formatOf(sources, named)
  if (typeof format !== 'string') return format
  const placed = named.find(({ address }) => address !== undefined)
  if (placed && format !== 'raw' && format !== 'fdt') {
    return {
      problem: `${placed.path}: an address goes with flat raw memory only; ${format} images hold their addresses`,
    }
  }
  if (format === 'kdump') return withFormat(format, await openKdump(sources))
  if (format === 'raw') return withFormat(format, openRaw(placedSources(sources, named)), RAW_HINT)
  const [source, second] = sources as [ByteSource, ByteSource?]
  if (second) return { problem: `${second.name}: ${format} images are one file; expected no second one` }
  if (format === 'fdt') return withFormat(format, openRaw(placedSources(sources, named)))
  return withFormat(format, format === 'elf' ? openElf(source) : openLime(source))
}

/** What the content looks like; an address makes it raw, as the first page of RAM can look like anything. */
function formatOf(
  sources: readonly ByteSource[],
  named: readonly ImageSource[],
): Exclude<ImageFormat, 'debugfs'> | Problem {
  const formats: Exclude<ImageFormat, 'debugfs'>[] = []
  for (const [index, source] of sources.entries()) {
    const isPlaced = named[index]?.address !== undefined
    const format = isPlaced ? (isSmallFdt(source, headOf(source)) ? 'fdt' : 'raw') : recognise(source)
    if (typeof format !== 'string') return format
    formats.push(format)
  }
  const [first] = formats as [Exclude<ImageFormat, 'debugfs'>]
  if (formats.length === 1 || formats.every((format) => format === 'kdump')) return first
  const whole = formats.findIndex((format) => format !== 'raw' && format !== 'fdt')
  if (whole < 0) return 'raw'
  const found = `found a complete image (${formats[whole]})`
  return {
    problem: `${sources[whole]?.name}: expected a piece of flat raw memory (FILE@ADDR) or a part of a split kdump; ${found}`,
  }
}

function placedSources(sources: readonly ByteSource[], named: readonly ImageSource[]): PlacedSource[] {
  return sources.map((source, index) => ({ source, address: named[index]?.address ?? phys(0) }))
}

/** LiME's raw format is such a file, too: ranges of RAM one after the other, without their addresses. */
const RAW_HINT =
  "in flat raw memory the file's offset is the physical address; RAM that starts elsewhere is given as FILE@ADDR, and " +
  "LiME's raw format has lost its addresses (take format=lime or format=padded)"

function withFormat(
  format: ImageFormat,
  opened: OpenedMemory<PhysicalMemory> | Problem,
  hint?: string,
): Contents | Problem {
  return isProblem(opened) ? opened : { ...opened, format, ...(hint && { hint }) }
}

function assemble(
  { memory, format, notes, warnings, architecture, hint }: Contents,
  rest: Pick<Image, 'files' | 'debugfs' | 'close'>,
): Image {
  const pageSize = statedPageSize(notes)
  return {
    format,
    notes,
    warnings,
    ...(architecture && { architecture }),
    ...(pageSize && { pageSize }),
    ...(hint && { hint }),
    ...rest,
    get ranges() {
      return memory.ranges
    },
    read: (pa, out) => memory.read(pa, out),
    presence: (pa) => memory.presence(pa),
    filePosition: (pa) => memory.filePosition(pa),
  }
}

/** False, too, for what cannot be looked at: opening it then says why. */
function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}
