/** Documents that cannot be written: each mistake with its place, and nothing that a document could exhaust. */
import { describe, expect, test } from 'vitest'
import type { HandoverDocument, Memfd } from '../encode/handover.ts'
import { RunTable, UNPLACED } from '../encode/runs.ts'
import { unitTable } from '../encode/units.ts'
import { writeHandover } from '../encode/write-handover.ts'
import { luoOnly, machine, NEWEST, oneOfEverything } from './support/written.ts'

describe('what cannot be written', () => {
  const problemsOf = (change: Partial<HandoverDocument>) =>
    writeHandover({ ...oneOfEverything(), ...change }).problems

  test.each([
    [
      'memory too small',
      { ram: [{ start: 0x40000000n, size: 0x8000n }], scratch: { areas: [] } },
      'luo.sessions[a].files[0xffffffffffffffff].memfd.folios',
      'memory too small: 49152 bytes are needed here, 0 bytes are left in free units of order 2',
    ],
    [
      'an object outside of RAM',
      { root: { at: 0x1000n } },
      'kho.fdt',
      '0x1000 to 0x2000 does not lie in one range of RAM',
    ],
    [
      'a version that is none',
      { versions: { ...NEWEST, luo: 'luo-v9' } },
      'versions.luo',
      'luo-v9 is said, expected one of luo-v1/session-v1, luo-v1, luo-v1/flb, luo-v2, luo-v3, luo-v4, luo-v5',
    ],
    [
      'a version left out',
      { versions: { ...NEWEST, kho: undefined } },
      'versions.kho',
      'nothing is said, expected one of kho-v1/bitmap-512, kho-v1/bitmap-page, kho-v2, kho-v3/rc, kho-v3, kho-v4',
    ],
    [
      'a subtree of nothing',
      { subtrees: [{ name: 'x' }] },
      'subtrees[x]',
      'a subtree needs a component, fdt, bytes or an address',
    ],
    [
      'a blob larger than its unit',
      { subtrees: [{ name: 'x', order: 0, bytes: new Uint8Array(4097) }] },
      'subtrees[x].order',
      '4097 bytes do not fit a unit of order 0',
    ],
    [
      'subtrees too many',
      { subtrees: Array.from({ length: 80 }, (_, at) => ({ name: `n${at}`, at: 0x1000n })) },
      'subtrees',
      'the root FDT with 80 subtrees does not fit into one page',
    ],
    [
      'a scratch area too small for the array',
      { scratch: { areas: [{ addr: 0x40000000n, size: 8n }] } },
      'scratch',
      'no area has room for the array of 16 bytes',
    ],
    [
      'a name too long',
      { subtrees: luoOnly({ liveupdate_num: 1n, sessions: { entries: [{ name: 'x'.repeat(65) }] } }) },
      `luo.sessions[${'x'.repeat(65)}].name`,
      '65 bytes, but the field has 64',
    ],
    [
      'a file without a handle',
      {
        subtrees: luoOnly({
          liveupdate_num: 1n,
          sessions: { entries: [{ name: 's', files: { entries: [{ compatible: 'x', token: 1n }] } }] },
        }),
      },
      'luo.sessions[s].files[0x1].data',
      'a file needs data',
    ],
    [
      'a memfd without a record',
      {
        subtrees: luoOnly({
          liveupdate_num: 1n,
          sessions: { entries: [{ name: 's', files: { entries: [{ compatible: 'memfd-v1', token: 1n }] } }] },
        }),
      },
      'luo.sessions[s].files[0x1].data',
      'a file needs memfd or data',
    ],
    [
      'flags that do not fit',
      {
        subtrees: luoOnly({
          liveupdate_num: 1n,
          sessions: {
            entries: [
              {
                name: 's',
                files: {
                  entries: [
                    {
                      compatible: 'memfd-v2',
                      token: 1n,
                      memfd: {
                        pos: 0n,
                        size: 0n,
                        folios: {
                          records: new RunTable(
                            ['pfn', 'flags', 'index'],
                            [
                              {
                                count: 2,
                                order: 0,
                                start: { pfn: 1n, flags: 4095n, index: 0n },
                                step: { pfn: 1, flags: 1, index: 1 },
                              },
                            ],
                          ),
                        },
                      },
                    },
                  ],
                },
              },
            ],
          },
        }),
      },
      'luo.sessions[s].files[0x1].memfd.folios.runs[0].flags',
      '4095 to 4096 does not fit 12 bits',
    ],
  ] as readonly (readonly [string, Partial<HandoverDocument>, string, string])[])(
    '%s',
    (_what, change, path, message) => {
      const problems = problemsOf(change)
      expect(problems.find((problem) => problem.path === path)).toEqual({ path, message })
    },
  )

  test('a field that a version does not have', () => {
    const session = {
      name: 's',
      files: { entries: [{ compatible: 'memfd-v1', token: 1n, memfd: { pos: 0n, size: 0n, seals: 1 } }] },
    }
    const subtrees = luoOnly({ liveupdate_num: 1n, sessions: { entries: [session] }, flbs: { entries: [] } })
    expect(problemsOf({ subtrees, versions: { ...NEWEST, luo: 'luo-v1' } })).toEqual([
      { path: 'luo.sessions[s].files[0x1].memfd.seals', message: 'memfd_luo_ser has no such field' },
      { path: 'luo.flbs', message: 'the node has no such field' },
    ])
  })
})

describe('what no memory could hold', () => {
  const records = (count: number) =>
    new RunTable(
      ['pfn', 'flags', 'index'],
      [
        {
          count,
          order: 0,
          start: { pfn: UNPLACED, flags: 3n, index: 0n },
          step: { pfn: 0, flags: 0, index: 1 },
        },
      ],
    )
  const withFolios = (folios: NonNullable<Memfd['folios']>): Partial<HandoverDocument> => {
    const files = { entries: [{ compatible: 'memfd-v2', token: 1n, memfd: { pos: 0n, size: 0n, folios } }] }
    return { subtrees: luoOnly({ liveupdate_num: 1n, sessions: { entries: [{ name: 's', files }] } }) }
  }
  const folios = 'luo.sessions[s].files[0x1].memfd.folios'

  test.each([
    ['records', withFolios({ records: records(2 ** 50) }), folios, /^1125899906842624 records are more than/],
    [
      'placed folios',
      withFolios({ records: records(2 ** 30) }),
      folios,
      /^memory too small: 4398046511104 bytes/,
    ],
    [
      'pages',
      withFolios({ records: records(1), pages: unitTable(4096, [{ start: 0n, count: 2 ** 40 }]) }),
      folios,
      /^1099511627776 groups of 2\^0/,
    ],
    [
      'an order',
      withFolios({ records: records(1), order: 60000 }),
      `${folios}.order`,
      /^a group of order 60000 is larger/,
    ],
    [
      'a unit of a blob',
      { subtrees: [{ name: 'x', order: 50, bytes: Uint8Array.of(1) }] },
      'subtrees[x]',
      /^memory too small: 4611686018427387904 bytes/,
    ],
    [
      'a unit of an FDT',
      {
        subtrees: [
          { name: 'x', at: 0x40000000n, order: 50, fdt: { name: '', properties: [], children: [] } },
        ],
        preserved: { units: unitTable(4096) },
      },
      'kho.fdt',
      /^memory too small/,
    ],
    [
      'units',
      { preserved: { units: unitTable(4096, [{ start: 0n, count: 2 ** 51 }]) } },
      'preserved',
      /^the map of these units takes more than 268435456 bytes$/,
    ],
    [
      'units of kho-v1',
      {
        versions: { ...NEWEST, kho: 'kho-v1/bitmap-page' },
        preserved: { units: unitTable(4096, [{ start: 0n, count: 2 ** 51 }]) },
      },
      'preserved',
      /^the map of these units takes more than 268435456 bytes$/,
    ],
  ] as readonly (readonly [string, Partial<HandoverDocument>, string, RegExp])[])(
    '%s',
    (_what, change, path, message) => {
      const { problems } = writeHandover({ ...machine(4096, NEWEST, []), ...change })
      expect(problems.find((problem) => problem.path === path)?.message).toMatch(message)
    },
  )
})
