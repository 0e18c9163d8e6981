/**
 * Handovers read by hand into documents: for each version the offsets of its headers, in numbers.
 * Shares no code with the project, so that what the encoder makes of them is held against the kernel alone.
 */

import type { PageSize } from '../../abi/layout.ts'
import type { ReleaseVersions } from '../../abi/registry.ts'
import type {
  FdtTree,
  Flb,
  HandoverDocument,
  KhoTest,
  Luo,
  MapChunk,
  Memfd,
  Preserved,
  RadixPage,
  RecordList,
  Session,
  SessionFile,
  Subtree,
  Text,
  VmallocList,
} from '../../encode/handover.ts'
import { HANDOVER_SCHEMA } from '../../encode/handover.ts'
import { RunTable } from '../../encode/runs.ts'
import { unitTable } from '../../encode/units.ts'
import type { RealImage } from './elf-core.ts'
import { type ReadNode, readFdt } from './fdt-reader.ts'

/** Bits of a page number, of an index below a node, and of a bit number in a leaf, per page size. */
const RADIX = {
  4096: { order0: 52, table: 9n, leaf: 15n, levels: 6 },
  16384: { order0: 50, table: 11n, leaf: 17n, levels: 5 },
  65536: { order0: 48, table: 13n, leaf: 19n, levels: 4 },
} as const

const common = { memblock: 'memblock-v1', 'kho-test': 'kho-test-v1' } as const
export const versionsOf: Readonly<Record<string, ReleaseVersions>> = {
  'linux-6.17-x86_64-basic': { ...common, kho: 'kho-v1/bitmap-512', 'kho-test': 'kho-test-v1/inline' },
  'linux-6.19-x86_64-basic': { ...common, kho: 'kho-v1/bitmap-page', luo: 'luo-v1', memfd: 'memfd-v1' },
  'kho-v2-x86_64-basic': {
    ...common,
    kho: 'kho-v2',
    luo: 'luo-v1/flb',
    'kexec-metadata': 'kexec-metadata-1',
  },
  'linux-7.1-x86_64-basic': {
    ...common,
    kho: 'kho-v3',
    luo: 'luo-v1/flb',
    'kexec-metadata': 'kexec-metadata-1',
  },
  'linux-7.3-x86_64-basic': { ...common, kho: 'kho-v4', luo: 'luo-v5', 'kexec-metadata': 'kexec-metadata-1' },
  'linux-7.3-arm64-4k-basic': {
    ...common,
    kho: 'kho-v4',
    luo: 'luo-v5',
    'kexec-metadata': 'kexec-metadata-1',
  },
}

/** The scratch array is no part of what a reader reaches from the root; it is the one page that holds it. */
const scratchOf: Readonly<Record<string, bigint>> = {
  'linux-7.3-x86_64-basic': 0x1eff0000n,
  'linux-7.3-arm64-4k-basic': 0x5eff0000n,
}

/** Bytes of memory by physical address, all of them there. */
export interface Source {
  bytes(pa: bigint, length: number): Uint8Array
}

/** Where a reader has to begin, and what it cannot read in the image. */
export interface Beginning {
  readonly pageSize: PageSize
  readonly versions: ReleaseVersions
  readonly root: bigint
  readonly scratch: { readonly at: bigint; readonly count: number }
}

/** A captured image, RAM as far as the file holds it. */
export function readDocument(image: RealImage, name: string): HandoverDocument {
  const document = readHandover(image, {
    pageSize: image.expected.page_size,
    versions: versionsOf[name] as ReleaseVersions,
    root: BigInt(image.expected.kho.fdt),
    scratch: { at: scratchOf[name] ?? 0x1f1f0000n, count: 3 },
  })
  return {
    ...document,
    ram: image.segments.map(({ pa, bytes }) => ({ start: pa, size: BigInt(bytes.length) })),
  }
}

export function readHandover(source: Source, beginning: Beginning): HandoverDocument {
  return new DocumentReader(source, beginning).document(beginning)
}

class DocumentReader {
  readonly #source: Source
  readonly #versions: ReleaseVersions
  readonly #page: PageSize

  constructor(source: Source, { pageSize, versions }: Beginning) {
    this.#source = source
    this.#page = pageSize
    this.#versions = versions
  }

  document({ root, scratch }: Beginning): HandoverDocument {
    const { tree } = readFdt(this.#source.bytes(root, this.#page))
    const map = this.#number(tree, 'preserved-memory-map')
    return {
      schema: HANDOVER_SCHEMA,
      page_size: this.#page,
      versions: this.#versions,
      root: { at: root },
      scratch: {
        at: scratch.at,
        areas: Array.from({ length: scratch.count }, (_, index) => ({
          addr: this.#u64(scratch.at + BigInt(index * 16)),
          size: this.#u64(scratch.at + BigInt(index * 16 + 8)),
        })),
      },
      subtrees: tree.children.map((node) => this.#subtree(node)),
      preserved: this.#versions.kho?.startsWith('kho-v1') ? this.#chunks(map) : this.#radix(map),
    }
  }

  #subtree(node: ReadNode): Subtree {
    const at = this.#number(
      node,
      node.properties.some((one) => one.name === 'fdt') ? 'fdt' : 'preserved-data',
    )
    const placed = { name: node.name, at }
    if (node.name === 'memblock') {
      return {
        ...placed,
        memblock: {
          reserve_mem: {
            entries: this.#fdt(at).children.map((region) => ({
              name: region.name,
              start: this.#number(region, 'start'),
              size: this.#number(region, 'size'),
            })),
          },
        },
      }
    }
    if (node.name === 'kexec-metadata') {
      return {
        ...placed,
        kexec_metadata: { previous_release: this.#text(at + 4n, 65), kexec_count: this.#u32(at + 69n) },
      }
    }
    if (node.name === 'kho_test') return { ...placed, kho_test: this.#khoTest(at) }
    return node.name === 'LUO' ? { ...placed, luo: this.#luo(at) } : placed
  }

  #khoTest(at: bigint): KhoTest {
    const data = this.#fdt(at).children[0] as FdtTree & ReadNode
    const info = data.properties.find((one) => one.name === 'folios_info')?.value as Uint8Array
    const view = new DataView(info.buffer)
    const records = new RunTable(['value'])
    if (this.#versions['kho-test'] === 'kho-test-v1/inline') {
      for (let offset = 0; offset < info.length; offset += 8) {
        records.append(0, { value: view.getBigUint64(offset, true) })
      }
      return { csum: Number(this.#number(data, 'csum')), folios_info: { records } }
    }
    const count = this.#number(data, 'nr_folios')
    const list = this.#vmalloc(view.getBigUint64(0, true), view.getUint32(8, true))
    this.#elements(list.pages, Number(count), 8, (pa) => records.append(0, { value: this.#u64(pa) }))
    return { csum: Number(this.#number(data, 'csum')), folios_info: { ...list, records } }
  }

  /** Number, sessions and FLBs stand in FDT properties (v1), behind one (v2), or in the blob (v3 to v5). */
  #luo(at: bigint): Luo {
    const { luo = '' } = this.#versions
    if (luo.startsWith('luo-v1')) {
      const tree = this.#fdt(at)
      const [sessions, flbs] = tree.children as readonly ReadNode[]
      return {
        liveupdate_num: this.#number(tree, 'liveupdate-number'),
        sessions: this.#sessions(this.#number(sessions as ReadNode, 'luo-session-header')),
        ...(flbs ? { flbs: this.#flbs(this.#number(flbs, 'luo-flb-header')) } : {}),
      }
    }
    const behindFdt = luo === 'luo-v2'
    const struct = behindFdt ? this.#number(this.#fdt(at), 'luo-abi-header') : at + 8n
    return {
      liveupdate_num: this.#u64(struct),
      ...(behindFdt ? { luo_ser: { at: struct } } : {}),
      sessions: this.#sessions(this.#u64(struct + 8n)),
      flbs: this.#flbs(this.#u64(struct + 16n)),
    }
  }

  #sessions(at: bigint): RecordList<Session> {
    const { luo = '' } = this.#versions
    if (luo === 'luo-v1/session-v1') {
      return this.#array(at, this.#u64(at), 64, (pa) => ({ name: this.#text(pa, 64) }), 8n)
    }
    const session = (pa: bigint): Session => {
      const files = this.#u64(pa + 64n)
      const file = (record: bigint): SessionFile => this.#file(record)
      return {
        name: this.#text(pa, 64),
        files:
          luo === 'luo-v5'
            ? this.#blocks(files, 64, file)
            : this.#array(files, this.#u64(pa + 72n), 64, file),
      }
    }
    const inBlocks = luo === 'luo-v4' || luo === 'luo-v5'
    return inBlocks ? this.#blocks(at, 80, session) : this.#array(at, this.#u64(at), 80, session, 8n)
  }

  #array<R>(at: bigint, count: bigint, size: number, read: (pa: bigint) => R, header = 0n): RecordList<R> {
    const entries = Array.from({ length: Number(count) }, (_, index) =>
      read(at + header + BigInt(index * size)),
    )
    return { at, entries }
  }

  #flbs(at: bigint): RecordList<Flb> {
    const flb = (pa: bigint): Flb => ({
      name: this.#text(pa, 48),
      data: this.#u64(pa + 48n),
      count: this.#u64(pa + 56n),
    })
    return this.#array(at, this.#u64(at + 8n), 64, flb, 16n)
  }

  #blocks<R>(first: bigint, size: number, read: (pa: bigint) => R): RecordList<R> {
    const blocks: { at: bigint; entries: number }[] = []
    const entries: R[] = []
    for (let at = first; at !== 0n; at = this.#u64(at)) {
      const count = Number(this.#u64(at + 8n))
      blocks.push({ at, entries: count })
      for (let index = 0; index < count; index++) entries.push(read(at + 16n + BigInt(index * size)))
    }
    return { blocks, entries }
  }

  #file(pa: bigint): SessionFile {
    const compatible = this.#text(pa, 48)
    const at = this.#u64(pa + 48n)
    const token = this.#u64(pa + 56n)
    if (compatible !== 'memfd-v1' && compatible !== 'memfd-v2') return { compatible, token, data: at }
    return { compatible, token, memfd: this.#memfd(at, compatible === 'memfd-v2') }
  }

  #memfd(at: bigint, sealed: boolean): Memfd {
    const tail = at + (sealed ? 24n : 16n)
    const count = Number(this.#u64(tail))
    const list = this.#vmalloc(this.#u64(tail + 8n), this.#u32(tail + 16n))
    const records = new RunTable(['pfn', 'flags', 'index'])
    this.#elements(list.pages, count, 16, (pa) => {
      const word = this.#u64(pa)
      const pfn = word & 0xf_ffff_ffff_ffffn
      records.append(0, { pfn, flags: word >> 52n, index: this.#u64(pa + 8n) })
    })
    return {
      at,
      pos: this.#u64(at),
      size: this.#u64(at + 8n),
      ...(sealed ? { seals: this.#u32(at + 16n), flags: this.#u32(at + 20n) } : {}),
      ...(count > 0 ? { folios: { ...list, records } } : {}),
    }
  }

  #vmalloc(
    first: bigint,
    totalPages: number,
  ): Pick<VmallocList<never>, 'chunks' | 'pages'> & { pages: ReturnType<typeof unitTable> } {
    const chunks: bigint[] = []
    const groups: { start: bigint }[] = []
    for (let at = first; at !== 0n; at = this.#u64(at)) {
      chunks.push(at)
      for (let slot = 1n; slot < BigInt(this.#page / 8) && this.#u64(at + slot * 8n) !== 0n; slot++) {
        groups.push({ start: this.#u64(at + slot * 8n) })
      }
    }
    if (groups.length !== totalPages) throw new Error(`${groups.length} pages instead of ${totalPages}`)
    return { chunks, pages: unitTable(this.#page, groups) }
  }

  #elements(
    pages: ReturnType<typeof unitTable>,
    count: number,
    size: number,
    read: (pa: bigint) => void,
  ): void {
    for (let index = 0; index < count; index++) {
      const position = index * size
      const page = pages.start('start', Math.floor(position / this.#page))
      read(page + BigInt(position % this.#page))
    }
  }

  #chunks(first: bigint): Preserved {
    const chunks: MapChunk[] = []
    const units: { start: bigint; order: number }[] = []
    const bits = this.#versions.kho === 'kho-v1/bitmap-512' ? 4096 : this.#page * 8
    for (let at = first; at !== 0n; at = this.#u64(at)) {
      const order = this.#u32(at + 8n)
      const bitmaps: { phys_start: bigint; at: bigint }[] = []
      for (let index = 0; index < this.#u32(at + 12n); index++) {
        const physStart = this.#u64(at + 16n + BigInt(index) * 16n)
        const bitmap = this.#u64(at + 24n + BigInt(index) * 16n)
        bitmaps.push({ phys_start: physStart, at: bitmap })
        for (const bit of setBitsOf(this.#source.bytes(bitmap, bits / 8))) {
          units.push({ start: physStart + (BigInt(bit) << BigInt(order + Math.log2(this.#page))), order })
        }
      }
      chunks.push({ at, order, bitmaps })
    }
    return { chunks, units: unitTable(this.#page, units) }
  }

  #radix(root: bigint): Preserved {
    const { order0, table, leaf, levels } = RADIX[this.#page]
    const shift = 64 - order0
    const nodes: RadixPage[] = []
    const units: { start: bigint; order: number }[] = []
    const visit = (at: bigint, path: readonly number[]): void => {
      nodes.push({ path, at })
      if (path.length === levels - 1) {
        const prefix = path.reduce((key, index) => (key << table) | BigInt(index), 0n)
        for (const bit of setBitsOf(this.#source.bytes(at, this.#page))) {
          const key = (prefix << leaf) | BigInt(bit)
          const order = order0 - (key.toString(2).length - 1)
          units.push({ start: BigInt.asUintN(64, key << BigInt(shift + order)), order })
        }
        return
      }
      const entries = this.#source.bytes(at, 8 * 2 ** Number(table))
      const view = new DataView(entries.buffer, entries.byteOffset)
      for (let index = 0; index < 2 ** Number(table); index++) {
        const child = view.getBigUint64(index * 8, true)
        if (child !== 0n) visit(child, [...path, index])
      }
    }
    visit(root, [])
    return { nodes, units: unitTable(this.#page, units) }
  }

  #fdt(at: bigint): ReadNode {
    return readFdt(this.#source.bytes(at, this.#page)).tree
  }

  #number(node: ReadNode, name: string): bigint {
    const value = node.properties.find((property) => property.name === name)?.value as Uint8Array
    return [...value].reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n)
  }

  #u64(pa: bigint): bigint {
    const bytes = this.#source.bytes(pa, 8)
    return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)
  }

  #u32(pa: bigint): number {
    const bytes = this.#source.bytes(pa, 4)
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)
  }

  #text(pa: bigint, length: number): Text {
    const bytes = this.#source.bytes(pa, length)
    const name = bytes.slice(0, bytes.indexOf(0))
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(name)
    return Buffer.compare(Buffer.from(text), name) === 0 ? text : name
  }
}

function* setBitsOf(bitmap: Uint8Array): Generator<number> {
  for (const [at, byte] of bitmap.entries()) {
    for (let bit = 0; bit < 8; bit++) if (byte & (1 << bit)) yield at * 8 + bit
  }
}
