/**
 * /dev/liveupdate: its ioctls and their structs, for the simulator and the comparison with a kernel's BTF.
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

/** LIVEUPDATE_IOCTL_TYPE */
export const LIVEUPDATE_IOCTL_TYPE = 0xba
/** LIVEUPDATE_CMD_BASE and LIVEUPDATE_CMD_SESSION_BASE: the first number on the device, and on a session. */
export const LIVEUPDATE_CMD_BASE = 0x00
export const LIVEUPDATE_CMD_SESSION_BASE = 0x40

/** Which sessions an ioctl is for: LUO_IOCTL_INCOMING, LUO_IOCTL_OUTGOING, LUO_IOCTL_ALL. */
export type SessionSide = 'incoming' | 'outgoing' | 'all'

export interface LiveupdateIoctl {
  readonly name: string
  /** _IO(LIVEUPDATE_IOCTL_TYPE, n): no direction, no size. */
  readonly request: number
  readonly struct: StructType
  /** Field up to whose end the caller must know the struct. */
  readonly last: string
  /** On a session; undefined on the device itself. */
  readonly side?: SessionSide
  /** First release that has it. */
  readonly since: string
}

/** _IOC_NR() */
export function ioctlNumber(request: number): number {
  return request & 0xff
}

function io(nr: number): number {
  return (LIVEUPDATE_IOCTL_TYPE << 8) | nr
}

const CREATE_SESSION = LIVEUPDATE_CMD_BASE
const RETRIEVE_SESSION = LIVEUPDATE_CMD_BASE + 1
const PRESERVE_FD = LIVEUPDATE_CMD_SESSION_BASE
const RETRIEVE_FD = LIVEUPDATE_CMD_SESSION_BASE + 1
const FINISH = LIVEUPDATE_CMD_SESSION_BASE + 2
const GET_NAME = LIVEUPDATE_CMD_SESSION_BASE + 3

/** By the kernel's names, in the order of the header. */
export const liveupdateIoctls = {
  LIVEUPDATE_IOCTL_CREATE_SESSION: {
    name: 'LIVEUPDATE_IOCTL_CREATE_SESSION',
    request: io(CREATE_SESSION),
    struct: liveupdateIoctlCreateSession,
    last: 'name',
    since: 'linux-6.19',
  },
  LIVEUPDATE_IOCTL_RETRIEVE_SESSION: {
    name: 'LIVEUPDATE_IOCTL_RETRIEVE_SESSION',
    request: io(RETRIEVE_SESSION),
    struct: liveupdateIoctlRetrieveSession,
    last: 'name',
    since: 'linux-6.19',
  },
  LIVEUPDATE_SESSION_PRESERVE_FD: {
    name: 'LIVEUPDATE_SESSION_PRESERVE_FD',
    request: io(PRESERVE_FD),
    struct: liveupdateSessionPreserveFd,
    last: 'token',
    side: 'outgoing',
    since: 'linux-6.19',
  },
  LIVEUPDATE_SESSION_RETRIEVE_FD: {
    name: 'LIVEUPDATE_SESSION_RETRIEVE_FD',
    request: io(RETRIEVE_FD),
    struct: liveupdateSessionRetrieveFd,
    last: 'token',
    side: 'incoming',
    since: 'linux-6.19',
  },
  LIVEUPDATE_SESSION_FINISH: {
    name: 'LIVEUPDATE_SESSION_FINISH',
    request: io(FINISH),
    struct: liveupdateSessionFinish,
    last: 'reserved',
    side: 'incoming',
    since: 'linux-6.19',
  },
  LIVEUPDATE_SESSION_GET_NAME: {
    name: 'LIVEUPDATE_SESSION_GET_NAME',
    request: io(GET_NAME),
    struct: liveupdateSessionGetName,
    last: 'name',
    side: 'all',
    since: 'linux-7.2',
  },
} as const satisfies Readonly<Record<string, LiveupdateIoctl>>

/** The structs, in the order of the header. */
export const liveupdateUapi: readonly StructType[] = Object.values(liveupdateIoctls).map(
  ({ struct }) => struct,
)
