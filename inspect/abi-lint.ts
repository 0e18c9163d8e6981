/**
 * What the ABI headers of one source tree say that the registry does not know, where they disagree with
 * it under a version that it does know, and where their comments disagree with their own definitions.
 */

import type { PageSize } from '../abi/layout.ts'
import { PAGE_SIZES } from '../abi/layout.ts'
import { limitsOf } from '../abi/limits.ts'
import { childrenOf, partsOf } from '../abi/parts.ts'
import type { Component, ComponentVersion } from '../abi/registry.ts'
import { components, formatContract, satisfies } from '../abi/registry.ts'
import { symbolByName } from '../abi/symbols.ts'
import { compareStruct, type DeclaredStruct, type Difference, declaredStructs } from './abi-check.ts'
import { constantsOf, unparsedFindings } from './abi-lint-unparsed.ts'
import { isUnknown } from './c-member.ts'
import type { KernelHeader, StructDeclaration } from './kernel-header.ts'
import { type Finding, sortFindings } from './lint-finding.ts'
import { formatPageSize } from './per-page.ts'
import { contractsOf, type ParsedTree, stringValue, type TreeContract } from './source-tree.ts'

/** Looks through one tree. Findings are in the order of files and lines. */
export function lintTree(tree: ParsedTree, registry: readonly Component[] = components): readonly Finding[] {
  const contracts = contractsOf(tree)
  const spoken = versionsSpoken(contracts, registry)
  const findings = tree.headers.flatMap((header) => [
    ...unknownVersions(header, contracts, registry),
    ...unknownNames(header, registry),
    ...structFindings(header, tree, spoken, registry),
    ...constantFindings(header, tree, spoken, registry),
    ...commentVersions(header, contracts),
    ...commentMembers(header),
    ...failedAssertions(header, tree),
  ])
  return sortFindings([...findings, ...unparsedFindings(tree)])
}

/** Whether a contract of the tree is the version of a whole component, rather than of a node inside. */
function speaksFor({ name }: TreeContract, component: Component): boolean {
  const symbol = symbolByName(name)
  if (symbol) return symbol.component === component.name && symbol.is === 'contract' && isWhole(symbol.at)
  return false
}

function isWhole(at: string): boolean {
  return at === '/' || !at.startsWith('/')
}

/** Registered versions whose contract the tree states, by component. */
function versionsSpoken(
  contracts: readonly TreeContract[],
  registry: readonly Component[],
): ReadonlyMap<string, readonly ComponentVersion[]> {
  return new Map(
    registry.map((component) => {
      const stated = contracts.filter((contract) => speaksFor(contract, component))
      const versions = component.versions.filter(({ contract }) =>
        stated.some(({ value }) => satisfies(contract, value)),
      )
      return [component.name, versions]
    }),
  )
}

/** Every version that is registered, those of nodes inside included. */
function knownContracts(registry: readonly Component[]): readonly string[] {
  const nested = registry.flatMap(({ versions }) =>
    versions.flatMap(({ root }) =>
      partsOf(root).flatMap(({ type }) => {
        const own = type.kind === 'fdt-node' ? type.properties.compatible : undefined
        return own?.kind === 'compatible' ? [own.value] : []
      }),
    ),
  )
  const whole = registry.flatMap(({ versions }) =>
    versions.flatMap(({ contract }) => (contract.kind === 'none' ? [] : [formatContract(contract)])),
  )
  return [...new Set([...whole, ...nested])]
}

function isKnown({ name, value }: TreeContract, registry: readonly Component[]): boolean {
  if (typeof value === 'string' && knownContracts(registry).includes(value)) return true
  const component = symbolByName(name)?.component
  return registry.some(
    (known) =>
      (component === undefined || known.name === component) &&
      known.versions.some(({ contract }) => satisfies(contract, value)),
  )
}

function unknownVersions(
  { path }: KernelHeader,
  contracts: readonly TreeContract[],
  registry: readonly Component[],
): readonly Finding[] {
  return contracts
    .filter((contract) => contract.path === path && !isKnown(contract, registry))
    .map(({ name, value, define }): Finding => {
      const family = String(value).replace(/[0-9]+$/, '')
      const component = registry.find((known) => known.name === symbolByName(name)?.component)
      const candidates = component
        ? component.versions.map(({ contract }) => formatContract(contract))
        : knownContracts(registry)
      const known = [...new Set(candidates)].filter(
        (text) => component !== undefined || text.startsWith(family),
      )
      const rest = known.length > 0 ? `; known are ${known.join(', ')}` : ''
      const message = `this tree says ${JSON.stringify(value)} (${name})${rest}`
      return { rule: 'UNKNOWN_VERSION', severity: 'warning', file: path, line: define.line, message }
    })
}

/** Names of properties, nodes and subtrees of every version. */
function knownNames(registry: readonly Component[]): ReadonlySet<string> {
  const names = new Set<string>()
  for (const { subtree, versions } of registry) {
    if (subtree !== undefined) names.add(subtree)
    for (const { root } of versions) {
      for (const { key, type } of partsOf(root)) {
        if (type.kind !== 'fdt-node') continue
        for (const name of Object.keys(type.properties)) names.add(name)
        for (const [path] of childrenOf(type, key)) names.add(path.slice(path.lastIndexOf('/') + 1))
      }
    }
  }
  return names
}

function unknownNames({ path, defines }: KernelHeader, registry: readonly Component[]): readonly Finding[] {
  const known = knownNames(registry)
  const contracts = new Set(
    contractsOf({ headers: [{ path, defines } as KernelHeader] }).map(({ name }) => name),
  )
  return defines.flatMap((define): readonly Finding[] => {
    const value = stringValue(define)
    if (value === undefined || contracts.has(define.name) || known.has(value)) return []
    const message = `the name "${value}" (${define.name}) is not known`
    return [{ rule: 'UNKNOWN_NAME', severity: 'warning', file: path, line: define.line, message }]
  })
}

function structFindings(
  { path, structs }: KernelHeader,
  tree: ParsedTree,
  spoken: ReadonlyMap<string, readonly ComponentVersion[]>,
  registry: readonly Component[],
): readonly Finding[] {
  const declared = declaredStructs(registry)
  const ids = new Set([...spoken.values()].flat().map(({ id }) => id))
  return structs.flatMap((struct): readonly Finding[] => {
    const place = { file: path, line: struct.line }
    const layouts = PAGE_SIZES.map((pageSize) => tree.definitions(pageSize).layoutOf(struct.tag))
    if (layouts.some((layout) => isUnknown(layout))) return []
    const forms = declared.get(struct.tag) ?? []
    if (forms.length === 0) {
      const message = `struct ${struct.tag} is not known`
      return [{ rule: 'UNKNOWN_STRUCT', severity: 'warning', ...place, message }]
    }
    const against = forms.filter(({ versions }) => versions.some((id) => ids.has(id)))
    return against.length > 0 ? differingStruct(struct, tree, against, forms, place) : []
  })
}

/** A struct under a version that is known must be laid out as that version is. */
function differingStruct(
  { tag }: StructDeclaration,
  tree: ParsedTree,
  against: readonly DeclaredStruct[],
  forms: readonly DeclaredStruct[],
  place: Pick<Finding, 'file' | 'line'>,
): readonly Finding[] {
  const tried = against.map((form) => ({ form, differences: differencesOf(form, tag, tree) }))
  if (tried.some(({ differences }) => differences.length === 0)) return []
  const nearest = tried.reduce((best, one) => (one.differences.length < best.differences.length ? one : best))
  const versions = nearest.form.versions.join(', ')
  const other = forms.find((form) => differencesOf(form, tag, tree).length === 0)
  const rule = { rule: 'STRUCT_DIFFERS', severity: 'error', ...place } as const
  if (other) {
    const message = `struct ${tag} is laid out as in ${other.versions.join(', ')}, this tree states the version of ${versions}`
    return [{ ...rule, message }]
  }
  return nearest.differences.map(({ where, expected, found, pageSize }): Finding => {
    const at = pageSize === undefined ? '' : ` at ${formatPageSize(pageSize)} pages`
    const message = `${where} differs from ${versions}, whose version this tree states: expected ${expected}, found ${found}${at}`
    return { ...rule, message }
  })
}

/** Differences for the first page size that has any; without a page size if every one has them. */
function differencesOf(
  { struct }: DeclaredStruct,
  tag: string,
  tree: ParsedTree,
): readonly (Difference & { readonly pageSize?: PageSize })[] {
  const perSize = PAGE_SIZES.map((pageSize) => {
    const layout = tree.definitions(pageSize).layoutOf(tag)
    return { pageSize, differences: isUnknown(layout) ? [] : compareStruct(struct, layout, { pageSize }) }
  })
  const first = perSize.find(({ differences }) => differences.length > 0)
  if (!first) return []
  const everywhere = perSize.every(({ differences }) => differences.length > 0)
  return first.differences.map((difference) =>
    everywhere ? difference : { ...difference, pageSize: first.pageSize },
  )
}

/** Constants with a value: against the limits of the versions that the tree states, and their flags. */
function constantFindings(
  header: KernelHeader,
  tree: ParsedTree,
  spoken: ReadonlyMap<string, readonly ComponentVersion[]>,
  registry: readonly Component[],
): readonly Finding[] {
  const stated = [...spoken.values()].flat()
  const every = registry.flatMap(({ versions }) => versions)
  return numericNames(header, tree).flatMap(({ name, line }): readonly Finding[] => {
    const place = { file: header.path, line }
    const wrong = PAGE_SIZES.map((pageSize) => wrongLimit(name, tree, stated, pageSize)).find(
      (text) => text !== undefined,
    )
    if (wrong !== undefined) return [{ rule: 'LIMIT_DIFFERS', severity: 'error', ...place, message: wrong }]
    if (isLimit(name, every) || isFlag(name, tree, every)) return []
    return [{ rule: 'UNKNOWN_CONSTANT', severity: 'note', ...place, message: `${name} is not known` }]
  })
}

/** Object-like macros and enumerators that have a number as value. */
function numericNames(
  header: KernelHeader,
  tree: ParsedTree,
): readonly { readonly name: string; readonly line: number }[] {
  const definitions = tree.definitions(PAGE_SIZES[0] as PageSize)
  return constantsOf(header).filter(
    ({ name }) => symbolByName(name) === undefined && 'value' in definitions.valueOf(name),
  )
}

function wrongLimit(
  name: string,
  tree: ParsedTree,
  stated: readonly ComponentVersion[],
  pageSize: PageSize,
): string | undefined {
  const limits = stated.flatMap(({ id, root }) =>
    limitsOf(root, { pageSize })
      .filter((limit) => limit.name === name)
      .map(({ value }) => ({ id, value })),
  )
  const found = tree.definitions(pageSize).valueOf(name)
  if (limits.length === 0 || !('value' in found)) return undefined
  if (limits.some(({ value }) => BigInt(value) === found.value)) return undefined
  const expected = limits.map(({ id, value }) => `${value} in ${id}`).join(', ')
  return `${name} is ${found.value} at ${formatPageSize(pageSize)} pages, expected ${expected}, whose version this tree states`
}

function isLimit(name: string, versions: readonly ComponentVersion[]): boolean {
  const target = { pageSize: PAGE_SIZES[0] as PageSize }
  return versions.some(({ root }) => limitsOf(root, target).some((limit) => limit.name === name))
}

/** A macro that ends like a declared flag and has its value, or that is all flags of a field together. */
function isFlag(name: string, tree: ParsedTree, versions: readonly ComponentVersion[]): boolean {
  const found = tree.definitions(PAGE_SIZES[0] as PageSize).valueOf(name)
  if (!('value' in found)) return false
  return versions.some(({ root }) =>
    partsOf(root).some(({ type }) =>
      type.kind !== 'struct'
        ? false
        : Object.values(type.fields).some((field) => {
            const flags =
              field.kind === 'int' || field.kind === 'bits' ? Object.entries(field.flags ?? {}) : []
            const all = flags.reduce((bits, [, mask]) => bits | BigInt(mask), 0n)
            return (
              (flags.length > 1 && all === found.value && name.includes('ALL')) ||
              flags.some(([flag, mask]) => name.endsWith(`_${flag}`) && BigInt(mask) === found.value)
            )
          }),
    ),
  )
}

/** Comments that name another version of a family than the definitions do. */
function commentVersions(
  { path, comments }: KernelHeader,
  contracts: readonly TreeContract[],
): readonly Finding[] {
  const stated = new Set(contracts.map(({ value }) => value))
  return contracts.flatMap(({ name, value }): readonly Finding[] => {
    const family = /^(.*[a-z]-v)[0-9]+$/.exec(String(value))?.[1]
    if (family === undefined) return []
    const mention = new RegExp(
      `(?<![\\w-])${family.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}[0-9]+(?![\\w-])`,
      'g',
    )
    return comments.flatMap(({ text, line }) =>
      text.split('\n').flatMap((row, index) =>
        [...row.matchAll(mention)]
          .filter(([mentioned]) => !stated.has(mentioned))
          .map(([mentioned]): Finding => {
            const message = `the comment says "${mentioned}", ${name} is "${value}"`
            return { rule: 'COMMENT_VERSION', severity: 'warning', file: path, line: line + index, message }
          }),
      ),
    )
  })
}

/** Kernel-doc of a struct that describes members which it does not have. */
function commentMembers({ path, structs }: KernelHeader): readonly Finding[] {
  return structs.flatMap(({ tag, comment, body, line }): readonly Finding[] => {
    if (comment === undefined || !comment.includes(`struct ${tag} - `)) return []
    const words = new Set(body.members.flat().map(({ text }) => text))
    return [...comment.matchAll(/^\s*\*?\s*@(\w+):/gm)]
      .map(([, member]) => member as string)
      .filter((member) => !words.has(member))
      .map((member): Finding => {
        const message = `the comment describes @${member}, struct ${tag} has no such member`
        return { rule: 'COMMENT_MEMBER', severity: 'warning', file: path, line, message }
      })
  })
}

function failedAssertions({ path, asserts }: KernelHeader, tree: ParsedTree): readonly Finding[] {
  return asserts.flatMap(({ claim, line }): readonly Finding[] => {
    const results = PAGE_SIZES.map((pageSize) => ({
      pageSize,
      result: tree.definitions(pageSize).evaluate(claim),
    }))
    const failed = results.find(({ result }) => 'value' in result && result.value === 0n)
    if (!failed) return []
    const message = `the assertion does not hold at ${formatPageSize(failed.pageSize)} pages`
    return [{ rule: 'ASSERTION', severity: 'error', file: path, line, message }]
  })
}
