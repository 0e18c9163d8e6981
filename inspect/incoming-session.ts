/**
 * Sessions and their files as luo_session_deserialize() and luo_file_deserialize() read them at the first
 * open of /dev/liveupdate, and what comes back when userspace retrieves everything.
 *
 * Mirrors kernel/liveupdate/luo_session.c and luo_file.c of Linux 6.19.11, 7.1.13 and 7.3.4.
 */
import { ERRNO } from '../abi/errno.ts'
import { formatPath } from '../abi/fault.ts'
import { fieldOf } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import type { ArrayEdge, BlocksEdge, StructType } from '../abi/schema.ts'
import { type Place, within } from './faults.ts'
import type { Incoming, Pointer } from './incoming.ts'
import {
  type Entries,
  type Entry,
  lineFor,
  readArray,
  readBlocks,
  type SetPointer,
} from './incoming-entries.ts'
import { type IncomingFile, retrieveMemfds } from './incoming-memfd.ts'
import { partsBelow } from './incoming-unmet.ts'
import { beforeNul, decodeText } from './text.ts'

/** What the sessions come to. */
export interface IncomingSessions {
  readonly files: number
  /** Whether all files are among them that the old kernel preserved, as far as can be seen. */
  readonly known: boolean
}

interface SessionValue {
  readonly name: Uint8Array
  readonly file_set_ser?: { readonly files: bigint; readonly count: bigint }
}

interface FileValue {
  readonly compatible: Uint8Array
  readonly data: bigint
  readonly token: bigint
}

const SESSIONS = { at: 'luo_ser.sessions_pa', preserved: 'LUO_SESSIONS_PRESERVED', stage: 'luo' } as const
const FILES = { at: 'luo_file_set_ser.files', preserved: 'LUO_FILES_PRESERVED', stage: 'open' } as const

export function readSessions(incoming: Incoming, set: SetPointer | undefined, luo: Place): IncomingSessions {
  if (!set || (set.edge.kind === 'blocks' && set.target === 0n)) return { files: 0, known: true }
  const { edge, target, pointer } = set
  const list = within(luo, edge.as)
  const found =
    edge.kind === 'blocks'
      ? readBlocks(incoming, edge, target, list, pointer, SESSIONS)
      : readArray(incoming, edge, target, 0n, list, pointer, SESSIONS.preserved)
  if (found.end === 'refused') return { files: 0, known: false }
  return new Deserializer(incoming, edge, found).run()
}

class Deserializer {
  readonly #incoming: Incoming
  readonly #edge: ArrayEdge | BlocksEdge
  readonly #found: Entries
  readonly #names = new Map<string, number>()
  /** Sets of files by the page they start in, to see one that two sessions share. */
  readonly #sets = new Map<bigint, string>()
  readonly #files: IncomingFile[] = []
  #known: boolean

  constructor(incoming: Incoming, edge: ArrayEdge | BlocksEdge, found: Entries) {
    this.#incoming = incoming
    this.#edge = edge
    this.#found = found
    this.#known = found.end === 'complete'
  }

  run(): IncomingSessions {
    const { entries, overrun, place } = this.#found
    const keys = uniqueKeys(entries.map((entry) => decodeText(this.#session(entry).name)))
    for (const [index, entry] of entries.entries()) {
      this.#incoming.advance()
      const segment = keys[index] === undefined ? { index } : { index, key: keys[index] }
      if (!this.#readSession(entry, within(place, segment)))
        return { files: this.#files.length, known: false }
    }
    if (overrun) this.#incoming.report('LUO_ARRAY_COUNT', place, { ...overrun.remark, stage: 'open' })
    retrieveMemfds(this.#incoming, this.#files)
    const isPartial = ['LUO_ENTRY_BEYOND_COUNT', 'LUO_FILES_NULL', 'LUO_FILES_SHARED'].some(
      (rule) => this.#incoming.violations(rule).length > 0,
    )
    return { files: this.#files.length, known: this.#known && !isPartial }
  }

  #session(entry: Entry): SessionValue {
    return this.#incoming.decode(this.#edge.element, entry.bytes)
  }

  /** luo_session_deserialize_one(); false where the device cannot be opened any more. */
  #readSession(entry: Entry, place: Place): boolean {
    const session = this.#session(entry)
    const at = addressOf(this.#incoming, this.#edge.element, 'name', entry.pa)
    if (!this.#insert(session, entry, place, at)) return false
    const type = this.#edge.element.fields.file_set_ser
    if (type?.kind !== 'struct' || !session.file_set_ser) return true
    const base = addressOf(this.#incoming, this.#edge.element, 'file_set_ser', entry.pa)
    return this.#readFiles(type, session.file_set_ser, base, place, nameAsTaken(session.name))
  }

  /** luo_session_insert(): names as strscpy() leaves them, at most 63 bytes and a NUL. */
  #insert({ name }: SessionValue, entry: Entry, place: Place, pa: PhysAddr): boolean {
    const text = beforeNul(name).subarray(0, name.length - 1)
    const shown = nameAsTaken(name)
    const where = { pa, length: name.length, found: JSON.stringify(shown) }
    const key = text.join()
    const before = this.#names.get(key)
    if (before !== undefined) {
      const message = `session ${before} has the same name`
      this.#incoming.report('LUO_SESSION_NAME', place, { ...where, message, log: [shown, -ERRNO.EEXIST] })
      return false
    }
    this.#names.set(key, this.#names.size)
    if (!name.includes(0)) {
      const expected = `at most ${name.length - 1} bytes and a NUL`
      const message = 'the name has no end: the session comes back under its first bytes only'
      const affects = this.#filesOf(place)
      this.#incoming.report('LUO_SESSION_NAME_END', place, { ...where, message, expected, affects })
    }
    if (text.length === 0) this.#reportNameless(entry, place, where)
    return true
  }

  /** An empty slot that is counted is one session too many; one with files has lost its name. */
  #reportNameless(entry: Entry, place: Place, where: { pa: PhysAddr; length: number; found: string }): void {
    const isEmptySlot = entry.bytes.every((byte) => byte === 0)
    const message = isEmptySlot ? 'an empty entry is counted as a session' : 'the session has no name'
    this.#incoming.report('LUO_SESSION_NAME_EMPTY', place, {
      ...where,
      message,
      expected: 'a name',
      affects: this.#filesOf(place),
      ...(isEmptySlot && { outcome: 'takes-over' }),
    })
  }

  /** Files of a session that userspace cannot ask for. */
  #filesOf({ path }: Place): readonly string[] {
    return partsBelow(this.#incoming.subject, formatPath(path))
  }

  /** luo_file_deserialize(); false where its error is that of the device. */
  #readFiles(
    type: StructType,
    { files, count }: { readonly files: bigint; readonly count: bigint },
    base: PhysAddr,
    session: Place,
    name: string,
  ): boolean {
    const { edge, pointer, countPa } = this.#fileSet(type, base, session)
    if (!edge) return true
    if (files === 0n) {
      if (count !== 0n) this.#reportNoFiles(within(session, edge.as), countPa, count)
      return true
    }
    const list = within(session, edge.as)
    const found =
      edge.kind === 'blocks'
        ? readBlocks(this.#incoming, edge, files, list, pointer, { ...FILES, session: name })
        : readArray(this.#incoming, edge, files, count, list, pointer, FILES.preserved)
    if (found.end === 'refused') return false
    if (found.end === 'unknown') this.#known = false
    const handled = this.#addFiles(edge, found, name)
    if (handled === undefined) return this.#incoming.subject.traits.dropsErrors
    if (found.overrun)
      this.#incoming.report('LUO_ARRAY_COUNT', found.place, { ...found.overrun.remark, stage: 'open' })
    if (edge.kind === 'blocks' && found.end === 'complete' && BigInt(found.entries.length) !== count) {
      const message = 'the session counts other than its blocks'
      const told = { message, expected: `${count} files`, found: `${found.entries.length} files` }
      const log = [count, found.entries.length]
      this.#incoming.report('LUO_FILE_COUNT', found.place, {
        pa: countPa,
        length: 8,
        ...told,
        log,
        ...lineFor({ session: name }, 'EINVAL'),
      })
      return false
    }
    this.#keepFiles(edge, files, found, handled)
    return true
  }

  #fileSet(type: StructType, base: PhysAddr, session: Place) {
    const files = type.fields.files
    const edge =
      files?.kind === 'int' && (files.to?.kind === 'array' || files.to?.kind === 'blocks')
        ? files.to
        : undefined
    const pa = addressOf(this.#incoming, type, 'files', base)
    const countPa = addressOf(this.#incoming, type, 'count', base)
    const pointer: Pointer = { path: [...session.path, 'file_set_ser', 'files'], pa }
    return { edge, pointer, countPa }
  }

  #reportNoFiles(place: Place, pa: PhysAddr, count: bigint): void {
    const message = `${count} files are counted, and no address tells where they are`
    this.#incoming.report('LUO_FILES_NULL', place, {
      pa,
      length: 8,
      message,
      expected: 'an address',
      found: '0x0',
    })
  }

  /** Two sessions with the same blocks: the second gets files whose memory the first gave back. */
  #keepFiles(
    edge: ArrayEdge | BlocksEdge,
    files: bigint,
    { entries, place }: Entries,
    handled: readonly IncomingFile[],
  ): void {
    const before = this.#sets.get(files)
    this.#sets.set(files, formatPath(place.path))
    if (before === undefined) {
      for (const file of handled) this.#files.push(file)
      return
    }
    const message = `the ${edge.as} are those of ${before}`
    const hop = place.via.at(-1)
    const details = {
      pa: hop?.pa ?? phys(files),
      length: 8,
      message,
      expected: 'memory of its own',
      found: hex(files),
    }
    const affects = [...entries.keys()].map((index) => `${before}[${index}]`)
    this.#incoming.report('LUO_FILES_SHARED', place, { ...details, affects })
  }

  /** luo_file_deserialize_one() for each; undefined where one has no handler. */
  #addFiles(
    edge: ArrayEdge | BlocksEdge,
    { entries, place }: Entries,
    session: string,
  ): readonly IncomingFile[] | undefined {
    const values = entries.map(({ bytes }) => this.#incoming.decode<FileValue>(edge.element, bytes))
    const keys = uniqueKeys(values.map(({ token }) => hex(token)))
    const tokens = new Map<bigint, number>()
    const files: IncomingFile[] = []
    for (const [index, value] of values.entries()) {
      const key = keys[index]
      const at = within(place, key === undefined ? { index } : { index, key })
      const { pa } = entries[index] as Entry
      if (!this.#hasHandler(value, edge.element, pa, at, session)) {
        this.#reportRest(files.length, entries, place, keys)
        for (const file of files) this.#files.push(file)
        return undefined
      }
      const before = tokens.get(value.token)
      if (before !== undefined) this.#reportToken(value.token, before, edge.element, pa, at)
      else tokens.set(value.token, index)
      files.push({
        place: at,
        compatible: decodeText(value.compatible),
        data: value.data,
        pointer: { path: [...at.path, 'data'], pa: addressOf(this.#incoming, edge.element, 'data', pa) },
        isReachable: before === undefined,
      })
    }
    return files
  }

  #reportToken(token: bigint, before: number, element: StructType, pa: PhysAddr, place: Place): void {
    const message = `file ${before} of the session has the same token, and is the one that is found`
    const at = addressOf(this.#incoming, element, 'token', pa)
    const told = { message, expected: 'a token of its own', found: hex(token) }
    this.#incoming.report('LUO_TOKEN', place, { pa: at, length: 8, ...told })
  }

  #hasHandler(
    { compatible }: FileValue,
    element: StructType,
    pa: PhysAddr,
    place: Place,
    session: string,
  ): boolean {
    const { subject } = this.#incoming
    const found = decodeText(compatible)
    if (subject.kernel.fileHandlers.includes(found) && compatible.includes(0)) return true
    const isEmpty = compatible.every((byte) => byte === 0)
    const wholeText = subject.traits.boundsNames ? [compatible.length, found] : [found]
    this.#incoming.report('LUO_FILE_HANDLER', place, {
      pa: addressOf(this.#incoming, element, 'compatible', pa),
      length: compatible.length,
      message: isEmpty ? 'an empty entry is counted as a file' : `no handler is registered under '${found}'`,
      expected: subject.kernel.fileHandlers.join(', ') || 'a handler',
      found,
      log: wholeText,
      ...lineFor({ session }, 'ENOENT'),
      ...(isEmpty && subject.traits.dropsErrors && { outcome: 'takes-over' }),
    })
    return false
  }

  /** Before 7.0 the session goes on with the files in front of the one without a handler. */
  #reportRest(
    first: number,
    entries: readonly Entry[],
    place: Place,
    keys: readonly (string | undefined)[],
  ): void {
    if (!this.#incoming.subject.traits.dropsErrors) return
    for (let index = first + 1; index < entries.length; index++) {
      const { pa, bytes } = entries[index] as Entry
      if (bytes.every((byte) => byte === 0)) return
      const key = keys[index]
      const at = within(place, key === undefined ? { index } : { index, key })
      const message = 'a file in front of it has no handler, and the kernel leaves out the rest'
      this.#incoming.report('LUO_FILE_LEFT_OUT', at, { pa, length: bytes.length, message })
    }
  }
}

/** A name as strscpy() leaves it. */
function nameAsTaken(name: Uint8Array): string {
  return decodeText(name.subarray(0, name.length - 1))
}

function addressOf(incoming: Incoming, type: StructType, field: string, base: bigint): PhysAddr {
  return phys(base + BigInt(fieldOf(type, field, incoming.subject.target).offset))
}

/** Natural keys of a list's elements, where each names one alone. */
function uniqueKeys(keys: readonly string[]): readonly (string | undefined)[] {
  const uses = new Map<string, number>()
  for (const key of keys) uses.set(key, (uses.get(key) ?? 0) + 1)
  return keys.map((key) => (uses.get(key) === 1 ? key : undefined))
}
