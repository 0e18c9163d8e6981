/** Scenario files: reading them, what lies beside them, and what is said of those that are wrong. */
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { FileReader } from '../encode/scenario.ts'
import { complain } from './image-arguments.ts'
import { ExitCode, type Terminal } from './terminal.ts'

/** The exit code, after the reason was printed. */
export interface NoSource {
  readonly exitCode: number
}

/** Problems beyond these are mostly echoes of the first. */
const SHOWN_PROBLEMS = 20

export function refuse(file: string, lines: readonly string[], terminal: Terminal): NoSource {
  for (const line of lines.slice(0, SHOWN_PROBLEMS)) complain(terminal, line)
  if (lines.length > SHOWN_PROBLEMS) {
    complain(terminal, `${file}: ${lines.length - SHOWN_PROBLEMS} more problems`)
  }
  return { exitCode: ExitCode.USAGE }
}

/** Files that a scenario names lie beside it. */
export function readerBeside(scenario: string): FileReader {
  return (name) => readBytes(resolve(dirname(scenario), name))
}

function readBytes(path: string): Uint8Array | { readonly problem: string } {
  try {
    return readFileSync(path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    return { problem: `cannot be read: ${code}` }
  }
}

export function readText(path: string): string | { readonly problem: string } {
  const bytes = readBytes(path)
  if (!(bytes instanceof Uint8Array)) return bytes
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return { problem: 'is no text in UTF-8; expected a scenario in YAML or JSON' }
  }
}
