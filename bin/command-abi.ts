/**
 * `kho-inspect abi`: the declared ABI, listed, shown, compared, checked against kernels and exported.
 *
 * The actions are a table: what each takes, what it does. Options that an action has no use for are
 * refused instead of ignored.
 */
import type { Argv } from 'yargs'
import { type AbiArguments, EXPORT_FORMATS } from './abi-arguments.ts'
import { checkKernel } from './abi-check.ts'
import { exportAbi, freezeAbi } from './abi-export.ts'
import { lintSources } from './abi-lint.ts'
import { diffAbi, listAbi, listReleases, showAbi } from './abi-show.ts'
import { defineCommand, UsageError } from './command.ts'
import { pageSizeOption } from './image-arguments.ts'
import type { Terminal } from './terminal.ts'

interface Action {
  readonly usage: string
  readonly summary: string
  /** How many names it takes. */
  readonly names: readonly [least: number, most: number]
  readonly options: readonly (keyof AbiArguments)[]
  readonly run: (args: AbiArguments, terminal: Terminal) => number | Promise<number>
}

const actions: Readonly<Record<string, Action>> = {
  list: {
    usage: 'list',
    summary: 'every component and version, who carries it, where it is defined',
    names: [0, 0],
    options: ['json'],
    run: listAbi,
  },
  releases: {
    usage: 'releases',
    summary: 'which release speaks which versions',
    names: [0, 0],
    options: ['json'],
    run: listReleases,
  },
  show: {
    usage: 'show NAME...',
    summary: 'a version, release or struct: every field with its bytes and meaning',
    names: [1, 16],
    options: ['json', 'pageSize'],
    run: showAbi,
  },
  diff: {
    usage: 'diff A B | diff [A] --against FILE',
    summary: 'what changed between two versions or releases, and who takes over from whom',
    names: [0, 2],
    options: ['json', 'markdown', 'pageSize', 'against'],
    run: diffAbi,
  },
  check: {
    usage: 'check --btf FILE',
    summary: "a kernel's structs against the declared ones (vmlinux, BTF blob, bzImage)",
    names: [0, 0],
    options: ['json', 'pageSize', 'btf'],
    run: checkKernel,
  },
  lint: {
    usage: 'lint DIR | lint OLD..NEW | lint OLDDIR NEWDIR',
    summary: 'the ABI headers of a kernel source tree, alone or from one state to the next',
    names: [1, 2],
    options: ['json', 'git'],
    run: lintSources,
  },
  export: {
    usage: 'export [NAME] --format c|ksy|json|markdown',
    summary: 'a C header with assertions, a Kaitai specification, JSON or a reference',
    names: [0, 1],
    options: ['format', 'output'],
    run: exportAbi,
  },
  freeze: {
    usage: 'freeze -o FILE',
    summary: "today's declarations as one document, for diff --against",
    names: [0, 0],
    options: ['output'],
    run: freezeAbi,
  },
}

export const command = defineCommand({
  options: (yargs) =>
    yargs
      .positional('action', { choices: Object.keys(actions), demandOption: true, describe: 'what to do' })
      .positional('names', {
        type: 'string',
        array: true,
        default: [] as string[],
        describe: 'versions (kho-v4), releases (linux-7.2, 7.2.13), structs or source trees',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
      .option('markdown', { type: 'boolean', default: false, describe: 'diff: print Markdown' })
      .option('page-size', {
        type: 'string',
        describe: 'show, diff, check: for 4K, 16K or 64K pages only',
        coerce: pageSizeOption,
      })
      .option('against', { type: 'string', describe: "diff: a stored ABI (abi freeze) with today's" })
      .option('btf', {
        type: 'string',
        describe: 'check: vmlinux, BTF blob or bzImage; may be gzip-compressed',
      })
      .option('git', { type: 'string', describe: 'lint: repository of OLD..NEW, instead of the current one' })
      .option('format', { choices: EXPORT_FORMATS, describe: 'export: format' })
      .option('output', {
        alias: 'o',
        type: 'string',
        describe: 'export, freeze: file to write; - is stdout',
      })
      .epilogue(usageText()) as unknown as Argv<AbiArguments & { action: string }>,
  run: async (args, terminal) => {
    const action = actions[args.action] as Action
    refuseStrayOptions(action, args)
    const [least, most] = action.names
    if (args.names.length < least || args.names.length > most) {
      throw new UsageError(`expected kho-inspect abi ${action.usage}`)
    }
    return await action.run(args, terminal)
  },
})

function usageText(): string {
  const width = Math.max(...Object.values(actions).map(({ usage }) => usage.length))
  const lines = Object.values(actions).map(({ usage, summary }) => `  abi ${usage.padEnd(width)}  ${summary}`)
  return [
    'Actions:',
    ...lines,
    '',
    'Exit codes: 0 clean or compatible, 1 findings, incompatible or to be reviewed, 2 usage, 3 unreadable, 4 silent break (diff).',
  ].join('\n')
}

const OPTION_NAMES: readonly (keyof AbiArguments)[] = [
  'json',
  'markdown',
  'pageSize',
  'against',
  'btf',
  'git',
  'format',
  'output',
]

function refuseStrayOptions({ usage, options }: Action, args: AbiArguments): void {
  const stray = OPTION_NAMES.find(
    (name) => args[name] !== undefined && args[name] !== false && !options.includes(name),
  )
  if (stray === undefined) return
  const flag = stray.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  throw new UsageError(`--${flag} has no meaning here; expected kho-inspect abi ${usage}`)
}
