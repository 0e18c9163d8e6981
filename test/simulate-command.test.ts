/** `kho-inspect simulate` as a user meets it: the log, JSON, images, exit codes, and mistakes. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { stepLines } from '../bin/timeline-text.ts'
import { noPaint, type Paint } from '../inspect/paint.ts'
import { ran } from './support/command-line.ts'
import { harmfulCharacters } from './support/terminal-text.ts'
import { runText, timelineNames, timelineText } from './support/timelines.ts'

const TIMELINES = 'fixtures/timelines'
/** ESC [ … m */
const COLOURS = new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, 'g')

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

function scenario(name: string, text: string): string {
  const path = `${directory}/${name}`
  writeFileSync(path, text)
  return path
}

describe('the log', () => {
  test("shows steps, addresses, the kernels' lines, in 80 columns", async () => {
    const { status, stdout, stderr } = await ran(['simulate', `${TIMELINES}/freeze-rollback.yaml`])
    expect([status, stderr]).toEqual([0, ''])
    await expect(stdout).toMatchFileSnapshot('expected/simulate/freeze-rollback.txt')
  })

  test('of a scenario without steps shows what is made of it', async () => {
    const { status, stdout } = await ran([
      'simulate',
      'fixtures/scenarios/shared-flbs.yaml',
      '--release',
      '7.3',
    ])
    expect([status, stdout]).toEqual([2, ''])
    const { stdout: log } = await ran(['simulate', 'fixtures/scenarios/one-session.yaml', '--release', '7.1'])
    await expect(log).toMatchFileSnapshot('expected/simulate/one-session.txt')
  })

  test.each(timelineNames)('of %s fits into 80 columns, and colour changes nothing else', async (name) => {
    const { events } = await runText(timelineText(name))
    const lines = (paint: Paint): string => events.flatMap((event) => stepLines(event, paint, 80)).join('\n')
    const plain = lines(noPaint)
    expect(plain.split('\n').filter((line) => line.length > 80)).toEqual([])
    // As chalk does, which joins all that it is given.
    const mark = (...texts: readonly string[]): string => `<${texts.join(' ')}>`
    const marked = lines({
      ...noPaint,
      good: mark,
      dim: mark,
      key: mark,
      text: mark,
      address: mark,
      warn: mark,
    })
    expect(marked).not.toBe(plain)
    expect(marked.replaceAll(/[<>]/g, '')).toBe(plain.replaceAll(/[<>]/g, ''))
  })

  test('is coloured where that is asked for', async () => {
    const args = ['simulate', `${TIMELINES}/sealed-memfd.yaml`]
    const coloured = (await ran([...args, '--color=always'])).stdout
    expect(coloured).toMatch(COLOURS)
    expect(coloured.replaceAll(COLOURS, '')).toBe((await ran(args)).stdout)
  })

  test('leaves out repetitions that are like the first ones', async () => {
    const { stdout } = await ran(['simulate', `${TIMELINES}/five-kexecs.yaml`])
    expect(stdout).toMatch(/5\[1\]\.1 /)
    expect(stdout).not.toMatch(/5\[2\]/)
    expect(stdout).toMatch(/^\d+ steps as expected, 5 kexecs\n$/m)
  })
})

const wrong = `title: Not as expected
release: linux-7.3
steps:
  - open
  - create_session: vm
  - create_session: vm
  - memfd: { name: m, size: 5 }
  - verify: { file: m, size: 6, position: 1 }
`

describe('a step that does not go as expected', () => {
  test('makes exit code 1, and is named with line, column, path and what was found', async () => {
    const path = scenario('wrong.yaml', wrong)
    const { status, stdout, stderr } = await ran(['simulate', path])
    expect(status).toBe(1)
    expect(stderr).toBe(
      `kho-inspect: ${path}:6:5: steps[2]: step 3, create_session vm: expected ok, found EEXIST\n`,
    )
    expect(stdout).toMatch(/3 {2}create_session vm +EEXIST, not as expected\n/)
    expect(stdout).toMatch(/step 3 did not go as expected\n$/)
  })

  test('does not keep the rest from running where that is asked for', async () => {
    const path = scenario('wrong.yaml', wrong)
    const { status, stderr } = await ran(['simulate', path, '--keep-going'])
    expect(status).toBe(1)
    expect(stderr.split('\n')).toEqual([
      `kho-inspect: ${path}:6:5: steps[2]: step 3, create_session vm: expected ok, found EEXIST`,
      `kho-inspect: ${path}:8:5: steps[4]: step 5, verify m: size: expected 6, found 5; position: expected 1, found 0`,
      '',
    ])
  })

  test('is named in a group and a repetition', async () => {
    const path = scenario(
      'group.yaml',
      'release: linux-7.3\nsteps:\n  - repeat: 3\n    steps:\n      - kexec\n      - { check: { took_over: true }, expect: ok }\n      - open\n      - create_session: "s{n}"\n      - { create_session: x, only: linux-7.3, repeat: 2, expect: { ok: 1, next: EEXIST } }\n      - { create_session: y, repeat: 2 }\n',
    )
    const { status, stderr } = await ran(['simulate', path])
    expect(status).toBe(1)
    expect(stderr).toBe(
      `kho-inspect: ${path}:10:9: steps[0].steps[5]: step 1[0].6, create_session y: repetition 1: expected ok, found EEXIST\n`,
    )
  })

  test('says why a kernel died', async () => {
    const path = scenario(
      'panic.yaml',
      'release: linux-7.3\nsteps:\n  - corrupt: { path: luo.compatible, bytes: "78" }\n  - kexec\n',
    )
    const { status, stderr } = await ran(['simulate', path])
    expect(status).toBe(1)
    expect(stderr).toMatch(/expected ok, found panic \(Kernel panic - not syncing: The incoming tree failed/)
  })

  test('is one that asks for memory that is not there', async () => {
    const memfd = '{ name: m, size: 256MiB, content: { byte: 1 } }'
    const path = scenario('large.yaml', `release: linux-7.3\nram: 200MiB\nsteps: [{ memfd: ${memfd} }]\n`)
    const { status, stderr } = await ran(['simulate', path])
    expect(status).toBe(1)
    expect(stderr).toBe(
      `kho-inspect: ${path}:3:9: steps[0]: step 1, memfd m, 256 MiB: expected ok, found ENOMEM\n`,
    )
  })

  test('is a path that the handover does not have', async () => {
    const path = scenario(
      'path.yaml',
      'release: linux-7.3\nsteps:\n  - corrupt: { path: luo.sesions, value: 1 }\n  - kexec\n',
    )
    const { status, stderr } = await ran(['simulate', path])
    expect(status).toBe(1)
    expect(stderr).toMatch(/no 'luo.sesions' in this handover; 'luo' has compatible, liveupdate_num/)
  })

  test.each([
    ['{ fail: { allocation: 40 } }', 'fail allocation 40'],
    ['{ fail: { handler: vfio-v1, callback: freeze, call: 2 } }', 'fail call 2 of freeze() of vfio-v1'],
    ['{ corrupt: { at: 0x101000, value: 1 } }', 'corrupt 0x101000'],
  ])('is one whose effect never comes: %s', async (step, said) => {
    const drivers =
      '[{ open: }, { create_session: vm }, { preserve: { session: vm, token: 1, opaque: { compatible: vfio-v1, data: 7 } } }'
    const kexec = step.includes('corrupt') ? '' : ', kexec'
    const path = scenario('never.yaml', `release: linux-7.3\nsteps: ${drivers}, ${step}${kexec}]\n`)
    const { status, stderr, stdout } = await ran(['simulate', path])
    expect(status).toBe(1)
    expect(stderr).toMatch(/never\.yaml:2:\d+: steps\[3\]: step 4, /)
    expect(stderr).toContain(said)
    expect(stderr).toContain(': expected it to take effect before the timeline ends, and it did not\n')
    expect(stdout).toMatch(/step 4 did not go as expected\n$/)
  })
})

describe('mistakes', () => {
  test('make exit code 2 and nothing else', async () => {
    const path = scenario('mistake.yaml', 'release: linux-7.3\nsteps:\n  - creat_session: vm\n')
    const { status, stdout, stderr } = await ran(['simulate', path])
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(
      /mistake\.yaml:3:5: steps\[0\]\.creat_session: unknown key; did you mean create_session\?\n/,
    )
  })

  test('of the command line, too', async () => {
    expect((await ran(['simulate'])).status).toBe(2)
    expect((await ran(['simulate', `${TIMELINES}/probe.yaml`, '--release', 'linux-5.4'])).status).toBe(2)
    expect((await ran(['simulate', `${directory}/absent.yaml`])).status).toBe(3)
  })

  test('encode says that a timeline is for simulate', async () => {
    const { status, stderr } = await ran([
      'encode',
      `${TIMELINES}/frozen-memfd.yaml`,
      '-o',
      `${directory}/x.elf`,
    ])
    expect(status).toBe(2)
    expect(stderr).toMatch(
      /frozen-memfd\.yaml:5:3: steps: this is a timeline, not one handover; kho-inspect simulate runs it\n/,
    )
  })
})

describe('images', () => {
  test.each([
    ['elf', 'linux-7.3'],
    ['lime', 'linux-6.19'],
  ])('are written at every kexec as %s, and are handovers like any other', async (format, release) => {
    const folder = `${directory}/${format}`
    const args = ['simulate', `${TIMELINES}/five-kexecs.yaml`, '--release', release]
    const { status, stdout } = await ran([...args, '--save-images', folder, '--format', format])
    expect(status).toBe(0)
    const files = readdirSync(folder).sort()
    expect(files).toEqual([1, 2, 3, 4, 5].map((number) => `${number}-${release}-to-${release}.${format}`))
    expect(stdout.split('\n').filter((line) => line.startsWith(folder))).toEqual(
      files.map((file) => `${folder}/${file}: from ${release} to ${release}`),
    )
    const { faults, luo } = JSON.parse((await ran(['dump', `${folder}/${files[4]}`, '--json'])).stdout)
    expect(faults).toEqual([])
    expect(luo.liveupdate_num ?? luo['liveupdate-number']).toBe(5)
  })

  test('that cannot be written make exit code 3', async () => {
    const file = scenario('a-file', '')
    const { status, stderr } = await ran([
      'simulate',
      `${TIMELINES}/frozen-memfd.yaml`,
      '--save-images',
      `${file}/folder`,
    ])
    expect(status).toBe(3)
    expect(stderr).toMatch(/folder cannot be made: ENOTDIR\n/)
  })

  test('into a file system that makes no folders make exit code 3, at once', async () => {
    const folder = '/proc/kho-images/new'
    const { status, stderr } = await ran([
      'simulate',
      `${TIMELINES}/frozen-memfd.yaml`,
      '--save-images',
      folder,
    ])
    expect(status).toBe(3)
    expect(stderr).toBe(`kho-inspect: ${folder} cannot be made: ENOENT\n`)
  })
})

describe('JSON', () => {
  interface Printed {
    readonly schema: string
    readonly as_expected: boolean
    readonly failed?: string
    readonly steps: readonly {
      readonly number: string
      readonly verb: string
      readonly outcomes: readonly { readonly outcome: string; readonly times: number }[]
      readonly facts: readonly { readonly name: string; readonly pa?: string; readonly value?: unknown }[]
      readonly console: readonly { readonly text: string }[]
    }[]
    readonly images: readonly { readonly file: string }[]
  }

  const print = async (...args: readonly string[]): Promise<Printed> =>
    JSON.parse((await ran(['simulate', '--json', ...args])).stdout)

  test('has every step with what came of it', async () => {
    const printed = await print(`${TIMELINES}/many-files.yaml`, '--release', 'linux-7.1')
    expect(printed).toMatchObject({ schema: 'kho-inspect/timeline@1', as_expected: true, kexecs: 1 })
    const preserve = printed.steps.find(({ verb }) => verb === 'preserve')
    expect(preserve?.outcomes).toEqual([
      { outcome: 'ok', times: 128 },
      { outcome: 'ENOSPC', times: 1 },
    ])
    const kexec = printed.steps.find(({ verb }) => verb === 'kexec')
    expect(kexec?.facts.map(({ name }) => name)).toEqual([
      'preserved',
      'units',
      'root FDT',
      'memory map',
      'scratch array',
      'LUO',
      'kexec-metadata',
    ])
    expect(kexec?.console.map(({ text }) => text)).toEqual([
      'KHO: found kexec handover data.',
      'KHO: scratch areas: lowmem: 16MiB global: 64MiB pernode: 16MiB',
      'luo: Retrieved live update data, liveupdate number: 1',
      'KHO: exec from: 7.1.13 (count 1)',
    ])
  })

  test('says which step failed', async () => {
    const printed = await print(scenario('wrong.yaml', wrong))
    expect(printed).toMatchObject({ as_expected: false, failed: '3' })
    expect(printed.steps.at(-1)).toMatchObject({ number: '3', path: 'steps[2]', as_expected: false })
  })

  test('names the images', async () => {
    const folder = `${directory}/json`
    const { images } = await print(`${TIMELINES}/frozen-memfd.yaml`, '--save-images', folder)
    expect(images).toEqual([
      { file: `${folder}/1-linux-7.3-to-linux-7.3.elf`, from: 'linux-7.3', to: 'linux-7.3' },
    ])
  })

  test('and the log keep harmful characters from the terminal', async () => {
    const path = scenario(
      'harmful.yaml',
      'title: "t\\x1b[2J"\nrelease: linux-7.3\nsteps:\n  - open\n  - { title: "\\u202e", create_session: "a\\x1b]0;x\\x07\\u009b" }\n  - { close: "a\\x1b]0;x\\x07\\u009b" }\n  - console: "\\x1b[31m"\n',
    )
    for (const args of [[], ['--json']]) {
      const { status, stdout, stderr } = await ran(['simulate', path, ...args])
      expect(status).toBe(1)
      expect(harmfulCharacters(stdout + stderr)).toEqual([])
    }
  })
})
