/**
 * Declared structs against measured ones: which declared version a kernel's struct matches, and what
 * differs where none does.
 *
 * A match is exact: size, and each member's name, offset, size, bit field and array length. A struct
 * that fills a page matches for one page size only, which is reported.
 */

import type { FieldLayout, PageSize, Target } from '../abi/layout.ts'
import { countOf, layoutOf, PAGE_SIZES } from '../abi/layout.ts'
import { limitsOf } from '../abi/limits.ts'
import { liveupdateUapi } from '../abi/liveupdate.ts'
import { partsOf } from '../abi/parts.ts'
import type { Component } from '../abi/registry.ts'
import { components } from '../abi/registry.ts'
import type { IntType, StructType } from '../abi/schema.ts'
import type { MeasuredMember, MeasuredStruct } from './measured-struct.ts'

/** A struct as one or more versions declare it. */
export interface DeclaredStruct {
  readonly name: string
  readonly struct: StructType
  /** Versions that have it in this form, oldest first. */
  readonly versions: readonly string[]
}

export type StructStatus = 'matches' | 'differs' | 'absent'

export interface StructCheck {
  readonly name: string
  readonly source: string
  readonly status: StructStatus
  /** Versions that it matches. */
  readonly versions: readonly string[]
  /** Page sizes for which it matches. */
  readonly pageSizes: readonly PageSize[]
  /** The declared form that comes nearest, and what differs from it. */
  readonly nearest?: { readonly versions: readonly string[]; readonly differences: readonly Difference[] }
}

export interface Difference {
  /** Member, or the struct itself. */
  readonly where: string
  readonly expected: string
  readonly found: string
}

/** Every struct that is declared for the kernel itself, in each of its forms; by name, oldest form first. */
export function declaredStructs(
  registry: readonly Component[] = components,
): ReadonlyMap<string, readonly DeclaredStruct[]> {
  const forms = new Map<string, DeclaredStruct[]>()
  const add = (struct: StructType, version: string): void => {
    const known = forms.get(struct.name) ?? []
    const same = known.findIndex((form) => sameLayout(form.struct, struct))
    if (same < 0) known.push({ name: struct.name, struct, versions: [version] })
    else {
      const form = known[same] as DeclaredStruct
      if (!form.versions.includes(version)) known[same] = { ...form, versions: [...form.versions, version] }
    }
    forms.set(struct.name, known)
  }
  for (const component of registry) {
    for (const version of component.versions) {
      for (const { type } of partsOf(version.root)) {
        if (type.kind === 'struct' && !type.ours) add(type, version.id)
      }
      for (const { struct } of version.shares ?? []) add(struct, version.id)
    }
  }
  for (const struct of liveupdateUapi) add(struct, '/dev/liveupdate')
  return forms
}

function sameLayout(a: StructType, b: StructType): boolean {
  return PAGE_SIZES.every((pageSize) => {
    const target = { pageSize }
    return compareStruct(a, measure(b, target), target).length === 0
  })
}

/** A declared struct in the form in which others are measured. */
function measure(struct: StructType, target: Target): MeasuredStruct {
  const { size, fields } = layoutOf(struct, target)
  return { name: struct.name, size, members: fields.map((field) => expectedMember(field, target)) }
}

function expectedMember({ name, type, offset, size }: FieldLayout, target: Target): MeasuredMember {
  if (type.kind === 'bits') {
    const bits = { bitOffset: 8 * offset + type.shift, bits: type.width, bitField: true }
    return { name, ...bits, type: numberType(type.word) }
  }
  const base = { name, bitOffset: 8 * offset, bits: 8 * size, bitField: false }
  switch (type.kind) {
    case 'array':
      return {
        ...base,
        count: countOf(type, target, offset),
        ...(type.element.kind === 'int' && { type: numberType(type.element) }),
      }
    case 'int':
      return { ...base, type: numberType(type) }
    case 'text':
    case 'bytes':
      return { ...base, count: size }
    case 'bitmap':
      return { ...base, count: size / 8 }
    default:
      return base
  }
}

/** An integer as headers name it, on a little-endian machine. */
function numberType({ order, bytes, signed }: IntType): string {
  return `${order === 'be' && bytes > 1 ? 'be' : signed ? 's' : 'u'}${8 * bytes}`
}

const NUMBER_TYPE = /^(?:u|s|be)[0-9]+$/

/** Whether two integers of one size differ in byte order or sign; what is no integer has neither. */
function isOtherNumber({ type: a }: MeasuredMember, { type: b }: MeasuredMember): boolean {
  return a !== undefined && b !== undefined && a !== b && NUMBER_TYPE.test(a) && NUMBER_TYPE.test(b)
}

/** What differs between a declared struct and a measured one; nothing if they match. */
export function compareStruct(
  struct: StructType,
  measured: MeasuredStruct,
  target: Target,
): readonly Difference[] {
  const { size, fields } = layoutOf(struct, target)
  const expected = fields.map((field) => expectedMember(field, target))
  const members = measured.members.filter((member) => !isPadding(member, expected))
  const found = new Map(members.map((member) => [member.name, member]))
  const differences: Difference[] = []
  if (size !== measured.size) {
    differences.push({ where: struct.name, expected: `${size} bytes`, found: `${measured.size} bytes` })
  }
  for (const member of expected)
    differences.push(...compareMember(struct.name, member, found.get(member.name)))
  for (const member of members) {
    if (expected.some(({ name }) => name === member.name)) continue
    const where = `${struct.name}.${member.name}`
    differences.push({ where, expected: 'no such member', found: place(member) })
  }
  return differences
}

/** Unnamed bit fields are padding; a flexible array has no bytes of its own. */
function isPadding(member: MeasuredMember, expected: readonly MeasuredMember[]): boolean {
  return (member.name === '' || member.bits === 0) && !expected.some(({ name }) => name === member.name)
}

function compareMember(
  struct: string,
  expected: MeasuredMember,
  found: MeasuredMember | undefined,
): readonly Difference[] {
  const where = `${struct}.${expected.name}`
  if (!found) return [{ where, expected: place(expected), found: 'no such member' }]
  const differences: Difference[] = []
  if (expected.bitOffset !== found.bitOffset) {
    differences.push({ where, expected: offsetText(expected), found: offsetText(found) })
  }
  if (expected.bits !== found.bits || expected.bitField !== found.bitField) {
    differences.push({ where, expected: sizeText(expected), found: sizeText(found) })
  } else if (expected.count !== found.count) {
    differences.push({ where, expected: countText(expected), found: countText(found) })
  } else if (isOtherNumber(expected, found)) {
    differences.push({ where, expected: expected.type ?? '', found: found.type ?? '' })
  }
  return differences
}

function place(member: MeasuredMember): string {
  return `${sizeText(member)} ${offsetText(member)}`
}

function offsetText({ bitOffset, bitField }: MeasuredMember): string {
  return bitField ? `at bit ${bitOffset}` : `at offset ${bitOffset / 8}`
}

function sizeText({ bits, bitField, count }: MeasuredMember): string {
  if (bitField) return `bit field of ${bits} bits`
  return `${bits / 8} bytes${count === undefined ? '' : ` (${count} elements)`}`
}

function countText({ count }: MeasuredMember): string {
  return count === undefined ? 'no array' : `array of ${count} elements`
}

/** Holds every declared struct against what was measured under its name. */
export function checkStructs(
  measured: ReadonlyMap<string, readonly MeasuredStruct[]>,
  pageSizes: readonly PageSize[],
): readonly StructCheck[] {
  return [...declaredStructs()].map(([name, forms]) =>
    checkStruct(name, forms, measured.get(name) ?? [], pageSizes),
  )
}

/** Holds the forms of one struct against the measured ones of its name; a match of any decides. */
export function checkStruct(
  name: string,
  forms: readonly DeclaredStruct[],
  measured: readonly MeasuredStruct[],
  pageSizes: readonly PageSize[],
): StructCheck {
  const source = forms.at(-1)?.struct.source ?? ''
  const base = { name, source, versions: [], pageSizes: [] }
  if (measured.length === 0) return { ...base, status: 'absent' }
  const tried = measured.flatMap((struct) =>
    forms.flatMap((form) =>
      pageSizes.map((pageSize) => ({
        form,
        pageSize,
        differences: compareStruct(form.struct, struct, { pageSize }),
      })),
    ),
  )
  const matching = tried.filter(({ differences }) => differences.length === 0)
  if (matching.length > 0) {
    return {
      ...base,
      status: 'matches',
      versions: [...new Set(matching.flatMap(({ form }) => form.versions))],
      pageSizes: pageSizes.filter((size) => matching.some(({ pageSize }) => pageSize === size)),
    }
  }
  const nearest = tried.reduce((best, one) =>
    one.differences.length <= best.differences.length ? one : best,
  )
  return {
    ...base,
    status: 'differs',
    nearest: { versions: nearest.form.versions, differences: nearest.differences },
  }
}

export interface ConstantCheck {
  readonly name: string
  readonly value: number
  /** Versions for which, and page sizes at which, it has this value. */
  readonly versions: readonly string[]
  readonly pageSizes: readonly PageSize[]
}

/** Names of constants that a version implies. */
export function declaredConstants(): ReadonlySet<string> {
  return new Set(versionLimits(PAGE_SIZES).map(({ name }) => name))
}

/** Holds constants that were measured against those that the declarations imply. */
export function checkConstants(
  measured: ReadonlyMap<string, number>,
  pageSizes: readonly PageSize[],
): readonly ConstantCheck[] {
  const limits = versionLimits(pageSizes)
  return [...measured].map(([name, value]) => {
    const same = limits.filter((limit) => limit.name === name && limit.value === value)
    return {
      name,
      value,
      versions: [...new Set(same.map(({ version }) => version))],
      pageSizes: pageSizes.filter((size) => same.some(({ pageSize }) => pageSize === size)),
    }
  })
}

function versionLimits(pageSizes: readonly PageSize[]) {
  return components.flatMap(({ versions }) =>
    versions.flatMap(({ id, root }) =>
      pageSizes.flatMap((pageSize) =>
        limitsOf(root, { pageSize }).map(({ name, value }) => ({ name, value, version: id, pageSize })),
      ),
    ),
  )
}

export interface VersionCheck {
  readonly version: string
  /** All of its structs are there and match; some match and none differs; one differs; none is there. */
  readonly status: 'matches' | 'partly' | 'differs' | 'absent'
}

/** What the structs say about each version of each component; a struct that older versions had may be gone. */
export function versionChecks(structs: readonly StructCheck[]): readonly VersionCheck[] {
  const byName = new Map(structs.map((check) => [check.name, check]))
  return [...versionStructs()].map(([version, names]): VersionCheck => {
    const own = names.flatMap((name) => byName.get(name) ?? [])
    const fits = own.filter(({ status, versions }) => status === 'matches' && versions.includes(version))
    const present = own.filter(({ status }) => status !== 'absent')
    if (present.length === 0) return { version, status: 'absent' }
    if (fits.length < present.length) return { version, status: 'differs' }
    return { version, status: fits.length === own.length ? 'matches' : 'partly' }
  })
}

/** Names of the kernel's structs by version. */
function versionStructs(): ReadonlyMap<string, readonly string[]> {
  const structs = new Map<string, string[]>()
  for (const [name, forms] of declaredStructs()) {
    for (const version of forms.flatMap(({ versions }) => versions)) {
      structs.set(version, [...(structs.get(version) ?? []), name])
    }
  }
  return structs
}
