/**
 * What a real kernel does with wrong images: every fault of the catalogue is made in what a real Linux 7.3
 * for arm64 has just left, or where it has no place for the fault in an encoded image, and booted. What the
 * validator predicted is held against what happened.
 */
import { describe, expect, test } from 'vitest'
import type { Outcome } from '../../abi/check.ts'
import { phys } from '../../abi/memory.ts'
import { type Release, releaseFor } from '../../abi/registry.ts'
import type { KhoData } from '../../inspect/boot-entry.ts'
import { decodeHandover } from '../../inspect/decode.ts'
import { ownKernel, validate } from '../../inspect/validate.ts'
import { applyFault, existsIn, faults } from '../../mutate/catalogue.ts'
import { type Change, editedBoot, isUnfit, patchesOf } from '../../mutate/change.ts'
import type { NamedFault } from '../../mutate/named-fault.ts'
import { PatchedView } from '../../mutate/patch.ts'
import { Site } from '../../mutate/site.ts'
import { differences, type Expectation, expectationOf } from '../../qemu/expectation.ts'
import { outcomeOf } from '../../qemu/outcome.ts'
import { scratchAreas } from '../../qemu/placement.ts'
import type { RunReport } from '../../qemu/report.ts'
import { type Base, conceptBase, encodedBase } from '../support/fault-bases.ts'
import { DISAGREEMENTS, type Disagreement } from './disagreements.ts'
import { boot, keepTable, missing, type Row, titled } from './lab.ts'
import { capture, parametersOf, workloads } from './workloads.ts'

const SEED = 1
/** Faults of a form that Linux 7.3 does not write, and of memory that ends where that of a machine does not. */
const NO_PLACE: readonly string[] = ['map-chunks-cycle', 'file-record-cut']
const MEMORY_MIB = 512
/** A kernel that goes round in circles is not waited for long. */
const SECONDS = 20
const LINE_CHARACTERS = 110

const MACHINE = { release: releaseFor('linux-7.3') as Release, arch: 'arm64', pageSize: 4096 } as const

const why = missing('7.3', 'arm64')
const bases: readonly Base[] = why
  ? []
  : [await capturedBase(), await encodedBase(MACHINE), await conceptBase('sessions-block-plus-one', MACHINE)]

const rows: Row[] = []
let release: string | undefined

/** What a real kernel left, all of its memory. */
async function capturedBase(): Promise<Base> {
  const { basic } = workloads
  const { image, boot: entry } = await capture(basic, { version: '7.3', arch: 'arm64', pageSize: 4096 })
  const decode = { boot: entry }
  const handover = decodeHandover(image, phys(entry.fdt_addr), decode)
  const kernel = ownKernel(handover)
  const options = { kernel, commandLine: parametersOf(basic), decode }
  return { name: 'captured', memory: image, handover, kernel, fdt: entry.fdt_addr, decode, options }
}

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

/** The first thing that the kernel said about it, the worst before the rest. */
function sayingOf({ oopses, panic, complaints, warnings }: RunReport): string {
  const line = oopses[0] ?? complaints[0]?.line ?? panic ?? warnings[0] ?? ''
  return line.length > LINE_CHARACTERS ? `${line.slice(0, LINE_CHARACTERS)}…` : line
}

describe.skipIf(why)(titled('faults', why), () => {
  test.each(faults.map((fault) => [fault.name, fault] as const))('%s', async (name, fault) => {
    const made = make(fault)
    if (!made) {
      expect(isLookedAt(fault) ? NO_PLACE : [name]).toContain(name)
      return
    }
    const { base, change } = made
    const entry = editedBoot(base.decode.boot as KhoData, change)
    const decode = { ...base.decode, boot: entry }
    const memory = new PatchedView(base.memory, patchesOf(change))
    const handover = decodeHandover(memory, phys(entry.fdt_addr), decode)
    const predicted = validate(handover, { ...base.options, decode }).outcome
    const right = expectationOf(base.handover)
    const report = await boot({
      memory,
      boot: entry,
      // Where the old kernel had put the new one before anything went wrong.
      scratch: scratchAreas(base.memory, base.decode.boot as KhoData),
      retrieve: right,
      commandLine: base.options.commandLine ?? '',
      memoryMiB: MEMORY_MIB,
      timeout: SECONDS,
    })
    release ??= report.kernel
    const lost = differences(right, report)
    const seen = outcomeOf(report, lost)
    // A fault may put another legal value in place of one; the kernel then does what the image says.
    const asTheImageSays = outcomeOf(
      report,
      differences(sameRequests(right, expectationOf(handover)), report),
    )
    const known = DISAGREEMENTS[name]
    const agrees = seen === predicted || asTheImageSays === predicted
    rows.push({
      fault: name,
      rule: fault.rule,
      predicted,
      seen: report.ending === 'exit' ? seen : `${seen}, ${report.ending === 'hung' ? 'stood still' : 'hung'}`,
      'the kernel said': sayingOf(report),
      'did not come back': lost[0]
        ? `${lost[0].path}${lost.length > 1 ? ` and ${lost.length - 1} more` : ''}`
        : '',
      agree: agreement({ seen, predicted, asTheImageSays }, known),
    })
    if (known) expect(known.kind === 'chance' || !agrees, 'the disagreement is gone').toBe(true)
    else expect([seen, asTheImageSays]).toContain(predicted)
  })

  keepTable('wrong', () => ({
    title: 'Wrong images',
    kernel: `${release} arm64`,
    rows,
    note: absentFaults(),
  }))
})

test('every disagreement is one on a fault of the catalogue', () => {
  const names = faults.map(({ name }) => name)
  expect(Object.keys(DISAGREEMENTS).filter((name) => !names.includes(name))).toEqual([])
})

function isLookedAt(fault: NamedFault): boolean {
  return bases.some((base) => existsIn(fault, base.kernel))
}

/** The faults of the catalogue that have no row, and why. */
function absentFaults(): string {
  const absent = faults.filter((fault) => !make(fault))
  const named = (some: readonly NamedFault[]): string => some.map(({ name }) => `\`${name}\``).join(', ')
  return [
    'Faults of the catalogue without a row:',
    '',
    `- of forms that Linux ${release} does not have: ${named(absent.filter((fault) => !isLookedAt(fault)))};`,
    `- of forms that no image here has: ${named(absent.filter(isLookedAt))}.`,
  ].join('\n')
}

interface Outcomes {
  readonly seen: Outcome
  readonly predicted: Outcome
  readonly asTheImageSays: Outcome
}

function agreement({ seen, predicted, asTheImageSays }: Outcomes, known: Disagreement | undefined): string {
  if (seen === predicted) return 'yes'
  if (asTheImageSays === predicted) {
    return predicted === 'takes-over'
      ? 'yes: it is what the image says'
      : 'yes: it is not what the image says'
  }
  if (!known) return 'NO'
  const { kind, measured, why } = known
  if (measured === undefined) return `${kind}: ${why}`
  return seen === measured
    ? `${kind}, the same in five runs: ${why}`
    : `${kind}, ${measured} in five runs before: ${why}`
}

/** What the image says of the sessions and files that were asked for. */
function sameRequests(asked: Expectation, said: Expectation): Expectation {
  return {
    ...said,
    sessions: asked.sessions.map(({ name, files }) => {
      const session = said.sessions.find((each) => each.name === name)
      return {
        name,
        files: files.map(({ token }) => session?.files.find((file) => file.token === token) ?? { token }),
      }
    }),
  }
}
