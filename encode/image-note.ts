/**
 * The note `KHO` that tells readers where the handover is: struct kho_data, as x86 kernels pass it in
 * setup_data. Not a kernel format; other tools skip notes of owners that they do not know.
 */
import { KHO_NOTE_NAME, KHO_NOTE_TYPE, khoData } from '../abi/boot.ts'
import { CONTAINER_TARGET, elf64Nhdr, NOTE_ALIGN } from '../abi/container.ts'
import type { Infer } from '../abi/schema.ts'
import { concatenate } from './image-pieces.ts'
import { encodeStruct } from './write.ts'

export type KhoNote = Infer<typeof khoData>

/** One ELF note, padded. */
export function encodeKhoNote(data: KhoNote): Uint8Array {
  const name = new TextEncoder().encode(`${KHO_NOTE_NAME}\0`)
  const desc = encodeStruct(khoData, data, CONTAINER_TARGET)
  const header = encodeStruct(
    elf64Nhdr,
    { n_namesz: name.length, n_descsz: desc.length, n_type: KHO_NOTE_TYPE },
    CONTAINER_TARGET,
  )
  return concatenate([header, padded(name), padded(desc)])
}

function padded(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(Math.ceil(bytes.length / NOTE_ALIGN) * NOTE_ALIGN)
  out.set(bytes)
  return out
}
