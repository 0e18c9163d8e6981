/** The CLI in this process: a command line in, what it writes and its exit code out. The entry is left out. */
import { main } from '../../bin/main.ts'
import { type ColorChoice, paintFor, type Terminal } from '../../bin/terminal.ts'
import type { Run } from './images.ts'

/** What is written to a terminal that nobody looks at, as the streams of a process would have it. */
export class Written {
  readonly #stdout: Uint8Array[] = []
  #stderr = ''

  get stdout(): string {
    return Buffer.concat(this.#stdout).toString()
  }

  get stderr(): string {
    return this.#stderr
  }

  readonly open = (color: ColorChoice): Terminal => {
    const out = (piece: string | Uint8Array): void => {
      this.#stdout.push(typeof piece === 'string' ? Buffer.from(piece) : piece.slice())
    }
    const outAll = async (pieces: Iterable<string | Uint8Array>): Promise<void> => {
      for (const piece of pieces) out(piece)
    }
    return {
      out,
      outAll,
      outBytes: outAll,
      err: (line) => {
        this.#stderr += `${line}\n`
      },
      progress: () => {},
      stopping: () => new AbortController().signal,
      paint: paintFor(color, {}, false),
      columns: 100,
    }
  }
}

/** Paths are relative to the repository's root. Rejects for a bug of ours, as `main` does. */
export async function ran(args: readonly string[]): Promise<Run> {
  const written = new Written()
  const status = await main(args, written.open)
  return { status, stdout: written.stdout, stderr: written.stderr }
}
