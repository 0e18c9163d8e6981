/** Runs an action of `kho-inspect abi` in this process, with what it would have written. */
import type { AbiArguments } from '../../bin/abi-arguments.ts'
import { UsageError } from '../../bin/command.ts'
import { command } from '../../bin/command-abi.ts'
import { Written } from './command-line.ts'

export interface Ran {
  /** Exit code; for a usage error its text. */
  readonly status: number | string
  readonly out: string
  readonly err: string
}

/** `directory` is written as DIR in what comes back. */
export async function runAbi(
  directory: string,
  action: string,
  names: readonly string[] = [],
  options: Partial<AbiArguments> = {},
): Promise<Ran> {
  const written = new Written()
  const none: AbiArguments = {
    names,
    json: false,
    markdown: false,
    pageSize: undefined,
    against: undefined,
    btf: undefined,
    git: undefined,
    format: undefined,
    output: undefined,
  }
  const hide = (text: string): string => text.replaceAll(directory, 'DIR')
  try {
    const status = await command.run({ ...none, ...options, action }, written.open('never'))
    return { status, out: hide(written.stdout), err: hide(written.stderr) }
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    return { status: hide(error.message), out: hide(written.stdout), err: hide(written.stderr) }
  }
}
