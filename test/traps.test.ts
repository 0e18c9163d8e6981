/** Traps of the packages in use, each avoided by design: what would go wrong, and that it does not here. */
import { Parser } from 'binary-parser'
import fc from 'fast-check'
import { hexy } from 'hexy'
import { expect, test } from 'vitest'
import { memfdFolio } from '../abi/memfd.ts'
import { type PhysicalMemory, phys } from '../abi/memory.ts'
import { columnOf } from '../inspect/columns.ts'
import { noPaint } from '../inspect/paint.ts'
import { decodeStruct } from '../inspect/record.ts'
import { renderHex } from '../inspect/render-hex.ts'
import { ran } from './support/command-line.ts'
import { realPath } from './support/images.ts'

const target = { pageSize: 4096 } as const

test('binary-parser: wide little-endian bit fields are split exactly', () => {
  fc.assert(
    fc.property(
      fc.bigInt(0n, 2n ** 52n - 1n),
      fc.integer({ min: 0, max: 4095 }),
      fc.bigInt(0n, 2n ** 64n - 1n),
      (pfn, flags, index) => {
        const view = new DataView(new ArrayBuffer(16))
        view.setBigUint64(0, (BigInt(flags) << 52n) | pfn, true)
        view.setBigUint64(8, index, true)
        const bytes = new Uint8Array(view.buffer)
        expect(decodeStruct(memfdFolio, bytes, target)).toEqual({ pfn, flags: BigInt(flags), index })
        expect(columnOf(memfdFolio, 'pfn', target)(view, 0)).toBe(Number(pfn))
        expect(columnOf(memfdFolio, 'flags', target)(view, 0)).toBe(flags)
      },
    ),
  )
})

test('binary-parser: a buffer that is too short is a bug of ours, found at once', () => {
  expect(() => decodeStruct(memfdFolio, new Uint8Array(15), target)).toThrow('internal error')
  expect(() => new Parser().uint64le('index').parse(new Uint8Array(4))).toThrow(RangeError)
})

function memoryOf(start: bigint, bytes: Uint8Array): PhysicalMemory {
  const end = start + BigInt(bytes.length)
  return {
    ranges: [{ start: phys(start), end }],
    read: (pa, out) => {
      if (pa < start || pa >= end) return 0
      const part = bytes.subarray(Number(pa - start), Number(pa - start) + out.length)
      out.set(part)
      return part.length
    },
    presence: (pa) =>
      pa >= start && pa < end
        ? { state: 'present', until: end }
        : { state: 'hole', until: pa < start ? start : 1n << 64n },
    filePosition: () => undefined,
  }
}

test('hexy: addresses above 4 GiB, bytes above 0x7f and DEL come out right', () => {
  expect(() => hexy(Buffer.alloc(16), { displayOffset: 2 ** 33 })).toThrow()
  const start = phys(0xffff_ffff_ffff_0000n)
  const memory = memoryOf(start, Uint8Array.from([0x41, 0x7f, 0x80, 0xff, 0xc3, 0xa9, 0x1b, 0x00]))
  const lines = [...renderHex(memory, [], start, start + 8n, { paint: noPaint, all: false, offsets: false })]
  expect(lines).toEqual([
    '0xffffffffffff0000  41 7f 80 ff c3 a9 1b 00                          A.......          not decoded',
  ])
})

test('yargs: several images are all taken, an option given twice is refused', async () => {
  const image = realPath('linux-7.3-x86_64-basic')
  expect((await ran(['dump', image, 'absent@0x80000000'])).stderr).toMatch(/absent/)
  expect((await ran(['dump', image, '--json', '--json'])).status).toBe(2)
})

test('yargs: an address of 64 bits is not rounded, on any way in', async () => {
  const image = realPath('linux-7.3-x86_64-basic')
  for (const address of ['18446744073709547521', '0xfffffffffffff001']) {
    expect((await ran(['hex', image, address, '1'])).stdout).toBe(
      '0xfffffffffffff001  1 bytes missing: no memory there in the image\n',
    )
    expect((await ran(['dump', image, '--fdt', address])).stderr).toMatch(/ at 0xfffffffffffff001, found/)
    expect((await ran(['dump', image, `--fdt=${address}`])).stderr).toMatch(/ at 0xfffffffffffff001, found/)
  }
})
