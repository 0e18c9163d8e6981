/** `kho-inspect dump`: what a handover holds, as a tree for people, as JSON or as YAML. */

import type { Handover } from '../inspect/decode.ts'
import {
  handoverToJson,
  type Json,
  jsonAt,
  jsonText,
  materialized,
  nodeToJson,
} from '../inspect/render-json.ts'
import { renderFaults, renderNode, renderText } from '../inspect/render-text.ts'
import { escapeUnprintable, isPrintable } from '../inspect/text.ts'
import { findNode } from '../inspect/tree.ts'
import { defineCommand, UsageError } from './command.ts'
import { complain, imageOptions, listCandidates, openHandover } from './image-arguments.ts'
import { ExitCode, type Terminal } from './terminal.ts'

export const command = defineCommand({
  options: (yargs) =>
    imageOptions(yargs)
      .positional('image', {
        type: 'string',
        array: true,
        demandOption: true,
        describe: 'image file, FILE@ADDR for flat memory from ADDR on, or a copy of debugfs kho',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print JSON (kho-inspect/dump)' })
      .option('yaml', { type: 'boolean', default: false, describe: 'print the same document as YAML' })
      .option('only', { type: 'string', describe: 'one part: luo.sessions[vm-alpha], preserved, …' })
      .option('folios', {
        type: 'boolean',
        default: false,
        describe: 'every folio record of every memfd (JSON, YAML)',
      })
      .option('extents', { type: 'boolean', default: false, describe: 'every extent of preserved memory' }),
  run: async (args, terminal) => {
    if (args.json && args.yaml) throw new UsageError('--json and --yaml exclude each other')
    const opened = await openHandover(args.image, args, terminal)
    if (!opened) return ExitCode.UNREADABLE
    try {
      listCandidates(opened.candidates, terminal)
      return await dump(opened.candidates[0].handover, args, terminal)
    } finally {
      opened.image.close()
    }
  },
})

interface DumpArguments {
  readonly json: boolean
  readonly yaml: boolean
  readonly only: string | undefined
  readonly folios: boolean
  readonly extents: boolean
}

async function dump(handover: Handover, args: DumpArguments, terminal: Terminal): Promise<number> {
  const part = args.only === undefined ? undefined : findNode(handover.tree, args.only)
  if (part && 'problem' in part) return dumpComputed(handover, args, part.problem, terminal)
  if (args.json || args.yaml) {
    const value = part ? nodeToJson(part.node, args) : handoverToJson(handover, args)
    await (args.json ? writeJson(value, terminal) : writeYaml(value, terminal))
  } else {
    const options = { paint: terminal.paint, extents: args.extents }
    terminal.out(part ? renderNode(handover, part.node, options) : renderText(handover, options))
    for (const line of renderFaults(handover.faults, terminal.paint)) terminal.err(line)
  }
  if (!handover.version) return unknownVersion(handover, terminal)
  return handover.faults.some((fault) => fault.severity === 'error') ? ExitCode.FINDINGS : ExitCode.OK
}

/** Parts of the document that are no nodes of the tree, such as preserved.entries: printed as JSON or YAML. */
async function dumpComputed(
  handover: Handover,
  args: DumpArguments,
  problem: string,
  terminal: Terminal,
): Promise<number> {
  const value = jsonAt(handoverToJson(handover, args), args.only ?? '')
  if (value === undefined) {
    complain(terminal, `--only: ${problem}`)
    return ExitCode.USAGE
  }
  await (args.yaml ? writeYaml(value, terminal) : writeJson(value, terminal))
  return ExitCode.OK
}

async function writeJson(value: Json, terminal: Terminal): Promise<void> {
  await terminal.outAll(jsonText(value))
  terminal.out('\n')
}

/** YAML with every unprintable character escaped, which needs double quotes around its text. */
async function writeYaml(value: Json, terminal: Terminal): Promise<void> {
  const { Document, visit } = await import('yaml')
  const document = new Document(materialized(value))
  visit(document, {
    Scalar: (_key, node) => {
      if (typeof node.value === 'string' && !isPrintable(node.value)) node.type = 'QUOTE_DOUBLE'
    },
  })
  const escaped = escapeUnprintable(String(document), (character) => {
    if (character === '\n') return character
    return `\\U${(character.codePointAt(0) as number).toString(16).padStart(8, '0')}`
  })
  terminal.out(escaped)
}

/** The root's string is not known: the FDT was shown, and one line says what was expected. */
function unknownVersion(handover: Handover, terminal: Terminal): number {
  const fault = handover.faults.find(({ severity }) => severity === 'error')
  complain(
    terminal,
    `${fault?.message ?? 'no root FDT'}; expected ${fault?.expected ?? 'an FDT'}, found ${fault?.found ?? 'none'}`,
  )
  return ExitCode.UNREADABLE
}
