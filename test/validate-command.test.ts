/** `kho-inspect validate` as a user meets it: text, JSON, exit codes, options, wrong usage. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { OUTCOMES } from '../abi/check.ts'
import { releases } from '../abi/registry.ts'
import { rules } from '../inspect/rules.ts'
import { rulesMarkdown } from '../inspect/rules-text.ts'
import { ran } from './support/command-line.ts'
import { expectedOf, ROOT, realImages, realPath } from './support/images.ts'
import { harmfulCharacters } from './support/terminal-text.ts'

const image = realPath('linux-7.3-x86_64-basic')
const arm64 = realPath('linux-7.3-arm64-4k-basic')

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-validate-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

interface Document {
  readonly schema: string
  readonly target: string
  readonly outcome: string
  readonly console: readonly string[]
  readonly components: Readonly<Record<string, { readonly outcome: string }>>
  readonly findings: readonly Readonly<Record<string, unknown>>[]
  readonly ignored: number
}

async function document(...args: readonly string[]): Promise<Document & { readonly status: number | null }> {
  const { stdout, status } = await ran(['validate', ...args, '--json'])
  return { ...JSON.parse(stdout), status }
}

/** An image with a named fault in it. */
async function broken(fault: string, from = image): Promise<string> {
  const path = `${directory}/${fault}.elf`
  expect((await ran(['mutate', from, '--fault', fault, '-o', path])).status).toBe(0)
  return path
}

describe('captured images are clean', () => {
  test.each(realImages)('%s', async (name) => {
    const { status, outcome, findings } = await document(realPath(name))
    expect([status, outcome]).toEqual([0, 'takes-over'])
    expect(findings.filter(({ severity }) => severity !== 'note')).toEqual([])
  })

  test.each(['linux-7.1-x86_64-debugfs', 'linux-7.3-x86_64-debugfs'])('%s', async (name) => {
    const { status, outcome, target } = await document(`${ROOT}fixtures/real/${name}`)
    expect([status, outcome, target]).toEqual([0, 'takes-over', /linux-\d+\.\d+/.exec(name)?.[0]])
  })
})

describe('JSON', () => {
  test('holds the keys of the contract', async () => {
    const { schema, target, outcome, console, components, findings, status } = await document(
      image,
      '--as',
      'linux-7.1',
    )
    expect(schema).toMatch(/^kho-inspect\/validate@\d+$/)
    expect([target, outcome, status]).toEqual(['linux-7.1', 'no-handover', 1])
    expect(console.length).toBeGreaterThan(0)
    for (const part of ['kho', 'luo', 'memblock', 'kexec-metadata', 'luo.sessions[vm-alpha].files[0x1]'])
      expect(OUTCOMES).toContain(components[part]?.outcome)
    expect(findings).toHaveLength(1)
    const [finding] = findings
    expect(finding).toMatchObject({
      rule: 'KHO_COMPATIBLE',
      severity: 'error',
      kind: 'refuses',
      path: 'kho.compatible',
      image_offset: null,
      via: [],
      expected: 'kho-v3',
      found: 'kho-v4',
      message: expect.any(String),
      source: 'kho_populate()',
    })
    expect(finding?.phys).toMatch(/^0x[1-9a-f][0-9a-f]*$/)
  })

  test('says where in the file the bytes are, if the file has them as they are', async () => {
    const path = await broken('root-compatible-unknown')
    const [finding] = (await document(path)).findings
    const offset = Number(finding?.image_offset)
    expect(readFileSync(path).toString('latin1', offset, offset + 6)).toBe('kho-v9')
  })
})

describe('text', () => {
  test.each([
    ['the kernel it comes from', [image]],
    ['a kernel that refuses it', [image, '--as', 'linux-6.19']],
    ['a matrix', [image, '--matrix']],
  ])('%s', async (title, args) => {
    const { stdout, stderr } = await ran(['validate', ...args])
    expect(stderr).toBe('')
    expect(harmfulCharacters(stdout)).toEqual([])
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100)
    await expect(stdout).toMatchFileSnapshot(`expected/validate/${title.replaceAll(' ', '-')}.txt`)
  })

  test('is coloured on demand, and says the same', async () => {
    const args = ['validate', image, '--as', 'linux-7.1']
    const { stdout } = await ran([...args, '--color=always'])
    expect(stdout).toContain('\x1b[31m')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: this is what colours are made of
    expect(stdout.replace(/\x1b\[\d+m/g, '')).toBe((await ran(args)).stdout)
  })
})

describe('target', () => {
  test('versions joined by commas', async () => {
    expect((await document(image, '--as', 'kho-v4,luo-v5,memfd-v2')).outcome).toBe('takes-over')
    expect((await document(image, '--as', 'kho-v3,luo-v5,memfd-v2')).outcome).toBe('no-handover')
  })

  test("a stable release's own number", async () => {
    expect((await document(image, '--as', '7.3.4')).target).toBe('linux-7.3')
  })

  test('--matrix has every known release', async () => {
    const { status, stdout } = await ran(['validate', image, '--matrix', '--json'])
    const { kernels } = JSON.parse(stdout)
    expect(status).toBe(0)
    expect(kernels.map(({ target }: { target: string }) => target)).toEqual(releases.map(({ name }) => name))
    const [taken, refused] = ['linux-7.2', 'linux-7.1'].map((name) =>
      kernels.find(({ target }: { target: string }) => target === name),
    )
    expect([taken.outcome, refused.outcome]).toEqual(['takes-over', 'no-handover'])
  })
})

describe('a root FDT that the kernel refuses is a finding, not an unreadable image', () => {
  const fdt = expectedOf('linux-7.3-x86_64-basic').kho.fdt

  test.each([
    ['where --fdt says there is none', [image, '--fdt', '0x49b000']],
    ['whose magic is wrong', ['root-magic-wrong']],
    ['of an unknown version', ['root-compatible-unknown', '--fdt', fdt]],
  ])('%s', async (_title, [file = '', ...args]) => {
    const path = file === image ? file : await broken(file)
    const { status, outcome, findings, console } = await document(path, ...args)
    expect([status, outcome, findings.length]).toEqual([1, 'no-handover', 1])
    expect(console.at(-1)).toMatch(/disabling KHO revival/)
  })

  test('memory that the image does not hold is unreadable', async () => {
    expect((await ran(['validate', image, '--fdt', '0xffffffffffff0000'])).status).toBe(3)
  })
})

describe('what is listed and what counts', () => {
  const refused = [image, '--as', 'linux-7.1']

  test('--ignore leaves a rule out, several times', async () => {
    const { findings, ignored, outcome, status } = await document(
      ...refused,
      '--ignore',
      'KHO_COMPATIBLE',
      '--ignore',
      'KHO_FDT_HEADER',
    )
    expect([findings, ignored, outcome, status]).toEqual([[], 1, 'no-handover', 0])
  })

  test('--min-severity says from when on a finding counts', async () => {
    const form = await broken('root-end-missing')
    expect((await ran(['validate', form])).status).toBe(1)
    expect((await ran(['validate', form, '--min-severity', 'warning'])).status).toBe(1)
    const errors = await document(form, '--min-severity', 'error')
    expect([errors.findings, errors.status]).toEqual([[], 0])
  })
})

describe('a handler of another driver', () => {
  const unknown = 'file-handler-unknown'

  test('is unknown unless it is named', async () => {
    const file = await broken(unknown)
    expect((await document(file)).outcome).toBe('device-fails')
    const named = await document(file, '--handler', 'vfio-v1', '--handler', 'memfd-v9')
    expect([named.outcome, named.status]).toEqual(['takes-over', 0])
    expect((await document(file, '--handler', 'vfio-v1')).outcome).toBe('device-fails')
  })

  test('is there in each kernel of --matrix', async () => {
    const file = await broken(unknown)
    const outcomes = async (...more: readonly string[]): Promise<readonly string[]> =>
      JSON.parse((await ran(['validate', file, '--matrix', '--json', ...more])).stdout).kernels.map(
        ({ outcome }: { outcome: string }) => outcome,
      )
    expect(await outcomes()).not.toContain('takes-over')
    expect(await outcomes('--handler', 'memfd-v9')).toContain('takes-over')
  })
})

describe('scratch areas from the command line', () => {
  test('are read as the kernel is told of them', async () => {
    expect((await document(arm64, '--scratch', '0x5eff0000,48')).status).toBe(0)
    const dumped = await ran(['dump', arm64, '--scratch', '0x5eff0000,48', '--only', 'scratch', '--json'])
    expect(JSON.parse(dumped.stdout)[0]).toEqual({ addr: '0x5e000000', size: 16777216 })
  })
})

describe('rules', () => {
  test('--rules lists all, as text, JSON and Markdown', async () => {
    const text = (await ran(['validate', '--rules'])).stdout
    const { rules: listed } = JSON.parse((await ran(['validate', '--rules', '--json'])).stdout)
    expect(listed.map(({ id }: { id: string }) => id)).toEqual(rules.map(({ id }) => id))
    for (const { id } of rules) expect(text).toContain(`${id}  `)
    expect((await ran(['validate', '--rules', '--markdown'])).stdout).toBe(rulesMarkdown(rules))
  })

  test('docs/validate.md has the table as it is', () => {
    const written = readFileSync(`${ROOT}docs/validate.md`, 'utf8')
    const stale = 'docs/validate.md is stale: replace its table by what validate --rules --markdown prints'
    expect(written.endsWith(`\n## Rules\n\n${rulesMarkdown(rules)}`), stale).toBe(true)
  })

  test('each has an id of its own, a reason and a kernel function', () => {
    expect(new Set(rules.map(({ id }) => id)).size).toBe(rules.length)
    for (const { id, why, source, severity, kind } of rules) {
      expect(id).toMatch(/^[A-Z0-9_]+$/)
      expect(why, id).toMatch(/\.$/)
      expect(source, id).toMatch(/\w/)
      if (kind === 'note') expect(severity, id).toBe('note')
    }
  })
})

describe('wrong usage gives one line and exit code 2', () => {
  test.each([
    ['no image', [], /expected an image/],
    ['an unknown target', [image, '--as', 'linux-9.9'], /--as: expected a release or versions/],
    ['an unknown rule', [image, '--ignore', 'NO_SUCH_RULE'], /--ignore: no rule 'NO_SUCH_RULE'/],
    ['two targets', [image, '--as', 'linux-7.3', '--matrix'], /exclude each other/],
    ['two formats', [image, '--json', '--sarif'], /exclude each other/],
    ['a scratch array without length', [image, '--scratch', '0x1000'], /--scratch: expected ADDR,LENGTH/],
    ['an unknown severity', [image, '--min-severity', 'fatal'], /min-severity/],
  ])('%s', async (_title, args, message) => {
    const { status, stdout, stderr } = await ran(['validate', ...args])
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^kho-inspect: [^\n]+\n$/)
    expect(stderr).toMatch(message)
  })
})

test('an image without a handover is unreadable', async () => {
  const zeros = `${directory}/zeros`
  writeFileSync(zeros, Buffer.alloc(1 << 20))
  const { status, stderr } = await ran(['validate', zeros])
  expect(status).toBe(3)
  expect(stderr).toMatch(/^kho-inspect: [^\n]*no handover[^\n]*\n$/)
})
