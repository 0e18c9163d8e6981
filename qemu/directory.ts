/** A directory for the files of one run, which goes when the run ends or is interrupted. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MachineFailure } from './failure.ts'

/** The signal that `use` gets is aborted with the caller's, before the directory goes: nobody writes there any more. */
export async function withDirectory<T>(
  signal: AbortSignal | undefined,
  use: (directory: string, stopping: AbortSignal) => Promise<T>,
): Promise<T> {
  const directory = makeDirectory()
  const stopping = new AbortController()
  const remove = (): void => rmSync(directory, { recursive: true, force: true })
  const stop = (): void => {
    stopping.abort()
    remove()
  }
  signal?.addEventListener('abort', stop)
  if (signal?.aborted) stopping.abort()
  try {
    return await use(directory, stopping.signal)
  } finally {
    signal?.removeEventListener('abort', stop)
    remove()
  }
}

function makeDirectory(): string {
  try {
    return mkdtempSync(join(tmpdir(), 'kho-inspect-'))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new MachineFailure(`${tmpdir()}, where temporary files go, cannot be written: ${code}`)
  }
}
