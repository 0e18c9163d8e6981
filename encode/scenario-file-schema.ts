/**
 * What files hold, as scenarios and the steps of timelines say it: names, contents, memfds, files of other
 * handlers.
 */
import { memfdFolioFlags, memfdSeals } from '../abi/memfd.ts'
import type { Text } from './handover.ts'
import {
  choice,
  defined,
  list,
  meaning,
  needed,
  object,
  oneKeyOf,
  optional,
  orList,
  orShort,
  type Read,
  type Shape,
  text,
} from './scenario-shape.ts'
import { count, hexBytes, integer, size, u64 } from './scenario-units.ts'

export const U32_MAX = 0xffff_ffff

/** Lower-case names of flag bits. */
function flagWords(flags: Readonly<Record<string, number>>): readonly string[] {
  return Object.keys(flags).map((name) => name.toLowerCase())
}

export const seals = choice(flagWords(memfdSeals))
const folioFlags = choice(flagWords(memfdFolioFlags))

/** A name, or its bytes where they are no UTF-8. */
export const name = orShort(
  meaning(object('its bytes', { hex: needed(hexBytes, 'The bytes of the name.') }), ({ hex }): Text => hex),
  text('a name'),
  (value): Text => value,
)

/** How many copies: a number, or as many as one block, array or chunk holds. */
export const copies = orShortText(
  integer(1n, BigInt(U32_MAX), 'a number'),
  'a number such as 120, or full, full + 1, 2 full + 1',
  /^(?:(\d{1,4}) )?full(?: \+ (\d{1,4}))?$/,
)

/** A multiple of what fits, and some more. */
export interface FullCopies {
  readonly full: number
  readonly plus: number
}
export type Copies = bigint | FullCopies

function orShortText(number: Shape<bigint>, expects: string, pattern: RegExp): Shape<Copies> {
  return {
    expects,
    read(value, path, report) {
      const [whole, full = '1', plus = '0'] = (typeof value === 'string' && pattern.exec(value)) || []
      if (whole !== undefined) return { full: Number(full), plus: Number(plus) }
      if (typeof value === 'string')
        return report.wrong(path, `expected ${expects}, found ${JSON.stringify(value)}`)
      return number.read(value, path, report)
    },
    schema: (definitions) => ({
      anyOf: [number.schema(definitions), { type: 'string', pattern: pattern.source }],
      examples: ['full + 1'],
    }),
  }
}

const pattern = orShort(
  object('a pattern', {
    seed: needed(u64, 'Seed of the sequence; the offset is added to it at each start.'),
    every: optional(size, 'The sequence starts anew at each multiple of this; once if left out.'),
    run: optional(size, 'Bytes of the sequence at each start; zeros follow. Without it, no zeros.'),
  }),
  integer(0n, 2n ** 64n - 1n, 'a seed'),
  (seed): { readonly seed: bigint; readonly every?: bigint; readonly run?: bigint } => ({ seed }),
)

const words = object('marking words', {
  word: needed(u64, 'The word at offset 0; the offset is added to it.'),
  every: needed(size, 'One word of 64 bits at each multiple of this, zeros between.'),
})

export const CONTENT_KINDS = ['text', 'hex', 'file', 'byte', 'pattern', 'words'] as const

const piece = oneKeyOf(
  object('contents', {
    text: optional(text(), 'Text in UTF-8.'),
    hex: optional(hexBytes, 'Bytes in hex.'),
    file: optional(text('a file name'), 'A file, relative to the scenario.'),
    byte: optional(count(0, 255, 'a byte'), 'The same byte everywhere.'),
    pattern: optional(
      pattern,
      'Bytes of a xorshift64 sequence, as the guest program of the lab writes them.',
    ),
    words: optional(words, 'Marks at regular places.'),
    at: optional(size, 'Offset of the first byte; 0 if left out.'),
    length: optional(size, 'Bytes of a byte, pattern or words; to the end if left out.'),
  }),
  CONTENT_KINDS,
)
export const content = defined('content', () => orList(piece, 'contents'))
export type ScenarioContent = Read<typeof content>

const folios = object('folios', {
  order: optional(count(0, 20, 'an order'), 'Folios of 2^order pages each; 0 if left out.'),
  count: optional(
    copies,
    'How many; to the end of the file if left out. full: as many records as one chunk lists.',
  ),
  hole: optional(count(1, U32_MAX, 'a number of pages'), 'Pages without a folio, instead of an order.'),
  flags: optional(list(folioFlags, 'flags'), 'State of the folios; dirty and uptodate if left out.'),
})
export type ScenarioFolios = Read<typeof folios>

/** Of a memfd in a handover, and of one that a step creates. */
export const memfdFields = {
  size: optional(size, 'Bytes of the file; as many as contents or folios have if left out.'),
  position: optional(size, 'File position; 0 if left out.'),
  seals: optional(list(seals, 'seals'), 'Seals in force. Linux 7.1 and later hand them over.'),
  content: optional(content, 'What the file holds; zeros if left out.'),
  order: optional(
    count(0, 20, 'an order'),
    'Whole folios of this order as far as they go, pages behind them.',
  ),
  folios: optional(list(folios, 'folios'), 'The folios one run after the other, instead of an order.'),
}
export const memfd = object('a memfd', memfdFields)
export type ScenarioMemfd = Read<typeof memfd>

export const opaque = object('a file of another handler', {
  compatible: needed(text('a version string'), "The handler's version string."),
  data: needed(u64, "The handler's own handle."),
})
