/**
 * Root FDTs without their strings: debugfs exports `out/fdt` cut at the size it had when the file was
 * made, so that property names are missing. The order in which the kernel writes them is fixed per
 * version up to a permutation, and offsets and lengths leave only one.
 */
import { layoutOf, type Target } from '../abi/layout.ts'
import { type ComponentVersion, satisfies } from '../abi/registry.ts'
import type { FdtNodeType, PropertyType } from '../abi/schema.ts'
import type { Fdt, FdtNode } from './fdt.ts'
import { decodeText } from './text.ts'

/** The FDT with names put back; unchanged where its strings are there or nothing fits. */
export function restoreNames(fdt: Fdt, versions: readonly ComponentVersion[], target: Target): Fdt {
  if (!fdt.stringsCut || !fdt.root) return fdt
  const values = fdt.root.properties.map(({ value }) => decodeText(value))
  for (const version of versions) {
    if (!values.some((text) => satisfies(version.contract, text))) continue
    const types = propertyTypes(version.root as FdtNodeType)
    for (const order of permutations(Object.keys(types))) {
      const names = offsetsOf(order)
      if (everyProperty(fdt.root, names, types, target)) return { ...fdt, root: named(fdt.root, names) }
    }
  }
  return fdt
}

function propertyTypes(root: FdtNodeType): Readonly<Record<string, PropertyType>> {
  return { ...root.properties, ...root.each?.node.properties }
}

function* permutations<T>(items: readonly T[]): Generator<readonly T[]> {
  if (items.length === 0) yield []
  for (const [i, item] of items.entries()) {
    for (const rest of permutations(items.toSpliced(i, 1))) yield [item, ...rest]
  }
}

function offsetsOf(names: readonly string[]): ReadonlyMap<number, string> {
  const offsets = new Map<number, string>()
  let at = 0
  for (const name of names) {
    offsets.set(at, name)
    at += name.length + 1
  }
  return offsets
}

function everyProperty(
  node: FdtNode,
  names: ReadonlyMap<number, string>,
  types: Readonly<Record<string, PropertyType>>,
  target: Target,
): boolean {
  const fits = node.properties.every(({ nameOffset, value }) => {
    const type = types[names.get(nameOffset) ?? '']
    if (!type) return false
    if (type.kind === 'int') return value.length === type.bytes
    if (type.kind === 'struct') return value.length === layoutOf(type, target).size
    return type.kind !== 'compatible' || decodeText(value) === type.value
  })
  return fits && node.children.every((inner) => everyProperty(inner, names, types, target))
}

function named(node: FdtNode, names: ReadonlyMap<number, string>): FdtNode {
  return {
    ...node,
    properties: node.properties.map((property) => ({ ...property, name: names.get(property.nameOffset) })),
    children: node.children.map((inner) => named(inner, names)),
  }
}
