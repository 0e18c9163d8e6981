/**
 * LUO, the live update orchestrator: sessions, the files preserved in them, and file-lifecycle-bound
 * objects (FLBs).
 *
 * luo-v1 is an FDT that points to arrays of fixed size; luo-v5 is a struct that points to chains of KHO
 * blocks. luo-v2 to luo-v4 existed inside the 7.2 merge window only. Source: include/linux/kho/abi/luo.h,
 * kernel/liveupdate/luo_{core,session,file,flb}.c.
 */
import { blocksOf } from './kho-block.ts'
import type { ArrayEdge, Edge, StructType } from './schema.ts'
import { compatible, fdtNode, packed, pointer, text, u64le } from './schema.ts'

const source = 'include/linux/kho/abi/luo.h'

/** LIVEUPDATE_SESSION_NAME_LENGTH, the NUL counted. */
export const LIVEUPDATE_SESSION_NAME_LENGTH = 64
/** LIVEUPDATE_HNDL_COMPAT_LENGTH and LIVEUPDATE_FLB_COMPAT_LENGTH, the NUL counted. */
export const LIVEUPDATE_HNDL_COMPAT_LENGTH = 48
export const LIVEUPDATE_FLB_COMPAT_LENGTH = 48
/** LUO_ABI_COMPAT_LEN */
export const LUO_ABI_COMPAT_LEN = 8
/** Units of pages: LUO_SESSION_PGCNT 16, LUO_FILE_PGCNT 2, LUO_FLB_PGCNT 1, as orders. */
const LUO_SESSION_ORDER = 4
const LUO_FILE_ORDER = 1
const LUO_FLB_ORDER = 0

export const luoFileSer = packed(
  'luo_file_ser',
  { doc: 'One preserved file of a session.', source },
  {
    compatible: text(LIVEUPDATE_HNDL_COMPAT_LENGTH, 'File handler that knows `data`.'),
    data: u64le("The handler's handle; for memfd the address of its record.", {
      show: 'hex',
      to: { kind: 'handler', by: 'compatible' },
    }),
    token: u64le("User's name for the file, unique within the session.", { show: 'hex' }),
  },
)

const fileArray: ArrayEdge = {
  kind: 'array',
  as: 'files',
  element: luoFileSer,
  count: 'count',
  order: LUO_FILE_ORDER,
  naturalKey: 'token',
}
const fileBlocks = blocksOf(luoFileSer, { as: 'files', naturalKey: 'token', total: 'count' })

function luoFileSetSer(files: Edge) {
  return packed(
    'luo_file_set_ser',
    { doc: 'The files of a session.', source },
    {
      files: pointer(files, 'Records of the files, 0 if there are none.', { ctype: 'u64' }),
      count: u64le('Number of files.'),
    },
  )
}

function luoSessionSer(files: Edge) {
  return packed(
    'luo_session_ser',
    { doc: 'One session.', source },
    {
      name: text(LIVEUPDATE_SESSION_NAME_LENGTH, 'Name given by userspace.'),
      file_set_ser: luoFileSetSer(files),
    },
  )
}

/** luo-session-v1, only inside the 6.19 merge window: a name and nothing else. */
export const luoSessionSerV1 = packed(
  'luo_session_ser',
  { doc: 'One session, without files.', source },
  { name: text(LIVEUPDATE_SESSION_NAME_LENGTH, 'Name given by userspace.') },
)

export const luoSessionHeaderSer = packed(
  'luo_session_header_ser',
  { doc: 'Head of the array of sessions.', source },
  { count: u64le('Number of sessions.') },
)

export const luoFlbSer = packed(
  'luo_flb_ser',
  { doc: 'One file-lifecycle-bound object: state shared by the files of a handler.', source },
  {
    name: text(LIVEUPDATE_FLB_COMPAT_LENGTH, 'Compatible string of the object.'),
    data: u64le("The owner's handle.", { show: 'hex' }),
    count: u64le('References when it was serialized.'),
  },
)

export const luoFlbHeaderSer = packed(
  'luo_flb_header_ser',
  { doc: 'Head of the array of FLBs.', source },
  {
    pgcnt: u64le('Pages of the array; always 1 and never read.', { default: 1 }),
    count: u64le('Number of FLBs.'),
  },
)

function sessionArray(element: StructType): ArrayEdge {
  return {
    kind: 'array',
    as: 'sessions',
    header: luoSessionHeaderSer,
    element,
    count: 'count',
    order: LUO_SESSION_ORDER,
    naturalKey: 'name',
  }
}

const flbArray: ArrayEdge = {
  kind: 'array',
  as: 'flbs',
  header: luoFlbHeaderSer,
  element: luoFlbSer,
  count: 'count',
  order: LUO_FLB_ORDER,
  naturalKey: 'name',
}

function luoSessionNode(version: string, element: StructType) {
  return fdtNode({
    doc: 'Where the sessions are.',
    source,
    properties: {
      compatible: compatible(version),
      'luo-session-header': pointer(sessionArray(element), 'Array of sessions behind its header.', {
        ctype: 'u64',
      }),
    },
  })
}

const luoFlbV1 = fdtNode({
  doc: 'Where the FLBs are.',
  source,
  properties: {
    compatible: compatible('luo-flb-v1'),
    'luo-flb-header': pointer(flbArray, 'Array of FLBs behind its header.', { ctype: 'u64' }),
  },
})

const liveupdateNumber = u64le('Live updates since the last cold boot, this one counted.', {
  key: 'liveupdate_num',
})

const sessionsWithFileArrays = luoSessionSer(fileArray)

/** Inside the 6.19 merge window: sessions without files. */
export const luoV1SessionV1 = fdtNode({
  doc: 'Live update state.',
  source,
  properties: { compatible: compatible('luo-v1'), 'liveupdate-number': liveupdateNumber },
  children: { 'luo-session': luoSessionNode('luo-session-v1', luoSessionSerV1) },
})

/** Linux 6.19. */
export const luoV1 = fdtNode({
  doc: 'Live update state.',
  source,
  properties: { compatible: compatible('luo-v1'), 'liveupdate-number': liveupdateNumber },
  children: { 'luo-session': luoSessionNode('luo-session-v2', sessionsWithFileArrays) },
})

/** Linux 7.0 and 7.1 (commit cab056f2aae7): the node `luo-flb` is demanded, the string is the same. */
export const luoV1Flb = fdtNode({
  ...luoV1,
  children: { ...luoV1.children, 'luo-flb': luoFlbV1 },
})

function luoSer(sessions: Edge) {
  return packed(
    'luo_ser',
    { doc: 'Live update state.', source },
    {
      compatible: text(LUO_ABI_COMPAT_LEN, 'Version string, compared over 8 bytes.'),
      liveupdate_num: u64le('Live updates since the last cold boot, this one counted.'),
      sessions_pa: pointer(sessions, 'Sessions; 0 if there are none, or before the reboot call.', {
        ctype: 'u64',
      }),
      flbs_pa: pointer(flbArray, 'Array of FLBs behind its header.', { ctype: 'u64' }),
    },
  )
}

/** luo-v2 (commit d376e4b55c9a, never released): the FDT holds a pointer to this. */
export const luoSerV2 = packed(
  'luo_ser',
  { doc: 'Live update state behind an FDT.', source },
  {
    liveupdate_num: u64le('Live updates since the last cold boot, this one counted.'),
    sessions_pa: pointer(sessionArray(sessionsWithFileArrays), 'Array of sessions behind its header.', {
      ctype: 'u64',
    }),
    flbs_pa: pointer(flbArray, 'Array of FLBs behind its header.', { ctype: 'u64' }),
  },
)

export const luoV2 = fdtNode({
  doc: 'Pointer to the live update state.',
  source,
  properties: {
    compatible: compatible('luo-v2'),
    'luo-abi-header': pointer(
      { kind: 'object', as: 'luo_ser', type: luoSerV2, order: 0 },
      'Live update state.',
      {
        ctype: 'u64',
      },
    ),
  },
})

/** luo-v3 (commit cf071b3536df, never released): no FDT any more. */
export const luoV3 = luoSer(sessionArray(sessionsWithFileArrays))
/** luo-v4 (commit 2a441a14c2c0, never released): sessions in blocks. */
export const luoV4 = luoSer(blocksOf(sessionsWithFileArrays, { as: 'sessions', naturalKey: 'name' }))
/** luo-v5 (commit 1d1153097f4d, Linux 7.2): files in blocks, too. */
export const luoV5 = luoSer(blocksOf(luoSessionSer(fileBlocks), { as: 'sessions', naturalKey: 'name' }))
