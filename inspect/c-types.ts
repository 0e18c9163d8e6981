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

const BYTE_SIZES: readonly (readonly [bytes: number, names: string])[] = [
  [1, 'u8 s8 __u8 __s8 uint8_t int8_t bool _Bool'],
  [2, 'u16 s16 __u16 __s16 uint16_t int16_t __le16 __be16 umode_t'],
  [4, 'u32 s32 __u32 __s32 uint32_t int32_t __le32 __be32 __wsum gfp_t pid_t dev_t'],
  [
    8,
    'u64 s64 __u64 __s64 uint64_t int64_t __le64 __be64 __aligned_u64 size_t ssize_t phys_addr_t dma_addr_t resource_size_t loff_t pgoff_t uintptr_t',
  ],
]

const NAMED: ReadonlyMap<string, number> = new Map(
  BYTE_SIZES.flatMap(([bytes, names]) => names.split(' ').map((name) => [name, bytes] as const)),
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

/** Size of a type without struct, union, enum or star; undefined where the words are no such type. */
export function plainType(words: readonly string[]): TypeSize | undefined {
  const names = words.filter((word) => !QUALIFIERS.has(word))
  const size = names.length === 1 ? (NAMED.get(names[0] as string) ?? integerSize(names)) : integerSize(names)
  return size === undefined ? undefined : { size, align: size }
}

/** `unsigned long`, `long long int`, `short` … */
function integerSize(words: readonly string[]): number | undefined {
  if (words.length === 0 || !words.every((word) => INTEGER_WORDS.has(word))) return undefined
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
