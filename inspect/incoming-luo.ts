/**
 * The live update orchestrator's state as the next kernel reads it: luo_early_startup() at boot,
 * luo_session_deserialize() and luo_file_deserialize() at the first open of /dev/liveupdate, then every
 * file of every session retrieved.
 *
 * Mirrors kernel/liveupdate/luo_{core,session,file}.c of Linux 6.19.11, 7.1.13 and 7.3.4.
 */
import { ERRNO } from '../abi/errno.ts'
import { layoutOf } from '../abi/layout.ts'
import { phys } from '../abi/memory.ts'
import { componentByName, formatContract, versionById } from '../abi/registry.ts'
import type { ArrayEdge, BlocksEdge, Edge, FdtNodeType, StructType, TextType } from '../abi/schema.ts'
import { type Place, within } from './faults.ts'
import type { Incoming } from './incoming.ts'
import type { SetPointer } from './incoming-entries.ts'
import { readFlbs } from './incoming-flb.ts'
import { readSessions } from './incoming-session.ts'
import {
  type Blob,
  type BlobFdt,
  blobFdt,
  compatibleOf,
  retrieveSubtree,
  subtreePlace,
} from './incoming-subtree.ts'
import { decodeText } from './text.ts'
import { child } from './tree.ts'

/** What the root of the state leads to. */
interface LuoRoot {
  readonly sessions: SetPointer | undefined
  readonly flbs: SetPointer | undefined
}

const NAME = componentByName('luo').subtree as string

/** Everything from the blob on; nothing where the kernel has no LUO, or gives up before. */
export function readLuo(incoming: Incoming): void {
  const { subject } = incoming
  const spoken = subject.speaks('luo')
  const known = versionById(spoken ?? '')
  // A version that is not declared is read like the newest; what it demands is its own string.
  const version = known ?? (spoken === undefined ? undefined : componentByName('luo').versions.at(-1))
  const blob = retrieveSubtree(incoming, 'luo')
  if (!version) {
    if (blob !== 'missing') reportIgnored(incoming)
    return
  }
  if (blob === 'missing') return
  if (blob === 'broken') {
    incoming.report('LUO_SUBTREE', subtreePlace('luo'), {
      pa: subject.handover.fdt ?? phys(0),
      length: 4,
      message: 'the node of the live update state does not tell where it is',
      log: [NAME, -ERRNO.EINVAL],
    })
    return
  }
  const contract = known ? formatContract(known.contract) : (spoken as string)
  const root =
    version.root.kind === 'struct'
      ? rootOfStruct(incoming, version.root, contract, blob)
      : rootOfFdt(incoming, version.root, contract, blob)
  if (!root) return
  const sessions = readSessions(incoming, root.sessions, blob.place)
  readFlbs(incoming, root.flbs, blob.place, sessions)
}

function reportIgnored(incoming: Incoming): void {
  const node = child(incoming.subject.handover.tree, componentByName('luo').key)
  incoming.report('LUO_IGNORED', within({ path: [], via: [] }, componentByName('luo').key), {
    pa: node?.pa ?? phys(0),
    length: node?.length ?? 0,
    message: 'the kernel has no live update orchestrator: sessions, files and FLBs do not come back',
    expected: 'a kernel with LUO',
    found: incoming.subject.kernel.name,
  })
}

/** luo_early_startup() since 7.2. */
function rootOfStruct(
  incoming: Incoming,
  type: StructType,
  contract: string,
  blob: Blob,
): LuoRoot | undefined {
  const { target } = incoming.subject
  const { size } = layoutOf(type, target)
  const { pa, place } = blob
  const rule = 'LUO_SER_PRESERVED'
  incoming.claimUnit(place, { rule, what: type.name, restore: 'folio', pages: 1 }, pa, blob.pointer.pa)
  if (blob.size !== undefined && blob.size < BigInt(size)) {
    incoming.report('LUO_SIZE', place, {
      pa: blob.sizePa,
      length: 8,
      message: `the blob is smaller than struct ${type.name}`,
      expected: `at least ${size}`,
      found: String(blob.size),
      log: [blob.size, size],
    })
    return undefined
  }
  const bytes = incoming.bytes(pa, size, place)
  if (!bytes) return undefined
  const { bytes: length } = type.fields.compatible as TextType
  const found = decodeText(bytes.subarray(0, length))
  if (found !== contract) {
    const details = {
      pa,
      length,
      message: `the live update state says '${found}'`,
      expected: contract,
      found,
    }
    incoming.report('LUO_COMPATIBLE', within(place, 'compatible'), { ...details, log: [contract] })
    return undefined
  }
  const values = incoming.decode<Record<string, bigint>>(type, bytes)
  const setAt = (field: string): SetPointer | undefined => {
    const edge = edgeIn(type, field)
    const layout = layoutOf(type, target).fields.find(({ name }) => name === field)
    const at = phys(pa + BigInt(layout?.offset ?? 0))
    return (
      edge && { edge, target: values[field] as bigint, pointer: { path: [...place.path, field], pa: at } }
    )
  }
  return { sessions: setAt('sessions_pa'), flbs: setAt('flbs_pa') }
}

function edgeIn(type: StructType, field: string): ArrayEdge | BlocksEdge | undefined {
  const member = type.fields[field]
  return member?.kind === 'int' ? setEdge(member.to) : undefined
}

function setEdge(edge: Edge | undefined): ArrayEdge | BlocksEdge | undefined {
  return edge?.kind === 'array' || edge?.kind === 'blocks' ? edge : undefined
}

/** luo_early_startup() of 6.19 to 7.1. */
function rootOfFdt(incoming: Incoming, type: FdtNodeType, contract: string, blob: Blob): LuoRoot | undefined {
  const { pa, place, pointer } = blob
  incoming.claimUnit(
    place,
    { rule: 'LUO_SER_PRESERVED', what: 'FDT', restore: 'read', pages: 1 },
    pa,
    pointer.pa,
  )
  const found = blobFdt(incoming, blob)
  if (!found) return undefined
  const error = found.fdt.checkCompatible(0, contract)
  if (error !== 0) {
    const details = { ...compatibleOf(found, 0, contract), message: 'the FDT is of another version' }
    incoming.report('LUO_COMPATIBLE', within(place, 'compatible'), {
      ...details,
      log: [NAME, contract, error],
    })
    return undefined
  }
  if (!hasNumber(incoming, found, place)) return undefined
  const sets: (SetPointer | undefined)[] = []
  for (const [node, rules] of NODES) {
    const declared = type.children?.[node]
    const set = declared && setOfNode(incoming, found, node, declared, rules, place)
    if (declared && !set) return undefined
    sets.push(set)
  }
  return { sessions: sets[0], flbs: sets[1] }
}

const NUMBER = 'liveupdate-number'

function hasNumber(incoming: Incoming, { fdt, base }: BlobFdt, place: Place): boolean {
  const property = fdt.property(0, NUMBER)
  if (fdt.word64(0, NUMBER) !== undefined) return true
  const length = typeof property === 'number' ? property : property.value.length
  incoming.report('LUO_NUMBER', within(place, 'liveupdate_num'), {
    pa: typeof property === 'number' ? base : phys(base + BigInt(property.offset)),
    length: Math.max(length, 4),
    message: 'the number of live updates is missing or has another length',
    expected: '8 bytes',
    found: typeof property === 'number' ? 'it is not there' : `${length} bytes`,
    log: [NUMBER, length],
  })
  return false
}

interface NodeRules {
  readonly node: string
  readonly compatible: string
  readonly header: string
}

const SESSION_RULES: NodeRules = {
  node: 'LUO_SESSION_NODE',
  compatible: 'LUO_SESSION_COMPATIBLE',
  header: 'LUO_SESSION_HEADER',
}
const FLB_RULES: NodeRules = {
  node: 'LUO_FLB_NODE',
  compatible: 'LUO_FLB_COMPATIBLE',
  header: 'LUO_FLB_HEADER',
}

/** The nodes in the order in which the kernel comes to them. */
const NODES = [
  ['luo-session', SESSION_RULES],
  ['luo-flb', FLB_RULES],
] as const

/** luo_session_setup_incoming(), luo_flb_setup_incoming(): the node, its string, and the address in it. */
function setOfNode(
  incoming: Incoming,
  found: BlobFdt,
  name: string,
  type: FdtNodeType,
  rules: NodeRules,
  luo: Place,
): SetPointer | undefined {
  const { fdt, base } = found
  const place = within(luo, name)
  const node = fdt.subnode(0, name)
  if (node < 0) {
    const message = `the node ${name} is missing`
    incoming.report(rules.node, place, { pa: base, length: 4, message, log: [name] })
    return undefined
  }
  for (const [property, declared] of Object.entries(type.properties)) {
    if (declared.kind === 'compatible') {
      const error = fdt.checkCompatible(node, declared.value)
      if (error === 0) continue
      const details = {
        ...compatibleOf(found, node, declared.value),
        message: `${name} is of another version`,
      }
      const log = rules === SESSION_RULES ? [declared.value] : [declared.value, error]
      incoming.report(rules.compatible, within(place, property), { ...details, log })
      return undefined
    }
    const edge = declared.kind === 'int' ? setEdge(declared.to) : undefined
    if (!edge) continue
    const stored = fdt.property(node, property)
    const target = fdt.word64(node, property)
    if (target === undefined || typeof stored === 'number') {
      const length = typeof stored === 'number' ? stored : stored.value.length
      incoming.report(rules.header, within(place, property), {
        pa: typeof stored === 'number' ? base : phys(base + BigInt(stored.offset)),
        length: Math.max(length, 4),
        message: `the address in ${name} is missing or has another length`,
        expected: '8 bytes',
        found: typeof stored === 'number' ? 'it is not there' : `${length} bytes`,
        log: [property, length],
      })
      return undefined
    }
    const pa = phys(base + BigInt(stored.offset))
    return { edge, target, pointer: { path: [...place.path, property], pa } }
  }
  return undefined
}
