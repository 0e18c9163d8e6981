/**
 * LUO sessions: named sets of files, created in one kernel, retrieved and finished in the next.
 *
 * Source: kernel/liveupdate/luo_session.c (Linux 6.19.11, 7.1.13, 7.3.4).
 */

import { invariant } from '../abi/fault.ts'
import type { KernelTraits } from '../abi/kernel-traits.ts'
import { LIVEUPDATE_SESSION_NAME_LENGTH } from '../abi/luo.ts'
import type { PhysAddr } from '../abi/memory.ts'
import type { StructType } from '../abi/schema.ts'
import { beforeNul, decodeText } from '../inspect/text.ts'
import { type Answer, Failure, failed } from './answer.ts'
import { waitForEver } from './blocked.ts'
import type { LuoContext, LuoForm } from './luo-context.ts'
import { type FileHandlers, FileSet } from './luo-file.ts'
import { fileRecords, type IncomingSessions, type OutgoingSessions } from './luo-records.ts'
import { fieldAddress, readStored, readText, writeFields } from './stored.ts'

/** struct luo_session */
export class LuoSession {
  /** Bytes before the NUL. */
  readonly name: Uint8Array
  readonly files: FileSet
  /** It came from the previous kernel and was asked for. */
  retrieved = false

  constructor(name: Uint8Array, files: FileSet) {
    this.name = name
    this.files = files
  }

  /** The name for people. */
  get label(): string {
    return decodeText(this.name)
  }
}

const LAST = LIVEUPDATE_SESSION_NAME_LENGTH - 1

/** strscpy() out of a name's field: what stands before the NUL, cut where the NUL must go. */
function nameOf(field: Uint8Array): Uint8Array {
  return beforeNul(field).slice(0, LAST)
}

/** For comparison: one character for each byte. */
function keyOf(name: Uint8Array): string {
  return String.fromCharCode(...name)
}

/** struct luo_session_global */
export class Sessions {
  readonly #context: LuoContext
  readonly #traits: KernelTraits
  readonly #form: LuoForm
  readonly #handlers: FileHandlers
  readonly #set: StructType
  readonly outgoing = new Map<string, LuoSession>()
  readonly incoming = new Map<string, LuoSession>()
  #outgoingRecords: OutgoingSessions | undefined
  #incomingRecords: IncomingSessions | undefined
  #isDeserialized = false
  #savedError: Failure | undefined
  /** luo_session_serialize_rwsem is held for writing. */
  #locked = false

  constructor(context: LuoContext, traits: KernelTraits, form: LuoForm, handlers: FileHandlers) {
    this.#context = context
    this.#traits = traits
    this.#form = form
    this.#handlers = handlers
    const set = form.sessions.element.fields.file_set_ser
    invariant(set?.kind === 'struct', 'sessions hold a set of files')
    this.#set = set
  }

  setupOutgoing(records: OutgoingSessions): void {
    this.#outgoingRecords = records
  }

  setupIncoming(records: IncomingSessions): void {
    this.#incomingRecords = records
  }

  /** Whether the previous kernel left sessions that are not finished yet. */
  get hasIncoming(): boolean {
    if (this.#isDeserialized || !this.#incomingRecords) return this.incoming.size > 0
    for (const _record of this.#incomingRecords.records()) return true
    return false
  }

  /** luo_session_create() by the 64 bytes of the caller. */
  create(field: Uint8Array): Answer<LuoSession> {
    const length = beforeNul(field).length
    if (this.#traits.checksNames && (length === 0 || length > LAST)) return new Failure('EINVAL')
    const session = this.#allocate(field)
    if (failed(session)) return session
    this.checkLock()
    const records = this.#outgoingRecords
    invariant(records, 'the device is there only if the outgoing side is')
    const admitted = records.admit(this.outgoing.size + 1)
    const answer = failed(admitted) ? admitted : insert(this.outgoing, session)
    if (!failed(answer)) return session
    session.files.destroy()
    return answer
  }

  /** luo_session_retrieve() by the 64 bytes of the caller. */
  retrieve(field: Uint8Array): Answer<LuoSession> {
    this.checkLock()
    const session = this.incoming.get(keyOf(beforeNul(field)))
    if (!session) return new Failure('ENOENT')
    if (session.retrieved) return new Failure('EINVAL')
    session.retrieved = true
    return session
  }

  /** luo_session_release(): the last reference to the session's file is gone. */
  release(session: LuoSession): void {
    this.checkLock()
    if (session.retrieved) {
      if (failed(session.files.finish())) {
        this.#context.say('LUO_SESSION_RELEASE', session.label)
        return
      }
      this.incoming.delete(keyOf(session.name))
    } else {
      session.files.unpreserveAll()
      this.outgoing.delete(keyOf(session.name))
      this.#outgoingRecords?.shrink(this.outgoing.size)
    }
    session.files.destroy()
  }

  /** luo_session_deserialize(), at the first open of the device. */
  deserialize(): Answer {
    if (this.#isDeserialized) return this.#savedError
    this.#isDeserialized = true
    const records = this.#incomingRecords
    if (!records) return
    for (const record of records.records()) {
      const answer = this.#deserializeOne(records.element, record)
      if (!failed(answer)) continue
      records.giveBack(false)
      return answer
    }
    records.giveBack(true)
  }

  /** luo_session_serialize(): all sessions in the order of their creation, or none. */
  serialize(): Answer {
    const records = this.#outgoingRecords
    invariant(records, 'live update is enabled only if the outgoing side is there')
    this.checkLock()
    records.withdraw()
    const cursor = records.cursor()
    const done: LuoSession[] = []
    for (const session of this.outgoing.values()) {
      const record = cursor.reserve()
      const answer = record === undefined ? this.#noRoom() : this.#freeze(session, records.element, record)
      if (failed(answer) || record === undefined) {
        if (record !== undefined) cursor.previous()
        for (const frozen of done.toReversed()) this.#unfreeze(frozen, records.element, cursor.previous())
        return answer as Failure
      }
      done.push(session)
    }
    records.publish(this.outgoing.size)
    this.#locked = this.#traits.keepsLock
  }

  /** Who wants the lock for reading while it is held for writing waits for ever. */
  checkLock(): void {
    if (this.#locked) waitForEver('luo_session_serialize_rwsem')
  }

  /** luo_session_alloc() */
  #allocate(field: Uint8Array): Answer<LuoSession> {
    const object = this.#context.pages.allocObject()
    if (failed(object)) return object
    const records = fileRecords(this.#context, this.#form.files)
    return new LuoSession(nameOf(field), new FileSet(this.#context, this.#traits, this.#handlers, records))
  }

  #deserializeOne(element: StructType, record: PhysAddr): Answer {
    const { name } = readStored(this.#context, element, record)
    const session = this.#allocate(name as Uint8Array)
    if (failed(session)) return this.#noMemory(session, name as Uint8Array, element, record)
    const inserted = insert(this.incoming, session)
    if (failed(inserted)) {
      this.#context.say('LUO_SESSION_NAME', session.label, inserted.number)
      session.files.destroy()
      return this.#remember(inserted)
    }
    const set = fieldAddress(this.#context, element, 'file_set_ser', record)
    const answer = session.files.deserialize(this.#set, set)
    if (!failed(answer) || this.#traits.dropsErrors) return
    this.#context.say('LUO_SESSION_FILES', session.label, answer.number)
    return this.#remember(answer)
  }

  /** A session's object is not to be had: said, and in 6.19 forgotten. */
  #noMemory(failure: Failure, name: Uint8Array, element: StructType, record: PhysAddr): Failure {
    const at = fieldAddress(this.#context, element, 'name', record)
    const label = decodeText(this.#traits.boundsNames ? name : readText(this.#context, at))
    const room = this.#traits.boundsNames ? [name.length] : []
    this.#context.say('LUO_SESSION_ALLOCATION', ...room, label, failure.number)
    return this.#traits.dropsErrors ? failure : this.#remember(failure)
  }

  /** What every later open answers, too. */
  #remember(failure: Failure): Failure {
    this.#savedError = failure
    return failure
  }

  #noRoom(): Failure {
    this.#context.warn('kernel/liveupdate/luo_session.c', 'luo_session_serialize')
    return new Failure('ENOSPC')
  }

  #freeze(session: LuoSession, element: StructType, record: PhysAddr): Answer {
    const set = fieldAddress(this.#context, element, 'file_set_ser', record)
    const answer = session.files.freeze(this.#set, set)
    if (failed(answer)) return answer
    writeFields(this.#context, element, record, { name: session.name })
  }

  #unfreeze(session: LuoSession, element: StructType, record: PhysAddr | undefined): void {
    invariant(record !== undefined, 'a session that was frozen has a record')
    const set = fieldAddress(this.#context, element, 'file_set_ser', record)
    session.files.unfreeze(this.#set, set)
    const name = fieldAddress(this.#context, element, 'name', record)
    this.#context.ram.write(name, new Uint8Array(LIVEUPDATE_SESSION_NAME_LENGTH))
  }
}

/** luo_session_insert() behind the check for room. */
function insert(list: Map<string, LuoSession>, session: LuoSession): Answer {
  const key = keyOf(session.name)
  if (list.has(key)) return new Failure('EEXIST')
  list.set(key, session)
}
