/** The scratch array of a real image, of every length: what is mapped, counted and found empty. */
import { describe, expect, test } from 'vitest'
import { EARLY_MEMREMAP_MAX } from '../abi/boot.ts'
import type { Outcome } from '../abi/check.ts'
import { phys } from '../abi/memory.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { validate } from '../inspect/validate.ts'
import { PatchedView } from '../mutate/patch.ts'
import { brokenRules, newest } from './support/judged.ts'

const scratch_addr = 0x5eff0000n
const AREA = 16

/** As with `--scratch`, the array followed by zeros. */
function judged(scratch_size: bigint, areas = 3) {
  const bytes = new Uint8Array(EARLY_MEMREMAP_MAX)
  newest.memory.read(phys(scratch_addr), bytes.subarray(0, areas * AREA))
  const memory = new PatchedView(newest.memory, [{ pa: phys(scratch_addr), bytes }])
  const decode = { scratchArray: { scratch_addr, scratch_size } }
  return validate(decodeHandover(memory, phys(newest.fdt), decode), { ...newest.options, decode })
}

describe('an array of', () => {
  test.each<readonly [number, Outcome, readonly string[]]>([
    [0, 'no-handover', ['KHO_SCRATCH_MAPPED']],
    [8, 'panics', ['KHO_SCRATCH_LENGTH', 'KHO_SCRATCH_NONE']],
    [48, 'takes-over', []],
    [56, 'takes-over', ['KHO_SCRATCH_LENGTH']],
    [0x40000, 'takes-over', ['KHO_SCRATCH_EMPTY']],
    [0x40001, 'no-handover', ['KHO_SCRATCH_MAPPED']],
    [0x100000, 'no-handover', ['KHO_SCRATCH_MAPPED']],
  ])('%i bytes', (size, outcome, rules) => {
    const verdict = judged(BigInt(size))
    expect(verdict.outcome).toBe(outcome)
    expect(brokenRules(verdict).toSorted()).toEqual(rules)
    const lines = verdict.console.slice(0, 2)
    if (outcome === 'no-handover')
      expect(lines).toEqual([
        `KHO: setup: failed to memremap scratch (phys=0x5eff0000, len=${size})`,
        'KHO: disabling KHO revival',
      ])
    else expect(lines[0]).toBe('KHO: found kexec handover data.')
  })
})

test('areas without memory are one finding for each run of them', () => {
  const found = judged(0x1000n).findings.filter(({ rule }) => rule === 'KHO_SCRATCH_EMPTY')
  expect(found).toMatchObject([{ path: 'scratch[3]', pa: scratch_addr + 48n }])
  expect(found[0]?.message).toBe(`${0x1000 / AREA - 3} scratch areas in a row have no memory`)
})
