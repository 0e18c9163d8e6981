/**
 * What the live update orchestrator needs of its kernel, and what the code of a release does that its
 * formats do not say.
 */
import type { FormatArgument } from '../abi/console.ts'
import { invariant } from '../abi/fault.ts'
import { componentByName, releases } from '../abi/registry.ts'
import type { ArrayEdge, BlocksEdge, Edge, FdtNodeType, StructType } from '../abi/schema.ts'
import type { KhoApi, Pages } from './core.ts'
import type { Store } from './stored.ts'

export interface LuoContext extends Store {
  readonly release: string
  /** utsname release: an update of that release, such as 7.1.3. */
  readonly version: string
  readonly pages: Pages
  readonly kho: KhoApi
  /** Logs the line, or the message of the check, that has this id. */
  say(id: string, ...args: readonly FormatArgument[]): void
  /** WARN_ON() in a function of a source file; a text where the kernel's warning has one. */
  warn(file: string, function_: string, text?: string): void
  /** panic() with the line of this id. */
  panic(id: string, ...args: readonly FormatArgument[]): never
}

/** The forms in which a version of LUO keeps its records; each edge says whether in arrays or in blocks. */
export interface LuoForm {
  readonly root: FdtNodeType | StructType
  readonly sessions: ArrayEdge | BlocksEdge
  readonly files: ArrayEdge | BlocksEdge
  /** Undefined where the version has no FLBs. */
  readonly flbs: ArrayEdge | undefined
}

/** The form of a release's LUO; undefined where it has none. */
export function luoForm(release: string): LuoForm | undefined {
  const id = releases.find(({ name }) => name === release)?.versions.luo
  const root = componentByName('luo').versions.find((version) => version.id === id)?.root
  if (!root) return undefined
  const sessions = edgesOf(root, 'sessions')
  invariant(sessions, 'every version of LUO has sessions')
  const set = sessions.element.fields.file_set_ser
  invariant(set?.kind === 'struct', 'sessions hold a set of files')
  const files = edgesOf(set, 'files')
  invariant(files, 'a set of files leads to them')
  const flbs = edgesOf(root, 'flbs')
  invariant(flbs?.kind !== 'blocks', 'FLBs stand in an array')
  return { root, sessions, files, flbs }
}

/** The list of that name among the pointers of a node, its children, or a struct. */
function edgesOf(root: FdtNodeType | StructType, as: string): ArrayEdge | BlocksEdge | undefined {
  const members = root.kind === 'struct' ? root.fields : root.properties
  for (const member of Object.values(members)) {
    const edge: Edge | undefined = member.kind === 'int' ? member.to : undefined
    if ((edge?.kind === 'array' || edge?.kind === 'blocks') && edge.as === as) return edge
  }
  const children = root.kind === 'struct' ? [] : Object.values(root.children ?? {})
  for (const child of children) {
    const found = edgesOf(child, as)
    if (found) return found
  }
  return undefined
}
