/** A directory for the files of one run, which goes when the run ends or is interrupted. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export async function withDirectory<T>(
  signal: AbortSignal | undefined,
  use: (directory: string) => Promise<T>,
): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'kho-inspect-'))
  const remove = (): void => rmSync(directory, { recursive: true, force: true })
  signal?.addEventListener('abort', remove)
  try {
    return await use(directory)
  } finally {
    signal?.removeEventListener('abort', remove)
    remove()
  }
}
