/**
 * A C header out of the declarations: the structs of a version or release with static assertions for
 * every size and offset, its strings and limits as macros.
 *
 * The page size is a macro, KHO_PAGE_SIZE. Types are the kernel's; outside the kernel they are defined
 * from <stdint.h>.
 */
import { PAGE_SIZES } from '../abi/layout.ts'
import { type Contract, formatContract } from '../abi/registry.ts'
import { symbolAt } from '../abi/symbols.ts'
import type { MemberDescription, PartDescription, VersionDescription } from './abi-document.ts'
import { mergedParts } from './abi-parts.ts'
import { contractSymbol } from './abi-show.ts'
import { forPage, type PerPage } from './per-page.ts'

/** One header for all versions given; they must not declare one tag in two ways. */
export function exportC(name: string, versions: readonly VersionDescription[]): string {
  const guard = `KHO_INSPECT_${macroName(name)}_H`
  const parts = mergedParts(versions)
  const structs = embeddedFirst(parts)
  const defined = new Set<string>()
  return `${[
    `/* Binary layout of ${name}, written by \`kho-inspect abi export\`. */`,
    `#ifndef ${guard}\n#define ${guard}`,
    TYPES,
    ...versions.map((version) => versionMacros(version, defined)),
    ...structs.map(([tag, part]) => structText(tag, part)),
    ...structs.map(([tag, part]) => assertions(tag, part)),
    perPageAssertions(structs),
    `#endif /* ${guard} */`,
  ]
    .filter((block) => block !== '')
    .join('\n\n')}\n`
}

const TYPES = `#ifdef __KERNEL__
#include <linux/stddef.h>
#include <linux/types.h>
#elif !defined(KHO_INSPECT_TYPES)
#define KHO_INSPECT_TYPES
#include <stddef.h>
#include <stdint.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;
typedef uint16_t __be16;
typedef uint32_t __be32;
typedef uint64_t __be64;
typedef uint32_t __u32;
typedef int32_t __s32;
typedef uint32_t __wsum;
typedef uint64_t phys_addr_t;
#endif

#ifndef KHO_PAGE_SIZE
#define KHO_PAGE_SIZE 4096
#endif`

/** A name as a macro: capitals, digits and underscores. */
function macroName(name: string): string {
  return name.toUpperCase().replace(/[^A-Z0-9]+/g, '_')
}

interface Macro {
  readonly name: string
  readonly value: PerPage | string
}

/** Macros of one version under a heading; those that an earlier version of this header defined are left out. */
function versionMacros(version: VersionDescription, defined: Set<string>): string {
  const fresh = macrosOf(version).filter(({ name }, index, all) => {
    return !defined.has(name) && all.findIndex((macro) => macro.name === name) === index
  })
  for (const { name } of fresh) defined.add(name)
  const fixed = fresh.flatMap(({ name, value }) =>
    typeof value === 'object' ? [] : [`#define ${name} ${value}`],
  )
  const perPage = fresh.flatMap(({ name, value }) => (typeof value === 'object' ? [{ name, value }] : []))
  return [
    `/* ${version.id}: ${version.parts[version.root]?.doc ?? ''} */`,
    ...nodeComments(version),
    ...fixed,
    ...(perPage.length > 0
      ? [
          byPageSize((pageSize) =>
            perPage.map(({ name, value }) => `#define ${name} ${forPage(value, pageSize)}`),
          ),
        ]
      : []),
  ].join('\n')
}

function macrosOf(version: VersionDescription): readonly Macro[] {
  const parts = Object.entries(version.parts).flatMap(([key, part]) =>
    part.kind === 'node' ? nodeMacros(version, key, part) : flagMacros(key, part),
  )
  const limits = Object.entries(version.limits).map(([name, { value }]) => ({ name: macroName(name), value }))
  return [...contractMacro(version), ...parts, ...limits]
}

function contractMacro(version: VersionDescription): readonly Macro[] {
  const { contract, component } = version
  if (contract.kind === 'none') return []
  const name = contractSymbol(version) ?? `${macroName(component)}_VERSION`
  const value = contract.kind === 'integer' ? String(contract.value) : `"${contractBytes(contract)}"`
  return [{ name, value }]
}

/** A list as a device tree holds it: strings one after the other, each with its NUL. */
function contractBytes(contract: Contract): string {
  return contract.kind === 'list' ? contract.values.join('\\0') : formatContract(contract)
}

function nodeMacros(
  { component, root }: VersionDescription,
  path: string,
  part: PartDescription,
): readonly Macro[] {
  const own =
    path !== root && part.compatible !== undefined ? symbolAt(component, path, 'contract') : undefined
  return [
    ...(own ? [{ name: own.name, value: JSON.stringify(part.compatible) }] : []),
    ...part.members.flatMap(({ name }) => {
      const symbol = symbolAt(component, `${path}:${name}`, 'property')
      return symbol ? [{ name: symbol.name, value: JSON.stringify(name) }] : []
    }),
  ]
}

/** Nodes have no C type: they are described. */
function nodeComments({ parts }: VersionDescription): readonly string[] {
  return Object.entries(parts).flatMap(([path, { kind, members }]) => {
    const properties = members.map(({ name, type }) => `${name} (${type})`).join(', ')
    return kind === 'node' ? [`/* node ${path.replaceAll('*', '<name>')}: ${properties} */`] : []
  })
}

function flagMacros(tag: string, { members }: PartDescription): readonly Macro[] {
  return members.flatMap(({ name, flags, only }) => [
    ...Object.entries(flags ?? {}).map(([flag, mask]) => {
      return { name: macroName(`${tag}_${name}_${flag}`), value: `0x${mask.toString(16)}` }
    }),
    ...(only === undefined
      ? []
      : [{ name: macroName(`${tag}_${name}_VALUE`), value: `0x${only.toString(16)}` }]),
  ])
}

/** Structs that others hold by value come first, as C wants it. */
function embeddedFirst(
  parts: Readonly<Record<string, PartDescription>>,
): readonly (readonly [string, PartDescription])[] {
  const ordered = new Map<string, PartDescription>()
  const add = (key: string): void => {
    const part = parts[key]
    if (part?.kind !== 'struct' || ordered.has(key)) return
    for (const member of part.members) if (member.part !== undefined) add(member.part)
    ordered.set(key, part)
  }
  for (const key of Object.keys(parts)) add(key)
  return [...ordered]
}

function structText(tag: string, { doc, packed, members }: PartDescription): string {
  const fields = members.map((member) => `\t${fieldText(member)}`)
  return `/* ${doc} */\nstruct ${tag} {\n${fields.join('\n')}\n}${packed ? ' __attribute__((packed))' : ''};`
}

function fieldText(member: MemberDescription): string {
  const { name, type, bits, doc } = member
  const base = type.replace(/\[.*$/, '')
  const suffix = bits ? `:${bits.width}` : dimension(member)
  return `${base} ${name}${suffix}; /* ${doc} */`
}

/** `[48]`, or what fills the page from here on. */
function dimension({ type, encoding, count, size, offset }: MemberDescription): string {
  const given = /\[(\d+)\]$/.exec(type)?.[1]
  if (given !== undefined) return `[${given}]`
  if (encoding === 'bitmap') return `[${elements(size ?? 0, 0, 8)}]`
  if (count === undefined) return ''
  const first = PAGE_SIZES[0] as (typeof PAGE_SIZES)[number]
  return `[${elements(size ?? 0, forPage(offset ?? 0, first), forPage(size ?? 0, first) / forPage(count, first))}]`
}

function elements(size: PerPage, offset: number, elementBytes: number): string {
  return typeof size === 'number'
    ? String(size / elementBytes)
    : `(KHO_PAGE_SIZE - ${offset}) / ${elementBytes}`
}

function assertions(tag: string, part: PartDescription): string {
  const claims = claimsOf(tag, part).filter(({ value }) => typeof value === 'number')
  return claims.map(({ claim, value }) => assertion(claim, value as number)).join('\n')
}

function perPageAssertions(structs: readonly (readonly [string, PartDescription])[]): string {
  const claims = structs
    .flatMap(([tag, part]) => claimsOf(tag, part))
    .filter(({ value }) => typeof value !== 'number')
  if (claims.length === 0) return ''
  return byPageSize((pageSize) =>
    claims.map(({ claim, value }) => assertion(claim, forPage(value, pageSize))),
  )
}

function claimsOf(
  tag: string,
  { size, members }: PartDescription,
): readonly { claim: string; value: PerPage }[] {
  const whole = [{ claim: `sizeof(struct ${tag})`, value: size ?? 0 }]
  const plain = members.filter(({ bits }) => bits === undefined)
  return whole.concat(
    plain.flatMap(({ name, offset = 0, size: bytes = 0 }) => [
      { claim: `offsetof(struct ${tag}, ${name})`, value: offset },
      { claim: `sizeof(((struct ${tag} *)0)->${name})`, value: bytes },
    ]),
  )
}

function assertion(claim: string, value: number): string {
  return `_Static_assert(${claim} == ${value}, "${claim} == ${value}");`
}

function byPageSize(lines: (pageSize: (typeof PAGE_SIZES)[number]) => readonly string[]): string {
  const branches = PAGE_SIZES.map(
    (pageSize, index) =>
      `${index === 0 ? '#if' : '#elif'} KHO_PAGE_SIZE == ${pageSize}\n${lines(pageSize).join('\n')}`,
  )
  return `${branches.join('\n')}\n#else\n#error "KHO_PAGE_SIZE must be ${PAGE_SIZES.join(', ')}"\n#endif`
}
