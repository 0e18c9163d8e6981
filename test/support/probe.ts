/**
 * The program whose answers of real kernels stand in fixtures/behaviour: its steps on simulated kernels, in
 * its order, since earlier ones shape later ones.
 */
import { liveupdateIoctlCreateSession, liveupdateIoctls } from '../../abi/liveupdate.ts'
import { memfdSeals } from '../../abi/memfd.ts'
import { fallocateFlags, memfdCreateFlags } from '../../abi/shmem.ts'
import { encodeStruct } from '../../encode/write.ts'
import { type Answer, Failure, failed } from '../../simulate/answer.ts'
import type { Userspace } from '../../simulate/userspace.ts'

/** Step by name, `value …` for what the program prints; in the order of the program. */
export type Answers = Map<string, string | null>

const TARGET = { pageSize: 4096 } as const
const { LIVEUPDATE_IOCTL_CREATE_SESSION: CREATE, LIVEUPDATE_SESSION_FINISH: FINISH } = liveupdateIoctls
/** More than any step opens. */
const FILE_LIMIT = 4096
const READ_WRITE = 0xc000_0000

class Probe {
  readonly answers: Answers = new Map()
  readonly #user: Userspace
  device = -1

  constructor(user: Userspace) {
    this.#user = user
    user.files.limit = FILE_LIMIT
  }

  /** What a step answered; a descriptor of -1 where there is none, as in C. */
  step(name: string, answer: Answer<unknown>): number {
    this.answers.set(name, failed(answer) ? `errno ${-answer.number}` : 'ok')
    return typeof answer === 'number' ? answer : -1
  }

  value(name: string, value: string | null): void {
    this.answers.set(`value ${name}`, value)
  }

  create(name: string): number {
    return numberOf(this.#user.createSession(this.device, name))
  }

  memfd(size: number): number {
    const fd = numberOf(this.#user.memfdCreate('m', memfdCreateFlags.ALLOW_SEALING))
    this.#user.ftruncate(fd, size)
    if (size > 0) this.#user.pwrite(fd, text('hello'), 0)
    return fd
  }

  /** CREATE_SESSION with a struct of another size, or another tail behind it. */
  createSized(name: string, size: number, tail = new Uint8Array(0)): Answer {
    const argument = new Uint8Array(72 + tail.length)
    argument.set(encodeStruct(liveupdateIoctlCreateSession, { size, fd: 0, name: text(name) }, TARGET))
    argument.set(tail, 72)
    const answer = this.#user.ioctl(this.device, CREATE.request, argument)
    if (!failed(answer)) this.#user.close(new DataView(argument.buffer).getInt32(4, true))
    return answer
  }
}

/** What the kernel that preserves answers; ends before the kexec. */
export function probeOld(user: Userspace): Answers {
  const probe = new Probe(user)
  probe.device = probe.step('open-first', user.open('/dev/liveupdate'))
  probe.step('open-second', user.open('/dev/liveupdate'))
  user.close(probe.device)
  probe.device = probe.step('reopen-after-close', user.open('/dev/liveupdate'))
  const a = framing(probe, user)
  const b = preserving(probe, user, a)
  frozen(probe, user, a, b)
  reopened(probe, user)
  limits(probe, user)
  return probe.answers
}

function framing(probe: Probe, user: Userspace): number {
  const { device } = probe
  probe.step('retrieve-session-none-incoming', user.retrieveSession(device, 'x'))
  const a = probe.step('create-a', user.createSession(device, 'a'))
  probe.step('create-a-again', user.createSession(device, 'a'))
  probe.step('create-empty-name', user.createSession(device, ''))
  closing(user, probe.step('create-name-64-no-nul', user.createSession(device, 'n'.repeat(64))))
  closing(user, probe.step('create-name-63', user.createSession(device, 'm'.repeat(63))))
  probe.step('create-size-small', probe.createSized('small', 72 - 4))
  probe.step('create-size-big-zero-tail', probe.createSized('bigzero', 88, new Uint8Array(16)))
  const tail = new Uint8Array(16)
  tail[3] = 1
  probe.step('create-size-big-nonzero-tail', probe.createSized('bignon', 88, tail))
  const empty = encodeStruct(CREATE.struct, { size: 72, fd: 0, name: text('') }, TARGET)
  const unknown = CREATE.request | 0x30
  probe.step('ioctl-unknown-nr', user.ioctl(device, unknown, empty))
  const directed = CREATE.request + READ_WRITE + (72 << 16)
  probe.step('ioctl-create-with-direction-bits', user.ioctl(device, directed, empty))
  probe.step('session-ioctl-unknown-nr', user.ioctl(a, CREATE.request | 0x55, empty))
  return a
}

function preserving(probe: Probe, user: Userspace, a: number): number {
  probe.step('preserve-bad-fd', user.preserveFd(a, -1, 1n))
  probe.step('preserve-dev-null', user.preserveFd(a, numberOf(user.open('/dev/null')), 1n))
  probe.step('preserve-o-path', user.preserveFd(a, numberOf(user.open('/tmp', { path: true })), 1n))
  const file = numberOf(user.open('/tmp/file', { create: 0o600 }))
  user.write(file, text('x'))
  probe.step('preserve-tmpfs-linked-file', user.preserveFd(a, file, 1n))
  user.unlink('/tmp/file')
  probe.step('preserve-tmpfs-unlinked-file', user.preserveFd(a, file, 90n))
  probe.step('preserve-session-fd', user.preserveFd(a, a, 1n))
  const m = probe.memfd(10000)
  probe.step('preserve-memfd', user.preserveFd(a, m, 1n))
  const m2 = probe.memfd(100)
  probe.step('preserve-token-used', user.preserveFd(a, m2, 1n))
  probe.step('preserve-same-memfd-other-token', user.preserveFd(a, m, 2n))
  const b = probe.step('create-b', user.createSession(probe.device, 'b'))
  probe.step('preserve-same-memfd-other-session', user.preserveFd(b, m, 7n))
  probe.step('preserve-same-token-other-session', user.preserveFd(b, m2, 1n))
  probe.step('frozen-ftruncate-grow', user.ftruncate(m, 20000))
  probe.step('frozen-ftruncate-shrink', user.ftruncate(m, 100))
  probe.step('frozen-fallocate', user.fallocate(m, 0, 20000, 4096))
  probe.step('frozen-write-inside', user.pwrite(m, text('abc'), 5000))
  probe.step('frozen-write-past-eof', user.pwrite(m, text('abc'), 30000))
  const punch = fallocateFlags.PUNCH_HOLE | fallocateFlags.KEEP_SIZE
  probe.step('frozen-punch-hole', user.fallocate(m, punch, 0, 4096))
  probe.step('frozen-add-seal-write', user.addSeals(m, memfdSeals.FUTURE_WRITE))
  return b
}

function frozen(probe: Probe, user: Userspace, a: number, b: number): void {
  probe.step('retrieve-fd-on-outgoing', user.retrieveFd(b, 1n))
  probe.step('finish-on-outgoing', user.finish(b))
  const name = user.getName(a)
  probe.step('get-name', name)
  probe.value('get-name', failed(name) ? null : name)
}

function reopened(probe: Probe, user: Userspace): void {
  const e = probe.create('e')
  const x = probe.memfd(5000)
  user.preserveFd(e, x, 3n)
  user.close(e)
  probe.step('unfrozen-after-close-ftruncate', user.ftruncate(x, 9000))
  const again = probe.step('create-again-after-close', user.createSession(probe.device, 'e'))
  probe.step('preserve-again-after-close', user.preserveFd(again, x, 3n))
  user.close(again)
  sealed(probe, user)
  const lost = probe.create('lost')
  user.preserveFd(lost, probe.memfd(4096), 1n)
  user.preserveFd(lost, probe.memfd(8192), 2n)
  user.preserveFd(probe.create('implicit'), probe.memfd(4096), 1n)
}

function sealed(probe: Probe, user: Userspace): void {
  const seals = probe.create('seals')
  const flags = memfdCreateFlags.ALLOW_SEALING | memfdCreateFlags.NOEXEC_SEAL
  const noexec = numberOf(user.memfdCreate('x', flags))
  user.ftruncate(noexec, 4096)
  probe.step('noexec-seal-get', user.getSeals(noexec))
  probe.value('noexec-seals', sealsOf(user, noexec))
  probe.step('preserve-noexec-seal', user.preserveFd(seals, noexec, 1n))
  const written = probe.memfd(4096)
  user.addSeals(written, memfdSeals.WRITE)
  probe.step('preserve-write-sealed', user.preserveFd(seals, written, 2n))
  const unsealable = numberOf(user.memfdCreate('z', 0))
  user.ftruncate(unsealable, 10)
  probe.step('preserve-no-sealing-memfd', user.preserveFd(seals, unsealable, 3n))
}

function limits(probe: Probe, user: Userspace): void {
  const session = probe.create('files')
  const files = until(600, (index) => user.preserveFd(session, probe.memfd(10), BigInt(index)))
  probe.value('files-per-session', files.text)
  if (files.failed) user.close(session)
  const open: number[] = []
  const sessions = until(1000, (index) => {
    const answer = user.createSession(probe.device, `l${index}`)
    if (!failed(answer)) open.push(answer)
    return answer
  })
  probe.value('sessions-more', sessions.text)
  for (const fd of open) user.close(fd)
}

/** What the kernel that took over answers. */
export function probeNew(user: Userspace): Answers {
  const probe = new Probe(user)
  probe.device = probe.step('open-first', user.open('/dev/liveupdate'))
  const { device } = probe
  probe.step('retrieve-unknown-session', user.retrieveSession(device, 'zz'))
  const a = probe.step('retrieve-a', user.retrieveSession(device, 'a'))
  probe.step('retrieve-a-again', user.retrieveSession(device, 'a'))
  probe.step('retrieve-fd-unknown-token', user.retrieveFd(a, 99n))
  const m = probe.step('retrieve-fd', user.retrieveFd(a, 1n))
  const same = probe.step('retrieve-fd-again', user.retrieveFd(a, 1n))
  probe.value('same-inode', sameInode(user, m, same))
  probe.step('preserve-on-incoming', user.preserveFd(a, probe.memfd(10), 5n))
  probe.step('create-same-name-as-incoming', user.createSession(device, 'a'))
  const n = probe.create('new')
  probe.step('preserve-retrieved-not-finished', user.preserveFd(n, m, 1n))
  probe.step('restored-ftruncate', user.ftruncate(m, 20000))
  probe.step('restored-write', user.pwrite(m, text('zz'), 15000))
  probe.step('finish-a', user.finish(a))
  probe.step('finish-a-again', user.finish(a))
  probe.step('retrieve-fd-after-finish', user.retrieveFd(a, 1n))
  probe.step('preserve-after-finish', user.preserveFd(n, m, 1n))
  user.close(a)
  probe.step('retrieve-a-after-close', user.retrieveSession(device, 'a'))
  finishing(probe, user)
  return probe.answers
}

function finishing(probe: Probe, user: Userspace): void {
  const { device } = probe
  const lost = numberOf(user.retrieveSession(device, 'lost'))
  probe.step('finish-before-retrieve-fd', user.finish(lost))
  probe.step('retrieve-fd-after-finish-unretrieved', user.retrieveFd(lost, 1n))
  const implicit = numberOf(user.retrieveSession(device, 'implicit'))
  const x = probe.step('implicit-retrieve-fd', user.retrieveFd(implicit, 1n))
  user.close(implicit)
  probe.step('retrieve-implicit-after-close', user.retrieveSession(device, 'implicit'))
  const content = user.pread(x, 5, 0)
  probe.step('implicit-file-readable', content)
  probe.value('implicit-content', failed(content) ? null : new TextDecoder().decode(content))
  const seals = numberOf(user.retrieveSession(device, 'seals'))
  for (const [index, name] of ['noexec', 'write', 'nosealing'].entries()) {
    const fd = numberOf(user.retrieveFd(seals, BigInt(index + 1)))
    probe.value(`restored-${name}-seals`, sealsOf(user, fd))
  }
  const argument = encodeStruct(FINISH.struct, { size: 8, reserved: 1 }, TARGET)
  probe.step('finish-reserved-nonzero', user.ioctl(seals, FINISH.request, argument))
  probe.step('retrieve-b-leave-open', user.retrieveSession(device, 'b'))
}

function until(
  most: number,
  work: (index: number) => Answer<unknown>,
): { readonly text: string; readonly failed: boolean } {
  for (let index = 0; index < most; index++) {
    const answer = work(index)
    if (failed(answer)) return { text: `${index} errno=${-answer.number}`, failed: true }
  }
  return { text: `${most} errno=0`, failed: false }
}

function sameInode(user: Userspace, one: number, other: number): string {
  const [first, second] = [user.fstat(one), user.fstat(other)]
  if (failed(first) || failed(second)) return 'no file'
  return `${Number(first.ino === second.ino)} size ${first.size} mode ${first.mode.toString(8)}`
}

function sealsOf(user: Userspace, fd: number): string {
  const seals = user.getSeals(fd)
  return failed(seals) ? String(seals.number) : seals.toString(16)
}

function closing(user: Userspace, fd: number): void {
  if (fd >= 0) user.close(fd)
}

function numberOf(answer: Answer<number>): number {
  return answer instanceof Failure ? -1 : answer
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value)
}
