/**
 * The handover document: a whole handover as plain values, independent of how its version stores it.
 *
 * Records carry the kernel's field names (the keys of a dump); what a version's schema does not have is
 * refused, what it derives (counts, links, sizes) may be left out. Every object may carry its address in
 * `at`: with one it is written there, without one the allocator places it. Pointer fields are never
 * written as such: the linked object stands in their place, under the name of its edge.
 *
 * `at: 0n` says that there is no object and the link is 0. An object with an address but without a body
 * (`entries`, `records`, `units` left out) is a link to memory that the document does not describe.
 */

import type { PageSize } from '../abi/layout.ts'
import type { ReleaseVersions } from '../abi/registry.ts'
import type { FdtStyle } from '../abi/schema.ts'
import type { RunTable } from './runs.ts'
import type { UnitTable } from './units.ts'

export const HANDOVER_SCHEMA = 'kho-inspect/handover@1'

/** Text as the kernel stores it: a string (UTF-8), or bytes where it is none or does not end at its first NUL. */
export type Text = string | Uint8Array

export interface HandoverDocument {
  readonly schema: typeof HANDOVER_SCHEMA
  readonly page_size: PageSize
  readonly arch?: 'x86_64' | 'arm64'
  /** Version of each component by its id in the registry. Files name their handler's version themselves. */
  readonly versions: ReleaseVersions
  /** RAM of the machine; the allocator stays inside. Without it RAM is what the objects with addresses cover. */
  readonly ram?: readonly RamRange[]
  /** RAM where the allocator places nothing: firmware, the kernel itself. */
  readonly reserved?: readonly RamRange[]
  readonly scratch?: Scratch
  readonly root: Root
  /** In FDT order. */
  readonly subtrees: readonly Subtree[]
  /** Without it, the units that the kernel would preserve; `null`: no map is written, `root.memory_map` says where it is. */
  readonly preserved?: Preserved | null
  /** Bytes at addresses, written last: over everything else. */
  readonly contents?: readonly PlacedContent[]
}

export interface RamRange {
  readonly start: bigint
  readonly size: bigint
}

/** Anything that takes memory of its own. */
export interface Placed {
  readonly at?: bigint
}

/** The scratch areas in array order, low memory first, and the address of the array. */
export interface Scratch extends Placed {
  readonly areas: readonly { readonly addr: bigint; readonly size: bigint }[]
}

export interface Root extends Placed {
  /** How the kernel put it together; without it, as the declaration of the version says. */
  readonly style?: FdtStyle
  /** `preserved-memory-map` as written, where it is not the address of the map in `preserved`. */
  readonly memory_map?: bigint
  /** kho_data.fdt_size where it is not one page. */
  readonly fdt_size?: bigint
}

/**
 * One node of the root FDT and its blob: a known component under its key in the registry, else an FDT,
 * else bytes. Without any of these it is a pointer only.
 */
export interface Subtree extends Placed {
  readonly name: Text
  /** `blob-size` as written, where it is not the length of the blob. */
  readonly size?: bigint
  /** The unit that holds the blob has 2^order pages; without it the smallest that does. */
  readonly order?: number
  readonly memblock?: Memblock
  readonly kexec_metadata?: KexecMetadata
  readonly luo?: Luo
  readonly kho_test?: KhoTest
  readonly fdt?: FdtTree
  readonly bytes?: Uint8Array
}

/** A node of an FDT that no declaration describes. Values are bytes as stored. */
export interface FdtTree {
  readonly name: Text
  readonly properties: readonly { readonly name: Text; readonly value: Uint8Array }[]
  readonly children: readonly FdtTree[]
}

export interface Memblock {
  /** In FDT order. */
  readonly reserve_mem: RecordList<ReserveMem>
}

/** A region without `start` is placed by the allocator. */
export interface ReserveMem {
  readonly name: Text
  readonly start?: bigint
  readonly size: bigint
  readonly content?: Content
}

export interface KexecMetadata {
  readonly version?: number
  readonly previous_release: Text
  readonly kexec_count: number
}

export interface Luo {
  readonly liveupdate_num: bigint
  /** luo-v2 only: the struct behind the FDT. */
  readonly luo_ser?: Placed
  readonly sessions?: RecordList<Session>
  /** Left out in luo-v1 of Linux 6.19, which has none. */
  readonly flbs?: RecordList<Flb>
}

export interface Session {
  readonly name: Text
  readonly files?: RecordList<SessionFile>
  /** Number of files as written, where it is not that of `files`. */
  readonly count?: bigint
}

/** A file whose handler is known holds its record under the handler's key, any other its handle in `data`. */
export interface SessionFile {
  readonly compatible: Text
  readonly token: bigint
  readonly data?: bigint
  readonly memfd?: Memfd
}

export interface Memfd extends Placed {
  readonly pos: bigint
  readonly size: bigint
  /** memfd-v2 and later. */
  readonly seals?: number
  /** memfd-v2 and later; 0 if left out. */
  readonly flags?: number
  /** As written, where it is not the number of records. */
  readonly nr_folios?: bigint
  readonly folios?: VmallocList<'pfn' | 'flags' | 'index'>
  /** The file's bytes from offset 0; laid into the folios. */
  readonly content?: Content
}

export interface Flb {
  readonly name: Text
  readonly data: bigint
  readonly count: bigint
}

export interface KhoTest {
  readonly magic?: number
  readonly nr_folios?: number
  readonly csum: number
  readonly folios_info: VmallocList<'value'>
}

/**
 * A list of records behind one link. Arrays have an address, chains of blocks their block boundaries;
 * without `blocks` the entries fill one block after the other.
 */
export interface RecordList<R> extends Placed {
  readonly blocks?: readonly Block[]
  readonly entries?: readonly R[]
  /** Entries as counted in the header, where that is not their number. */
  readonly count?: bigint
}

export interface Block extends Placed {
  /** Entries of this block. */
  readonly entries: number
  /** `count` of its header, where that is not `entries`. */
  readonly count?: bigint
}

/**
 * An array in vmalloc memory. `records` holds it in runs: a field per field of the element (`value` where
 * elements are plain integers), the order that of the folios that the records name. Where the field that
 * says where the folio lies is UNPLACED, the allocator places the folios of that run.
 */
export interface VmallocList<Field extends string> {
  readonly records?: RunTable<Field>
  /** Chunk pages in chain order; those left out are placed. */
  readonly chunks?: readonly bigint[]
  /** First pages of the groups of 2^order pages, in order; those left out are placed. */
  readonly pages?: UnitTable
  /** VM flags of the area; VM_ALLOC if left out. */
  readonly flags?: number
  readonly order?: number
  /** The descriptor's other fields as written, where they are not those of the list. */
  readonly first?: bigint
  readonly total_pages?: number
}

/** The map of preserved memory. */
export interface Preserved {
  /**
   * Every preserved unit. Objects that the allocator places are added. Without it, the units are those
   * that the kernel makes for everything in the document.
   */
  readonly units?: UnitTable
  /** More preserved memory, cut into units as kho_preserve_pages() does. */
  readonly ranges?: readonly RamRange[]
  /** Chunks of a kho-v1 map in chain order; what the units need beyond them is appended. */
  readonly chunks?: readonly MapChunk[]
  /** Pages of a radix tree, empty ones included; what the units need beyond them is placed. */
  readonly nodes?: readonly RadixPage[]
}

export interface MapChunk extends Placed {
  readonly order: number
  readonly bitmaps: readonly { readonly phys_start: bigint; readonly at?: bigint }[]
  /** `num_elms` where it is not the number of bitmaps. */
  readonly num_elms?: number
}

/** A node or leaf by the indexes that lead to it from the root: none for the root itself. */
export interface RadixPage extends Placed {
  readonly path: readonly number[]
}

/** What memory holds, as a function of the offset. */
export type Content = PlainContent | readonly ContentPart[]

export type PlainContent = Uint8Array | Pattern | Words | Repeated

/** One of several pieces; bytes between them are zero. */
export interface ContentPart {
  /** Bytes from the start of the whole. */
  readonly offset: bigint
  readonly content: PlainContent
}

/**
 * Bytes that need no storage: at each multiple of `every` bytes, `run` bytes of a xorshift64 sequence
 * seeded with `seed` + that offset; zeros elsewhere.
 */
export interface Pattern {
  readonly seed: bigint
  readonly every: number
  readonly run: number
  /** Length of the whole in bytes. */
  readonly length: bigint
}

/** At each multiple of `every` bytes a little-endian word of 64 bits, `word` + that offset; zeros elsewhere. */
export interface Words {
  readonly word: bigint
  readonly every: number
  readonly length: bigint
}

/** The same byte, `length` times. */
export interface Repeated {
  readonly byte: number
  readonly length: bigint
}

export interface PlacedContent {
  readonly at: bigint
  readonly content: Content
}
