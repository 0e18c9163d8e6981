/** `kho-inspect hex`: annotated hex dump of an address or of a path in the decoded tree. */
import { type PhysAddr, parseAddress, phys } from '../abi/memory.ts'
import type { Handover } from '../inspect/decode.ts'
import { regionsIn } from '../inspect/regions.ts'
import { renderHex } from '../inspect/render-hex.ts'
import { findNode, type Node } from '../inspect/tree.ts'
import { addressOption, defineCommand, UsageError } from './command.ts'
import { complain, imageOptions, listCandidates, openHandover } from './image-arguments.ts'
import { ExitCode, type Terminal } from './terminal.ts'

/** Bytes shown at an address where nothing was decoded and no length is given. */
const DEFAULT_LENGTH = 256

export const command = defineCommand({
  options: (yargs) =>
    imageOptions(yargs)
      .positional('image', { type: 'string', demandOption: true, describe: 'image file, or FILE@ADDR' })
      .positional('place', {
        type: 'string',
        demandOption: true,
        describe: 'physical address, or path: kho, luo.sessions, …',
      })
      .positional('length', {
        type: 'string',
        describe: 'bytes; without it, to the end of what is there',
        coerce: addressOption('length'),
      })
      .option('all', { type: 'boolean', default: false, describe: 'print rows that repeat, too' }),
  run: async (args, terminal) => {
    if (args.length === 0n) throw new UsageError('length: expected at least 1 byte; found 0')
    const opened = await openHandover([args.image], args, terminal)
    if (!opened) return ExitCode.UNREADABLE
    try {
      listCandidates(opened.candidates, terminal)
      const { handover } = opened.candidates[0]
      return await printHex(handover, args.place, args.length, args.all, terminal)
    } finally {
      opened.image.close()
    }
  },
})

async function printHex(
  handover: Handover,
  place: string,
  length: bigint | undefined,
  all: boolean,
  terminal: Terminal,
): Promise<number> {
  const address = parseAddress(place)
  const found = address === undefined ? findNode(handover.tree, place) : undefined
  if (found && 'problem' in found) {
    complain(terminal, found.problem)
    return ExitCode.USAGE
  }
  const ranges = found ? rangesOf(found.node) : [rangeAt(handover, address as PhysAddr)]
  if (ranges.length === 0) {
    complain(terminal, `'${place}' is computed; no bytes of the image stand for it`)
    return ExitCode.USAGE
  }
  for (const { start, end } of ranges) {
    const until = length === undefined ? end : start + length
    const regions = regionsIn(handover, start, until)
    const offsets = handover.memory.filePosition(start) !== undefined
    const options = { paint: terminal.paint, all, offsets }
    for (const line of renderHex(handover.memory, regions, start, until, options))
      await terminal.outAll([line, '\n'])
  }
  return ExitCode.OK
}

interface Range {
  readonly start: PhysAddr
  readonly end: bigint
}

/** The bytes of a node: its own, all pages of a list, all pages of the map. */
function rangesOf(node: Node): readonly Range[] {
  if (node.kind === 'preserved')
    return node.map.pages.map(({ pa, length }) => ({ start: pa, end: pa + BigInt(length) }))
  if (node.kind === 'list' && node.storage?.kind === 'blocks') {
    const { blocks, length } = node.storage
    return blocks.map(({ pa }) => ({ start: pa, end: pa + BigInt(length) }))
  }
  return node.length > 0 ? [{ start: node.pa, end: node.pa + BigInt(node.length) }] : []
}

/** From an address to the end of the structure it lies in. */
function rangeAt(handover: Handover, address: PhysAddr): Range {
  const [region] = regionsIn(handover, address, address + 1n)
  const end = region ? region.pa + BigInt(region.length) : address + BigInt(DEFAULT_LENGTH)
  return { start: phys(address), end }
}
