/**
 * Names that users give: versions, the strings that versions carry, components, structs, releases.
 *
 * One string may stand for several forms (`kho-v1`), and a node inside a version may have a version
 * string of its own (`luo-session-v2`); such a node can be shown and compared like a version.
 */
import { formatContract, releaseFor } from '../abi/registry.ts'
import type { AbiDocument, PartDescription, ReleaseDescription, VersionDescription } from './abi-document.ts'

/** All versions that a name may stand for, oldest first: by id, by version string, by component. */
export function versionsNamed(document: AbiDocument, name: string): readonly VersionDescription[] {
  const exact = versionOf(document, name)
  if (exact) return [exact]
  const all = inOrder(document)
  const byContract = all.filter(
    ({ contract }) => contract.kind !== 'none' && formatContract(contract) === name,
  )
  if (byContract.length > 0) return byContract
  const byComponent = all.filter(({ component }) => component === name)
  if (byComponent.length > 0) return byComponent
  const nested = all.map((version) => nestedVersion(version, name)).findLast((found) => found !== undefined)
  return nested ? [nested] : []
}

/** The version with exactly this id. */
export function versionOf(document: AbiDocument, id: string): VersionDescription | undefined {
  return Object.hasOwn(document.versions, id) ? document.versions[id] : undefined
}

function inOrder(document: AbiDocument): readonly VersionDescription[] {
  return Object.values(document.components).flatMap(({ versions }) =>
    versions.flatMap((id) => document.versions[id] ?? []),
  )
}

/** A node with a version string of its own, as if it were a version. */
function nestedVersion(version: VersionDescription, name: string): VersionDescription | undefined {
  const path = Object.keys(version.parts).find((key) => version.parts[key]?.compatible === name)
  if (path === undefined) return undefined
  const parts = reachable(version.parts, path)
  return {
    ...version,
    id: name,
    contract: { kind: 'string', value: name },
    place: { kind: 'fdt-compatible' },
    root: path,
    parts,
    limits: Object.fromEntries(Object.entries(version.limits).filter(([, { part }]) => part in parts)),
  }
}

function reachable(parts: VersionDescription['parts'], root: string): Record<string, PartDescription> {
  const found: Record<string, PartDescription> = {}
  const pending = [root]
  for (let key = pending.pop(); key !== undefined; key = pending.pop()) {
    const part = parts[key]
    if (!part || found[key]) continue
    found[key] = part
    pending.push(...(part.children ?? []))
    for (const { part: embedded, leads } of part.members)
      pending.push(...(leads?.to ?? []), ...(embedded ? [embedded] : []))
  }
  return Object.fromEntries(Object.entries(parts).filter(([key]) => key in found))
}

/** Versions that hold a struct of that tag, oldest first. */
export function versionsWithStruct(document: AbiDocument, tag: string): readonly VersionDescription[] {
  return inOrder(document).filter(({ parts }) => parts[tag]?.kind === 'struct')
}

/** A release by its name, or by a kernel's version: `linux-7.2`, `7.2.13`. */
export function releaseNamed(document: AbiDocument, name: string): ReleaseDescription | undefined {
  const known = releaseFor(name)
  return document.releases.find((release) => release.name === (known?.name ?? name))
}

/** Names of the same family, for a message about an unknown one. */
export function similarNames(document: AbiDocument, name: string): readonly string[] {
  const known = [...Object.keys(document.versions), ...document.releases.map((release) => release.name)]
  const family = familyOf(name)
  return [...new Set(known)].filter((candidate) => family !== '' && familyOf(candidate) === family)
}

/** `kho` of `kho-v1/bitmap-512`, `linux` of `linux-7.2`. */
function familyOf(name: string): string {
  return name
    .toLowerCase()
    .replace(/\/.*$/, '')
    .replace(/[-v0-9.]+$/, '')
}
