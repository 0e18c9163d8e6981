/** Documents to write, and the memory that was written as a source for the reader by hand. */
import type { PageSize } from '../../abi/layout.ts'
import type { PhysAddr, PhysicalMemory } from '../../abi/memory.ts'
import type { ReleaseVersions } from '../../abi/registry.ts'
import { HANDOVER_SCHEMA, type HandoverDocument, type Luo, type Subtree } from '../../encode/handover.ts'
import { type WrittenHandover, writeHandover } from '../../encode/write-handover.ts'
import { readHandover, type Source } from './handover-reader.ts'

/** A machine with 1 GiB of RAM from 1 GiB on and two scratch areas, nothing at a fixed address. */
export function machine(
  pageSize: PageSize,
  versions: ReleaseVersions,
  subtrees: readonly Subtree[],
): HandoverDocument {
  return {
    schema: HANDOVER_SCHEMA,
    page_size: pageSize,
    versions,
    ram: [{ start: 0x40000000n, size: 1n << 30n }],
    scratch: {
      areas: [
        { addr: 0x41000000n, size: 1n << 24n },
        { addr: 0x50000000n, size: 1n << 26n },
      ],
    },
    root: {},
    subtrees,
  }
}

export const luoOnly = (luo: Luo): readonly Subtree[] => [{ name: 'LUO', luo }]

export function sourceOf(memory: PhysicalMemory): Source {
  return {
    bytes(pa, length) {
      const bytes = new Uint8Array(length)
      const present = memory.read(pa as PhysAddr, bytes)
      if (present < length) throw new Error(`0x${pa.toString(16)} is not there`)
      return bytes
    },
  }
}

export function u64At(source: Source, pa: bigint): bigint {
  const bytes = source.bytes(pa, 8)
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)
}

/** Reads what was written, from where the boot entry says. */
export function readWritten(document: HandoverDocument, { memory, boot }: WrittenHandover): HandoverDocument {
  return readHandover(sourceOf(memory), {
    pageSize: document.page_size,
    versions: document.versions,
    root: boot.fdt_addr,
    scratch: { at: boot.scratch_addr, count: Number(boot.scratch_size / 16n) },
  })
}

/** Writes and reads; what cannot be written fails the test. */
export function rewritten(document: HandoverDocument): HandoverDocument {
  const written = writeHandover(document)
  if (written.problems.length > 0) throw new Error(JSON.stringify(written.problems))
  return readWritten(document, written)
}
