/**
 * Handover documents as JSON text: laid out for people to edit, read back with the place of every mistake.
 *
 * docs/handover-document.md describes the format.
 */
import { MAX_FDT_DEPTH } from '../abi/fdt.ts'
import { PAGE_SIZES, type PageSize } from '../abi/layout.ts'
import { type Component, components, type ReleaseVersions, versionById } from '../abi/registry.ts'
import type { FdtStyle } from '../abi/schema.ts'
import type {
  FdtTree,
  HandoverDocument,
  MapChunk,
  PlacedContent,
  Preserved,
  RadixPage,
  RamRange,
  Root,
  Scratch,
  Subtree,
} from './handover.ts'
import { HANDOVER_SCHEMA } from './handover.ts'
import {
  address,
  type Codec,
  complain,
  count,
  hexBytes,
  isObject,
  type Json,
  list,
  type Member,
  nullable,
  object,
  oneOf,
  optional,
  order,
  required,
  size,
  text,
} from './json-codec.ts'
import { content } from './json-content.ts'
import { versionRecord } from './json-record.ts'
import { unitRuns } from './json-runs.ts'
import { printJson } from './json-text.ts'
import type { EncodeProblem } from './write.ts'

export interface ParsedDocument {
  /** Only if there are no problems. */
  readonly document?: HandoverDocument
  /** Paths are those of the JSON text. */
  readonly problems: readonly EncodeProblem[]
}

/** Reads a document from JSON text; a wrong one gives problems, never an exception. */
export function parseHandoverDocument(json: string): ParsedDocument {
  const problems: EncodeProblem[] = []
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (error) {
    return { problems: [{ path: '', message: `no JSON: ${(error as Error).message}` }] }
  }
  const codec = documentCodec(value, problems)
  const document = codec?.parse(value, [], problems)
  return document && problems.length === 0 ? { document, problems } : { problems }
}

/** The document as JSON text that parses to the same document, ending in a newline. */
export function formatHandoverDocument(document: HandoverDocument): string {
  return `${printJson(codecFor(document.page_size, document.versions).print(document))}\n`
}

/** Page size and versions decide what the rest may hold, so they are looked at first. */
function documentCodec(json: unknown, problems: EncodeProblem[]): Codec<HandoverDocument> | undefined {
  if (!isObject(json)) return complain(problems, [], 'expected an object')
  if (json.schema !== HANDOVER_SCHEMA) {
    return complain(
      problems,
      ['schema'],
      `expected "${HANDOVER_SCHEMA}", found ${JSON.stringify(json.schema)}`,
    )
  }
  const pageSize = oneOf(PAGE_SIZES).parse(json.page_size, ['page_size'], problems)
  const versions = versionsCodec.parse(json.versions, ['versions'], problems)
  return pageSize && versions && problems.length === 0 ? codecFor(pageSize, versions) : undefined
}

const versionsCodec = object<ReleaseVersions>(() =>
  Object.fromEntries(
    components.map(({ name, versions }) => [name, optional(oneOf(versions.map(({ id }) => id)))]),
  ),
)

function codecFor(pageSize: PageSize, versions: ReleaseVersions): Codec<HandoverDocument> {
  return object<HandoverDocument>({
    schema: required(oneOf([HANDOVER_SCHEMA])),
    page_size: required(oneOf(PAGE_SIZES)),
    arch: optional(oneOf(['x86_64', 'arm64'])),
    versions: required(versionsCodec),
    ram: optional(list(ramRange)),
    reserved: optional(list(ramRange)),
    scratch: optional(scratch),
    root: required(root),
    subtrees: required(list(subtree(pageSize, versions))),
    preserved: optional(nullable(preserved(pageSize))),
    contents: optional(list(placedContent)),
  })
}

const ramRange = object<RamRange>({ start: required(address), size: required(size) })

const scratch = object<Scratch>({
  at: optional(address),
  areas: required(list(object<Scratch['areas'][number]>({ addr: required(address), size: required(size) }))),
})

const root = object<Root>({
  at: optional(address),
  style: optional(oneOf<FdtStyle>(['sequential', 'edited'])),
  memory_map: optional(address),
  fdt_size: optional(size),
})

const placedContent = object<PlacedContent>({ at: required(address), content: required(content) })

/** A subtree holds the record of any component that is a subtree's, in the version that the document names. */
function subtree(pageSize: PageSize, versions: ReleaseVersions): Codec<Subtree> {
  const members: Record<string, Member> = {
    name: required(text),
    at: optional(address),
    size: optional(size),
    order: optional(order),
  }
  const options = { target: { pageSize }, versions }
  for (const component of components) {
    if (component.subtree === undefined) continue
    const version = versionById(versions[component.name] ?? '')
    members[component.key] = version ? optional(versionRecord(version, options)) : unversioned(component)
  }
  return object<Subtree>(() => ({ ...members, fdt: optional(fdtTree), bytes: optional(hexBytes) }))
}

function unversioned({ name, versions }: Component): Member {
  const known = versions.map(({ id }) => id).join(' or ')
  return optional<never>({
    parse: (_json, path, problems) => complain(problems, path, `versions.${name} must say ${known}`),
    print: () => null,
  })
}

const fdtNode: Codec<FdtTree> = object<FdtTree>(() => ({
  name: required(text),
  properties: required(
    list(object<FdtTree['properties'][number]>({ name: required(text), value: required(hexBytes) })),
  ),
  children: required(list(fdtTree)),
}))

/** As deep as a reader of the FDT would follow. */
const fdtTree: Codec<FdtTree> = {
  parse(json, path, problems) {
    const levels = path.filter((segment) => segment === 'children').length
    if (levels < MAX_FDT_DEPTH) return fdtNode.parse(json, path, problems)
    return complain(problems, path, `nested deeper than ${MAX_FDT_DEPTH} nodes`)
  },
  print: (tree) => fdtNode.print(tree),
}

function preserved(pageSize: PageSize): Codec<Preserved> {
  return object<Preserved>({
    units: optional(unitRuns(pageSize)),
    ranges: optional(list(ramRange)),
    chunks: optional(list(mapChunk)),
    nodes: optional(radixPages),
  })
}

const mapChunk = object<MapChunk>({
  at: optional(address),
  order: required(order),
  bitmaps: required(
    list(object<MapChunk['bitmaps'][number]>({ phys_start: required(address), at: optional(address) })),
  ),
  num_elms: optional(count()),
})

/** Pages of a radix tree: addresses by the indexes from the root down, `"2/0/0": "0x49f000"`; null: to be placed. */
const radixPages: Codec<readonly RadixPage[]> = {
  parse(json, path, problems) {
    if (!isObject(json)) return complain(problems, path, 'expected an object of addresses by path')
    return Object.entries(json).map(([key, value]) => {
      const inside = [...path, key]
      if (!/^(\d+(\/\d+)*)?$/.test(key)) complain(problems, inside, 'expected indexes joined by "/"')
      const indexes = key === '' ? [] : key.split('/').map(Number)
      const at = value === null ? undefined : address.parse(value, inside, problems)
      return at === undefined ? { path: indexes } : { path: indexes, at }
    })
  },
  print(pages) {
    const json: Record<string, Json> = {}
    for (const { path, at } of pages) json[path.join('/')] = at === undefined ? null : address.print(at)
    return json
  },
}
