/** Arrays, chains of blocks and vmalloc memory at the counts where their shape changes, in every version. */
import { describe, expect, test } from 'vitest'
import { PAGE_SIZES, type PageSize } from '../abi/layout.ts'
import type { ReleaseVersions } from '../abi/registry.ts'
import type { Luo, Memfd, RecordList, SessionFile } from '../encode/handover.ts'
import { RunTable, UNPLACED } from '../encode/runs.ts'
import { unitTable } from '../encode/units.ts'
import { writeHandover } from '../encode/write-handover.ts'
import { luoOnly, machine, readWritten, rewritten, sourceOf, u64At } from './support/written.ts'

const base = { kho: 'kho-v4', memfd: 'memfd-v2' } as const
/** Version, sessions and files that fit one unit of each page size; blocks have no upper bound of that kind. */
const arrays = [
  ['luo-v1', [819, 3276, 13107], [128, 512, 2048]],
  ['luo-v1/flb', [819, 3276, 13107], [128, 512, 2048]],
  ['luo-v2', [819, 3276, 13107], [128, 512, 2048]],
  ['luo-v3', [819, 3276, 13107], [128, 512, 2048]],
] as const
const blockSessions = [51, 204, 819] as const
const blockFiles = [63, 255, 1023] as const

const opaque = (token: number): SessionFile => ({ compatible: 'test-v1', token: BigInt(token), data: 0xabcn })

function luoOf(nrSessions: number, nrFiles: number): Luo {
  const files = Array.from({ length: nrFiles }, (_, index) => opaque(index))
  return {
    liveupdate_num: 3n,
    sessions: {
      entries: Array.from({ length: nrSessions }, (_, index) => ({
        name: `session-${index}`,
        files: { entries: index === nrSessions - 1 ? files : [] },
      })),
    },
  }
}

const namesOf = (luo: Luo | undefined): readonly unknown[] =>
  luo?.sessions?.entries?.map(({ name }) => name) ?? []
const tokensOf = (luo: Luo | undefined): readonly bigint[] =>
  luo?.sessions?.entries?.at(-1)?.files?.entries?.map(({ token }) => token) ?? []
const countsOf = (list: RecordList<unknown> | undefined): readonly number[] =>
  list?.blocks?.map(({ entries }) => entries) ?? []

/** Full blocks, then the rest. */
function blocksFor(count: number, capacity: number): readonly number[] {
  const full = Array.from({ length: Math.floor(count / capacity) }, () => capacity)
  return count % capacity === 0 ? full : [...full, count % capacity]
}

describe.each(PAGE_SIZES.map((pageSize, index) => ({ pageSize, index })))(
  'at $pageSize',
  ({ pageSize, index }) => {
    /** Every change of shape where blocks are small, the first where they are large. */
    const around = (capacity: number): readonly number[] =>
      pageSize === 4096
        ? [0, 1, capacity, capacity + 1, 2 * capacity, 5 * capacity + 3]
        : [0, capacity, capacity + 1]

    const here = arrays.slice(0, pageSize === 4096 ? arrays.length : 1)

    test.each(here)('%s: arrays up to their capacity', (luo, sessions, files) => {
      const versions: ReleaseVersions = { ...base, luo }
      for (const [nrSessions, nrFiles] of [
        [0, 0],
        [1, 0],
        [1, 1],
        [sessions[index] as number, files[index] as number],
      ] as const) {
        const read = rewritten(machine(pageSize, versions, luoOnly(luoOf(nrSessions, nrFiles)))).subtrees[0]
          ?.luo
        expect(namesOf(read)).toEqual(namesOf(luoOf(nrSessions, 0)))
        expect(tokensOf(read)).toEqual(tokensOf(luoOf(1, nrSessions > 0 ? nrFiles : 0)))
        expect(read?.liveupdate_num).toBe(3n)
        expect(read?.sessions?.at).not.toBe(0n)
        if (nrSessions > 0) expect(read?.sessions?.entries?.at(-1)?.files?.at === 0n).toBe(nrFiles === 0)
      }
    })

    test.each(arrays)(
      '%s: one more than an array holds is a problem with its place',
      (luo, sessions, files) => {
        const versions: ReleaseVersions = { ...base, luo }
        const tooMany = luoOf((sessions[index] as number) + 1, (files[index] as number) + 1)
        const { problems } = writeHandover(machine(pageSize, versions, luoOnly(tooMany)))
        const [room, filesRoom] = [sessions[index] as number, files[index] as number]
        expect(problems).toEqual([
          { path: 'luo.sessions', message: `${room + 1} sessions, but the array has room for ${room}` },
          {
            path: `luo.sessions[session-${room}].files`,
            message: `${filesRoom + 1} files, but the array has room for ${filesRoom}`,
          },
        ])
      },
    )

    test('luo-v5: blocks fill one after the other', () => {
      const sessionsRoom = blockSessions[index] as number
      const filesRoom = blockFiles[index] as number
      for (const nrSessions of around(sessionsRoom)) {
        for (const nrFiles of nrSessions === 1 ? around(filesRoom) : [2]) {
          const luo = luoOf(nrSessions, nrFiles)
          const read = rewritten(machine(pageSize, { ...base, luo: 'luo-v5' }, luoOnly(luo))).subtrees[0]?.luo
          expect(namesOf(read)).toEqual(namesOf(luo))
          expect(countsOf(read?.sessions)).toEqual(blocksFor(nrSessions, sessionsRoom))
          if (nrSessions === 0) continue
          expect(tokensOf(read)).toEqual(tokensOf(luo))
          expect(countsOf(read?.sessions?.entries?.at(-1)?.files)).toEqual(blocksFor(nrFiles, filesRoom))
        }
      }
    })

    test('luo-v4: sessions in blocks, files in arrays', () => {
      const nrSessions = (blockSessions[index] as number) + 1
      const read = rewritten(machine(pageSize, { ...base, luo: 'luo-v4' }, luoOnly(luoOf(nrSessions, 3))))
        .subtrees[0]?.luo
      expect(countsOf(read?.sessions)).toEqual([nrSessions - 1, 1])
      expect(tokensOf(read)).toEqual([0n, 1n, 2n])
    })
  },
)

test('luo-v1 of session-v1: names and nothing else', () => {
  const versions: ReleaseVersions = { ...base, luo: 'luo-v1/session-v1' }
  const sessions = Array.from({ length: 1023 }, (_, index) => ({ name: `session-${index}` }))
  const luo = { liveupdate_num: 1n, sessions: { entries: sessions } }
  expect(rewritten(machine(4096, versions, luoOnly(luo))).subtrees[0]?.luo?.sessions?.entries).toEqual(
    sessions,
  )
  const { problems } = writeHandover(machine(4096, versions, luoOnly(luoOf(1, 1))))
  const refused = { path: 'luo.sessions[session-0].files', message: 'luo_session_ser has no such field' }
  expect(problems).toEqual([refused])
})

describe('block boundaries that a document gives', () => {
  const write = (sessions: NonNullable<Luo['sessions']>) => {
    const document = machine(4096, { ...base, luo: 'luo-v5' }, luoOnly({ liveupdate_num: 1n, sessions }))
    const written = writeHandover(document)
    return { ...written, read: () => readWritten(document, written).subtrees[0]?.luo?.sessions }
  }
  const entries = Array.from({ length: 5 }, (_, index) => ({ name: `s${index}` }))

  test('are kept, addresses too', () => {
    const blocks = [{ at: 0x42000000n, entries: 1 }, { entries: 3 }, { at: 0x42001000n, entries: 1 }]
    const { read, problems } = write({ blocks, entries })
    expect(problems).toEqual([])
    expect(countsOf(read())).toEqual([1, 3, 1])
    expect([read()?.blocks?.[0]?.at, read()?.blocks?.[2]?.at]).toEqual([0x42000000n, 0x42001000n])
  })

  test('take what is left in the last block, then in new ones', () => {
    const many = Array.from({ length: 60 }, (_, index) => ({ name: `s${index}` }))
    expect(countsOf(write({ blocks: [{ entries: 2 }, { entries: 3 }], entries: many }).read())).toEqual([
      2, 51, 7,
    ])
  })

  test('may leave an empty block at the tail, which kernels do and refuse', () => {
    expect(countsOf(write({ blocks: [{ entries: 5 }, { entries: 0 }], entries }).read())).toEqual([5, 0])
  })

  test('that do not match the list are problems', () => {
    expect(write({ blocks: [{ entries: 6 }], entries }).problems).toEqual([
      { path: 'luo.sessions.blocks', message: '1 entries more than the list has' },
    ])
    expect(
      write({ blocks: [{ entries: 52 }], entries: Array.from({ length: 52 }, () => ({ name: 'x' })) })
        .problems,
    ).toEqual([{ path: 'luo.sessions.blocks[0]', message: '52 entries, but a block has room for 51' }])
  })

  test('a chain longer than the kernel takes is a problem', () => {
    const blocks = Array.from({ length: 10_001 }, () => ({ entries: 0 }))
    expect(write({ blocks, entries: [] }).problems).toEqual([
      { path: 'luo.sessions', message: '10001 blocks, but the kernel takes at most 10000' },
    ])
  })
})

function folios(count: number): RunTable<'pfn' | 'flags' | 'index'> {
  return new RunTable(['pfn', 'flags', 'index'], count > 0 ? [run(count, 0, UNPLACED, 0n, 0)] : [])
}

function memfdIn(pageSize: PageSize, memfd: Memfd, ram = 1n << 36n) {
  const files = { entries: [{ compatible: 'memfd-v2', token: 1n, memfd }] }
  const luo = { liveupdate_num: 1n, sessions: { entries: [{ name: 's', files }] } }
  const document = {
    ...machine(pageSize, { ...base, luo: 'luo-v5' }, luoOnly(luo)),
    ram: [{ start: 0x40000000n, size: ram }],
  }
  const written = writeHandover(document)
  const read = (): Memfd | undefined =>
    readWritten(document, written).subtrees[0]?.luo?.sessions?.entries?.[0]?.files?.entries?.[0]?.memfd
  return { ...written, read }
}

/** Where the record of the only file stands. */
const AT = 0x44000000n

describe.each([
  [4096, 511],
  [16384, 2047],
  [65536, 8191],
] as const)('vmalloc at %i: a chunk holds %i pages', (pageSize, capacity) => {
  // Pages of the array, and the chunks that the kernel makes for them: a full one is followed by another.
  test.each([
    [1, 1],
    [capacity - 1, 1],
    [capacity, 2],
    [capacity + 1, 2],
    [2 * capacity, 3],
  ])('%i pages in %i chunks', (nrPages, nrChunks) => {
    const pages = unitTable(pageSize, [{ start: 0x80000000n, count: nrPages }])
    const list = { records: folios(nrPages > 1 ? pageSize / 16 + 1 : 1), pages }
    const { memory, problems } = memfdIn(pageSize, { at: AT, pos: 0n, size: 1n, folios: list })
    expect(problems).toEqual([])
    const source = sourceOf(memory)
    const found: number[] = []
    for (let chunk = u64At(source, AT + 32n); chunk !== 0n; chunk = u64At(source, chunk)) {
      const slots = Array.from({ length: capacity }, (_, slot) =>
        u64At(source, chunk + 8n + BigInt(slot * 8)),
      )
      const before = BigInt(found.length * capacity)
      const filled = slots.indexOf(0n) < 0 ? capacity : slots.indexOf(0n)
      found.push(filled)
      expect(slots).toEqual(
        slots.map((_, slot) =>
          slot < filled ? 0x80000000n + (before + BigInt(slot)) * BigInt(pageSize) : 0n,
        ),
      )
    }
    expect(found.length).toBe(nrChunks)
    expect(found.reduce((sum, slots) => sum + slots, 0)).toBe(nrPages)
    expect(source.bytes(0x80000000n + BigInt(nrPages) * BigInt(pageSize) - 8n, 8)).toBeDefined()
  })
})

describe('vmalloc', () => {
  test('pages and chunks follow from the number of records', () => {
    const { read, problems } = memfdIn(4096, {
      pos: 0n,
      size: 1n,
      folios: { records: folios(256 * 511 + 1) },
    })
    expect(problems).toEqual([])
    const found = read()?.folios
    expect([found?.chunks?.length, found?.pages?.total, found?.records?.total]).toEqual([
      2,
      512,
      256 * 511 + 1,
    ])
  })

  test.each([undefined, { records: folios(0) }])('an empty file has a descriptor of zeros', (list) => {
    const { memory } = memfdIn(4096, { at: AT, pos: 0n, size: 0n, ...(list ? { folios: list } : {}) })
    expect(sourceOf(memory).bytes(AT + 24n, 24)).toEqual(new Uint8Array(24))
  })

  test('groups of pages: every address is the first page of a group', () => {
    const list = { records: folios(2000), order: 2, flags: 3 }
    const { memory, problems } = memfdIn(4096, { at: AT, pos: 0n, size: 1n, folios: list })
    expect(problems).toEqual([])
    const source = sourceOf(memory)
    const descriptor = new DataView(source.bytes(AT + 32n, 16).buffer)
    const fields = [
      descriptor.getUint32(8, true),
      descriptor.getUint16(12, true),
      descriptor.getUint16(14, true),
    ]
    expect(fields).toEqual([8, 3, 2])
    const chunk = u64At(source, AT + 32n)
    const groups = [8n, 16n, 24n].map((offset) => u64At(source, chunk + offset))
    expect(groups.map((group) => group % 16384n)).toEqual([0n, 0n, 0n])
    expect(groups[2]).toBe(0n)
    expect(u64At(source, (groups[1] as bigint) + 8n)).toBe(1024n)
  })

  test('fields of the descriptor that a document gives are written as they are', () => {
    const list = { records: folios(3), first: 0xdead000n, total_pages: 99 }
    const source = sourceOf(memfdIn(4096, { at: AT, pos: 0n, size: 1n, nr_folios: 7n, folios: list }).memory)
    expect([24n, 32n].map((offset) => u64At(source, AT + offset))).toEqual([7n, 0xdead000n])
    expect(Number(u64At(source, AT + 40n) & 0xffff_ffffn)).toBe(99)
  })

  test('folios in both directions hold the bytes of the file', () => {
    const length = 1027n << 12n
    const content = { seed: 1n, every: 4096, run: 16, length }
    const records = new RunTable(
      ['pfn', 'flags', 'index'],
      [run(2, 9, 0x42000n, 0n, 512), run(3, 0, 0x43002n, 1024n, -1)],
    )
    const scattered = memfdIn(4096, { pos: 0n, size: length, folios: { records }, content })
    const straight = memfdIn(4096, { pos: 0n, size: length, folios: { records: folios(1027) }, content })
    expect([scattered.problems, straight.problems]).toEqual([[], []])
    const stored = [...(scattered.read()?.folios?.records ?? [])].flatMap(({ start, step, count }) =>
      Array.from({ length: count }, (_, at) => start.pfn + BigInt(at) * BigInt(step.pfn)),
    )
    expect(stored).toEqual([0x42000n, 0x42200n, 0x43002n, 0x43001n, 0x43000n])
    const first = straight.read()?.folios?.records?.start('pfn', 0) as bigint
    const offsets = [0n, 1n, 511n, 1023n, 1024n, 1025n, 1026n]
    const frames = [0x42000n, 0x42001n, 0x421ffn, 0x423ffn, 0x43002n, 0x43001n, 0x43000n]
    for (const [at, offset] of offsets.entries()) {
      const one = sourceOf(scattered.memory).bytes((frames[at] as bigint) << 12n, 4096)
      expect(one).toEqual(sourceOf(straight.memory).bytes((first + offset) << 12n, 4096))
      expect(one.some((byte) => byte !== 0)).toBe(true)
    }
  })
})

function run(count: number, order: number, pfn: bigint, index: bigint, pfnStep: number) {
  return {
    count,
    order,
    start: { pfn, flags: 3n, index },
    step: { pfn: pfnStep, flags: 0, index: 2 ** order },
  }
}
