/**
 * The differences between two descriptions of one component: what was added, removed, moved, resized,
 * renamed or changed, how each is classed, and what it does to a reader.
 *
 * The comparison knows no version by name. It sees parts, members, edges, limits and contracts, and
 * which version strings guard a part; everything else, such as a silent break, follows from these.
 */
import type { PageSize } from '../abi/layout.ts'
import { PAGE_SIZES } from '../abi/layout.ts'
import { formatContract } from '../abi/registry.ts'
import { accepts } from './abi-contract.ts'
import type { MemberDescription, PartDescription, VersionDescription } from './abi-document.ts'
import { type EdgeDescription, formatEdge } from './abi-edge.ts'
import { formatPerPage, forPage, type PerPage } from './per-page.ts'

/** Layout: the bytes. Meaning: what they say. Contract: the version that guards them. Limit: how much. */
export type ChangeClass = 'layout' | 'meaning' | 'contract' | 'limit'
export type ChangeKind = 'added' | 'removed' | 'moved' | 'resized' | 'renamed' | 'changed'

/** What a change does to a kernel that reads what one of the other form wrote. */
export type Impact =
  | 'none'
  /** There is more than it looks for; it stays unread. */
  | 'unread'
  /** The bytes are the same, their meaning may not be. */
  | 'review'
  /** Something that it demands is not there. */
  | 'missing'
  /** It takes bytes for something else. */
  | 'misread'
  /** A version string keeps it from reading. */
  | 'refused'

export interface Change {
  readonly class: ChangeClass
  readonly kind: ChangeKind
  /** Part, `struct.field`, `node:property`, or a limit's name. */
  readonly where: string
  /** The part that it belongs to; none for contracts of the whole and limits. */
  readonly part?: string
  /** What of it: offset, size, encoding, pointer's target … */
  readonly aspect: string
  readonly before?: string
  readonly after?: string
  /** Bytes before and after, where the length is what changed. */
  readonly lengths?: readonly [PerPage | undefined, PerPage | undefined]
  /** Page sizes at which the two differ. */
  readonly pageSizes: readonly PageSize[]
  /** Nodes whose version string speaks for this part, besides the contract of the whole. */
  readonly guards: readonly string[]
  /** For the newer form reading the older one, and the reverse. */
  readonly forward: Impact
  readonly backward: Impact
}

/** Lists what changed from one version of a component to another. */
export function diffVersions(before: VersionDescription, after: VersionDescription): readonly Change[] {
  return [
    ...diffContracts(before, after),
    ...diffRoots(before, after),
    ...diffParts(before, after),
    ...diffLimits(before, after),
  ]
}

type Both<T> = readonly [before: T, after: T]

function change(
  fields: Partial<Change> & Pick<Change, 'class' | 'kind' | 'where'>,
  impact: Impact | Both<Impact> = 'none',
): Change {
  const [forward, backward] = typeof impact === 'string' ? ([impact, impact] as const) : impact
  return { aspect: '', guards: [], pageSizes: PAGE_SIZES, forward, backward, ...fields }
}

function diffContracts(before: VersionDescription, after: VersionDescription): readonly Change[] {
  const [older, newer] = [formatContract(before.contract), formatContract(after.contract)]
  const own = older === newer && before.contract.kind === after.contract.kind
  const nested = Object.keys(before.parts).flatMap((path) => {
    const [was, is] = [before.parts[path]?.compatible, after.parts[path]?.compatible]
    if (path === after.root || was === undefined || is === undefined || was === is) return []
    const where = `${path}:compatible`
    return [
      change(
        {
          class: 'contract',
          kind: 'changed',
          where,
          part: path,
          guards: [path],
          before: was,
          after: is,
          aspect: 'version string',
        },
        'refused',
      ),
    ]
  })
  if (own) return nested
  const impact: Both<Impact> = [
    accepts(after.contract, before.contract) ? 'none' : 'refused',
    accepts(before.contract, after.contract) ? 'none' : 'refused',
  ]
  const where = contractPlace(after)
  const changed = { class: 'contract', kind: 'changed', where, before: older, after: newer } as const
  return [change({ ...changed, aspect: 'version' }, impact), ...nested]
}

/** Where a version says which it is. */
export function contractPlace({ place, root }: VersionDescription): string {
  switch (place.kind) {
    case 'fdt-compatible':
      return `${root}:compatible`
    case 'field':
      return `${root}.${place.field}`
    case 'referrer':
      return 'the record that points to it'
    case 'none':
      return 'nowhere'
  }
}

function diffRoots(before: VersionDescription, after: VersionDescription): readonly Change[] {
  if (before.root === after.root) return []
  const changed = { class: 'layout', kind: 'changed', where: 'root', aspect: 'form' } as const
  return [change({ ...changed, before: formOf(before), after: formOf(after) }, 'misread')]
}

function formOf({ root, parts }: VersionDescription): string {
  return parts[root]?.kind === 'node' ? 'device tree' : `struct ${root}`
}

function diffParts(before: VersionDescription, after: VersionDescription): readonly Change[] {
  const keys = [...new Set([...Object.keys(before.parts), ...Object.keys(after.parts)])]
  return keys.flatMap((key) => {
    const [older, newer] = [before.parts[key], after.parts[key]]
    if (older && newer) return diffPart(key, older, newer)
    return [
      newer ? arrival(key, newer, before, 'added') : arrival(key, older as PartDescription, after, 'removed'),
    ]
  })
}

/**
 * A part that only one side has. A node is demanded by the reader that knows it, if its parent is there;
 * a struct is reached through an edge, whose own change says what that means.
 */
function arrival(
  key: string,
  part: PartDescription,
  without: VersionDescription,
  kind: 'added' | 'removed',
): Change {
  const named = part.kind === 'node' && !key.endsWith('*')
  const parent = part.kind === 'node' ? without.parts[key.slice(0, key.lastIndexOf('/')) || '/'] : undefined
  const impacts: Both<Impact> = [named ? 'missing' : 'none', 'unread']
  return change(
    {
      class: part.shared ? 'contract' : 'layout',
      kind,
      where: key,
      part: key,
      aspect: part.kind,
      guards: parent?.guards ?? [],
      ...(part.size === undefined ? {} : { [kind === 'added' ? 'after' : 'before']: bytes(part.size) }),
    },
    !parent ? 'none' : kind === 'added' ? impacts : ([impacts[1], impacts[0]] as const),
  )
}

function diffPart(key: string, before: PartDescription, after: PartDescription): readonly Change[] {
  const base = { part: key, guards: after.guards, where: key }
  const changes: Change[] = []
  if (before.packed !== after.packed && before.packed !== undefined && after.packed !== undefined) {
    const [older, newer] = [before.packed ? '__packed' : 'natural', after.packed ? '__packed' : 'natural']
    changes.push(
      change(
        { ...base, class: 'layout', kind: 'changed', aspect: 'alignment', before: older, after: newer },
        'review',
      ),
    )
  }
  changes.push(...lengthChange(base, before.size, after.size))
  const paired = pairMembers(before, after)
  for (const [older, newer] of paired) changes.push(...diffMember(key, [before, after], older, newer))
  return changes
}

type Base = Pick<Change, 'part' | 'guards' | 'where'>

function lengthChange(
  base: Base,
  before: PerPage | undefined,
  after: PerPage | undefined,
): readonly Change[] {
  const pageSizes = differing(before, after)
  if (pageSizes.length === 0) return []
  const described = { class: 'layout', kind: 'resized', aspect: 'size', lengths: [before, after] } as const
  return [change({ ...base, ...described, before: bytes(before), after: bytes(after), pageSizes }, 'misread')]
}

/** Members of the same name; where none is left on one side, those at the same place and of one type are renamed. */
function pairMembers(
  before: PartDescription,
  after: PartDescription,
): readonly (readonly [MemberDescription | undefined, MemberDescription | undefined])[] {
  const newer = new Map(after.members.map((member) => [member.name, member]))
  const kept = new Set(before.members.map(({ name }) => name))
  const arrived = after.members.filter(({ name }) => !kept.has(name))
  const pairs = before.members.map((older): [MemberDescription, MemberDescription | undefined] => {
    const same = newer.get(older.name) ?? arrived.find((candidate) => samePlace(older, candidate))
    return [older, same]
  })
  const taken = new Set(pairs.map(([, member]) => member))
  return [
    ...pairs,
    ...arrived.filter((member) => !taken.has(member)).map((member) => [undefined, member] as const),
  ]
}

/** A struct's field at the same bytes, or a node's property that leads to the same kind of thing. */
function samePlace(a: MemberDescription, b: MemberDescription): boolean {
  const alike = a.encoding === b.encoding && a.type === b.type
  if (!alike || differing(a.size, b.size).length > 0) return false
  if (a.offset === undefined) return a.leads !== undefined && a.leads.kind === b.leads?.kind
  const sameBits = a.bits?.shift === b.bits?.shift && a.bits?.width === b.bits?.width
  return b.offset !== undefined && differing(a.offset, b.offset).length === 0 && sameBits
}

function diffMember(
  key: string,
  [partBefore, partAfter]: Both<PartDescription>,
  before: MemberDescription | undefined,
  after: MemberDescription | undefined,
): readonly Change[] {
  const inNode = partAfter.kind === 'node'
  const where = `${key}${inNode ? ':' : '.'}${(before ?? (after as MemberDescription)).name}`
  const base = { part: key, guards: partAfter.guards, where }
  if (before?.encoding === 'string' && after?.encoding === 'string') return []
  if (!before || !after) {
    const member = before ?? (after as MemberDescription)
    const kind = before ? 'removed' : 'added'
    const impact: Impact | Both<Impact> = !inNode
      ? 'misread'
      : before
        ? ['none', 'missing']
        : ['missing', 'none']
    const text = placeText(member, before ? partBefore : partAfter)
    return [
      change(
        {
          ...base,
          class: 'layout',
          kind,
          aspect: inNode ? 'property' : 'field',
          [before ? 'before' : 'after']: text,
        },
        impact,
      ),
    ]
  }
  return [
    ...renaming(base, inNode, before, after),
    ...moving(base, before, after),
    ...encodingChange(base, before, after),
    ...lengthChange(base, before.size, after.size),
    ...bitsChange(base, before, after),
    ...edgeChanges(base, before.leads, after.leads),
    ...meaningChanges(base, before, after),
  ]
}

function placeText(member: MemberDescription, part: PartDescription): string {
  const at = member.offset === undefined ? '' : ` at ${formatPerPage(member.offset)}`
  return `${member.type}${part.kind === 'node' ? '' : at}`
}

/** A field's name is not on the wire, a property's is. */
function renaming(
  base: Base,
  inNode: boolean,
  before: MemberDescription,
  after: MemberDescription,
): readonly Change[] {
  if (before.name === after.name) return []
  const renamed = {
    ...base,
    kind: 'renamed',
    aspect: 'name',
    before: before.name,
    after: after.name,
  } as const
  return [change({ ...renamed, class: inNode ? 'layout' : 'meaning' }, inNode ? 'missing' : 'review')]
}

function moving(base: Base, before: MemberDescription, after: MemberDescription): readonly Change[] {
  const pageSizes = differing(before.offset, after.offset)
  if (pageSizes.length === 0) return []
  const texts = {
    before: formatPerPage(before.offset ?? 0),
    after: formatPerPage(after.offset ?? 0),
  }
  return [
    change({ ...base, class: 'layout', kind: 'moved', aspect: 'offset', ...texts, pageSizes }, 'misread'),
  ]
}

function encodingChange(base: Base, before: MemberDescription, after: MemberDescription): readonly Change[] {
  if (before.encoding === after.encoding && before.part === after.part) return []
  const texts = { before: encodingText(before), after: encodingText(after) }
  const lengths = [before.size, after.size] as const
  return [
    change({ ...base, class: 'layout', kind: 'changed', aspect: 'encoding', ...texts, lengths }, 'misread'),
  ]
}

function encodingText({ encoding, part }: MemberDescription): string {
  return part === undefined ? encoding : encoding.replace('struct', `struct ${part}`)
}

function bitsChange(base: Base, before: MemberDescription, after: MemberDescription): readonly Change[] {
  const [older, newer] = [bitsText(before), bitsText(after)]
  if (older === newer) return []
  const changed = {
    ...base,
    class: 'layout',
    kind: 'moved',
    aspect: 'bits',
    before: older,
    after: newer,
  } as const
  return [change(changed, 'misread')]
}

function bitsText({ bits }: MemberDescription): string {
  return bits ? `bits ${bits.shift} to ${bits.shift + bits.width - 1}` : 'whole word'
}

/** What a pointer leads to; how far a chain may reach is a limit, which field counts is meaning. */
function edgeChanges(
  base: Base,
  before: EdgeDescription | undefined,
  after: EdgeDescription | undefined,
): readonly Change[] {
  if (before === undefined && after === undefined) return []
  const target = { ...base, kind: 'changed', aspect: "pointer's target" } as const
  const texts = {
    before: before ? formatEdge(before) : 'nothing declared',
    after: after ? formatEdge(after) : 'nothing declared',
  }
  if (!before || !after) return [change({ ...target, ...texts, class: 'meaning' }, 'review')]
  const pageSizes = PAGE_SIZES.filter((size) => shapeAt(before, size) !== shapeAt(after, size))
  if (pageSizes.length > 0) return [change({ ...target, ...texts, class: 'layout', pageSizes }, 'misread')]
  if (before.by !== after.by) {
    const by = { aspect: 'counted by', before: before.by ?? 'nothing', after: after.by ?? 'nothing' }
    return [change({ ...base, ...by, class: 'meaning', kind: 'changed' }, 'review')]
  }
  return []
}

function shapeAt({ kind, to, pages, capacity, depth }: EdgeDescription, pageSize: PageSize): string {
  const at = (value: PerPage | undefined): number => (value === undefined ? 0 : forPage(value, pageSize))
  return JSON.stringify([kind, to, pages, at(capacity), at(depth)])
}

/** Constants that a member may hold: the only value, and named flags. */
function meaningChanges(base: Base, before: MemberDescription, after: MemberDescription): readonly Change[] {
  const changes: Change[] = []
  if (before.only !== after.only) {
    const texts = { before: constant(before.only), after: constant(after.only) }
    changes.push(
      change({ ...base, class: 'meaning', kind: 'changed', aspect: 'constant', ...texts }, 'misread'),
    )
  }
  const [older, newer] = [before.flags ?? {}, after.flags ?? {}]
  for (const name of new Set([...Object.keys(older), ...Object.keys(newer)])) {
    const [was, is] = [older[name], newer[name]]
    if (was === is) continue
    const kind = was === undefined ? 'added' : is === undefined ? 'removed' : 'changed'
    const texts = {
      ...(was === undefined ? {} : { before: constant(was) }),
      ...(is === undefined ? {} : { after: constant(is) }),
    }
    const flag = { ...base, class: 'meaning', kind, aspect: `flag ${name}`, ...texts } as const
    changes.push(change(flag, kind === 'changed' ? 'misread' : 'review'))
  }
  return changes
}

function constant(value: number | undefined): string {
  return value === undefined ? 'any value' : `0x${value.toString(16)}`
}

/** A reader with the smaller maximum may meet more than it takes; what places bits must be the same. */
function diffLimits(before: VersionDescription, after: VersionDescription): readonly Change[] {
  const names = new Set([...Object.keys(before.limits), ...Object.keys(after.limits)])
  return [...names].flatMap((name): readonly Change[] => {
    const [older, newer] = [before.limits[name], after.limits[name]]
    const [was, is] = [older?.value, newer?.value]
    const pageSizes = differing(was, is)
    if (pageSizes.length === 0) return []
    const guards = after.parts[newer?.part ?? '']?.guards ?? []
    const limit = { class: 'limit', where: name, aspect: 'limit', guards, pageSizes } as const
    if (was === undefined) return [change({ ...limit, kind: 'added', after: formatPerPage(is as PerPage) })]
    if (is === undefined) return [change({ ...limit, kind: 'removed', before: formatPerPage(was) })]
    const texts = { before: formatPerPage(was), after: formatPerPage(is) }
    const isMaximum = (newer?.is ?? older?.is) === 'maximum'
    return [change({ ...limit, kind: 'changed', ...texts }, isMaximum ? growth(was, is) : 'misread')]
  })
}

function growth(was: PerPage, is: PerPage): Both<Impact> {
  const smaller = PAGE_SIZES.some((size) => forPage(is, size) < forPage(was, size))
  const larger = PAGE_SIZES.some((size) => forPage(is, size) > forPage(was, size))
  return [smaller ? 'review' : 'none', larger ? 'review' : 'none']
}

/** Page sizes at which two values differ; a value that one side lacks differs everywhere. */
function differing(before: PerPage | undefined, after: PerPage | undefined): readonly PageSize[] {
  if (before === undefined && after === undefined) return []
  if (before === undefined || after === undefined) return PAGE_SIZES
  return PAGE_SIZES.filter((size) => forPage(before, size) !== forPage(after, size))
}

function bytes(value: PerPage | undefined): string {
  return value === undefined ? 'any length' : `${formatPerPage(value)} bytes`
}
