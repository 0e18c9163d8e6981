/**
 * ELF core files as images: QEMU's dump-guest-memory, /proc/vmcore, /proc/kcore, makedumpfile -E, and
 * what the encoder of this project writes. PT_LOAD segments are taken by physical address.
 *
 * Memory beyond a segment's p_filesz was left out by the dumper; it is not zeros here, unlike in the
 * core file of a process.
 */
import {
  ELF_MAGIC,
  ELFCLASS64,
  ELFDATA2LSB,
  EM_AARCH64,
  EM_X86_64,
  ET_CORE,
  elf64Ehdr,
  elf64Phdr,
  elf64Shdr,
  elfTypes,
  KCORE_NO_PADDR,
  MAX_NOTE_BYTES,
  MAX_SEGMENTS,
  PN_XNUM,
  PT_LOAD,
  PT_NOTE,
} from '../abi/container.ts'
import type { Architecture } from '../abi/machine.ts'
import { hex } from '../abi/memory.ts'
import type { Infer } from '../abi/schema.ts'
import { type Note, readNotes } from './image-notes.ts'
import type { OpenedMemory } from './image-segments.ts'
import { type Extent, endOf, extentsOf, memoryOf } from './image-segments.ts'
import {
  type ByteSource,
  describeEnd,
  fileOffset,
  headerSize,
  isProblem,
  type Problem,
  readHeader,
} from './image-source.ts'

type Ehdr = Infer<typeof elf64Ehdr>
type Phdr = Infer<typeof elf64Phdr>

export function isElf(head: Uint8Array): boolean {
  return ELF_MAGIC.every((byte, index) => head[index] === byte)
}

export function openElf(source: ByteSource): OpenedMemory | Problem {
  const header = readHeader(source, elf64Ehdr, 0)
  if (!header) {
    const found = `${describeEnd(source)}`
    return {
      problem: `${source.name}: ELF header is cut off; expected ${headerSize(elf64Ehdr)} bytes, ${found}`,
    }
  }
  const unfit = whyUnfit(header)
  if (unfit) return { problem: `${source.name}: ${unfit}` }
  const segments = readSegments(source, header)
  if (isProblem(segments)) return segments
  const taken = takeSegments(source, segments)
  return isProblem(taken) ? taken : { ...taken, architecture: architectures.get(header.e_machine) }
}

const architectures = new Map<number, Architecture>([
  [EM_X86_64, 'x86_64'],
  [EM_AARCH64, 'arm64'],
])

function whyUnfit(header: Ehdr): string | undefined {
  if (!isElf(header.ei_magic))
    return `no ELF file; expected ${bytesInHex(ELF_MAGIC)} at offset 0, found ${bytesInHex(header.ei_magic)}`
  if (header.ei_class !== ELFCLASS64)
    return `32-bit ELF file (class ${header.ei_class} at offset 4); KHO exists on 64-bit machines only`
  if (header.ei_data !== ELFDATA2LSB)
    return `big-endian ELF file (data ${header.ei_data} at offset 5); KHO exists on little-endian machines only`
  if (header.e_type !== ET_CORE) {
    const kind = elfTypes[header.e_type] ?? 'unknown'
    return `ELF file, but no memory image: e_type at offset 16 is ${header.e_type} (${kind}), expected ${ET_CORE} (core)`
  }
  if (header.e_phentsize !== headerSize(elf64Phdr)) {
    return `ELF program headers of ${header.e_phentsize} bytes (offset 54), expected ${headerSize(elf64Phdr)}`
  }
  return undefined
}

function bytesInHex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')
}

/** Number of program headers, which does not fit e_phnum from 0xffff on. */
function countSegments(source: ByteSource, header: Ehdr): number | Problem {
  if (header.e_phnum !== PN_XNUM) return header.e_phnum
  const at = fileOffset(header.e_shoff)
  const section = at ? readHeader(source, elf64Shdr, at) : undefined
  if (section) return section.sh_info
  return {
    problem: `${source.name}: e_phnum is ${PN_XNUM}, so the number is in section header 0, but offset ${hex(header.e_shoff)} holds none`,
  }
}

function readSegments(source: ByteSource, header: Ehdr): Phdr[] | Problem {
  const count = countSegments(source, header)
  if (typeof count !== 'number') return count
  if (count > MAX_SEGMENTS)
    return { problem: `${source.name}: ${count} ELF segments; at most ${MAX_SEGMENTS} are read` }
  const first = fileOffset(header.e_phoff)
  const segments: Phdr[] = []
  for (let index = 0; index < count; index += 1) {
    const segment =
      first === undefined ? undefined : readHeader(source, elf64Phdr, first + index * headerSize(elf64Phdr))
    if (!segment) {
      const where = `${count} program headers at offset ${hex(header.e_phoff)}, number ${index} is missing`
      return {
        problem: `${source.name}: ELF core file is cut off: expected ${where}, ${describeEnd(source)}`,
      }
    }
    if (isOfUse(segment)) segments.push(segment)
  }
  return segments
}

function isOfUse({ p_type, p_filesz, p_memsz }: Phdr): boolean {
  return p_type === PT_NOTE || (p_type === PT_LOAD && (p_memsz > 0n || p_filesz > 0n))
}

function takeSegments(source: ByteSource, segments: readonly Phdr[]): OpenedMemory | Problem {
  const loads = segments.filter(({ p_type }) => p_type === PT_LOAD)
  const placed = withPhysicalAddress(loads)
  if (placed.length === 0) {
    const some = `whose ${loads.length} memory segments have no physical address`
    return {
      problem: `${source.name}: ELF core file ${loads.length > 0 ? some : 'without memory segments (PT_LOAD)'}`,
    }
  }
  const taken = memoryOf(
    source,
    placed.flatMap((segment) => segmentExtents(source, segment)),
  )
  if (isProblem(taken)) return taken
  const { notes, warnings } = allNotes(source, segments)
  if (placed.length < loads.length) {
    warnings.push(
      `${source.name}: ${loads.length - placed.length} segments without a physical address are left out`,
    )
  }
  return { memory: taken.memory, notes, warnings: [...warnings, ...taken.warnings] }
}

/** Notes of all note segments, within one limit for all of them. */
function allNotes(source: ByteSource, segments: readonly Phdr[]): { notes: Note[]; warnings: string[] } {
  const notes: Note[] = []
  const warnings: string[] = []
  let room = MAX_NOTE_BYTES
  for (const { p_type, p_offset, p_filesz } of segments) {
    if (p_type !== PT_NOTE) continue
    const found = readNotes(source, fileOffset(p_offset) ?? Number.MAX_SAFE_INTEGER, Number(p_filesz), room)
    notes.push(...found.notes)
    if (found.warning) warnings.push(found.warning)
    room -= Math.min(room, Number(p_filesz))
    if (room === 0) break
  }
  return { notes, warnings }
}

/**
 * In /proc/kcore only direct-mapped memory has a physical address. The others have -1 (from Linux 4.11
 * on, commit 464920104bf7), or 0, which then stands in several kernel mappings at once.
 */
function withPhysicalAddress(loads: readonly Phdr[]): Phdr[] {
  const isKernelMapping = ({ p_paddr, p_vaddr }: Phdr): boolean => p_paddr === 0n && p_vaddr >> 63n === 1n
  const ambiguous = loads.filter(isKernelMapping).length > 1
  return loads.filter((load) => load.p_paddr !== KCORE_NO_PADDR && !(ambiguous && isKernelMapping(load)))
}

function segmentExtents(source: ByteSource, { p_paddr, p_offset, p_filesz, p_memsz }: Phdr): Extent[] {
  const offset = fileOffset(p_offset + p_filesz) === undefined ? Number.MAX_SAFE_INTEGER : Number(p_offset)
  const held = p_filesz > 0n ? extentsOf(source, p_paddr, p_filesz, offset) : []
  if (p_memsz <= p_filesz) return held
  const start = p_paddr + p_filesz
  const reason = `${source.name}: left out by the dumper (segment at ${hex(p_paddr)} has ${hex(p_filesz)} of ${hex(p_memsz)} bytes in the file)`
  return [...held, { start, end: endOf(p_paddr, p_memsz), offset: 0, reason }]
}
