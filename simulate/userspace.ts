/**
 * What a process of a simulated machine can do: the system calls on live update, memfds and tmpfs files,
 * with the kernel's answers; and the ioctls of /dev/liveupdate as calls of their own.
 *
 * Paths are `/dev/liveupdate`, `/dev/null`, the directory `/tmp`, which is a tmpfs, files in it, and
 * `/proc/self/fd/N` for a tmpfs file or memfd that is open.
 */
import type { Errno } from '../abi/errno.ts'
import type { Target } from '../abi/layout.ts'
import { type LiveupdateIoctl, liveupdateIoctls } from '../abi/liveupdate.ts'
import { LIVEUPDATE_SESSION_NAME_LENGTH } from '../abi/luo.ts'
import { MAX_FILE_SIZE } from '../abi/machine.ts'
import { fallocateFlags } from '../abi/shmem.ts'
import { encodeStruct, type FieldValue } from '../encode/write.ts'
import { decodeStruct } from '../inspect/record.ts'
import { beforeNul, decodeText } from '../inspect/text.ts'
import { type Answer, Failure, failed } from './answer.ts'
import { Blocked, unlessBlocked } from './blocked.ts'
import { File, FileTable } from './file.ts'
import type { LiveupdateDevice } from './luo-device.ts'
import type { ShmemInode } from './shmem.ts'
import type { Tmpfs } from './tmpfs.ts'

const TMPFS = '/tmp'

const { KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE, WRITE_ZEROES } =
  fallocateFlags
/** What vfs_fallocate() lets through to the file system: one mode, some with and some without KEEP_SIZE. */
const FALLOCATE_MODES = new Set([
  ...[0, UNSHARE_RANGE, ZERO_RANGE, COLLAPSE_RANGE, INSERT_RANGE, WRITE_ZEROES],
  ...[0, UNSHARE_RANGE, ZERO_RANGE, PUNCH_HOLE].map((mode) => mode | KEEP_SIZE),
])

export interface OpenOptions {
  /** O_CREAT with these permissions. */
  readonly create?: number
  /** O_PATH */
  readonly path?: boolean
  /** O_RDONLY */
  readonly readOnly?: boolean
}

export type Whence = 'SEEK_SET' | 'SEEK_CUR' | 'SEEK_END' | 'SEEK_DATA' | 'SEEK_HOLE'

export interface FileStatus {
  readonly ino: number
  readonly mode: number
  readonly nlink: number
  readonly size: bigint
  readonly blocks: bigint
}

/** What a process sees of its kernel. */
export interface UserspaceKernel {
  readonly target: Target
  readonly tmpfs: Tmpfs
  /** There only with live update on. */
  readonly device: LiveupdateDevice | undefined
  /** Runs the kernel's side of a call; undefined if that ended the kernel, or it is gone. */
  run<T>(inside: () => T): T | undefined
}

export class Userspace {
  readonly #kernel: UserspaceKernel
  /** The descriptors of the process. */
  readonly files = new FileTable()

  constructor(kernel: UserspaceKernel) {
    this.#kernel = kernel
  }

  open(path: string, options: OpenOptions = {}): Answer<number> {
    return this.#intoDescriptor(() => this.#openFile(path, options))
  }

  memfdCreate(name: string, flags = 0): Answer<number> {
    const refused = this.#enter(() => this.#kernel.tmpfs.checkMemfd(name, flags))
    return failed(refused) ? refused : this.#intoDescriptor(() => this.#kernel.tmpfs.memfdCreate(flags))
  }

  dup(fd: number): Answer<number> {
    const file = this.files.find(fd)
    return file ? this.#intoDescriptor(() => file.get()) : new Failure('EBADF')
  }

  close(fd: number): Answer {
    return this.#enter(() => this.files.close(fd))
  }

  unlink(path: string): Answer {
    return this.#enter(() => this.#kernel.tmpfs.unlink(path))
  }

  /** ioctl() with the caller's memory behind the pointer; an empty one is a pointer to nothing. */
  ioctl(fd: number, request: number, argument: Uint8Array): Answer {
    const file = this.files.fget(fd)
    if (!file) return new Failure('EBADF')
    const { ioctl } = file.operations
    return this.#enter(() => {
      const answer = ioctl ? ioctl(request, argument, this.files) : new Failure('ENOTTY')
      file.put()
      return answer
    })
  }

  ftruncate(fd: number, size: bigint | number): Answer {
    if (size < 0) return new Failure('EINVAL')
    const found = this.#regular(fd, 'EINVAL')
    if (failed(found)) return found
    if (!found.file.writable) return new Failure('EINVAL')
    return this.#enter(() => found.inode.setSize(BigInt(size)))
  }

  fallocate(fd: number, mode: number, offset: bigint | number, length: bigint | number): Answer {
    const end = BigInt(offset) + BigInt(length)
    const file = this.files.find(fd)
    if (!file || file.path) return new Failure('EBADF')
    if (offset < 0 || length <= 0) return new Failure('EINVAL')
    if (!FALLOCATE_MODES.has(mode)) return new Failure('EOPNOTSUPP')
    const found = this.#regular(fd, 'ENODEV')
    if (failed(found)) return found
    if (!found.file.writable) return new Failure('EBADF')
    if (end > MAX_FILE_SIZE) return new Failure('EFBIG')
    if ((mode & ~(KEEP_SIZE | PUNCH_HOLE)) !== 0) return new Failure('EOPNOTSUPP')
    return this.#enter(() => found.inode.fallocate(mode, BigInt(offset), BigInt(length)))
  }

  pwrite(fd: number, bytes: Uint8Array, offset: bigint | number): Answer<number> {
    if (offset < 0) return new Failure('EINVAL')
    const found = this.#regular(fd, 'ESPIPE')
    if (failed(found)) return found
    if (!found.file.writable) return new Failure('EBADF')
    if (wraps(offset, bytes.length)) return new Failure('EINVAL')
    if (bytes.length === 0) return 0
    if (BigInt(offset) >= MAX_FILE_SIZE) return new Failure('EFBIG')
    return this.#enter(() => found.inode.write(BigInt(offset), bytes))
  }

  pread(fd: number, length: number, offset: bigint | number): Answer<Uint8Array> {
    if (offset < 0) return new Failure('EINVAL')
    const found = this.#regular(fd, 'ESPIPE')
    if (failed(found)) return found
    if (wraps(offset, length)) return new Failure('EINVAL')
    return this.#enter(() => found.inode.read(BigInt(offset), length))
  }

  /** At the file's position, which moves on. */
  write(fd: number, bytes: Uint8Array): Answer<number> {
    const file = this.files.find(fd)
    const answer = this.pwrite(fd, bytes, file?.position ?? 0n)
    if (file && !failed(answer)) file.position += BigInt(answer)
    return answer
  }

  read(fd: number, length: number): Answer<Uint8Array> {
    const file = this.files.find(fd)
    const answer = this.pread(fd, length, file?.position ?? 0n)
    if (file && !failed(answer)) file.position += BigInt(answer.length)
    return answer
  }

  lseek(fd: number, offset: bigint | number, whence: Whence = 'SEEK_SET'): Answer<bigint> {
    const found = this.#regular(fd, 'ESPIPE')
    if (failed(found)) return found
    const { file, inode } = found
    const position = this.#enter(() => seekTarget(file, inode, BigInt(offset), whence))
    if (failed(position)) return position
    if (position < 0n || position > MAX_FILE_SIZE) return new Failure('EINVAL')
    file.position = position
    return position
  }

  /** fcntl(F_ADD_SEALS) */
  addSeals(fd: number, seals: number): Answer {
    const found = this.#regular(fd, 'EINVAL')
    if (failed(found)) return found
    if (!found.file.writable) return new Failure('EPERM')
    return this.#enter(() => found.inode.addSeals(seals))
  }

  /** fcntl(F_GET_SEALS) */
  getSeals(fd: number): Answer<number> {
    const found = this.#regular(fd, 'EINVAL')
    return failed(found) ? found : this.#enter(() => found.inode.seals)
  }

  fstat(fd: number): Answer<FileStatus> {
    const found = this.#regular(fd, 'EINVAL')
    if (failed(found)) return found
    const { number: ino, mode, links: nlink, size, blocks } = found.inode
    return this.#enter(() => ({ ino, mode, nlink, size, blocks }))
  }

  /** LIVEUPDATE_IOCTL_CREATE_SESSION */
  createSession(device: number, name: string | Uint8Array): Answer<number> {
    const command = liveupdateIoctls.LIVEUPDATE_IOCTL_CREATE_SESSION
    return this.#fdOf(this.#command(device, command, { fd: 0, name: nameField(name) }))
  }

  /** LIVEUPDATE_IOCTL_RETRIEVE_SESSION */
  retrieveSession(device: number, name: string | Uint8Array): Answer<number> {
    const command = liveupdateIoctls.LIVEUPDATE_IOCTL_RETRIEVE_SESSION
    return this.#fdOf(this.#command(device, command, { fd: 0, name: nameField(name) }))
  }

  /** LIVEUPDATE_SESSION_PRESERVE_FD */
  preserveFd(session: number, fd: number, token: bigint): Answer {
    const answer = this.#command(session, liveupdateIoctls.LIVEUPDATE_SESSION_PRESERVE_FD, { fd, token })
    return failed(answer) ? answer : undefined
  }

  /** LIVEUPDATE_SESSION_RETRIEVE_FD */
  retrieveFd(session: number, token: bigint): Answer<number> {
    const command = liveupdateIoctls.LIVEUPDATE_SESSION_RETRIEVE_FD
    return this.#fdOf(this.#command(session, command, { fd: -1, token }))
  }

  /** LIVEUPDATE_SESSION_FINISH */
  finish(session: number, reserved = 0): Answer {
    const answer = this.#command(session, liveupdateIoctls.LIVEUPDATE_SESSION_FINISH, { reserved })
    return failed(answer) ? answer : undefined
  }

  /** LIVEUPDATE_SESSION_GET_NAME */
  getName(session: number): Answer<string> {
    const values = { reserved: 0, name: nameField('') }
    const answer = this.#command(session, liveupdateIoctls.LIVEUPDATE_SESSION_GET_NAME, values)
    return failed(answer) ? answer : decodeText(beforeNul(answer.name as Uint8Array))
  }

  #openFile(path: string, { create, path: isPath = false, readOnly = false }: OpenOptions): Answer<File> {
    if (isPath) return new File({}, { path: true })
    if (path === '/dev/liveupdate') return this.#kernel.device?.open() ?? new Failure('ENOENT')
    if (path === '/dev/null' || path === TMPFS) return new File({})
    const [, fd] = /^\/proc\/self\/fd\/(\d+)$/.exec(path) ?? []
    if (fd !== undefined) return this.#reopen(Number(fd), !readOnly)
    if (!path.startsWith(`${TMPFS}/`)) return new Failure('ENOENT')
    return this.#kernel.tmpfs.open(path, create, { writable: !readOnly })
  }

  /** The file behind a descriptor once more, at its start and with rights of its own. */
  #reopen(fd: number, writable: boolean): Answer<File> {
    const file = this.files.find(fd)
    if (!file) return new Failure('ENOENT')
    return file.inode ? new File({}, { inode: file.inode, writable }) : new Failure('ENXIO')
  }

  #intoDescriptor(open: () => Answer<File>): Answer<number> {
    const fd = this.files.reserve()
    if (failed(fd)) return fd
    const file = this.#enter(open)
    if (failed(file)) {
      this.files.unreserve(fd)
      return file
    }
    this.files.install(fd, file)
    return fd
  }

  /** From a call that ends the kernel, and from one into a kernel that is gone, nobody comes back. */
  #enter<T>(inside: () => Answer<T>): Answer<T> {
    const done = this.#kernel.run(() => ({ answer: unlessBlocked(inside) }))
    return done ? done.answer : new Blocked('the kernel is gone')
  }

  /** The file of tmpfs behind a descriptor; `other` is answered for files of other kinds. */
  #regular(fd: number, other: Errno): Answer<{ readonly file: File; readonly inode: ShmemInode }> {
    const file = this.files.find(fd)
    if (!file || file.path) return new Failure('EBADF')
    return file.inode ? { file, inode: file.inode } : new Failure(other)
  }

  /** An ioctl with a struct of its exact size; gives the struct as the kernel left it. */
  #command(
    fd: number,
    { request, struct }: LiveupdateIoctl,
    values: Readonly<Record<string, FieldValue>>,
  ): Answer<Readonly<Record<string, unknown>>> {
    const { target } = this.#kernel
    const argument = encodeStruct(struct, { size: 0, ...values } as never, target)
    new DataView(argument.buffer).setUint32(0, argument.length, true)
    const answer = this.ioctl(fd, request, argument)
    return failed(answer) ? answer : decodeStruct(struct, argument, target)
  }

  #fdOf(answer: Answer<Readonly<Record<string, unknown>>>): Answer<number> {
    return failed(answer) ? answer : (answer.fd as number)
  }
}

/** rw_verify_area(): the end must be a position, too. */
function wraps(offset: bigint | number, length: number): boolean {
  return BigInt(offset) + BigInt(length) > MAX_FILE_SIZE
}

/** strncpy() into the name's field: cut without a NUL where it is too long. */
function nameField(name: string | Uint8Array): Uint8Array {
  const bytes = typeof name === 'string' ? new TextEncoder().encode(name) : name
  const field = new Uint8Array(LIVEUPDATE_SESSION_NAME_LENGTH)
  field.set(bytes.subarray(0, field.length))
  return field
}

function seekTarget(file: File, inode: ShmemInode, offset: bigint, whence: Whence): Answer<bigint> {
  switch (whence) {
    case 'SEEK_SET':
      return offset
    case 'SEEK_CUR':
      return file.position + offset
    case 'SEEK_END':
      return inode.size + offset
    case 'SEEK_DATA':
    case 'SEEK_HOLE':
      return inode.seek(offset, whence === 'SEEK_DATA')
  }
}
