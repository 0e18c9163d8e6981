/** Documents as JSON: lossless both ways, editable by hand, wrong ones with their place. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { PhysAddr } from '../abi/memory.ts'
import type { HandoverDocument } from '../encode/handover.ts'
import { formatHandoverDocument, parseHandoverDocument } from '../encode/json-document.ts'
import { writeHandover } from '../encode/write-handover.ts'
import { REAL_IMAGES, RealImage } from './support/elf-core.ts'
import { readDocument } from './support/handover-reader.ts'

const documentOf = (name: string): HandoverDocument => readDocument(new RealImage(name), name)
const newest = formatHandoverDocument(documentOf('linux-7.3-x86_64-basic'))

describe.each(REAL_IMAGES)('%s', (name) => {
  test('JSON and back gives the same memory', () => {
    const document = documentOf(name)
    const json = formatHandoverDocument(document)
    const parsed = parseHandoverDocument(json)
    expect(parsed.problems).toEqual([])
    expect(formatHandoverDocument(parsed.document as HandoverDocument)).toBe(json)
    const before = writeHandover(document).memory
    const after = writeHandover(parsed.document as HandoverDocument)
    expect(after.problems).toEqual([])
    expect(after.memory.extents()).toEqual(before.extents())
    for (const { start, end } of before.extents()) {
      const [one, other] = [new Uint8Array(Number(end - start)), new Uint8Array(Number(end - start))]
      before.read(start, one)
      after.memory.read(start, other)
      expect(Buffer.compare(one, other)).toBe(0)
    }
  })
})

test('the example of the documentation is written as it says', () => {
  const docs = readFileSync(new URL('../docs/handover-document.md', import.meta.url), 'utf8')
  const example = docs.match(/```json\n(.*?)```/s)?.[1] ?? ''
  const { document, problems } = parseHandoverDocument(example)
  expect(problems).toEqual([])
  const { boot, problems: unwritten } = writeHandover(document as HandoverDocument)
  expect(unwritten).toEqual([])
  expect(boot).toEqual({
    fdt_addr: 0x40959000n,
    fdt_size: 4096n,
    scratch_addr: 0x4bff0000n,
    scratch_size: 16n,
  })
})

/** Parses the newest document after a change to its JSON value. */
// biome-ignore lint/suspicious/noExplicitAny: JSON is edited here as a person would, key by key.
function edited(change: (json: any) => unknown): ReturnType<typeof parseHandoverDocument> {
  const json = JSON.parse(newest)
  change(json)
  return parseHandoverDocument(JSON.stringify(json))
}

/** Free memory behind the image's own, for what an edit adds. */
const spare = { start: '0x40000000', size: 1 << 20 }

describe('edits by hand', () => {
  const u64 = (document: HandoverDocument, pa: bigint): bigint => {
    const bytes = new Uint8Array(8)
    expect(writeHandover(document).memory.read(pa as PhysAddr, bytes)).toBe(8)
    return new DataView(bytes.buffer).getBigUint64(0, true)
  }

  test('a removed address is chosen anew, and the link follows', () => {
    const { document } = edited((json) => {
      json.ram.push(spare)
      delete json.subtrees[1].luo.sessions.blocks[0].at
    })
    const written = writeHandover(document as HandoverDocument)
    expect(written.problems).toEqual([])
    expect(u64(document as HandoverDocument, 0x1ebb000n + 16n)).toBe(0x40000000n)
  })

  test('a changed name stands in its record', () => {
    const { document } = edited((json) => {
      json.subtrees[1].luo.sessions.entries[0].name = 'vm-näme'
    })
    const name = new Uint8Array(10)
    writeHandover(document as HandoverDocument).memory.read(0x1edc010n as PhysAddr, name)
    expect(new TextDecoder().decode(name)).toBe('vm-näme\0\0')
  })

  test('a file without an address joins the last block and is preserved', () => {
    const { document, problems } = edited((json) => {
      json.ram.push(spare)
      const memfd = {
        size: 8192,
        content: { text: 'hello' },
        folios: { records: [{ count: 2, flags: 3, index: 0 }] },
      }
      json.subtrees[1].luo.sessions.entries[0].files.entries.push({ compatible: 'memfd-v2', token: 9, memfd })
    })
    expect(problems).toEqual([])
    const { memory, problems: unwritten } = writeHandover(document as HandoverDocument)
    expect(unwritten).toEqual([])
    const added = 0x1edd000n + 16n + 3n * 64n
    expect(u64(document as HandoverDocument, 0x1edd008n)).toBe(4n)
    expect(u64(document as HandoverDocument, added + 56n)).toBe(9n)
    const record = u64(document as HandoverDocument, added + 48n)
    expect(u64(document as HandoverDocument, record + 8n)).toBe(8192n)
    const chunk = u64(document as HandoverDocument, record + 32n)
    const array = u64(document as HandoverDocument, chunk + 8n)
    const folio = (u64(document as HandoverDocument, array) & 0xf_ffff_ffff_ffffn) << 12n
    const bytes = new Uint8Array(6)
    memory.read(folio as PhysAddr, bytes)
    expect(new TextDecoder().decode(bytes)).toBe('hello\0')
    const leaf = new Uint8Array(4096)
    const pages = [record, chunk, array, folio, folio + 4096n].map((pa) => Number((pa - 0x40000000n) >> 12n))
    const leafOf = (root: bigint): bigint =>
      [2n, 0n, 0n, 0n, 8n].reduce((node, index) => u64(document as HandoverDocument, node + index * 8n), root)
    memory.read(leafOf(0x49b000n) as PhysAddr, leaf)
    expect([...leaf.subarray(0, 2)]).toEqual([pages.reduce((bits, page) => bits | (1 << page), 0), 0])
  })

  test('steps of runs that are left out are those of neighbours', () => {
    const { document, problems } = edited((json) => {
      json.subtrees[2].kho_test.folios_info.records = [{ value: '0x40000001', order: 1, count: 2 }]
      const { memfd } = json.subtrees[1].luo.sessions.entries[0].files.entries[0]
      memfd.folios.records = [{ pfn: '0x40000', flags: 3, index: 0, order: 4, count: 3 }]
    })
    expect(problems).toEqual([])
    const [, luo, khoTest] = (document as HandoverDocument).subtrees
    expect(khoTest?.kho_test?.folios_info.records?.step('value', 0)).toBe(8192)
    const records = luo?.luo?.sessions?.entries?.[0]?.files?.entries?.[0]?.memfd?.folios?.records
    expect(records?.run(0).step).toEqual({ pfn: 16, flags: 0, index: 16 })
  })

  test('the handle of a file places its record', () => {
    const { document } = edited((json) => {
      json.ram.push(spare)
      const [file] = json.subtrees[1].luo.sessions.entries[0].files.entries
      file.data = '0x40003000'
      delete file.memfd.at
    })
    expect(u64(document as HandoverDocument, 0x1edd010n + 48n)).toBe(0x40003000n)
    expect(u64(document as HandoverDocument, 0x40003000n)).toBe(1234n)
  })

  test('names may be any bytes, integers any 64 bits', () => {
    const { document, problems } = edited((json) => {
      json.subtrees[1].luo.sessions.entries[0].name = { hex: 'ff fe 01' }
      json.subtrees[1].luo.flbs.entries[0].count = '0xffffffffffffffff'
    })
    expect(problems).toEqual([])
    const luo = (document as HandoverDocument).subtrees[1]?.luo
    expect(luo?.sessions?.entries?.[0]?.name).toEqual(Uint8Array.of(255, 254, 1))
    expect(luo?.flbs?.entries?.[0]?.count).toBe(0xffff_ffff_ffff_ffffn)
    expect(formatHandoverDocument(document as HandoverDocument)).toMatch(/"name": \{ "hex": "fffe01" \}/)
  })
})

// biome-ignore lint/suspicious/noExplicitAny: JSON is edited here as a person would, key by key.
type Mistake = readonly [what: string, change: (json: any) => unknown, path: string, message: RegExp]

describe('mistakes', () => {
  test.each([
    ['text that is no JSON', '{', '', /^no JSON: /],
    ['no object', '[]', '', /^expected an object$/],
    [
      'another schema',
      '{"schema": "kho-inspect/handover@9"}',
      'schema',
      /expected "kho-inspect\/handover@1"/,
    ],
  ])('%s', (_what, text, path, message) => {
    const { document, problems } = parseHandoverDocument(text)
    expect(document).toBeUndefined()
    expect(problems).toEqual([{ path, message: expect.stringMatching(message) }])
  })

  test.each<Mistake>([
    [
      'a page size that is none',
      (json) => Object.assign(json, { page_size: 8192 }),
      'page_size',
      /4096 or 16384 or 65536/,
    ],
    [
      'an unknown version',
      (json) => Object.assign(json.versions, { kho: 'kho-v9' }),
      'versions.kho',
      /kho-v4/,
    ],
    [
      'an unknown key',
      (json) => Object.assign(json.root, { adress: '0x1000' }),
      'root.adress',
      /^unknown key; known are at, style/,
    ],
    [
      'a field of another version',
      (json) => Object.assign(json.versions, { luo: 'luo-v1' }),
      'subtrees[1].luo.flbs',
      /^unknown key/,
    ],
    [
      'a record without its version',
      (json) => delete json.versions.luo,
      'subtrees[1].luo',
      /^versions.luo must say luo-v1\/session-v1 or /,
    ],
    [
      'a rounded integer',
      (json) => Object.assign(json.subtrees[1].luo.sessions.entries[0].files.entries[0], { token: 2 ** 60 }),
      'subtrees[1].luo.sessions.entries[0].files.entries[0].token',
      /rounded by JSON; write this one as a hex string/,
    ],
    [
      'an address of 65 bits',
      (json) => Object.assign(json.root, { at: '0x10000000000000000' }),
      'root.at',
      /more than 64 bits/,
    ],
    [
      'a negative address',
      (json) => Object.assign(json.root, { at: -1 }),
      'root.at',
      /^expected a non-negative/,
    ],
    [
      'a missing key',
      (json) => delete json.subtrees[1].luo.flbs.entries[2].count,
      'subtrees[1].luo.flbs.entries[2].count',
      /^this key is needed$/,
    ],
    [
      'a name with NUL',
      (json) => Object.assign(json.subtrees[0], { name: 'a\0b' }),
      'subtrees[0].name',
      /ends at NUL/,
    ],
    [
      'a path that leads nowhere in the tree',
      (json) => Object.assign(json.preserved.nodes, { 'x/1': null }),
      'preserved.nodes.x/1',
      /indexes joined by/,
    ],
    [
      'two kinds of content',
      (json) => Object.assign(json, { contents: [{ at: '0x1000', content: { hex: '00', text: 'a' } }] }),
      'contents[0].content',
      /one of hex, text, pattern, words, repeated/,
    ],
  ])('%s', (_what, change, path, message) => {
    const { document, problems } = edited(change)
    expect(document).toBeUndefined()
    expect(problems[0]).toEqual({ path, message: expect.stringMatching(message) })
  })

  test('an FDT without end', () => {
    let tree = '{"name":"","properties":[],"children":[]}'
    for (let depth = 0; depth < 70; depth++) tree = `{"name":"n","properties":[],"children":[${tree}]}`
    const { problems } = edited((json) => json.subtrees.push({ name: 'x', fdt: JSON.parse(tree) }))
    expect(problems[0]?.message).toBe('nested deeper than 64 nodes')
  })
})
