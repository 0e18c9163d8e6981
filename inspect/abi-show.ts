/** Views of the declared ABI: the list of versions, the releases that carry them, one version in full. */
import { appliesTo, type Check } from '../abi/check.ts'
import { checks } from '../abi/consumer.ts'
import type { PageSize } from '../abi/layout.ts'
import { formatContract } from '../abi/registry.ts'
import { symbolAt } from '../abi/symbols.ts'
import { contractPlace } from './abi-diff.ts'
import type { AbiDocument, MemberDescription, PartDescription, VersionDescription } from './abi-document.ts'
import { formatEdge } from './abi-edge.ts'
import { wire } from './abi-parts.ts'
import { byteRuler } from './byte-ruler.ts'
import type { Paint } from './paint.ts'
import { formatPerPage } from './per-page.ts'
import { alignedTable, type Column, type Row } from './table.ts'
import { printable } from './text.ts'

/** Every version: what it is called, where it says so, who carries it, where it is defined. */
export function renderList(document: AbiDocument, paint: Paint): string {
  const blocks = Object.entries(document.components).map(([name, { doc, versions, testOnly }]) => {
    const rows = versions.flatMap((id): readonly Row[] => {
      const version = document.versions[id]
      return version ? [[id, contractText(version), carriers(version), definedIn(version)]] : []
    })
    const note = testOnly ? ' Left by a test module only.' : ''
    return `${paint.title(name)}  ${doc}${note}\n${alignedTable(LIST_COLUMNS, rows, { paint })}`
  })
  return `${blocks.join('\n\n')}\n`
}

const LIST_COLUMNS: readonly Column[] = [
  { title: 'version', paint: 'key' },
  { title: 'says so by' },
  { title: 'releases' },
  { title: 'defined in', paint: 'dim' },
]

/** A contract and its place: `"kho-v4" in /:compatible`. */
export function contractText(version: VersionDescription): string {
  if (version.contract.kind === 'none') return formatContract(version.contract)
  return `"${formatContract(version.contract)}" in ${contractPlace(version)}`
}

/** `linux-7.1 to linux-7.3`, or why there are none. */
export function carriers({ releases, unreleased }: VersionDescription): string {
  if (unreleased !== undefined) return `never released: ${unreleased}`
  const [first, last] = [releases[0], releases.at(-1)]
  if (first === undefined) return 'every release'
  return first === last ? first : `${first} to ${last}`
}

/** Header and macro, as far as the kernel has them. */
export function definedIn(version: VersionDescription): string {
  const source = version.parts[version.root]?.source ?? 'unknown'
  const symbol = contractSymbol(version)
  return symbol === undefined ? source : `${source}: ${symbol}`
}

/** The kernel's macro for a version's contract. */
export function contractSymbol(version: VersionDescription): string | undefined {
  return symbolAt(version.component, checkedAt(version), 'contract')?.name
}

/** The place of a contract as checks and symbols name it. */
function checkedAt({ place, root }: VersionDescription): string {
  switch (place.kind) {
    case 'field':
      return `${root}.${place.field}`
    case 'referrer':
      return REFERRING_FIELD
    default:
      return root
  }
}

/** The one record that names what it points to. */
const REFERRING_FIELD = 'luo_file_ser.compatible'

/** Which release speaks which version of each component. */
export function renderReleases(document: AbiDocument, paint: Paint): string {
  const names = Object.keys(document.components).filter((name) =>
    document.releases.some(({ versions }) => versions[name] !== undefined),
  )
  const columns: readonly Column[] = [
    { title: 'release', paint: 'key' },
    { title: 'covers' },
    ...names.map((title): Column => ({ title })),
  ]
  const rows = document.releases.map(
    ({ name, covers, versions, unreleased }): Row => [
      name,
      unreleased ? `${covers}, no release` : covers,
      ...names.map((component) => versions[component] ?? '-'),
    ],
  )
  return `${alignedTable(columns, rows, { paint, indent: '' })}\n`
}

/** One version: contract, every part with its bytes, limits, and what its readers check. */
export function renderVersion(version: VersionDescription, pageSize: PageSize, paint: Paint): string {
  const head = [
    `${paint.title(printable(version.id))}  ${printable(version.parts[version.root]?.doc ?? '')}`,
    `  says so by  ${printable(contractText(version))}`,
    `  releases    ${printable(carriers(version))}`,
    `  defined in  ${printable(definedIn(version))}`,
  ].join('\n')
  const parts = Object.entries(version.parts).map(([key, part]) => renderPart(key, part, pageSize, paint))
  const limits = Object.entries(version.limits).map(
    ([name, { value, doc }]): Row => [name, formatPerPage(value), doc],
  )
  const made = checksOf(version).map(({ id, at, outcome, doc }): Row => [id, at, outcome, doc])
  return `${[
    head,
    ...parts,
    ...(limits.length > 0
      ? [`${paint.title('limits')}\n${alignedTable(LIMIT_COLUMNS, limits, { paint })}`]
      : []),
    ...(made.length > 0
      ? [`${paint.title('checks of the reader')}\n${alignedTable(CHECK_COLUMNS, made, { paint })}`]
      : []),
  ].join('\n\n')}\n`
}

const LIMIT_COLUMNS: readonly Column[] = [
  { title: 'name', paint: 'key' },
  { title: 'value', align: 'right', paint: 'number' },
  { title: 'of' },
]

const CHECK_COLUMNS: readonly Column[] = [
  { title: 'check', paint: 'key' },
  { title: 'at' },
  { title: 'else' },
  { title: 'what must hold' },
]

/** The checks that the version's own releases make at its parts; for one in no release, those of all. */
export function checksOf(version: VersionDescription): readonly Check[] {
  const own = checks.filter(({ component, at }) => component === version.component && concerns(version, at))
  if (version.releases.length === 0)
    return own.filter(
      (check, index) => own.findIndex(({ id, at }) => id === check.id && at === check.at) === index,
    )
  return own.filter((check) => version.releases.some((release) => appliesTo(check, release)))
}

function concerns({ parts, place }: VersionDescription, at: string): boolean {
  if (at === '' || (place.kind === 'referrer' && at === REFERRING_FIELD)) return true
  const [key, member] = at.startsWith('/') ? at.split(':') : at.split('.')
  const part = parts[key as string]
  return part !== undefined && (member === undefined || part.members.some(({ name }) => name === member))
}

/** One struct in every form that it has had, oldest first. */
export function renderStruct(
  tag: string,
  versions: readonly VersionDescription[],
  pageSize: PageSize,
  paint: Paint,
): string {
  const blocks = structForms(tag, versions).map(
    ({ part, versions: holders }) =>
      `${paint.dim(`in ${holders.join(', ')}`)}\n${renderPart(tag, part, pageSize, paint)}`,
  )
  return `${blocks.join('\n\n')}\n`
}

/** The different forms of a struct, with the versions that have each. */
export function structForms(
  tag: string,
  versions: readonly VersionDescription[],
): readonly { readonly part: PartDescription; readonly versions: readonly string[] }[] {
  const forms = new Map<string, { part: PartDescription; versions: string[] }>()
  for (const { id, parts } of versions) {
    const part = parts[tag]
    if (!part) continue
    const form = forms.get(wire(part)) ?? { part, versions: [] }
    form.versions.push(id)
    forms.set(wire(part), form)
  }
  return [...forms.values()]
}

function renderPart(key: string, part: PartDescription, pageSize: PageSize, paint: Paint): string {
  const rows = part.members.map(memberRow)
  if (part.kind === 'node') {
    const head = `${paint.title(`node ${printable(key)}`)}  ${printable(part.doc)}`
    const cells = rows.map(([, size, , type, name, text]): Row => [size, type, name, text])
    return cells.length > 0 ? `${head}\n${alignedTable(PROPERTY_COLUMNS, cells, { paint })}` : head
  }
  const packed = part.packed ? ' __packed' : ''
  const shared = part.shared ? sharedText(part.shared) : ''
  const head = `${paint.title(`struct ${printable(key)}`)}${packed}, ${formatPerPage(part.size ?? 0)} bytes  ${printable(part.doc)}${shared}`
  const bits = part.members.some((member) => member.bits !== undefined)
  const columns = bits ? FIELD_COLUMNS : FIELD_COLUMNS.filter(({ title }) => title !== 'bits')
  const cells = bits ? rows : rows.map((row) => row.filter((_, index) => index !== 2))
  return `${head}\n${byteRuler(part, pageSize, paint)}\n${alignedTable(columns, cells, { paint })}`
}

function sharedText({ since }: { readonly since?: string }): string {
  return ` (used by other components, guarded by this version${since === undefined ? '' : `; from ${since} on`})`
}

const FIELD_COLUMNS: readonly Column[] = [
  { title: 'offset', align: 'right', paint: 'number' },
  { title: 'size', align: 'right', paint: 'number' },
  { title: 'bits', align: 'right' },
  { title: 'type', paint: 'dim' },
  { title: 'field', paint: 'key' },
  { title: 'meaning' },
]

const PROPERTY_COLUMNS: readonly Column[] = [
  { title: 'length', align: 'right', paint: 'number' },
  { title: 'type', paint: 'dim' },
  { title: 'property', paint: 'key' },
  { title: 'meaning' },
]

type MemberRow = readonly [
  offset: string,
  size: string,
  bits: string,
  type: string,
  name: string,
  meaning: string,
]

/** Offset, size, bits, type, name and meaning of a field or property. */
export function memberRow(member: MemberDescription): MemberRow {
  const { name, type, offset, size, bits, encoding } = member
  return [
    offset === undefined ? '' : formatPerPage(offset),
    size === undefined ? 'any' : formatPerPage(size),
    bits ? `${bits.shift}-${bits.shift + bits.width - 1}` : '',
    encoding.startsWith('be') ? `${type} (big-endian)` : type,
    name,
    meaning(member),
  ]
}

/** The phrase of a member, its constants, and what it leads to. */
export function meaning({ doc, only, flags, leads, count }: MemberDescription): string {
  const parts = [doc]
  if (count !== undefined) parts.push(`${formatPerPage(count)} elements.`)
  if (only !== undefined) parts.push(`Always 0x${only.toString(16)}.`)
  if (flags)
    parts.push(
      `${Object.entries(flags)
        .map(([flag, mask]) => `0x${mask.toString(16)} ${flag}`)
        .join(', ')}.`,
    )
  if (leads) parts.push(`-> ${formatEdge(leads)}`)
  return parts.join(' ')
}
