/**
 * What is no file of tmpfs: /dev/null, directories, and inodes without a name.
 *
 * Source: drivers/char/mem.c: null_fops; fs/libfs.c: simple_offset_dir_operations; fs/read_write.c.
 */
import { S_IFCHR, S_IFDIR, S_ISVTX } from '../abi/shmem.ts'
import { type Answer, Failure } from './answer.ts'
import { File, type FileOperations, type FileStatus, type Node, type OpenHow, type Whence } from './file.ts'

/** Of a node in /dev. */
export function deviceStatus(permissions: number): FileStatus {
  return { ino: 0, mode: S_IFCHR | permissions, nlink: 1, size: 0n, blocks: 0n }
}

const nullOperations: FileOperations = {
  read: () => new Uint8Array(0),
  write: (bytes) => bytes.length,
  llseek: () => 0n,
}

export const nullDevice: Node = {
  status: () => deviceStatus(0o666),
  open: ({ writable }) => new File(nullOperations, { node: nullDevice, writable }),
}

const directoryOperations: FileOperations = {
  read: () => new Failure('EISDIR'),
  llseek: seekDirectory,
}

/** A directory that anybody may write to; `size` says how large it is. */
export function directory(size: () => bigint): Node {
  const node: Node = {
    status: () => ({ ino: 0, mode: S_IFDIR | S_ISVTX | 0o777, nlink: 2, size: size(), blocks: 0n }),
    open: ({ writable }: OpenHow) =>
      writable ? new Failure('EISDIR') : new File(directoryOperations, { node, writable }),
  }
  return node
}

/** offset_dir_llseek() */
function seekDirectory(file: File, offset: bigint, whence: Whence): Answer<bigint> {
  const position = whence === 'SEEK_CUR' ? file.position + offset : offset
  const isKnown = whence === 'SEEK_CUR' || whence === 'SEEK_SET'
  return isKnown && position >= 0n ? position : new Failure('EINVAL')
}
