/** Faults of real kernels on wrong images: each address ended at the level of the page tables that is computed for it. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  addressSpace,
  faultSyndrome,
  isCanonical,
  linearAddress,
  mappedRanges,
  reachedThroughMap,
  STRUCT_PAGE_PRIVATE,
  structPageAddress,
  translationLevel,
} from '../abi/address-space.ts'
import { ROOT } from './support/images.ts'

interface Case {
  readonly name: string
  readonly console: readonly string[]
}

const WRONG = `${ROOT}fixtures/wrong/`
const read = (file: string): Case & { readonly cases?: readonly Case[] } =>
  JSON.parse(readFileSync(WRONG + file, 'utf8'))
const cases = ['', 'measured/'].flatMap((folder) =>
  readdirSync(WRONG + folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => read(folder + name))
    .flatMap((file) => file.cases ?? [file]),
)

const FAULT = /^Unable to handle kernel .* at virtual address ([0-9a-f]{16})$/
const DIED = /^Internal error: Oops: ([0-9a-f]{16}) \[#1\] {2}SMP$/

const faults = cases.flatMap(({ name, console }) =>
  console.flatMap((line, at) => {
    const [, address] = FAULT.exec(line) ?? []
    if (address === undefined) return []
    const [, syndrome] = DIED.exec(console[at + 1] ?? '') ?? []
    return [{ name, address: BigInt(`0x${address}`), syndrome: BigInt(`0x${syndrome}`) }]
  }),
)

/** The machine of the lab. */
const space = addressSpace('arm64', 4096, 1n << 30n)
const mapped = mappedRanges(space, [{ start: 1n << 30n, end: 3n << 29n }])
const KERNEL_IMAGE = 0xffff_8000_8000_0000n

/** What vmalloc() mapped is not known. */
const isVmalloc = (address: bigint): boolean =>
  address >= KERNEL_IMAGE && address < KERNEL_IMAGE + (1n << 30n)
const WRITES = /^(leaf0-bit0|radix-top-(self|slot)|scratch0-addr-misaligned)/

test('the consoles hold faults at every level', () => {
  expect(faults.length).toBeGreaterThan(80)
  expect(new Set(faults.map(({ syndrome }) => syndrome & 0x3fn))).toEqual(new Set([4n, 5n, 6n, 7n, 0x2bn]))
  expect(faults.filter(({ address }) => isVmalloc(address))).toHaveLength(7)
})

test.each(faults.filter(({ address }) => !isVmalloc(address)))(
  '$name: the syndrome is that of the address',
  ({ name, address, syndrome }) => {
    const level = translationLevel(4096, address, mapped)
    expect(faultSyndrome(level, WRITES.test(name)).toString(16)).toBe(syndrome.toString(16))
  },
)

test('addresses of struct pages and of the linear map are those of the consoles', () => {
  expect(structPageAddress(space, 0n, STRUCT_PAGE_PRIVATE)).toBe(0xffffc1ffbf000028n)
  expect(structPageAddress(space, (1n << 45n) >> 12n, STRUCT_PAGE_PRIVATE)).toBe(0xffffc27fbf000028n)
  expect(linearAddress(space, 0x7ff_ffff_f000n)).toBe(0xfff007ffbffff000n)
  expect(linearAddress(space, 1n)).toBe(0xffffffffc0000001n)
  expect(linearAddress(space, (1n << 64n) - 1n)).toBe(0xffffffffbfffffffn)
})

test.each([
  [4096, 0x4123_4000n, -1, 0xffff_c1ff_c000_0000n],
  [16384, 0x4123_4000n, 0, 0xffff_f03f_c000_0000n],
  [65536, 0x4123_4000n, 1, 0xffff_fc1f_c000_0000n],
] as const)(
  'arm64 with pages of %i bytes: the page tables start with the level that 52 bits need',
  (pageSize, ramStart, first, structPages) => {
    const of = addressSpace('arm64', pageSize, ramStart)
    expect(of.structPages).toBe(structPages)
    expect(of.physicalStart).toBe(0x4000_0000n)
    expect(translationLevel(pageSize, of.linearMap, [])).toBe(first)
    const ranges = mappedRanges(of, [{ start: ramStart, end: 3n << 29n }])
    expect(translationLevel(pageSize, linearAddress(of, ramStart), ranges)).toBe(3)
    expect(translationLevel(pageSize, 1n << 60n, ranges)).toBe(0)
  },
)

test('phys_to_virt() leads to the same memory whatever the bits above the linear map of arm64', () => {
  for (const bit of [52n, 55n, 61n, 63n]) {
    expect(reachedThroughMap(space, (1n << bit) | 0x4021_0000n)).toBe(0x4021_0000n)
    const x86 = addressSpace('x86_64', 4096, 0n)
    expect(reachedThroughMap(x86, (1n << bit) | 0x21_0000n)).toBe((1n << bit) | 0x21_0000n)
  }
  expect(reachedThroughMap(space, 1n << 51n)).toBe(1n << 51n)
  // In front of the first RAM the linear map has wrapped around.
  expect(reachedThroughMap(space, 0x1000n)).toBe((1n << 52n) + 0x1000n)
})

test('x86_64 counts from address 0, with four levels of page tables', () => {
  const x86 = addressSpace('x86_64', 4096, 0n)
  expect(linearAddress(x86, 0x1234n)).toBe(0xffff_8880_0000_1234n)
  expect(structPageAddress(x86, 2n, STRUCT_PAGE_PRIVATE)).toBe(0xffff_ea00_0000_00a8n)
  expect([0n, 0x7fff_ffff_ffffn, 0xffff_8000_0000_0000n].every(isCanonical)).toBe(true)
  expect([0x8000_0000_0000n, 0xffff_7fff_ffff_ffffn].some(isCanonical)).toBe(false)
})
