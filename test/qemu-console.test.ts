/** Consoles of real kernels, read: those recorded beside the images, and lines of the guest. */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { checks } from '../abi/consumer.ts'
import { ConsoleLog } from '../qemu/console-log.ts'
import { differences, type Expectation } from '../qemu/expectation.ts'
import { outcomeOf } from '../qemu/outcome.ts'
import { isLastLine, readConsole } from '../qemu/report.ts'
import { ROOT } from './support/images.ts'

interface Recorded {
  readonly name: string
  readonly kernel: {
    readonly handover: boolean
    readonly panic: string | null
    readonly oops: boolean
    readonly warnings: number
    readonly regions: Readonly<Record<string, boolean>>
    readonly flbs_found: number
  }
  readonly console: readonly string[]
}

const WRONG = `${ROOT}fixtures/wrong/`
const wrong: readonly Recorded[] = readdirSync(WRONG)
  .filter((file) => file.endsWith('.json'))
  .map((file) => JSON.parse(readFileSync(WRONG + file, 'utf8')))

describe('consoles recorded with wrong images', () => {
  test.each(wrong)('$name', ({ kernel, console: lines }) => {
    const report = readConsole(lines)
    expect({
      handover: report.handover,
      panic: report.panic ?? null,
      oops: report.oopses.length > 0,
      warnings: report.warnings.length,
      regions: Object.fromEntries(
        Object.keys(kernel.regions).map((name) => [name, report.regions.includes(name)]),
      ),
      flbs_found: report.flbs.length,
    }).toEqual({
      handover: kernel.handover,
      panic: kernel.panic,
      oops: kernel.oops,
      warnings: kernel.warnings,
      regions: kernel.regions,
      flbs_found: kernel.flbs_found,
    })
  })

  /** The refusals that these consoles hold, by the id of the check. */
  const REFUSALS: Readonly<Record<string, readonly string[]>> = {
    'file-count-over': ['LUO_FILE_COUNT'],
    'file-handler-unknown': ['LUO_FILE_HANDLER'],
    'kho-compatible-v3': ['KHO_COMPATIBLE'],
    'luo-compatible-v4': ['LUO_COMPATIBLE'],
    'memfd-folio-not-preserved': ['MEMFD_FOLIO'],
    'metadata-version-2': ['METADATA_VERSION'],
    'reserve-mem-compatible-other': ['RESERVE_MEM_COMPATIBLE'],
    'session-block-count-over': ['KHO_BLOCK_COUNT'],
    'session-name-duplicate': ['LUO_SESSION_NAME'],
  }

  test.each(Object.entries(REFUSALS))('%s is refused by %s', (name, ids) => {
    const { console: lines = [] } = wrong.find((record) => record.name === name) ?? {}
    const refusals = readConsole(lines).complaints.filter(({ id }) => checks.some((check) => check.id === id))
    expect(refusals.map(({ id }) => id)).toEqual(ids)
  })
})

describe('consoles of captured handovers', () => {
  const REAL = `${ROOT}fixtures/real/`
  test.each(
    readdirSync(REAL)
      .filter((file) => file.endsWith('.console.txt'))
      .map((file) => file),
  )('%s', (file) => {
    const second = readFileSync(REAL + file, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('2 '))
      .map((line) => line.slice(2))
    const report = readConsole(second)
    expect(report).toMatchObject({
      handover: true,
      oopses: [],
      panic: undefined,
      regions: ['trace', 'oops'],
      khoTest: true,
    })
    // The in-between format kho-v2, which no release carries, lacks what a 7.1 looks for.
    const ids = new Set(report.complaints.map(({ id }) => id))
    expect([...ids]).toEqual(file.startsWith('kho-v2') ? ['KHO_DEBUGFS_SIZE'] : [])
    const hasLuo = second.some((line) => line.startsWith('luo: '))
    expect(report.liveupdateNumber).toBe(hasLuo ? 1n : undefined)
    expect(outcomeOf(report, [])).toBe('takes-over')
  })
})

describe('what the kernel says it refused is lost, whoever expected it', () => {
  const FOUND = 'KHO: found kexec handover data.'
  const said = (line: string): readonly [readonly string[], string] => {
    const report = readConsole([FOUND, line])
    return [report.complaints.map(({ id }) => id), outcomeOf(report, [])]
  }

  test.each([
    ["FDT 'memblock' is incompatible with 'memblock-v1': 1", 'MEMBLOCK_COMPATIBLE', 'loses'],
    ["FDT 'memblock' has no child 'trace': -1", 'RESERVE_MEM_NODE', 'loses'],
    ['KHO: kexec-metadata version 9 not supported (expected 1)', 'METADATA_VERSION', 'loses'],
    ['KHO: kexec-metadata blob too small (2 bytes)', 'METADATA_HEAD', 'loses'],
    ['test_kho: failed to retrieve kho_test FDT: -22', 'KHO_TEST_SUBTREE', 'loses'],
    ["luo: LUO state is incompatible with 'luo-v5'", 'LUO_COMPATIBLE', 'panics'],
    // Said of the blocks of sessions, too, where the kernel then panics.
    ['luo: Block set is corrupted', 'KHO_BLOCK_CYCLE', 'device-fails'],
    // It may be that the image left out what is missing; of the next handover; of debugfs.
    ['test_kho: KHO restore failed', 'KHO_TEST_FAILED', 'takes-over'],
    ['failed to prepare memblock FDT for KHO: -22', 'MEMBLOCK_FAILED', 'takes-over'],
    ['KHO: node kho_test missing or invalid blob-size property', 'KHO_DEBUGFS_SIZE', 'takes-over'],
  ])('%s', (line, id, outcome) => {
    expect(said(line)).toEqual([[id], outcome])
  })

  test('the test module says no more than that it failed', () => {
    const report = readConsole([FOUND, 'test_kho: KHO restore failed'])
    expect(report.khoTest).toBe(false)
    expect(outcomeOf(report, differences({ sessions: [], khoTest: true }, report))).toBe('loses')
    expect(said('test_kho: KHO restore succeeded')).toEqual([[], 'takes-over'])
  })
})

describe("the guest's lines", () => {
  const LINES = [
    'Linux version 7.3.4 (root@vm) (gcc 12.2.0) #1 SMP PREEMPT',
    'KHO: found kexec handover data.',
    '@kho device errno=0',
    '@kho session session=766d errno=0',
    '@kho file session=766d token=0xffffffffffffffff errno=0 size=10000 pos=9223372036854775807 seals=0x6 sum=2814eedbb8829359',
    '@kho file session=766d token=0x2 errno=5',
    '@kho finish session=766d errno=16',
    '@kho session session=ff00 errno=2',
    '@kho done',
  ]
  const report = readConsole(LINES)

  test('sessions and files, exact to 64 bits', () => {
    expect(report.sessions).toEqual([
      {
        name: '766d',
        errno: 0,
        finish: 16,
        files: [
          {
            token: 0xffff_ffff_ffff_ffffn,
            errno: 0,
            size: 10000n,
            pos: 0x7fff_ffff_ffff_ffffn,
            seals: 6,
            sum: 0x2814_eedb_b882_9359n,
          },
          { token: 2n, errno: 5 },
        ],
      },
      { name: 'ff00', errno: 2, files: [] },
    ])
    expect([report.kernel, report.device, report.done]).toEqual(['7.3.4', 0, true])
  })

  test('what differs is told by path', () => {
    const files = [
      { token: 0xffff_ffff_ffff_ffffn, size: 10000n, pos: 1n, seals: 6, sum: 1n },
      { token: 2n, size: 1n },
      { token: 3n },
    ]
    const expected = {
      sessions: [
        { name: '766d', files },
        { name: 'ff00', files: [] },
      ],
      regions: ['trace'],
    }
    expect(differences(expected, report).map(({ path, found }) => `${path}: ${found}`)).toEqual([
      'sessions[vm].files[0xffffffffffffffff].pos: 9223372036854775807',
      'sessions[vm].files[0xffffffffffffffff].sum: 0x2814eedbb8829359',
      'sessions[vm].files[0x2]: errno 5',
      'sessions[vm].files[0x3]: nothing',
      'sessions[vm].finish: errno 16',
      'sessions[\\xff]: errno 2',
      'reserve_mem[trace]: nothing',
    ])
    expect(outcomeOf(report, differences(expected, report))).toBe('corrupts')
  })

  test('an error that is expected is no difference, and one that is not given is one', () => {
    const name = '766d'
    const found = (expected: Expectation): readonly string[] =>
      differences(expected, report).map((each) => `${each.path}: ${each.expected}, ${each.found}`)
    const token = 0xffff_ffff_ffff_ffffn
    expect(
      found({ sessions: [{ name, finishErrno: 16, files: [{ token }, { token: 2n, errno: 5 }] }] }),
    ).toEqual([])
    expect(found({ sessions: [{ name, errno: 2, files: [] }] })).toEqual(['sessions[vm]: errno 2, a session'])
    const files = [
      { token, errno: 2 },
      { token: 2n, errno: 2 },
      { token: 3n, errno: 2 },
    ]
    expect(found({ sessions: [{ name, finishErrno: 2, files }] })).toEqual([
      'sessions[vm].files[0xffffffffffffffff]: errno 2, a file',
      'sessions[vm].files[0x2]: errno 2, errno 5',
      'sessions[vm].files[0x3]: errno 2, nothing',
      'sessions[vm].finish: errno 2, errno 16',
    ])
    const second = {
      sessions: [
        { name, files: [], finishErrno: 16 },
        { name: 'ff00', errno: 2, files: [] },
      ],
    }
    expect(found(second)).toEqual([])
    expect(found({ sessions: [], liveupdateNumber: 1n, khoTest: true })).toEqual([
      'liveupdate_number: 1, nothing',
      'kho_test: true, nothing',
    ])
  })

  test('lines that are none of ours, or half of one, do no harm', () => {
    const odd = [
      '@kho',
      '@kho region',
      '@kho region region=zz address=q errno=',
      '@kho file',
      '@kho file token=zz errno=x',
      '@kho session',
      '@kho what is=this',
      '',
    ]
    expect(readConsole(odd)).toMatchObject({ handover: false, done: false })
  })
})

describe('regions of reserve_mem', () => {
  const REVIVED = "Revived memory reservation 'trace' from KHO"
  const wanted = { name: 'trace', address: 0x5fcd_e000n, size: 8n, sum: 0x2814_eedb_b882_9359n }
  const expected = { sessions: [], regions: ['trace'], regionContents: [wanted] }
  const region = (text: string): string => `@kho region region=7472616365 address=0x5fcde000 ${text}`
  const found = (...lines: readonly string[]): readonly string[] =>
    differences(expected, readConsole(lines)).map(({ path, found }) => `${path}: ${found}`)

  test('what the guest read', () => {
    expect(readConsole([region('errno=0 size=8 sum=2814eedbb8829359')]).regionContents).toEqual([
      { ...wanted, errno: 0 },
    ])
    expect(found(REVIVED, region('errno=0 size=8 sum=2814eedbb8829359'))).toEqual([])
    expect(found(REVIVED, region('errno=0 size=8 sum=2814eedbb8829358'))).toEqual([
      'reserve_mem[trace].sum: 0x2814eedbb8829358',
    ])
  })

  test('memory that is not there is a difference, a guest that cannot look is none', () => {
    expect(found(REVIVED, region('errno=14'))).toEqual(['reserve_mem[trace]: errno 14'])
    expect(found(REVIVED, region('errno=2'))).toEqual([])
    expect(found(REVIVED, region('errno=1'))).toEqual([])
    expect(found(REVIVED)).toEqual([])
  })

  test('contents are only there where the region is', () => {
    const contents = { sessions: [], regionContents: [wanted, { ...wanted, name: 'other' }] }
    const paths = differences(contents, readConsole([region('errno=0 size=8 sum=2814eedbb8829359')]))
    expect(paths.map(({ path }) => path)).toEqual(['reserve_mem[trace]', 'reserve_mem[other]'])
  })

  test('where nothing came back, or somewhere else, there is nothing to compare', () => {
    expect(found(region('errno=0 size=8 sum=0000000000000000'))).toEqual(['reserve_mem[trace]: nothing'])
    const elsewhere = region('errno=0 size=8 sum=0000000000000000').replace('5fcde000', '5fcdf000')
    expect(found(REVIVED, elsewhere)).toEqual([])
  })

  test('contents that differ are silent corruption', () => {
    const report = readConsole([
      'KHO: found kexec handover data.',
      REVIVED,
      region('errno=0 size=8 sum=0000000000000001'),
    ])
    expect(outcomeOf(report, differences(expected, report))).toBe('corrupts')
  })
})

describe('the serial line', () => {
  test('pieces become lines without time stamps', () => {
    const seen: string[] = []
    const log = new ConsoleLog((line) => seen.push(line))
    for (const piece of ['[    0.0000', '00] KHO: found\r', '\nplain\n[   12.345678] s\xc3', '\xa4ge']) {
      log.write(Buffer.from(piece, 'latin1'))
    }
    log.end()
    expect(log.lines).toEqual(['KHO: found', 'plain', 'säge'])
    expect(seen).toEqual(log.lines)
  })

  test('a line without an end is broken, and lines without number are not kept', () => {
    const log = new ConsoleLog()
    log.write(Buffer.from('x'.repeat(10_000)))
    log.write(Buffer.from('\n'.repeat(150_000)))
    log.end()
    expect(log.lines[0]).toHaveLength(4096)
    expect(log.lines).toHaveLength(100_000)
  })

  test('after the end of a panic nothing is waited for', () => {
    expect(isLastLine('---[ end Kernel panic - not syncing: Attempted to kill the idle task! ]---')).toBe(
      true,
    )
    expect(isLastLine('Kernel panic - not syncing: Attempted to kill the idle task!')).toBe(false)
  })
})
