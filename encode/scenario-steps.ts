/**
 * The steps of a timeline: what a process on a simulated machine calls, where the machine goes by kexec,
 * what is broken on purpose, and what has to come of each step.
 *
 * A step is a map with one verb, what is expected of it, and how often it is done. Verbs are named after
 * the system calls and ioctls of include/uapi/linux/liveupdate.h that they make.
 */
import { ERRNO, type Errno } from '../abi/errno.ts'
import { releaseFor, releases } from '../abi/registry.ts'
import { content, memfdFields, name, opaque, seals, U32_MAX } from './scenario-file-schema.ts'
import {
  choice,
  defined,
  describe,
  flag,
  type JsonSchema,
  list,
  needed,
  object,
  oneKeyOf,
  optional,
  orList,
  orNothing,
  orShort,
  type Read,
  type Shape,
  text,
} from './scenario-shape.ts'
import { address, count, hexBytes, size, u64 } from './scenario-units.ts'

/** A name of something open: of the device, a session, a file. */
const descriptor = text('a name of something that a step opened')
const releaseName = text(`a release such as ${releases.at(-1)?.name}`)

/** One value for all releases, or by the first release that it holds for. */
export type ByRelease<T> = { readonly every: T } | { readonly since: ReadonlyMap<string, T> }

/** `own` are the keys of the element where it is a map itself. */
function byRelease<T>(element: Shape<T>, own: readonly string[] = []): Shape<ByRelease<T>> {
  const expects = `${element.expects}, or a map of these by release`
  return {
    expects,
    read(value, path, report) {
      if (!(value instanceof Map) || own.some((key) => value.has(key))) {
        const every = element.read(value, path, report)
        return every === undefined ? undefined : { every }
      }
      const since = new Map<string, T>()
      for (const [key, one] of value) {
        const release = releaseFor(String(key))
        const read = element.read(one, [...path, String(key)], report)
        if (!release) report.wrongKey([...path, String(key)], `unknown release ${describe(key)}`)
        else if (read !== undefined) since.set(release.name, read)
      }
      return { since }
    },
    schema: (definitions) => {
      const one = element.schema(definitions)
      return {
        anyOf: [one, { type: 'object', propertyNames: { pattern: RELEASE }, additionalProperties: one }],
      }
    },
  }
}

const RELEASE = '^(linux-|v)?[0-9]+\\.[0-9]+(\\.[0-9]+)?$|^kho-v2$'

/** From one release to another, both included. */
const releaseSpan = object('releases', {
  since: optional(releaseName, 'The first of them.'),
  until: optional(releaseName, 'The last of them.'),
})
const only = orShort(
  releaseSpan,
  releaseName,
  (name): Read<typeof releaseSpan> => ({ since: name, until: name }),
)

/**
 * What a step comes to, besides errors: done, the machine dead, a call that never returns, a kexec after
 * which nothing is handed over.
 */
const OUTCOMES = ['ok', 'panic', 'blocks', 'no_handover'] as const
export type StepOutcome = (typeof OUTCOMES)[number] | Errno

const errnos = Object.keys(ERRNO) as Errno[]
const outcome: Shape<StepOutcome> = defined('outcome', () => ({
  ...choice([...OUTCOMES, ...errnos]),
  expects: 'ok, panic, blocks, no_handover or an error such as EEXIST',
}))

/** Some repetitions that are ok, then one that is not. */
const series = object('a series', {
  ok: needed(count(0, U32_MAX, 'a number'), 'So many repetitions are ok.'),
  next: needed(outcome, 'What the one behind them comes to; it is the last.'),
})
export type StepSeries = Read<typeof series>

const expectation = orShort(series, outcome, (word): StepSeries | StepOutcome => word)
export type StepExpectation = Read<typeof expectation>

const OPEN_FLAGS = ['path', 'creat', 'rdonly', 'wronly', 'rdwr'] as const
const MEMFD_FLAGS = ['cloexec', 'allow_sealing', 'hugetlb', 'noexec_seal', 'exec'] as const
export type OpenFlag = (typeof OPEN_FLAGS)[number]

export const LIVEUPDATE_DEVICE = '/dev/liveupdate'

const open = orShort(
  object('a file to open', {
    path: optional(text('a path'), `${LIVEUPDATE_DEVICE} if left out.`),
    flags: optional(list(choice(OPEN_FLAGS), 'flags'), 'O_PATH, O_CREAT, …'),
    as: optional(descriptor, 'Name for what is open; the path if left out.'),
  }),
  text('a path'),
  (path): { readonly path?: string; readonly as?: string; readonly flags?: readonly OpenFlag[] } => ({
    path,
  }),
)

const session = orShort(
  object('a session', {
    name: needed(name, 'Its name.'),
    as: optional(descriptor, "Name for the session's descriptor; the session's name if left out."),
  }),
  text("a session's name"),
  (value): { readonly name: Read<typeof name>; readonly as?: string } => ({ name: value }),
)

const { size: memfdSize, position, seals: memfdSealsField, content: memfdContent } = memfdFields
const ownMemfd = {
  size: memfdSize,
  position,
  seals: memfdSealsField,
  content: memfdContent,
  flags: optional(
    list(choice(MEMFD_FLAGS), 'flags'),
    'MFD_ALLOW_SEALING, …; allow_sealing if left out, none if the list is empty.',
  ),
}
const inlineMemfd = object('a memfd', ownMemfd)
export type StepMemfd = Read<typeof inlineMemfd>

const preserve = oneKeyOf(
  object('a file to preserve', {
    session: needed(descriptor, 'The session.'),
    token: needed(u64, "The user's name for the file in the session; counts up where the step is repeated."),
    file: optional(descriptor, 'A file that is open.'),
    memfd: optional(inlineMemfd, 'A new memfd.'),
    opaque: optional(opaque, 'A new file of a handler that leaves a handle.'),
    fd: optional(text('a number of a descriptor, in quotes'), 'A descriptor by number: "-1" is never open.'),
    as: optional(descriptor, 'Name for a new file; SESSION/TOKEN if left out.'),
  }),
  ['file', 'memfd', 'opaque', 'fd'],
)

const lookedAt = oneKeyOf(
  object('what is looked at', {
    file: optional(descriptor, 'A file.'),
    region: optional(text('a name'), 'A region of reserve_mem.'),
    size: optional(size, 'Bytes of the file.'),
    position: optional(size, 'File position.'),
    seals: optional(byRelease(list(seals, 'seals')), 'Seals in force.'),
    mode: optional(text('octal digits in quotes such as "100777"'), 'st_mode.'),
    content: optional(content, 'What it holds from the first byte on.'),
    same_as: optional(descriptor, 'Another descriptor of the same file.'),
  }),
  ['file', 'region'],
)
const verify = orShort(lookedAt, descriptor, (file): Read<typeof lookedAt> => ({ file }))
export type StepVerify = Read<typeof verify>

const IOCTL_DIRECTIONS = ['read', 'write'] as const

const ioctl = object('an ioctl', {
  on: optional(descriptor, `${LIVEUPDATE_DEVICE} if left out.`),
  nr: needed(count(0, 255, 'a number'), 'Number of the command.'),
  type: optional(count(0, 255, 'a type'), '0xBA (LIVEUPDATE_IOCTL_TYPE) if left out.'),
  direction: optional(list(choice(IOCTL_DIRECTIONS), 'directions'), '_IO() if left out.'),
  bytes: optional(count(0, 1 << 14, 'a size'), 'Size in the command itself, for _IOR() and _IOW().'),
  size: optional(count(0, U32_MAX, 'a size'), 'First word of the argument, and its length.'),
  content: optional(content, 'What the argument holds besides.'),
  as: optional(descriptor, 'Name for the descriptor that it answers with.'),
})

const finalize = oneKeyOf(
  object('debugfs kho/out/finalize', {
    write: optional(text('what is written, in quotes'), 'What is written.'),
    read: optional(text('what is read, in quotes'), 'What has to be read.'),
  }),
  ['write', 'read'],
)

const load = object('an image to load', {
  unload: optional(flag, 'KEXEC_FILE_UNLOAD: what is loaded goes.'),
  preserve_context: optional(
    flag,
    'kexec_load(KEXEC_PRESERVE_CONTEXT): what is jumped to comes back, and nothing is handed over.',
  ),
})

const kexec = object('a kexec', {
  to: optional(releaseName, 'The next kernel; the same release if left out.'),
  cmdline: optional(
    text('a command line'),
    'Added to its command line, which is otherwise that of the first kernel.',
  ),
  without: optional(list(text('a version string'), 'version strings'), 'Handlers that it does not have.'),
  load: optional(flag, 'false: only what a step loaded is booted; EINVAL if none did.'),
})

const boot = orShort(
  object('a cold boot', {
    release: optional(releaseName, 'The kernel; the release of the scenario if left out.'),
    cmdline: optional(text('a command line'), 'Added to its command line.'),
  }),
  releaseName,
  (release): { readonly release?: string; readonly cmdline?: string } => ({ release }),
)

const lines = orList(text('part of a line'), 'parts of lines')
const logged = object('what the kernel logged', {
  has: optional(lines, 'Each is in some line, in this order.'),
  lacks: optional(lines, 'None is in any line.'),
})
const consoleLines = orShort(logged, lines, (has): Read<typeof logged> => ({ has }))

const ORCHESTRATOR_STATES = ['normal', 'prepared', 'frozen', 'updated'] as const

const check = object('the state of the machine', {
  panic: optional(text('part of a message'), 'The kernel is dead; its last words hold this.'),
  alive: optional(flag, 'Whether the kernel runs.'),
  took_over: optional(flag, 'Whether it took over from another (is_kho_boot()).'),
  state: optional(choice(ORCHESTRATOR_STATES), 'State of the orchestrator as seen from outside.'),
  preserved: optional(size, 'Bytes that are preserved for the next kernel.'),
})

/** Those that can fail; an FLB has the second and the fourth. */
const HANDLER_CALLBACKS = ['can_preserve', 'preserve', 'freeze', 'retrieve', 'can_finish'] as const
export type HandlerCallback = (typeof HANDLER_CALLBACKS)[number]

const failure = oneKeyOf(
  object('a failure', {
    allocation: optional(count(1, U32_MAX, 'a number'), 'The n-th allocation of pages from now on fails.'),
    handler: optional(text('a version string'), 'A callback of this handler fails.'),
    flb: optional(text('a name'), 'A callback of this FLB fails.'),
    callback: optional(choice(HANDLER_CALLBACKS), 'Which one.'),
    call: optional(count(1, U32_MAX, 'a number'), 'At the n-th call from now on; the next if left out.'),
    with: optional(choice(errnos), 'The error; EIO if left out.'),
  }),
  ['allocation', 'handler', 'flb'],
)
const fail = orShort(failure, choice(['allocation']), (): Read<typeof failure> => ({ allocation: 1 }))

const corrupt = oneKeyOf(
  object('a corruption', {
    at: optional(address, 'Physical address.'),
    path: optional(text('a path such as luo.sessions[vm-alpha].count'), 'Path in the decoded handover.'),
    value: optional(u64, 'What stands there instead: as wide as the field, 8 bytes at an address.'),
    bytes: optional(hexBytes, 'Bytes instead of a value.'),
  }),
  ['at', 'path'],
)

const FLB_CALLS = ['get_incoming', 'put_incoming', 'get_outgoing', 'put_outgoing'] as const

const flb = object("a driver's call", {
  name: needed(text('a name'), 'Version string of the FLB.'),
  call: needed(choice(FLB_CALLS), 'liveupdate_flb_…().'),
  data: optional(u64, 'The handle that it gives.'),
})

const nothing = object('nothing', {})

const finish = object('a session', {
  session: optional(descriptor, 'The session.'),
  reserved: optional(count(0, U32_MAX), 'The reserved word; 0 if left out.'),
})

const prepared = object('a session to prepare', {
  session: needed(text('a name'), 'Its name.'),
  files: optional(
    list(
      object('a file', {
        token: needed(u64, "The user's name for the file."),
        file: needed(descriptor, 'A file that is open.'),
      }),
      'files',
    ),
    'Its files.',
  ),
})

const fileRange = {
  file: needed(descriptor, 'The file.'),
  at: optional(size, 'Offset; 0 if left out.'),
}

/** Steps that stand for a group are one level inside the list of steps. */
const group: Shape<readonly ScenarioStep[]> = defined('steps', () => list(step, 'steps'))

/** What a step does: each key is one verb. */
const verbs = {
  open: optional(orNothing(open, {}), `open(): ${LIVEUPDATE_DEVICE}, or another path.`),
  close: optional(descriptor, 'close() of what has this name.'),
  unlink: optional(text('a path'), 'unlink().'),
  create_session: optional(session, 'LIVEUPDATE_IOCTL_CREATE_SESSION.'),
  retrieve_session: optional(session, 'LIVEUPDATE_IOCTL_RETRIEVE_SESSION.'),
  preserve: optional(preserve, 'LIVEUPDATE_SESSION_PRESERVE_FD.'),
  retrieve: optional(
    object('a file to retrieve', {
      session: needed(descriptor, 'The session.'),
      token: needed(u64, "The user's name for the file; counts up where the step is repeated."),
      as: optional(descriptor, 'Name for the file; SESSION/TOKEN if left out.'),
    }),
    'LIVEUPDATE_SESSION_RETRIEVE_FD.',
  ),
  finish: optional(
    orNothing(
      orShort(finish, descriptor, (value): Read<typeof finish> => ({ session: value })),
      {},
    ),
    'LIVEUPDATE_SESSION_FINISH; without a session all of them are retrieved and finished.',
  ),
  get_name: optional(
    orShort(
      object('a session', {
        session: needed(descriptor, 'The session.'),
        is: optional(text('a name'), 'The name that it has to have.'),
      }),
      descriptor,
      (value): { readonly session: string; readonly is?: string } => ({ session: value }),
    ),
    'LIVEUPDATE_SESSION_GET_NAME.',
  ),
  ioctl: optional(ioctl, 'Any ioctl, right or wrong.'),
  memfd: optional(
    object('a memfd', { name: needed(descriptor, 'Name for the file.'), ...ownMemfd }),
    'memfd_create(), then size, contents, seals and position.',
  ),
  write: optional(
    oneKeyOf(
      object('a write', {
        file: optional(descriptor, 'A file.'),
        region: optional(text('a name'), 'A region of reserve_mem.'),
        at: optional(size, 'Offset; 0 if left out.'),
        content: needed(content, 'What is written there.'),
      }),
      ['file', 'region'],
    ),
    'pwrite().',
  ),
  truncate: optional(
    object('a size', { file: fileRange.file, size: needed(size, 'Bytes.') }),
    'ftruncate().',
  ),
  fallocate: optional(
    object('a range', {
      ...fileRange,
      length: needed(size, 'Bytes.'),
      mode: optional(list(choice(['keep_size', 'punch_hole']), 'modes'), 'FALLOC_FL_…; none if left out.'),
    }),
    'fallocate().',
  ),
  seal: optional(
    object('seals', { file: fileRange.file, seals: needed(list(seals, 'seals'), 'Seals to add.') }),
    'fcntl(F_ADD_SEALS).',
  ),
  seek: optional(
    object('a position', { file: fileRange.file, position: needed(size, 'File position.') }),
    'lseek(SEEK_SET).',
  ),
  verify: optional(
    verify,
    'Looks at a file or region; a retrieved file alone is held against what was preserved.',
  ),
  prepare: optional(
    orNothing(list(prepared, 'sessions'), []),
    'From normal to prepared: these sessions are created and their files preserved, or none.',
  ),
  freeze: optional(orNothing(nothing, {}), 'From prepared to frozen: liveupdate_reboot() alone.'),
  cancel: optional(orNothing(nothing, {}), 'From prepared back to normal.'),
  flb: optional(flb, 'What a driver asks of an FLB.'),
  finalize: optional(
    orNothing(
      orShort(finalize, text('what is written, in quotes'), (write): Read<typeof finalize> => ({ write })),
      { write: '1' },
    ),
    'debugfs kho/out/finalize, up to Linux 7.0.',
  ),
  load: optional(
    orNothing(load, {}),
    'kexec_file_load(): what the next kernel is told of KHO is decided here.',
  ),
  kexec: optional(
    orNothing(
      orShort(kexec, releaseName, (to): Read<typeof kexec> => ({ to })),
      {},
    ),
    'kexec_file_load() unless an image is loaded, and reboot(LINUX_REBOOT_CMD_KEXEC).',
  ),
  boot: optional(orNothing(boot, {}), 'Power off, and a cold boot.'),
  console: optional(consoleLines, 'What the running kernel logged, or did not.'),
  check: optional(check, 'How the machine stands.'),
  fail: optional(fail, 'Something goes wrong from now on.'),
  corrupt: optional(corrupt, 'A word changes between the two kernels of the next kexec.'),
  steps: optional(group, 'Several steps; {n} in their names is the number of the repetition.'),
}

export type StepVerb = keyof typeof verbs
export const stepVerbs = Object.keys(verbs) as StepVerb[]

const stepFields = {
  title: optional(text(), 'What the step shows.'),
  ...verbs,
  expect: optional(
    byRelease(expectation, ['ok', 'next']),
    'What comes of it: ok (if left out), an error, panic, blocks, no_handover; or so many that are ok, then something else.',
  ),
  only: optional(only, 'Releases on which it is done; on the others it is left out.'),
  repeat: optional(
    count(1, 1 << 20, 'a number'),
    'How often; {n} in names counts from 0, tokens and seeds count up.',
  ),
}

/** Written out, since steps may hold steps. */
type OwnFields = Omit<typeof stepFields, 'steps'>
type OwnStep = { readonly [K in keyof OwnFields]?: Read<OwnFields[K]['shape']> }
export interface ScenarioStep extends OwnStep {
  readonly steps?: readonly ScenarioStep[]
}

/** Verbs that need nothing said: `- kexec` alone. */
const BARE = ['open', 'prepare', 'freeze', 'cancel', 'finish', 'finalize', 'load', 'kexec', 'boot'] as const
const wholeStep: Shape<ScenarioStep> = oneKeyOf(object('a step', stepFields), stepVerbs)

const step: Shape<ScenarioStep> = defined('step', () => ({
  expects: `a step (a map with one of ${stepVerbs.join(', ')}), or one of ${BARE.join(', ')}`,
  read(value, path, report) {
    if (typeof value !== 'string') return wholeStep.read(value, path, report)
    if (BARE.some((verb) => verb === value)) return wholeStep.read(new Map([[value, null]]), path, report)
    return report.wrong(
      path,
      `expected a step such as { close: vm-alpha }, or one of ${BARE.join(', ')}; found ${describe(value)}`,
    )
  },
  schema: (definitions): JsonSchema => ({ anyOf: [{ enum: [...BARE] }, wholeStep.schema(definitions)] }),
}))

export const steps = list(step, 'steps')
