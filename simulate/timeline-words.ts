/** Steps in words, one line each, as the log shows them. */
import { hex } from '../abi/memory.ts'
import { LIVEUPDATE_DEVICE, type ScenarioStep, type StepVerb, stepVerbs } from '../encode/scenario-steps.ts'
import { textLabel } from '../encode/text.ts'
import { formatBytes } from '../inspect/text.ts'

export function verbOf(step: ScenarioStep): StepVerb {
  return stepVerbs.find((verb) => step[verb] !== undefined) ?? 'steps'
}

/** `preserve m as vm-alpha/0x1`; the numbers of repetitions stay as they are written. */
export function describeStep(step: ScenarioStep, release: string): string {
  const verb = verbOf(step)
  const rest = describeObject(verb, withRelease(step, release))
  return rest === '' ? verb : `${verb} ${rest}`
}

/** Without a release, a kexec goes to the same one. */
function withRelease(step: ScenarioStep, release: string): ScenarioStep {
  return step.kexec ? { ...step, kexec: { to: release, ...step.kexec } } : step
}

type Words = { readonly [V in StepVerb]: (said: NonNullable<ScenarioStep[V]>) => string }

const words: Words = {
  open: ({ path = LIVEUPDATE_DEVICE, as }) => (as === undefined ? path : `${path} as ${as}`),
  close: (name) => name,
  unlink: (path) => path,
  create_session: ({ name, as }) => named(textLabel(name), as),
  retrieve_session: ({ name, as }) => named(textLabel(name), as),
  preserve: ({ session, token, file, fd, memfd, opaque }) => {
    const size = memfd?.size === undefined ? '' : ` of ${formatBytes(memfd.size)}`
    const what = file ?? opaque?.compatible ?? (memfd ? `a memfd${size}` : `fd ${fd}`)
    return `${what} in ${session}, token ${hex(token)}`
  },
  retrieve: ({ session, token, as }) => named(`token ${hex(token)} of ${session}`, as),
  finish: ({ session, reserved }) => [session ?? '', reserved ? `reserved ${reserved}` : ''].join(' ').trim(),
  get_name: ({ session }) => session,
  ioctl: ({ on = LIVEUPDATE_DEVICE, nr, size }) =>
    `${hex(nr)} on ${on}${size === undefined ? '' : `, ${size} bytes`}`,
  memfd: ({ name, size }) => (size === undefined ? name : `${name}, ${formatBytes(size)}`),
  write: ({ file, region, at = 0n }) => `${file ?? region} at ${at}`,
  truncate: ({ file, size }) => `${file} to ${formatBytes(size)}`,
  fallocate: ({ file, at = 0n, length, mode = [] }) =>
    [`${file} ${formatBytes(length)} at ${at}`, ...mode].join(', '),
  seal: ({ file, seals }) => `${file} ${seals.join('|')}`,
  seek: ({ file, position }) => `${file} to ${position}`,
  verify: ({ file, region }) => file ?? `region ${region}`,
  prepare: (sessions) => sessions.map(({ session }) => session).join(', '),
  freeze: () => '',
  cancel: () => '',
  flb: ({ name, call }) => `${call} ${name}`,
  finalize: ({ write, read }) => (write === undefined ? `reads ${read}` : `write ${write}`),
  load: ({ unload, preserve_context }) =>
    [unload ? 'KEXEC_FILE_UNLOAD' : '', preserve_context ? 'KEXEC_PRESERVE_CONTEXT' : ''].join(' ').trim(),
  kexec: ({ to, cmdline }) => [to === undefined ? '' : `to ${to}`, cmdline ?? ''].join(' ').trim(),
  boot: ({ release, cmdline }) => [release ?? '', cmdline ?? ''].join(' ').trim(),
  console: ({ has = [], lacks = [] }) =>
    [...has.map((line) => `"${line}"`), ...lacks.map((line) => `no "${line}"`)].join(', '),
  check: (said) =>
    Object.entries(said)
      .map(([key, value]) => `${key} ${typeof value === 'bigint' ? formatBytes(value) : value}`)
      .join(', '),
  fail: ({ allocation, handler, flb, callback, call = 1, with: errno }) =>
    allocation === undefined
      ? `call ${call} of ${callback}() of ${handler ?? flb}${errno === undefined ? '' : ` with ${errno}`}`
      : `allocation ${allocation} from now`,
  corrupt: ({ at, path, value }) => {
    const place = at === undefined ? path : hex(at)
    return value === undefined ? `${place}` : `${place} to ${hex(value)}`
  },
  steps: () => '',
}

function describeObject<V extends StepVerb>(verb: V, step: ScenarioStep): string {
  const said = step[verb]
  return said === undefined ? '' : words[verb](said as NonNullable<ScenarioStep[V]>)
}

function named(what: string, as: string | undefined): string {
  return as === undefined || as === what ? what : `${what} as ${as}`
}
