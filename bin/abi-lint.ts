/** `kho-inspect abi lint`: the ABI headers of one kernel source tree, or of two. */
import { existsSync } from 'node:fs'
import { lintTree } from '../inspect/abi-lint.ts'
import { lintChange } from '../inspect/abi-lint-change.ts'
import type { Finding } from '../inspect/lint-finding.ts'
import { ABI_DIRECTORY, type ParsedTree, parseTree, type SourceTree } from '../inspect/source-tree.ts'
import { alignedTable, type Column, type Row } from '../inspect/table.ts'
import { printable } from '../inspect/text.ts'
import type { AbiArguments } from './abi-arguments.ts'
import { printJson } from './abi-show.ts'
import { UsageError } from './command.ts'
import { complain } from './image-arguments.ts'
import { directoryTree, gitTree, type TreeProblem } from './source-trees.ts'
import { ExitCode, type Terminal } from './terminal.ts'

export async function lintSources(args: AbiArguments, terminal: Terminal): Promise<number> {
  const trees: ParsedTree[] = []
  for (const tree of await namedTrees(args)) {
    const parsed = 'problem' in tree ? tree : await parse(tree)
    if ('problem' in parsed) {
      complain(terminal, parsed.problem)
      return ExitCode.UNREADABLE
    }
    trees.push(parsed)
  }
  const [before, after] = trees as [ParsedTree, ParsedTree | undefined]
  const findings = after ? lintChange(before, after) : lintTree(before)
  const names = trees.map(({ name }) => name)
  if (args.json) printJson({ schema: 'kho-inspect/abi-lint@1', trees: names, findings }, terminal)
  else terminal.out(findingsText(names, findings, terminal))
  return findings.some(({ severity }) => severity !== 'note') ? ExitCode.FINDINGS : ExitCode.OK
}

/** One or two trees: directories, or two revisions of a repository. */
async function namedTrees({ names, git }: AbiArguments): Promise<readonly (SourceTree | TreeProblem)[]> {
  const [first = '', second] = names
  const range = second === undefined && !existsSync(first) ? revisions(first) : undefined
  if (range) return Promise.all(range.map((revision) => gitTree(git ?? '.', revision)))
  if (git !== undefined) throw new UsageError('--git goes with a range of revisions, OLD..NEW')
  return names.map(directoryTree)
}

/** `OLD..NEW`; an empty side is HEAD, as in git. */
function revisions(text: string): readonly [string, string] | undefined {
  const [old, next, ...more] = text.split('..')
  if (old === undefined || next === undefined) return undefined
  if (more.length > 0 || next.startsWith('.'))
    throw new UsageError(`expected OLD..NEW with two dots; found '${text}'`)
  return [old || 'HEAD', next || 'HEAD']
}

async function parse(tree: SourceTree): Promise<ParsedTree | TreeProblem> {
  const parsed = await parseTree(tree)
  if (parsed) return parsed
  return {
    problem: `${tree.name}: no headers in ${ABI_DIRECTORY}; expected a kernel source tree of Linux 6.19 or later`,
  }
}

const COLUMNS: readonly Column[] = [{ title: '', paint: 'key' }, { title: '' }, { title: '' }, { title: '' }]

function findingsText(names: readonly string[], findings: readonly Finding[], { paint }: Terminal): string {
  const count = (severity: Finding['severity']): number =>
    findings.filter((one) => one.severity === severity).length
  const rows = findings.map(
    ({ severity, rule, file, line, message }): Row => [`${file}:${line}`, severity, rule, message],
  )
  const counted = (severity: Finding['severity']): string => {
    return `${count(severity)} ${severity}${count(severity) === 1 ? '' : 's'}`
  }
  const summary = [counted('error'), counted('warning'), counted('note')].join(', ')
  const failed = count('error') + count('warning') > 0
  const table = rows.length > 0 ? `${alignedTable(COLUMNS, rows, { paint, indent: '' })}\n\n` : ''
  return `${table}${paint.title(printable(names.join(' -> ')))}: ${failed ? paint.fault(summary) : paint.good(summary)}\n`
}
