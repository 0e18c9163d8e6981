/**
 * Memory as an ELF core file, as QEMU and makedumpfile write it: a note segment and one PT_LOAD per run
 * of RAM by physical address. Memory that the source leaves out is counted in p_memsz, not in p_filesz.
 */
import {
  CONTAINER_TARGET,
  ELF_MAGIC,
  ELFCLASS64,
  ELFDATA2LSB,
  EM_AARCH64,
  EM_X86_64,
  ET_CORE,
  EV_CURRENT,
  elf64Ehdr,
  elf64Phdr,
  elf64Shdr,
  MAX_SEGMENTS,
  PF_R,
  PN_XNUM,
  PT_LOAD,
  PT_NOTE,
} from '../abi/container.ts'
import { layoutOf } from '../abi/layout.ts'
import type { PhysAddr } from '../abi/memory.ts'
import type { StructType } from '../abi/schema.ts'
import { encodeKhoNote, type KhoNote } from './image-note.ts'
import {
  concatenate,
  type ImageFile,
  type Piece,
  runPieces,
  type StateRun,
  stateRuns,
  type Unwritable,
  type WritableMemory,
} from './image-pieces.ts'
import { type Encodable, encodeStruct } from './write.ts'

export type Arch = 'x86_64' | 'arm64'

export interface ElfOptions {
  readonly arch: Arch
  /** Where the handover is, for readers. */
  readonly note?: KhoNote | undefined
}

/** Memory starts on a page boundary of the file, so that tools can map it. */
const DATA_ALIGN = 4096

interface Segment {
  readonly start: PhysAddr
  readonly fileBytes: number
  readonly memoryBytes: bigint
  readonly offset: number
}

export function writeElf(memory: WritableMemory, { arch, note }: ElfOptions): ImageFile | Unwritable {
  const notes = note ? encodeKhoNote(note) : new Uint8Array()
  const runs = pairRuns(stateRuns(memory))
  const nrHeaders = runs.length + (note ? 1 : 0)
  if (nrHeaders > MAX_SEGMENTS)
    return { problem: `${runs.length} separate runs of memory; an ELF image takes ${MAX_SEGMENTS}` }
  const phdrsAt = sizeOf(elf64Ehdr)
  const phdrsEnd = phdrsAt + nrHeaders * sizeOf(elf64Phdr)
  // The number of headers has 16 bits; a larger one goes into section header 0.
  const shdrs = nrHeaders >= PN_XNUM ? encodeSection(nrHeaders) : new Uint8Array()
  const notesAt = phdrsEnd + shdrs.length
  const segments = placeSegments(runs, alignUp(notesAt + notes.length))
  const ehdr = encodeFileHeader(arch, nrHeaders, phdrsAt, shdrs.length > 0 ? phdrsEnd : 0)
  const phdrs = segments.map(encodeLoad)
  if (note) phdrs.unshift(encodeNotes(notesAt, notes.length))
  const head = concatenate([ehdr, ...phdrs, shdrs, notes])
  const last = segments.at(-1)
  return {
    size: last ? Math.max(head.length, last.offset + last.fileBytes) : head.length,
    *pieces(): Generator<Piece> {
      yield { offset: 0, bytes: head }
      for (const { start, fileBytes, offset } of segments) {
        yield* runPieces(memory, { start, end: start + BigInt(fileBytes) }, offset)
      }
    },
  }
}

interface PairedRun {
  readonly start: PhysAddr
  /** Where what is present ends; the rest up to `end` is left out. */
  readonly presentEnd: bigint
  readonly end: bigint
}

/** A segment is what is present and what is left out behind it. */
function pairRuns(runs: readonly StateRun[]): PairedRun[] {
  const paired: { start: PhysAddr; presentEnd: bigint; end: bigint }[] = []
  for (const { start, end, state } of runs) {
    const last = paired.at(-1)
    if (state === 'excluded' && last?.end === start) last.end = end
    else paired.push({ start, end, presentEnd: state === 'present' ? end : start })
  }
  return paired
}

function placeSegments(runs: readonly PairedRun[], first: number): Segment[] {
  let offset = first
  return runs.map(({ start, presentEnd, end }) => {
    const fileBytes = Number(presentEnd - start)
    const segment = { start, fileBytes, memoryBytes: end - start, offset }
    offset = alignUp(offset + fileBytes)
    return segment
  })
}

function encodeFileHeader(arch: Arch, nrHeaders: number, phdrsAt: number, shdrsAt: number): Uint8Array {
  return encode(elf64Ehdr, {
    ei_magic: ELF_MAGIC,
    ei_class: ELFCLASS64,
    ei_data: ELFDATA2LSB,
    ei_version: EV_CURRENT,
    ei_osabi: 0,
    ei_pad: new Uint8Array(),
    e_type: ET_CORE,
    e_machine: arch === 'x86_64' ? EM_X86_64 : EM_AARCH64,
    e_version: EV_CURRENT,
    e_entry: 0n,
    e_phoff: BigInt(phdrsAt),
    e_shoff: BigInt(shdrsAt),
    e_flags: 0,
    e_ehsize: sizeOf(elf64Ehdr),
    e_phentsize: sizeOf(elf64Phdr),
    e_phnum: Math.min(nrHeaders, PN_XNUM),
    e_shentsize: shdrsAt > 0 ? sizeOf(elf64Shdr) : 0,
    e_shnum: shdrsAt > 0 ? 1 : 0,
    e_shstrndx: 0,
  })
}

function encodeSection(nrHeaders: number): Uint8Array {
  return encode(elf64Shdr, {
    sh_name: 0,
    sh_type: 0,
    sh_flags: 0n,
    sh_addr: 0n,
    sh_offset: 0n,
    sh_size: 1n,
    sh_link: 0,
    sh_info: nrHeaders,
    sh_addralign: 0n,
    sh_entsize: 0n,
  })
}

function encodeNotes(offset: number, length: number): Uint8Array {
  return encode(elf64Phdr, {
    p_type: PT_NOTE,
    p_flags: 0,
    p_offset: BigInt(offset),
    p_vaddr: 0n,
    p_paddr: 0n,
    p_filesz: BigInt(length),
    p_memsz: BigInt(length),
    p_align: 0n,
  })
}

/** The virtual address is set to the physical one, as QEMU does: a debugger then shows memory by it. */
function encodeLoad({ start, fileBytes, memoryBytes, offset }: Segment): Uint8Array {
  return encode(elf64Phdr, {
    p_type: PT_LOAD,
    p_flags: PF_R,
    p_offset: BigInt(offset),
    p_vaddr: start,
    p_paddr: start,
    p_filesz: BigInt(fileBytes),
    p_memsz: memoryBytes,
    p_align: 0n,
  })
}

function encode<S extends StructType>(struct: S, value: Encodable<S>): Uint8Array {
  return encodeStruct(struct, value, CONTAINER_TARGET)
}

function sizeOf(struct: StructType): number {
  return layoutOf(struct, CONTAINER_TARGET).size
}

function alignUp(offset: number): number {
  return Math.ceil(offset / DATA_ALIGN) * DATA_ALIGN
}
