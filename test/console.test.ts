/** The kernel's words: every line of the captured consoles is one that is declared, and formats print as printk() does. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { appliesTo } from '../abi/check.ts'
import { consoleLines, formatMessage, messagePrefix } from '../abi/console.ts'
import { checks } from '../abi/consumer.ts'
import { releases } from '../abi/registry.ts'
import { ROOT } from './support/images.ts'

/** A format as a pattern for what it prints. */
function patternOf(prefix: string, format: string): RegExp {
  const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  const body = format
    .split(/%(?:[#0]*(?:\.\*)?(?:ll|l|z)?(?:pe|pa|[sdiuxc])|%)/)
    .map(literal)
    .join('.+')
  return new RegExp(`^${literal(prefix)}${body}$`)
}

const patterns = [
  ...consoleLines.map(({ by, format, ...span }) => ({
    ...span,
    pattern: patternOf(messagePrefix(by), format),
  })),
  ...checks.flatMap(({ by, message, ...span }) =>
    message === undefined ? [] : [{ ...span, pattern: patternOf(messagePrefix(by), message) }],
  ),
]

const KERNEL = /^(KHO:|luo:|memfd_luo:|test_kho:|liveupdate test:|Revived|FDT '|Node '|Kernel panic)/
const REAL = `${ROOT}fixtures/real/`

/** What the lab's kho-v2 kernel, a 7.1.13 with a patched string, says as 7.1.13. */
const NOT_KHO_V2 = / missing or invalid blob-size property$/

const captured = readdirSync(REAL)
  .filter((name) => name.endsWith('.console.txt'))
  .map((name) => {
    const release = /^(linux-\d+\.\d+|kho-v2)/.exec(name)?.[1] as string
    const lines = readFileSync(`${REAL}${name}`, 'utf8').split('\n')
    return { name, release, lines: lines.map((line) => line.slice(2)).filter((line) => KERNEL.test(line)) }
  })

test.each(captured)('every line of the kernel in $name is declared for its release', ({ release, lines }) => {
  expect(lines.length).toBeGreaterThan(3)
  const unknown = lines.filter(
    (line) =>
      !(release === 'kho-v2' && NOT_KHO_V2.test(line)) &&
      !patterns.some((known) => appliesTo(known, release) && known.pattern.test(line)),
  )
  expect(unknown).toEqual([])
})

test('every line of the kernel that was given a wrong image is declared for 7.3', () => {
  const WRONG = `${ROOT}fixtures/wrong/`
  const lines = readdirSync(WRONG).flatMap((name) =>
    name.endsWith('.json')
      ? ((JSON.parse(readFileSync(`${WRONG}${name}`, 'utf8')).console ?? []) as string[])
      : [],
  )
  const spoken = lines.filter((line) => KERNEL.test(line))
  expect(spoken.length).toBeGreaterThan(100)
  expect(
    spoken.filter(
      (line) => !patterns.some((known) => appliesTo(known, 'linux-7.3') && known.pattern.test(line)),
    ),
  ).toEqual([])
})

test('no release says two texts under one id from one function', () => {
  for (const { name } of releases) {
    const said = consoleLines.filter((line) => appliesTo(line, name)).map(({ id }) => id)
    expect(new Set(said).size, name).toBe(said.length)
  }
})

test.each([
  ['%s', ['LUO'], 'LUO'],
  ['%.*s|', [3, 'memfd-v9'], 'mem|'],
  ['%d %u', [-2, 0xffff_ffff], '-2 4294967295'],
  ['%d', [0xffff_ffff], '-1'],
  ['%lld', [0xffff_ffff_ffff_fff0n], '-16'],
  ['%llu', [-1n], '18446744073709551615'],
  ['0x%llx %#0llx', [0x40959000n, 1], '0x40959000 0x1'],
  ['0x%lx', [4096n], '0x1000'],
  ['%zu < %zu', [31, 32], '31 < 32'],
  ['0x%pa', [0x1000n], '0x0x0000000000001000'],
  ['[%s] %pe', ['vm-alpha', -17], '[vm-alpha] -17'],
  ['%pe', ['-EEXIST'], '-EEXIST'],
  ['%d%%', [200], '200%'],
] as const)('formats %s', (format, args, text) => {
  expect(formatMessage(format, ...args)).toBe(text)
})
