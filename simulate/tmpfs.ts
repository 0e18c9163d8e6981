/**
 * The mounts of shmem: a tmpfs with named files, and memfds, which have no names.
 *
 * Source: mm/memfd.c: memfd_create(), memfd_alloc_file(); mm/shmem.c: shmem_file_setup(), shmem_unlink().
 */
import { memfdSeals } from '../abi/memfd.ts'
import { BOGO_DIRENT_SIZE, MFD_NAME_MAX_LEN, memfdCreateFlags } from '../abi/shmem.ts'
import { type Answer, Failure } from './answer.ts'
import { File } from './file.ts'
import { ShmemInode, type ShmemMount } from './shmem.ts'
import { directory } from './special-files.ts'

const ALL_FLAGS = Object.values(memfdCreateFlags).reduce((all, flag) => all | flag, 0)
const MEMFD_PERMISSIONS = 0o777
const EXEC_BITS = 0o111

export class Tmpfs {
  readonly #mount: ShmemMount
  readonly #named = new Map<string, ShmemInode>()
  #lastNumber = 0
  /** Its root; `.` and `..` count. */
  readonly root = directory(() => BigInt((this.#named.size + 2) * BOGO_DIRENT_SIZE))

  constructor(mount: ShmemMount) {
    this.#mount = mount
  }

  /** memfd_create(), what comes before a descriptor is taken: sanitize_flags(), alloc_name(). */
  checkMemfd(name: string, flags: number): Answer {
    const both = memfdCreateFlags.EXEC | memfdCreateFlags.NOEXEC_SEAL
    if ((flags & ~ALL_FLAGS) !== 0 || (flags & both) === both) return new Failure('EINVAL')
    if (new TextEncoder().encode(name).length > MFD_NAME_MAX_LEN) return new Failure('EINVAL')
  }

  /** memfd_create(), what comes then. */
  memfdCreate(flags: number): File {
    return (flags & memfdCreateFlags.HUGETLB) === 0 ? this.memfdFile(flags) : new File({})
  }

  /** memfd_alloc_file(), where no huge pages are asked for. */
  memfdFile(flags: number): File {
    const inode = this.#inode(MEMFD_PERMISSIONS, 0)
    if ((flags & memfdCreateFlags.NOEXEC_SEAL) !== 0) {
      inode.mode &= ~EXEC_BITS
      inode.seals = (inode.seals & ~memfdSeals.SEAL) | memfdSeals.EXEC
    } else if ((flags & memfdCreateFlags.ALLOW_SEALING) !== 0) {
      inode.seals &= ~memfdSeals.SEAL
    }
    return new File({}, { inode })
  }

  /** A named file; `create` are the permissions of a new one. */
  lookUp(path: string, create: number | undefined): Answer<ShmemInode> {
    const inode = this.#named.get(path) ?? (create === undefined ? undefined : this.#create(path, create))
    return inode ?? new Failure('ENOENT')
  }

  /** unlink(): an open file lives on without its name. */
  unlink(path: string): Answer {
    const inode = this.#named.get(path)
    if (!inode) return new Failure('ENOENT')
    this.#named.delete(path)
    inode.unlinked()
  }

  #create(path: string, permissions: number): ShmemInode {
    const inode = this.#inode(permissions, 1)
    this.#named.set(path, inode)
    return inode
  }

  #inode(permissions: number, links: number): ShmemInode {
    this.#lastNumber++
    return new ShmemInode(this.#mount, this.#lastNumber, permissions, links)
  }
}
