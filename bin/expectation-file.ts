/**
 * The file of `boot --expect`: what shall come back, as JSON. It has the form of the report, and a whole
 * report is one.
 */
import { readFileSync } from 'node:fs'
import { MAX_ERRNO } from '../abi/errno.ts'
import { LIVEUPDATE_SESSION_NAME_LENGTH } from '../abi/luo.ts'
import { RESERVE_MEM_NAME_SIZE } from '../abi/memblock.ts'
import { decodeText } from '../inspect/text.ts'
import type { Expectation, ExpectedFile, ExpectedRegion, ExpectedSession } from '../qemu/expectation.ts'
import { UsageError } from './command.ts'

const SCHEMA = 'schema'
const COMPARED = [
  'sessions',
  'reserve_mem',
  'region_contents',
  'flbs',
  'kho_test',
  'previous_release',
  'liveupdate_number',
  'finish',
] as const
/** Of a report: how it came about, or what follows from the rest. */
const PASSED_OVER = [
  SCHEMA,
  'kernel',
  'ending',
  'outcome',
  'handover',
  'refused',
  'warnings',
  'oopses',
  'panic',
  'no_root',
  'device_errno',
  'differences',
  'guest',
] as const

type Fields<K extends string> = Readonly<Partial<Record<K, unknown>>>
type Part<K extends string, T> = Partial<Record<K, T>>

interface Span {
  readonly from: bigint
  readonly to: bigint
}

const U64: Span = { from: 0n, to: (1n << 64n) - 1n }
const U32: Span = { from: 0n, to: (1n << 32n) - 1n }
const LOFF_T: Span = { from: -(1n << 63n), to: (1n << 63n) - 1n }
const ERRNOS: Span = { from: 0n, to: BigInt(MAX_ERRNO) }

export function readExpectation(path: string): Expectation {
  return new ExpectationReader(path).read()
}

class ExpectationReader {
  readonly #path: string

  constructor(path: string) {
    this.#path = path
  }

  read(): Expectation {
    const root = this.#fields(this.#parsed(), 'the document', [...COMPARED, ...PASSED_OVER])
    const sessions = this.#list(root.sessions, 'sessions').map((each, index) =>
      this.#session(each, `sessions[${index}]`),
    )
    const regions = this.#list(root.reserve_mem, 'reserve_mem').map((each, index) =>
      this.#regionName(each, `reserve_mem[${index}]`),
    )
    const contents = this.#list(root.region_contents, 'region_contents').flatMap((each, index) =>
      this.#region(each, `region_contents[${index}]`),
    )
    return {
      sessions,
      regions,
      // A report's guest looks at regions that did not come back, too.
      regionContents:
        root[SCHEMA] === undefined ? contents : contents.filter(({ name }) => regions.includes(name)),
      flbs: this.#list(root.flbs, 'flbs').map((each, index) => this.#text(each, `flbs[${index}]`)),
      ...this.#part('khoTest', root.kho_test, (value) => this.#truth(value, 'kho_test')),
      ...this.#part('previousRelease', root.previous_release, (value) =>
        this.#text(value, 'previous_release'),
      ),
      ...this.#part('liveupdateNumber', root.liveupdate_number, (value) =>
        this.#integer(value, 'liveupdate_number', U64),
      ),
      finish:
        root.finish === undefined
          ? sessions.some(({ finishErrno }) => finishErrno !== undefined)
          : this.#truth(root.finish, 'finish'),
    }
  }

  #session(value: unknown, where: string): ExpectedSession {
    const read = this.#fields(value, where, ['name', 'name_hex', 'files', 'errno', 'finish_errno'])
    return {
      name: this.#sessionName(read, where),
      files: this.#list(read.files, `${where}.files`).map((each, index) =>
        this.#file(each, `${where}.files[${index}]`),
      ),
      ...this.#part('errno', read.errno, (each) => this.#errno(each, `${where}.errno`)),
      ...this.#part('finishErrno', read.finish_errno, (each) => this.#errno(each, `${where}.finish_errno`)),
    }
  }

  /** In hex. A report has both forms, of which the text is what the bytes read as. */
  #sessionName({ name, name_hex }: Fields<'name' | 'name_hex'>, where: string): string {
    const bytes =
      name_hex === undefined
        ? Buffer.from(this.#text(name, `${where}.name`))
        : this.#bytes(name_hex, `${where}.name_hex`)
    if (name_hex !== undefined && name !== undefined && name !== decodeText(bytes)) {
      throw this.#wrong(`${where}.name`, `what name_hex says, '${decodeText(bytes)}', or one of both`, name)
    }
    this.#fits(bytes, LIVEUPDATE_SESSION_NAME_LENGTH, `${where}.name`)
    return bytes.toString('hex')
  }

  #file(value: unknown, where: string): ExpectedFile {
    const known = ['token', 'size', 'pos', 'seals', 'sum', 'errno'] as const
    const { token, size, pos, seals, sum, errno } = this.#fields(value, where, known)
    return {
      token: this.#integer(token, `${where}.token`, U64),
      ...this.#part('errno', errno, (each) => this.#errno(each, `${where}.errno`)),
      ...this.#part('size', size, (each) => this.#integer(each, `${where}.size`, U64)),
      ...this.#part('pos', pos, (each) => this.#integer(each, `${where}.pos`, LOFF_T)),
      ...this.#part('seals', seals, (each) => Number(this.#integer(each, `${where}.seals`, U32))),
      ...this.#part('sum', sum, (each) => this.#sum(each, `${where}.sum`)),
    }
  }

  /** One that its guest could not read is not asked for again. */
  #region(value: unknown, where: string): readonly ExpectedRegion[] {
    const known = ['name', 'address', 'size', 'sum', 'errno'] as const
    const { name, address, size, sum, errno = 0 } = this.#fields(value, where, known)
    if (this.#errno(errno, `${where}.errno`) !== 0) return []
    return [
      {
        name: this.#regionName(name, `${where}.name`),
        address: this.#integer(address, `${where}.address`, U64),
        size: this.#integer(size, `${where}.size`, U64),
        ...this.#part('sum', sum, (each) => this.#sum(each, `${where}.sum`)),
      },
    ]
  }

  #regionName(value: unknown, where: string): string {
    const name = this.#text(value, where)
    this.#fits(Buffer.from(name), RESERVE_MEM_NAME_SIZE, where)
    return name
  }

  /** `length` counts the NUL. */
  #fits(bytes: Uint8Array, length: number, where: string): void {
    if (bytes.length >= length)
      throw this.#wrong(where, `at most ${length - 1} bytes`, `${bytes.length} bytes`)
  }

  /** What is left out, or null in a report, says nothing. */
  #part<K extends string, T>(key: K, value: unknown, read: (value: unknown) => T): Part<K, T> {
    return value === undefined || value === null ? {} : ({ [key]: read(value) } as Part<K, T>)
  }

  #fields<K extends string>(value: unknown, where: string, known: readonly K[]): Fields<K> {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw this.#wrong(where, 'an object', value)
    }
    const unknown = Object.keys(value).find((key) => !(known as readonly string[]).includes(key))
    if (unknown !== undefined) throw this.#wrong(where, `one of ${known.join(', ')}`, unknown)
    return value as Fields<K>
  }

  #list(value: unknown, where: string): readonly unknown[] {
    if (value === undefined) return []
    if (!Array.isArray(value)) throw this.#wrong(where, 'a list', value)
    return value
  }

  #text(value: unknown, where: string): string {
    if (typeof value !== 'string') throw this.#wrong(where, 'a text', value)
    return value
  }

  #bytes(value: unknown, where: string): Buffer {
    const hex = this.#text(value, where)
    if (!/^([0-9a-f]{2})*$/i.test(hex)) throw this.#wrong(where, 'bytes in hex', hex)
    return Buffer.from(hex, 'hex')
  }

  #truth(value: unknown, where: string): boolean {
    if (typeof value !== 'boolean') throw this.#wrong(where, 'true or false', value)
    return value
  }

  #errno(value: unknown, where: string): number {
    return Number(this.#integer(value, where, ERRNOS))
  }

  #integer(value: unknown, where: string, { from, to }: Span): bigint {
    const isExact = typeof value === 'number' && Number.isSafeInteger(value)
    const isText = typeof value === 'string' && /^(0x[0-9a-f]{1,16}|-?\d{1,20})$/i.test(value)
    if (!isExact && !isText) throw this.#wrong(where, 'an integer, or one as text', value)
    const integer = BigInt(value)
    if (integer < from || integer > to) throw this.#wrong(where, `an integer from ${from} to ${to}`, value)
    return integer
  }

  #sum(value: unknown, where: string): bigint {
    const text = this.#text(value, where)
    if (!/^[0-9a-f]{1,16}$/i.test(text)) throw this.#wrong(where, 'up to 16 hex digits', text)
    return BigInt(`0x${text}`)
  }

  #parsed(): unknown {
    try {
      return JSON.parse(readFileSync(this.#path, 'utf8'))
    } catch (error) {
      throw new UsageError(`${this.#path}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  #wrong(where: string, expected: string, found: unknown): UsageError {
    const shown = JSON.stringify(found) ?? 'nothing'
    return new UsageError(`${this.#path}: ${where}: expected ${expected}; found ${shown}`)
  }
}
