/**
 * ELF notes of a core file or of a kdump-compressed file's note section: owner, type, descriptor.
 *
 * Source: include/uapi/linux/elf.h; names and descriptors are padded to 4 bytes in core files, the
 * 64-bit ones too (fs/proc/vmcore.c, QEMU dump/dump.c).
 */
import { elf64Nhdr, MAX_NOTE_BYTES, NOTE_ALIGN } from '../abi/container.ts'
import { isPageSize, type PageSize } from '../abi/layout.ts'
import { type ByteSource, headerSize, readHeader, readSource } from './image-source.ts'
import { decodeText } from './text.ts'

export interface Note {
  /** Owner, without its NUL. */
  readonly name: string
  readonly type: number
  readonly desc: Uint8Array
}

export interface Notes {
  readonly notes: readonly Note[]
  /** Why there may be more. */
  readonly warning?: string
}

/**
 * Reads the notes in `length` bytes at `offset`, at most `limit` of them; ends with a warning at the first
 * that does not fit.
 */
export function readNotes(source: ByteSource, offset: number, length: number, limit = MAX_NOTE_BYTES): Notes {
  const notes: Note[] = []
  const end = offset + Math.min(length, limit)
  const size = headerSize(elf64Nhdr)
  let at = offset
  while (at + size <= end) {
    const header = readHeader(source, elf64Nhdr, at)
    const nameAt = at + size
    const descAt = nameAt + padded(header?.n_namesz ?? 0)
    const next = descAt + padded(header?.n_descsz ?? 0)
    // The last descriptor may lack its padding.
    const name = header && descAt + header.n_descsz <= end && readSource(source, nameAt, header.n_namesz)
    const desc = name && readSource(source, descAt, header.n_descsz)
    if (!desc)
      return {
        notes,
        warning: `${source.name}: note at offset ${at} does not fit its ${length} bytes of notes`,
      }
    notes.push({ name: decodeText(name), type: header.n_type, desc })
    at = next
  }
  return {
    notes,
    ...(length > limit && {
      warning: `${source.name}: only the first ${MAX_NOTE_BYTES} bytes of notes are read`,
    }),
  }
}

function padded(length: number): number {
  return Math.ceil(length / NOTE_ALIGN) * NOTE_ALIGN
}

/** Page size that the dumped kernel states in its VMCOREINFO note; the containers' own block sizes are not it. */
export function statedPageSize(notes: readonly Note[]): PageSize | undefined {
  const info = notes.find(({ name }) => name === 'VMCOREINFO')
  const stated = info && /^PAGESIZE=(\d+)$/m.exec(new TextDecoder('latin1').decode(info.desc))
  const bytes = Number(stated?.[1])
  return isPageSize(bytes) ? bytes : undefined
}
