/**
 * The format of scenario files: what a machine holds at the moment of the handover.
 *
 * Everything that the format allows by itself is said here, for the reader and for editors alike; what
 * depends on the release, the page size or on other parts of the scenario is checked where it is used.
 */

import { ARCHITECTURES } from '../abi/machine.ts'
import { components, releases } from '../abi/registry.ts'
import { content, copies, memfd, name, opaque, U32_MAX } from './scenario-file-schema.ts'
import {
  choice,
  type Definitions,
  defined,
  flag,
  type JsonSchema,
  list,
  meaning,
  named,
  needed,
  object,
  oneKeyOf,
  optional,
  orList,
  orShort,
  type Read,
  type Shape,
  text,
} from './scenario-shape.ts'
import { steps } from './scenario-steps.ts'
import { address, count, hexBytes, size, u64 } from './scenario-units.ts'

const file = oneKeyOf(
  object('a file', {
    token: needed(u64, "The user's name for the file, unique in its session."),
    memfd: optional(memfd, 'A memfd.'),
    opaque: optional(opaque, 'A file of a handler that is not known here.'),
    repeat: optional(copies, 'This many such files; tokens and seeds count up.'),
  }),
  ['memfd', 'opaque'],
)
export type ScenarioFile = Read<typeof file>

const session = object('a session', {
  name: needed(name, 'Name of at most 63 bytes; {n} stands for the number of a repeated session.'),
  files: optional(list(file, 'files'), 'In the order in which they were preserved.'),
  repeat: optional(copies, 'This many such sessions; {n} in the name and seeds count up.'),
})
export type ScenarioSession = Read<typeof session>

const flb = object('an FLB', {
  name: needed(name, 'Its version string, at most 47 bytes.'),
  data: needed(u64, 'Its handle.'),
  handlers: optional(
    list(text('a version string'), 'version strings'),
    'The file handlers that share it; all if left out. Each of their files counts once.',
  ),
  count: optional(u64, 'References, where they are not those of the files.'),
})
export type ScenarioFlb = Read<typeof flb>

const region = object('a range', {
  start: needed(address, 'Physical address of its first byte.'),
  size: needed(size, 'Bytes.'),
})

const ram = orShort(
  object('RAM', {
    start: optional(address, 'Where RAM starts; 0 on x86_64, 1 GiB on arm64 if left out.'),
    size: needed(size, 'Bytes from the start to the end, holes included.'),
    holes: optional(list(region, 'ranges'), 'Where there is none.'),
  }),
  size,
  (
    bytes,
  ): { readonly start?: bigint; readonly size: bigint; readonly holes?: readonly Read<typeof region>[] } => ({
    size: bytes,
  }),
)
export type ScenarioRam = Read<typeof ram>

const scratchArea = orShort(
  object('a scratch area', {
    start: optional(address, 'Where it is; chosen as the kernel does if left out.'),
    size: needed(size, 'Bytes.'),
  }),
  size,
  (bytes): { readonly start?: bigint; readonly size: bigint } => ({ size: bytes }),
)

const reserveMem = object('a reserve_mem region', {
  name: needed(text('a name'), 'Name of at most 15 bytes.'),
  size: needed(size, 'Bytes, a multiple of the page size.'),
  align: optional(size, 'Alignment of its start, a power of two; one page if left out.'),
  start: optional(address, 'Where it is; chosen as the kernel does if left out.'),
  content: optional(content, 'What it holds; zeros if left out.'),
})
export type ScenarioReserveMem = Read<typeof reserveMem>

const preserved = object('preserved memory', {
  start: optional(address, 'Where it is; chosen if left out.'),
  size: needed(size, 'Bytes of each piece, a multiple of the page size.'),
  count: optional(count(1, 1 << 24, 'a number'), 'How many pieces; one if left out.'),
  every: optional(size, 'Bytes from the start of one piece to the start of the next.'),
  content: optional(content, 'What it holds, from the first byte of the first piece on; zeros if left out.'),
})
export type ScenarioPreserved = Read<typeof preserved>

const propertyForms = object('a property', {
  u32: optional(count(0, U32_MAX), 'An integer of 32 bits, little-endian.'),
  u64: optional(u64, 'An integer of 64 bits, little-endian.'),
  hex: optional(hexBytes, 'Bytes.'),
  texts: optional(list(text(), 'strings'), 'A list of NUL-terminated strings.'),
})
const property = orShort(
  oneKeyOf(propertyForms, ['u32', 'u64', 'hex', 'texts']),
  text('a string'),
  (value): Read<typeof propertyForms> => ({ texts: [value] }),
)
export type ScenarioProperty = Read<typeof property>

export interface ScenarioNode {
  readonly properties?: ReadonlyMap<string, ScenarioProperty>
  readonly children?: ReadonlyMap<string, ScenarioNode>
}
const node: Shape<ScenarioNode> = defined('fdt-node', () =>
  object('a device tree node', {
    properties: optional(named(property, 'properties'), 'Strings, or { u32, u64, hex, texts }.'),
    children: optional(named(node, 'nodes'), 'The nodes below.'),
  }),
)

const subtree = oneKeyOf(
  object('a subtree', {
    name: needed(text('a name'), 'Name of its node in the root FDT.'),
    fdt: optional(node, 'The blob is an FDT.'),
    bytes: optional(content, 'The blob is bytes; from kho-v3 on.'),
  }),
  ['fdt', 'bytes'],
)
export type ScenarioSubtree = Read<typeof subtree>

export interface ScenarioKhoTest {
  readonly orders?: readonly number[]
  readonly seed?: bigint
  readonly off?: boolean
}
const khoTest = orShort(
  meaning(
    object("the kernel's KHO test", {
      orders: optional(list(count(0, 20, 'an order'), 'orders'), 'Orders of its folios.'),
      seed: optional(u64, 'Seed of what they hold.'),
    }),
    (value): ScenarioKhoTest => value,
  ),
  flag,
  (on): ScenarioKhoTest => ({ off: !on }),
)

const kexecMetadata = object('kexec-metadata', {
  previous_release: optional(text('a release'), 'utsname release of the kernel that hands over.'),
  count: optional(count(1, U32_MAX), 'Handovers since the last cold boot; 1 if left out.'),
})

/** Version ids of the components that a scenario chooses. */
const CHOSEN = ['kho', 'memblock', 'kexec-metadata', 'luo', 'memfd', 'kho-test'] as const
const versions = object(
  'versions',
  Object.fromEntries(
    components
      .filter(({ name: known }) => CHOSEN.some((chosen) => chosen === known))
      .map(({ name: known, doc, versions: all }) => [known, optional(choice(all.map(({ id }) => id)), doc)]),
  ),
)

export const scenarioShape = object('a scenario', {
  title: optional(text(), 'What this scenario shows, in one line.'),
  release: optional(
    text(`a release such as ${releases.at(-1)?.name}`, {
      examples: releases.map(({ name: known }) => known),
    }),
    'The Linux release whose format is written.',
  ),
  versions: optional(versions, "Versions of single components, instead of the release's."),
  arch: optional(choice(ARCHITECTURES), 'x86_64 if left out.'),
  page_size: optional(
    orList(size, 'page sizes'),
    '4 KiB if left out; a list names all that the scenario is good for.',
  ),
  ram: optional(ram, 'Memory of the machine.'),
  scratch: optional(
    list(scratchArea, 'scratch areas'),
    'One area in low memory, one for any use, one for each node; 16, 64 and 16 MiB if left out.',
  ),
  reserve_mem: optional(list(reserveMem, 'regions'), 'Regions of the reserve_mem= parameter.'),
  kexec_metadata: optional(kexecMetadata, 'What the old kernel says of itself. Linux 7.1 and later.'),
  liveupdate: optional(flag, 'Whether the old kernel ran with liveupdate=on; true if left out.'),
  liveupdate_number: optional(u64, 'Live updates since the last cold boot; 1 if left out.'),
  sessions: optional(list(session, 'sessions'), 'In the order in which they were created.'),
  flbs: optional(list(flb, 'FLBs'), 'Objects that files share. Linux 7.0 and later.'),
  liveupdate_test: optional(flag, 'The three FLBs of the kernel built with CONFIG_LIVEUPDATE_TEST.'),
  kho_test: optional(khoTest, "What the kernel's module test_kho leaves."),
  subtrees: optional(
    list(subtree, 'subtrees'),
    'What other subsystems leave, in the order in which they register.',
  ),
  preserved: optional(list(preserved, 'ranges'), 'Memory that is preserved besides.'),
  steps: optional(steps, 'What is done one after the other on a simulated machine: kho-inspect simulate.'),
})
export type Scenario = Read<typeof scenarioShape>

/** The format as JSON Schema, draft 2020-12. */
export function scenarioJsonSchema(): JsonSchema {
  const definitions: Definitions = new Map()
  const schema = scenarioShape.schema(definitions)
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Scenario of a Linux live-update handover (kho-inspect)',
    ...schema,
    $defs: Object.fromEntries(definitions),
  }
}
