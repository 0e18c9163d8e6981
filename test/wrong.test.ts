/**
 * Wrong images, and what a real kernel did with each (fixtures/wrong/): the validator's outcome, its
 * findings, what it says of every file, and the console.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { Outcome } from '../abi/check.ts'
import { messagePrefix } from '../abi/console.ts'
import { checks } from '../abi/consumer.ts'
import { phys } from '../abi/memory.ts'
import { releaseByName } from '../abi/registry.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { kernelOfRelease } from '../inspect/target-kernel.ts'
import { validate } from '../inspect/validate.ts'
import type { Verdict } from '../inspect/verdict.ts'
import { openReal, ROOT } from './support/images.ts'
import { PatchedMemory } from './support/patched.ts'

interface Wrong {
  readonly name: string
  readonly base: string
  readonly patch: readonly (readonly [address: string, bytes: string])[]
  readonly outcome: readonly Outcome[]
  readonly finding: boolean | null
  readonly kernel: { readonly files: Readonly<Record<string, 'right' | 'different' | 'lost'>> }
  readonly console: readonly string[]
}

const FOLDER = `${ROOT}fixtures/wrong/`
const FDT = phys(0x40959000)
const RELEASE = 'linux-7.3'
const commandLine = 'reserve_mem=1M:4096:trace reserve_mem=64K:65536:oops'
const decode = { scratchArray: { scratch_addr: 0x5eff0000n, scratch_size: 48n } }

const wrong: readonly Wrong[] = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.json'))
  .map((file) => JSON.parse(readFileSync(FOLDER + file, 'utf8')))

const base = await openReal('linux-7.3-arm64-4k-basic')
const kernel = kernelOfRelease(releaseByName(RELEASE) as never)

function judge({ patch }: Pick<Wrong, 'patch'>): Verdict {
  const memory = new PatchedMemory(base)
  for (const [address, bytes] of patch) memory.write(BigInt(address), Buffer.from(bytes, 'hex'))
  return validate(decodeHandover(memory, FDT, decode), { kernel, commandLine, decode })
}

const FILE = /^luo\.sessions\[[^\]]*\]\.files\[([^\]]*)\]$/

/** What becomes of the files, in the order of the image. */
function fileParts({ parts }: Verdict): readonly Outcome[] {
  return parts.filter(({ part }) => FILE.test(part)).map(({ outcome }) => outcome)
}

/** Tokens of the right image's files, in its order, as the recorded answers name them. */
const tokens = judge({ patch: [] })
  .parts.flatMap(({ part }) => FILE.exec(part)?.[1] ?? [])
  .map((key) => key.slice('0x'.length))

/** A refusal's line as the kernel says it, whatever stands in for its conversions. */
const refusals: readonly RegExp[] = checks
  .filter(({ message }) => message !== undefined)
  .map(({ by, message }) => {
    const text = (messagePrefix(by) + message).replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
    return new RegExp(`^${text.replace(/%(?:\\\.\\\*)?[#0]*(?:ll|l|z)?(?:pe|pa|[a-z])/g, '.*')}$`)
  })

const isRefusal = (line: string): boolean => refusals.some((pattern) => pattern.test(line))

/** Whether the lines stand in the other list in this order. */
function isSubsequence(lines: readonly string[], all: readonly string[]): boolean {
  let from = 0
  return lines.every((line) => {
    from = all.indexOf(line, from) + 1
    return from > 0
  })
}

test('the console knows its own lines, so that a missing one is seen', () => {
  expect(isRefusal('luo: Block contains invalid entry count: 52')).toBe(true)
  expect(isRefusal("luo: No registered handler for compatible 'memfd-v9'")).toBe(true)
  expect(isRefusal('KHO: found kexec handover data.')).toBe(false)
})

describe.each(wrong.map((image) => [image.name, image] as const))('%s', (_name, image) => {
  const verdict = judge(image)
  const problems = verdict.findings.filter(({ severity }) => severity !== 'note')

  test('has an outcome that the kernel allows', () => {
    expect(image.outcome).toContain(verdict.outcome)
  })

  test('has findings if it must, and none if it must not', () => {
    if (image.finding === true) expect(problems).not.toEqual([])
    if (image.finding === false) expect(problems).toEqual([])
  })

  test('says of each file what userspace got back', () => {
    const told = fileParts(verdict)
    for (const [index, token] of tokens.entries()) {
      const comesBack = told.length === tokens.length && told[index] === 'takes-over'
      expect([token, comesBack]).toEqual([token, image.kernel.files[token] === 'right'])
    }
  })

  test('predicts lines that the console has, in its order', () => {
    const expected = verdict.console.filter((line) => !image.console.includes(line))
    expect(expected).toEqual([])
    expect(isSubsequence(verdict.console, image.console)).toBe(true)
  })

  test('predicts every refusal', () => {
    expect(image.console.filter((line) => isRefusal(line) && !verdict.console.includes(line))).toEqual([])
  })
})
