#!/usr/bin/env node
/**
 * Entry: runs the command line of this process. The only place besides terminal.ts that touches `process`.
 */
import { main, troubleLine } from './main.ts'
import { ExitCode, openTerminal } from './terminal.ts'

/** A reader that goes away (`| head`) is no error. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(ExitCode.OK)
  throw error
})

main(process.argv.slice(2), openTerminal).then(
  (code) => {
    process.exitCode = code
  },
  (error: Error) => {
    process.stderr.write(`${troubleLine(error.stack ?? String(error))}\n`)
    process.exitCode = ExitCode.UNREADABLE
  },
)
