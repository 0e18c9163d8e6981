/**
 * What the live update orchestrator needs of its kernel, and what the code of a release does that its
 * formats do not say.
 */
import type { FormatArgument } from '../abi/console.ts'
import { invariant } from '../abi/fault.ts'
import { componentByName, releaseIndex, releases } from '../abi/registry.ts'
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

/**
 * From which release on the code does what. A stable series that began without it has it from an update on,
 * see `UPDATES`.
 */
const SINCE = {
  /** Session names that are empty or fill the field without a NUL are refused. */
  checksNames: 'kho-v2',
  /** An ioctl on a session of the wrong side of the reboot is refused. */
  checksSides: 'kho-v2',
  /** What is preserved, or retrieved and not yet finished, is known by its identity. */
  knowsPreserved: 'kho-v2',
  /** After a successful serialization every operation on sessions blocks. */
  keepsLock: 'kho-v2',
  /** Whatever fails while sessions are deserialized is remembered and answered to every open. */
  remembersErrors: 'linux-7.0',
  /** The name of a handler that nobody registered is printed as far as its field goes. */
  boundsNames: 'linux-7.0',
  /** File handlers and FLBs may be registered while there are sessions; modules are pinned file by file. */
  registersAnytime: 'kho-v2',
  /** An FLB that is looked up is held by who asked, and counted by a refcount_t. */
  countsFlbReferences: 'kho-v2',
  /** A file that failed to be retrieved is not tried again. */
  keepsRetrieveError: 'linux-6.19',
  /** kexec with preserve_context leaves LUO alone. */
  skipsPreserveContext: 'kho-v2',
  /** FINISH demands that its reserved word is zero. */
  checksReserved: 'linux-7.2',
  /** A failed retrieve() of an FLB is not tried again; its outgoing object can be held by the kernel. */
  countsFlbUsers: 'linux-7.2',
  /** memfd: the exec seal pulls in the others before pins are looked for, not after. */
  sealsExecFirst: 'kho-v2',
  /** tmpfs: a write is tried in pieces of the largest folio, where mounts without large folios took pages. */
  writesLargeFolios: 'linux-7.3',
  /** memfd: what cannot be inserted does not keep the folios behind it from being freed. */
  freesRest: 'kho-v2',
  /** memfd: a folio that is not to be had is an error behind others too; before, the answer is theirs. */
  failsForLaterFolio: 'kho-v2',
} as const

export type LuoTrait = keyof typeof SINCE
export type LuoTraits = Readonly<Record<LuoTrait, boolean>>

/** The first update in which it was seen; the last one seen without it is 6.19.6, 7.1.3. */
const UPDATES: Readonly<Record<string, { readonly update: number; readonly traits: readonly LuoTrait[] }>> = {
  'linux-6.19': { update: 11, traits: ['keepsRetrieveError'] },
  'linux-7.1': {
    update: 13,
    traits: ['checksNames', 'checksSides', 'keepsLock', 'skipsPreserveContext', 'countsFlbReferences'],
  },
}

/** What a release does in one of its versions; a version that names no update is the newest one known. */
export function luoTraits(release: string, version: string): LuoTraits {
  const index = releaseIndex(release)
  const [, series, update] = /^(\d+\.\d+)\.(\d+)/.exec(version) ?? []
  const later = `linux-${series}` === release ? UPDATES[release] : undefined
  const lacking = later && Number(update) < later.update ? later.traits : []
  const entries = Object.entries(SINCE).map(([trait, since]) => [
    trait,
    index >= releaseIndex(since) && !lacking.includes(trait as LuoTrait),
  ])
  return Object.fromEntries(entries) as LuoTraits
}
