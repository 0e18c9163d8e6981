/**
 * What userspace passes to the system calls on tmpfs files and memfds.
 *
 * Source: include/uapi/linux/memfd.h, falloc.h, stat.h.
 */

/** MFD_* of memfd_create(). */
export const memfdCreateFlags = {
  CLOEXEC: 0x01,
  ALLOW_SEALING: 0x02,
  HUGETLB: 0x04,
  NOEXEC_SEAL: 0x08,
  EXEC: 0x10,
} as const

/** FALLOC_FL_* of fallocate(). */
export const fallocateFlags = {
  KEEP_SIZE: 0x01,
  PUNCH_HOLE: 0x02,
  COLLAPSE_RANGE: 0x08,
  ZERO_RANGE: 0x10,
  INSERT_RANGE: 0x20,
  UNSHARE_RANGE: 0x40,
  WRITE_ZEROES: 0x80,
} as const

/** Of a file's mode: what kind of file it is. */
export const S_IFREG = 0o100000
export const S_IFDIR = 0o040000
export const S_IFCHR = 0o020000
/** Of a directory: who may write to it removes only files of their own. */
export const S_ISVTX = 0o1000

/** BOGO_DIRENT_SIZE: bytes by which each entry makes a directory of tmpfs larger. */
export const BOGO_DIRENT_SIZE = 20

/** Bytes of a memfd's name: NAME_MAX without `memfd:`. */
export const MFD_NAME_MAX_LEN = 249
