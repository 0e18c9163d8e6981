/**
 * What a fixture's scenario says, read without the encoder's own reader: plain YAML, and the capacities
 * of lists as kernels have them.
 */
import { parse } from 'yaml'
import { fillOf } from './guest.ts'

/** Sessions and files of one array (6.19 to 7.1) and of one block (7.2 and later), by page size. */
const CAPACITY: Readonly<
  Record<string, Readonly<Record<number, readonly [sessions: number, files: number]>>>
> = {
  array: { 4096: [819, 128], 16384: [3276, 512], 65536: [13107, 2048] },
  block: { 4096: [51, 63], 16384: [204, 255], 65536: [819, 1023] },
}
/** 511 addresses in a chunk, each of a page with 256 records. */
const RECORDS_PER_CHUNK = 511 * 256

const SEALS: Readonly<Record<string, number>> = {
  seal: 1,
  shrink: 2,
  grow: 4,
  write: 8,
  future_write: 16,
  exec: 32,
}
const UNITS: Readonly<Record<string, number>> = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

// biome-ignore lint/suspicious/noExplicitAny: a scenario is read here as a person would, key by key.
type Plain = any

export interface FileFacts {
  readonly token: bigint
  readonly compatible?: string
  readonly data?: bigint
  readonly memfd?: {
    readonly size: number
    readonly pos: bigint
    readonly seals: number
    readonly records: number
    /** The first bytes of the file, at most as many as were asked for. */
    readonly head: Uint8Array
  }
}

export interface SessionFacts {
  readonly name: string | Uint8Array
  readonly files: readonly FileFacts[]
}

export interface ScenarioFacts {
  readonly sessions: readonly SessionFacts[]
  readonly flbs: readonly { readonly name: string; readonly data: bigint; readonly count: bigint }[]
  readonly regions: readonly {
    readonly name: string
    readonly size: number
    readonly align: number
    readonly head: Uint8Array
  }[]
  readonly subtrees: readonly Plain[]
  readonly plain: Plain
}

export interface FactsOptions {
  readonly pageSize: number
  readonly lists: 'array' | 'block'
  /** Bytes of each content that are worked out. */
  readonly limit: number
}

export function factsOf(yaml: string, options: FactsOptions): ScenarioFacts {
  const plain: Plain = parse(yaml, { intAsBigInt: true })
  const sessions = (plain.sessions ?? []).flatMap((session: Plain) => sessionFacts(session, options))
  const files: readonly FileFacts[] = sessions.flatMap((session: SessionFacts) => session.files)
  return {
    sessions,
    flbs: flbFacts(plain, BigInt(files.length)),
    regions: (plain.reserve_mem ?? []).map((region: Plain) => ({
      name: region.name,
      size: bytes(region.size),
      align: bytes(region.align ?? options.pageSize),
      head: contentHead(region.content, bytes(region.size), 0n, options.limit),
    })),
    subtrees: plain.subtrees ?? [],
    plain,
  }
}

function sessionFacts(session: Plain, options: FactsOptions): SessionFacts[] {
  const full = (CAPACITY[options.lists]?.[options.pageSize] ?? [0, 0])[0]
  return copies(session.repeat, full).map((copy) => ({
    name:
      typeof session.name === 'string'
        ? session.name.replace(/\{n(:0(\d+))?\}/, (_: string, __: string, width = '0') =>
            String(copy).padStart(Number(width), '0'),
          )
        : Uint8Array.from(Buffer.from(session.name.hex.replaceAll(' ', ''), 'hex')),
    files: (session.files ?? []).flatMap((file: Plain) => fileFacts(file, copy, options)),
  }))
}

function fileFacts(file: Plain, sessionCopy: number, options: FactsOptions): FileFacts[] {
  const full = (CAPACITY[options.lists]?.[options.pageSize] ?? [0, 0])[1]
  return copies(file.repeat, full).map((copy) => {
    const token = BigInt(file.token) + BigInt(copy)
    if (file.opaque) return { token, compatible: file.opaque.compatible, data: BigInt(file.opaque.data) }
    return { token, memfd: memfdFacts(file.memfd, BigInt(sessionCopy + copy), options) }
  })
}

function memfdFacts(
  memfd: Plain,
  copy: bigint,
  { pageSize, limit }: FactsOptions,
): NonNullable<FileFacts['memfd']> {
  const runs: Plain[] = memfd.folios ?? []
  const listed = runs.reduce((sum, run) => sum + pagesOf(run), 0)
  const stored = memfd.content?.text ?? memfd.content?.hex
  const own = memfd.content?.hex
    ? Buffer.from(stored.replaceAll(' ', ''), 'hex').length
    : Buffer.byteLength(stored ?? '')
  const size = memfd.size === undefined ? (runs.length > 0 ? listed * pageSize : own) : bytes(memfd.size)
  const pages = Math.ceil(size / pageSize)
  const large = Math.floor(pages / 2 ** Number(memfd.order ?? 0))
  const usual = large + (pages - large * 2 ** Number(memfd.order ?? 0))
  const counted = runs.reduce((sum, run) => sum + (run.hole === undefined ? folioCount(run, pages) : 1), 0)
  return {
    size,
    pos: BigInt(memfd.position ?? 0),
    seals: (memfd.seals ?? []).reduce((sum: number, seal: string) => sum | (SEALS[seal] ?? 0), 0),
    records: runs.length > 0 ? counted : usual,
    head: contentHead(memfd.content, size, copy, limit),
  }
}

function pagesOf(run: Plain): number {
  return run.hole === undefined ? folioCount(run, 0) * 2 ** Number(run.order ?? 0) : Number(run.hole)
}

function folioCount({ count, order = 0 }: Plain, pages: number): number {
  if (count === undefined) return Math.ceil(pages / 2 ** Number(order))
  return typeof count === 'string'
    ? RECORDS_PER_CHUNK + Number(count.match(/\+ (\d+)/)?.[1] ?? 0)
    : Number(count)
}

function copies(repeat: Plain, full: number): number[] {
  const more =
    typeof repeat === 'string' ? full + Number(repeat.match(/\+ (\d+)/)?.[1] ?? 0) : Number(repeat ?? 1)
  return Array.from({ length: more }, (_, copy) => copy)
}

function flbFacts(plain: Plain, files: bigint): ScenarioFacts['flbs'] {
  const own = (plain.flbs ?? []).map((flb: Plain) => ({
    name: flb.name,
    data: BigInt(flb.data),
    count: BigInt(flb.count ?? files),
  }))
  const test = [0, 1, 2].map((index) => ({
    name: `liveupdate-test-flb-v${index}`,
    data: BigInt(`0xfeedf00dcafebee${index}`),
    count: files,
  }))
  return plain.liveupdate_test ? [...own, ...test] : own
}

/** Bytes in numbers and with the units that fixtures use. */
function bytes(size: Plain): number {
  const [, digits = '0', unit = ''] = /^(\d+)(\w*)$/.exec(String(size)) ?? []
  return Number(digits) * (UNITS[unit] ?? 1)
}

/** The first bytes of a content, by the definitions in docs/scenarios.md. */
export function contentHead(content: Plain, size: number, copy: bigint, limit: number): Uint8Array {
  const head = new Uint8Array(Math.min(size, limit))
  const put = (at: number, data: Uint8Array): void =>
    head.set(data.subarray(0, Math.max(0, head.length - at)), Math.min(at, head.length))
  for (const piece of content === undefined ? [] : [content].flat()) {
    const at = bytes(piece.at ?? 0)
    const length = piece.length === undefined ? size - at : bytes(piece.length)
    if (piece.text !== undefined) put(at, Buffer.from(piece.text))
    else if (piece.hex !== undefined) put(at, Buffer.from(piece.hex.replaceAll(' ', ''), 'hex'))
    else if (piece.byte !== undefined)
      put(at, new Uint8Array(Math.min(length, limit)).fill(Number(piece.byte)))
    else {
      const { seed, word, every, run } =
        piece.words ?? (typeof piece.pattern === 'bigint' ? { seed: piece.pattern } : piece.pattern)
      const step = every === undefined ? length : bytes(every)
      for (let offset = 0; offset < Math.min(length, limit); offset += step) {
        const room = Math.min(run === undefined ? step : bytes(run), length - offset, limit)
        const start = BigInt.asUintN(64, BigInt(word ?? seed) + copy + BigInt(offset))
        const marks = new DataView(new ArrayBuffer(8))
        marks.setBigUint64(0, start, true)
        put(
          at + offset,
          word === undefined
            ? fillOf(start, room)
            : new Uint8Array(marks.buffer, 0, Math.min(8, length - offset)),
        )
      }
    }
  }
  return head
}
