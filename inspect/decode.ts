/**
 * Decoding a handover: from the root FDT to the typed tree and the list of faults.
 *
 * Never throws on account of the image. What lies behind a fault is left out, the rest stays.
 */
import { EARLY_MEMREMAP_MAX } from '../abi/boot.ts'
import type { Fault } from '../abi/fault.ts'
import { fdtHeader } from '../abi/fdt.ts'
import { fieldOf, isPageSize, type PageSize, type Target } from '../abi/layout.ts'
import { hex, type PhysAddr, type PhysicalMemory, type PhysRange, phys } from '../abi/memory.ts'
import {
  type ComponentVersion,
  componentByName,
  componentOfSubtree,
  formatContract,
  releases,
  satisfies,
} from '../abi/registry.ts'
import type { FdtNodeType } from '../abi/schema.ts'
import {
  bootRecord,
  decodeScratch,
  type KhoData,
  type ScratchArray,
  scratchFacts,
  scratchRanges,
} from './boot-entry.ts'
import { Budget } from './budget.ts'
import { reach, type WalkContext } from './chain.ts'
import { compatiblesOf, distinguish, FdtDecoder, misfit } from './component-fdt.ts'
import { restoreNames } from './cut-fdt.ts'
import { behind, FaultList, type Place, ROOT, within } from './faults.ts'
import type { Fdt, FdtNode } from './fdt.ts'
import { mapEdge, pageSizesToTry, type Reading, tryReadings } from './reading.ts'
import { decodeBlob, listedNode, type PlacedFdt, readPlacedFdt } from './subtree.ts'
import { decodeText } from './text.ts'
import { child, childrenOf, type Node, numberAt, type RecordNode } from './tree.ts'

/** What is known from outside the handover itself. */
export interface DecodeOptions {
  /** Told by the user. */
  readonly pageSize?: PageSize
  /** Version id (`kho-v1/bitmap-512`), contract string or release name, told by the user. */
  readonly abi?: string
  /** The boot entry: from a note, or from options. */
  readonly boot?: KhoData
  /** The array of scratch areas, told by the user; goes before that of the boot entry. */
  readonly scratchArray?: ScratchArray
  /** Scratch areas where they are known without a boot entry. */
  readonly scratch?: readonly PhysRange[]
  /** A root FDT of which nobody knows the address: a bare blob, or a copy of debugfs. */
  readonly detached?: Uint8Array
  /** Blobs known by name although the root FDT may not say where they are (debugfs). */
  readonly blobs?: ReadonlyMap<string, Uint8Array>
  /** Puts such a blob into memory at the address that the root FDT tells. */
  readonly placeBlob?: (pa: PhysAddr, bytes: Uint8Array) => void
}

export interface Handover {
  readonly memory: PhysicalMemory
  readonly target: Target
  /** The root FDT's address; undefined for a detached one. */
  readonly fdt: PhysAddr | undefined
  /** Undefined where the root's compatible string is not known. */
  readonly version: ComponentVersion | undefined
  /** All readings that were tried, best first; one where nothing was in doubt. */
  readonly readings: readonly Reading[]
  readonly tree: RecordNode
  readonly fdts: readonly PlacedFdt[]
  readonly faults: readonly Fault[]
  /** Blobs of which nothing tells where they lie, by their component's key. */
  readonly looseBlobs: ReadonlyMap<string, Uint8Array>
  /** Where the scratch array lies, as far as the boot entry or the user tells. */
  readonly scratchArray: ScratchArray | undefined
}

/** Decodes the handover whose root FDT lies at `pa` (0 for a detached one). */
export function decodeHandover(memory: PhysicalMemory, pa: PhysAddr, options: DecodeOptions = {}): Handover {
  return new HandoverDecoder(memory, pa, options).decode()
}

const FALLBACK_PAGE_SIZE: PageSize = 4096
/** A subsystem may preserve anything of its own, not only whole pages. */
const ANY_ADDRESS = 1

/** What the handover is comes first, then the subsystems in the order of the root FDT. */
const FIRST = ['kho', 'boot', 'scratch', 'preserved', 'subtrees']

function byRank(a: Node, b: Node): number {
  const rank = ({ segment }: Node): number => {
    const index = FIRST.indexOf(String(segment))
    return index < 0 ? FIRST.length : index
  }
  return rank(a) - rank(b)
}

class HandoverDecoder {
  readonly #memory: PhysicalMemory
  readonly #pa: PhysAddr
  readonly #options: DecodeOptions
  readonly #faults: FaultList
  readonly #children: Node[] = []
  readonly #looseBlobs = new Map<string, Uint8Array>()
  readonly #fdts: PlacedFdt[] = []
  #target: Target

  constructor(memory: PhysicalMemory, pa: PhysAddr, options: DecodeOptions) {
    this.#memory = memory
    this.#pa = pa
    this.#options = options
    this.#faults = new FaultList(memory)
    this.#target = { pageSize: this.#knownPageSize() ?? FALLBACK_PAGE_SIZE }
  }

  decode(): Handover {
    const place = within(ROOT, 'kho')
    const fdt = this.#readRoot(place)
    const scratch = this.#decodeBoot()
    if (!fdt?.root) return this.#result(undefined, [])
    const versions = this.#allowed(compatiblesOf(fdt.root))
    if (versions.length === 0) {
      this.#unknownRoot(fdt, place)
      return this.#result(undefined, [])
    }
    const readings = this.#tryReadings(fdt, versions, scratch, place)
    const best = readings[0] as Reading
    this.#target = best.target
    this.#noteDoubt(readings, place)
    this.#hangRoot(fdt, best, place)
    this.#decodeSubtrees(this.#context())
    return this.#result(best.version, readings, best.faults.list())
  }

  #knownPageSize(): PageSize | undefined {
    if (this.#options.pageSize) return this.#options.pageSize
    const claimed = Number(this.#options.boot?.fdt_size ?? 0n)
    return isPageSize(claimed) ? claimed : undefined
  }

  #context(): WalkContext {
    return {
      memory: this.#memory,
      target: this.#target,
      faults: this.#faults,
      reached: new Map(),
      budget: new Budget(),
    }
  }

  #result(
    version: ComponentVersion | undefined,
    readings: readonly Reading[],
    mapFaults: readonly Fault[] = [],
  ): Handover {
    const doc = 'A handover.'
    const root: Omit<RecordNode, 'children'> = {
      kind: 'record',
      segment: '',
      pa: this.#pa,
      length: 0,
      type: undefined,
      doc,
    }
    return {
      memory: this.#memory,
      target: this.#target,
      fdt: this.#options.detached ? undefined : this.#pa,
      version,
      readings,
      tree: { ...root, children: this.#children.sort(byRank) },
      fdts: this.#fdts,
      faults: [...mapFaults, ...this.#faults.list()],
      looseBlobs: this.#looseBlobs,
      scratchArray: this.#scratchArray,
    }
  }

  #readRoot(place: Place): Fdt | undefined {
    const { detached } = this.#options
    const context = detached
      ? { ...this.#context(), memory: looseMemory(detached, this.#memory) }
      : this.#context()
    const placeOfNode = listedNode(ROOT, 'subtrees')
    const fdt = readPlacedFdt(context, this.#pa, EARLY_MEMREMAP_MAX, place, placeOfNode)
    if (!fdt) return undefined
    const named = restoreNames(fdt, componentByName('kho').versions, this.#target)
    if (!detached) this.#fdts.push({ path: 'kho', pa: this.#pa, fdt: named })
    return named
  }

  /** The versions that the root's strings name; if the user tells, just what he says. */
  #allowed(found: readonly string[]): readonly ComponentVersion[] {
    const { versions } = componentByName('kho')
    const { abi } = this.#options
    if (abi !== undefined) return versions.filter((version) => khoVersionIds(abi).includes(version.id))
    return versions.filter((version) => found.some((text) => satisfies(version.contract, text)))
  }

  #unknownRoot(fdt: Fdt, place: Place): void {
    const found = compatiblesOf(fdt.root)
    this.#faults.add(within(place, 'compatible'), 'COMPATIBLE_UNKNOWN', {
      pa: this.#pa,
      length: fdt.bytes.length,
      message: `root FDT at ${hex(this.#pa)} is compatible with '${found.join("', '")}'`,
      expected: knownContracts().join(', '),
      found: found.join(', ') || 'no compatible property',
    })
    this.#hangTree(this.#likelyRoot(fdt.root as FdtNode, place), fdt)
  }

  /** An unknown root by the declaration that fits its nodes best: its own nodes, nothing that they point to. */
  #likelyRoot(node: FdtNode, place: Place): RecordNode {
    const types = componentByName('kho').versions.map(({ root }) => root as FdtNodeType)
    const distances = types.map((type) => misfit(type, node, this.#target))
    const best = types[distances.lastIndexOf(Math.min(...distances))] as FdtNodeType
    const context = { ...this.#context(), faults: new FaultList(this.#memory) }
    return new FdtDecoder(context, this.#pa, ROOT).decode(best, node, 'kho', place)
  }

  #tryReadings(
    fdt: Fdt,
    versions: readonly ComponentVersion[],
    scratch: readonly PhysRange[],
    place: Place,
  ): readonly Reading[] {
    const property = mapEdge(versions[0] as ComponentVersion)?.property
    const stored = fdt.root?.properties.find((candidate) => candidate.name === property)
    const facts = {
      fdt: this.#options.detached ? undefined : this.#pa,
      root: stored?.value.length === 8 ? readU64(stored.value) : 0n,
      rootPa: phys(this.#pa + BigInt(stored?.valueOffset ?? 0)),
      blobs: blobAddresses(fdt, versions),
      scratch,
    }
    const sizes = pageSizesToTry(this.#knownPageSize())
    return tryReadings(this.#memory, versions, sizes, facts, within(place, 'memory_map'))
  }

  /** A reading that scores as well but finds other units is worth a word. */
  #noteDoubt(readings: readonly Reading[], place: Place): void {
    const best = readings[0] as Reading
    const { entries, bytes } = best.map.summary()
    const rival = readings.slice(1).find((reading) => {
      if (reading.score < best.score) return false
      const summary = reading.map.summary()
      return summary.entries !== entries || summary.bytes !== bytes
    })
    if (!rival) return
    this.#faults.add(within(place, 'memory_map'), 'MAP_AMBIGUOUS', {
      pa: this.#pa,
      length: 8,
      severity: 'warning',
      message: `the image fits ${describe(best)} as well as ${describe(rival)}; tell with --abi or --page-size`,
      expected: 'evidence for one reading',
      found: `both score ${best.score}`,
    })
  }

  /** kho: address and size first, then the stored fields; map and subtrees hang on the root of the tree. */
  #hangRoot(fdt: Fdt, reading: Reading, place: Place): void {
    const decoder = new FdtDecoder(this.#context(), this.#pa, ROOT)
    const root = decoder.decode(reading.version.root as FdtNodeType, fdt.root as FdtNode, 'kho', place)
    this.#hangTree({ ...root, version: reading.version.id }, fdt)
    const { map } = reading
    const stored = numberAt(root, 'memory_map')
    if (stored === 0n || (stored !== undefined && map.pages.length > 0))
      this.#children.push({ kind: 'preserved', segment: 'preserved', pa: this.#pa, length: 0, map })
  }

  #hangTree(root: RecordNode, fdt: Fdt): void {
    const subtrees = child(root, 'subtrees')
    const children = [...this.#rootFacts(fdt), ...root.children.filter((node) => node !== subtrees)]
    distinguish(children)
    const length = this.#options.detached ? 0 : fdt.bytes.length
    this.#children.push({ ...root, pa: this.#pa, length, children })
    if (subtrees) this.#children.push(subtrees)
  }

  #rootFacts(fdt: Fdt): Node[] {
    const { offset, size } = fieldOf(fdtHeader, 'totalsize', this.#target)
    const type = fdtHeader.fields.totalsize
    const pa = phys(this.#pa + BigInt(offset))
    const totalsize: Node = {
      kind: 'value',
      segment: 'totalsize',
      pa,
      length: size,
      type,
      value: fdt.header.totalsize,
    }
    if (this.#options.detached) return [totalsize]
    const doc = 'Address of the root FDT.'
    const length = fdt.bytes.length
    return [
      { kind: 'fact', segment: 'fdt', pa: this.#pa, length, value: this.#pa, show: 'hex', doc },
      totalsize,
    ]
  }

  get #scratchArray(): ScratchArray | undefined {
    return this.#options.scratchArray ?? this.#options.boot
  }

  /** The boot entry and the scratch areas, as far as they are known. */
  #decodeBoot(): readonly PhysRange[] {
    const { boot, scratch } = this.#options
    if (boot) this.#children.push(bootRecord(boot))
    const array = this.#scratchArray
    const stored = array && array.scratch_addr !== 0n ? decodeScratch(this.#context(), array) : undefined
    const list = stored ?? (scratch && scratchFacts(scratch))
    if (!list) return []
    this.#children.push(list)
    return scratchRanges(list)
  }

  #decodeSubtrees(context: WalkContext): void {
    const list = this.#children.find((node) => node.segment === 'subtrees')
    const { blobs, placeBlob } = this.#options
    const placed = new Set<string>()
    for (const item of list ? childrenOf(list) : []) {
      const name = subtreeName(item)
      const bytes = blobs?.get(name)
      const pa = numberAt(item, 'phys')
      if (pa === undefined) continue
      if (bytes) placeBlob?.(phys(pa), bytes)
      placed.add(name)
    }
    context.reached.set(this.#pa, 'the root FDT')
    const found = new Set<string>()
    for (const item of list ? childrenOf(list) : []) {
      const name = baseName(subtreeName(item))
      this.#decodeSubtree(context, item, name, !found.has(name))
      found.add(name)
    }
    for (const [name, bytes] of blobs ?? []) {
      if (!placed.has(name)) this.#decodeLooseBlob(context, name, bytes)
    }
  }

  /** Of several nodes of one name the kernel finds the first; what the others lead to hangs on the node. */
  #decodeSubtree(context: WalkContext, item: Node, name: string, isFirst: boolean): void {
    const component = componentOfSubtree(name)
    const node = ['subtrees', item.segment] as const
    if (!isFirst) {
      context.faults.add(within(ROOT, ...node), 'VALUE_UNEXPECTED', {
        pa: item.pa,
        length: item.length,
        severity: 'warning',
        message: `a further node ${name}; the kernel finds the first one only`,
        expected: 'one node of this name',
        found: subtreeName(item),
      })
    }
    const address = numberAt(item, 'phys')
    if (address === undefined) return
    const pa = phys(address)
    const pointer = { path: [...node, 'phys'], pa: child(item, 'phys')?.pa ?? pa }
    const key = component && isFirst ? component.key : 'blob'
    const home = component && isFirst ? within(ROOT, key) : within(ROOT, ...node, key)
    const place = behind(home, pointer, pa)
    if (pa === 0n) {
      const message = `subtree ${name} has address 0`
      const details = { pa: pointer.pa, length: 8, message, expected: 'an address', found: '0x0' }
      context.faults.add(place, 'ADDRESS_NULL', details)
      return
    }
    if (!reach(context, pa, `the blob of subtree ${name}`, place, pointer, ANY_ADDRESS)) return
    const blob = { component, key, pa, size: numberAt(item, 'size'), place }
    const decoded = decodeBlob(context, blob, this.#fdts)
    if (decoded && key === component?.key) this.#children.push(decoded)
    else if (decoded) (item as RecordNode).children.push(decoded)
  }

  /** A blob whose address the (cut) root FDT does not tell; decoded in a memory of its own. */
  #decodeLooseBlob(context: WalkContext, name: string, bytes: Uint8Array): void {
    const component = componentOfSubtree(baseName(name))
    if (!component) return
    const { key } = component
    this.#looseBlobs.set(key, bytes)
    const loose: WalkContext = { ...context, memory: looseMemory(bytes, this.#memory) }
    const blob = { component, key, pa: phys(0), size: bytes.length, place: within(ROOT, key) }
    const node = decodeBlob(loose, blob, [])
    if (node) this.#children.push(node)
  }
}

/** The contract strings of all kho versions, each once. */
export function knownContracts(): readonly string[] {
  return [...new Set(componentByName('kho').versions.map(({ contract }) => formatContract(contract)))]
}

/** Ids of kho versions that a version id, a contract string or a release name stands for. */
export function khoVersionIds(abi: string): readonly string[] {
  const { versions } = componentByName('kho')
  const release = releases.find((candidate) => candidate.name === abi)
  if (release) return release.versions.kho === undefined ? [] : [release.versions.kho]
  return versions
    .filter((version) => version.id === abi || satisfies(version.contract, abi))
    .map((version) => version.id)
}

function describe(reading: Reading): string {
  return `${reading.version.id} at ${reading.target.pageSize / 1024}K pages`
}

/** Addresses that the root's child nodes hold, by whatever property the declaration calls a blob's. */
function blobAddresses(fdt: Fdt, versions: readonly ComponentVersion[]): readonly PhysAddr[] {
  const names = new Set<string>()
  for (const version of versions) {
    const node = (version.root as FdtNodeType).each?.node
    for (const [name, type] of Object.entries(node?.properties ?? {})) {
      if (type.kind === 'int' && type.to?.kind === 'blob') names.add(name)
    }
  }
  const values = (fdt.root?.children ?? []).flatMap((node) =>
    node.properties.filter(({ name }) => names.has(name ?? '')),
  )
  return values.filter(({ value }) => value.length === 8).map(({ value }) => phys(readU64(value)))
}

function readU64(bytes: Uint8Array): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getBigUint64(0, true)
}

function subtreeName(item: Node): string {
  const name = child(item, 'name')
  return name?.kind === 'value' && name.value instanceof Uint8Array ? decodeText(name.value) : ''
}

/** libfdt finds "LUO" also in a node called "LUO@something". */
function baseName(name: string): string {
  return name.split('@')[0] as string
}

/** The bytes of one blob at address 0, everything else as before. */
function looseMemory(bytes: Uint8Array, beyond: PhysicalMemory): PhysicalMemory {
  return {
    ranges: [{ start: phys(0), end: BigInt(bytes.length) }],
    read: (pa, out) => {
      if (pa >= BigInt(bytes.length)) return beyond.read(pa, out)
      const part = bytes.subarray(Number(pa), Number(pa) + out.length)
      out.set(part)
      return part.length
    },
    presence: (pa) =>
      pa < BigInt(bytes.length) ? { state: 'present', until: BigInt(bytes.length) } : beyond.presence(pa),
    filePosition: () => undefined,
  }
}
