/**
 * File handlers, and the files of one session through their life: preserved and frozen in one kernel,
 * retrieved and finished in the next.
 *
 * Source: kernel/liveupdate/luo_file.c (Linux 6.19.11, 7.1.13, 7.3.4).
 */
import type { KernelTraits } from '../abi/kernel-traits.ts'
import type { PhysAddr } from '../abi/memory.ts'
import { phys } from '../abi/memory.ts'
import type { StructType } from '../abi/schema.ts'
import { decodeText } from '../inspect/text.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { File, FileTable } from './file.ts'
import { KernelModule } from './kernel-module.ts'
import type { LuoContext } from './luo-context.ts'
import type { Flbs } from './luo-flb.ts'
import type { FileRecords } from './luo-records.ts'
import { clearStored, readStored, readText, textEquals, writeFields } from './stored.ts'

/** struct liveupdate_file_op_args */
export interface FileArguments {
  readonly handler: FileHandler
  /** 0: retrieve() was not called; 1: it gave the file; else its negative error number. */
  retrieve_status: number
  /** For retrieve(): to be set. */
  file: File | undefined
  /** The handle that goes to the next kernel. */
  serialized_data: bigint
  /** State at run time that is not preserved. */
  private_data: unknown
}

/** struct liveupdate_file_ops. `freeze` alone may answer a positive number, which counts as success. */
export interface FileOps {
  can_preserve(file: File): boolean
  preserve(args: FileArguments): Answer
  unpreserve(args: FileArguments): void
  freeze?(args: FileArguments): Answer | number
  unfreeze?(args: FileArguments): void
  retrieve(args: FileArguments): Answer
  can_finish?(args: FileArguments): boolean
  finish(args: FileArguments): void
  /** What makes a file the same file; itself, where there is none. */
  get_id?(file: File): object
}

/** struct liveupdate_file_handler */
export interface FileHandler {
  readonly compatible: string
  readonly ops: Partial<FileOps>
  readonly owner?: KernelModule
}

interface Registered {
  readonly handler: FileHandler
  readonly ops: FileOps
  readonly owner: KernelModule
}

/** What the sets of files of all sessions share. */
export class FileHandlers {
  readonly #context: LuoContext
  readonly #traits: KernelTraits
  readonly flbs: Flbs | undefined
  readonly #registered: Registered[] = []
  /** luo_preserved_files */
  readonly preserved = new Set<object>()

  constructor(context: LuoContext, traits: KernelTraits, flbs: Flbs | undefined) {
    this.#context = context
    this.#traits = traits
    this.flbs = flbs
  }

  /** liveupdate_register_file_handler() with live update enabled; `isQuiet`: there are no sessions. */
  register(handler: FileHandler, isQuiet: boolean): Answer {
    const { ops, owner = new KernelModule() } = handler
    if (!isComplete(ops)) return new Failure('EINVAL')
    if (!this.#traits.registersAnytime && !isQuiet) return new Failure('EBUSY')
    if (this.#registered.some((other) => other.handler.compatible === handler.compatible)) {
      this.#context.say('LUO_HANDLER_REGISTERED', handler.compatible)
      return new Failure('EEXIST')
    }
    if (!this.#traits.registersAnytime && !owner.tryGet()) return new Failure('EAGAIN')
    this.#registered.push({ handler, ops, owner })
  }

  /** liveupdate_unregister_file_handler() */
  unregister(handler: FileHandler, isQuiet: boolean): Answer {
    if (!this.#traits.registersAnytime && (!isQuiet || this.flbs?.hasLinks(handler)))
      return new Failure('EBUSY')
    const at = this.#registered.findIndex((other) => other.handler === handler)
    if (at < 0) return
    this.flbs?.unregisterAll(handler)
    const [gone] = this.#registered.splice(at, 1)
    if (!this.#traits.registersAnytime) gone?.owner.put()
  }

  isRegistered(handler: FileHandler): boolean {
    return this.#registered.some((other) => other.handler === handler)
  }

  /** The first handler that can preserve the file, with its module pinned where files do that. */
  forFile(file: File): Registered | undefined {
    return this.#pinned(this.#registered.find(({ ops }) => ops.can_preserve(file)))
  }

  /** The handler whose name stands in a record. */
  forName(at: PhysAddr): Registered | undefined {
    return this.#pinned(
      this.#registered.find(({ handler }) => textEquals(this.#context, at, handler.compatible)),
    )
  }

  release({ owner }: Registered): void {
    if (this.#traits.registersAnytime) owner.put()
  }

  #pinned(found: Registered | undefined): Registered | undefined {
    return found && (!this.#traits.registersAnytime || found.owner.tryGet()) ? found : undefined
  }
}

function isComplete(ops: Partial<FileOps>): ops is FileOps {
  return Boolean(ops.preserve && ops.unpreserve && ops.retrieve && ops.finish && ops.can_preserve)
}

/** struct luo_file */
interface LuoFile {
  readonly by: Registered
  readonly token: bigint
  file: File | undefined
  serializedData: bigint
  privateData: unknown
  retrieved: 0 | 1 | Failure
}

const SOURCE = 'kernel/liveupdate/luo_file.c'

/** struct luo_file_set */
export class FileSet {
  readonly #context: LuoContext
  readonly #traits: KernelTraits
  readonly #handlers: FileHandlers
  readonly #records: FileRecords
  readonly #files: LuoFile[] = []
  /** Files there should be; after a partial deserialization there are fewer. */
  #count = 0

  constructor(context: LuoContext, traits: KernelTraits, handlers: FileHandlers, records: FileRecords) {
    this.#context = context
    this.#traits = traits
    this.#handlers = handlers
    this.#records = records
  }

  get count(): number {
    return this.#count
  }

  /** What the next kernel will be told of a file; undefined for a token that is not there. */
  handleOf(token: bigint): bigint | undefined {
    return this.#files.find((file) => file.token === token)?.serializedData
  }

  /** luo_preserve_file() */
  preserve(token: bigint, fd: number, files: FileTable): Answer {
    if (this.#files.some((file) => file.token === token)) return new Failure('EEXIST')
    const admitted = this.#records.admit(this.#count + 1)
    if (failed(admitted)) return admitted
    const answer = this.#preserveOpen(token, files.fget(fd))
    if (!failed(answer)) return
    this.#records.shrink(this.#count)
    return answer
  }

  #preserveOpen(token: bigint, file: File | undefined): Answer {
    if (!file) return new Failure('EBADF')
    const answer = this.#preserveFile(token, file)
    if (failed(answer)) file.put()
    return answer
  }

  #preserveFile(token: bigint, file: File): Answer {
    const allocated = this.#records.allocate()
    if (failed(allocated)) return allocated
    const by = this.#handlers.forFile(file)
    const answer = by ? this.#preserveBy(by, token, file) : new Failure('ENOENT')
    if (failed(answer) && this.#count === 0) this.#records.release()
    return answer
  }

  #preserveBy(by: Registered, token: bigint, file: File): Answer {
    const known = this.#remember(by, file)
    const answer = failed(known) ? known : this.#preserveRemembered(by, token, file)
    if (failed(answer)) this.#handlers.release(by)
    return answer
  }

  #preserveRemembered(by: Registered, token: bigint, file: File): Answer {
    const flbs = this.#handlers.flbs?.filePreserve(by.handler)
    const answer = failed(flbs) ? flbs : this.#preserveBehindFlbs(by, token, file)
    if (failed(answer)) this.#forget(by, file)
    return answer
  }

  #preserveBehindFlbs(by: Registered, token: bigint, file: File): Answer {
    const object = this.#context.pages.allocObject()
    const answer = failed(object) ? object : this.#preserveLast(by, token, file)
    if (failed(answer)) this.#handlers.flbs?.fileUnpreserve(by.handler)
    return answer
  }

  #preserveLast(by: Registered, token: bigint, file: File): Answer {
    const fresh = { by, token, file, serializedData: 0n, privateData: undefined, retrieved: 0 } as const
    const args = this.#argumentsOf(fresh)
    const answer = by.ops.preserve(args)
    if (failed(answer)) return answer
    const { serialized_data: serializedData, private_data: privateData } = args
    this.#files.push({ ...fresh, serializedData, privateData })
    this.#count++
  }

  /** luo_file_unpreserve_files(): the last one first. */
  unpreserveAll(): void {
    for (let entry = this.#files.at(-1); entry; entry = this.#files.at(-1)) {
      entry.by.ops.unpreserve(this.#argumentsOf(entry))
      this.#handlers.flbs?.fileUnpreserve(entry.by.handler)
      if (entry.file) this.#forget(entry.by, entry.file)
      this.#handlers.release(entry.by)
      this.#files.pop()
      this.#count--
      this.#records.shrink(this.#count)
      entry.file?.put()
    }
    if (this.#count === 0) this.#records.release()
  }

  /** luo_file_freeze(): in the order of preservation; `ser` is the set's own record in its session's. */
  freeze(set: StructType, ser: PhysAddr): Answer {
    if (this.#count === 0) return
    const cursor = this.#records.cursor()
    for (const [index, entry] of this.#files.entries()) {
      const record = cursor.reserve()
      const answer = record === undefined ? this.#noRoom() : this.#freezeOne(entry)
      if (failed(answer) || record === undefined) {
        this.#unfreeze(index)
        return answer as Failure
      }
      writeFields(this.#context, this.#records.element, record, {
        compatible: new TextEncoder().encode(entry.by.handler.compatible),
        data: entry.serializedData,
        token: entry.token,
      })
    }
    writeFields(this.#context, set, ser, { count: this.#count, files: this.#records.head })
  }

  /** luo_file_unfreeze() */
  unfreeze(set: StructType, ser: PhysAddr): void {
    if (this.#count === 0) return
    this.#unfreeze(this.#files.length)
    clearStored(this.#context, set, ser)
  }

  /** luo_retrieve_file(): the file with a reference for the caller. */
  retrieve(token: bigint): Answer<File> {
    const entry = this.#files.find((file) => file.token === token)
    if (!entry) return new Failure('ENOENT')
    if (failed(entry.retrieved)) return entry.retrieved
    if (entry.retrieved === 1) return (entry.file as File).get()
    const args = this.#argumentsOf(entry)
    const answer = entry.by.ops.retrieve(args)
    if (failed(answer)) {
      if (this.#traits.keepsRetrieveError) entry.retrieved = answer
      return answer
    }
    const file = args.file as File
    entry.file = file.get()
    if (failed(this.#remember(entry.by, file))) this.#context.warn(SOURCE, 'luo_retrieve_file')
    entry.retrieved = 1
    return file
  }

  /** luo_file_finish(): all can, or nothing is done; the last one first. */
  finish(): Answer {
    if (this.#count === 0) return
    const refuses = (entry: LuoFile): boolean => entry.by.ops.can_finish?.(this.#argumentsOf(entry)) === false
    if (this.#files.some(refuses)) return new Failure('EBUSY')
    for (let entry = this.#files.at(-1); entry; entry = this.#files.at(-1)) {
      entry.by.ops.finish(this.#argumentsOf(entry))
      this.#handlers.flbs?.fileFinish(entry.by.handler)
      if (entry.file) {
        this.#forget(entry.by, entry.file)
        entry.file.put()
      }
      this.#handlers.release(entry.by)
      this.#files.pop()
      this.#count--
      this.#records.shrink(this.#count)
    }
    this.#records.giveBack()
  }

  /** luo_file_deserialize(): the list of files, none of them retrieved; what fails leaves what was done. */
  deserialize(set: StructType, ser: PhysAddr): Answer {
    const { files, count } = readStored(this.#context, set, ser)
    if (files === 0n) {
      if (count !== 0n) this.#context.warn(SOURCE, 'luo_file_deserialize')
      return
    }
    const entries = this.#records.incoming(phys(files as bigint), count as bigint)
    if (failed(entries)) return entries
    this.#count = this.#records.trustsCount ? Number(count as bigint) : 0
    for (const record of entries) {
      const answer = this.#deserializeOne(record)
      if (failed(answer)) return this.#undoDeserialize(answer)
      if (!this.#records.trustsCount) this.#count++
    }
    if (BigInt(this.#count) === count || this.#records.trustsCount) return
    this.#context.say('LUO_FILE_COUNT', count as bigint, this.#count)
    return this.#undoDeserialize(new Failure('EINVAL'))
  }

  /** luo_file_set_destroy() */
  destroy(): void {
    if (this.#count !== 0) this.#context.warn(SOURCE, 'luo_file_set_destroy')
    if (this.#files.length > 0) this.#context.warn(SOURCE, 'luo_file_set_destroy')
    if (!this.#records.isEmpty) this.#context.warn(SOURCE, 'luo_file_set_destroy')
  }

  #noRoom(): Failure {
    this.#context.warn(SOURCE, 'luo_file_freeze')
    return new Failure(this.#records.noRoom)
  }

  #freezeOne(entry: LuoFile): Answer {
    const args = this.#argumentsOf(entry)
    const answer = entry.by.ops.freeze?.(args)
    if (!failed(answer)) {
      if (!answer) entry.serializedData = args.serialized_data
      return
    }
    this.#context.say('LUO_FREEZE_FAILED', entry.token, entry.by.handler.compatible, answer.number)
    return answer
  }

  /** __luo_file_unfreeze(): the first `count` files, in the order of preservation. */
  #unfreeze(count: number): void {
    for (const entry of this.#files.slice(0, count)) entry.by.ops.unfreeze?.(this.#argumentsOf(entry))
    this.#records.clear()
  }

  #deserializeOne(record: PhysAddr): Answer {
    const by = this.#handlers.forName(record)
    const { compatible, data, token } = readStored(this.#context, this.#records.element, record)
    if (!by) {
      const room = (compatible as Uint8Array).length
      const name = decodeText(
        this.#traits.boundsNames ? (compatible as Uint8Array) : readText(this.#context, record),
      )
      this.#context.say('LUO_FILE_HANDLER', ...(this.#traits.boundsNames ? [room, name] : [name]))
      return new Failure('ENOENT')
    }
    const object = this.#context.pages.allocObject()
    if (failed(object)) {
      this.#handlers.release(by)
      return object
    }
    const unretrieved = { file: undefined, privateData: undefined, retrieved: 0 } as const
    this.#files.push({ by, token: token as bigint, serializedData: data as bigint, ...unretrieved })
  }

  /** From 7.2 on nothing stays of a set that cannot be read whole. */
  #undoDeserialize(failure: Failure): Failure {
    if (this.#records.trustsCount) return failure
    for (const { by } of this.#files) this.#handlers.release(by)
    this.#files.length = 0
    this.#count = 0
    this.#records.giveBack()
    return failure
  }

  #argumentsOf({ by, file, serializedData, privateData, retrieved }: LuoFile): FileArguments {
    return {
      handler: by.handler,
      retrieve_status: failed(retrieved) ? retrieved.number : retrieved,
      file,
      serialized_data: serializedData,
      private_data: privateData,
    }
  }

  /** xa_insert() into luo_preserved_files */
  #remember({ ops }: Registered, file: File): Answer {
    if (!this.#traits.knowsPreserved) return
    const id = ops.get_id?.(file) ?? file
    if (this.#handlers.preserved.has(id)) return new Failure('EBUSY')
    this.#handlers.preserved.add(id)
  }

  #forget({ ops }: Registered, file: File): void {
    this.#handlers.preserved.delete(ops.get_id?.(file) ?? file)
  }
}
