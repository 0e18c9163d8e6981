/**
 * What a command is: a name, its options as data for yargs, and a function from arguments to an exit
 * code. The table of all commands is in commands.ts; each loads its code only when it runs.
 */
import type { Argv } from 'yargs'
import type { Terminal } from './terminal.ts'

// biome-ignore lint/suspicious/noExplicitAny: yargs infers each command's own argument type.
type Arguments = any

export interface Command<A = Arguments> {
  /** yargs' form: name and positionals, `dump <image..>`. */
  readonly syntax: string
  readonly summary: string
  readonly options: (yargs: Argv) => Argv<A>
  readonly run: (args: A, terminal: Terminal) => Promise<number>
}

/** A usage error that yargs cannot see, such as a bad address: reported in one line, exit code 2. */
export class UsageError extends Error {}
