/**
 * What a command is: a name, its options as data for yargs, and a function from arguments to an exit
 * code. The table of all commands is in commands.ts; each loads its code only when it runs.
 */
import type { Argv } from 'yargs'
import { type PhysAddr, parseAddress } from '../abi/memory.ts'
import type { Terminal } from './terminal.ts'

// biome-ignore lint/suspicious/noExplicitAny: yargs infers each command's own argument type.
type Arguments = any

export interface Command<A = Arguments> {
  readonly options: (yargs: Argv) => Argv<A>
  readonly run: (args: A, terminal: Terminal) => Promise<number>
}

/** Keeps the type that yargs infers for the arguments, so that `run` sees it. */
export function defineCommand<A>(command: Command<A>): Command<A> {
  return command
}

/** A usage error that yargs cannot see, such as a bad address: reported in one line, exit code 2. */
export class UsageError extends Error {}

/** Coerces an option to an address or size of 64 bits; yargs' own numbers would round it. */
export function addressOption(name: string): (text: string | undefined) => PhysAddr | undefined {
  return (text) => {
    if (text === undefined) return undefined
    const value = parseAddress(text)
    if (value === undefined) {
      throw new UsageError(
        `${name}: expected an address of 64 bits, hexadecimal (0x…) or decimal; found '${text}'`,
      )
    }
    return value
  }
}
