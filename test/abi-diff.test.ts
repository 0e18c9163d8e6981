/** Comparison of ABI versions and releases, against what the kernels' sources and runs say. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PAGE_SIZES } from '../abi/layout.ts'
import { compareDocuments, compareReleases, compareVersions } from '../inspect/abi-compare.ts'
import { comparisonMarkdown, renderComparison } from '../inspect/abi-diff-text.ts'
import {
  describeAbi,
  type LimitDescription,
  stableJson,
  type VersionDescription,
} from '../inspect/abi-document.ts'
import { releaseNamed, versionsNamed } from '../inspect/abi-names.ts'
import { isStoredProblem, parseStored } from '../inspect/abi-stored.ts'
import { noPaint } from '../inspect/paint.ts'
import { forPage, type PerPage } from '../inspect/per-page.ts'
import { ROOT } from './support/images.ts'

const document = describeAbi()

function version(name: string): VersionDescription {
  const found = versionsNamed(document, name).at(-1)
  if (!found) throw new Error(`no version ${name}`)
  return found
}

function compare(before: string, after: string) {
  return compareVersions(version(before), version(after))
}

function release(name: string) {
  const found = releaseNamed(document, name)
  if (!found) throw new Error(`no release ${name}`)
  return found
}

function changesOf(before: string, after: string): readonly string[] {
  const [component] = compare(before, after).components
  return (component?.changes ?? []).map((change) =>
    `${change.class} ${change.kind} ${change.where} ${change.aspect}`.trim(),
  )
}

describe('every pair of releases', () => {
  const { columns, outcomes } = JSON.parse(readFileSync(`${ROOT}fixtures/abi/takeover.json`, 'utf8')) as {
    columns: string[]
    outcomes: Record<string, string[]>
  }

  test('the table is of all releases that are declared', () => {
    expect(columns).toEqual(document.releases.map(({ name }) => name))
  })

  const pairs = columns.flatMap((before) =>
    columns.map((after, index) => [before, after, outcomes[before]?.[index]] as const),
  )
  test.each(pairs)('%s -> %s: %s', (before, after, outcome) => {
    const { forward } = compareReleases(document, release(before), release(after))
    const verdicts: Record<string, RegExp> = {
      'takes-over': /^(identical|compatible)$/,
      loses: /^compatible$/,
      'no-handover': /^incompatible$/,
      panics: /^silent$/,
      corrupts: /^silent$/,
    }
    expect(forward.outcome).toBe(outcome)
    expect(forward.verdict).toMatch(verdicts[outcome as string] as RegExp)
  })

  test.each(pairs)('%s -> %s, seen from the other side', (before, after) => {
    const there = compareReleases(document, release(before), release(after))
    const back = compareReleases(document, release(after), release(before))
    expect(there.backward.verdict).toBe(back.forward.verdict)
    expect(there.backward.outcome).toBe(back.forward.outcome)
    expect(there.backward.check).toEqual(back.forward.check)
  })
})

describe('consecutive versions', () => {
  test.each([
    [
      'kho-v1/bitmap-512',
      'kho-v1/bitmap-page',
      [
        'layout resized kho_mem_phys_bits size',
        'layout resized kho_mem_phys_bits.preserve size',
        'limit changed PRESERVE_BITS limit',
      ],
      'silent corrupts undefined',
      'silent corrupts undefined',
    ],
    [
      'kho-v1/bitmap-page',
      'kho-v2',
      [
        'contract changed /:compatible version',
        "layout changed /:preserved-memory-map pointer's target",
        'layout renamed /*:fdt name',
        'layout added kho_radix_node struct',
        'layout removed khoser_mem_chunk struct',
      ],
      'incompatible no-handover KHO_COMPATIBLE',
      'incompatible no-handover KHO_COMPATIBLE',
    ],
    [
      'kho-v2',
      'kho-v3',
      ['contract changed /:compatible version', 'layout added /*:blob-size property'],
      'incompatible no-handover KHO_COMPATIBLE',
      'incompatible no-handover KHO_COMPATIBLE',
    ],
    [
      'kho-v3',
      'kho-v4',
      ['contract changed /:compatible version', 'contract added kho_block_header_ser struct'],
      'incompatible no-handover KHO_COMPATIBLE',
      'incompatible no-handover KHO_COMPATIBLE',
    ],
    [
      'luo-session-v1',
      'luo-session-v2',
      [
        'contract changed /luo-session:compatible version',
        'layout resized luo_session_ser size',
        'layout added luo_session_ser.file_set_ser field',
      ],
      'incompatible panics LUO_SESSION_COMPATIBLE',
      'incompatible panics LUO_SESSION_COMPATIBLE',
    ],
    [
      'luo-v1/session-v1',
      'luo-v1',
      ['contract changed /luo-session:compatible version string'],
      'incompatible panics LUO_SESSION_COMPATIBLE',
      'incompatible panics LUO_SESSION_COMPATIBLE',
    ],
    [
      'luo-v1',
      'luo-v1/flb',
      ['layout added /luo-flb node', 'layout added luo_flb_ser struct'],
      'silent panics LUO_FLB_NODE',
      'compatible loses undefined',
    ],
    [
      'luo-v1/flb',
      'luo-v2',
      [
        'contract changed /:compatible version',
        'layout added /:luo-abi-header property',
        'layout removed /luo-session node',
        'layout added luo_ser struct',
      ],
      'incompatible panics LUO_COMPATIBLE',
      'incompatible panics LUO_COMPATIBLE',
    ],
    [
      'luo-v2',
      'luo-v3',
      [
        'layout changed root form',
        'layout added luo_ser.compatible field',
        'layout resized luo_ser size',
        'layout moved luo_ser.sessions_pa offset',
      ],
      'incompatible panics LUO_COMPATIBLE',
      'incompatible panics LUO_COMPATIBLE',
    ],
    [
      'luo-v3',
      'luo-v4',
      [
        "layout changed luo_ser.sessions_pa pointer's target",
        'layout removed luo_session_header_ser struct',
        'limit removed LUO_SESSION_MAX limit',
      ],
      'incompatible panics LUO_COMPATIBLE',
      'incompatible panics LUO_COMPATIBLE',
    ],
    [
      'luo-v4',
      'luo-v5',
      ["layout changed luo_file_set_ser.files pointer's target", 'limit removed LUO_FILE_MAX limit'],
      'incompatible panics LUO_COMPATIBLE',
      'incompatible panics LUO_COMPATIBLE',
    ],
    [
      'memfd-v1',
      'memfd-v2',
      [
        'contract changed the record that points to it version',
        'layout added memfd_luo_ser.seals field',
        'layout added memfd_luo_ser.flags field',
        'layout moved memfd_luo_ser.nr_folios offset',
        'layout moved memfd_luo_ser.folios offset',
        'layout resized memfd_luo_ser size',
      ],
      'incompatible device-fails LUO_FILE_HANDLER',
      'incompatible loses LUO_FILE_HANDLER',
    ],
    [
      'kho-test-v1/inline',
      'kho-test-v1',
      ['layout changed /data:folios_info encoding', 'layout resized /data:folios_info size'],
      'silent loses KHO_TEST_FOLIOS_INFO',
      'silent loses KHO_TEST_FOLIOS_INFO',
    ],
  ])('%s -> %s', (before, after, changes, forward, backward) => {
    const compared = compare(before, after)
    const verdictText = ({ verdict, outcome, check }: typeof compared.forward) =>
      `${verdict} ${outcome} ${check?.id}`
    expect(changesOf(before, after)).toEqual(expect.arrayContaining(changes))
    expect(verdictText(compared.forward)).toBe(forward)
    expect(verdictText(compared.backward)).toBe(backward)
  })

  test('16K pages alone tell the two depths of kho-v3 apart', () => {
    const { forward, components } = compare('kho-v3/rc', 'kho-v3')
    expect([forward.verdict, forward.outcome, forward.pageSizes]).toEqual(['silent', 'corrupts', [16384]])
    expect(
      new Set(components.flatMap(({ changes }) => changes.flatMap(({ pageSizes }) => pageSizes))),
    ).toEqual(new Set([16384]))
    for (const pageSize of PAGE_SIZES) {
      const narrowed = compareVersions(version('kho-v3/rc'), version('kho-v3'), [pageSize])
      expect(narrowed.forward.verdict).toBe(pageSize === 16384 ? 'silent' : 'identical')
    }
  })

  test('how far the two bitmap sizes of kho-v1 misread each other', () => {
    const { forward, backward } = compare('kho-v1/bitmap-512', 'kho-v1/bitmap-page')
    expect(forward.reasons[1]).toBe(
      'at 4K pages it reads 4096 bytes where 512 were left: 8 times as much, the rest is other memory',
    )
    expect(backward.reasons[1]).toBe(
      'at 4K pages it reads the first 512 of 4096 bytes: 1/8, the rest is lost',
    )
  })

  test('two inline addresses pass for a descriptor', () => {
    expect(compare('kho-test-v1/inline', 'kho-test-v1').forward.reasons.at(-1)).toBe(
      '/data:folios_info: with exactly 2 elements both forms have the same length, and the check passes',
    )
  })

  test('bytes that are equal at some page sizes are said to be so for these', () => {
    const { backward } = compare('kho-v2', 'kho-v3')
    const [, ...sameBytes] = backward.reasons
    expect(sameBytes).toEqual([
      'at 4K and 64K pages the bytes themselves are laid out alike; there the version alone refuses',
    ])
    const at = (pageSize: (typeof PAGE_SIZES)[number]) =>
      compareVersions(version('kho-v2'), version('kho-v3'), [pageSize]).backward.reasons[1]
    expect(PAGE_SIZES.map(at)).toEqual([
      'the bytes themselves are laid out alike; the version alone refuses',
      undefined,
      'the bytes themselves are laid out alike; the version alone refuses',
    ])
  })

  test('a version string alone can refuse equal bytes', () => {
    expect(compare('kho-v3', 'kho-v4').forward.reasons[1]).toBe(
      'the bytes themselves are laid out alike; the version alone refuses',
    )
  })
})

describe('what changed between releases besides the layout', () => {
  const between = (before: string, after: string) =>
    compareReleases(document, release(before), release(after))

  test('6.19 refuses a map at address 0, and one that is not named', () => {
    expect(
      between('6.18', '6.19').checks.map(({ kind, check }) => `${kind} ${check.id} ${check.outcome}`),
    ).toEqual(['changed KHO_MAP_PROPERTY no-handover', 'added KHO_MAP_ADDRESS no-handover'])
  })

  test.each([
    ['6.16', '6.17', []],
    ['6.17', '6.17.9', ["The map's pages come from the page allocator (commit a2fff99f92da)."]],
    [
      '7.0',
      'kho-v2',
      [
        'The map is live; the finalize step is gone.',
        'Units of an order above MAX_PAGE_ORDER are restored, too.',
      ],
    ],
    [
      '7.2',
      '7.3',
      [
        'A key wider than KHO_RADIX_KEY_WIDTH is refused on insertion with ERANGE; the constant has a new name.',
        'Blocks of 1 GiB without preserved units and tree nodes become scratch.',
      ],
    ],
  ])('%s -> %s', (before, after, docs) => {
    expect(between(before, after).behaviours.map(({ doc }) => doc)).toEqual(docs)
    expect(between(after, before).behaviours.map(({ doc }) => doc)).toEqual(docs)
  })

  test('a reserve_mem region loses its tail from 6.18 on, without a check', () => {
    expect(
      between('6.17.9', '6.18')
        .behaviours.filter(({ loses }) => loses)
        .map(({ component }) => component),
    ).toEqual(['memblock'])
  })

  test('kho_vmalloc comes with 6.18, under the string that 6.17.9 has', () => {
    const [kho] = between('6.17.9', '6.18').components
    expect(kho?.before).toBe(kho?.after)
    expect(kho?.changes.map(({ kind, where }) => `${kind} ${where}`)).toEqual([
      'added kho_vmalloc',
      'added kho_vmalloc_chunk',
      'added kho_vmalloc_hdr',
    ])
    expect(kho?.forward.verdict).toBe('compatible')
  })

  test('what comes after a refusal by KHO is not reached', () => {
    const { components } = between('7.1', '7.2')
    expect(
      components.filter(({ unreached }) => unreached?.includes('forward')).map(({ component }) => component),
    ).toEqual(['memblock', 'luo', 'memfd', 'kexec-metadata', 'kho-test'])
  })
})

describe('the rules, on altered declarations', () => {
  const base = version('luo-v5')
  const alter = (change: (text: string) => string): VersionDescription =>
    JSON.parse(change(JSON.stringify(base)))

  test('nothing changed', () => {
    expect(
      compareVersions(
        base,
        alter((text) => text),
      ).forward.verdict,
    ).toBe('identical')
  })

  test('a field that only has another name is for people to judge', () => {
    const { forward, components } = compareVersions(
      base,
      alter((text) => text.replaceAll('"liveupdate_num"', '"update_count"')),
    )
    expect(forward.verdict).toBe('review')
    expect(
      components[0]?.changes.map(({ class: kind, kind: how, before, after }) => [kind, how, before, after]),
    ).toEqual([['meaning', 'renamed', 'liveupdate_num', 'update_count']])
  })

  test('a smaller limit is for the reader with it to judge', () => {
    const after = alter((text) => text.replaceAll('10000', '5000'))
    const { forward, backward } = compareVersions(base, after)
    expect([forward.verdict, backward.verdict]).toEqual(['review', 'compatible'])
  })

  test('a root struct that grew is noticed by its size, one that shrank is not', () => {
    const after = alter((text) => text.replace('"size":32,"align":1', '"size":40,"align":1'))
    const { forward, backward } = compareVersions(base, after)
    expect([forward.verdict, forward.outcome, forward.check?.id]).toEqual(['silent', 'panics', 'LUO_SIZE'])
    expect([backward.verdict, backward.outcome, backward.check]).toEqual(['silent', 'corrupts', undefined])
  })

  test.each([
    [
      'encoding',
      (text: string) =>
        text.replace(
          '"name":"sessions_pa","type":"u64","encoding":"le64"',
          '"name":"sessions_pa","type":"u64","encoding":"be64"',
        ),
    ],
    ['offset', (text: string) => text.replace('"offset":16,"size":8', '"offset":24,"size":8')],
  ])('another %s is a silent break', (aspect, change) => {
    const { forward, components } = compareVersions(base, alter(change))
    expect(forward.verdict).toBe('silent')
    expect(components[0]?.changes.some((one) => one.aspect === aspect)).toBe(true)
  })

  test('a flag with another value is misread, a new one is for people to judge', () => {
    const memfd = version('memfd-v2')
    const moved = JSON.parse(JSON.stringify(memfd).replace('"DIRTY":1', '"DIRTY":4')) as VersionDescription
    const added = JSON.parse(
      JSON.stringify(memfd).replace('"DIRTY":1', '"DIRTY":1,"HUGE":4'),
    ) as VersionDescription
    expect(compareVersions(memfd, moved).forward.verdict).toBe('silent')
    expect(compareVersions(memfd, added).forward.verdict).toBe('review')
  })

  test('bit fields of one word that changed places', () => {
    const memfd = version('memfd-v2')
    const text = JSON.stringify(memfd)
      .replace('"shift":0,"width":52', '"shift":12,"width":52')
      .replace('"shift":52,"width":12', '"shift":0,"width":12')
    const { forward, components } = compareVersions(memfd, JSON.parse(text))
    expect(forward.verdict).toBe('silent')
    expect(components[0]?.changes.map(({ where, aspect, after }) => `${where} ${aspect} ${after}`)).toEqual([
      'memfd_luo_folio_ser.pfn bits bits 12 to 63',
      'memfd_luo_folio_ser.flags bits bits 0 to 11',
    ])
  })
})

describe('stored documents', () => {
  const text = stableJson(document)
  const stored = () => {
    const parsed = parseStored(text)
    if (isStoredProblem(parsed)) throw new Error(parsed.problem)
    return structuredClone(parsed) as { versions: Record<string, VersionDescription> } & typeof parsed
  }

  test('freezing is stable', () => {
    expect(stableJson(describeAbi())).toBe(text)
    expect(stableJson(stored())).toBe(text)
  })

  test("today's against itself", () => {
    const { forward, backward, components } = compareDocuments(stored(), document, 'abi.json')
    expect([forward.verdict, backward.verdict, components]).toEqual(['identical', 'identical', []])
  })

  test('a version that was changed after it was frozen', () => {
    const old = stored()
    old.versions['memfd-v2'] = JSON.parse(
      JSON.stringify(old.versions['memfd-v2']).replace('"offset":20', '"offset":18'),
    )
    const { forward, components } = compareDocuments(old, document, 'abi.json')
    expect(forward.verdict).toBe('silent')
    expect(components.map(({ before }) => before)).toEqual(['memfd-v2'])
  })

  test.each([
    'KHO_ORDER_0_LOG2',
    'KHO_RADIX_KEY_WIDTH',
    'KHO_TABLE_SIZE_LOG2',
    'KHO_BITMAP_SIZE_LOG2',
    'KHO_TREE_MAX_DEPTH',
  ])('%s places bits, so that any other value is a silent break', (name) => {
    for (const difference of [1, -1]) {
      const old = stored()
      const today = version('kho-v4')
      const { is, value, ...limit } = today.limits[name] as LimitDescription
      expect(is).toBe('encoding')
      const sizes = PAGE_SIZES.map((size) => [size, forPage(value, size) + difference])
      const limits = { ...today.limits, [name]: { ...limit, value: Object.fromEntries(sizes) as PerPage } }
      old.versions['kho-v4'] = { ...today, limits }
      const { forward, backward } = compareDocuments(old, document, 'abi.json')
      expect([forward.verdict, forward.outcome]).toEqual(['silent', 'corrupts'])
      expect([backward.verdict, backward.outcome]).toEqual(['silent', 'corrupts'])
    }
  })

  test('a property that has another name is demanded by the name that the reader knows', () => {
    const old = stored()
    const text = JSON.stringify(version('kho-v4')).replaceAll('"preserved-memory-map"', '"mem-map"')
    old.versions['kho-v4'] = JSON.parse(text)
    const { forward, backward } = compareDocuments(old, document, 'abi.json')
    expect([forward.verdict, forward.outcome, forward.check?.id, forward.check?.by]).toEqual([
      'silent',
      'no-handover',
      'KHO_MAP_PROPERTY',
      'kho_populate()',
    ])
    const demanded = (place: string) =>
      `the layout differs and no version string says so: property ${place} is demanded and not there`
    expect(forward.reasons).toEqual([demanded('/:preserved-memory-map')])
    expect(backward.reasons).toEqual([demanded('/:mem-map'), 'no check notices'])
  })

  test('any document of the right shape can be compared and shown', () => {
    const tokens = [...text.matchAll(/"(?:[^"\\]|\\.)*"(?=[,\n])|-?\d+(?=[,\n])|true(?=[,\n])/g)]
    const other = fc.constantFrom(
      '0',
      '-1',
      '1e300',
      '""',
      '"/"',
      '"none"',
      '"struct"',
      '"le64"',
      'true',
      'false',
      '"*"',
    )
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(tokens.length - 1), other), { maxLength: 12 }), (edits) => {
        let edited = text
        for (const [index, replacement] of [...edits].sort(([a], [b]) => b - a)) {
          const { index: at, 0: token } = tokens[index] as RegExpMatchArray & { index: number }
          edited = `${edited.slice(0, at)}${replacement}${edited.slice(at + token.length)}`
        }
        const parsed = parseStored(edited)
        if (isStoredProblem(parsed)) return
        const compared = compareDocuments(parsed, document, 'abi.json')
        renderComparison(compared, noPaint)
        comparisonMarkdown(compared)
      }),
      { numRuns: 60 },
    )
  })

  test('a version of releases that are not known here', () => {
    const old = stored()
    const memfd = {
      ...version('memfd-v2'),
      releases: ['linux-9.9'],
      contract: { kind: 'string', value: 'memfd-v9' },
    }
    old.versions['memfd-v2'] = memfd as VersionDescription
    const { forward, backward } = compareDocuments(old, document, 'abi.json')
    expect([forward.verdict, backward.verdict]).toEqual(['incompatible', 'incompatible'])
  })

  test('a version that was dropped, and one that is new', () => {
    const old = stored()
    old.versions['kho-v9'] = { ...version('kho-v4'), id: 'kho-v9' }
    delete old.versions['kho-v4']
    const { forward, components } = compareDocuments(old, document, 'abi.json')
    expect(forward.verdict).toBe('incompatible')
    expect(components.map(({ before, after, forward: one }) => [before, after, one.verdict])).toEqual([
      [undefined, 'kho-v4', 'compatible'],
      ['kho-v9', undefined, 'incompatible'],
    ])
  })

  test('a version that is new cannot be taken over by who does not know it', () => {
    const old = stored()
    delete old.versions['luo-v5']
    const { forward, backward } = compareDocuments(old, document, 'abi.json')
    expect([forward.verdict, forward.reasons]).toEqual(['compatible', ['luo-v5 is new']])
    expect([backward.verdict, backward.reasons]).toEqual([
      'incompatible',
      ['luo-v5 is new', 'the stored ABI has no reader for luo-v5'],
    ])
  })

  test.each([
    ['', 'is no JSON'],
    ['[]', 'is no ABI document: the document: expected an object, found []'],
    ['{}', 'is no ABI document: schema: expected kho-inspect/abi@1, found nothing'],
    [
      text.replace('"kind": "string"', '"kind": "promise"'),
      'expected string or integer or composite or list or none, found "promise"',
    ],
    [
      text.replace('"offset": 16', '"offset": "16"'),
      'expected a number or one for each page size, found "16"',
    ],
    [text.replace('"kho-v2": {', '"__proto__": {'), 'versions: expected names, found "__proto__"'],
    [text.replace('"covers": "', '"covers": 7, "was": "'), 'expected a string, found 7'],
  ])('a document that is none: %#', (broken, why) => {
    const parsed = parseStored(broken)
    expect('problem' in parsed && parsed.problem.includes(why)).toBe(true)
  })
})

describe('as people read it', () => {
  test.each([
    ['linux-6.17', 'linux-6.18'],
    ['linux-6.19', 'linux-7.0'],
    ['linux-7.1', 'linux-7.2'],
    ['linux-7.2', 'linux-7.3'],
  ])('%s -> %s', async (before, after) => {
    const compared = compareReleases(document, release(before), release(after))
    await expect(renderComparison(compared, noPaint)).toMatchFileSnapshot(
      `expected/abi/diff-${before}-${after}.txt`,
    )
    await expect(comparisonMarkdown(compared)).toMatchFileSnapshot(`expected/abi/diff-${before}-${after}.md`)
  })

  test.each([
    ['kho-v3/rc', 'kho-v3'],
    ['memfd-v1', 'memfd-v2'],
    ['luo-v3', 'luo-v4'],
  ])('%s -> %s', async (before, after) => {
    const name = `${before}-${after}`.replaceAll('/', '-')
    await expect(renderComparison(compare(before, after), noPaint)).toMatchFileSnapshot(
      `expected/abi/diff-${name}.txt`,
    )
  })
})
