/** Sparse memory against a plain buffer, and the page allocator against what it promises. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type PhysAddr, type PhysRange, phys } from '../abi/memory.ts'
import { SparseMemory } from '../encode/memory.ts'
import { PageAllocator } from '../encode/page-allocator.ts'

const range = (start: number, end: number): PhysRange => ({ start: phys(start), end: BigInt(end) })

describe('sparse memory', () => {
  const SIZE = 16 * 4096
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('write' as const),
      at: fc.nat(SIZE - 1),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 9000 }),
    }),
    fc.record({
      kind: fc.constant('generate' as const),
      at: fc.nat(SIZE - 1),
      length: fc.integer({ min: 1, max: 20000 }),
      value: fc.integer({ min: 1, max: 255 }),
    }),
  )

  test('reads as a buffer to which the same was written', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), fc.nat(SIZE - 1), (steps, from) => {
        const memory = new SparseMemory(4096, [range(0x1000, 0x1000 + SIZE)])
        const generated = new Uint8Array(SIZE)
        const written = new Map<number, Uint8Array>()
        const page = (number: number): Uint8Array => {
          const known = written.get(number) ?? generated.slice(number * 4096, number * 4096 + 4096)
          written.set(number, known)
          return known
        }
        for (const one of steps) {
          if (one.kind === 'write') {
            const bytes = one.bytes.subarray(0, SIZE - one.at)
            memory.write(phys(0x1000 + one.at), bytes)
            for (const [index, byte] of bytes.entries()) {
              page(Math.floor((one.at + index) / 4096))[(one.at + index) % 4096] = byte
            }
          } else {
            const end = Math.min(SIZE, one.at + one.length)
            memory.generate(range(0x1000 + one.at, 0x1000 + end), (_pa, out) => out.fill(one.value))
            generated.fill(one.value, one.at, end)
          }
        }
        const expected = Uint8Array.from(generated)
        for (const [number, bytes] of written) expected.set(bytes, number * 4096)
        const found = new Uint8Array(SIZE - from)
        expect(memory.read(phys(0x1000 + from), found)).toBe(found.length)
        expect(Buffer.compare(found, expected.subarray(from))).toBe(0)
      }),
    )
  })

  test('tells RAM from holes, zeros from what was written', () => {
    const memory = new SparseMemory(4096, [
      range(0x1000, 0x3000),
      range(0x3000, 0x4000),
      range(0x8000, 0x9000),
    ])
    expect(memory.ranges).toEqual([range(0x1000, 0x4000), range(0x8000, 0x9000)])
    expect(memory.presence(phys(0))).toEqual({ state: 'hole', until: 0x1000n })
    expect(memory.presence(phys(0x3fff))).toEqual({ state: 'present', until: 0x4000n })
    expect(memory.presence(phys(0x9000))).toEqual({ state: 'hole', until: 1n << 64n })
    const bytes = new Uint8Array(0x2000).fill(7)
    expect(memory.read(phys(0x3000), bytes)).toBe(0x1000)
    expect([bytes[0], bytes[0xfff], bytes[0x1000]]).toEqual([0, 0, 7])
    expect(memory.extents()).toEqual([])
    memory.write(phys(0x2ffe), Uint8Array.of(1, 2, 3))
    memory.generate(range(0x8000, 0x8001), () => {})
    expect(memory.extents()).toEqual([range(0x2000, 0x4000), range(0x8000, 0x9000)])
  })

  test('reaches to the last byte of 64 bits', () => {
    const memory = new SparseMemory(4096)
    const last = (1n << 64n) - 1n
    memory.write(last as PhysAddr, Uint8Array.of(5))
    const bytes = new Uint8Array(4)
    expect(memory.read(last as PhysAddr, bytes)).toBe(1)
    expect(bytes[0]).toBe(5)
    expect(memory.extents()).toEqual([{ start: last - 4095n, end: 1n << 64n }])
  })
})

describe('the page allocator', () => {
  const requests = fc.array(
    fc.record({ order: fc.integer({ min: 0, max: 5 }), count: fc.integer({ min: 1, max: 20 }) }),
    { maxLength: 20 },
  )
  const taken = fc.array(fc.record({ at: fc.nat(0x100000), length: fc.integer({ min: 1, max: 0x20000 }) }), {
    maxLength: 6,
  })

  test('gives aligned units of RAM that nobody has, until none is left', () => {
    fc.assert(
      fc.property(requests, taken, (orders, reserved) => {
        const ram = [range(0x1800, 0x80000), range(0xa0000, 0x100000)]
        const allocator = new PageAllocator(4096, ram)
        const used: PhysRange[] = reserved.map(({ at, length }) => range(at, at + length))
        for (const one of used) allocator.reserve(one)
        for (const { order, count } of orders) {
          const bytes = 4096n << BigInt(order)
          const before = allocator.freeUnits(order)
          const runs = allocator.allocateUnits(order, count)
          expect(runs === undefined).toBe(before < count)
          for (const run of runs ?? []) {
            const end = run.start + bytes * BigInt(run.count)
            expect(run.start % bytes).toBe(0n)
            expect(ram.some((one) => one.start <= run.start && end <= one.end)).toBe(true)
            expect(used.some((one) => one.start < end && run.start < one.end)).toBe(false)
            used.push({ start: run.start, end })
          }
          expect(runs?.reduce((sum, run) => sum + run.count, 0) ?? count).toBe(count)
          expect(allocator.freeUnits(order)).toBe(before - (runs ? count : 0))
        }
      }),
    )
  })

  test('takes the lowest first and never page 0', () => {
    const allocator = new PageAllocator(4096, [range(0, 0x10000)])
    expect([allocator.allocate(0), allocator.allocate(1), allocator.allocate(0)]).toEqual([
      0x1000n,
      0x2000n,
      0x4000n,
    ])
    expect(allocator.allocateUnits(1, 5)).toEqual([{ start: 0x6000n, count: 5 }])
    expect(allocator.allocateUnits(0, 2)).toBeUndefined()
    expect(allocator.allocateUnits(0, 1)).toEqual([{ start: 0x5000n, count: 1 }])
  })

  test('gives neighbouring pages in one piece', () => {
    const allocator = new PageAllocator(16384, [range(0x4000, 0x10000), range(0x20000, 0x80000)])
    allocator.reserve(range(0x30000, 0x30001))
    expect(allocator.allocateRange(4)).toBe(0x20000n)
    expect(allocator.allocateRange(3)).toBe(0x4000n)
    expect(allocator.allocateRange(20)).toBeUndefined()
  })

  test('is at home beyond 32 bits of frames', () => {
    const start = 1n << 60n
    const allocator = new PageAllocator(4096, [{ start: phys(start), end: start + 0x10000n }])
    expect(allocator.allocateUnits(2, 4)).toEqual([{ start, count: 4 }])
  })
})
