/** Parts of several versions taken together, as an export of a whole release needs them. */
import type { PartDescription, VersionDescription } from './abi-document.ts'
import { stableJson } from './abi-document.ts'

/**
 * Structs and nodes by key. Nodes of different versions do not meet: they are told apart by their
 * component. A struct that several versions have is taken once.
 */
export function mergedParts(
  versions: readonly VersionDescription[],
): Readonly<Record<string, PartDescription>> {
  const merged: Record<string, PartDescription> = {}
  for (const { component, parts } of versions) {
    for (const [key, part] of Object.entries(parts)) {
      merged[part.kind === 'node' && versions.length > 1 ? `${component}:${key}` : key] ??= part
    }
  }
  return merged
}

/** Tags that two of the versions lay out differently. */
export function conflictingStructs(versions: readonly VersionDescription[]): readonly string[] {
  const merged = mergedParts(versions)
  const conflicts = versions.flatMap(({ parts }) =>
    Object.entries(parts).flatMap(([key, part]) => {
      const taken = part.kind === 'struct' ? merged[key] : undefined
      return taken && wire(taken) !== wire(part) ? [key] : []
    }),
  )
  return [...new Set(conflicts)]
}

/** What of a part is on the wire, as text. */
export function wire({ kind, packed, size, members, compatible, children }: PartDescription): string {
  const fields = members.map(({ name, type, encoding, offset, size: bytes, bits, flags, only, leads }) => {
    return { name, type, encoding, offset, bytes, bits, flags, only, leads }
  })
  return stableJson({ kind, packed, size, fields, compatible, children })
}
