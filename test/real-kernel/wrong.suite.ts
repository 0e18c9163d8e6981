/**
 * What a real kernel does with wrong images: every fault of the catalogue is made in the image that a real
 * Linux 7.3 for arm64 left, or where it has no place for the fault in an encoded one, and booted. What the
 * validator predicted is held against what happened.
 */
import { afterAll, describe, expect, test } from 'vitest'
import { phys } from '../../abi/memory.ts'
import { type Release, releaseFor } from '../../abi/registry.ts'
import type { KhoData } from '../../inspect/boot-entry.ts'
import { decodeHandover } from '../../inspect/decode.ts'
import { validate } from '../../inspect/validate.ts'
import { applyFault, existsIn, faults } from '../../mutate/catalogue.ts'
import { type Change, editedBoot, isUnfit, patchesOf } from '../../mutate/change.ts'
import type { NamedFault } from '../../mutate/named-fault.ts'
import { PatchedView } from '../../mutate/patch.ts'
import { Site } from '../../mutate/site.ts'
import { differences, expectationOf } from '../../qemu/expectation.ts'
import { outcomeOf } from '../../qemu/outcome.ts'
import type { RunReport } from '../../qemu/report.ts'
import { type Base, encodedBase, realBase } from '../support/fault-bases.ts'
import { DISAGREEMENTS } from './disagreements.ts'
import { boot, keepTable, missing, type Row, titled } from './lab.ts'

const SEED = 1
const MEMORY_MIB = 512
/** A kernel that goes round in circles is not waited for long. */
const SECONDS = 20
const LINE_CHARACTERS = 110

const bases: readonly Base[] = [
  await realBase('linux-7.3-arm64-4k-basic'),
  await encodedBase({ release: releaseFor('linux-7.3') as Release, arch: 'arm64', pageSize: 4096 }),
]
const why = missing('7.3', 'arm64')
const rows: Row[] = []

interface Made {
  readonly base: Base
  readonly change: Exclude<Change, { readonly unfit: string }>
}

function make(fault: NamedFault): Made | undefined {
  for (const base of bases) {
    const change = applyFault(fault, new Site(base.handover, base.kernel), SEED)
    if (!isUnfit(change)) return { base, change }
  }
  return undefined
}

/** What the next kernel is told; captured images do not say it. */
function bootOf({ decode, fdt, handover }: Base): KhoData {
  const told = decode.boot ?? { scratch_addr: 0n, scratch_size: 0n, ...decode.scratchArray }
  return { fdt_size: BigInt(handover.target.pageSize), ...told, fdt_addr: fdt }
}

/** The first thing that the kernel said about it, the worst before the rest. */
function sayingOf({ oopses, panic, complaints, warnings }: RunReport): string {
  const line = oopses[0] ?? complaints[0]?.line ?? panic ?? warnings[0] ?? ''
  return line.length > LINE_CHARACTERS ? `${line.slice(0, LINE_CHARACTERS)}…` : line
}

describe.skipIf(why)(titled('faults', why), () => {
  test.each(faults.map((fault) => [fault.name, fault] as const))('%s', async (name, fault) => {
    const made = make(fault)
    if (!made) {
      expect(bases.some((base) => existsIn(fault, base.kernel))).toBe(false)
      return
    }
    const { base, change } = made
    const entry = editedBoot(bootOf(base), change)
    const decode = { ...base.decode, boot: entry }
    const memory = new PatchedView(base.memory, patchesOf(change))
    const handover = decodeHandover(memory, phys(entry.fdt_addr), decode)
    const predicted = validate(handover, { ...base.options, decode }).outcome
    const right = expectationOf(base.handover)
    const report = await boot({
      memory,
      boot: entry,
      retrieve: right,
      commandLine: base.options.commandLine ?? '',
      memoryMiB: MEMORY_MIB,
      timeout: SECONDS,
    })
    const found = differences(right, report)
    const seen = outcomeOf(report, found)
    const known = DISAGREEMENTS[name]
    rows.push({
      fault: name,
      rule: fault.rule,
      predicted,
      seen: report.ending === 'exit' ? seen : `${seen}, ${report.ending === 'hung' ? 'stood still' : 'hung'}`,
      'the kernel said': sayingOf(report),
      lost: found[0] ? `${found[0].path}${found.length > 1 ? ` and ${found.length - 1} more` : ''}` : '',
      agree: seen === predicted ? 'yes' : (known ?? 'NO'),
    })
    if (known === undefined) expect(seen).toBe(predicted)
    else expect(seen).not.toBe(predicted)
  })

  afterAll(() => keepTable('wrong', { title: 'Wrong images', kernel: '7.3.4 arm64', rows }))
})
