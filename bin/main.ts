/**
 * One run of the command line: parses it, runs one command, answers with the exit code.
 */
import yargs, { type Argv } from 'yargs'
import { UsageError } from './command.ts'
import { commands } from './commands.ts'
import { packageVersion } from './package-version.ts'
import { type ColorChoice, ExitCode, type Terminal } from './terminal.ts'

const COLORS: readonly ColorChoice[] = ['auto', 'always', 'never']

function withCommands(parser: Argv, open: OpenTerminal, done: (code: number) => void): Argv {
  for (const { syntax, summary, load } of commands) {
    parser.command(
      syntax,
      summary,
      async (inner) => (await load()).command.options(inner),
      async (args) => {
        done(await (await load()).command.run(args, open(args.color as ColorChoice)))
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
function unknownCommand(message: string, [command]: readonly string[]): string {
  return message.startsWith('Did you mean') ? `unknown command '${command}'. ${message}` : message
}

/** Every line of trouble has the same form: `kho-inspect: what, where`. */
export function troubleLine(message: string): string {
  return `kho-inspect: ${message}`
}

type OpenTerminal = (color: ColorChoice) => Terminal

/** Runs what the arguments say; mistakes in them are said on the terminal. Rejects only for a bug of ours. */
export async function main(args: readonly string[], open: OpenTerminal): Promise<number> {
  try {
    return await runCommand(args, open)
  } catch (error) {
    // What a coerce function throws comes out of yargs as an error of its own.
    const isUsage = error instanceof UsageError || (error as Error).name === 'YError'
    if (!isUsage) throw error
    const message = (error as Error).message.replace(/\s*\n\s*/g, ' ')
    open('auto').err(troubleLine(`${message} (see kho-inspect --help)`))
    return ExitCode.USAGE
  }
}

async function runCommand(args: readonly string[], open: OpenTerminal): Promise<number> {
  const { columns, out } = open('auto')
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
    .wrap(Math.min(columns, 120))
    .version(packageVersion())
    .help()
    .strict()
    .demandCommand(1, 'expected a command')
    .recommendCommands()
    .exitProcess(false)
    .fail((message, error) => {
      throw error ?? new UsageError(unknownCommand(message, args))
    })
  withCommands(parser, open, (result) => {
    code = result
  })
  const said = args.map(colorArgument)
  refuseRepeated(said)
  await parser.parseAsync(said, {}, (_error, _args, help) => {
    if (help !== '') out(`${help}\n`)
  })
  return code
}
