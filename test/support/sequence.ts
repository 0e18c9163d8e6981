/**
 * Scripts of system calls, as a guest program ran them on real kernels, run on simulated ones.
 *
 * One call a line; files and sessions are kept in numbered slots: `c SLOT NAME` creates a session, `p
 * SESSION FILE TOKEN` preserves a file, `i TARGET REQUEST BYTES SLOT` is an ioctl with these bytes at the
 * end of a page behind which there is none, `K` is the reboot into the next kernel, in which all slots are
 * empty. Numbers are hexadecimal but for slots, modes, counts and fill bytes.
 */
import { liveupdateIoctls } from '../../abi/liveupdate.ts'
import { type Answer, Failure, failed } from '../../simulate/answer.ts'
import type { Whence } from '../../simulate/file.ts'
import type { Userspace } from '../../simulate/userspace.ts'
import { sumOf } from './guest.ts'
import { bootLive, kexecLive, type LiveMachine, value } from './live.ts'

export interface Sequence {
  readonly seed: number
  readonly script: readonly string[]
  /** To each line: return value, errno, and what else the call gave. */
  readonly answers: readonly string[]
  /** What both kernels said; when in relation to the answers is not known. */
  readonly console: readonly string[]
}

const NONE = -1
/** Of a file's contents, no more than this is summed up. */
const SUMMED = 262144
/** The same for the many files of `N`. */
const SUMMED_EACH = 65536
/** Of what an ioctl left, no more bytes than this are told. */
const SHOWN_BYTES = 160
const WHENCES: readonly Whence[] = ['SEEK_SET', 'SEEK_CUR', 'SEEK_END', 'SEEK_DATA', 'SEEK_HOLE']
const { LIVEUPDATE_SESSION_PRESERVE_FD: PRESERVE, LIVEUPDATE_SESSION_RETRIEVE_FD: RETRIEVE } =
  liveupdateIoctls
/** Place of `fd` in the commands that have one. */
const FD_AT = 4

/** The program that runs the calls of a script. */
export class Guest {
  readonly #user: Userspace
  #device = NONE
  readonly #sessions = new Map<number, number>()
  readonly #files = new Map<number, number>()
  /** Of `L` and `V`. */
  readonly #many: number[] = []

  constructor(user: Userspace) {
    this.#user = user
  }

  /** Runs a call and says what the guest prints of it. */
  run(line: string): string {
    const [op = '', ...words] = line.split(' ')
    const answer = this.#call(op, words)
    if (failed(answer)) return `-1 ${-answer.number}`
    return typeof answer === 'string' ? answer : `${answer} 0`
  }

  #call(op: string, words: readonly string[]): Answer<bigint | number | string> {
    const user = this.#user
    const slot = Number(words[0])
    const session = this.#sessions.get(slot) ?? NONE
    const file = this.#files.get(slot) ?? NONE
    const number = (index: number): bigint => BigInt(`0x${words[index]}`)
    const signed = (index: number): bigint => BigInt.asIntN(64, number(index))
    const other = Number(words[1])
    switch (op) {
      case 'o':
        return this.#keep(user.open('/dev/liveupdate'), (fd) => {
          if (this.#device !== NONE) user.close(this.#device)
          this.#device = fd
        })
      case 'C': {
        const answer = user.close(this.#device)
        this.#device = NONE
        return nothing(answer)
      }
      case 'c':
        return this.#put(this.#sessions, slot, user.createSession(this.#device, nameOf(words[1])))
      case 'r':
        return this.#put(this.#sessions, slot, user.retrieveSession(this.#device, nameOf(words[1])))
      case 'x':
        return this.#close(this.#sessions, slot)
      case 'X':
        return this.#close(this.#files, slot)
      case 'p':
        return nothing(user.preserveFd(session, this.#files.get(other) ?? NONE, number(2)))
      case 'g':
        return this.#put(this.#files, other, user.retrieveFd(session, number(2)))
      case 'f':
        return nothing(user.finish(session, other))
      case 'n': {
        const name = user.getName(session)
        return failed(name) ? name : `0 0 ${name}`.trimEnd()
      }
      case 'm':
        return this.#memfd(slot, Number(number(1)), number(2))
      case 't':
        return nothing(user.ftruncate(file, signed(1)))
      case 'w':
        return user.pwrite(file, new Uint8Array(Number(number(2))).fill(Number(words[3])), signed(1))
      case 'a':
        return nothing(user.fallocate(file, other, number(2), number(3)))
      case 's':
        return nothing(user.addSeals(file, Number(number(1))))
      case 'G':
        return user.getSeals(file)
      case 'k':
        return user.lseek(file, signed(1))
      case 'T':
        return this.#status(file)
      case 'O':
        return this.#put(this.#files, slot, user.open(words[1] as string, { create: 0o600 }))
      case 'U':
        return nothing(user.unlink(words[0] as string))
      case 'd':
        return this.#put(this.#files, slot, user.dup(this.#files.get(other) ?? NONE))
      case 'e':
        return this.#put(this.#sessions, slot, user.dup(this.#sessions.get(other) ?? NONE))
      case 'R': {
        const path = `/proc/self/fd/${this.#files.get(other) ?? NONE}`
        return this.#put(this.#files, slot, user.open(path, { readOnly: words[2] === '0' }))
      }
      case 'l':
        return this.#seek(file, signed(2), other)
      case 'P':
        return read(user.pread(file, Number(number(2)), signed(1)))
      case 'y':
        return user.write(file, new Uint8Array(Number(number(1))).fill(Number(words[2])))
      case 'Y':
        return read(user.read(file, Number(number(1))))
      case 'i':
        return this.#ioctl(words)
      case 'M':
        return this.#preserveMany(session, number(1), Number(words[2]), Number(number(3)))
      case 'N':
        return this.#retrieveMany(session, number(1), Number(words[2]), Number(words[3]))
      case 'L':
        return this.#openMany(Number(words[1]), (at) => user.createSession(this.#device, `${words[0]}${at}`))
      case 'V':
        return this.#openMany(Number(words[1]), (at) =>
          user.retrieveSession(this.#device, `${words[0]}${at}`),
        )
      case 'v':
        for (const fd of this.#many.splice(0)) user.close(fd)
        return 0
      default:
        throw new Error(`no call ${op}`)
    }
  }

  #memfd(slot: number, flags: number, size: bigint): Answer<number> {
    const answer = this.#put(this.#files, slot, this.#user.memfdCreate('m', flags))
    const fd = this.#files.get(slot)
    if (!failed(answer) && fd !== undefined && size > 0n) {
      this.#user.ftruncate(fd, size)
      this.#user.pwrite(fd, new TextEncoder().encode('hello'), 0)
    }
    return answer
  }

  #seek(file: number, offset: bigint, whence: number): Answer<bigint> {
    const name = WHENCES[whence]
    return name === undefined
      ? new Failure(file === NONE ? 'EBADF' : 'EINVAL')
      : this.#user.lseek(file, offset, name)
  }

  /** What the bytes are then is told, too; a descriptor in them is put into its slot and out of sight. */
  #ioctl([target = '', request, text = '', put]: readonly string[]): string {
    const [digits = '', length] = text.replace('-', '').split(':')
    const bytes = new Uint8Array(length === undefined ? digits.length / 2 : Number(length))
    bytes.set(Buffer.from(digits, 'hex'))
    const number = Number.parseInt(request as string, 16)
    const slot = put === undefined ? NONE : Number(put)
    const hasFd = bytes.length >= 2 * FD_AT
    const takesFd = (number & 0xff) === (PRESERVE.request & 0xff) && slot !== NONE && hasFd
    const fds = new DataView(bytes.buffer)
    if (takesFd) fds.setInt32(FD_AT, this.#files.get(slot) ?? NONE, true)
    const answer = this.#user.ioctl(this.#target(target), number, bytes)
    const isRetrieval = (number & 0xff) === (RETRIEVE.request & 0xff)
    const givesFd =
      !failed(answer) && hasFd && ((number & 0xff) < 2 || isRetrieval) && !target.startsWith('F')
    if (givesFd) {
      const slots = isRetrieval ? this.#files : this.#sessions
      this.#put(slots, slot === NONE ? 0 : slot, fds.getInt32(FD_AT, true))
    }
    if (takesFd || givesFd) fds.setInt32(FD_AT, 0, true)
    const left = Buffer.from(bytes.subarray(0, SHOWN_BYTES)).toString('hex')
    return `${failed(answer) ? `-1 ${-answer.number}` : '0 0'} ${left}`.trimEnd()
  }

  #target(name: string): number {
    const slot = Number(name.slice(1))
    if (name.startsWith('D')) return this.#device
    return (name.startsWith('S') ? this.#sessions : this.#files).get(slot) ?? NONE
  }

  /** Preserves new files until that fails; each is a byte longer than the one before. */
  #preserveMany(session: number, token: bigint, count: number, size: number): string {
    for (let at = 0; at < count; at++) {
      const fd = value(this.#user.memfdCreate('M'))
      this.#user.ftruncate(fd, size + at)
      this.#user.pwrite(fd, Uint8Array.of(at), at % (size || 1))
      const answer = this.#user.preserveFd(session, fd, token + BigInt(at))
      this.#user.close(fd)
      if (failed(answer)) return `-1 ${-answer.number} ${at}`
    }
    return `0 0 ${count}`
  }

  /** Retrieves files in steps of `stride` until that fails; a sum over their contents. */
  #retrieveMany(session: number, token: bigint, count: number, stride: number): string {
    let sum = 0n
    for (let at = 0; at < count; at++) {
      const fd = this.#user.retrieveFd(session, token + BigInt((at * stride) % count))
      if (failed(fd)) return `-1 ${-fd.number} ${at} ${sum.toString(16)}`
      const bytes = value(this.#user.pread(fd, SUMMED_EACH, 0))
      sum = BigInt.asUintN(64, sum * 31n + BigInt(`0x${sumOf(bytes)}`))
      this.#user.close(fd)
    }
    return `0 0 ${count} ${sum.toString(16)}`
  }

  #openMany(count: number, open: (at: number) => Answer<number>): string {
    for (let at = 0; at < count; at++) {
      const fd = open(at)
      if (failed(fd)) return `-1 ${-fd.number} ${at}`
      this.#many.push(fd)
    }
    return `0 0 ${count}`
  }

  /** Size, position, mode, and the sum of the contents. */
  #status(file: number): Answer<string> {
    const status = this.#user.fstat(file)
    if (failed(status)) return status
    const { size, mode } = status
    const bytes = this.#user.pread(file, Number(size < SUMMED ? size : SUMMED), 0)
    const position = this.#user.lseek(file, 0, 'SEEK_CUR')
    const sum = failed(bytes) ? '0' : sumOf(bytes).replace(/^0+(?=.)/, '')
    return `0 0 ${size.toString(16)} ${failed(position) ? '' : position.toString(16)} ${mode.toString(8)} ${sum}`
  }

  #put(slots: Map<number, number>, slot: number, opened: Answer<number>): Answer<number> {
    return this.#keep(opened, (fd) => {
      const before = slots.get(slot)
      if (before !== undefined) this.#user.close(before)
      slots.set(slot, fd)
    })
  }

  #keep(opened: Answer<number>, put: (fd: number) => void): Answer<number> {
    if (failed(opened)) return opened
    put(opened)
    return 0
  }

  #close(slots: Map<number, number>, slot: number): Answer<number> {
    const fd = slots.get(slot)
    slots.delete(slot)
    return fd === undefined ? new Failure('EBADF') : nothing(this.#user.close(fd))
  }
}

function nothing(answer: Answer): Answer<number> {
  return failed(answer) ? answer : 0
}

function read(answer: Answer<Uint8Array>): Answer<string> {
  if (failed(answer)) return answer
  return `${answer.length} 0 ${sumOf(answer).replace(/^0+(?=.)/, '')}`
}

function nameOf(word = ''): string {
  return word === '-' ? '' : word
}

/** What the kernels say of live update and of its tests, in their own words. */
const LIVE = /^(luo|memfd_luo|liveupdate test):/

export function saidOfLive(lines: readonly string[]): readonly string[] {
  return lines.filter((line) => LIVE.test(line))
}

/** What simulated kernels of a release answer to each line, and what they say meanwhile. */
export function runSequence(
  release: string,
  script: readonly string[],
): Pick<Sequence, 'answers' | 'console'> {
  const config = { liveupdateTest: true }
  let machine: LiveMachine = bootLive(release, { config })
  let guest = new Guest(machine.user)
  const said: string[] = []
  const answers = script.map((line) => {
    if (!line.startsWith('K')) return guest.run(line)
    said.push(...machine.console())
    machine = kexecLive(machine, { config })
    guest = new Guest(machine.user)
    return 'kexec'
  })
  return { answers, console: saidOfLive([...said, ...machine.console()]) }
}
