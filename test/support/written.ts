/** Documents to write, and the memory that was written as a source for the reader by hand. */
import type { PageSize } from '../../abi/layout.ts'
import type { PhysAddr, PhysicalMemory } from '../../abi/memory.ts'
import type { ReleaseVersions } from '../../abi/registry.ts'
import { HANDOVER_SCHEMA, type HandoverDocument, type Luo, type Subtree } from '../../encode/handover.ts'
import { RunTable, UNPLACED } from '../../encode/runs.ts'
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

/** Versions of Linux 7.2 and 7.3. */
export const NEWEST = {
  kho: 'kho-v4',
  luo: 'luo-v5',
  memblock: 'memblock-v1',
  'kexec-metadata': 'kexec-metadata-1',
  'kho-test': 'kho-test-v1',
} as const

/** One of everything, nothing with an address. */
export function oneOfEverything(): HandoverDocument {
  const folios = new RunTable(
    ['pfn', 'flags', 'index'],
    [
      {
        count: 3,
        order: 2,
        start: { pfn: UNPLACED, flags: 3n, index: 0n },
        step: { pfn: 0, flags: 0, index: 4 },
      },
    ],
  )
  const memfd = {
    pos: 7n,
    size: 40000n,
    seals: 6,
    folios: { records: folios },
    content: new Uint8Array(40000).fill(0x5a),
  }
  const files = {
    entries: [
      { compatible: 'memfd-v2', token: 2n ** 64n - 1n, memfd },
      { compatible: 'other', token: 0n, data: 0x123n },
    ],
  }
  return machine(4096, NEWEST, [
    {
      name: 'memblock',
      memblock: {
        reserve_mem: {
          entries: [
            { name: 'trace', size: 0x6000n, content: [{ offset: 0x5fffn, content: Uint8Array.of(1) }] },
          ],
        },
      },
    },
    {
      name: 'LUO',
      luo: {
        liveupdate_num: 9n,
        sessions: { entries: [{ name: 'a', files }, { name: 'b' }] },
        flbs: { entries: [{ name: 'f', data: 1n, count: 2n }] },
      },
    },
    {
      name: 'kho_test',
      kho_test: {
        csum: 5,
        folios_info: {
          records: new RunTable(
            ['value'],
            [{ count: 2, order: 3, start: { value: UNPLACED }, step: { value: 0 } }],
          ),
        },
      },
    },
    { name: 'kexec-metadata', kexec_metadata: { previous_release: '7.2.13', kexec_count: 4 } },
  ])
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
