/**
 * Finds a kernel's BTF in what a developer has at hand: a vmlinux (ELF section .BTF), a bare blob such as
 * /sys/kernel/btf/vmlinux, an x86 bzImage, or another image that holds a blob unpacked, such as arm64's
 * Image; each also gzip-compressed.
 *
 * Only the parts that are needed are read of an ELF file. A compression that no package at hand reads is
 * named, with the way around it.
 */
import { BTF_MAGIC, BTF_SECTION, BTF_VERSION, btfHeader } from '../abi/btf.ts'
import {
  CONTAINER_TARGET,
  ELF_MAGIC,
  ELFCLASS64,
  ELFDATA2LSB,
  elf64Ehdr,
  elf64Shdr,
} from '../abi/container.ts'
import {
  APPENDED_SIZE_BYTES,
  payloadFormats,
  SECTOR_BYTES,
  SETUP_DEFAULT_SECTORS,
  SETUP_HEADER_MAGIC,
  SETUP_HEADER_OFFSET,
  SETUP_PAYLOAD_VERSION,
  setupHeader,
} from '../abi/kernel-image.ts'
import type { Infer } from '../abi/schema.ts'
import { isGzip, UNPACK_DEFAULTS, unpackGzip } from './image-gzip.ts'
import {
  type ByteSource,
  fileOffset,
  headerSize,
  isProblem,
  type Problem,
  probeSize,
  readHeader,
  readSource,
} from './image-source.ts'
import { decodeStruct } from './record.ts'
import { decodeText } from './text.ts'

export interface KernelBtf {
  /** The blob, from its header on. */
  readonly blob: Uint8Array
  /** Where it was: `.BTF section of an ELF file`, and what that was wrapped in. */
  readonly found: string
}

/** Files above this are not read whole: no kernel comes near. */
const MAX_BYTES = 1024 * 1024 * 1024
const EXPECTED = 'expected a vmlinux (ELF), a BTF blob, a bzImage, or one of them gzip-compressed'

/** A kernel as an ELF file or as the memory that it is loaded as, and what it was wrapped in. */
export interface UnwrappedKernel {
  readonly source: ByteSource
  /** `, zstd in a bzImage`; empty if nothing was wrapped around it. */
  readonly wrapping: string
}

/** Takes a kernel out of what it is wrapped in. Closes the source; that of the result is the caller's. */
export async function unwrapKernel(source: ByteSource): Promise<UnwrappedKernel | Problem> {
  if (!isGzip(readHead(source))) return outOfBzImage(source)
  const unpacked = await unpackGzip(source, { ...UNPACK_DEFAULTS, totalBytes: MAX_BYTES })
  if (isProblem(unpacked)) return unpacked
  const inner = await outOfBzImage(unpacked)
  return isProblem(inner) ? inner : { ...inner, wrapping: `${inner.wrapping}, gzip-compressed` }
}

/** Looks for BTF in a kernel's file and closes it. Without one, or if it cannot be unpacked, gives the reason. */
export async function findKernelBtf(source: ByteSource): Promise<KernelBtf | Problem> {
  const kernel = await unwrapKernel(source)
  if (isProblem(kernel)) return kernel
  const btf = btfIn(kernel.source)
  kernel.source.close()
  return isProblem(btf) ? btf : { ...btf, found: `${btf.found}${kernel.wrapping}` }
}

/** The BTF of a kernel that is not wrapped any more. */
export function btfIn(source: ByteSource): KernelBtf | Problem {
  const head = readHead(source)
  if (startsWith(head, ELF_MAGIC)) return fromElf(source)
  return isBtfMagic(head) ? whole(source, 'BTF blob') : fromScan(source)
}

/** All bytes of a kernel that is not wrapped any more. */
export function kernelBytes(source: ByteSource): Uint8Array | Problem {
  const read = whole(source, '')
  return isProblem(read) ? read : read.blob
}

function readHead(source: ByteSource): Uint8Array {
  const head = new Uint8Array(64)
  return head.subarray(0, source.read(0, head))
}

function startsWith(bytes: Uint8Array, magic: ArrayLike<number>): boolean {
  return Array.from(magic).every((byte, index) => bytes[index] === byte)
}

/** In either byte order: openBtf() tells the wrong one apart. */
function isBtfMagic(head: Uint8Array): boolean {
  const [low, high] = [BTF_MAGIC & 0xff, BTF_MAGIC >>> 8]
  return (head[0] === low && head[1] === high) || (head[0] === high && head[1] === low)
}

function whole(source: ByteSource, found: string): KernelBtf | Problem {
  const size = source.size ?? probeSize(source)
  if (size > MAX_BYTES) return { problem: `${source.name}: ${size} bytes are no kernel; ${EXPECTED}` }
  const blob = readSource(source, 0, size)
  return blob ? { blob, found } : { problem: source.failure ?? `${source.name}: cannot be read to its end` }
}

type SectionHeader = Infer<typeof elf64Shdr>

function fromElf(source: ByteSource): KernelBtf | Problem {
  const header = readHeader(source, elf64Ehdr, 0)
  if (!header) return { problem: `${source.name}: ELF header is cut off` }
  if (header.ei_class !== ELFCLASS64 || header.ei_data !== ELFDATA2LSB) {
    return {
      problem: `${source.name}: expected a 64-bit little-endian ELF file; KHO exists on no other machine`,
    }
  }
  const table = fileOffset(header.e_shoff)
  if (table === undefined || table === 0) {
    return { problem: `${source.name}: ELF file without section headers; expected a vmlinux` }
  }
  const sectionAt = (index: number): SectionHeader | undefined =>
    readHeader(source, elf64Shdr, table + index * header.e_shentsize)
  const names = readSection(source, sectionAt(header.e_shstrndx))
  if (!names) return { problem: `${source.name}: ELF section names are cut off; expected a vmlinux` }
  for (let index = 0; index < header.e_shnum; index += 1) {
    const section = sectionAt(index)
    if (!section || decodeText(names.subarray(section.sh_name)) !== BTF_SECTION) continue
    const blob = readSection(source, section)
    if (blob) return { blob, found: `${BTF_SECTION} section of an ELF file` }
    return { problem: `${source.name}: ELF section ${BTF_SECTION} is cut off` }
  }
  return {
    problem: `${source.name}: ELF file without a section ${BTF_SECTION}: not a vmlinux, or built without CONFIG_DEBUG_INFO_BTF`,
  }
}

function readSection(source: ByteSource, section: SectionHeader | undefined): Uint8Array | undefined {
  const [start, size] = section ? [fileOffset(section.sh_offset), fileOffset(section.sh_size)] : []
  if (start === undefined || size === undefined || size > MAX_BYTES) return undefined
  return readSource(source, start, size)
}

type SetupHeader = Infer<typeof setupHeader>

function readSetup(source: ByteSource): SetupHeader | undefined {
  const header = readHeader(source, setupHeader, SETUP_HEADER_OFFSET)
  return header && decodeText(header.header) === SETUP_HEADER_MAGIC ? header : undefined
}

async function outOfBzImage(source: ByteSource): Promise<UnwrappedKernel | Problem> {
  const setup = startsWith(readHead(source), ELF_MAGIC) ? undefined : readSetup(source)
  if (!setup) return { source, wrapping: '' }
  const payload = readPayload(source, setup)
  source.close()
  if (isProblem(payload)) return payload
  const format = payloadFormats.find(({ magic }) => startsWith(payload, magic))?.name ?? 'an unknown format'
  const kernel = await unpackPayload(payload, format, source.name)
  if (isProblem(kernel)) return kernel
  // The decoder does not notice every damage.
  if (startsWith(readHead(kernel), ELF_MAGIC)) return { source: kernel, wrapping: `, ${format} in a bzImage` }
  return { problem: `${source.name}: the ${format} data of this bzImage is damaged: they hold no ELF file` }
}

function readPayload(source: ByteSource, setup: SetupHeader): Uint8Array | Problem {
  if (setup.version < SETUP_PAYLOAD_VERSION) {
    return { problem: `${source.name}: bzImage of a boot protocol that does not say where the kernel lies` }
  }
  const sectors = setup.setup_sects === 0 ? SETUP_DEFAULT_SECTORS : setup.setup_sects
  const start = (sectors + 1) * SECTOR_BYTES + setup.payload_offset
  const payload =
    setup.payload_length <= MAX_BYTES ? readSource(source, start, setup.payload_length) : undefined
  if (payload) return payload
  return { problem: `${source.name}: the bzImage's payload of ${setup.payload_length} bytes is cut off` }
}

async function unpackPayload(
  payload: Uint8Array,
  format: string,
  name: string,
): Promise<ByteSource | Problem> {
  if (format === 'ELF') return new MemorySource(name, payload)
  if (format === 'gzip') {
    return unpackGzip(new MemorySource(name, payload), { ...UNPACK_DEFAULTS, totalBytes: MAX_BYTES })
  }
  if (format === 'zstd') return unpackZstd(payload, name)
  return {
    problem: `${name}: the kernel in this bzImage is compressed with ${format}, for which there is no decoder here; unpack it first (scripts/extract-vmlinux of the kernel's sources)`,
  }
}

async function unpackZstd(payload: Uint8Array, name: string): Promise<ByteSource | Problem> {
  const end = payload.length - APPENDED_SIZE_BYTES
  const size = new DataView(payload.buffer, payload.byteOffset).getUint32(Math.max(0, end), true)
  if (size > MAX_BYTES) return { problem: `${name}: the kernel in this bzImage claims ${size} bytes` }
  const { ZSTDDecoder } = await import('zstddec')
  const decoder = new ZSTDDecoder()
  await decoder.init()
  try {
    return new MemorySource(name, decoder.decode(payload.subarray(0, end), size))
  } catch (error) {
    return { problem: `${name}: the zstd data of this bzImage is damaged: ${(error as Error).message}` }
  }
}

/** Alignment of a blob in an image that is the kernel's memory. */
const SCAN_STEP = 4

/** A kernel whose memory is the file itself holds its blob as it is. */
function fromScan(source: ByteSource): KernelBtf | Problem {
  const read = whole(source, '')
  if (isProblem(read)) return read
  const { blob: file } = read
  const headerBytes = headerSize(btfHeader)
  for (let start = 0; start + headerBytes <= file.length; start += SCAN_STEP) {
    if (file[start] !== (BTF_MAGIC & 0xff) || file[start + 1] !== BTF_MAGIC >>> 8) continue
    const header = decodeStruct(btfHeader, file.subarray(start, start + headerBytes), CONTAINER_TARGET)
    const length =
      header.hdr_len + Math.max(header.type_off + header.type_len, header.str_off + header.str_len)
    const plausible = header.version === BTF_VERSION && header.type_len > 0 && header.str_len > 0
    if (!plausible || header.hdr_len < headerBytes || start + length > file.length) continue
    return { blob: file.subarray(start, start + length), found: `BTF blob at offset ${start}` }
  }
  return { problem: `${source.name}: no BTF found; ${EXPECTED}` }
}

/** Bytes in memory as a source. */
class MemorySource implements ByteSource {
  readonly name: string
  readonly size: number
  readonly #bytes: Uint8Array

  constructor(name: string, bytes: Uint8Array) {
    this.name = name
    this.size = bytes.length
    this.#bytes = bytes
  }

  read(offset: number, out: Uint8Array): number {
    const piece = this.#bytes.subarray(offset, offset + out.length)
    out.set(piece)
    return piece.length
  }

  position(): undefined {
    return undefined
  }

  close(): void {}
}
