/**
 * Recognising a container by its first bytes, and naming what is none, so that the message says what
 * was found and what to do about it.
 */
import { FDT_MAGIC } from '../abi/fdt.ts'
import { isElf } from './image-elf.ts'
import { isKdump } from './image-kdump.ts'
import { isLime } from './image-lime.ts'
import type { ByteSource, Problem } from './image-source.ts'

/** Enough for every magic number, and for telling text from memory. */
const HEAD_BYTES = 4096
/** A larger file that starts with an FDT is memory with one at its start. arm64 allows 2 MiB. */
const MAX_FDT_BYTES = 2 * 1024 * 1024

/** Files that are no images, or that others must unpack first. */
const foreign: readonly { readonly magic: string; readonly what: string }[] = [
  { magic: '\x28\xb5\x2f\xfd', what: 'compressed with zstd; unpack it first (unzstd)' },
  { magic: '\xfd7zXZ\x00', what: 'compressed with xz; unpack it first (unxz)' },
  { magic: 'BZh', what: 'compressed with bzip2; unpack it first (bunzip2)' },
  { magic: '\x04\x22\x4d\x18', what: 'compressed with lz4; unpack it first (unlz4)' },
  { magic: '\x89LZO\x00', what: 'compressed with lzop; unpack it first (lzop -d)' },
  { magic: 'PK\x03\x04', what: 'a zip archive; unpack it first' },
  { magic: 'QFI\xfb', what: 'a qcow2 disk image, no memory' },
  { magic: 'QEVM', what: 'a saved QEMU machine; write its memory with dump-guest-memory' },
  { magic: 'PAGEDU64', what: 'a Windows crash dump' },
]

/** The first bytes of a source, as far as it has them. */
export function headOf(source: ByteSource): Uint8Array {
  const head = new Uint8Array(HEAD_BYTES)
  return head.subarray(0, source.read(0, head))
}

/** The container's format by content; anything that could be memory is taken for flat raw memory. */
export function recognise(source: ByteSource): 'elf' | 'lime' | 'kdump' | 'fdt' | 'raw' | Problem {
  const head = headOf(source)
  if (isElf(head)) return 'elf'
  if (isLime(head)) return 'lime'
  if (isKdump(head)) return 'kdump'
  if (isSmallFdt(source, head)) return 'fdt'
  const alien = foreign.find(({ magic }) => startsWith(head, magic))
  const what = alien?.what ?? (isText(head) ? 'a text file' : undefined)
  const expected =
    'expected an image of physical memory (raw, ELF core, LiME, kdump-compressed), an FDT or a copy of debugfs kho'
  if (what) return { problem: `${source.name}: ${expected}; found ${what}` }
  if (source.size !== undefined && source.size < HEAD_BYTES) {
    return {
      problem: `${source.name}: ${expected}; found ${source.size} bytes of no known format (--format raw takes them as memory)`,
    }
  }
  return 'raw'
}

export function isSmallFdt(source: ByteSource, head: Uint8Array): boolean {
  if (head.length < 4 || (source.size ?? Number.POSITIVE_INFINITY) > MAX_FDT_BYTES) return false
  return new DataView(head.buffer, head.byteOffset).getUint32(0) === FDT_MAGIC
}

function startsWith(head: Uint8Array, magic: string): boolean {
  return [...magic].every((character, index) => head[index] === character.charCodeAt(0))
}

/** Printable ASCII, white space and UTF-8's bytes only. Memory nearly always has a NUL in its first page. */
function isText(head: Uint8Array): boolean {
  return (
    head.every(
      (byte) => (byte >= 0x20 && byte !== 0x7f) || (byte >= 0x09 && byte <= 0x0d) || byte === 0x1b,
    ) && !isAll(head, 0xff)
  )
}

function isAll(bytes: Uint8Array, value: number): boolean {
  return bytes.every((byte) => byte === value)
}
