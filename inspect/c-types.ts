/**
 * C types as the ABI headers use them: sizes and alignments on the 64-bit machines that KHO exists on,
 * and the macros and constants that come from headers outside include/linux/kho/abi.
 */
import type { PageSize } from '../abi/layout.ts'
import { pageShift } from '../abi/layout.ts'
import { type Token, tokenize } from './c-tokens.ts'

export interface TypeSize {
  /** Bytes. */
  readonly size: number
  readonly align: number
}

/** A type with its names resolved: `u64` for all that has its bytes, byte order and sign. */
export interface SizedType extends TypeSize {
  readonly type: string
}

/** By what they are on a little-endian machine, where `__le64` is a u64. */
const TYPE_NAMES: readonly (readonly [bytes: number, type: string, names: string])[] = [
  [1, 'u8', 'u8 __u8 uint8_t'],
  [1, 's8', 's8 __s8 int8_t'],
  [1, 'bool', 'bool _Bool'],
  [2, 'u16', 'u16 __u16 uint16_t __le16 umode_t'],
  [2, 's16', 's16 __s16 int16_t'],
  [2, 'be16', '__be16'],
  [4, 'u32', 'u32 __u32 uint32_t __le32 __wsum gfp_t dev_t'],
  [4, 's32', 's32 __s32 int32_t pid_t'],
  [4, 'be32', '__be32'],
  [
    8,
    'u64',
    'u64 __u64 uint64_t __le64 __aligned_u64 size_t phys_addr_t dma_addr_t resource_size_t pgoff_t uintptr_t',
  ],
  [8, 's64', 's64 __s64 int64_t ssize_t loff_t'],
  [8, 'be64', '__be64'],
]

const NAMED: ReadonlyMap<string, SizedType> = new Map(
  TYPE_NAMES.flatMap(([size, type, names]) =>
    names.split(' ').map((name) => [name, { size, align: size, type }] as const),
  ),
)

const QUALIFIERS: ReadonlySet<string> = new Set(['const', 'volatile', '__force', '__user', '__iomem'])
const INTEGER_WORDS: ReadonlySet<string> = new Set(['unsigned', 'signed', 'char', 'short', 'int', 'long'])

/** A word that can be part of a type's name, apart from struct, union and enum. */
export function isTypeWord({ kind, text }: Token): boolean {
  return kind === 'word' && (INTEGER_WORDS.has(text) || QUALIFIERS.has(text) || NAMED.has(text))
}

export function isQualifier({ text }: Token): boolean {
  return QUALIFIERS.has(text)
}

/** A type without struct, union, enum or star; undefined where the words are no such type. */
export function plainType(words: readonly string[]): SizedType | undefined {
  const names = words.filter((word) => !QUALIFIERS.has(word))
  const named = names.length === 1 ? NAMED.get(names[0] as string) : undefined
  return named ?? integerType(names)
}

/** `unsigned long`, `long long int`, `short` … */
function integerType(words: readonly string[]): SizedType | undefined {
  if (words.length === 0 || !words.every((word) => INTEGER_WORDS.has(word))) return undefined
  const size = integerSize(words)
  const plainChar = words.length === 1 && words[0] === 'char'
  const type = plainChar ? 'char' : `${words.includes('unsigned') ? 'u' : 's'}${8 * size}`
  return { size, align: size, type }
}

function integerSize(words: readonly string[]): number {
  if (words.includes('char')) return 1
  if (words.includes('short')) return 2
  return words.includes('long') ? 8 : 4
}

/** A pointer, and what an unsigned long holds. */
export const WORD_TYPE: TypeSize = { size: 8, align: 8 }
/** An enumeration without values above 32 bits. */
export const ENUM_TYPE: TypeSize = { size: 4, align: 4 }

/** Macros of other headers, in the plainest form that gives the same values. */
const FOREIGN_MACROS = `
#define BITS_PER_BYTE 8
#define BITS_PER_LONG 64
#define BITS_PER_LONG_LONG 64
#define __NEW_UTS_LEN 64
#define SZ_4K 0x1000
#define SZ_16K 0x4000
#define SZ_64K 0x10000
#define SZ_1M 0x100000
#define SZ_2M 0x200000
#define SZ_1G 0x40000000
#define F_SEAL_SEAL 1
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#define F_SEAL_WRITE 8
#define F_SEAL_FUTURE_WRITE 16
#define F_SEAL_EXEC 32
#define BIT(bit) (1 << (bit))
#define BIT_ULL(bit) (1 << (bit))
#define _BITUL(bit) (1 << (bit))
#define GENMASK(high, low) ((1 << ((high) + 1)) - (1 << (low)))
#define GENMASK_ULL(high, low) ((1 << ((high) + 1)) - (1 << (low)))
#define DIV_ROUND_UP(value, step) (((value) + (step) - 1) / (step))
#define ALIGN(value, step) (DIV_ROUND_UP(value, step) * (step))
#define roundup(value, step) (DIV_ROUND_UP(value, step) * (step))
#define BITS_TO_LONGS(bits) DIV_ROUND_UP(bits, BITS_PER_LONG)
#define DECLARE_BITMAP(name, bits) unsigned long name[BITS_TO_LONGS(bits)]
#define DECLARE_FLEX_ARRAY(type, name) type name[]
`

export interface Macro {
  readonly parameters?: readonly string[]
  readonly body: readonly Token[]
}

/** Macros and constants that need no header of the tree. */
export const foreignMacros: ReadonlyMap<string, Macro> = new Map(
  tokenize(FOREIGN_MACROS).tokens.map(({ rest = [] }) => {
    const [name, open] = rest as readonly [Token, Token]
    if (open.text !== '(' || !open.glued) return [name.text, { body: rest.slice(1) }] as const
    const close = rest.findIndex(({ text }) => text === ')')
    const parameters = rest.slice(2, close).filter(({ kind }) => kind === 'word')
    return [
      name.text,
      { parameters: parameters.map(({ text }) => text), body: rest.slice(close + 1) },
    ] as const
  }),
)

/** Constants that depend on the page size. */
export function pageConstant(name: string, pageSize: PageSize): bigint | undefined {
  if (name === 'PAGE_SIZE') return BigInt(pageSize)
  return name === 'PAGE_SHIFT' ? BigInt(pageShift(pageSize)) : undefined
}

/** ilog2 and its kin, for values that have a logarithm. */
export const intrinsics: ReadonlyMap<string, (value: bigint) => bigint | undefined> = new Map([
  ['ilog2', floorLog2],
  ['const_ilog2', floorLog2],
  ['order_base_2', ceilingLog2],
])

function floorLog2(value: bigint): bigint | undefined {
  return value > 0n ? BigInt(value.toString(2).length - 1) : undefined
}

function ceilingLog2(value: bigint): bigint | undefined {
  return value > 1n ? BigInt((value - 1n).toString(2).length) : value >= 0n ? 0n : undefined
}
