/** What simulated kernels of either architecture say of a wild pointer, by where it leads and by page size. */
import { expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { WildAccess, type WildPlace } from '../simulate/crash.ts'
import { Kernel, type KernelOptions } from '../simulate/kernel.ts'
import type { ColdMachine } from '../simulate/machine.ts'
import { linesOf } from './support/captured.ts'

const X86: ColdMachine = { arch: 'x86_64' }
const ARM = (pageSize: 4096 | 16384 | 65536): ColdMachine => ({ arch: 'arm64', pageSize })

function lastWords(machine: ColdMachine, place: WildPlace, isWrite = false): readonly string[] {
  const options: KernelOptions<Kernel> & ColdMachine = { release: 'linux-7.3', cmdline: '', ...machine }
  const kernel = Kernel.boot(options)
  const before = linesOf(kernel).length
  kernel.run(() => {
    throw new WildAccess('wild', place, isWrite)
  })
  expect(kernel.state).toBe('crashed')
  return linesOf(kernel).slice(before)
}

const memory = (pa: bigint): WildPlace => ({ to: 'memory', pa: phys(pa) })
const structPage = (frame: bigint): WildPlace => ({ to: 'struct-page', frame })
const panic = (code: string): string =>
  `Kernel panic - not syncing: Attempted to kill init! exitcode=0x${code}`

test.each([
  ['memory', memory(1n << 40n), false, 'page fault for address: ffff898000000000', '0000'],
  ['a struct page', structPage(1n << 33n), true, 'page fault for address: ffffea8000000028', '0002'],
] as const)(
  'x86_64, %s: the page fault, and what die() makes of its code',
  (_, place, isWrite, text, code) => {
    expect(lastWords(X86, place, isWrite)).toEqual([
      `BUG: unable to handle ${text}`,
      `Oops: Oops: ${code} [#1] SMP`,
      panic('00000009'),
    ])
  },
)

test('x86_64: an address that is no address is a general protection fault', () => {
  expect(lastWords(X86, memory(0x7800_0000_0000_0000n))).toEqual([
    'Oops: general protection fault, probably for non-canonical address 0x77ff888000000000: 0000 [#1] SMP',
    panic('0000000b'),
  ])
})

test.each([
  [4096, memory(0x7ff_ffff_f000n), false, 'fff007ffbffff000', '96000004'],
  [4096, structPage(0n), true, 'ffffc1ffbf000028', '96000045'],
  [4096, structPage(1n << 33n), true, 'ffffc27fbf000028', '96000044'],
  [16384, memory(0x7ff_ffff_c000n), false, 'fff007ffbfffc000', '96000005'],
  [65536, memory(0x7ff_ffff_0000n), false, 'fff007ffbfff0000', '96000005'],
  [65536, memory(0x7_ffff_0000n), false, 'fff00007bfff0000', '96000006'],
] as const)(
  'arm64 with pages of %i bytes, %o: the syndrome names the level',
  (pageSize, place, isWrite, at, code) => {
    expect(lastWords(ARM(pageSize), place, isWrite)).toEqual([
      `Unable to handle kernel paging request at virtual address ${at}`,
      `Internal error: Oops: 00000000${code} [#1]  SMP`,
      panic('0000000b'),
    ])
  },
)
