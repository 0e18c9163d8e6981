/**
 * Scenarios that are refused, by cause. What the tool says of each stands in
 * test/expected/bad-scenarios.txt.
 */

export interface BadScenario {
  readonly cause: string
  readonly text: string
}

const session = (entry: string): string => `release: linux-7.3\nsessions:\n  - ${entry}\n`
const memfd = (fields: string, release = 'linux-7.3'): string =>
  `release: ${release}\nsessions:\n  - name: vm\n    files:\n      - token: 1\n        memfd: ${fields}\n`
const machine = (lines: string): string => `release: linux-7.3\n${lines}\n`

/** `count` lines of a list. */
function lines(count: number, line: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => `  - ${line(index)}`).join('\n')
}

export const badScenarios: readonly BadScenario[] = [
  // The text itself.
  { cause: 'broken YAML', text: 'release: linux-7.3\nsessions: [\n' },
  { cause: 'broken JSON', text: '{ "release": "linux-7.3", "ram": }' },
  { cause: 'a key twice', text: 'release: linux-7.3\nram: 1GiB\nram: 2GiB\n' },
  { cause: 'two documents', text: 'release: linux-7.3\n---\nrelease: linux-7.2\n' },
  { cause: 'an unknown tag', text: 'release: !version linux-7.3\n' },
  { cause: 'no map', text: '- release\n' },
  { cause: 'an empty text', text: '' },
  { cause: 'an unknown key with a typing error', text: machine('sesions: []') },
  { cause: 'an unknown key like no other', text: machine('hypervisor: kvm') },
  { cause: 'a key that is no text', text: machine('7: x') },
  { cause: 'an unknown key deep inside', text: memfd('{ siez: 4096 }') },
  { cause: 'a list where a map belongs', text: machine('kexec_metadata: [1]') },
  { cause: 'nothing where a list belongs', text: machine('sessions:') },
  { cause: 'a number where a name belongs', text: session('name: 5') },
  { cause: 'a missing key', text: session('files: []') },
  // Release and versions.
  { cause: 'an unknown release', text: 'release: linux-8.0\n' },
  { cause: 'a mistyped release', text: 'release: linx-7.3\n' },
  { cause: 'versions without kho', text: 'versions: { luo: luo-v5 }\n' },
  { cause: 'an unknown version', text: 'versions: { kho: kho-v9 }\n' },
  { cause: 'versions that never met', text: 'versions: { kho: kho-v1/bitmap-page, luo: luo-v5 }\n' },
  {
    cause: 'a version that never met the release',
    text: 'release: linux-7.3\nversions: { memfd: memfd-v1 }\n',
  },
  { cause: 'an unknown architecture', text: machine('arch: riscv64') },
  { cause: 'a page size that is none', text: machine('page_size: 8KiB') },
  { cause: 'a page size of another architecture', text: machine('page_size: 64KiB') },
  // Numbers.
  { cause: 'a decimal unit', text: machine('ram: 512MB') },
  { cause: 'no unit at all', text: machine('ram: 512 sheep') },
  { cause: 'a fraction', text: machine('ram: 1.5GiB') },
  { cause: 'a fraction without a unit', text: machine('ram: 0.5') },
  { cause: 'a negative size', text: machine('ram: -4096') },
  { cause: 'more than 64 bits', text: machine('ram: 18446744073709551616') },
  { cause: 'more than 64 bits with a unit', text: machine('ram: 16E') },
  {
    cause: 'a token of more than 64 bits',
    text: session('{ name: a, files: [{ token: 0x10000000000000000, memfd: {} }] }'),
  },
  { cause: 'a count that is too large', text: machine('kexec_metadata: { count: 4294967296 }') },
  // RAM and what stands in it.
  { cause: 'RAM that ends inside of a page', text: machine('ram: 1000001') },
  { cause: 'RAM beyond 64 bits', text: machine('ram: { start: 0xfffffffffffff000, size: 8KiB }') },
  {
    cause: 'a hole outside of RAM',
    text: machine('ram: { size: 1GiB, holes: [{ start: 2GiB, size: 4KiB }] }'),
  },
  {
    cause: 'holes that overlap',
    text: machine(
      'ram: { size: 1GiB, holes: [{ start: 0x100000, size: 8KiB }, { start: 0x101000, size: 8KiB }] }',
    ),
  },
  { cause: 'RAM too small for scratch', text: machine('ram: 64MiB') },
  { cause: 'low memory too small', text: machine('ram: { start: 4GiB, size: 1GiB }') },
  { cause: 'too few scratch areas', text: machine('scratch: [64MiB]') },
  { cause: 'a scratch area of no size', text: machine('scratch: [16MiB, 0, 16MiB]') },
  {
    cause: 'a scratch area that is not aligned as 7.3 aligns',
    text: machine('scratch: [{ start: 0x10200000, size: 4MiB }, 4MiB, 4MiB]'),
  },
  {
    cause: 'a scratch area that is not aligned as 6.19 aligns',
    text: 'release: linux-6.19\nscratch: [{ start: 0x10100000, size: 4MiB }, 4MiB, 4MiB]\n',
  },
  {
    cause: 'scratch areas that overlap',
    text: machine('scratch: [{ start: 256MiB, size: 16MiB }, { start: 264MiB, size: 16MiB }, 4MiB]'),
  },
  {
    cause: 'a region in a scratch area',
    text: machine(
      'scratch: [{ start: 256MiB, size: 16MiB }, 4MiB, 4MiB]\nreserve_mem:\n  - { name: trace, start: 260MiB, size: 1MiB }',
    ),
  },
  {
    cause: 'a region in a hole',
    text: machine(
      'ram: { size: 1GiB, holes: [{ start: 512MiB, size: 1MiB }] }\nreserve_mem:\n  - { name: trace, start: 512MiB, size: 1MiB }',
    ),
  },
  {
    cause: 'a region outside of RAM',
    text: machine('reserve_mem:\n  - { name: trace, start: 4GiB, size: 1MiB }'),
  },
  {
    cause: 'preserved memory in a region',
    text: machine(
      'reserve_mem:\n  - { name: trace, start: 256MiB, size: 1MiB }\npreserved:\n  - { start: 0x100ff000, size: 8KiB }',
    ),
  },
  { cause: 'preserved memory of half a page', text: machine('preserved:\n  - { size: 6KiB }') },
  {
    cause: 'preserved pieces over each other',
    text: machine('preserved:\n  - { size: 8KiB, count: 2, every: 4KiB }'),
  },
  { cause: 'preserved memory larger than RAM', text: machine('preserved:\n  - { size: 4GiB }') },
  // reserve_mem.
  {
    cause: 'a region name of 16 bytes',
    text: machine('reserve_mem:\n  - { name: sixteen-bytes-00, size: 4KiB }'),
  },
  { cause: 'a region name of white space', text: machine('reserve_mem:\n  - { name: " ", size: 4KiB }') },
  {
    cause: 'two regions of one name',
    text: machine('reserve_mem:\n  - { name: a, size: 4KiB }\n  - { name: a, size: 8KiB }'),
  },
  {
    cause: 'nine regions',
    text: machine(`reserve_mem:\n${lines(9, (index) => `{ name: r${index}, size: 4KiB }`)}`),
  },
  { cause: 'a region with a tail', text: machine('reserve_mem:\n  - { name: a, size: 5000 }') },
  {
    cause: 'an alignment that is no power of two',
    text: machine('reserve_mem:\n  - { name: a, size: 4KiB, align: 12KiB }'),
  },
  {
    cause: 'a region that is not aligned',
    text: machine('reserve_mem:\n  - { name: a, size: 4KiB, align: 64KiB, start: 0x10001000 }'),
  },
  {
    cause: 'contents larger than their region',
    text: machine('reserve_mem:\n  - { name: a, size: 4KiB, content: { byte: 1, length: 5000 } }'),
  },
  // Sessions.
  { cause: 'sessions before 6.19', text: 'release: linux-6.18\nsessions: [{ name: a }]\n' },
  { cause: 'a session name of 64 bytes', text: session(`name: ${'n'.repeat(64)}`) },
  { cause: 'a session name of 64 bytes in 32 letters', text: session(`name: ${'ä'.repeat(32)}`) },
  { cause: 'an empty session name', text: session('name: ""') },
  { cause: 'NUL in a session name', text: session('name: "a\\0b"') },
  { cause: 'two sessions of one name', text: session('name: a\n  - name: b\n  - name: a') },
  { cause: 'two sessions of one name in bytes', text: session('name: a\n  - name: { hex: "61" }') },
  { cause: 'copies of a session with one name', text: session('name: a\n    repeat: 3') },
  { cause: 'a repetition that is none', text: session('name: "{n}"\n    repeat: fulll') },
  {
    cause: 'more sessions than 7.1 holds',
    text: 'release: linux-7.1\nsessions:\n  - { name: "s{n}", repeat: 820 }\n',
  },
  { cause: 'more sessions than 7.3 holds', text: session('{ name: "s{n}", repeat: 510001 }') },
  {
    cause: 'a second block in 7.1',
    text: 'release: linux-7.1\nsessions:\n  - { name: "s{n}", repeat: full + 1 }\n',
  },
  { cause: 'sessions while live update is off', text: `liveupdate: false\n${session('name: a')}` },
  // Files.
  { cause: 'a file that is nothing', text: session('{ name: a, files: [{ token: 1 }] }') },
  {
    cause: 'a file that is two things',
    text: session('{ name: a, files: [{ token: 1, memfd: {}, opaque: { compatible: x, data: 0 } }] }'),
  },
  {
    cause: 'two files of one token',
    text: session('{ name: a, files: [{ token: 0x10, memfd: {} }, { token: 16, memfd: {} }] }'),
  },
  {
    cause: 'tokens that count up into another',
    text: session('{ name: a, files: [{ token: 1, memfd: {}, repeat: 5 }, { token: 3, memfd: {} }] }'),
  },
  {
    cause: 'tokens that count up beyond 64 bits',
    text: session('{ name: a, files: [{ token: 0xffffffffffffffff, memfd: {}, repeat: 2 }] }'),
  },
  {
    cause: 'more files than 6.19 holds',
    text: 'release: linux-6.19\nsessions:\n  - name: a\n    files: [{ token: 1, memfd: {}, repeat: 129 }]\n',
  },
  {
    cause: 'more files than 7.1 holds with 16 KiB pages',
    text: 'release: linux-7.1\narch: arm64\npage_size: 16KiB\nsessions:\n  - name: a\n    files: [{ token: 1, memfd: {}, repeat: 513 }]\n',
  },
  {
    cause: 'more files than 7.3 holds',
    text: session('{ name: a, files: [{ token: 1, opaque: { compatible: x, data: 0 }, repeat: 630001 }] }'),
  },
  {
    cause: 'a version string of 48 bytes',
    text: session(`{ name: a, files: [{ token: 1, opaque: { compatible: ${'c'.repeat(48)}, data: 0 } }] }`),
  },
  {
    cause: 'a memfd as an opaque file',
    text: session('{ name: a, files: [{ token: 1, opaque: { compatible: memfd-v2, data: 0 } }] }'),
  },
  // memfds.
  { cause: 'seals in 6.19', text: memfd('{ seals: [shrink] }', 'linux-6.19') },
  { cause: 'an unknown seal', text: memfd('{ seals: [shrnk] }') },
  { cause: 'a position beyond 2^63', text: memfd('{ position: 0x8000000000000000 }') },
  { cause: 'a file of more pages than UINT_MAX', text: memfd('{ size: 16TiB }') },
  { cause: 'more folio records than are written', text: `ram: 1TiB\n${memfd('{ size: 512GiB }')}` },
  { cause: 'a memfd that does not fit RAM', text: memfd('{ size: 1GiB }') },
  {
    cause: 'folios that do not fit RAM',
    text: `ram: { size: 160MiB }\n${memfd('{ size: 64MiB, order: 9 }')}`,
  },
  { cause: 'an order beyond the page cache', text: memfd('{ size: 64MiB, order: 10 }') },
  { cause: 'an order and folios', text: memfd('{ size: 8KiB, order: 1, folios: [{ order: 0 }] }') },
  {
    cause: 'a folio that is not aligned in its file',
    text: memfd('{ folios: [{ count: 1 }, { order: 2, count: 1 }] }'),
  },
  {
    cause: 'folios that end before the file',
    text: memfd('{ size: 40KiB, folios: [{ order: 1, count: 2 }] }'),
  },
  { cause: 'folios that end behind the file', text: memfd('{ size: 8KiB, folios: [{ count: 3 }] }') },
  {
    cause: 'folios behind the end of the file',
    text: memfd('{ size: 4KiB, folios: [{ count: 1 }, { hole: 1 }] }'),
  },
  { cause: 'a hole with an order', text: memfd('{ size: 4KiB, folios: [{ hole: 1, order: 2 }] }') },
  { cause: 'contents larger than their file', text: memfd('{ size: 4, content: { text: hello } }') },
  { cause: 'contents that start behind the end', text: memfd('{ size: 4, content: { at: 5, byte: 1 } }') },
  { cause: 'two kinds of contents', text: memfd('{ content: { text: a, hex: "61" } }') },
  { cause: 'no kind of contents', text: memfd('{ content: { at: 5 } }') },
  { cause: 'a pattern without a length', text: memfd('{ content: { pattern: 1 } }') },
  {
    cause: 'a pattern that starts at every 0 bytes',
    text: memfd('{ size: 4KiB, content: { pattern: { seed: 1, every: 0 } } }'),
  },
  { cause: 'a length of a text', text: memfd('{ content: { text: abc, length: 5 } }') },
  { cause: 'half a byte of hex', text: memfd('{ content: { hex: "123" } }') },
  { cause: 'hex without quotes', text: memfd('{ content: { hex: 12345678 } }') },
  { cause: 'a file that is not there', text: memfd('{ content: { file: no-such-file.bin } }') },
  // FLBs.
  { cause: 'FLBs in 6.19', text: 'release: linux-6.19\nflbs: [{ name: a, data: 1, count: 1 }]\n' },
  { cause: 'the test FLBs in 6.19', text: 'release: linux-6.19\nliveupdate_test: true\n' },
  { cause: 'an FLB that no file refers to', text: machine('flbs: [{ name: a, data: 1 }]') },
  {
    cause: 'an FLB of another handler',
    text: `flbs: [{ name: a, data: 1, handlers: [vfio-v1] }]\n${memfd('{}')}`,
  },
  {
    cause: 'an FLB name of 48 bytes',
    text: machine(`flbs: [{ name: ${'f'.repeat(48)}, data: 1, count: 1 }]`),
  },
  {
    cause: 'two FLBs of one name',
    text: machine('flbs: [{ name: a, data: 1, count: 1 }, { name: a, data: 2, count: 1 }]'),
  },
  {
    cause: '64 FLBs',
    text: machine(`flbs:\n${lines(64, (index) => `{ name: f${index}, data: ${index}, count: 1 }`)}`),
  },
  // Other subtrees.
  { cause: 'kexec-metadata in 6.19', text: 'release: linux-6.19\nkexec_metadata: { count: 2 }\n' },
  {
    cause: 'a release of 65 bytes',
    text: machine(`kexec_metadata: { previous_release: ${'7'.repeat(64)}x }`),
  },
  { cause: 'the KHO test in 6.16', text: 'release: linux-6.16\nkho_test: true\n' },
  { cause: 'an order beyond the page allocator', text: machine('kho_test: { orders: [0, 11] }') },
  {
    cause: 'bytes where a blob is an FDT',
    text: 'release: linux-6.19\nsubtrees: [{ name: a, bytes: { text: b } }]\n',
  },
  { cause: 'a subtree of a known name', text: machine('subtrees: [{ name: LUO, bytes: { text: b } }]') },
  {
    cause: 'two subtrees of one name',
    text: machine('subtrees: [{ name: a, bytes: { text: b } }, { name: a, fdt: {} }]'),
  },
  { cause: 'a slash in a subtree name', text: machine('subtrees: [{ name: a/b, fdt: {} }]') },
  { cause: 'a blob without bytes', text: machine('subtrees: [{ name: a, bytes: { text: "" } }]') },
  {
    cause: 'a blob larger than a unit',
    text: machine('subtrees: [{ name: a, bytes: { byte: 1, length: 5MiB } }]'),
  },
  {
    cause: 'an FDT larger than a page',
    text: machine(`subtrees: [{ name: a, fdt: { properties: { p: { texts: [${'x'.repeat(5000)}] } } } }]`),
  },
  {
    cause: 'more subtrees than the root FDT holds',
    text: machine(`subtrees:\n${lines(80, (index) => `{ name: s${index}, fdt: {} }`)}`),
  },
  {
    cause: 'a property that is a number',
    text: machine('subtrees: [{ name: a, fdt: { properties: { p: 5 } } }]'),
  },
]
