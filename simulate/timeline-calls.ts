/** The verbs of a timeline that are system calls of a process, as calls and in words. */
import { LIVEUPDATE_IOCTL_TYPE } from '../abi/liveupdate.ts'
import { memfdSeals } from '../abi/memfd.ts'
import { fallocateFlags, memfdCreateFlags } from '../abi/shmem.ts'
import { contentSource } from '../encode/content.ts'
import type { Content } from '../encode/handover.ts'
import type { ScenarioContent } from '../encode/scenario-file-schema.ts'
import { LIVEUPDATE_DEVICE, type ScenarioStep, type StepMemfd } from '../encode/scenario-steps.ts'
import { textBytes, textLabel } from '../encode/text.ts'
import { fileName } from '../encode/timeline-step.ts'
import { type Answer, Failure, failed } from './answer.ts'
import { opaqueFile } from './opaque-handler.ts'
import type { Orchestrator } from './orchestrator.ts'
import { done, type StepResult } from './timeline-event.ts'
import { fileFacts } from './timeline-facts.ts'
import type { TimelineMachine } from './timeline-machine.ts'
import { verify } from './timeline-verify.ts'

/** The contents that a step names, with the seeds of this repetition. */
export type ContentOf = (pieces: ScenarioContent | undefined) => Content | undefined

type Verb<V extends keyof ScenarioStep> = (
  said: NonNullable<ScenarioStep[V]>,
  machine: TimelineMachine,
  contentOf: ContentOf,
) => Answer<unknown> | StepResult

/** At most this much is written or compared at once. */
const CHUNK_BYTES = 1 << 20

/** Each answers like the call that it makes, or says itself what came of it. */
export const calls: { readonly [V in keyof ScenarioStep]?: Verb<V> } = {
  open: ({ path = LIVEUPDATE_DEVICE, flags = [], as = path }, machine) =>
    machine.names.bind(
      as,
      machine.process.open(path, {
        path: flags.includes('path'),
        readOnly: flags.includes('rdonly'),
        ...(flags.includes('creat') && { create: 0o600 }),
      }),
    ),
  close: (name, machine) => machine.names.close(name),
  unlink: (path, machine) => machine.process.unlink(path),
  create_session: ({ name, as = textLabel(name) }, machine) => {
    const device = machine.names.fd(LIVEUPDATE_DEVICE)
    return machine.names.bindSession(as, name, machine.process.createSession(device, textBytes(name)))
  },
  retrieve_session: ({ name, as = textLabel(name) }, machine) => {
    const device = machine.names.fd(LIVEUPDATE_DEVICE)
    return machine.names.bindSession(as, name, machine.process.retrieveSession(device, textBytes(name)))
  },
  preserve: (said, machine, contentOf) => {
    const { session, token, as = fileName(session, token) } = said
    const fd = fileToPreserve(said, as, machine, contentOf)
    if (failed(fd)) return fd
    const answer = machine.process.preserveFd(machine.names.fd(session), fd, token)
    if (failed(answer)) return answer
    const label = machine.names.preserved(session, token, fd)
    const isMemfd = machine.process.files.find(fd)?.inode !== undefined
    return done(label === undefined ? [] : fileFacts(machine.kernel, machine.live, label, token, isMemfd))
  },
  retrieve: ({ session, token, as = fileName(session, token) }, machine) => {
    const retrieved = machine.process.retrieveFd(machine.names.fd(session), token)
    const fd = machine.names.bindRetrieved(as, session, token, retrieved)
    if (failed(fd)) return fd
    const file = machine.process.files.find(fd)
    if (!file?.inode) return
    return done([
      { name: 'size', value: file.inode.size },
      { name: 'position', value: file.position },
    ])
  },
  finish: ({ session, reserved = 0 }, machine) =>
    session === undefined
      ? orchestrate(machine, (orchestrator) => orchestrator.finish())
      : machine.process.finish(machine.names.fd(session), reserved),
  prepare: (sessions, machine) =>
    orchestrate(machine, (orchestrator) =>
      orchestrator.prepare(
        sessions.map(({ session, files = [] }) => ({
          name: session,
          files: files.map(({ token, file }) => ({ token, fd: machine.names.fd(file) })),
        })),
      ),
    ),
  freeze: (_, machine) => orchestrate(machine, (orchestrator) => orchestrator.freeze()),
  cancel: (_, machine) => orchestrate(machine, (orchestrator) => orchestrator.cancel()),
  get_name: ({ session, is }, machine) => {
    const name = machine.process.getName(machine.names.fd(session))
    if (failed(name)) return name
    const wrong = is === undefined || is === name ? [] : [`name: expected ${is}, found ${name}`]
    return done([{ name: 'name', value: name }], wrong)
  },
  ioctl: (said, machine, contentOf) => rawIoctl(said, machine, contentOf(said.content)),
  memfd: ({ name, ...memfd }, machine, contentOf) => {
    const fd = makeMemfd(name, memfd, machine, contentOf)
    return machine.names.bind(name, fd)
  },
  write: ({ file, region, at = 0n, content }, machine, contentOf) => {
    const written = contentOf(content)
    if (!written) return
    return file === undefined
      ? machine.writeRegion(region ?? '', at, written)
      : writeAll(machine, machine.names.fd(file), at, written)
  },
  truncate: ({ file, size }, machine) => machine.process.ftruncate(machine.names.fd(file), size),
  fallocate: ({ file, at = 0n, length, mode = [] }, machine) => {
    const flags = mode.reduce((all, word) => all | fallocateFlags[upper(word)], 0)
    return machine.process.fallocate(machine.names.fd(file), flags, at, length)
  },
  seal: ({ file, seals }, machine) => machine.process.addSeals(machine.names.fd(file), sealBits(seals)),
  seek: ({ file, position }, machine) => {
    const answer = machine.process.lseek(machine.names.fd(file), position)
    return failed(answer) ? answer : undefined
  },
  verify: (said, machine, contentOf) => verify(said, machine, contentOf(said.content)),
}

/** Where there is no orchestrator, there is no device that could be opened. */
function orchestrate(machine: TimelineMachine, work: (orchestrator: Orchestrator) => Answer): Answer {
  return machine.orchestrator ? work(machine.orchestrator) : new Failure('ENOENT')
}

function upper<W extends string>(word: W): Uppercase<W> {
  return word.toUpperCase() as Uppercase<W>
}

function sealBits(words: readonly string[]): number {
  const bits: Readonly<Record<string, number>> = memfdSeals
  return words.reduce((all, word) => all | (bits[word.toUpperCase()] ?? 0), 0)
}

function fileToPreserve(
  { file, fd, memfd, opaque }: NonNullable<ScenarioStep['preserve']>,
  as: string,
  machine: TimelineMachine,
  contentOf: ContentOf,
): Answer<number> {
  if (file !== undefined) return machine.names.fd(file)
  if (fd !== undefined) return Number(fd)
  if (opaque) return machine.names.open(as, opaqueFile(opaque.compatible, opaque.data))
  return machine.names.bind(as, makeMemfd(as, memfd ?? {}, machine, contentOf))
}

/** memfd_create(), then size, contents, seals and position, as a program would. */
function makeMemfd(
  name: string,
  { size, position, seals = [], content, flags = ['allow_sealing'] }: StepMemfd,
  machine: TimelineMachine,
  contentOf: ContentOf,
): Answer<number> {
  const { process } = machine
  const bits = flags.reduce((all, word) => all | memfdCreateFlags[upper(word)], 0)
  const fd = process.memfdCreate(name, bits)
  if (failed(fd)) return fd
  const written = contentOf(content)
  const steps = [
    () => (size === undefined ? undefined : process.ftruncate(fd, size)),
    () => (written ? writeAll(machine, fd, 0n, written) : undefined),
    () => (seals.length > 0 ? process.addSeals(fd, sealBits(seals)) : undefined),
    () => (position === undefined ? undefined : process.lseek(fd, position)),
  ]
  for (const step of steps) {
    const answer = step()
    if (failed(answer)) return answer
  }
  return fd
}

/** pwrite() of everything that is not known to be zero, as often as it takes. */
function writeAll(machine: TimelineMachine, fd: number, at: bigint, content: Content): Answer {
  const { length, parts, fill } = contentSource(content)
  for (const { start, end } of parts(0n, length)) {
    for (let offset = start; offset < end; ) {
      const left = end - offset
      const bytes = new Uint8Array(left < BigInt(CHUNK_BYTES) ? Number(left) : CHUNK_BYTES)
      machine.spendWriting(bytes.length)
      fill(offset, bytes)
      const written = machine.process.pwrite(fd, bytes, at + offset)
      if (failed(written)) return written
      offset += BigInt(written)
    }
  }
}

const IOC_SIZE_SHIFT = 16
const IOC_TYPE_SHIFT = 8
const IOC_DIRECTION = { write: 1 << 30, read: 2 ** 31 } as const

function rawIoctl(
  {
    on = LIVEUPDATE_DEVICE,
    nr,
    type = LIVEUPDATE_IOCTL_TYPE,
    direction = [],
    bytes = 0,
    size,
    as,
  }: NonNullable<ScenarioStep['ioctl']>,
  machine: TimelineMachine,
  content: Content | undefined,
): Answer<unknown> {
  const directions = direction.reduce((all, word) => all + IOC_DIRECTION[word], 0)
  const request = directions + (bytes << IOC_SIZE_SHIFT) + (type << IOC_TYPE_SHIFT) + nr
  const argument = new Uint8Array(Math.min(size ?? 0, MAX_ARGUMENT))
  if (content) contentSource(content).fill(0n, argument)
  const view = new DataView(argument.buffer)
  if (size !== undefined && argument.length >= 4) view.setUint32(0, size, true)
  const answer = machine.process.ioctl(machine.names.fd(on), request, argument)
  if (failed(answer) || as === undefined || argument.length < 8) return answer
  return machine.names.bind(as, view.getInt32(4, true))
}

/** Caller's memory behind an ioctl: what lies beyond cannot be read. */
const MAX_ARGUMENT = 1 << 16
