/**
 * The process's edge: streams, colour level, terminal width, exit codes. Only this file and
 * the entry touch `process`, and chalk lives here only.
 */
import { once } from 'node:events'
import { Chalk } from 'chalk'
import type { Paint } from '../inspect/paint.ts'
import { noPaint } from '../inspect/paint.ts'

/** Exit codes, stable and documented in the README. */
export const ExitCode = {
  OK: 0,
  /** The command ran and found something wrong. */
  FINDINGS: 1,
  USAGE: 2,
  /** Unreadable or unrecognised input, or an internal error. */
  UNREADABLE: 3,
  /** `abi diff`: a break that no version string announces. */
  SILENT_BREAK: 4,
} as const

/** What a command may do to the outside: data on stdout, diagnostics on stderr. */
export interface Terminal {
  readonly out: (text: string | Uint8Array) => void
  /** Writes many pieces in chunks, as fast as the reader takes them. */
  readonly outAll: (pieces: Iterable<string>) => Promise<void>
  /** Writes bytes, as fast as the reader takes them. */
  readonly outBytes: (pieces: Iterable<Uint8Array>) => Promise<void>
  readonly err: (line: string) => void
  /** Shows progress in place on a terminal's stderr; a no-op elsewhere. `undefined` clears it. */
  readonly progress: (text: string | undefined) => void
  /**
   * Aborted when the process is told to end, or ends: for commands that have processes and files to clean
   * up. What listens is called before the process goes on to end as it would have.
   */
  readonly stopping: () => AbortSignal
  readonly paint: Paint
  readonly columns: number
}

export type ColorChoice = 'auto' | 'always' | 'never'

/** Colour level: `--color` beats `NO_COLOR`, which beats `FORCE_COLOR`, which beats the terminal's own. */
function colorLevel(choice: ColorChoice, env: NodeJS.ProcessEnv, isTTY: boolean): 0 | 1 | 3 {
  if (choice !== 'auto') return choice === 'always' ? 1 : 0
  if (env.NO_COLOR) return 0
  if (env.FORCE_COLOR) return env.FORCE_COLOR === '0' ? 0 : 1
  return isTTY && env.TERM !== 'dumb' ? 1 : 0
}

/** `isTTY` is of the stream that is painted on. */
export function paintFor(choice: ColorChoice, env: NodeJS.ProcessEnv, isTTY: boolean): Paint {
  const level = colorLevel(choice, env, isTTY)
  if (level === 0) return noPaint
  const chalk = new Chalk({ level })
  const tints = [chalk.cyan, chalk.yellow, chalk.green, chalk.magenta, chalk.blue]
  return {
    key: chalk.cyan,
    number: chalk.yellow,
    address: chalk.blue,
    text: chalk.green,
    title: chalk.bold,
    dim: chalk.dim,
    good: chalk.green,
    warn: chalk.yellow,
    fault: chalk.red,
    tint: (index, text) => (tints[index % tints.length] as (text: string) => string)(text),
  }
}

export function openTerminal(color: ColorChoice): Terminal {
  const { stdout, stderr } = process
  let shown = 0
  return {
    out: (text) => void stdout.write(text),
    outAll: (pieces) => writeAll(stdout, pieces),
    outBytes: (pieces) => writeBytes(stdout, pieces),
    err: (line) => void stderr.write(`${line}\n`),
    progress: (text) => {
      if (!stderr.isTTY || (text === undefined && shown === 0)) return
      const line = text ?? ''
      stderr.write(`\r${line.padEnd(shown)}${text === undefined ? '\r' : ''}`)
      shown = line.length
    },
    stopping: stopSignal,
    paint: paintFor(color, process.env, stdout.isTTY === true),
    columns: stdout.columns ?? 100,
  }
}

const STOPS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP']

function stopSignal(): AbortSignal {
  const stop = new AbortController()
  process.once('exit', () => stop.abort())
  for (const name of STOPS) {
    process.once(name, () => {
      stop.abort()
      process.kill(process.pid, name)
    })
  }
  return stop.signal
}

const CHUNK_CHARACTERS = 1 << 16

async function writeAll(stream: NodeJS.WriteStream, pieces: Iterable<string>): Promise<void> {
  let chunk = ''
  for (const piece of pieces) {
    chunk += piece
    if (chunk.length < CHUNK_CHARACTERS) continue
    if (!stream.write(chunk)) await once(stream, 'drain')
    chunk = ''
  }
  stream.write(chunk)
}

async function writeBytes(stream: NodeJS.WriteStream, pieces: Iterable<Uint8Array>): Promise<void> {
  for (const piece of pieces) if (!stream.write(piece)) await once(stream, 'drain')
}
