/**
 * Kernel images as files: for which architecture they are, how much memory an arm64 Image takes, and where
 * the kernel in them has its functions.
 */
import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { CONTAINER_TARGET, ELF_MAGIC, elf64Ehdr, elf64Shdr, elf64Sym, SHT_SYMTAB } from '../abi/container.ts'
import {
  ARM64_IMAGE_ALIGN,
  ARM64_IMAGE_MAGIC,
  arm64ImageHeader,
  SETUP_HEADER_MAGIC,
  SETUP_HEADER_OFFSET,
  setupHeader,
} from '../abi/kernel-image.ts'
import { layoutOf } from '../abi/layout.ts'
import type { Architecture } from '../abi/machine.ts'
import type { Infer, StructType } from '../abi/schema.ts'
import { decodeStruct } from '../inspect/record.ts'
import { decodeText } from '../inspect/text.ts'
import { MachineFailure } from './failure.ts'

/** An arm64 kernel and the memory that it wants. */
export interface Arm64Kernel {
  readonly bytes: Uint8Array
  /** Bytes from its start on that it takes, beyond those of the file. */
  readonly size: number
  readonly align: number
  readonly offset: number
}

export function readFile(path: string): Uint8Array {
  try {
    return readFileSync(path)
  } catch (error) {
    throw new MachineFailure(`${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`)
  }
}

/** By the header of the image; a vmlinux is no image that QEMU or a kexec would take. */
export function architectureOf(path: string): Architecture {
  const bytes = readFile(path)
  if (recordAt(bytes, arm64ImageHeader, 0)?.magic === ARM64_IMAGE_MAGIC) return 'arm64'
  const setup = recordAt(bytes, setupHeader, SETUP_HEADER_OFFSET)
  if (setup && decodeText(setup.header) === SETUP_HEADER_MAGIC) return 'x86_64'
  throw new MachineFailure(`${path}: expected an x86 bzImage or an uncompressed arm64 Image`)
}

export function readArm64Kernel(path: string): Arm64Kernel {
  const bytes = readFile(path)
  const header = recordAt(bytes, arm64ImageHeader, 0)
  if (header?.magic !== ARM64_IMAGE_MAGIC) {
    throw new MachineFailure(
      `${path}: expected an uncompressed arm64 Image, the only kind that boots on an image`,
    )
  }
  const size = Math.max(bytes.length, Number(header.image_size))
  return { bytes, size, align: ARM64_IMAGE_ALIGN, offset: Number(header.text_offset) }
}

/** Where a System.map or vmlinux lies that belongs to a kernel: in its build's tree, or as distributions name it. */
function mapsBeside(kernel: string): readonly string[] {
  const directory = dirname(kernel)
  const version = basename(kernel).replace(/^[^-]*/, '')
  const top = join(directory, '../../..')
  return [
    join(directory, 'System.map'),
    ...(version === '' ? [] : [join(directory, `System.map${version}`)]),
    ...[join(top, 'System.map'), join(top, 'vmlinux'), join(directory, 'vmlinux')],
  ]
}

/** The address of a function, from the map that is given or from one beside the kernel. */
export function symbolAddress(name: string, kernel: string, map: string | undefined): bigint {
  const path = map ?? mapsBeside(kernel).find((candidate) => existsSync(candidate))
  if (path === undefined) {
    throw new MachineFailure(
      `${kernel}: no System.map and no vmlinux beside it; --system-map tells where it is`,
    )
  }
  const bytes = readFile(path)
  const isElf = ELF_MAGIC.every((byte, index) => bytes[index] === byte)
  const address = isElf ? fromElf(bytes, name) : fromMap(bytes, name)
  if (address !== undefined) return address
  throw new MachineFailure(`${path}: no ${name}; this kernel is built without CONFIG_KEXEC_HANDOVER`)
}

function fromMap(bytes: Uint8Array, name: string): bigint | undefined {
  const line = new RegExp(`^([0-9a-f]{1,16}) \\w ${name}$`, 'm').exec(new TextDecoder('latin1').decode(bytes))
  return line ? BigInt(`0x${line[1]}`) : undefined
}

function fromElf(bytes: Uint8Array, name: string): bigint | undefined {
  const header = recordAt(bytes, elf64Ehdr, 0)
  if (!header) return undefined
  const sectionAt = (index: number): Infer<typeof elf64Shdr> | undefined =>
    recordAt(bytes, elf64Shdr, Number(header.e_shoff) + index * header.e_shentsize)
  for (let index = 0; index < header.e_shnum; index++) {
    const table = sectionAt(index)
    const strings = table?.sh_type === SHT_SYMTAB ? sectionAt(table.sh_link) : undefined
    if (!table || !strings) continue
    const end = Number(table.sh_offset + table.sh_size)
    for (let at = Number(table.sh_offset); at < end; at += layoutOf(elf64Sym, CONTAINER_TARGET).size) {
      const symbol = recordAt(bytes, elf64Sym, at)
      if (!symbol) break
      const start = Number(strings.sh_offset) + symbol.st_name
      if (decodeText(bytes.subarray(start, start + name.length + 1)) === name) return symbol.st_value
    }
  }
  return undefined
}

function recordAt<S extends StructType>(bytes: Uint8Array, struct: S, at: number): Infer<S> | undefined {
  const end = at + layoutOf(struct, CONTAINER_TARGET).size
  return end <= bytes.length ? decodeStruct(struct, bytes.subarray(at, end), CONTAINER_TARGET) : undefined
}
