/** Pages of FLBs that no kernel writes: what the next one says of them, or dies of. Measured on Linux 7.3.4. */
import { describe, expect, test } from 'vitest'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { luoFlbHeaderSer, luoFlbSer, luoV5 } from '../abi/luo.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { Handover } from '../simulate/handover.ts'
import { Refcount } from '../simulate/kernel-module.ts'
import { fdtAt, getWord, subnode } from '../simulate/libfdt.ts'
import { readStored } from '../simulate/stored.ts'
import { bootLive, takeOverLive, value } from './support/live.ts'

const config = { liveupdateTest: true }
const target = { pageSize: 4096 } as const

/** A memfd preserved, and with it the three FLBs of the test. */
function left(release: string): { readonly handover: Handover; readonly blob: PhysAddr } {
  const { kernel, user, device } = bootLive(release, { config })
  const session = value(user.createSession(device(), 's'))
  value(user.preserveFd(session, value(user.memfdCreate('m')), 1n))
  const handover = value(kernel.leave())
  if (!handover?.boot) throw new Error('nothing is handed over')
  const node = subnode(fdtAt(handover.ram, phys(handover.boot.fdt_addr)), 'LUO')
  return { handover, blob: phys((node && getWord(node, 'preserved-data')) ?? 0n) }
}

function put(handover: Handover, pa: bigint, word: bigint): void {
  handover.ram.write(phys(pa), new Uint8Array(new BigUint64Array([word]).buffer))
}

describe.each(['linux-7.2', 'linux-7.3'])('%s', (release) => {
  test('a count of references with bit 31 is negative: it saturates', () => {
    const { handover, blob } = left(release)
    const { flbs_pa } = readStored({ ram: handover.ram, target }, luoV5, blob)
    const entry = flbs_pa + BigInt(layoutOf(luoFlbHeaderSer, target).size)
    put(handover, entry + BigInt(fieldOf(luoFlbSer, 'count', target).offset), 0x8000_0003n)
    const said = takeOverLive(handover, { release, config }).console()
    expect(said).toContain('refcount_t: saturated; leaking memory.')
    expect(said).not.toContain('refcount_t: addition on 0; use-after-free.')
  })

  test.each([
    [2, 'leads to a count from the middle of two words'],
    [layoutOf(luoFlbHeaderSer, target).size, 'leads to an entry'],
  ])('flbs_pa + %i %s: the search walks off RAM, and init dies', (by) => {
    const { handover, blob } = left(release)
    const { flbs_pa } = readStored({ ram: handover.ram, target }, luoV5, blob)
    put(handover, blob + BigInt(fieldOf(luoV5, 'flbs_pa', target).offset), flbs_pa + BigInt(by))
    const { kernel, console } = takeOverLive(handover, { release, config })
    expect(kernel.state).toBe('crashed')
    const end = handover.ram.ranges.at(-1)?.end ?? 0n
    const entry = BigInt(layoutOf(luoFlbSer, target).size)
    const said = console().find((line) => line.includes('page fault for address'))
    const address = BigInt(`0x${/[0-9a-f]{16}$/.exec(said ?? '')?.[0]}`) - 0xffff_8880_0000_0000n
    expect(address - end).toBeGreaterThanOrEqual(0n)
    expect(address - end).toBeLessThan(entry)
    expect(console().at(-1)).toMatch(/Attempted to kill init! exitcode=0x00000009/)
  })
})

test('refcount_t: from 0, from below and at its end no reference is added', () => {
  const said: string[] = []
  const count = new Refcount((text) => said.push(text))
  for (const from of [0, -5, 0x7fff_ffff]) {
    count.set(from)
    count.increment()
    expect(count.read()).toBe(-0x4000_0000)
  }
  count.set(0x7fff_fffe)
  count.increment()
  expect(count.read()).toBe(0x7fff_ffff)
  expect(said).toEqual([
    'refcount_t: addition on 0; use-after-free.',
    'refcount_t: saturated; leaking memory.',
    'refcount_t: saturated; leaking memory.',
  ])
})
