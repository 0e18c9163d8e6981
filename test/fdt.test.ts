/**
 * The FDT reader on malformed blobs: one named cause each, its fault at its offset, and the tree that
 * stays; and against the verdict of libfdt itself on some thousands of changed blobs.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { FDT_MAGIC, FdtTag, fdtHeader, MAX_FDT_DEPTH, MAX_FDT_NAME_BYTES } from '../abi/fdt.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { type Fdt, type FdtNode, fdtTotalSize, hasFdtMagic, MAX_FDT_FAULTS, readFdt } from '../inspect/fdt.ts'

const { BEGIN_NODE, END_NODE, PROP, NOP, END } = FdtTag

/** A word of the structure block, or text with its NUL, padded to a word. */
type Token = number | string

const STRINGS = 'alpha\0beta\0'
const [ALPHA, BETA] = [0, 6]

/** With the offsets at which the tokens stand in a blob. */
const SOUND: readonly Token[] = [
  ...[/* 56 */ BEGIN_NODE, ''],
  ...[/* 64 */ PROP, 2, ALPHA, 'x'],
  ...[/* 80 */ BEGIN_NODE, 'LUO'],
  ...[/* 88 */ PROP, 0, BETA],
  /* 100 */ END_NODE,
  /* 104 */ END_NODE,
  /* 108 */ END,
]
const SOUND_SHAPE = '(alpha){LUO(beta)}'
/** Of the strings, behind the structure block. */
const SOUND_STRINGS_AT = 112
const SOUND_SIZE = SOUND_STRINGS_AT + STRINGS.length

type Header = Partial<Record<keyof typeof fdtHeader.fields, number>>

/** A blob of version 17: header, an empty reservation block, the tokens, the strings. */
function blobOf(tokens: readonly Token[], header: Header = {}, strings = STRINGS): Uint8Array {
  const structure = Buffer.concat(tokens.map(tokenBytes))
  const reserve = layoutOf(fdtHeader, { pageSize: 4096 }).size
  const start = reserve + 16
  const fields: Required<Header> = {
    magic: FDT_MAGIC,
    totalsize: start + structure.length + strings.length,
    off_dt_struct: start,
    off_dt_strings: start + structure.length,
    off_mem_rsvmap: reserve,
    version: 17,
    last_comp_version: 16,
    boot_cpuid_phys: 0,
    size_dt_strings: strings.length,
    size_dt_struct: structure.length,
    ...header,
  }
  const blob = Buffer.concat([Buffer.alloc(start), structure, Buffer.from(strings, 'latin1')])
  for (const [name, value] of Object.entries(fields)) {
    blob.writeUInt32BE(value, fieldOf(fdtHeader, name, { pageSize: 4096 }).offset)
  }
  return new Uint8Array(blob)
}

function tokenBytes(token: Token): Buffer {
  if (typeof token === 'string') return Buffer.alloc((token.length + 4) & ~3, `${token}\0`, 'latin1')
  const word = Buffer.alloc(4)
  word.writeUInt32BE(token)
  return word
}

/** `name(properties){children}`, `?` for a property without a name, `…` behind a node that is cut. */
function shapeOf({ name, properties, children, cut }: FdtNode): string {
  const inside = properties.map((property) => property.name ?? '?').join(' ')
  const below = children.map(shapeOf).join(' ')
  return `${name}${inside && `(${inside})`}${below && `{${below}}`}${cut ? '…' : ''}`
}

function seen({ root, faults }: Fdt): { shape: string | undefined; faults: readonly string[] } {
  return {
    shape: root && shapeOf(root),
    faults: faults.map(({ code, offset, nodes }) => [code, offset, ...nodes].join(' ')),
  }
}

interface Case {
  readonly cause: string
  readonly tokens?: readonly Token[]
  readonly header?: Header
  readonly strings?: string
  readonly shape: string | undefined
  readonly faults: readonly string[]
}

function expectCase({ tokens = SOUND, header, strings, shape, faults }: Case): void {
  expect(seen(readFdt(blobOf(tokens, header, strings)))).toEqual({ shape, faults })
}

describe('header', () => {
  const intact = { shape: SOUND_SHAPE }
  const cases: readonly Case[] = [
    { cause: 'nothing wrong', ...intact, faults: [] },
    { cause: 'another magic', header: { magic: 0xfeedd00d }, shape: undefined, faults: ['FDT_MAGIC 0'] },
    {
      cause: 'the magic of an unfinished sequential write',
      header: { magic: ~FDT_MAGIC >>> 0 },
      shape: undefined,
      faults: ['FDT_MAGIC 0'],
    },
    { cause: 'a later version that old readers know', header: { version: 99 }, ...intact, faults: [] },
    {
      cause: 'a version too old',
      header: { version: 1, last_comp_version: 1 },
      ...intact,
      faults: ['FDT_VERSION 20'],
    },
    {
      cause: 'a version that only later readers know',
      header: { version: 18, last_comp_version: 18 },
      ...intact,
      faults: ['FDT_VERSION 24'],
    },
    {
      cause: 'last_comp_version above version',
      header: { version: 16, last_comp_version: 17 },
      ...intact,
      faults: ['FDT_VERSION 20'],
    },
    {
      cause: 'version 16, which has no size_dt_struct',
      header: { version: 16, size_dt_struct: 0xffff_ffff },
      ...intact,
      faults: [],
    },
    {
      cause: 'totalsize smaller than the header',
      header: { totalsize: 39 },
      ...intact,
      faults: ['FDT_HEADER 4', 'FDT_HEADER 16', 'FDT_HEADER 12', 'FDT_HEADER 8'],
    },
    {
      cause: 'totalsize without the last byte',
      header: { totalsize: SOUND_SIZE - 1 },
      ...intact,
      faults: ['FDT_HEADER 12'],
    },
    {
      cause: 'totalsize beyond the bytes',
      header: { totalsize: SOUND_SIZE + 1 },
      ...intact,
      faults: [`FDT_TRUNCATED ${SOUND_SIZE}`],
    },
    {
      cause: 'totalsize above INT_MAX',
      header: { totalsize: 0xffff_ffff },
      ...intact,
      faults: ['FDT_HEADER 4', `FDT_TRUNCATED ${SOUND_SIZE}`],
    },
    {
      cause: 'a misaligned reservation block',
      header: { off_mem_rsvmap: 44 },
      ...intact,
      faults: ['FDT_HEADER 16'],
    },
    {
      cause: 'a reservation block inside the header',
      header: { off_mem_rsvmap: 32 },
      ...intact,
      faults: ['FDT_HEADER 16'],
    },
    {
      cause: 'a reservation block outside',
      header: { off_mem_rsvmap: 0xffff_fff8 },
      ...intact,
      faults: ['FDT_HEADER 16'],
    },
    {
      cause: 'a reservation block that does not end',
      header: { off_mem_rsvmap: 56 },
      ...intact,
      faults: ['FDT_TRUNCATED 56'],
    },
    {
      cause: 'a misaligned structure block',
      header: { off_dt_struct: 58 },
      shape: undefined,
      faults: ['FDT_HEADER 8'],
    },
    {
      cause: 'a structure block inside the header',
      header: { off_dt_struct: 36 },
      shape: undefined,
      faults: ['FDT_HEADER 8'],
    },
    {
      cause: 'a structure block outside',
      header: { off_dt_struct: 0xffff_fffc },
      shape: undefined,
      faults: ['FDT_HEADER 8'],
    },
    {
      cause: 'size_dt_struct beyond totalsize',
      header: { size_dt_struct: 0xffff_ffff },
      ...intact,
      faults: ['FDT_HEADER 8'],
    },
    {
      cause: 'size_dt_struct 0',
      header: { size_dt_struct: 0 },
      shape: undefined,
      faults: ['FDT_STRUCTURE 56'],
    },
    {
      cause: 'size_dt_struct without the last token',
      header: { size_dt_struct: 52 },
      ...intact,
      faults: ['FDT_STRUCTURE 108'],
    },
    {
      cause: 'a strings block inside the header',
      header: { off_dt_strings: 8 },
      shape: '{LUO}',
      faults: ['FDT_HEADER 12'],
    },
    {
      cause: 'a strings block outside',
      header: { off_dt_strings: 0xffff_ffff },
      shape: '(?){LUO(?)}',
      faults: ['FDT_HEADER 12', 'FDT_STRING 64', 'FDT_STRING 88 LUO'],
    },
    {
      cause: 'size_dt_strings beyond totalsize',
      header: { size_dt_strings: 0xffff_ffff },
      ...intact,
      faults: ['FDT_HEADER 12'],
    },
  ]
  test.each(cases.map((one) => [one.cause, one] as const))('%s', (_, one) => expectCase(one))

  test('fewer bytes than a header', () => {
    for (let length = 0; length < 40; length++) {
      const bytes = blobOf(SOUND).subarray(0, length)
      expect(seen(readFdt(bytes))).toEqual({ shape: undefined, faults: ['FDT_TRUNCATED 0'] })
      expect([fdtTotalSize(bytes), hasFdtMagic(bytes)]).toEqual([undefined, length >= 4])
    }
  })
})

describe('structure', () => {
  const [OPEN, ALPHA_PROPERTY] = [SOUND.slice(0, 2), SOUND.slice(2, 6)]
  const LUO = SOUND.slice(6, -2)
  const cases: readonly Case[] = [
    {
      cause: 'NOPs anywhere between tokens',
      tokens: [NOP, ...OPEN, NOP, ...ALPHA_PROPERTY, NOP, NOP, ...LUO, NOP, END_NODE, NOP, END],
      shape: SOUND_SHAPE,
      faults: [],
    },
    { cause: 'END at once', tokens: [END], shape: undefined, faults: ['FDT_STRUCTURE 56'] },
    { cause: 'END behind NOPs only', tokens: [NOP, END], shape: undefined, faults: ['FDT_STRUCTURE 60'] },
    { cause: 'no END', tokens: SOUND.slice(0, -1), shape: SOUND_SHAPE, faults: ['FDT_STRUCTURE 108'] },
    {
      cause: 'END inside a node',
      tokens: [...OPEN, ...ALPHA_PROPERTY, ...LUO, END],
      shape: '(alpha){LUO(beta)}…',
      faults: ['FDT_STRUCTURE 104'],
    },
    {
      cause: 'END inside a child',
      tokens: [...OPEN, BEGIN_NODE, 'LUO', END],
      shape: '{LUO…}…',
      faults: ['FDT_STRUCTURE 72 LUO'],
    },
    {
      cause: 'two roots',
      tokens: [...SOUND.slice(0, -1), BEGIN_NODE, '', END_NODE, END],
      shape: SOUND_SHAPE,
      faults: ['FDT_STRUCTURE 108'],
    },
    {
      cause: 'a root with a name',
      tokens: [BEGIN_NODE, 'soc', END_NODE, END],
      shape: 'soc',
      faults: ['FDT_STRUCTURE 60'],
    },
    {
      cause: 'END_NODE before any node',
      tokens: [END_NODE, ...SOUND],
      shape: undefined,
      faults: ['FDT_STRUCTURE 56'],
    },
    {
      cause: 'one END_NODE too many',
      tokens: [...SOUND.slice(0, -1), END_NODE, END],
      shape: SOUND_SHAPE,
      faults: ['FDT_STRUCTURE 108'],
    },
    {
      cause: 'a property before any node',
      tokens: [...ALPHA_PROPERTY, ...SOUND],
      shape: undefined,
      faults: ['FDT_STRUCTURE 56'],
    },
    {
      cause: 'a property behind the root',
      tokens: [...SOUND.slice(0, -1), ...ALPHA_PROPERTY, END],
      shape: SOUND_SHAPE,
      faults: ['FDT_STRUCTURE 108'],
    },
    {
      cause: 'a property behind a child',
      tokens: [...OPEN, ...LUO, ...ALPHA_PROPERTY, END_NODE, END],
      shape: '(alpha){LUO(beta)}',
      faults: ['FDT_STRUCTURE 88'],
    },
    {
      cause: 'an unknown token',
      tokens: [...OPEN, ...ALPHA_PROPERTY, 5, ...LUO, END_NODE, END],
      shape: '(alpha)…',
      faults: ['FDT_STRUCTURE 80'],
    },
    {
      cause: 'a node name that reaches the end',
      tokens: [...OPEN, ...ALPHA_PROPERTY, BEGIN_NODE, 0x61616161, 0x61616161],
      shape: '(alpha)…',
      faults: ['FDT_TRUNCATED 84'],
    },
    {
      cause: 'BEGIN_NODE as the last token',
      tokens: [...OPEN, BEGIN_NODE],
      shape: '…',
      faults: ['FDT_TRUNCATED 68'],
    },
    {
      cause: 'a property head that is cut',
      tokens: [...OPEN, ...ALPHA_PROPERTY, PROP, 4],
      shape: '(alpha)…',
      faults: ['FDT_TRUNCATED 80'],
    },
    {
      cause: 'a property value that is cut',
      tokens: [...OPEN, PROP, 9, ALPHA, 'abcdefg'],
      shape: '…',
      faults: ['FDT_TRUNCATED 76'],
    },
    {
      cause: 'a property of 4 GiB',
      tokens: [...OPEN, ...ALPHA_PROPERTY, PROP, 0xffff_ffff, ALPHA, END_NODE, END],
      shape: '(alpha)…',
      faults: ['FDT_TRUNCATED 92'],
    },
    {
      cause: 'a name offset at the end of the strings',
      tokens: [...OPEN, PROP, 0, STRINGS.length, ...ALPHA_PROPERTY, END_NODE, END],
      shape: '(? alpha)',
      faults: ['FDT_STRING 64'],
    },
    {
      cause: 'a name offset far outside',
      tokens: [...OPEN, ...LUO, BEGIN_NODE, 'x', PROP, 0, 0xffff_ffff, END_NODE, END_NODE, END],
      shape: '{LUO(beta) x(?)}',
      faults: ['FDT_STRING 96 x'],
    },
    {
      cause: 'an unterminated last string',
      strings: 'alpha\0beta',
      shape: '(alpha){LUO(?)}',
      faults: ['FDT_STRING 88 LUO'],
    },
    {
      cause: 'a name offset inside of a name, which libfdt takes',
      tokens: [...OPEN, PROP, 0, BETA + 2, END_NODE, END],
      shape: '(ta)',
      faults: [],
    },
  ]
  test.each(cases.map((one) => [one.cause, one] as const))('%s', (_, one) => expectCase(one))

  test('nodes as deep as allowed, and one more', () => {
    const nested = (depth: number): Token[] => [
      ...OPEN,
      ...Array.from({ length: depth - 1 }, () => [BEGIN_NODE, 'n']).flat(),
      ...Array.from({ length: depth }, () => END_NODE),
      END,
    ]
    expect(seen(readFdt(blobOf(nested(MAX_FDT_DEPTH)))).faults).toEqual([])
    const { shape, faults } = seen(readFdt(blobOf(nested(MAX_FDT_DEPTH + 1))))
    const path = Array.from({ length: MAX_FDT_DEPTH - 1 }, () => 'n').join(' ')
    expect(faults).toEqual([`FDT_DEPTH ${56 + MAX_FDT_DEPTH * 8} ${path}`])
    expect(shape?.split('{').length).toBe(MAX_FDT_DEPTH)
  })

  test('names as long as allowed, and one more', () => {
    const longest = 'n'.repeat(MAX_FDT_NAME_BYTES)
    const named = (name: string): Token[] => [...OPEN, PROP, 0, 0, BEGIN_NODE, name, END_NODE, END_NODE, END]
    const sound = readFdt(blobOf(named(longest), {}, `${longest}\0`))
    expect(seen(sound)).toEqual({ shape: `(${longest}){${longest}}`, faults: [] })
    const longer = `${longest}n`
    expect(seen(readFdt(blobOf(named(longer), {}, `${longer}\0`)))).toEqual({
      shape: `(?){${longest}}`,
      faults: ['FDT_STRING 64', 'FDT_STRING 80'],
    })
  })

  test('faults without end are kept up to a limit', () => {
    const properties = Array.from({ length: 2 * MAX_FDT_FAULTS }, () => [PROP, 0, 999]).flat()
    const { root, faults } = readFdt(blobOf([...OPEN, ...properties, END_NODE, END]))
    expect(faults.length).toBe(MAX_FDT_FAULTS)
    expect(root?.properties.length).toBe(2 * MAX_FDT_FAULTS)
  })

  test('names are text of any bytes', () => {
    const { root } = readFdt(blobOf([...OPEN, BEGIN_NODE, 'a\xff\x1b', END_NODE, END_NODE, END]))
    expect(root?.children[0]?.name).toBe('a\\xff\x1b')
    expect([...(root?.children[0]?.nameBytes ?? [])]).toEqual([0x61, 0xff, 0x1b])
  })
})

describe('a blob that is cut', () => {
  const whole = blobOf(SOUND)
  test.each([
    { cause: 'inside of the strings', length: SOUND_SIZE - 1, shape: '(alpha){LUO(?)}' },
    { cause: 'before the strings, as debugfs does', length: SOUND_STRINGS_AT, shape: '(?){LUO(?)}' },
    { cause: 'before END', length: 108, shape: '(?){LUO(?)}' },
    { cause: 'inside of the child', length: 100, shape: '(?){LUO(?)…}…' },
    { cause: 'behind the root property', length: 80, shape: '(?)…' },
    { cause: 'behind the root name', length: 64, shape: '…' },
  ])('$cause', ({ length, shape }) => {
    const fdt = readFdt(whole.subarray(0, length))
    expect(seen(fdt)).toEqual({ shape, faults: [`FDT_TRUNCATED ${length}`] })
    expect(fdt.stringsCut).toBe(true)
  })

  test('inside of a token: what is before it stays', () => {
    const { root, faults } = readFdt(whole.subarray(0, 86))
    expect(root && shapeOf(root)).toBe('(?)…')
    expect(faults.map(({ code, offset }) => [code, offset])).toEqual([
      ['FDT_TRUNCATED', 86],
      ['FDT_TRUNCATED', 84],
    ])
  })

  test('anywhere: a tree that only loses its tail', () => {
    let before = ''
    for (let length = 56; length <= SOUND_SIZE; length++) {
      const { root } = readFdt(whole.subarray(0, length))
      const shape = root ? shapeOf(root).replace(/[…?]|alpha|beta/g, '') : ''
      expect(shape.length).toBeGreaterThanOrEqual(before.length)
      before = shape
    }
    expect(before).toBe('(){LUO()}')
  })
})

interface Checked {
  /** The blob in hex. */
  readonly blob: string
  /** Offset (-1: the blob is cut to `word` bytes), word in hex, answers of fdt_check_header and fdt_check_full. */
  readonly cases: readonly (readonly [offset: number, word: string, header: number, full: number])[]
}

const checked: readonly Checked[] = JSON.parse(
  readFileSync(new URL('../fixtures/fdt/checks.json', import.meta.url), 'utf8'),
)

/** fdt_check_full's negative codes, and the causes that stand for each here. */
const CAUSES: Readonly<Record<number, readonly string[]>> = {
  [-4]: ['FDT_STRING'],
  [-8]: ['FDT_TRUNCATED', 'FDT_HEADER', 'FDT_STRUCTURE', 'FDT_STRING'],
  [-9]: ['FDT_MAGIC'],
  [-10]: ['FDT_VERSION'],
  [-11]: ['FDT_STRUCTURE', 'FDT_TRUNCATED', 'FDT_HEADER'],
}

/** What this reader finds wrong and libfdt 1.6.1 does not look at; the misaligned block is refused by the kernel's newer one. */
const OURS = /property behind a child|before any node|off_mem_rsvmap is \d+/

describe.each(checked)('libfdt on changes of blob $#', ({ blob, cases }) => {
  const base = Uint8Array.from(Buffer.from(blob, 'hex'))
  const changed = cases.map(([offset, word, header, full]) => {
    const value = Number.parseInt(word, 16)
    const bytes = offset < 0 ? base.slice(0, value) : base.slice()
    if (offset >= 0) new DataView(bytes.buffer).setUint32(offset, value)
    return { change: `${word} at ${offset}`, fdt: readFdt(bytes), header, full }
  })

  test('finds fault with what libfdt refuses, and with nothing else', () => {
    const different: string[] = []
    for (const { change, fdt, full } of changed) {
      const faults = fdt.faults.filter(({ message }) => !OURS.test(message))
      const fits = full === 0 ? faults.length === 0 : faults.some(({ code }) => CAUSES[full]?.includes(code))
      const ours = fdt.faults.length > faults.length
      if (!fits && !ours) different.push(`${change}: ${full}, ${faults.map(({ message }) => message)}`)
    }
    expect(different).toEqual([])
  })

  test('pieces are in order, do not overlap and lie in the structure block', () => {
    for (const { change, fdt } of changed) {
      const { off_dt_struct: start, size_dt_struct: size } = fdt.header
      let at = start
      for (const piece of fdt.pieces()) {
        expect([change, piece.offset >= at, piece.length > 0]).toEqual([change, true, true])
        at = piece.offset + piece.length
      }
      expect([change, at <= Math.max(start, start + size)]).toEqual([change, true])
    }
  })

  test('pieces of the sound blob cover the structure block', () => {
    const { header, pieces } = readFdt(base)
    let at = header.off_dt_struct
    for (const piece of pieces()) {
      expect(piece.offset).toBe(at)
      at += piece.length
    }
    expect(at).toBe(header.off_dt_struct + header.size_dt_struct)
  })
})
