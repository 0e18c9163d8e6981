/** A version that the project has no code for: its declaration alone makes bytes and JSON of its records. */
import { describe, expect, test } from 'vitest'
import { blocksOf } from '../abi/kho-block.ts'
import { phys } from '../abi/memory.ts'
import { array, bitfields, packed, pointer, text, u8, u16be, u32le, u64le } from '../abi/schema.ts'
import { versionRecord } from '../encode/json-record.ts'
import { encodeRecord } from '../encode/record.ts'
import { Site } from '../encode/site.ts'
import type { EncodeProblem } from '../encode/write.ts'
import { sourceOf, u64At } from './support/written.ts'

const options = { doc: 'Of this test.', source: 'test' }

const tag = packed('tag', options, { code: u16be('Code.'), text: text(6, 'Text.') })
const device = packed('device', options, {
  label: text(16, 'Name.'),
  ...bitfields(u32le('Word.'), { kind: [0, 8, 'Kind.'], bar: [8, 24, 'Register.'] }),
  nested: packed('set', options, {
    tags: pointer(
      { kind: 'array', as: 'tags', element: tag, count: 'nr_tags', order: 2, naturalKey: 'text' },
      'Tags.',
    ),
    nr_tags: u32le('Number of tags.'),
  }),
})
const root = packed('state_v9', options, {
  compatible: text(8, 'Version.'),
  epoch: u64le('Epoch.', { default: 5 }),
  raw: array(u8('Byte.'), 4, 'Bytes.'),
  devices: pointer(blocksOf(device, { as: 'devices', naturalKey: 'label', total: 'nr_devices' }), 'Devices.'),
  nr_devices: u64le('Number of devices.'),
})

const record = {
  raw: [1, 2],
  devices: {
    entries: [
      {
        label: 'nic',
        kind: 3,
        bar: 0xabcdef,
        tags: {
          entries: [
            { code: 0x1234, text: 'a' },
            { code: 2, text: 'b' },
          ],
        },
      },
      { label: 'gpu', kind: 4, bar: 1 },
    ],
  },
}

function write(given: object): { readonly site: Site; readonly bytes: Uint8Array } {
  const site = new Site({ pageSize: 4096, ram: [{ start: phys(0x100000), end: 0x200000n }], reserved: [] })
  const encode = () =>
    encodeRecord({ site, versions: {} }, root, given, ['state'], { compatible: 'state-v9' })
  encode()
  site.endSurvey()
  return { site, bytes: encode() }
}

describe('a declared version', () => {
  test('is written with all that it links', () => {
    const { site, bytes } = write(record)
    expect(site.problems).toEqual([])
    const view = new DataView(bytes.buffer)
    expect(new TextDecoder().decode(bytes.subarray(0, 8))).toBe('state-v9')
    expect([view.getBigUint64(8, true), [...bytes.subarray(16, 20)], view.getBigUint64(28, true)]).toEqual([
      5n,
      [1, 2, 0, 0],
      2n,
    ])
    const source = sourceOf(site.memory)
    const first = view.getBigUint64(20, true) + 16n
    expect(Buffer.from(source.bytes(first, 20)).toString('hex')).toBe(
      `${Buffer.from('nic').toString('hex').padEnd(32, '0')}03efcdab`,
    )
    const tags = u64At(source, first + 20n)
    expect(tags % 0x4000n).toBe(0n)
    expect(Buffer.from(source.bytes(tags, 16)).toString('hex')).toBe('12346100000000000002620000000000')
    expect(u64At(source, first + 32n + 20n)).toBe(0n)
    expect([...site.preserved].map(({ order }) => order).sort()).toEqual([0, 2])
  })

  test('has the keys of its declaration in JSON', () => {
    const contract = { kind: 'string', value: 'state-v9' } as const
    const version = { id: 'state-v9', contract, place: { kind: 'field', field: 'compatible' }, root } as const
    const codec = versionRecord(version, { target: { pageSize: 4096 }, versions: {} })
    const problems: EncodeProblem[] = []
    const json = { raw: [1, 'x'], devices: [{ label: 'nic', kind: 3, bar: 1, tag: [] }] }
    codec.parse(json, ['state'], problems)
    expect(problems).toEqual([
      { path: 'state.raw[1]', message: expect.stringMatching('expected a non-negative integer') },
      { path: 'state.devices[0].tag', message: 'unknown key; known are label, kind, bar, tags, nr_tags' },
    ])
  })

  test('names what does not fit by the keys of its records', () => {
    const { site } = write({ raw: [], devices: { entries: [{ label: 'x'.repeat(17), kind: 256, bar: 0 }] } })
    expect(site.problems.map(({ path }) => path)).toEqual([
      `state.devices[${'x'.repeat(17)}].label`,
      `state.devices[${'x'.repeat(17)}].kind`,
    ])
  })
})
