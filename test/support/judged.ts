/** Right images of real kernels with one thing changed, and what the validator says of them. */
import { describe, expect, test } from 'vitest'
import type { Outcome } from '../../abi/check.ts'
import { phys } from '../../abi/memory.ts'
import type { Handover } from '../../inspect/decode.ts'
import { decodeHandover } from '../../inspect/decode.ts'
import { validate } from '../../inspect/validate.ts'
import type { Verdict } from '../../inspect/verdict.ts'
import type { Patch } from '../../mutate/patch.ts'
import { PatchedView } from '../../mutate/patch.ts'
import { littleEndian, Site } from '../../mutate/site.ts'
import { type Base, realBase } from './fault-bases.ts'

export const newest = await realBase('linux-7.3-arm64-4k-basic')
export const withFdt = await realBase('linux-7.1-x86_64-basic')
export const oldest = await realBase('linux-6.19-x86_64-basic')

/** A change to an image, by what the decoder finds in it. */
export type Change = (site: Site) => readonly Patch[]

export function judgeChanged(base: Base, change: Change): Verdict {
  const patches = change(new Site(base.handover, base.kernel))
  const handover = decodeHandover(new PatchedView(base.memory, patches), phys(base.fdt), base.decode)
  return validate(handover, base.options)
}

/** `rule` is the one that says so. */
export type Case = readonly [what: string, change: Change, outcome: Outcome, rule: string]

/** A word of ones, and an address where no machine has memory. */
export const MAX = 0xffff_ffff_ffff_ffffn
export const WILD = 0x7ff_ffff_f000n

/** What becomes of each case with the kernels that take over the three images. */
export function judgeEach(cases: Readonly<Record<'7.3' | '7.1' | '6.19', readonly Case[]>>): void {
  describe.each([
    ['7.3', newest],
    ['7.1', withFdt],
    ['6.19', oldest],
  ] as const)('Linux %s', (release, base) => {
    test.each(cases[release])('%s', (_what, change, outcome, rule) => {
      const verdict = judgeChanged(base, change)
      expect(brokenRules(verdict)).toContain(rule)
      expect(verdict.outcome).toBe(outcome)
    })
  })
}

/** Puts a value into a field of the decoded tree. */
export function field(path: string, value: bigint | number | string | Uint8Array, which = 0): Change {
  return (site) => {
    const change = site.set(site.nodes(path)[which], value)
    if (!('length' in change)) throw new Error(`${path}: ${change.unfit}`)
    return change.flatMap((edit) => ('bytes' in edit ? [edit] : []))
  }
}

/** Puts a word of 8 bytes (or fewer) somewhere behind what is found in the image. */
export function word(
  at: (handover: Handover) => bigint,
  value: bigint | ((handover: Handover) => bigint),
  size = 8,
): Change {
  return ({ handover }) => [
    {
      pa: phys(at(handover)),
      bytes: littleEndian(typeof value === 'bigint' ? value : value(handover), size),
    },
  ]
}

/** Several changes at once. */
export function all(...changes: readonly Change[]): Change {
  return (site) => changes.flatMap((change) => change(site))
}

/** Takes the unit that holds an address out of the map of preserved memory. */
export function unpreserved(at: (handover: Handover) => bigint): Change {
  return (site) => {
    const change = site.unpreserve(at(site.handover))
    if (!('length' in change)) throw new Error(change.unfit)
    return change.flatMap((edit) => ('bytes' in edit ? [edit] : []))
  }
}

/** Ids of the rules that find something worse than a note. */
export function brokenRules({ findings }: Verdict): readonly string[] {
  return [...new Set(findings.filter(({ severity }) => severity !== 'note').map(({ rule }) => rule))]
}
