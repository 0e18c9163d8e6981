/**
 * The sum that the KHO test module keeps over its folios: csum_partial() of both architectures against the
 * carries of their instructions, and what the validator says where it is wrong, or cannot be known.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { csumPartial, sumOfWords } from '../abi/csum.ts'
import { ARCHITECTURES, type Architecture } from '../abi/machine.ts'
import { type PhysicalMemory, phys } from '../abi/memory.ts'
import { type Release, releaseByName } from '../abi/registry.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { child, type Node, numberAt, type RecordNode } from '../inspect/tree.ts'
import { validate, validateForAll } from '../inspect/validate.ts'
import type { Verdict } from '../inspect/verdict.ts'
import { type Base, encodedBase } from './support/fault-bases.ts'
import { PatchedMemory } from './support/patched.ts'

const MAX_32 = 0xffff_ffffn

/** Words of so many bytes. */
function words(bytes: Uint8Array, size: 2 | 8): readonly bigint[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const word = (at: number): bigint =>
    size === 2 ? BigInt(view.getUint16(at, true)) : view.getBigUint64(at, true)
  return Array.from({ length: bytes.length / size }, (_, i) => word(i * size))
}

/** Adds what does not fit into so many bits at the lower end. */
function withCarry(a: bigint, b: bigint, bits: bigint): bigint {
  const total = a + b
  const low = BigInt.asUintN(Number(bits), total)
  return low + (total >> bits)
}

/** As the instructions do it: on x86 an adc of 64-bit words, at the end both halves; on arm64 16 bits, then the sum. */
function kernelSum(arch: Architecture, bytes: Uint8Array, sum: bigint): bigint {
  if (arch === 'x86_64') {
    const all = words(bytes, 8).reduce((total, word) => withCarry(total, word, 64n), sum)
    return withCarry(all >> 32n, all & MAX_32, 32n)
  }
  const folded = words(bytes, 2).reduce((total, word) => withCarry(total, word, 16n), 0n)
  return withCarry(folded, sum, 32n)
}

describe.each(ARCHITECTURES)('csum_partial() of %s', (arch) => {
  const ours = (bytes: Uint8Array, sum: number): bigint => BigInt(csumPartial(arch, sumOfWords(bytes), sum))

  test.each([
    ['zeros', 0, 0],
    ['zeros after something', 0, 0xffff_ffff],
    ['ones', 0xff, 0],
    ['ones after ones', 0xff, 0xffff_ffff],
    ['ones after the largest sum of 16 bits', 0xff, 0xffff],
  ])('%s', (_what, byte, sum) => {
    const bytes = new Uint8Array(4096).fill(byte)
    expect(ours(bytes, sum)).toBe(kernelSum(arch, bytes, BigInt(sum)))
  })

  test('any folios, one after the other', () => {
    const folio = fc.uint8Array({ minLength: 1, maxLength: 64 }).map((bytes) => {
      const page = new Uint8Array(128)
      page.set(bytes)
      return page
    })
    fc.assert(
      fc.property(fc.array(folio, { maxLength: 5 }), fc.nat(0xffff_ffff), (folios, first) => {
        const kernels = folios.reduce((sum, bytes) => kernelSum(arch, bytes, sum), BigInt(first))
        expect(BigInt(folios.reduce((sum, bytes) => Number(ours(bytes, sum)), first))).toBe(kernels)
      }),
    )
  })

  test('a folio in pieces', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), fc.nat(15), (bytes, cut) => {
        const pieces = sumOfWords(bytes.subarray(4 * cut), sumOfWords(bytes.subarray(0, 4 * cut)))
        expect(pieces).toBe(sumOfWords(bytes))
      }),
    )
  })
})

test('words of which the sum is larger than a number holds', () => {
  const bytes = new Uint8Array(16 << 20).fill(0xff)
  bytes[0] = 0xfe
  expect(sumOfWords(bytes)).toBe(0xffff_fffe)
})

const release = releaseByName('linux-7.3') as Release
const bases = await Promise.all([
  encodedBase({ release, arch: 'x86_64', pageSize: 4096 }),
  encodedBase({ release, arch: 'arm64', pageSize: 4096 }),
  encodedBase({ release, arch: 'arm64', pageSize: 65536 }),
  encodedBase({ release: releaseByName('linux-6.17') as Release, arch: 'x86_64', pageSize: 4096 }),
])

const FAILED = 'test_kho: KHO restore failed'

function judge(base: Base, memory: PhysicalMemory): Verdict {
  const handover = decodeHandover(memory, phys(base.fdt), base.decode)
  return validate(handover, base.options)
}

const brokenRules = ({ findings }: Verdict): readonly string[] =>
  findings.filter(({ severity }) => severity !== 'note').map(({ rule }) => rule)

function dataOf({ handover }: Base): RecordNode {
  return child(child(handover.tree, 'kho_test'), 'data') as RecordNode
}

/** Addresses of the folios, with their orders, and where the list has them. */
function foliosOf(base: Base): readonly { readonly word: bigint; readonly pa: bigint }[] {
  const list = child(dataOf(base), 'folios_info') as Node
  const start = list.kind === 'record' ? (list.bulk?.groups[0] as bigint) : list.pa
  const count = Number(numberAt(dataOf(base), 'nr_folios'))
  return Array.from({ length: count }, (_, i) => {
    const bytes = new Uint8Array(8)
    base.memory.read(phys(start + BigInt(i * 8)), bytes)
    return { word: words(bytes, 8)[0] as bigint, pa: start + BigInt(i * 8) }
  })
}

const folioAddress = ({ handover }: Base, word: bigint): bigint =>
  word - (word % BigInt(handover.target.pageSize))

function folioBytes({ handover: { target } }: Base, word: bigint): number {
  return target.pageSize * 2 ** Number(word % BigInt(target.pageSize))
}

describe.each(bases.map((base) => [base.name, base] as const))('%s', (_name, base) => {
  const folios = foliosOf(base)
  const last = folios.at(-1) as (typeof folios)[number]
  const csum = child(dataOf(base), 'csum') as Node

  test('the sum is right', () => {
    expect(folios.length).toBeGreaterThan(2)
    expect(judge(base, base.memory).console).not.toContain(FAILED)
    expect(brokenRules(judge(base, base.memory))).toEqual([])
  })

  test('a byte at the end of the last folio', () => {
    const memory = new PatchedMemory(base.memory)
    const pa = folioAddress(base, last.word) + BigInt(folioBytes(base, last.word)) - 1n
    const byte = new Uint8Array(1)
    base.memory.read(phys(pa), byte)
    memory.write(pa, Uint8Array.of((byte[0] as number) ^ 0x80))
    const verdict = judge(base, memory)
    expect(brokenRules(verdict)).toEqual(['KHO_TEST_SUM'])
    expect(verdict.outcome).toBe('loses')
    expect(verdict.parts.filter(({ outcome }) => outcome !== 'takes-over')).toEqual([
      { part: 'kho_test', outcome: 'loses' },
    ])
    expect(verdict.console.filter((line) => line === FAILED)).toEqual(
      base.kernel.release.name === 'linux-6.17' ? [] : [FAILED],
    )
    const [finding] = verdict.findings.filter(({ rule }) => rule === 'KHO_TEST_SUM')
    expect([finding?.path, finding?.pa, finding?.length]).toEqual(['kho_test.data.csum', csum.pa, 4])
    expect(finding?.found).toBe(`0x${numberAt(dataOf(base), 'csum')?.toString(16)}`)
  })

  test('a page of a folio that the image does not hold', () => {
    const memory = new PatchedMemory(base.memory)
    memory.remove(folioAddress(base, last.word), 1)
    memory.write(csum.pa, Uint8Array.of(1, 2, 3, 4))
    expect(brokenRules(judge(base, memory))).toEqual([])
  })

  test('a folio twice: it cannot be restored again, and the sum is that of those before', () => {
    const memory = new PatchedMemory(base.memory)
    memory.writeU64(last.pa, (folios[0] as typeof last).word)
    expect(brokenRules(judge(base, memory))).toContain('KHO_TEST_SUM')
    const before = folios.slice(0, -1).reduce((sum, { word }) => {
      const folio = new Uint8Array(folioBytes(base, word))
      base.memory.read(phys(folioAddress(base, word)), folio)
      return kernelSum('arm64', folio, sum)
    }, 0n)
    memory.write(csum.pa, new Uint8Array(Uint32Array.of(Number(before)).buffer))
    expect(brokenRules(judge(base, memory))).not.toContain('KHO_TEST_SUM')
  })

  test('an order that no memory has', () => {
    const memory = new PatchedMemory(base.memory)
    memory.writeU64(last.pa, last.word | 0xfffn)
    expect(brokenRules(judge(base, memory))).toContain('KHO_TEST_PRESERVED')
    expect(brokenRules(judge(base, memory))).not.toContain('KHO_TEST_SUM')
  })
})

test('a sum is none of an architecture without pages of this size', () => {
  const [x86, , large] = bases
  const expected = ({ findings }: Verdict): string | undefined =>
    findings.find(({ rule }) => rule === 'KHO_TEST_SUM')?.expected
  const withSum = (base: Base): PhysicalMemory => {
    const memory = new PatchedMemory(base.memory)
    memory.write((child(dataOf(base), 'csum') as Node).pa, Uint8Array.of(1, 2, 3, 4))
    return memory
  }
  expect(expected(judge(x86, withSum(x86)))).toMatch(/^0x[0-9a-f]+ on x86_64, 0x[0-9a-f]+ on arm64$/)
  expect(expected(judge(large, withSum(large)))).toMatch(/^0x[0-9a-f]+ on arm64$/)
})

/** Memory that is full of ones wherever the handover itself is not. */
function endless(base: Base, listed: ReadonlyMap<bigint, Uint8Array>): [PhysicalMemory, () => number] {
  const memory = new PatchedMemory(base.memory)
  for (const [pa, bytes] of listed) memory.write(pa, bytes)
  let read = 0
  const full: PhysicalMemory = {
    ranges: base.memory.ranges,
    read: (pa, out) => {
      const present = memory.read(pa, out)
      if (present < out.length) read += out.length - present
      out.fill(0xff, present)
      return out.length
    },
    presence: () => ({ state: 'present', until: 1n << 64n }),
    filePosition: () => undefined,
  }
  return [full, () => read]
}

test('what is added up is bounded, and added up once for all releases', () => {
  const [base] = bases
  const list = new BigUint64Array(512).map((_, i) => (BigInt(i + 1) << 40n) | 13n)
  const bytes = new Uint8Array(list.buffer)
  const [memory, read] = endless(
    base,
    new Map([
      [foliosOf(base)[0]?.pa as bigint, bytes],
      [(child(dataOf(base), 'nr_folios') as Node).pa, Uint8Array.of(0, 2, 0, 0)],
    ]),
  )
  const handover = decodeHandover(memory, phys(base.fdt), base.decode)
  const before = read()
  const { options } = base
  validate(handover, options)
  const once = read() - before
  expect(once).toBeGreaterThan(2 ** 29)
  expect(once).toBeLessThanOrEqual(2 ** 30 + 2 ** 20)
  validateForAll(handover)
  expect(read() - before - once).toBeLessThan(2 ** 20)
})
