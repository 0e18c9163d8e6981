/**
 * Open files and a process's table of descriptors.
 *
 * Source: include/linux/fs.h: struct file; fs/file.c: get_unused_fd_flags(), fd_install(), fget().
 */
import { type Answer, Failure } from './answer.ts'
import type { ShmemInode } from './shmem.ts'

export type Whence = 'SEEK_SET' | 'SEEK_CUR' | 'SEEK_END' | 'SEEK_DATA' | 'SEEK_HOLE'

/** struct file_operations, as far as it matters here; those of tmpfs are the inode's. */
export interface FileOperations {
  /** The last reference is gone. The kernel ignores what release() returns. */
  release?(): void
  /** `unlocked_ioctl`: the caller's memory is read and written in place. */
  ioctl?(request: number, argument: Uint8Array, files: FileTable): Answer
  /** Without them EINVAL, as for bytes at no position: of these files none keeps any. */
  read?(): Answer<Uint8Array>
  write?(bytes: Uint8Array): Answer<number>
  /** Where the file then stands; without it ESPIPE. */
  llseek?(file: File, offset: bigint, whence: Whence): Answer<bigint>
}

/** What fstat() tells. `ino` is 0 for what is in no tmpfs. */
export interface FileStatus {
  readonly ino: number
  readonly mode: number
  readonly nlink: number
  readonly size: bigint
  readonly blocks: bigint
}

export interface OpenHow {
  readonly writable: boolean
}

/** What a descriptor leads to that is no file of tmpfs: a device, a directory, an inode without a name. */
export interface Node {
  status(): FileStatus
  /** Opens it once more. */
  open?(how: OpenHow): Answer<File>
}

/** Inode of what was never opened by a name and cannot be: anon_inode_getfile(). */
const anonymous: Node = {
  status: () => ({ ino: 0, mode: 0o600, nlink: 1, size: 0n, blocks: 0n }),
}

interface FileOptions {
  /** The regular file of tmpfs behind it, a memfd's included. */
  readonly inode?: ShmemInode
  /** What else is. */
  readonly node?: Node
  /** O_PATH: names a file without opening it; no operation works on it. */
  readonly path?: boolean
  readonly writable?: boolean
}

/** struct file: open until its last reference is dropped. */
export class File {
  readonly operations: FileOperations
  readonly inode: ShmemInode | undefined
  /** What is behind it where that is no file of tmpfs. */
  readonly node: Node
  readonly path: boolean
  readonly writable: boolean
  /** f_pos */
  position = 0n
  #refs = 1

  constructor(operations: FileOperations, options: FileOptions = {}) {
    this.operations = operations
    this.inode = options.inode
    this.node = options.node ?? anonymous
    this.path = options.path ?? false
    this.writable = options.writable ?? true
    this.inode?.opened()
  }

  get refs(): number {
    return this.#refs
  }

  /** FMODE_PREAD, FMODE_PWRITE */
  get hasPositions(): boolean {
    return this.inode !== undefined || this.node.open !== undefined
  }

  /** get_file() */
  get(): this {
    this.#refs++
    return this
  }

  /** fput() */
  put(): void {
    this.#refs--
    if (this.#refs > 0) return
    this.operations.release?.()
    this.inode?.closed()
  }
}

/** RLIMIT_NOFILE of a process that did not raise it. */
const DEFAULT_LIMIT = 1024
/** Descriptors 0 to 2 are taken by the console. */
const FIRST_FREE = 3

/** struct files_struct: the lowest free number is given out. */
export class FileTable {
  /** RLIMIT_NOFILE */
  limit = DEFAULT_LIMIT
  readonly #files = new Map<number, File | undefined>()
  #lowest = FIRST_FREE

  /** Open descriptors. */
  get size(): number {
    return this.#files.size
  }

  /** get_unused_fd_flags(): a number that is taken, but not yet open. */
  reserve(): Answer<number> {
    while (this.#files.has(this.#lowest)) this.#lowest++
    if (this.#lowest >= this.limit) return new Failure('EMFILE')
    this.#files.set(this.#lowest, undefined)
    return this.#lowest
  }

  /** put_unused_fd() */
  unreserve(fd: number): void {
    this.#files.delete(fd)
    this.#lowest = Math.min(this.#lowest, fd)
  }

  /** fd_install(): the table takes over the reference. */
  install(fd: number, file: File): void {
    this.#files.set(fd, file)
  }

  /** The file of a descriptor, without a reference; O_PATH descriptors have one, too. */
  find(fd: number): File | undefined {
    return this.#files.get(fd)
  }

  /** fget(): with a reference; undefined for O_PATH. */
  fget(fd: number): File | undefined {
    const file = this.find(fd)
    return file && !file.path ? file.get() : undefined
  }

  close(fd: number): Answer {
    const file = this.find(fd)
    if (!file) return new Failure('EBADF')
    this.unreserve(fd)
    file.put()
  }
}
