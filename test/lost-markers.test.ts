/**
 * Trees of 16K pages before commit d64b0372760e (kho-v2, kho-v3 up to 7.1-rc5) have one level too few:
 * the marker bit of order-0 keys falls off when they are stored. The tree here is written by hand, key
 * by key, in either depth; nothing in the image says which.
 */
import { describe, expect, test } from 'vitest'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { buildFdt } from '../encode/fdt.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { parseTargetKernel } from '../inspect/target-kernel.ts'
import { validate } from '../inspect/validate.ts'
import { nothing, PatchedMemory } from './support/patched.ts'

const PAGE = 16384n
const [LEAF_BITS, TABLE_BITS, ORDER_0_BIT] = [17n, 11n, 50n]
const ROOT_FDT = 0x4000_0000n
const METADATA = 0x4000_4000n
const MAP = 0x4800_0000n
/** A folio of order 9, 8 MiB. */
const FOLIO = 0x5000_0000n

/** Writes a tree of that many levels, the leaf counted. */
function writeTree(memory: PatchedMemory, keys: readonly bigint[], depth: number): void {
  let free = MAP + PAGE
  const child = (entry: bigint): bigint => {
    if (memory.u64(entry) === 0n) {
      memory.writeU64(entry, free)
      memory.write(free, new Uint8Array(Number(PAGE)))
      free += PAGE
    }
    return memory.u64(entry)
  }
  memory.write(MAP, new Uint8Array(Number(PAGE)))
  for (const key of keys) {
    let node = MAP
    for (let level = BigInt(depth - 1); level > 0n; level--) {
      const index = BigInt.asUintN(Number(TABLE_BITS), key >> ((level - 1n) * TABLE_BITS + LEAF_BITS))
      node = child(node + index * 8n)
    }
    const bit = BigInt.asUintN(Number(LEAF_BITS), key)
    const word = node + (bit / 64n) * 8n
    memory.writeU64(word, memory.u64(word) | (1n << (bit % 64n)))
  }
}

function keyOf(pa: bigint, order: bigint): bigint {
  return (1n << (ORDER_0_BIT - order)) | ((pa / PAGE) >> order)
}

function handoverOf(version: string, depth: number): { memory: PatchedMemory; root: PhysAddr } {
  const memory = new PatchedMemory(nothing)
  const u64 = (value: bigint): Uint8Array => new Uint8Array(new BigUint64Array([value]).buffer)
  const text = (value: string): Uint8Array => new TextEncoder().encode(`${value}\0`)
  const sized = version === 'kho-v2' ? [] : [{ name: 'blob-size', value: u64(73n) }]
  const fdt = buildFdt(
    {
      name: '',
      properties: [
        { name: 'compatible', value: text(version) },
        { name: 'preserved-memory-map', value: u64(MAP) },
      ],
      children: [
        {
          name: 'kexec-metadata',
          properties: [...sized, { name: 'preserved-data', value: u64(METADATA) }],
          children: [],
        },
      ],
    },
    'edited',
    Number(PAGE),
  )
  const metadata = new Uint8Array(Number(PAGE))
  metadata.set([1])
  metadata.set(text('7.1.0-rc3'), 4)
  metadata.set([2], 69)
  memory.write(METADATA, metadata)
  memory.write(ROOT_FDT, fdt?.buffer ?? new Uint8Array())
  writeTree(memory, [keyOf(ROOT_FDT, 0n), keyOf(METADATA, 0n), keyOf(FOLIO, 9n)], depth)
  return { memory, root: phys(ROOT_FDT) }
}

describe.each([
  { version: 'kho-v2', depth: 4, id: 'kho-v2', isLost: true },
  { version: 'kho-v3', depth: 4, id: 'kho-v3/rc', isLost: true },
  { version: 'kho-v3', depth: 5, id: 'kho-v3', isLost: false },
  { version: 'kho-v4', depth: 5, id: 'kho-v4', isLost: false },
])('$version with a tree of depth $depth', ({ version, depth, id, isLost }) => {
  const { memory, root } = handoverOf(version, depth)
  const handover = decodeHandover(memory, root)
  const best = handover.readings[0]

  test('is read at 16K pages, as the version that wrote it', () => {
    expect(handover.faults).toEqual([])
    expect([handover.target.pageSize, best?.version.id]).toEqual([16384, id])
  })

  test('gives back every unit, those of order 0 too', () => {
    expect([...(best?.map.allRuns() ?? [])]).toEqual([
      { order: 0, pfn: Number(ROOT_FDT / PAGE), count: 2 },
      { order: 9, pfn: Number(FOLIO / PAGE), count: 1 },
    ])
    expect([...(best?.map.extents() ?? [])]).toEqual([
      { start: ROOT_FDT, end: ROOT_FDT + 2n * PAGE },
      { start: FOLIO, end: FOLIO + (PAGE << 9n) },
    ])
  })

  test(`${isLost ? 'is' : 'is not'} said to lose its units of one page, once`, () => {
    const kernel = parseTargetKernel(id)
    const { findings, outcome } = validate(handover, kernel ? { kernel } : {})
    const found = findings.filter(({ rule }) => rule === 'KHO_RADIX_DEPTH')
    expect(found.map(({ message }) => message)).toEqual(
      isLost ? ['the tree cannot hold the order of 2 units of one page'] : [],
    )
    if (isLost) expect(outcome).toBe('corrupts')
    expect(kernel?.versions.kho).toBe(id)
  })
})
