/** The formats of image files by name and extension, and how memory becomes one. */

import type { PageSize } from '../abi/layout.ts'
import type { Architecture } from '../abi/machine.ts'
import { writeLime, writeRaw } from './image.ts'
import { writeElf } from './image-elf.ts'
import { writeKdump } from './image-kdump.ts'
import type { KhoNote } from './image-note.ts'
import type { ImageFile, Unwritable, WritableMemory } from './image-pieces.ts'

export const imageFormats = ['raw', 'elf', 'lime', 'kdump'] as const
export type ImageFormat = (typeof imageFormats)[number]

const EXTENSIONS: Readonly<Record<string, ImageFormat>> = {
  bin: 'raw',
  raw: 'raw',
  elf: 'elf',
  core: 'elf',
  lime: 'lime',
  kdump: 'kdump',
}

/** By the file's name; undefined where it says nothing. */
export function formatByName(file: string): ImageFormat | undefined {
  return EXTENSIONS[/\.([A-Za-z]+)$/.exec(file)?.[1]?.toLowerCase() ?? '']
}

/** All names that say a format, for messages. */
export const knownExtensions = Object.keys(EXTENSIONS)
  .map((extension) => `.${extension}`)
  .join(', ')

export interface OutputMachine {
  readonly arch: Architecture
  readonly pageSize: PageSize
  /** For the formats that carry notes. */
  readonly boot: KhoNote
}

export function imageFile(
  format: ImageFormat,
  memory: WritableMemory,
  { arch, pageSize, boot }: OutputMachine,
): ImageFile | Unwritable {
  switch (format) {
    case 'raw':
      return writeRaw(memory)
    case 'elf':
      return writeElf(memory, { arch, note: boot })
    case 'lime':
      return writeLime(memory)
    case 'kdump':
      return writeKdump(memory, { arch, pageSize, note: boot })
  }
}
