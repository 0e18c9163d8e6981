/**
 * Two states of the ABI headers: what changed while the version string that guards it did not.
 *
 * Works from the headers alone, so that it also judges what the registry has never seen. A structure's
 * guard is the version that its comment names, else the versions that the header's general comment
 * names, else those that the header defines; where several are left, the one with the most similar name.
 */
import type { PageSize } from '../abi/layout.ts'
import { PAGE_SIZES } from '../abi/layout.ts'
import { constantsOf, unparsedFindings } from './abi-lint-unparsed.ts'
import type { Definitions } from './c-layout.ts'
import { isUnknown } from './c-member.ts'
import type { KernelHeader } from './kernel-header.ts'
import { type Finding, sortFindings } from './lint-finding.ts'
import type { MeasuredMember, MeasuredStruct } from './measured-struct.ts'
import { formatPageSize } from './per-page.ts'
import { contractsOf, type ParsedTree, stringValue, type TreeContract } from './source-tree.ts'

interface Both {
  readonly before: ParsedTree
  readonly after: ParsedTree
  readonly guards: readonly TreeContract[]
  /** Guards of before that after has with another value, or not at all. */
  readonly moved: ReadonlySet<string>
}

/** Something of a header that a version guards. */
interface Item {
  readonly name: string
  readonly header: KernelHeader
  readonly line: number
  readonly comment?: string
}

/** Compares two trees; each change without a new version is an error, one with it a note. */
export function lintChange(before: ParsedTree, after: ParsedTree): readonly Finding[] {
  const guards = contractsOf(before)
  const now = new Map(contractsOf(after).map(({ name, value }) => [name, value]))
  const moved = new Set(guards.filter(({ name, value }) => now.get(name) !== value).map(({ name }) => name))
  const both = { before, after, guards, moved }
  return sortFindings([
    ...versionNotes(both, now),
    ...structChanges(both),
    ...nameChanges(both),
    ...limitChanges(both),
    ...notJudged(both),
  ])
}

/** What is not understood in either tree; what only the older one has is placed there. */
function notJudged({ before, after }: Both): readonly Finding[] {
  const newer = unparsedFindings(after)
  const still = new Set(newer.map(({ file, message }) => `${file} ${message}`))
  const gone = unparsedFindings(before).filter(({ file, message }) => !still.has(`${file} ${message}`))
  return [...newer, ...gone.map((finding) => ({ ...finding, message: `before: ${finding.message}` }))]
}

function versionNotes(
  { guards, moved }: Both,
  now: ReadonlyMap<string, string | number>,
): readonly Finding[] {
  return guards
    .filter(({ name }) => moved.has(name))
    .map(({ name, value, path, define }): Finding => {
      const becomes = now.has(name) ? `is now ${JSON.stringify(now.get(name))}` : 'is gone'
      const message = `${name} was ${JSON.stringify(value)} and ${becomes}`
      return { rule: 'ANNOUNCED', severity: 'note', file: path, line: define.line, message }
    })
}

/** The verdict on a change: announced by a guard that moved too, or not. */
function judge(
  both: Both,
  item: Item,
  guards: readonly TreeContract[],
  rule: Finding['rule'],
  text: string,
): Finding {
  const place = { file: item.header.path, line: item.line }
  const announced = guards.find(({ name }) => both.moved.has(name))
  if (announced) {
    return {
      rule: 'ANNOUNCED',
      severity: 'note',
      ...place,
      message: `${text}, announced by ${announced.name}`,
    }
  }
  if (guards.length === 0) {
    return { rule, severity: 'error', ...place, message: `${text}, and no version string guards it` }
  }
  const names = guards.map(({ name, value }) => `${name} is still ${JSON.stringify(value)}`).join(', ')
  return { rule, severity: 'error', ...place, message: `${text}, but ${names}` }
}

/** The versions that guard an item of the older tree. */
function guardsOf({ guards }: Both, { name, header, comment }: Item): readonly TreeContract[] {
  const named = mentioned(guards, comment ?? '')
  if (named.length > 0) return named
  const own = guards.filter(({ path, name: guard }) => path === header.path && guard !== name)
  if (own.length > 0) return mostSimilar(own, name)
  return mentioned(guards, header.comments.map(({ text }) => text).join('\n'))
}

function mentioned(guards: readonly TreeContract[], text: string): readonly TreeContract[] {
  return guards.filter(({ name }) => new RegExp(`\\b${name}\\b`).test(text))
}

/** `LUO_FDT_SESSION_HEADER` is nearer to `LUO_FDT_SESSION_COMPATIBLE` than to `LUO_FDT_COMPATIBLE`. */
function mostSimilar(guards: readonly TreeContract[], name: string): readonly TreeContract[] {
  const shared = ({ name: guard }: TreeContract): number => {
    const [a, b] = [name.toUpperCase().split('_'), guard.split('_')]
    const differs = a.findIndex((word, index) => word !== b[index])
    return differs < 0 ? a.length : differs
  }
  const most = Math.max(...guards.map(shared))
  return guards.filter((guard) => shared(guard) === most)
}

type Structs = ReadonlyMap<string, Item>

function structsOf({ headers }: ParsedTree): Structs {
  return new Map(
    headers.flatMap((header) =>
      header.structs.map(({ tag, line, comment }) => {
        return [tag, { name: tag, header, line, ...(comment === undefined ? {} : { comment }) }] as const
      }),
    ),
  )
}

function structChanges(both: Both): readonly Finding[] {
  const [older, newer] = [structsOf(both.before), structsOf(both.after)]
  const changed = new Map(
    [...older.keys()].map((tag) => [tag, newer.has(tag) ? structChange(both, tag) : 'was removed']),
  )
  return [...older].flatMap(([tag, item]): readonly Finding[] => {
    const text = changed.get(tag)
    if (text === undefined) return []
    const embedded = embeddedIn(both.before, tag).filter((inner) => changed.get(inner) !== undefined)
    const guards = [item, ...embedded.flatMap((inner) => older.get(inner) ?? [])].flatMap((one) =>
      guardsOf(both, one),
    )
    const place = newer.get(tag) ?? item
    return [judge(both, place, [...new Set(guards)], 'STRUCT_CHANGED', `struct ${tag} ${text}`)]
  })
}

/** Tags of structs that a struct holds by value. */
function embeddedIn({ headers }: ParsedTree, tag: string): readonly string[] {
  const declaration = headers.flatMap(({ structs }) => structs).find((struct) => struct.tag === tag)
  return (declaration?.body.members ?? []).flatMap((member) =>
    member.flatMap((token, index) => (token.text === 'struct' ? (member[index + 1]?.text ?? []) : [])),
  )
}

/** What of a struct changed, at the first page size where it did. */
function structChange({ before, after }: Both, tag: string): string | undefined {
  for (const pageSize of PAGE_SIZES) {
    const [older, newer] = [before, after].map((tree) => tree.definitions(pageSize).layoutOf(tag))
    if (!older || !newer) continue
    if (isUnknown(newer) && !isUnknown(older)) return 'changed: it can no longer be laid out'
    if (isUnknown(older) || isUnknown(newer)) {
      const [was, is] = [before, after].map((tree) => sourceOf(tree, tag, pageSize))
      if (was !== is) return 'changed, and cannot be laid out'
      continue
    }
    const text = layoutChange(older, newer)
    if (text !== undefined) return `${text}${onlyAt(before, after, tag, pageSize)}`
  }
  return undefined
}

/** A struct as its members and attributes are written, with the constants put in. */
function sourceOf(tree: ParsedTree, tag: string, pageSize: PageSize): string | undefined {
  const declaration = tree.headers.flatMap(({ structs }) => structs).find((struct) => struct.tag === tag)
  if (!declaration) return undefined
  const { kind, members, attributes } = declaration.body
  const texts = [...members, attributes].map((tokens) => tree.definitions(pageSize).textOf(tokens))
  return [kind, ...texts].join(';')
}

function onlyAt(before: ParsedTree, after: ParsedTree, tag: string, pageSize: PageSize): string {
  const others = PAGE_SIZES.filter((size) => size !== pageSize)
  const same = others.every((size) => {
    const [older, newer] = [before, after].map((tree) => tree.definitions(size).layoutOf(tag))
    return (
      older && newer && !isUnknown(older) && !isUnknown(newer) && layoutChange(older, newer) === undefined
    )
  })
  return same ? ` at ${formatPageSize(pageSize)} pages` : ''
}

function layoutChange(before: MeasuredStruct, after: MeasuredStruct): string | undefined {
  const parts: string[] = []
  if (before.size !== after.size) parts.push(`from ${before.size} to ${after.size} bytes`)
  const newer = new Map(after.members.map((member) => [member.name, member]))
  for (const member of before.members) {
    const same = newer.get(member.name)
    if (!same) parts.push(`${member.name} removed`)
    else if (placeText(same) !== placeText(member)) {
      parts.push(`${member.name} from ${placeText(member)} to ${placeText(same)}`)
    } else if (same.type !== member.type) parts.push(`${member.name} from ${member.type} to ${same.type}`)
  }
  const older = new Set(before.members.map(({ name }) => name))
  for (const { name } of after.members) if (!older.has(name)) parts.push(`${name} added`)
  return parts.length === 0 ? undefined : `changed: ${parts.join(', ')}`
}

function placeText({ bitOffset, bits, bitField, count }: MeasuredMember): string {
  if (bitField) return `bits ${bitOffset} to ${bitOffset + bits - 1}`
  return `${bits / 8} bytes${count === undefined ? '' : ` in ${count}`} at ${bitOffset / 8}`
}

type Strings = ReadonlyMap<string, Item & { readonly value: string }>

/** Names of properties, nodes and subtrees: the strings that are no versions. */
function namesOf(tree: ParsedTree): Strings {
  const versions = new Set(contractsOf(tree).map(({ name }) => name))
  return new Map(
    tree.headers.flatMap((header) =>
      header.defines.flatMap((define) => {
        const value = stringValue(define)
        if (value === undefined || versions.has(define.name)) return []
        return [[define.name, { name: define.name, value, header, line: define.line }] as const]
      }),
    ),
  )
}

/** A name that is new is one that the next kernel may demand, so it breaks as a removed one does. */
function nameChanges(both: Both): readonly Finding[] {
  const [older, newer] = [namesOf(both.before), namesOf(both.after)]
  const known = new Set(both.before.headers.map(({ path }) => path))
  const findings: Finding[] = []
  const report = (item: Item, text: string): void => {
    findings.push(judge(both, item, guardsOf(both, item), 'NAME_CHANGED', text))
  }
  for (const [name, item] of older) {
    const same = newer.get(name)
    if (same?.value === item.value) continue
    if (same) report(same, `${name} was "${item.value}" and is now "${same.value}"`)
    else if (![...newer.values()].some(({ value }) => value === item.value))
      report(item, `"${item.value}" (${name}) was removed`)
  }
  const values = new Set([...older.values()].map(({ value }) => value))
  for (const [name, item] of newer) {
    if (older.has(name) || values.has(item.value) || !known.has(item.header.path)) continue
    report(item, `"${item.value}" (${name}) was added`)
  }
  return findings
}

/** Constants that both trees have, with another value, or without one another text, at some page size. */
function limitChanges(both: Both): readonly Finding[] {
  const versions = new Set(both.guards.map(({ name }) => name))
  const kept = new Set(both.after.headers.flatMap(constantsOf).map(({ name }) => name))
  return both.before.headers.flatMap((header) =>
    constantsOf(header).flatMap(({ name, line }): readonly Finding[] => {
      if (versions.has(name) || !kept.has(name)) return []
      const text = limitChange(both, name)
      const item = { name, header, line }
      return text === undefined ? [] : [judge(both, item, guardsOf(both, item), 'LIMIT_CHANGED', text)]
    }),
  )
}

function limitChange({ before, after }: Both, name: string): string | undefined {
  for (const pageSize of PAGE_SIZES) {
    const [was, is] = [before, after].map((tree) => limitText(tree.definitions(pageSize), name))
    if (was !== is) return `${name} was ${was} and is now ${is} at ${formatPageSize(pageSize)} pages`
  }
  return undefined
}

/** A constant's value; where it has none, what is written for it. */
function limitText(definitions: Definitions, name: string): string {
  return definitions.textOf([{ kind: 'word', text: name, line: 0, glued: false }])
}
