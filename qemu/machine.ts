/**
 * One run of QEMU: a process with its console, its control connection and, if wanted, its debugger. It has
 * a time limit, and leaves no process behind.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { kill } from 'node:process'
import type { Board } from './board.ts'
import { ConsoleLog } from './console-log.ts'
import { ConnectionLost, MachineFailure } from './failure.ts'
import { GdbClient } from './gdb.ts'
import { QmpClient } from './qmp.ts'

/**
 * `exit`: the machine was switched off, or restarted. `hung`: it said that it would do no more. `time`: its
 * time was up.
 */
export type Ending = 'exit' | 'hung' | 'time'

export interface RunLimits {
  /** Seconds that a run may take. */
  readonly timeout: number
  /** Ends the run at once. */
  readonly signal?: AbortSignal | undefined
  /** Called with each line of the console. */
  readonly onLine?: ((line: string) => void) | undefined
}

export interface MachineSetup extends RunLimits {
  readonly board: Board
  /** For the sockets; the caller's, who removes it. */
  readonly directory: string
  /** QEMU's arguments besides console and connections. It is started stopped. */
  readonly args: readonly string[]
  readonly debugger: boolean
  /** Whether after this line nothing more is to be expected. */
  readonly isLast: (line: string) => boolean
}

/**
 * The console is a file that is read as it grows: of a pipe or socket that is full for a moment QEMU's 16550
 * drops what does not fit (hw/char/serial.c: MAX_XMIT_RETRY).
 */
const CONSOLE = 'console'
const CONSOLE_POLL_MS = 20
const CONSOLE_PIECE_BYTES = 64 * 1024
/** What is killed is gone after some milliseconds; more if the machine that we are on is busy. */
const GONE_MS = 5000
const GONE_POLL_MS = 2
/** A kernel that has panicked says a few more lines, and may restart. */
const LAST_WORDS_MS = 2000
/** A connection breaks some moments before its process is seen to end. */
const END_SEEN_MS = 2000
const ENDED: Readonly<Record<Ending, string>> = {
  exit: 'the machine was switched off too early',
  hung: 'the machine stood still after a panic',
  time: "the machine's time was up",
}
/** QEMU's own words that are kept for the message of a failure. */
const STDERR_CHARACTERS = 2000

export class Machine {
  readonly log: ConsoleLog
  /** How the run ended; never before its log is complete. */
  readonly ended: Promise<Ending>
  readonly qmp: QmpClient
  readonly gdb: GdbClient | undefined
  readonly #qemu: QemuProcess

  private constructor(qemu: QemuProcess, qmp: QmpClient, gdb: GdbClient | undefined) {
    this.#qemu = qemu
    this.log = qemu.log
    this.ended = qemu.ended
    this.qmp = qmp
    this.gdb = gdb
  }

  /** Starts QEMU with the machine stopped before its first instruction. */
  static async start(setup: MachineSetup): Promise<Machine> {
    const connections = setup.debugger ? ['qmp', 'gdb'] : ['qmp']
    const path = (name: string): string => join(setup.directory, name)
    const servers = connections.map((name) => createServer().listen(path(name)))
    const sockets = servers.map((server) => once(server, 'connection') as Promise<[Socket]>)
    await Promise.all(servers.map((server) => once(server, 'listening')))
    const qemu = new QemuProcess(setup, servers, [
      ...['-S', '-serial', `file:${path(CONSOLE)}`, '-monitor', 'none'],
      ...connections.flatMap((name) => [`-${name}`, `unix:${path(name)}`]),
    ])
    try {
      const [[qmp], gdb] = (await qemu.unlessItEnds(Promise.all(sockets))) as [[Socket], [Socket]?]
      const opened = await qemu.unlessItEnds(QmpClient.open(qmp))
      return new Machine(qemu, opened, gdb && new GdbClient(gdb[0]))
    } catch (error) {
      qemu.end()
      throw error
    }
  }

  /** Waits for something of the machine; that it ends first is a failure, whose message tells by `why` what it meant. */
  unlessItEnds<T>(wanted: Promise<T>, why?: () => string): Promise<T> {
    return this.#qemu.unlessItEnds(wanted, why)
  }

  /** Ends the run, if it has not ended. */
  close(): void {
    this.#qemu.end()
  }
}

/** The process, its output and its time. */
class QemuProcess {
  readonly log: ConsoleLog
  readonly ended: Promise<Ending>
  readonly #child: ChildProcess
  readonly #servers: readonly Server[]
  readonly #signal: AbortSignal | undefined
  readonly #timers: NodeJS.Timeout[] = []
  readonly #console: number
  readonly #stop = (): void => {
    this.end()
    waitUntilGone(this.#child)
  }
  #ending: Ending = 'exit'
  #stderr = ''
  #failure: string | undefined

  constructor(setup: MachineSetup, servers: readonly Server[], args: readonly string[]) {
    const { board, timeout, signal, onLine, isLast } = setup
    this.#servers = servers
    this.#signal = signal
    this.log = new ConsoleLog((line) => {
      onLine?.(line)
      if (isLast(line)) this.#endAfter(LAST_WORDS_MS, 'hung')
    })
    // A process group of its own: what a wrapper around QEMU starts is ended with it.
    this.#console = openSync(join(setup.directory, CONSOLE), 'w+')
    this.#child = spawn(board.program, [...setup.args, ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    })
    this.#timers.push(setInterval(() => this.#readConsole(), CONSOLE_POLL_MS))
    this.#child.stderr?.on('data', (bytes: Buffer) => {
      this.#stderr = (this.#stderr + bytes.toString()).slice(-STDERR_CHARACTERS)
    })
    this.ended = this.#untilEnd(board)
    signal?.addEventListener('abort', this.#stop)
    if (signal?.aborted) this.#stop()
    this.#endAfter(timeout * 1000, 'time')
  }

  async unlessItEnds<T>(wanted: Promise<T>, why?: () => string): Promise<T> {
    const ending = this.ended.then((how): never => {
      throw this.#endedTooEarly(how, why)
    })
    try {
      return await Promise.race([wanted, ending])
    } catch (error) {
      if (error instanceof ConnectionLost) await Promise.race([ending, this.#pause(END_SEEN_MS)])
      throw error
    }
  }

  /** QEMU's own words, if it said something; else how the machine ended, and what that meant. */
  #endedTooEarly(how: Ending, why: (() => string) | undefined): MachineFailure {
    const said = this.#failure ?? this.#stderr.trim().replace(/\s*\n\s*/g, '; ')
    if (said !== '' && how !== 'time') return new MachineFailure(`QEMU ended too early: ${said}`)
    const told = why === undefined ? '' : `: ${why()}`
    return new MachineFailure(`${ENDED[how]}${told}`)
  }

  /** Never over if the process ends first. */
  #pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      this.#timers.push(setTimeout(resolve, milliseconds))
    })
  }

  end(): void {
    for (const timer of this.#timers.splice(0)) clearTimeout(timer)
    this.#signal?.removeEventListener('abort', this.#stop)
    for (const server of this.#servers) server.close()
    killGroup(this.#child)
  }

  async #untilEnd({ program, package: name }: Board): Promise<Ending> {
    await new Promise<void>((resolve) => {
      this.#child.on('close', () => resolve())
      this.#child.on('error', (error: NodeJS.ErrnoException) => {
        this.#failure =
          error.code === 'ENOENT'
            ? `${program} is not installed (Debian: ${name})`
            : `${program}: ${error.message}`
        resolve()
      })
    })
    this.#readConsole()
    closeSync(this.#console)
    this.log.end()
    this.end()
    return this.#ending
  }

  #readConsole(): void {
    const bytes = new Uint8Array(CONSOLE_PIECE_BYTES)
    for (let got = -1; got !== 0; ) {
      got = readSync(this.#console, bytes, 0, bytes.length, null)
      this.log.write(bytes.subarray(0, got))
    }
  }

  #endAfter(milliseconds: number, how: Ending): void {
    this.#timers.push(
      setTimeout(() => {
        this.#ending = how
        killGroup(this.#child)
      }, milliseconds),
    )
  }
}

function killGroup({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid === undefined || exitCode !== null || signalCode !== null) return
  try {
    kill(-pid, 'SIGKILL')
  } catch {
    // It has gone by itself in the meantime.
  }
}

/**
 * Stands still until a process that was killed is gone: who is interrupted, or at its own end, comes to no
 * more events. Where there is no /proc, nobody waits.
 */
function waitUntilGone({ pid }: ChildProcess): void {
  const sleeper = new Int32Array(new SharedArrayBuffer(4))
  for (let waited = 0; waited < GONE_MS && isRunning(pid); waited += GONE_POLL_MS) {
    Atomics.wait(sleeper, 0, 0, GONE_POLL_MS)
  }
}

/** Whether one of its threads is: a zombie only waits for us to take note, which Node does between events. */
function isRunning(pid: number | undefined): boolean {
  const threads = `/proc/${pid}/task`
  return existsSync(threads) && readdirSync(threads).some((thread) => isAlive(`${threads}/${thread}/stat`))
}

function isAlive(stat: string): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(stat, 'latin1'))
  } catch {
    return false
  }
}
