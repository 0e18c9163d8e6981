/** Files of a scenario as files of a document: memfds with their folios, opaque handles. */
import type { Path } from '../abi/fault.ts'
import { vmallocChunkCapacity } from '../abi/kho-vmalloc.ts'
import { layoutOf } from '../abi/layout.ts'
import { MAX_FILE_SIZE, MAX_MEMFD_PAGES, memoryOrders } from '../abi/machine.ts'
import { memfdFolioFlags, memfdSeals } from '../abi/memfd.ts'
import type { StructType, VmallocEdge } from '../abi/schema.ts'
import type { Memfd, SessionFile } from './handover.ts'
import { type Run, RunTable, UNPLACED } from './runs.ts'
import { type ContentContext, contentLength, contentOf } from './scenario-content.ts'
import type { Copies, ScenarioFolios, ScenarioMemfd } from './scenario-file-schema.ts'
import { releasesThatHave, type ScenarioMachine, versionOf } from './scenario-machine.ts'
import type { ScenarioFile } from './scenario-schema.ts'

/** Records of folios in all files: each takes 16 bytes, here and in the image. */
const MAX_RECORDS = 1 << 26

type FolioField = 'pfn' | 'flags' | 'index'
type FolioRun = Run<FolioField>

/** Builds the files of one machine. */
export class FileBuilder {
  readonly #machine: ScenarioMachine
  readonly #context: ContentContext
  readonly #version: string | undefined
  /** The struct that a memfd leaves. */
  readonly #struct: StructType | undefined
  #records = 0

  constructor(machine: ScenarioMachine, context: ContentContext) {
    this.#machine = machine
    this.#context = context
    const { contract, root } = versionOf(machine, 'memfd') ?? {}
    this.#version = contract?.kind === 'string' ? contract.value : undefined
    this.#struct = root?.kind === 'struct' ? root : undefined
  }

  /** One copy of a file; `copy` is added to the seeds of its contents. */
  build(file: ScenarioFile, token: bigint, copy: bigint, path: Path): SessionFile | undefined {
    if (file.opaque) {
      const { compatible, data } = file.opaque
      return { compatible, token, data }
    }
    if (!this.#version) {
      const those = releasesThatHave((versions) => versions.memfd !== undefined)
      return this.#context.report.absent(
        [...path, 'memfd'],
        `${this.#machine.label} hands over no memfds; expected one of ${those}`,
      )
    }
    const memfd = this.#memfd(file.memfd as ScenarioMemfd, copy, [...path, 'memfd'])
    return memfd && { compatible: this.#version, token, memfd }
  }

  get handlerVersion(): string | undefined {
    return this.#version
  }

  #memfd(memfd: ScenarioMemfd, copy: bigint, path: Path): Memfd | undefined {
    const { report } = this.#context
    const inside = (key: string): Path => [...path, key]
    const folios = this.#folioPages(memfd, path)
    const given = memfd.size ?? folios
    const place = { length: given, into: 'the file', copy }
    const content = contentOf(memfd.content, place, inside('content'), this.#context)
    const size = given ?? contentLength(content)
    const pageSize = BigInt(this.#machine.target.pageSize)
    const nrPages = (size + pageSize - 1n) / pageSize
    if (size > MAX_FILE_SIZE || nrPages > MAX_MEMFD_PAGES) {
      return report.wrong(
        inside('size'),
        `${size} bytes; expected at most ${MAX_MEMFD_PAGES} pages, all that a memfd can hand over`,
      )
    }
    const pos = memfd.position ?? 0n
    if (pos > MAX_FILE_SIZE) report.wrong(inside('position'), `${pos}; expected at most 2^63 - 1`)
    const records = this.#folioRuns(memfd, Number(nrPages), path)
    return {
      pos,
      size,
      ...this.#seals(memfd, path),
      folios: { records: new RunTable<FolioField>(['pfn', 'flags', 'index'], records) },
      ...(content && { content }),
    }
  }

  #seals({ seals }: ScenarioMemfd, path: Path): { readonly seals?: number } {
    if (this.#struct?.fields.seals) return { seals: flagBits(seals ?? [], memfdSeals) }
    if (seals) {
      this.#context.report.absent(
        [...path, 'seals'],
        `${this.#machine.label} (${this.#version}) does not hand over seals; Linux 7.1 (memfd-v2) and later do`,
      )
    }
    return {}
  }

  /** Bytes of the folios that are listed, where all of them say how many they are. */
  #folioPages({ folios }: ScenarioMemfd, path: Path): bigint | undefined {
    let pages = 0n
    for (const [index, run] of (folios ?? []).entries()) {
      if (run.hole === undefined && run.count === undefined) return undefined
      pages += BigInt(
        run.hole ?? this.#count(run.count, [...path, 'folios', { index }]) * 2 ** (run.order ?? 0),
      )
    }
    return folios && pages * BigInt(this.#machine.target.pageSize)
  }

  #count(copies: Copies | undefined, path: Path): number {
    if (typeof copies !== 'object') return Number(copies ?? 0n)
    const edge = this.#struct && vmallocOf(this.#struct)
    if (edge?.element.kind !== 'struct') return 0
    const { target } = this.#machine
    const perPage = Math.floor(target.pageSize / layoutOf(edge.element, target).size)
    const perChunk = vmallocChunkCapacity(edge.chunk, target) * perPage
    const count = copies.full * perChunk + copies.plus
    if (count <= MAX_RECORDS) return count
    this.#context.report.wrong([...path, 'count'], tooMany(count))
    return 0
  }

  /** Runs of records that cover the file from its first page to its last. */
  #folioRuns(memfd: ScenarioMemfd, nrPages: number, path: Path): readonly FolioRun[] {
    const { report } = this.#context
    if (memfd.folios && memfd.order !== undefined) {
      report.wrong([...path, 'order'], 'expected either order or folios, found both')
    }
    const listed: readonly ScenarioFolios[] = memfd.folios ?? usualFolios(memfd.order ?? 0, nrPages)
    const runs: FolioRun[] = []
    let page = 0
    for (const [index, run] of listed.entries()) {
      const at = memfd.folios ? [...path, 'folios', { index }] : [...path, 'order']
      const made = this.#run(run, page, nrPages, at)
      if (!made) return []
      runs.push(made)
      page += run.hole ?? made.count * 2 ** made.order
      this.#records += made.count
    }
    if (page < nrPages && memfd.folios) {
      report.wrong(
        [...path, 'folios'],
        `${page} pages; expected all ${nrPages} pages of the file, holes included`,
      )
    }
    if (this.#records > MAX_RECORDS) report.wrong(path, tooMany(this.#records))
    return runs
  }

  #run(run: ScenarioFolios, page: number, nrPages: number, path: Path): FolioRun | undefined {
    const { report } = this.#context
    const order = run.order ?? 0
    const largest = memoryOrders[this.#machine.target.pageSize].pageCache
    if (page >= nrPages) {
      return report.wrong(path, `begins at page ${page}, behind the file's ${nrPages} pages`)
    }
    if (run.hole !== undefined) {
      if (run.order === undefined && run.count === undefined && run.flags === undefined) {
        return folioRun(1, 0, { pfn: 0n, flags: 0n, index: BigInt(page) })
      }
      return report.wrong(path, 'a hole has no folios: expected it without order, count and flags')
    }
    if (order > largest) {
      return report.wrong(path, `order ${order}; the largest folio of a memfd has order ${largest} here`)
    }
    const pages = 2 ** order
    if (page % pages !== 0) {
      return report.wrong(
        path,
        `a folio of order ${order} begins at page ${page}; expected a multiple of ${pages}, as the page cache demands`,
      )
    }
    const most = Math.ceil((nrPages - page) / pages)
    const count = run.count === undefined ? most : this.#count(run.count, path)
    if (count > most) {
      return report.wrong([...path, 'count'], `${count} folios; ${most} reach to the end of the file`)
    }
    if (count === 0) return undefined
    const flags = run.flags ? flagBits(run.flags, memfdFolioFlags) : USUAL_FLAGS
    return folioRun(count, order, { pfn: UNPLACED, flags: BigInt(flags), index: BigInt(page) })
  }
}

/** What every kernel from 6.19.11 on writes for every folio. */
const USUAL_FLAGS = memfdFolioFlags.DIRTY | memfdFolioFlags.UPTODATE

function folioRun(count: number, order: number, start: FolioRun['start']): FolioRun {
  return { count, order, start, step: { pfn: 0, flags: 0, index: 2 ** order } }
}

/** Large folios as far as whole ones go, as shmem lays out a file that it may use huge pages for. */
function usualFolios(order: number, nrPages: number): readonly ScenarioFolios[] {
  const large = Math.floor(nrPages / 2 ** order)
  const left = nrPages - large * 2 ** order
  return [
    ...(large > 0 ? [{ order, count: BigInt(large) }] : []),
    ...(left > 0 ? [{ order: 0, count: BigInt(left) }] : []),
  ]
}

function flagBits(words: readonly string[], bits: Readonly<Record<string, number>>): number {
  return words.reduce((all, word) => all | (bits[word.toUpperCase()] ?? 0), 0)
}

function tooMany(count: number): string {
  return `${count} folio records; expected at most ${MAX_RECORDS}, 1 GiB of them`
}

function vmallocOf(root: StructType): VmallocEdge | undefined {
  for (const type of Object.values(root.fields)) {
    if (type.kind === 'struct' && type.to?.kind === 'vmalloc') return type.to
  }
  return undefined
}
