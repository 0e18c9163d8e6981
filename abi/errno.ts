/**
 * Error numbers that the kernel's live-update code answers with, the same on x86_64 and arm64.
 *
 * Source: include/uapi/asm-generic/errno-base.h and errno.h; ENOTSUPP is not among them on purpose.
 */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EISDIR: 21,
  EINVAL: 22,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EPIPE: 32,
  ERANGE: 34,
  ENODATA: 61,
  EOVERFLOW: 75,
  EOPNOTSUPP: 95,
} as const

/** Errors are numbers up to this one; include/linux/err.h. */
export const MAX_ERRNO = 4095

export type Errno = keyof typeof ERRNO
