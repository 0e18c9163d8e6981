/**
 * The parts of a version: every struct and device tree node that its root leads to, through children,
 * embedded structs and pointers, and which version strings guard each of them.
 *
 * What a handler, a subsystem's blob or a plain region holds belongs to another component and is not
 * followed here.
 */
import type { Edge, FdtNodeType, FieldType, PropertyType, StructType } from './schema.ts'

export interface Part {
  /** The struct's tag, or the node's path: `/`, `/luo-session`, `/*` for nodes with names of their own. */
  readonly key: string
  readonly type: StructType | FdtNodeType
  /** Paths of the nodes with a version string that stand above this part, its own included. */
  readonly guards: readonly string[]
}

/** Lists the parts of a version, the root first, each once. */
export function partsOf(root: StructType | FdtNodeType): readonly Part[] {
  const parts = new Map<string, Part>()
  if (root.kind === 'struct') addStruct(parts, root, [])
  else addNode(parts, root, '/', [])
  return [...parts.values()]
}

/** The structs that an address with this edge leads to. */
export function targetsOf(edge: Edge): readonly StructType[] {
  switch (edge.kind) {
    case 'object':
      return [edge.type]
    case 'array':
      return edge.header ? [edge.header, edge.element] : [edge.element]
    case 'blocks':
      return [edge.header, edge.element]
    case 'vmalloc':
      return edge.element.kind === 'struct' ? [edge.chunk, edge.element] : [edge.chunk]
    case 'chunks':
      return [edge.chunk, edge.bitmap]
    case 'radix':
      return [edge.node, edge.leaf]
    case 'handler':
    case 'blob':
    case 'region':
      return []
  }
}

/** The edge that a field or property carries itself. */
export function edgeOf(type: FieldType | PropertyType): Edge | undefined {
  return type.kind === 'int' || type.kind === 'struct' ? type.to : undefined
}

/** Path of a node's child; `*` stands for any name. */
export function childPath(path: string, child: string): string {
  return path === '/' ? `/${child}` : `${path}/${child}`
}

/** A node's fixed children and the one kind of its named ones, by path. */
export function childrenOf(node: FdtNodeType, path: string): readonly (readonly [string, FdtNodeType])[] {
  const fixed = Object.entries(node.children ?? {}).map(
    ([name, child]) => [childPath(path, name), child] as const,
  )
  return node.each ? [...fixed, [childPath(path, '*'), node.each.node]] : fixed
}

function addNode(parts: Map<string, Part>, node: FdtNodeType, path: string, above: readonly string[]): void {
  const guards = node.properties.compatible?.kind === 'compatible' ? [...above, path] : above
  parts.set(path, { key: path, type: node, guards })
  for (const property of Object.values(node.properties)) addTargets(parts, property, guards)
  for (const [childAt, child] of childrenOf(node, path)) addNode(parts, child, childAt, guards)
}

function addStruct(parts: Map<string, Part>, struct: StructType, guards: readonly string[]): void {
  if (parts.has(struct.name)) return
  parts.set(struct.name, { key: struct.name, type: struct, guards })
  for (const field of Object.values(struct.fields)) addTargets(parts, field, guards)
  for (const target of struct.to ? targetsOf(struct.to) : []) addStruct(parts, target, guards)
}

function addTargets(
  parts: Map<string, Part>,
  type: FieldType | PropertyType,
  guards: readonly string[],
): void {
  if (type.kind === 'struct') addStruct(parts, type, guards)
  else if (type.kind === 'array' && type.element.kind === 'struct') addStruct(parts, type.element, guards)
  else
    for (const target of type.kind === 'int' && type.to ? targetsOf(type.to) : [])
      addStruct(parts, target, guards)
}
