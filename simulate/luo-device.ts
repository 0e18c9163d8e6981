/**
 * /dev/liveupdate and the descriptors of sessions: framing of the ioctls, and what each of them does.
 *
 * Source: kernel/liveupdate/luo_core.c, luo_session.c (Linux 6.19.11, 7.1.13, 7.3.4); copy_struct_from_user().
 */
import type { Target } from '../abi/layout.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import {
  ioctlNumber,
  LIVEUPDATE_CMD_BASE,
  LIVEUPDATE_CMD_SESSION_BASE,
  type LiveupdateIoctl,
  liveupdateIoctls,
  type SessionSide,
} from '../abi/liveupdate.ts'
import { releaseIndex } from '../abi/registry.ts'
import { encodeStruct, viewOf } from '../encode/write.ts'
import { decodeStruct } from '../inspect/record.ts'
import { type Answer, Failure, failed } from './answer.ts'
import {
  File,
  type FileOperations,
  type FileStatus,
  type FileTable,
  type Node,
  type OpenHow,
} from './file.ts'
import type { Luo } from './luo.ts'
import type { LuoSession } from './luo-session.ts'
import { deviceStatus } from './special-files.ts'

/** Fields of a command by name, as the kernel copied them in; what it changes is copied back. */
type Command = Record<string, number | bigint | Uint8Array>
type Execute = (command: Command, files: FileTable) => Answer

interface Operation extends LiveupdateIoctl {
  readonly execute: Execute
}

/** struct luo_device_state */
export class LiveupdateDevice implements Node {
  readonly #luo: Luo
  readonly #release: string
  readonly #target: Target
  readonly #operations: readonly Operation[]
  #inUse = false

  constructor(luo: Luo, release: string, target: Target) {
    this.#luo = luo
    this.#release = release
    this.#target = target
    const { LIVEUPDATE_IOCTL_CREATE_SESSION, LIVEUPDATE_IOCTL_RETRIEVE_SESSION } = liveupdateIoctls
    const { sessions } = luo
    this.#operations = [
      {
        ...LIVEUPDATE_IOCTL_CREATE_SESSION,
        execute: (command, files) => this.#openSession(command, files, (name) => sessions.create(name)),
      },
      {
        ...LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
        execute: (command, files) => this.#openSession(command, files, (name) => sessions.retrieve(name)),
      },
    ]
  }

  /** luo_open(): one at a time; the first one reads what the previous kernel left. */
  open({ writable }: OpenHow): Answer<File> {
    if (this.#inUse) return new Failure('EBUSY')
    if (failed(this.#luo.sessions.deserialize())) return new Failure('EIO')
    this.#inUse = true
    const ioctl: FileOperations['ioctl'] = (request, argument, files) =>
      runIoctl(this.#operations, LIVEUPDATE_CMD_BASE, this.#target, request, argument, files)
    const release = (): void => {
      this.#inUse = false
    }
    return new File({ ioctl, release }, { node: this, writable })
  }

  status(): FileStatus {
    return deviceStatus(0o600)
  }

  /** luo_ioctl_create_session(), luo_ioctl_retrieve_session() */
  #openSession(command: Command, files: FileTable, find: (name: Uint8Array) => Answer<LuoSession>): Answer {
    return intoDescriptor(command, files, () => {
      const session = find(command.name as Uint8Array)
      return failed(session) ? session : this.#sessionFile(session)
    })
  }

  /** luo_session_getfile() */
  #sessionFile(session: LuoSession): File {
    const operations = this.#sessionOperations(session)
    return new File({
      ioctl: (request, argument, files) => {
        const allowed = (side: SessionSide): boolean => this.#isRightSide(session, side)
        const base = LIVEUPDATE_CMD_SESSION_BASE
        return runIoctl(operations, base, this.#target, request, argument, files, allowed)
      },
      release: () => this.#luo.sessions.release(session),
    })
  }

  /** luo_ioctl_type_valid() */
  #isRightSide(session: LuoSession, side: SessionSide): boolean {
    if (!this.#luo.traits.checksSides || side === 'all') return true
    return session.retrieved === (side === 'incoming')
  }

  #sessionOperations(session: LuoSession): readonly Operation[] {
    const {
      LIVEUPDATE_SESSION_PRESERVE_FD,
      LIVEUPDATE_SESSION_RETRIEVE_FD,
      LIVEUPDATE_SESSION_FINISH,
      LIVEUPDATE_SESSION_GET_NAME,
    } = liveupdateIoctls
    const preserve: Execute = ({ token, fd }, files) =>
      session.files.preserve(token as bigint, fd as number, files)
    const retrieve: Execute = (command, files) =>
      intoDescriptor(command, files, () => session.files.retrieve(command.token as bigint))
    const finish: Execute = ({ reserved }) => {
      if (this.#luo.traits.checksReserved && reserved !== 0) return new Failure('EINVAL')
      return session.files.finish()
    }
    const getName: Execute = (command) => {
      if (command.reserved !== 0) return new Failure('EINVAL')
      const name = (command.name as Uint8Array).slice()
      name.set(session.name)
      name[session.name.length] = 0
      command.name = name
    }
    const operations: readonly Operation[] = [
      { ...LIVEUPDATE_SESSION_PRESERVE_FD, execute: preserve },
      { ...LIVEUPDATE_SESSION_RETRIEVE_FD, execute: retrieve },
      { ...LIVEUPDATE_SESSION_FINISH, execute: finish },
      { ...LIVEUPDATE_SESSION_GET_NAME, execute: getName },
    ]
    const index = releaseIndex(this.#release)
    const locked =
      (execute: Execute): Execute =>
      (command, files) => {
        this.#luo.sessions.checkLock()
        return execute(command, files)
      }
    return operations
      .filter(({ since }) => index >= releaseIndex(since))
      .map((operation) => ({ ...operation, execute: locked(operation.execute) }))
  }
}

/** A descriptor is taken before the work and given up if that fails. */
function intoDescriptor(command: Command, files: FileTable, open: () => Answer<File>): Answer {
  const fd = files.reserve()
  if (failed(fd)) return fd
  const file = open()
  if (failed(file)) {
    files.unreserve(fd)
    return file
  }
  command.fd = fd
  files.install(fd, file)
}

/** luo_ioctl(), luo_session_ioctl(): the checks in the kernel's order, then the operation. */
function runIoctl(
  operations: readonly Operation[],
  base: number,
  target: Target,
  request: number,
  argument: Uint8Array,
  files: FileTable,
  isRightSide: (side: SessionSide) => boolean = () => true,
): Answer {
  const operation = operations[ioctlNumber(request) - base]
  if (!operation) return new Failure('EINVAL')
  const userSize = argument.length < 4 ? undefined : viewOf(argument).getUint32(0, true)
  if (userSize === undefined) return new Failure('EFAULT')
  if (operation.request !== request) return new Failure('ENOTTY')
  if (operation.side && !isRightSide(operation.side)) return new Failure('EINVAL')
  const last = fieldOf(operation.struct, operation.last, target)
  if (userSize < last.offset + last.size) return new Failure('EINVAL')
  const bytes = copyFromUser(argument, userSize, layoutOf(operation.struct, target).size)
  if (failed(bytes)) return bytes
  const command = decodeStruct(operation.struct, bytes, target) as Command
  const answer = operation.execute(command, files)
  if (failed(answer)) return answer
  argument.set(encodeStruct(operation.struct, command, target).subarray(0, userSize))
}

/** copy_struct_from_user(): what the kernel does not know must be zero, what the user does not, is. */
function copyFromUser(argument: Uint8Array, userSize: number, size: number): Answer<Uint8Array> {
  if (argument.subarray(size, userSize).some((byte) => byte !== 0)) return new Failure('E2BIG')
  if (argument.length < userSize) return new Failure('EFAULT')
  const bytes = new Uint8Array(size)
  bytes.set(argument.subarray(0, Math.min(size, userSize)))
  return bytes
}
