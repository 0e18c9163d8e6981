/**
 * The descriptors of a timeline's process by their names, the sessions and files that they stand for, and
 * what preserved files were like when the last kernel went.
 */
import { textLabel } from '../encode/text.ts'
import { canonicalName, fileName } from '../encode/timeline-step.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { File } from './file.ts'
import type { Userspace } from './userspace.ts'

/** A session, or a file that was preserved in it. */
interface Origin {
  readonly session: string
  readonly token?: bigint
}

export class NamedDescriptors {
  readonly #process: Userspace
  readonly #fds = new Map<string, number>()
  readonly #origins = new Map<string, Origin>()
  /** By session and token. */
  readonly #preserved = new Map<string, File>()

  constructor(process: Userspace) {
    this.#process = process
  }

  /** -1 where nothing has the name: what a program would pass on from a call that failed. */
  fd(name: string): number {
    return this.#fds.get(canonicalName(name)) ?? -1
  }

  file(name: string): Answer<File> {
    return this.#process.files.find(this.fd(name)) ?? new Failure('EBADF')
  }

  /** Gives what a call opened a name; a failure is passed on, and the name keeps what it has. */
  bind(name: string, fd: Answer<number>, origin?: Origin): Answer<number> {
    if (failed(fd)) return fd
    const key = canonicalName(name)
    this.#fds.set(key, fd)
    if (origin) this.#origins.set(key, origin)
    else this.#origins.delete(key)
    return fd
  }

  bindSession(name: string, session: string | Uint8Array, fd: Answer<number>): Answer<number> {
    return this.bind(name, fd, { session: textLabel(session) })
  }

  bindRetrieved(name: string, session: string, token: bigint, fd: Answer<number>): Answer<number> {
    const label = this.#origins.get(canonicalName(session))?.session
    return this.bind(name, fd, label === undefined ? undefined : { session: label, token })
  }

  /** Opens a file that does not come from a call. */
  open(name: string, file: File): Answer<number> {
    const fd = this.#process.files.reserve()
    if (!failed(fd)) this.#process.files.install(fd, file)
    return this.bind(name, fd)
  }

  close(name: string): Answer {
    const key = canonicalName(name)
    const answer = this.#process.close(this.fd(name))
    const origin = this.#origins.get(key)
    if (!failed(answer) && origin && origin.token === undefined) this.#forget(origin.session)
    this.#fds.delete(key)
    return answer
  }

  /** Remembers what a session preserves; gives the session's own name. */
  preserved(session: string, token: bigint, fd: number): string | undefined {
    const label = this.#origins.get(canonicalName(session))?.session
    const file = this.#process.files.find(fd)
    if (label !== undefined && file) this.#preserved.set(fileName(label, token), file)
    return label
  }

  /** Everything that is preserved now, by session and token. */
  get preservedFiles(): ReadonlyMap<string, File> {
    return this.#preserved
  }

  /** Session and token of a file that was retrieved under this name. */
  originOf(name: string): string | undefined {
    const origin = this.#origins.get(canonicalName(name))
    return origin?.token === undefined ? undefined : fileName(origin.session, origin.token)
  }

  #forget(session: string): void {
    for (const key of this.#preserved.keys()) if (key.startsWith(`${session}/`)) this.#preserved.delete(key)
  }
}
