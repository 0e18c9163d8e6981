/** `kho-inspect capture` and `boot` as a user runs them: what they print, and what they leave behind. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { withFiles } from '../../qemu/cpio.ts'
import { kho, ROOT, type Run } from '../support/images.ts'
import { guestFile, kernelFile, missing, titled } from './lab.ts'
import { initramfs, parametersOf, workloads } from './workloads.ts'

const why = missing('7.3', 'arm64')
const COMMAND = `${ROOT}dist/bin/kho-inspect.js`
const { basic } = workloads
const directory = mkdtempSync(`${tmpdir()}/commands-`)
/** Where the commands have their own files. */
const temporary = mkdtempSync(`${tmpdir()}/temporary-`)
const env = { ...process.env, TMPDIR: temporary }
const run = (args: readonly string[]): Run => kho(args, { TMPDIR: temporary })

describe.skipIf(why)(titled('commands', why), () => {
  beforeAll(() => {
    const kernel = kernelFile('7.3', 'arm64')
    writeFileSync(`${directory}/first.cpio`, initramfs(basic, kernel, readFileSync(guestFile('arm64'))))
  })
  afterAll(() => {
    for (const path of [directory, temporary]) rmSync(path, { recursive: true })
  })

  const kernel = ['--kernel', kernelFile('7.3', 'arm64')]
  const capture = (output: string): string[] => {
    const parameters = `kho_scratch=16M,64M,16M ${parametersOf(basic)}`
    return [
      'capture',
      ...kernel,
      '--initrd',
      `${directory}/first.cpio`,
      '-o',
      output,
      '--cmdline',
      parameters,
    ]
  }
  const bootWith = (parameters: string, ...more: string[]): string[] => {
    const initrd = ['--initrd', guestFile('arm64')]
    return ['boot', `${directory}/image.elf`, ...kernel, ...initrd, '--cmdline', parameters, ...more]
  }
  const boot = (...more: string[]): string[] => bootWith(parametersOf(basic), ...more)

  test('capture, dump, boot', () => {
    const captured = run([...capture(`${directory}/image.elf`), '--json'])
    expect(captured.status).toBe(0)
    expect(JSON.parse(captured.stdout)).toMatchObject({
      schema: 'kho-inspect/capture@1',
      arch: 'arm64',
      next: { outcome: 'takes-over', handover: true, reserve_mem: ['trace', 'oops'], kho_test: true },
    })
    const dumped = run(['dump', `${directory}/image.elf`])
    expect([dumped.status, dumped.stderr]).toEqual([0, ''])

    const booted = run(boot('--json'))
    expect(booted.status).toBe(0)
    const report = JSON.parse(booted.stdout)
    expect(report).toMatchObject({
      schema: 'kho-inspect/boot@1',
      outcome: 'takes-over',
      reserve_mem: ['trace', 'oops'],
      region_contents: [
        { name: 'trace', errno: 0, size: 1 << 20 },
        { name: 'oops', errno: 0, size: 1 << 16 },
      ],
      differences: [],
    })
    expect(booted.stderr).toMatch(/^KHO: found kexec handover data\.$/m)

    // A report can be expected of the next run.
    const { sessions, reserve_mem, region_contents, flbs } = report
    writeFileSync(
      `${directory}/expect.json`,
      JSON.stringify({ sessions, reserve_mem, region_contents, flbs }),
    )
    expect(run(boot('--expect', `${directory}/expect.json`)).status).toBe(0)
    sessions[0].files[0].size += 1
    region_contents[1].sum = '0'
    writeFileSync(`${directory}/expect.json`, JSON.stringify({ sessions, reserve_mem, region_contents }))
    const wrong = run(boot('--expect', `${directory}/expect.json`))
    expect(wrong.status).toBe(1)
    expect(wrong.stdout).toContain('sessions[vm-alpha].files[0x1].size: expected 10001, found 10000')
    expect(wrong.stdout).toContain('reserve_mem[oops].sum: expected 0x0, found 0x')
  })

  const failures: readonly (readonly [string, readonly string[], RegExp])[] = [
    [
      'a guest that enters no kernel',
      ['--initrd', guestFile('arm64')],
      /switched off too early: no kernel was handed anything over; its console says .*'@kho done'/,
    ],
    [
      'kho=off',
      ['--initrd', `${directory}/first.cpio`, '--cmdline', 'kho=off'],
      /'luo: Disabling liveupdate because KHO is disabled', .*'@kho device errno=2'/,
    ],
    [
      'a System.map that is not its own',
      [
        ...['--initrd', `${directory}/first.cpio`, '--cmdline', 'kho_scratch=16M,64M,16M'],
        ...['--system-map', `${directory}/System.map`],
      ],
      /found a handover, but not by kho_populate at 0xffff800080000004; expected the System.map of the next/,
    ],
    [
      'too little time',
      ['--initrd', guestFile('arm64'), '--cmdline', 'wait', '--timeout', '4'],
      /the machine's time was up: no kernel was handed anything over; its console/,
    ],
  ]
  test.each(failures)('capture says what is wrong: %s', (_title, args, message) => {
    writeFileSync(`${directory}/System.map`, 'ffff800080000004 T kho_populate\n')
    const { status, stderr } = run(['capture', ...kernel, '-o', `${directory}/none.elf`, ...args])
    expect(stderr.trim().split('\n').at(-1)).toMatch(message)
    expect(status).toBe(3)
    expect(existsSync(`${directory}/none.elf`)).toBe(false)
    expectNothingLeft()
  })

  test('a next kernel that loses what was preserved, and one that hangs: there is an image, and exit code 1', () => {
    const guest = readFileSync(guestFile('arm64'))
    const first = (next: Uint8Array): string => {
      const create = 'session 766d\nmemfd 1 4096 0 0 0 1 64 8\nsession 6f74686572\n'
      const files = {
        'kho-create': Buffer.from(create),
        kernel: readFileSync(kernelFile('7.3', 'arm64')),
        initrd: next,
      }
      const path = `${directory}/other.cpio`
      writeFileSync(
        path,
        withFiles(
          guest,
          Object.entries(files).map(([path, bytes]) => ({ path, bytes })),
        ),
      )
      return path
    }
    const captured = (next: Uint8Array, ...more: string[]): Run => {
      rmSync(`${directory}/other.elf`, { force: true })
      const parameters = ['--cmdline', 'kho_scratch=16M,64M,16M']
      const files = ['--initrd', first(next), '-o', `${directory}/other.elf`]
      return run(['capture', ...kernel, ...files, ...parameters, ...more, '--json'])
    }
    const asking = (list: string): Uint8Array =>
      withFiles(guest, [{ path: 'kho-retrieve', bytes: Buffer.from(list) }])

    // In another order, and one of them not.
    const lost = captured(asking('session 6f74686572\nsession 78\nsession 766d\n'))
    expect(JSON.parse(lost.stdout).next).toMatchObject({
      outcome: 'loses',
      guest: { done: true },
      differences: [{ path: 'sessions[vm].files[0x1]', expected: 'a file', found: 'nothing' }],
    })
    expect([lost.status, existsSync(`${directory}/other.elf`)]).toEqual([1, true])

    const hung = captured(withFifo(asking('')), '--timeout', '30')
    expect(JSON.parse(hung.stdout).next).toMatchObject({
      ending: 'time',
      handover: true,
      guest: { done: false },
    })
    expect([hung.status, existsSync(`${directory}/other.elf`)]).toEqual([1, true])
    expectNothingLeft()
  })

  test('without an initramfs the kernel says what it can', () => {
    const args = ['boot', `${directory}/image.elf`, ...kernel, '--cmdline', parametersOf(basic), '--json']
    const { status, stdout } = run(args)
    const report = JSON.parse(stdout)
    expect(report).toMatchObject({
      handover: true,
      no_root: true,
      panic: null,
      reserve_mem: ['trace', 'oops'],
    })
    expect(status).toBe(0)
  })

  test('the time limit', () => {
    const { status, stdout } = run(bootWith(`${parametersOf(basic)} wait`, '--timeout', '5', '--json'))
    expect(JSON.parse(stdout)).toMatchObject({ handover: true, ending: 'time' })
    expect(status).toBe(1)
    expectNothingLeft()
  })

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    '%s ends the machine and removes its files',
    async (signal) => {
      const child = spawn(process.execPath, [COMMAND, ...capture(`${directory}/interrupted.elf`)], {
        cwd: ROOT,
        env,
      })
      await once(child.stderr, 'data')
      expect(machines()).toHaveLength(1)
      child.kill(signal)
      expect(await once(child, 'exit')).toEqual([null, signal])
      // At once: the tool ends after the machine.
      expectNothingLeft()
      expect(existsSync(`${directory}/interrupted.elf`)).toBe(false)
    },
  )

  test('so does a reader that goes away', () => {
    const args = boot().map((arg) => `'${arg}'`)
    spawnSync('sh', ['-c', `${process.execPath} ${COMMAND} ${args.join(' ')} 2>&1 | head -1`], {
      cwd: ROOT,
      env,
    })
    expectNothingLeft()
  })
})

/** Bytes of a file's head in an archive "newc", and of its mode in there. */
const HEAD_BYTES = 110
const MODE_AT = 14

/** The list of an initramfs becomes a pipe that nobody writes to: its guest waits for ever. */
function withFifo(archive: Uint8Array): Uint8Array {
  const bytes = Buffer.from(archive)
  const head = bytes.lastIndexOf('kho-retrieve\0') - HEAD_BYTES
  bytes.write((0o010644).toString(16).padStart(8, '0'), head + MODE_AT)
  return bytes
}

/** Machines that run with files in the commands' directory; what has ended and was not asked for does not count. */
function machines(): readonly string[] {
  return readdirSync('/proc').filter((name) => {
    const file = `/proc/${name}/cmdline`
    return /^\d+$/.test(name) && existsSync(file) && readFileSync(file, 'utf8').includes(temporary)
  })
}

function expectNothingLeft(): void {
  expect(machines()).toEqual([])
  expect(readdirSync(temporary)).toEqual([])
}
