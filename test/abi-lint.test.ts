/** The lint of kernel headers: one tree against the registry, two trees against each other. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AbiArguments } from '../bin/abi-arguments.ts'
import { gitTree } from '../bin/source-trees.ts'
import { lintTree } from '../inspect/abi-lint.ts'
import { lintChange } from '../inspect/abi-lint-change.ts'
import { type ParsedTree, parseTree } from '../inspect/source-tree.ts'
import { runAbi } from './support/abi-command.ts'
import { abiHeaders, type Edit } from './support/abi-headers.ts'
import { memoryTree } from './support/source-tree.ts'

async function tree(...edits: readonly Edit[]): Promise<ParsedTree> {
  const parsed = await parseTree(memoryTree(abiHeaders(...edits)))
  if (!parsed) throw new Error('no headers')
  return parsed
}

async function lint(...edits: readonly Edit[]): Promise<readonly string[]> {
  const findings = lintTree(await tree(...edits))
  return findings.map(
    ({ rule, severity, file, line, message }) =>
      `${severity} ${rule} ${file.split('/').at(-1)}:${line} ${message}`,
  )
}

async function change(...edits: readonly Edit[]): Promise<readonly string[]> {
  return changeFrom([], edits)
}

async function changeFrom(older: readonly Edit[], newer: readonly Edit[]): Promise<readonly string[]> {
  const findings = lintChange(await tree(...older), await tree(...newer))
  return findings.map(({ rule, severity, message }) => `${severity} ${rule} ${message}`)
}

describe('one tree', () => {
  test('that is as it should be has no findings', async () => {
    expect(await lint()).toEqual([])
  })

  test('that has no ABI headers is not linted', async () => {
    expect(
      await parseTree(memoryTree({ 'include/linux/kho/abi/README': 'x', 'kernel/kexec_handover.c': '' })),
    ).toBe(undefined)
  })

  test('whose version is not known', async () => {
    expect(await lint(['kexec_handover', 'kho-v4', 'kho-v5'])).toEqual([
      'warning UNKNOWN_VERSION kexec_handover.h:15 this tree says "kho-v5" (KHO_FDT_COMPATIBLE); known are kho-v1, kho-v2, kho-v3, kho-v4',
    ])
    expect(await lint(['kexec_metadata', 'VERSION 1', 'VERSION 2'])).toEqual([
      'warning UNKNOWN_VERSION kexec_metadata.h:3 this tree says 2 (KHO_KEXEC_METADATA_VERSION); known are kexec-metadata 1',
    ])
    expect(await lint(['memblock', 'reserve-mem-v1', 'reserve-mem-v2'])).toEqual([
      'warning UNKNOWN_VERSION memblock.h:3 this tree says "reserve-mem-v2" (RESERVE_MEM_KHO_NODE_COMPATIBLE); known are memblock-v1',
    ])
  })

  test('with a version string of its own making', async () => {
    expect(
      await lint(['memfd', 'memfd-v2"', 'memfd-v2"\n#define GUEST_MEMFD_LUO_FH_COMPATIBLE "guest-memfd-v1"']),
    ).toEqual([
      'warning UNKNOWN_VERSION memfd.h:21 this tree says "guest-memfd-v1" (GUEST_MEMFD_LUO_FH_COMPATIBLE)',
    ])
  })

  test('whose comments speak of another version', async () => {
    expect(await lint(['kexec_handover', 'compatible = "kho-v4"', 'compatible = "kho-v3"'])).toEqual([
      'warning COMMENT_VERSION kexec_handover.h:11 the comment says "kho-v3", KHO_FDT_COMPATIBLE is "kho-v4"',
    ])
    expect(
      await lint(['kexec_handover', 'compatible = "kho-v4"', 'not my-kho-v3, kho-v3x or kho-v4']),
    ).toEqual([])
  })

  test('whose comments describe what is not there', async () => {
    expect(await lint(['luo', '@token:', '@pgcnt:'])).toEqual([
      'warning COMMENT_MEMBER luo.h:26 the comment describes @pgcnt, struct luo_file_ser has no such member',
    ])
  })

  test('with a name that is not known', async () => {
    expect(await lint(['kexec_handover', '"blob-size"', '"blob-length"'])).toEqual([
      'warning UNKNOWN_NAME kexec_handover.h:18 the name "blob-length" (KHO_SUB_TREE_SIZE_PROP_NAME) is not known',
    ])
  })

  test('with a struct and constants that are not known', async () => {
    expect(
      await lint([
        'memfd',
        '#define MEMFD_LUO_FH',
        'struct toy_ser { u64 a; } __packed;\n#define TOY_MAX 7\n#define MEMFD_LUO_FH',
      ]),
    ).toEqual([
      'warning UNKNOWN_STRUCT memfd.h:20 struct toy_ser is not known',
      'note UNKNOWN_CONSTANT memfd.h:21 TOY_MAX is not known',
    ])
  })

  test.each([
    [
      'a member was inserted',
      ['memfd', '\tu32 seals;', '\tu32 seals;\n\tu64 owner;'],
      [
        'error STRUCT_DIFFERS memfd.h:12 memfd_luo_ser differs from memfd-v2, whose version this tree states: expected 48 bytes, found 56 bytes',
        'error STRUCT_DIFFERS memfd.h:12 memfd_luo_ser.flags differs from memfd-v2, whose version this tree states: expected at offset 20, found at offset 28',
        'error STRUCT_DIFFERS memfd.h:12 memfd_luo_ser.nr_folios differs from memfd-v2, whose version this tree states: expected at offset 24, found at offset 32',
        'error STRUCT_DIFFERS memfd.h:12 memfd_luo_ser.folios differs from memfd-v2, whose version this tree states: expected at offset 32, found at offset 40',
        'error STRUCT_DIFFERS memfd.h:12 memfd_luo_ser.owner differs from memfd-v2, whose version this tree states: expected no such member, found 8 bytes at offset 20',
      ],
    ],
    [
      'the layout of an older version came back',
      ['memfd', '\tu32 seals;\n\tu32 flags;\n', ''],
      [
        'error STRUCT_DIFFERS memfd.h:12 struct memfd_luo_ser is laid out as in memfd-v1, this tree states the version of memfd-v2',
      ],
    ],
    [
      'a bit moved between bit fields',
      ['memfd', 'pfn:52;\n\tu64 flags:12', 'pfn:51;\n\tu64 flags:13'],
      [
        'error STRUCT_DIFFERS memfd.h:4 memfd_luo_folio_ser.pfn differs from memfd-v1, memfd-v2, whose version this tree states: expected bit field of 52 bits, found bit field of 51 bits',
        'error STRUCT_DIFFERS memfd.h:4 memfd_luo_folio_ser.flags differs from memfd-v1, memfd-v2, whose version this tree states: expected at bit 52, found at bit 51',
        'error STRUCT_DIFFERS memfd.h:4 memfd_luo_folio_ser.flags differs from memfd-v1, memfd-v2, whose version this tree states: expected bit field of 12 bits, found bit field of 13 bits',
      ],
    ],
    [
      'packing was lost',
      ['kexec_metadata', '} __packed;', '};'],
      [
        'error STRUCT_DIFFERS kexec_metadata.h:4 kho_kexec_metadata differs from kexec-metadata-1, whose version this tree states: expected 73 bytes, found 76 bytes',
        'error STRUCT_DIFFERS kexec_metadata.h:4 kho_kexec_metadata.kexec_count differs from kexec-metadata-1, whose version this tree states: expected at offset 69, found at offset 72',
      ],
    ],
    [
      'a depth that only 16K pages see',
      [
        'kexec_handover',
        'DIV_ROUND_UP(KHO_RADIX_KEY_WIDTH - KHO_BITMAP_SIZE_LOG2',
        'DIV_ROUND_UP(64 - PAGE_SHIFT - KHO_BITMAP_SIZE_LOG2',
      ],
      [
        'error LIMIT_DIFFERS kexec_handover.h:55 KHO_TREE_MAX_DEPTH is 4 at 16K pages, expected 5 in kho-v4, whose version this tree states',
      ],
    ],
  ] as const)('under a version that is known: %s', async (_title, edit, findings) => {
    expect(await lint(edit)).toEqual(findings)
  })

  test.each([
    ['__be64', 'expected u64, found be64'],
    ['s64', 'expected u64, found s64'],
  ])('under a version that is known, u64 is %s', async (type, text) => {
    expect(await lint(['luo', 'u64 flbs_pa', `${type} flbs_pa`])).toEqual([
      `error STRUCT_DIFFERS luo.h:9 luo_ser.flbs_pa differs from luo-v3, luo-v4, luo-v5, whose version this tree states: ${text}`,
    ])
  })

  test('a new layout under a version that is not known is as it must be', async () => {
    expect(
      await lint(['memfd', 'memfd-v2', 'memfd-v3'], ['memfd', '\tu32 seals;', '\tu32 seals;\n\tu64 owner;']),
    ).toEqual([
      'warning UNKNOWN_VERSION memfd.h:21 this tree says "memfd-v3" (MEMFD_LUO_FH_COMPATIBLE); known are memfd-v1, memfd-v2',
    ])
  })

  test('whose assertion does not hold', async () => {
    expect(await lint(['kexec_handover', '_chunk) == PAGE_SIZE', '_chunk) == 4096'])).toEqual([
      'error ASSERTION kexec_handover.h:42 the assertion does not hold at 16K pages',
    ])
    expect(await lint(['kexec_handover', '_chunk) == PAGE_SIZE', '_chunk) == TOY'])).toEqual([
      'warning UNPARSED kexec_handover.h:42 an assertion cannot be evaluated: TOY is not known',
    ])
  })

  test.each([
    [
      'luo',
      'struct luo_ser {',
      'toy_global;\nstruct luo_ser {',
      'luo.h:9 toy_global;: is neither a struct, an enumeration, an assertion nor a function',
    ],
    [
      'luo',
      '\tu64 flbs_pa;',
      '#ifdef CONFIG_X\n\tu64 flbs_pa;\n#endif',
      'luo.h:9 struct luo_ser cannot be laid out: #ifdef between members',
    ],
    [
      'luo',
      '\tu64 flbs_pa;',
      '\tstruct rb_node node;',
      'luo.h:9 struct luo_ser cannot be laid out: struct rb_node is not declared here',
    ],
    [
      'luo',
      '\tu64 flbs_pa;',
      '\tMAGIC(flbs);',
      'luo.h:9 struct luo_ser cannot be laid out: MAGIC(flbs): no macro of that name is known here',
    ],
    [
      'block',
      '#endif\n',
      '#ifdef CONFIG_X\nstruct kho_block_header_ser {\n\tu64 next;\n};\n#endif\n#endif\n',
      'block.h:17 struct kho_block_header_ser is defined again under CONFIG_X: only one of them is looked at',
    ],
  ] as const)('what is not understood is named: %s %s', async (header, from, to, finding) => {
    expect(await lint([header, from, to])).toEqual([`warning UNPARSED ${finding}`])
  })

  test('types and constants come from the headers that it includes', async () => {
    const files = abiHeaders(
      ['luo', '\tu64 flbs_pa;', '\tu64 flbs_pa;\n\tstruct list_head list;'],
      ['luo', '#include <uapi', '#include <linux/types.h>\n#include <uapi'],
    )
    const parsed = (await parseTree(memoryTree(files))) as ParsedTree
    expect(parsed.definitions(4096).layoutOf('luo_ser')).toMatchObject({ size: 48 })
    const without = await parseTree(memoryTree({ ...files, 'include/uapi/linux/liveupdate.h': '' }))
    expect(
      lintTree(without as ParsedTree).some(
        ({ message }) =>
          message ===
          'struct luo_session_ser cannot be laid out: LIVEUPDATE_SESSION_NAME_LENGTH is not known',
      ),
    ).toBe(true)
  })
})

describe('two trees', () => {
  test('that are the same', async () => {
    expect(await change()).toEqual([])
  })

  test.each([
    [
      'a struct under the string in its comment',
      [['luo', '\tu64 token;', '\tu64 token;\n\tu64 flags;']],
      [
        'error STRUCT_CHANGED struct luo_file_ser changed: from 64 to 72 bytes, flags added, but LUO_ABI_COMPATIBLE is still "luo-v5"',
      ],
    ],
    [
      'a struct under the string of its header',
      [['memfd', 'pfn:52;\n\tu64 flags:12', 'pfn:51;\n\tu64 flags:13']],
      [
        'error STRUCT_CHANGED struct memfd_luo_folio_ser changed: pfn from bits 0 to 51 to bits 0 to 50, flags from bits 52 to 63 to bits 51 to 63, but MEMFD_LUO_FH_COMPATIBLE is still "memfd-v2"',
      ],
    ],
    [
      'a struct under the string that the general comment names',
      [['block', '\tu64 count;', '\tu32 count;\n\tu32 flags;']],
      [
        'error STRUCT_CHANGED struct kho_block_header_ser changed: count from 8 bytes at 8 to 4 bytes at 8, flags added, but KHO_FDT_COMPATIBLE is still "kho-v4"',
      ],
    ],
    [
      'a struct that another one holds',
      [['kexec_handover', 'unsigned short order;', 'unsigned int order;']],
      [
        'error STRUCT_CHANGED struct kho_vmalloc changed: from 16 to 24 bytes, order from 2 bytes at 14 to 4 bytes at 16, but KHO_FDT_COMPATIBLE is still "kho-v4"',
        'error STRUCT_CHANGED struct memfd_luo_ser changed: from 48 to 56 bytes, folios from 16 bytes at 32 to 24 bytes at 32, but MEMFD_LUO_FH_COMPATIBLE is still "memfd-v2", KHO_FDT_COMPATIBLE is still "kho-v4"',
      ],
    ],
    [
      'a struct under a version that is a number',
      [['kexec_metadata', 'u32 kexec_count', 'u64 kexec_count']],
      [
        'error STRUCT_CHANGED struct kho_kexec_metadata changed: from 73 to 77 bytes, kexec_count from 4 bytes at 69 to 8 bytes at 69, but KHO_KEXEC_METADATA_VERSION is still 1',
      ],
    ],
    [
      'a constant that only 16K pages see',
      [
        [
          'kexec_handover',
          'DIV_ROUND_UP(KHO_RADIX_KEY_WIDTH - KHO_BITMAP_SIZE_LOG2',
          'DIV_ROUND_UP(64 - PAGE_SHIFT - KHO_BITMAP_SIZE_LOG2',
        ],
      ],
      [
        'error LIMIT_CHANGED KHO_TREE_MAX_DEPTH was 5 and is now 4 at 16K pages, but KHO_FDT_COMPATIBLE is still "kho-v4"',
      ],
    ],
    [
      'a flag',
      [['memfd', 'MEMFD_LUO_FOLIO_DIRTY BIT(0)', 'MEMFD_LUO_FOLIO_DIRTY BIT(2)']],
      [
        'error LIMIT_CHANGED MEMFD_LUO_FOLIO_DIRTY was 1 and is now 4 at 4K pages, but MEMFD_LUO_FH_COMPATIBLE is still "memfd-v2"',
      ],
    ],
    [
      'the name of a property',
      [['kexec_handover', '"preserved-data"', '"preserved-blob"']],
      [
        'error NAME_CHANGED KHO_SUB_TREE_PROP_NAME was "preserved-data" and is now "preserved-blob", but KHO_FDT_COMPATIBLE is still "kho-v4"',
      ],
    ],
    [
      'a property that is demanded anew',
      [
        [
          'kexec_handover',
          '#define DECLARE_KHOSER',
          '#define KHO_SUB_TREE_CRC_PROP_NAME "blob-crc"\n#define DECLARE_KHOSER',
        ],
      ],
      [
        'error NAME_CHANGED "blob-crc" (KHO_SUB_TREE_CRC_PROP_NAME) was added, but KHO_FDT_COMPATIBLE is still "kho-v4"',
      ],
    ],
    [
      'a property that is gone',
      [['kexec_handover', '#define KHO_SUB_TREE_SIZE_PROP_NAME "blob-size"\n', '']],
      [
        'error NAME_CHANGED "blob-size" (KHO_SUB_TREE_SIZE_PROP_NAME) was removed, but KHO_FDT_COMPATIBLE is still "kho-v4"',
      ],
    ],
    [
      'a struct that is gone',
      [['luo', 'struct luo_file_ser {', 'struct luo_file_record {']],
      ['error STRUCT_CHANGED struct luo_file_ser was removed, but LUO_ABI_COMPATIBLE is still "luo-v5"'],
    ],
    [
      'a struct that cannot be laid out',
      [['luo', '\tu64 flbs_pa;', '\tMAGIC(flbs);']],
      [
        'error STRUCT_CHANGED struct luo_ser changed: it can no longer be laid out, but LUO_ABI_COMPATIBLE is still "luo-v5"',
        'warning UNPARSED struct luo_ser cannot be laid out: MAGIC(flbs): no macro of that name is known here',
      ],
    ],
    [
      'a length that nobody here can evaluate',
      [['luo', 'ALIGN(sizeof(LUO_ABI_COMPATIBLE), 8)', 'FROB(9)']],
      [
        'error LIMIT_CHANGED LUO_ABI_COMPAT_LEN was 8 and is now FROB(9) at 4K pages, but LUO_ABI_COMPATIBLE is still "luo-v5"',
        'warning UNPARSED LUO_ABI_COMPAT_LEN cannot be evaluated: FROB is not known',
        'error STRUCT_CHANGED struct luo_ser changed: it can no longer be laid out, but LUO_ABI_COMPATIBLE is still "luo-v5"',
        'warning UNPARSED struct luo_ser cannot be laid out: FROB is not known',
      ],
    ],
    [
      'a mask with a flag that is not known here',
      [['memfd', 'F_SEAL_EXEC)', 'F_SEAL_TOY)']],
      [
        'error LIMIT_CHANGED MEMFD_LUO_ALL_SEALS was 63 and is now (1 | 2 | 4 | 8 | 16 | F_SEAL_TOY) at 4K pages, but MEMFD_LUO_FH_COMPATIBLE is still "memfd-v2"',
        'warning UNPARSED MEMFD_LUO_ALL_SEALS cannot be evaluated: F_SEAL_TOY is not known',
      ],
    ],
  ] as const)('%s', async (_title, edits, findings) => {
    expect(await change(...(edits as unknown as readonly Edit[]))).toEqual(findings)
  })

  test.each([
    [
      'a length in a macro',
      [['luo', 'ALIGN(sizeof(LUO_ABI_COMPATIBLE), 8)', 'FROB(9)']],
      [['luo', 'ALIGN(sizeof(LUO_ABI_COMPATIBLE), 8)', 'FROB(1000)']],
      [
        'error LIMIT_CHANGED LUO_ABI_COMPAT_LEN was FROB(9) and is now FROB(1000) at 4K pages, but LUO_ABI_COMPATIBLE is still "luo-v5"',
        'warning UNPARSED LUO_ABI_COMPAT_LEN cannot be evaluated: FROB is not known',
        'error STRUCT_CHANGED struct luo_ser changed, and cannot be laid out, but LUO_ABI_COMPATIBLE is still "luo-v5"',
        'warning UNPARSED struct luo_ser cannot be laid out: FROB is not known',
      ],
    ],
    [
      'a constant that nothing here uses',
      [['memblock', '#define MEMBLOCK_KHO_FDT', '#define RESERVE_MEM_TOY foo(3)\n#define MEMBLOCK_KHO_FDT']],
      [['memblock', '#define MEMBLOCK_KHO_FDT', '#define RESERVE_MEM_TOY foo(4)\n#define MEMBLOCK_KHO_FDT']],
      [
        'error LIMIT_CHANGED RESERVE_MEM_TOY was foo(3) and is now foo(4) at 4K pages, but RESERVE_MEM_KHO_NODE_COMPATIBLE is still "reserve-mem-v1"',
        'warning UNPARSED RESERVE_MEM_TOY cannot be evaluated: foo is not known',
      ],
    ],
    [
      'an enumerator that one more came before',
      [['memblock', '#define MEMBLOCK_KHO_FDT', 'enum { TOY_A = FOO, TOY_B };\n#define MEMBLOCK_KHO_FDT']],
      [
        [
          'memblock',
          '#define MEMBLOCK_KHO_FDT',
          'enum { TOY_A = FOO, TOY_C, TOY_B };\n#define MEMBLOCK_KHO_FDT',
        ],
      ],
      [
        'error LIMIT_CHANGED TOY_B was FOO + 1 and is now FOO + 2 at 4K pages, but MEMBLOCK_KHO_NODE_COMPATIBLE is still "memblock-v1", RESERVE_MEM_KHO_NODE_COMPATIBLE is still "reserve-mem-v1"',
        'warning UNPARSED TOY_A cannot be evaluated: FOO is not known',
        'warning UNPARSED TOY_C cannot be evaluated: TOY_C is not known',
        'warning UNPARSED TOY_B cannot be evaluated: TOY_B is not known',
      ],
    ],
    [
      'the packing of a struct',
      [['luo', '\tu64 flbs_pa;', '\tMAGIC(flbs);']],
      [['luo', '\tu64 flbs_pa;\n} __packed;', '\tMAGIC(flbs);\n};']],
      [
        'error STRUCT_CHANGED struct luo_ser changed, and cannot be laid out, but LUO_ABI_COMPATIBLE is still "luo-v5"',
        'warning UNPARSED struct luo_ser cannot be laid out: MAGIC(flbs): no macro of that name is known here',
      ],
    ],
  ] as const)(
    'what neither can evaluate is compared as it is written: %s',
    async (_title, older, newer, findings) => {
      const found = await changeFrom(older as unknown as readonly Edit[], newer as unknown as readonly Edit[])
      expect(found).toEqual(findings)
    },
  )

  test.each([
    ['u64', '__be64', 'from u64 to be64'],
    ['u64', 's64', 'from u64 to s64'],
    ['u64', 'struct luo_file_ser *', 'from u64 to struct luo_file_ser *'],
    ['void *', 'struct luo_file_ser *', 'from void * to struct luo_file_ser *'],
    ['u64', 'struct { u32 lo, hi; }', 'from u64 to struct { u32 lo; u32 hi; }'],
    ['struct { u32 lo, hi; }', 'struct { u32 lo, top; }', 'struct { u32 lo; u32 top; }'],
    ['u32 a; u64', '__be32 a; u64', 'a from u32 to be32'],
    ['char a[4]; u64', 'u8 a[4]; u64', 'a from char to u8'],
    ['u64 a:52, b:12; u64', 'u64 a:52; s64 b:12; u64', 'b from u64 to s64'],
    ['enum toy a; u64', 'u32 a; u64', 'a from enum toy to u32'],
  ])('a member that was %s is %s', async (before, after, text) => {
    const member = (type: string): Edit => ['luo', 'u64 flbs_pa', `${type} flbs_pa`]
    const found = await changeFrom([member(before)], [member(after)])
    expect(found[0]).toMatch(/^error STRUCT_CHANGED struct luo_ser changed/)
    expect(found.some((finding) => finding.includes(text))).toBe(true)
  })

  test.each(['__u64', 'unsigned long long', 'unsigned long int', '__le64', 'phys_addr_t', 'size_t'])(
    '%s is another name of u64',
    async (type) => {
      expect(await change(['luo', 'u64 flbs_pa', `${type} flbs_pa`])).toEqual([])
      expect(await lint(['luo', 'u64 flbs_pa', `${type} flbs_pa`])).toEqual([])
    },
  )

  test('what a header that is not there defines is named', async () => {
    const without = { ...abiHeaders(), 'include/uapi/linux/liveupdate.h': '' }
    const parsed = (await parseTree(memoryTree(without))) as ParsedTree
    const messages = (before: ParsedTree, after: ParsedTree) =>
      lintChange(before, after).map(({ rule, message }) => `${rule} ${message}`)
    const unknown = 'struct luo_session_ser cannot be laid out: LIVEUPDATE_SESSION_NAME_LENGTH is not known'
    expect(messages(parsed, parsed)).toEqual([`UNPARSED ${unknown}`])
    expect(messages(parsed, await tree())).toContain(`UNPARSED before: ${unknown}`)
  })

  test('a node that is demanded anew under the old string, as in Linux 7.0', async () => {
    const strings =
      '#define LUO_FDT_COMPATIBLE "luo-v1"\n#define LUO_FDT_SESSION_NODE_NAME "luo-session"\n#define LUO_FDT_SESSION_COMPATIBLE "luo-session-v2"\n'
    const older: Edit = ['luo', '#define LUO_ABI_COMPATIBLE', `${strings}#define LUO_ABI_COMPATIBLE`]
    const newer: Edit = [
      'luo',
      '#define LUO_ABI_COMPATIBLE',
      `${strings}#define LUO_FDT_FLB_NODE_NAME "luo-flb"\n#define LUO_FDT_FLB_COMPATIBLE "luo-flb-v1"\n#define LUO_ABI_COMPATIBLE`,
    ]
    expect(await changeFrom([older], [newer])).toEqual([
      'error NAME_CHANGED "luo-flb" (LUO_FDT_FLB_NODE_NAME) was added, but LUO_FDT_COMPATIBLE is still "luo-v1", LUO_FDT_SESSION_COMPATIBLE is still "luo-session-v2"',
    ])
  })

  test('with a new version, a change is announced', async () => {
    expect(
      await change(
        ['memfd', 'memfd-v2', 'memfd-v3'],
        ['memfd', '\tu32 seals;', '\tu32 seals;\n\tu64 owner;'],
      ),
    ).toEqual([
      'note ANNOUNCED struct memfd_luo_ser changed: from 48 to 56 bytes, flags from 4 bytes at 20 to 4 bytes at 28, nr_folios from 8 bytes at 24 to 8 bytes at 32, folios from 16 bytes at 32 to 16 bytes at 40, owner added, announced by MEMFD_LUO_FH_COMPATIBLE',
      'note ANNOUNCED MEMFD_LUO_FH_COMPATIBLE was "memfd-v2" and is now "memfd-v3"',
    ])
    expect(
      await change(
        ['kexec_metadata', 'VERSION 1', 'VERSION 2'],
        ['kexec_metadata', 'u32 kexec_count', 'u64 kexec_count'],
      ),
    ).toEqual([
      'note ANNOUNCED KHO_KEXEC_METADATA_VERSION was 1 and is now 2',
      'note ANNOUNCED struct kho_kexec_metadata changed: from 73 to 77 bytes, kexec_count from 4 bytes at 69 to 8 bytes at 69, announced by KHO_KEXEC_METADATA_VERSION',
    ])
  })

  test('the version of one component announces nothing for another', async () => {
    const found = await change(
      ['memfd', 'memfd-v2', 'memfd-v3'],
      ['luo', '\tu64 token;', '\tu64 token;\n\tu64 flags;'],
    )
    expect(found.map((text) => text.split(' ').slice(0, 2).join(' '))).toEqual([
      'error STRUCT_CHANGED',
      'note ANNOUNCED',
    ])
  })

  test('the version that a comment names counts, not that of the header', async () => {
    const guarded: Edit = [
      'memfd',
      'struct memfd_luo_folio_ser {',
      '/* Goes with KHO_FDT_COMPATIBLE. */\nstruct memfd_luo_folio_ser {',
    ]
    const shifted: Edit = ['memfd', 'pfn:52;\n\tu64 flags:12', 'pfn:51;\n\tu64 flags:13']
    const renamed: Edit = ['memfd', 'memfd-v2', 'memfd-v3']
    expect(
      (await changeFrom([guarded], [guarded, shifted, renamed])).map((text) => text.split(', but ')[1]),
    ).toEqual(['KHO_FDT_COMPATIBLE is still "kho-v4"', undefined])
  })

  test('a new name of the same thing is no change', async () => {
    expect(
      await change(
        ['kexec_handover', 'KHO_SUB_TREE_PROP_NAME', 'KHO_SUBTREE_PROP_NAME'],
        ['kexec_handover', 'KHO_RADIX_KEY_WIDTH', 'KHO_KEY_WIDTH'],
      ),
    ).toEqual([])
  })
})

describe('on the command line', () => {
  let directory: string
  const write = (name: string, ...edits: readonly Edit[]): string => {
    const top = `${directory}/${name}`
    for (const [path, text] of Object.entries(abiHeaders(...edits))) {
      mkdirSync(dirname(`${top}/${path}`), { recursive: true })
      writeFileSync(`${top}/${path}`, text)
    }
    return top
  }
  const git = (...args: readonly string[]): string =>
    execFileSync('git', ['-C', `${directory}/git`, ...args], { encoding: 'utf8' })
  const grown: Edit = ['luo', '\tu64 token;', '\tu64 token;\n\tu64 flags;']

  beforeAll(() => {
    directory = mkdtempSync(`${tmpdir()}/kho-inspect-lint-`)
    write('good')
    write('drift', ['kexec_handover', 'compatible = "kho-v4"', 'compatible = "kho-v3"'])
    write('grown', grown)
    mkdirSync(`${directory}/empty`)
    write('git')
    git('init', '-q', '-b', 'main')
    git('config', 'user.email', 'test@example.com')
    git('config', 'user.name', 'Test')
    git('add', '.')
    git('commit', '-q', '-m', 'one')
    git('tag', 'v1')
    write('git', grown)
    git('commit', '-q', '-a', '-m', 'two')
  })
  afterAll(() => rmSync(directory, { recursive: true }))

  const run = (names: readonly string[], options?: Partial<AbiArguments>) =>
    runAbi(
      directory,
      'lint',
      names.map((name) => (name.includes('..') ? name : `${directory}/${name}`)),
      options,
    )

  test('a directory without findings, one with', async () => {
    expect(await run(['good'])).toEqual({
      status: 0,
      out: 'DIR/good: 0 errors, 0 warnings, 0 notes\n',
      err: '',
    })
    const finding =
      'include/linux/kho/abi/kexec_handover.h:11  warning  COMMENT_VERSION  the comment says "kho-v3", KHO_FDT_COMPATIBLE is "kho-v4"'
    const out = `${finding}\n\nDIR/drift: 0 errors, 1 warning, 0 notes\n`
    expect(await run(['drift'])).toEqual({ status: 1, out, err: '' })
  })

  test('two directories, and two revisions', async () => {
    const finding =
      'include/linux/kho/abi/luo.h:26  error  STRUCT_CHANGED  struct luo_file_ser changed: from 64 to 72 bytes, flags added, but LUO_ABI_COMPATIBLE is still "luo-v5"\n\n'
    const git = `${directory}/git`
    expect(await run(['good', 'grown'])).toEqual({
      status: 1,
      out: `${finding}DIR/good -> DIR/grown: 1 error, 0 warnings, 0 notes\n`,
      err: '',
    })
    expect(await run(['v1..HEAD'], { git })).toEqual({
      status: 1,
      out: `${finding}v1 -> HEAD: 1 error, 0 warnings, 0 notes\n`,
      err: '',
    })
    expect(await run(['v1..v1'], { git })).toEqual({
      status: 0,
      out: 'v1 -> v1: 0 errors, 0 warnings, 0 notes\n',
      err: '',
    })
    const { out } = await run(['v1..'], { git, json: true })
    expect(JSON.parse(out)).toMatchObject({
      schema: 'kho-inspect/abi-lint@1',
      trees: ['v1', 'HEAD'],
      findings: [
        { rule: 'STRUCT_CHANGED', severity: 'error', file: 'include/linux/kho/abi/luo.h', line: 26 },
      ],
    })
  })

  test.each([
    ['empty', 'no headers in include/linux/kho/abi; expected a kernel source tree of Linux 6.19 or later'],
    ['absent', 'no such directory'],
    ['good/include/linux/types.h', 'is a file; expected a kernel source tree'],
  ])('%s', async (name, problem) => {
    expect(await run([name])).toEqual({ status: 3, out: '', err: `kho-inspect: DIR/${name}: ${problem}\n` })
  })

  test('ranges that are none', async () => {
    const git = `${directory}/git`
    expect(await run(['v1..v9'], { git })).toEqual({
      status: 3,
      out: '',
      err: "kho-inspect: DIR/git: git knows no revision 'v9'\n",
    })
    expect((await run(['v1...HEAD'], { git })).status).toBe(
      "expected OLD..NEW with two dots; found 'v1...HEAD'",
    )
    expect((await run(['good', 'grown'], { git })).status).toBe(
      '--git goes with a range of revisions, OLD..NEW',
    )
    expect((await run(['v1..HEAD'], { git: `${directory}/empty` })).err).toMatch(
      /^kho-inspect: DIR\/empty: fatal: not a git repository/,
    )
  })

  test('a revision is never taken for an option', async () => {
    for (const revision of ['--output=x', '-h', '']) {
      expect(await gitTree(`${directory}/git`, revision)).toEqual({
        problem: `${directory}/git: git knows no revision '${revision}'`,
      })
    }
  })
})
