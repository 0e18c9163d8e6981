#!/usr/bin/env node
/**
 * Entry: parses the command line, runs one command, sets the exit code. The only place besides
 * terminal.ts that touches `process`.
 */
import yargs, { type Argv } from 'yargs'
import { UsageError } from './command.ts'
import { commands } from './commands.ts'
import { packageVersion } from './package-version.ts'
import { type ColorChoice, ExitCode, openTerminal } from './terminal.ts'

const COLORS: readonly ColorChoice[] = ['auto', 'always', 'never']

function withCommands(parser: Argv, done: (code: number) => void): Argv {
  for (const { syntax, summary, load } of commands) {
    parser.command(
      syntax,
      summary,
      async (inner) => (await load()).command.options(inner),
      async (args) => {
        const terminal = openTerminal(args.color as ColorChoice)
        done(await (await load()).command.run(args, terminal))
      },
    )
  }
  return parser
}

/** `--color` alone means always, as elsewhere; it must not swallow the word behind it. */
function colorArgument(arg: string, index: number, args: readonly string[]): string {
  if (arg === '--no-color') return '--color=never'
  return arg === '--color' && !COLORS.some((choice) => choice === args[index + 1]) ? '--color=always' : arg
}

/**
 * An option given twice would reach its command as a list. yargs' own answer (duplicate-arguments-array)
 * would also drop all images but the last.
 */
function refuseRepeated(args: readonly string[]): void {
  const end = args.indexOf('--')
  const names = (end < 0 ? args : args.slice(0, end))
    .filter((arg) => /^--./.test(arg))
    .map((arg) => arg.split('=')[0])
  const repeatable = commands.flatMap((command) => command.repeatable ?? [])
  const repeated = names.find((name, i) => names.indexOf(name) !== i && !repeatable.includes(name as string))
  if (repeated !== undefined) throw new UsageError(`${repeated} is given more than once`)
}

/** yargs only says what it recommends instead. */
function unknownCommand(message: string): string {
  return message.startsWith('Did you mean') ? `unknown command '${process.argv[2]}'. ${message}` : message
}

/** Every line of trouble has the same form: `kho-inspect: what, where`. */
function complain(message: string): void {
  process.stderr.write(`kho-inspect: ${message}\n`)
}

async function main(): Promise<number> {
  let code: number = ExitCode.OK
  const parser = yargs()
    .scriptName('kho-inspect')
    .usage('$0 <command>\n\nReads, checks and makes Linux live-update handovers (KHO and LUO).')
    .parserConfiguration({
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'dot-notation': false,
    })
    .option('color', {
      choices: COLORS,
      default: 'auto' as ColorChoice,
      describe: 'colour the output',
      global: true,
    })
    .locale('en')
    .wrap(Math.min(process.stdout.columns ?? 100, 120))
    .version(packageVersion())
    .help()
    .strict()
    .demandCommand(1, 'expected a command')
    .recommendCommands()
    .exitProcess(false)
    .fail((message, error) => {
      throw error ?? new UsageError(unknownCommand(message))
    })
  withCommands(parser, (result) => {
    code = result
  })
  const args = process.argv.slice(2).map(colorArgument)
  refuseRepeated(args)
  await parser.parseAsync(args)
  return code
}

/** A reader that goes away (`| head`) is no error. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(ExitCode.OK)
  throw error
})

main().then(
  (code) => {
    process.exitCode = code
  },
  (error: Error) => {
    // What a coerce function throws comes out of yargs as an error of its own.
    const usage = error instanceof UsageError || error.name === 'YError'
    complain(
      usage
        ? `${error.message.replace(/\s*\n\s*/g, ' ')} (see kho-inspect --help)`
        : (error.stack ?? String(error)),
    )
    process.exitCode = usage ? ExitCode.USAGE : ExitCode.UNREADABLE
  },
)
