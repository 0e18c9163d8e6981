/**
 * /dev/liveupdate: the structs of its ioctls, for the simulator and the comparison with a kernel's BTF.
 *
 * Source: include/uapi/linux/liveupdate.h.
 */
import { LIVEUPDATE_SESSION_NAME_LENGTH } from './luo.ts'
import type { StructType } from './schema.ts'
import { s32le, struct, text, u32le, u64le } from './schema.ts'

const source = 'include/uapi/linux/liveupdate.h'
const size = u32le('Bytes of this struct as the caller knows it.', { ctype: '__u32' })
const name = text(LIVEUPDATE_SESSION_NAME_LENGTH, 'Name of the session.')
const reserved = u32le('Must be 0.', { ctype: '__u32' })
const token = u64le("User's name for the file.", { show: 'hex', ctype: '__aligned_u64' })

export const liveupdateIoctlCreateSession = struct(
  'liveupdate_ioctl_create_session',
  { doc: 'LIVEUPDATE_IOCTL_CREATE_SESSION.', source },
  { size, fd: s32le('Descriptor of the new session, out.', { ctype: '__s32' }), name },
)

export const liveupdateIoctlRetrieveSession = struct(
  'liveupdate_ioctl_retrieve_session',
  { doc: 'LIVEUPDATE_IOCTL_RETRIEVE_SESSION.', source },
  { size, fd: s32le('Descriptor of the retrieved session, out.', { ctype: '__s32' }), name },
)

export const liveupdateSessionPreserveFd = struct(
  'liveupdate_session_preserve_fd',
  { doc: 'LIVEUPDATE_SESSION_PRESERVE_FD.', source },
  { size, fd: s32le('Descriptor of the file to preserve.', { ctype: '__s32' }), token },
)

export const liveupdateSessionRetrieveFd = struct(
  'liveupdate_session_retrieve_fd',
  { doc: 'LIVEUPDATE_SESSION_RETRIEVE_FD.', source },
  { size, fd: s32le('Descriptor of the retrieved file, out.', { ctype: '__s32' }), token },
)

export const liveupdateSessionFinish = struct(
  'liveupdate_session_finish',
  { doc: 'LIVEUPDATE_SESSION_FINISH.', source },
  { size, reserved },
)

export const liveupdateSessionGetName = struct(
  'liveupdate_session_get_name',
  { doc: 'LIVEUPDATE_SESSION_GET_NAME (7.2 and later).', source },
  { size, reserved, name },
)

/** All of them, in the order of the header. */
export const liveupdateUapi: readonly StructType[] = [
  liveupdateIoctlCreateSession,
  liveupdateIoctlRetrieveSession,
  liveupdateSessionPreserveFd,
  liveupdateSessionRetrieveFd,
  liveupdateSessionFinish,
  liveupdateSessionGetName,
]
