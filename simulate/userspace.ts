/**
 * What a process of a simulated machine can do: the system calls on live update, memfds and tmpfs files,
 * with the kernel's answers; and the ioctls of /dev/liveupdate as calls of their own.
 *
 * Paths are `/dev/liveupdate`, `/dev/null`, the directory `/tmp`, which is a tmpfs, files in it, and
 * `/proc/self/fd/N` for whatever is open there.
 *
 * Sources: fs/open.c, fs/read_write.c, fs/stat.c.
 */
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
import { File, type FileStatus, FileTable, type Node, type Whence } from './file.ts'
import type { LiveupdateDevice } from './luo-device.ts'
import { ShmemInode } from './shmem.ts'
import { nullDevice } from './special-files.ts'
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
  /** O_PATH: what is there is named, not opened, and not created. */
  readonly path?: boolean
  /** O_RDONLY */
  readonly readOnly?: boolean
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
    const found = this.#regular(fd)
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
    const { inode, writable } = file
    if (!writable) return new Failure('EBADF')
    if (!inode) return new Failure('ENODEV')
    if (end > MAX_FILE_SIZE) return new Failure('EFBIG')
    if ((mode & ~(KEEP_SIZE | PUNCH_HOLE)) !== 0) return new Failure('EOPNOTSUPP')
    return this.#enter(() => inode.fallocate(mode, BigInt(offset), BigInt(length)))
  }

  pwrite(fd: number, bytes: Uint8Array, offset: bigint | number): Answer<number> {
    if (offset < 0) return new Failure('EINVAL')
    const file = this.#opened(fd)
    if (failed(file)) return file
    return file.hasPositions ? this.#write(file, bytes, BigInt(offset)) : new Failure('ESPIPE')
  }

  pread(fd: number, length: number, offset: bigint | number): Answer<Uint8Array> {
    if (offset < 0) return new Failure('EINVAL')
    const file = this.#opened(fd)
    if (failed(file)) return file
    return file.hasPositions ? this.#read(file, length, BigInt(offset)) : new Failure('ESPIPE')
  }

  /** At the file's position, which moves on where there is one. */
  write(fd: number, bytes: Uint8Array): Answer<number> {
    const file = this.#opened(fd)
    if (failed(file)) return file
    const answer = this.#write(file, bytes, file.position)
    if (file.inode && !failed(answer)) file.position += BigInt(answer)
    return answer
  }

  read(fd: number, length: number): Answer<Uint8Array> {
    const file = this.#opened(fd)
    if (failed(file)) return file
    const answer = this.#read(file, length, file.position)
    if (file.inode && !failed(answer)) file.position += BigInt(answer.length)
    return answer
  }

  lseek(fd: number, offset: bigint | number, whence: Whence = 'SEEK_SET'): Answer<bigint> {
    const file = this.#opened(fd)
    if (failed(file)) return file
    const { inode, operations } = file
    const position = this.#enter(() => {
      if (inode) return seekTarget(file, inode, BigInt(offset), whence)
      return operations.llseek?.(file, BigInt(offset), whence) ?? new Failure('ESPIPE')
    })
    if (failed(position)) return position
    if (position < 0n || position > MAX_FILE_SIZE) return new Failure('EINVAL')
    file.position = position
    return position
  }

  /** fcntl(F_ADD_SEALS) */
  addSeals(fd: number, seals: number): Answer {
    const file = this.#opened(fd)
    if (failed(file)) return file
    const { inode, writable } = file
    if (!writable) return new Failure('EPERM')
    return inode ? this.#enter(() => inode.addSeals(seals)) : new Failure('EINVAL')
  }

  /** fcntl(F_GET_SEALS) */
  getSeals(fd: number): Answer<number> {
    const found = this.#regular(fd)
    return failed(found) ? found : this.#enter(() => found.inode.seals)
  }

  /** Of an O_PATH descriptor, too. */
  fstat(fd: number): Answer<FileStatus> {
    const file = this.files.find(fd)
    if (!file) return new Failure('EBADF')
    const { inode, node } = file
    return this.#enter(() => {
      if (!inode) return node.status()
      const { number: ino, mode, links: nlink, size, blocks } = inode
      return { ino, mode, nlink, size, blocks }
    })
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

  #openFile(path: string, options: OpenOptions): Answer<File> {
    const found = this.#lookUp(path, options)
    if (failed(found)) return found
    const { path: isPath = false, readOnly = false } = options
    if (found instanceof ShmemInode) return new File({}, { inode: found, path: isPath, writable: !readOnly })
    if (isPath) return new File({}, { node: found, path: true })
    return found.open?.({ writable: !readOnly }) ?? new Failure('ENXIO')
  }

  /** What a path leads to. */
  #lookUp(path: string, options: OpenOptions): Answer<ShmemInode | Node> {
    const { device, tmpfs } = this.#kernel
    if (path === '/dev/liveupdate') return device ?? new Failure('ENOENT')
    if (path === '/dev/null') return nullDevice
    if (path === TMPFS) return tmpfs.root
    const [, fd] = /^\/proc\/self\/fd\/(\d+)$/.exec(path) ?? []
    if (fd !== undefined) {
      const file = this.files.find(Number(fd))
      return file ? (file.inode ?? file.node) : new Failure('ENOENT')
    }
    if (!path.startsWith(`${TMPFS}/`)) return new Failure('ENOENT')
    return tmpfs.lookUp(path, options.path ? undefined : options.create)
  }

  /** vfs_read() */
  #read({ inode, operations }: File, length: number, offset: bigint): Answer<Uint8Array> {
    if (wraps(offset, length)) return new Failure('EINVAL')
    return this.#enter(() =>
      inode ? inode.read(offset, length) : (operations.read?.() ?? new Failure('EINVAL')),
    )
  }

  /** vfs_write() */
  #write({ inode, operations, writable }: File, bytes: Uint8Array, offset: bigint): Answer<number> {
    if (!writable) return new Failure('EBADF')
    if (wraps(offset, bytes.length)) return new Failure('EINVAL')
    if (!inode) return this.#enter(() => operations.write?.(bytes) ?? new Failure('EINVAL'))
    if (bytes.length === 0) return 0
    if (offset >= MAX_FILE_SIZE) return new Failure('EFBIG')
    return this.#enter(() => inode.write(offset, bytes))
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

  /** An open file: O_PATH opens none. */
  #opened(fd: number): Answer<File> {
    const file = this.files.find(fd)
    return file && !file.path ? file : new Failure('EBADF')
  }

  /** The file of tmpfs behind a descriptor. */
  #regular(fd: number): Answer<{ readonly file: File; readonly inode: ShmemInode }> {
    const file = this.#opened(fd)
    if (failed(file)) return file
    return file.inode ? { file, inode: file.inode } : new Failure('EINVAL')
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
