/**
 * Scripts of system calls, as a guest program ran them on real kernels, run on simulated ones.
 *
 * One call a line; files and sessions are kept in numbered slots: `c SLOT NAME` creates a session, `p
 * SESSION FILE TOKEN` preserves a file, `K` is the reboot into the next kernel, in which all slots are
 * empty. Numbers are hexadecimal but for slots, modes and fill bytes.
 */
import { type Answer, Failure, failed } from '../../simulate/answer.ts'
import type { Userspace } from '../../simulate/userspace.ts'
import { sumOf } from './guest.ts'
import { bootLive, kexecLive, type LiveMachine } from './live.ts'

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

class Guest {
  readonly #user: Userspace
  #device = NONE
  readonly #sessions = new Map<number, number>()
  readonly #files = new Map<number, number>()

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
        return nothing(user.ftruncate(file, number(1)))
      case 'w':
        return user.pwrite(file, new Uint8Array(Number(number(2))).fill(Number(words[3])), number(1))
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
    if (line !== 'K') return guest.run(line)
    said.push(...machine.console())
    machine = kexecLive(machine, { config })
    guest = new Guest(machine.user)
    return 'kexec'
  })
  return { answers, console: saidOfLive([...said, ...machine.console()]) }
}
