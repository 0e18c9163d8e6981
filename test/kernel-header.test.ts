/** The parser of the kernel's ABI headers, and the layout of what it parses, against a C compiler. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { PAGE_SIZES } from '../abi/layout.ts'
import { Definitions } from '../inspect/c-layout.ts'
import { isUnknown } from '../inspect/c-member.ts'
import { tokenize } from '../inspect/c-tokens.ts'
import { type KernelHeader, parseHeader } from '../inspect/kernel-header.ts'

function definitions(source: string, pageSize: 4096 | 16384 | 65536 = 4096): Definitions {
  return new Definitions([parseHeader('test.h', source)], [], pageSize)
}

function layout(source: string, tag: string): string {
  const found = definitions(source).layoutOf(tag)
  if (isUnknown(found)) return found.unknown
  const members = found.members.map(({ name, bitOffset, bits, bitField, count }) => {
    const place = bitField ? `bits ${bitOffset}+${bits}` : `${bitOffset / 8}+${bits / 8}`
    return `${name} ${place}${count === undefined ? '' : ` x${count}`}`
  })
  return `${found.size}: ${members.join(', ')}`
}

function value(source: string, name: string): bigint | string {
  const found = definitions(source).valueOf(name)
  return 'value' in found ? found.value : found.unknown
}

describe('tokens', () => {
  test('comments, strings, spliced lines and directives', () => {
    const { tokens, comments } = tokenize(
      '/* one\n * two */\n#define A(x) \\\n\t"a\\"b" x // three\nu64 b; /*',
    )
    expect(comments.map(({ text, line, endLine }) => [text, line, endLine])).toEqual([
      [' one\n * two ', 1, 2],
      [' three', 4, 4],
      ['', 5, 5],
    ])
    expect(tokens.map(({ kind, text, line }) => [kind, text, line])).toEqual([
      ['directive', 'define', 3],
      ['word', 'u64', 5],
      ['word', 'b', 5],
      ['punctuation', ';', 5],
    ])
    expect(tokens[0]?.rest?.map(({ text, glued }) => [text, glued])).toEqual([
      ['A', false],
      ['(', true],
      ['x', true],
      [')', true],
      ['a\\"b', false],
      ['x', false],
    ])
  })

  test('any text gives tokens, a header, and no exception', () => {
    const word = fc.constantFrom(
      'struct',
      'union',
      'enum',
      'typedef',
      '{',
      '}',
      '(',
      ')',
      '[',
      ']',
      ';',
      ',',
      ':',
      '*',
      '#define',
      '#if',
      '#endif',
      '\n',
      ' ',
      'a',
      'u64',
      '__packed',
      '__attribute__',
      '__aligned',
      'DECLARE_BITMAP',
      'sizeof',
      '1',
      '0x10',
      '"s"',
      '/*',
      '*/',
      '//',
      '\\',
      '?',
      '<<',
      'static_assert',
      '=',
      '-',
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(word, { maxLength: 60 }).map((words) => words.join(' ')),
        ),
        (source) => {
          const header = parseHeader('test.h', source)
          const seen = new Definitions([header], [], 4096)
          for (const { tag } of header.structs) seen.layoutOf(tag)
          for (const { name } of [...header.defines, ...header.enumerators]) seen.valueOf(name)
          for (const { claim } of header.asserts) seen.evaluate(claim)
        },
      ),
      { numRuns: 2000 },
    )
  })
})

describe('declarations', () => {
  const header: KernelHeader = parseHeader(
    'test.h',
    `
/* What it is. */
#ifndef _TEST_H
#define _TEST_H
#include <linux/types.h>
#include "local.h"
#define NAME	"toy-v1"
#define LIMIT (2 * PAGE_SIZE)
#define PAIR(a, b) u64 a; u64 b
#ifdef CONFIG_TOY
#define ONLY_WITH_TOY 1
#else
#define ONLY_WITHOUT_TOY 1
#endif
struct forward;
/**
 * struct toy - A toy.
 * @first: The first.
 */
struct toy {
	u64 first;
} __packed;
enum toys { ONE = 1, TWO, TEN = LIMIT / 10, };
typedef u64 toy_handle_t;
static_assert(sizeof(struct toy) == 8, "size");
int toy_make(struct toy *toy);
static inline int toy_use(struct toy *toy)
{
	return toy->first ? 1 : 0;
}
#endif /* _TEST_H */
`,
  )

  test('each is found with its line, its comment and its condition', () => {
    expect(header.defines.map(({ name, line, condition }) => [name, line, condition])).toEqual([
      ['_TEST_H', 4, undefined],
      ['NAME', 7, undefined],
      ['LIMIT', 8, undefined],
      ['PAIR', 9, undefined],
      ['ONLY_WITH_TOY', 11, 'CONFIG_TOY'],
      ['ONLY_WITHOUT_TOY', 13, 'not (CONFIG_TOY)'],
    ])
    expect(header.defines.map(({ parameters }) => parameters)).toEqual([
      undefined,
      undefined,
      undefined,
      ['a', 'b'],
      undefined,
      undefined,
    ])
    expect(header.structs.map(({ tag, line, comment }) => [tag, line, comment?.includes('A toy.')])).toEqual([
      ['toy', 20, true],
    ])
    expect(header.enumerators.map(({ name, after }) => [name, after])).toEqual([
      ['ONE', undefined],
      ['TWO', 'ONE'],
      ['TEN', 'TWO'],
    ])
    expect(header.typedefs.map(({ name }) => name)).toEqual(['toy_handle_t'])
    expect(header.asserts).toHaveLength(1)
    expect(header.includes).toEqual(['linux/types.h', 'local.h'])
    expect(header.unparsed).toEqual([])
  })

  test.each([
    ['toy_global;', 'toy_global;', 'is neither a struct, an enumeration, an assertion nor a function'],
    [
      'DEFINE_TOY(a, b);',
      'DEFINE_TOY(a, b);',
      'is neither a struct, an enumeration, an assertion nor a function',
    ],
    ['typedef int (*toy_fn)(int);', 'typedef int(* toy_fn)(int);', 'this form of typedef is not understood'],
    ['struct { u64 a; };', 'struct { u64 a;};', 'this form of struct is not understood'],
    ['struct a b { u64 a; };', 'struct a b { u64 a;};', 'this form of struct is not understood'],
    ['struct broken { u64 a;', 'struct broken { u64 a;', 'this form of struct is not understood'],
    ['enum { ONE += 1 };', 'ONE += 1', 'is no enumerator'],
    ['#pragma pack(1)', '#pragma pack(1)', 'changes what comes after it'],
    ['#undef TOY', '#undef TOY', 'changes what comes after it'],
    ['#warning toys', '#warning', 'unknown directive'],
  ])('%s is named', (source, text, why) => {
    expect(parseHeader('test.h', source).unparsed).toEqual([{ line: 1, text, why }])
  })
})

describe('expressions', () => {
  test.each([
    ['1 + 2 * 3 - 4 / 2', 5n],
    ['(1 << 9) | 0x0f', 0x20fn],
    ['64 - PAGE_SHIFT + 1', 53n],
    ['~0 & 0xff', 0xffn],
    ['!0 && 3 > 2 ? 017 : 9', 15n],
    ['-(3 % 2)', -1n],
    ['1UL == 1u', 1n],
    ['DIV_ROUND_UP(53 - 15, 9) + 1', 6n],
    ['const_ilog2(PAGE_SIZE / sizeof(phys_addr_t))', 9n],
    ['ALIGN(sizeof("luo-v5"), 8)', 8n],
    ['BIT(3) | BIT_ULL(40) | GENMASK(2, 0)', 0x1_0000_0000_0fn],
    ['(u64)1 << 40', 1n << 40n],
    ['sizeof(struct inner *) + sizeof(struct inner)', 20n],
    ['NESTED(4)', 12n],
    ['SIZE_OF_NAME', 7n],
    ['1 / 0', 'impossible division, shift or product'],
    ['1 << -1', 'impossible division, shift or product'],
    ['UNKNOWN + 1', 'UNKNOWN is not known'],
    ['sizeof(struct unknown)', 'the size of struct unknown is not known'],
    ['1 +', 'it ends too early'],
    ['(1', "missing ')'"],
    ['1 2', '1 2: cannot be evaluated'],
    ['1.5', "'1.5' is no integer"],
    ['08', "'08' is no integer"],
    ['NESTED(1, 2)', 'NESTED takes 1 arguments'],
    ['LOOP', 'it is nested too deep'],
    ['BOMB', 'it takes too long to evaluate'],
    ['ilog2(0)', 'ilog2 of this value is not defined'],
    ['PASTE(1)', 'PASTE cannot be expanded'],
  ])('%s', (expression, expected) => {
    const bomb = Array.from({ length: 12 }, (_, index) => {
      return `#define B${index} ${Array(8)
        .fill(`B${index + 1}`)
        .join(' + ')}`
    }).join('\n')
    const source = `
#define NAME "toy-v1"
#define SIZE_OF_NAME sizeof(NAME)
#define TWICE(x) ((x) + (x))
#define NESTED(x) (TWICE(x) + x)
#define PASTE(x) x ## 1
#define LOOP LOOP
${bomb}
#define B12 1
#define BOMB B0
struct inner { u64 a; u32 b; } __packed;
#define EXPRESSION ${expression}
`
    expect(value(source, 'EXPRESSION')).toBe(expected)
  })

  test('enumerators count on from the one before, and see the page size', () => {
    const source = 'enum { A, B, C = 64 - PAGE_SHIFT, D };'
    expect(PAGE_SIZES.map((size) => definitions(source, size).valueOf('D'))).toEqual([
      { value: 53n },
      { value: 51n },
      { value: 49n },
    ])
    expect(value(source, 'B')).toBe(1n)
  })
})

describe('layout', () => {
  test.each([
    ['struct a { u8 a; u64 b; u16 c; };', '24: a 0+1, b 8+8, c 16+2'],
    ['struct a { u8 a; u64 b; u16 c; } __packed;', '11: a 0+1, b 1+8, c 9+2'],
    ['struct __packed a { u8 a; u64 b; };', '9: a 0+1, b 1+8'],
    ['struct a { u8 a; u64 b; } __attribute__((packed));', '9: a 0+1, b 1+8'],
    ['struct a { u8 a; } __aligned(16);', '16: a 0+1'],
    ['struct a { u8 a; u32 b __aligned(8); };', '16: a 0+1, b 8+4'],
    ['struct a { u8 a; u64 b __packed; };', '9: a 0+1, b 1+8'],
    ['struct a { u64 a:52; u64 b:12; u64 c; };', '16: a bits 0+52, b bits 52+12, c 8+8'],
    ['struct a { u32 a:20; u32 b:20; };', '8: a bits 0+20, b bits 32+20'],
    ['struct a { u32 a:20; u32 b:20; } __packed;', '5: a bits 0+20, b bits 20+20'],
    ['struct a { u8 a:3; u8 :0; u8 b:3; u8 :2; };', '2: a bits 0+3, b bits 8+3'],
    ['struct a { unsigned int a, *b, c[2][3]; };', '40: a 0+4, b 8+8, c 16+24 x6'],
    ['struct a { const char *name; int (*fn)(int); void *p[2]; };', '32: name 0+8, fn 8+8, p 16+16 x2'],
    ['struct a { u64 n; u8 data[]; };', '8: n 0+8, data 8+0 x0'],
    ['struct a { u64 n; DECLARE_FLEX_ARRAY(u32, data); };', '8: n 0+8, data 8+0 x0'],
    ['struct a { DECLARE_BITMAP(map, 1 << 7); };', '16: map 0+16 x2'],
    ['struct a { union { u64 phys; struct a *ptr; } next; u32 n; };', '16: next 0+8, n 8+4'],
    ['struct a { union { u64 phys; u8 bytes[12]; }; u32 n; };', '24: phys 0+8, bytes 0+12 x12, n 16+4'],
    ['struct a { struct { u16 x; u32 y; } in; struct { u8 z; }; };', '12: in 0+8, z 8+1'],
    [
      'struct b { u32 n; }; struct a { struct b one; struct b more[3]; enum c kind; };',
      '20: one 0+4, more 4+12 x3, kind 16+4',
    ],
    [
      '#define PTR(name, type) union { u64 phys; type ptr; } name\nstruct a { PTR(next, struct a *); u32 n; };',
      '16: next 0+8, n 8+4',
    ],
    [
      '#define TWO u32 a; u32 b\n#define PAIR(x, y) u32 x; u32 y\nstruct a { PAIR(first, second); };',
      '8: first 0+4, second 4+4',
    ],
    ['typedef u32 id_t; struct a { id_t id; u64 b; };', '16: id 0+4, b 8+8'],
    [
      'struct a { unsigned long long a; long b; short c; unsigned char d; bool e; size_t f; };',
      '32: a 0+8, b 8+8, c 16+2, d 18+1, e 19+1, f 24+8',
    ],
  ])('%s', (source, expected) => {
    expect(layout(source, 'a')).toBe(expected)
  })

  test.each([
    ['struct a { struct list_head list; };', 'struct list_head is not declared here'],
    ['struct a { mystery_t x; };', 'the type mystery_t is not known here'],
    ['struct a { struct a self; };', 'struct a contains itself'],
    ['struct a { MAGIC(x); };', 'MAGIC(x): no macro of that name is known here'],
    ['struct a {\n#ifdef CONFIG_X\nu64 x;\n#endif\nu64 y;\n};', '#ifdef between members'],
    ['struct a { u8 x[UNKNOWN]; };', 'UNKNOWN is not known'],
    ['struct a { u32 x:33; };', 'x: 33 bits do not fit'],
    ['struct a { u64 x[0x7fffffff]; };', 'x: an array of 2147483647 elements'],
    ['struct a { u64 x __aligned(3); };', 'aligned(3)'],
    ['struct a { u64; };', 'a member without a name'],
  ])('%s cannot be laid out', (source, why) => {
    expect(layout(source, 'a')).toBe(why)
  })
})

describe('a C compiler lays them out alike', () => {
  let directory: string
  beforeAll(() => {
    directory = mkdtempSync(`${tmpdir()}/kho-inspect-header-`)
  })
  afterAll(() => rmSync(directory, { recursive: true }))

  const TYPES = `
#include <stdint.h>
#include <stddef.h>
#include <stdio.h>
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
#define __packed __attribute__((packed))
#define __aligned(n) __attribute__((aligned(n)))
`
  const type = fc.constantFrom('u8', 'u16', 'u32', 'u64')
  const widths = { u8: 8, u16: 16, u32: 32, u64: 64 } as const
  const plain = fc
    .tuple(type, fc.constantFrom('', '[3]', ' __aligned(8)', '[2] __aligned(2)'))
    .map(([name, rest]) => (at: number) => {
      return rest.startsWith('[') ? `${name} m${at}${rest};` : `${name} m${at}${rest};`
    })
  const bits = type.chain((name) =>
    fc.integer({ min: 1, max: widths[name] }).map((width) => (at: number) => `${name} m${at}:${width};`),
  )
  const nested = fc.tuple(type, type).map(
    ([a, b]) =>
      (at: number) =>
        `union { ${a} x${at}; struct { ${b} y; u8 z; } v${at}; } m${at};`,
  )
  const struct = fc.tuple(
    fc.array(fc.oneof(plain, bits, nested), { minLength: 1, maxLength: 8 }),
    fc.constantFrom('', ' __packed', ' __aligned(16)', ' __packed __aligned(4)'),
  )

  test('sizes, offsets and bit fields of random structs', () => {
    const structs = fc
      .sample(struct, { numRuns: 150, seed: 20261121 })
      .map(([members, attributes], index) => {
        return `struct s${index} { ${members.map((member, at) => member(at)).join(' ')} }${attributes};`
      })
    const seen = structs.map((source, index) => definitions(source).layoutOf(`s${index}`))
    const lines = seen.flatMap((found, index) => {
      if (isUnknown(found)) return [`puts("${found.unknown}");`]
      const fields = found.members.map(({ name, bitField }) =>
        bitField
          ? `memset(&u, 0, sizeof u); u.s.${name} = -1; first(#name_${name}, u.b, sizeof u.s);`.replace(
              `#name_${name}`,
              `"${name}"`,
            )
          : `printf(" ${name} %zu+%zu", 8 * offsetof(struct s${index}, ${name}), 8 * sizeof u.s.${name});`,
      )
      return [
        `{ union { struct s${index} s; unsigned char b[256]; } u; printf("%zu:", sizeof u.s); ${fields.join(' ')} puts(""); }`,
      ]
    })
    const program = `${TYPES}#include <string.h>
${structs.join('\n')}
static void first(const char *name, const unsigned char *b, size_t n)
{
	size_t at = 0, count = 0;
	while (at < 8 * n && !(b[at / 8] >> at % 8 & 1)) at++;
	for (size_t i = at; i < 8 * n && (b[i / 8] >> i % 8 & 1); i++) count++;
	printf(" %s %zu+%zu", name, at, count);
}
int main(void) { ${lines.join('\n')} return 0; }
`
    writeFileSync(`${directory}/random.c`, program)
    execFileSync('gcc', ['-w', '-o', 'random', 'random.c'], { cwd: directory, stdio: 'pipe' })
    const measured = execFileSync(`${directory}/random`, { encoding: 'utf8' }).trimEnd().split('\n')
    const ours = seen.map((found) =>
      isUnknown(found)
        ? found.unknown
        : `${found.size}:${found.members.map(({ name, bitOffset, bits: length }) => ` ${name} ${bitOffset}+${length}`).join('')}`,
    )
    for (const [index, line] of measured.entries())
      expect(`${structs[index]} ${ours[index]}`).toBe(`${structs[index]} ${line}`)
  })
})
