/**
 * Decoding a handover: from the address of a root FDT to the typed tree and the list of faults.
 *
 * Never throws on account of the image. What lies behind a fault is left out, the rest stays.
 */
import { EARLY_MEMREMAP_MAX, type khoData, khoScratch } from '../abi/boot.ts'
import type { Fault } from '../abi/fault.ts'
import { fdtHeader } from '../abi/fdt.ts'
import { fieldOf, isPageSize, layoutOf, type PageSize, type Target } from '../abi/layout.ts'
import { hex, type PhysAddr, type PhysicalMemory, type PhysRange, phys } from '../abi/memory.ts'
import {
  type Component,
  type ComponentVersion,
  componentByName,
  componentOfSubtree,
  releases,
  satisfies,
  versionsFor,
} from '../abi/registry.ts'
import type { FdtNodeType, Infer } from '../abi/schema.ts'
import type { WalkContext } from './chain.ts'
import { compatiblesOf, decodeFdtNode, decodeRecord, misfit, undeclaredNode } from './component.ts'
import { behind, FaultList, type Place, ROOT, within } from './faults.ts'
import { FDT_HEADER_SIZE, type Fdt, fdtTotalSize, hasFdtMagic, readFdt } from './fdt.ts'
import { readBytes, readLeading } from './read.ts'
import { mapEdge, pageSizesToTry, type Reading, tryReadings } from './reading.ts'
import { decodeStruct } from './record.ts'
import { decodeText } from './text.ts'
import { child, childrenOf, type ListNode, type Node, numberAt, type RecordNode } from './tree.ts'

export type KhoData = Infer<typeof khoData>

/** What is known from outside the handover itself. */
export interface DecodeOptions {
  /** Told by the user. */
  readonly pageSize?: PageSize
  /** Version id (`kho-v1/bitmap-512`), contract string or release name, told by the user. */
  readonly abi?: string
  /** The boot entry: from a note, or from options. */
  readonly boot?: KhoData
  /** Scratch areas where they are known without a boot entry. */
  readonly scratch?: readonly PhysRange[]
  /** Blobs known by name although the root FDT may not say where they are (debugfs). */
  readonly blobs?: ReadonlyMap<string, Uint8Array>
}

/** An FDT of the handover, for annotation. */
export interface PlacedFdt {
  readonly path: string
  readonly pa: PhysAddr
  readonly fdt: Fdt
}

export interface Handover {
  readonly memory: PhysicalMemory
  readonly target: Target
  /** The root FDT's address. */
  readonly fdt: PhysAddr
  /** Undefined where the root's compatible string is not known. */
  readonly version: ComponentVersion | undefined
  /** All readings that were tried, best first; one where nothing was in doubt. */
  readonly readings: readonly Reading[]
  readonly tree: RecordNode
  readonly fdts: readonly PlacedFdt[]
  readonly faults: readonly Fault[]
}

/** Largest blob of a subsystem that is read as one FDT. */
const MAX_BLOB_BYTES = 4 * 1024 * 1024
/** Bytes shown of a blob that nothing here knows. */
const RAW_BYTES = 256

/** Decodes the handover whose root FDT lies at `pa`. */
export function decodeHandover(memory: PhysicalMemory, pa: PhysAddr, options: DecodeOptions = {}): Handover {
  return new HandoverDecoder(memory, pa, options).decode()
}

class HandoverDecoder {
  readonly #memory: PhysicalMemory
  readonly #pa: PhysAddr
  readonly #options: DecodeOptions
  readonly #faults: FaultList
  readonly #children: Node[] = []
  readonly #fdts: PlacedFdt[] = []
  #target: Target

  constructor(memory: PhysicalMemory, pa: PhysAddr, options: DecodeOptions) {
    this.#memory = memory
    this.#pa = pa
    this.#options = options
    this.#faults = new FaultList(memory)
    this.#target = { pageSize: this.#knownPageSize() ?? 4096 }
  }

  decode(): Handover {
    const place = within(ROOT, 'kho')
    const fdt = this.#readFdt(this.#pa, EARLY_MEMREMAP_MAX, place, 'kho')
    const scratch = this.#decodeBoot()
    if (!fdt?.root) return this.#result(undefined, [])
    const found = compatiblesOf(fdt.root)
    const versions = this.#allowed(found)
    if (versions.length === 0) {
      this.#unknownRoot(fdt, found, place)
      return this.#result(undefined, [])
    }
    const readings = this.#read(fdt, versions, scratch, place)
    const best = readings[0] as Reading
    this.#target = best.target
    this.#noteDoubt(readings, place)
    const context = this.#context()
    const root = decodeFdtNode(
      context,
      best.version.root as FdtNodeType,
      fdt.root,
      { pa: this.#pa },
      'kho',
      place,
    )
    this.#hangRoot(root, fdt, best)
    this.#decodeSubtrees(context)
    return this.#result(best.version, readings, best.faults.list())
  }

  #knownPageSize(): PageSize | undefined {
    if (this.#options.pageSize) return this.#options.pageSize
    const claimed = Number(this.#options.boot?.fdt_size ?? 0n)
    return isPageSize(claimed) ? claimed : undefined
  }

  #context(): WalkContext {
    return { memory: this.#memory, target: this.#target, faults: this.#faults, reached: new Map() }
  }

  #result(
    version: ComponentVersion | undefined,
    readings: readonly Reading[],
    mapFaults: readonly Fault[] = [],
  ): Handover {
    const tree: RecordNode = {
      kind: 'record',
      segment: '',
      pa: this.#pa,
      length: 0,
      type: undefined,
      doc: 'A handover.',
      children: this.#children,
    }
    const faults = [...mapFaults, ...this.#faults.list()]
    return {
      memory: this.#memory,
      target: this.#target,
      fdt: this.#pa,
      version,
      readings,
      tree,
      fdts: this.#fdts,
      faults,
    }
  }

  /** Reads an FDT as far as the image holds it; its own faults become faults at `place`. */
  #readFdt(pa: PhysAddr, limit: number, place: Place, path: string): Fdt | undefined {
    const head = readLeading(this.#memory, pa, FDT_HEADER_SIZE)
    if (head.length === 0) {
      const read = readBytes(this.#memory, pa, FDT_HEADER_SIZE)
      if ('unreadable' in read) this.#faults.addUnreadable(place, FDT_HEADER_SIZE, read.unreadable)
      return undefined
    }
    const claimed = fdtTotalSize(head) ?? FDT_HEADER_SIZE
    const fdt = readFdt(readLeading(this.#memory, pa, Math.min(Math.max(claimed, FDT_HEADER_SIZE), limit)))
    for (const { code, offset, length, message, expected, found, nodes } of fdt.faults) {
      const at = phys(pa + BigInt(offset))
      this.#faults.add(within(place, ...nodes), code, { pa: at, length, message, expected, found })
    }
    this.#fdts.push({ path, pa, fdt })
    return fdt
  }

  /** The versions that the root's strings name, less those that the user ruled out. */
  #allowed(found: readonly string[]): readonly ComponentVersion[] {
    const kho = componentByName('kho')
    const named = kho.versions.filter((version) => found.some((text) => satisfies(version.contract, text)))
    const { abi } = this.#options
    if (abi === undefined) return named
    return named.filter((version) => khoVersionIds(abi).includes(version.id))
  }

  #unknownRoot(fdt: Fdt, found: readonly string[], place: Place): void {
    const known = [
      ...new Set(
        componentByName('kho').versions.map(({ contract }) => (contract as { value: string }).value),
      ),
    ]
    const told = this.#options.abi === undefined ? '' : ` (--abi ${this.#options.abi})`
    this.#faults.add(within(place, 'compatible'), 'COMPATIBLE_UNKNOWN', {
      pa: this.#pa,
      length: fdt.bytes.length,
      message: `root FDT at ${hex(this.#pa)} is compatible with '${found.join("', '")}'`,
      expected: `${known.join(', ')}${told}`,
      found: found.join(', ') || 'no compatible property',
    })
    const node = fdt.root && undeclaredNode(fdt.root, { pa: this.#pa })
    if (node) this.#children.push({ ...node, segment: 'kho' })
  }

  #read(
    fdt: Fdt,
    versions: readonly ComponentVersion[],
    scratch: readonly PhysRange[],
    place: Place,
  ): readonly Reading[] {
    const property = mapEdge(versions[0] as ComponentVersion)?.property
    const stored = fdt.root?.properties.find((candidate) => candidate.name === property)
    const root = stored?.value.length === 8 ? readU64(stored.value) : 0n
    const facts = {
      fdt: this.#pa,
      root,
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
      const summary = reading.map.summary()
      return reading.score === best.score && (summary.entries !== entries || summary.bytes !== bytes)
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

  /** kho: address and size first, then the stored fields; subtrees hang on the root of the tree. */
  #hangRoot(root: RecordNode, fdt: Fdt, reading: Reading): void {
    const { offset, size } = fieldOf(fdtHeader, 'totalsize', this.#target)
    const facts: Node[] = [
      {
        kind: 'fact',
        segment: 'fdt',
        pa: this.#pa,
        length: fdt.bytes.length,
        value: this.#pa,
        show: 'hex',
        doc: 'Address of the root FDT.',
      },
      {
        kind: 'value',
        segment: 'totalsize',
        pa: phys(this.#pa + BigInt(offset)),
        length: size,
        type: fdtHeader.fields.totalsize,
        value: fdt.header.totalsize,
      },
    ]
    const subtrees = child(root, 'subtrees')
    const children = [...facts, ...root.children.filter((node) => node !== subtrees)]
    this.#children.push({
      ...root,
      pa: this.#pa,
      length: fdt.bytes.length,
      children,
      version: reading.version.id,
    })
    const { map } = reading
    this.#children.push({ kind: 'preserved', segment: 'preserved', pa: this.#pa, length: 0, map })
    if (subtrees) this.#children.push(subtrees)
  }

  /** The boot entry and the scratch areas, as far as they are known. */
  #decodeBoot(): readonly PhysRange[] {
    const { boot, scratch } = this.#options
    if (boot) this.#children.push(bootRecord(boot))
    if (!boot || boot.scratch_addr === 0n) {
      if (scratch) this.#children.push(scratchFacts(scratch))
      return scratch ?? []
    }
    const place = behind(
      within(ROOT, 'scratch'),
      { path: ['boot', 'scratch_addr'], pa: phys(0) },
      boot.scratch_addr,
    )
    const { size } = layoutOf(khoScratch, this.#target)
    const length = Number(
      boot.scratch_size > BigInt(EARLY_MEMREMAP_MAX) ? BigInt(EARLY_MEMREMAP_MAX) : boot.scratch_size,
    )
    const read = readBytes(this.#memory, phys(boot.scratch_addr), length - (length % size))
    if ('unreadable' in read) {
      this.#faults.addUnreadable(place, length, read.unreadable)
      return []
    }
    const items: RecordNode[] = []
    for (let at = 0; at + size <= read.bytes.length; at += size) {
      const segment = { index: at / size }
      const element = { pa: phys(boot.scratch_addr + BigInt(at)), bytes: read.bytes.subarray(at, at + size) }
      items.push(decodeRecord(this.#context(), khoScratch, element, segment, within(place, segment)))
    }
    const list: ListNode = {
      kind: 'list',
      segment: 'scratch',
      pa: phys(boot.scratch_addr),
      length,
      doc: khoScratch.doc,
      items,
    }
    this.#children.push(list)
    return items.map((item) => {
      const start = phys(numberAt(item, 'addr') ?? 0n)
      return { start, end: start + BigInt(numberAt(item, 'size') ?? 0n) }
    })
  }

  #decodeSubtrees(context: WalkContext): void {
    const list = this.#children.find((node) => node.segment === 'subtrees')
    const seen = new Set<string>()
    for (const item of list ? childrenOf(list) : []) {
      const name = subtreeName(item)
      seen.add(name)
      this.#decodeSubtree(context, item, name)
    }
    for (const [name, bytes] of this.#options.blobs ?? []) {
      if (!seen.has(name)) this.#decodeLooseBlob(context, name, bytes)
    }
  }

  #decodeSubtree(context: WalkContext, item: Node, name: string): void {
    const component = componentOfSubtree(baseName(name))
    const address = numberAt(item, 'phys')
    if (address === undefined) return
    const pa = phys(address)
    const key = component?.key ?? name
    const pointer = { path: ['subtrees', item.segment, 'phys'], pa: child(item, 'phys')?.pa ?? pa }
    const place = behind(
      component ? within(ROOT, key) : within(ROOT, 'subtrees', item.segment, 'blob'),
      pointer,
      pa,
    )
    if (pa === 0n) {
      this.#faults.add(place, 'ADDRESS_NULL', {
        pa: pointer.pa,
        length: 8,
        message: `subtree ${name} has address 0`,
        expected: 'an address',
        found: '0x0',
      })
      return
    }
    const size = numberAt(item, 'size')
    const node = this.#decodeBlob(context, component, pa, size, place, key)
    if (!node) return
    if (component) this.#children.push(node)
    else (item as RecordNode).children.push({ ...node, segment: 'blob' } as Node)
  }

  /** A blob whose address the (cut) root FDT does not tell; decoded in a memory of its own. */
  #decodeLooseBlob(context: WalkContext, name: string, bytes: Uint8Array): void {
    const component = componentOfSubtree(baseName(name))
    if (!component) return
    const place = within(ROOT, component.key)
    const loose: WalkContext = { ...context, memory: looseMemory(bytes, this.#memory) }
    const node = this.#decodeBlob(loose, component, phys(0), bytes.length, place, component.key)
    if (node) this.#children.push(node)
  }

  /** One subsystem's blob: an FDT or a struct, by what its component's versions say; unknown ones stay raw. */
  #decodeBlob(
    context: WalkContext,
    component: Component | undefined,
    pa: PhysAddr,
    size: number | bigint | undefined,
    place: Place,
    key: string,
  ): Node | undefined {
    const head = readLeading(context.memory, pa, FDT_HEADER_SIZE)
    if (head.length === 0) {
      const read = readBytes(context.memory, pa, FDT_HEADER_SIZE)
      if ('unreadable' in read) context.faults.addUnreadable(place, FDT_HEADER_SIZE, read.unreadable)
      return undefined
    }
    const isFdt = hasFdtMagic(head)
    const places = component?.versions.map((version) => version.place.kind) ?? []
    if (isFdt && (!component || places.includes('fdt-compatible'))) {
      return this.#decodeFdtBlob(context, component, pa, size, place, key)
    }
    if (component && places.includes('field'))
      return this.#decodeStructBlob(context, component, pa, size, place, key)
    if (component) this.#blobUnknown(context, component, pa, place, 'no FDT')
    const length = Math.min(Number(size ?? RAW_BYTES), RAW_BYTES)
    const bytes = readLeading(context.memory, pa, length)
    return {
      kind: 'raw',
      segment: key,
      pa,
      length: Number(size ?? bytes.length),
      doc: 'Blob without a declaration.',
      bytes,
    }
  }

  #decodeFdtBlob(
    context: WalkContext,
    component: Component | undefined,
    pa: PhysAddr,
    size: number | bigint | undefined,
    place: Place,
    key: string,
  ): Node | undefined {
    const fdt = this.#readFdt(pa, MAX_BLOB_BYTES, place, key)
    if (!fdt?.root) return undefined
    const { totalsize } = fdt.header
    if (size !== undefined && BigInt(size) !== BigInt(totalsize)) {
      const expected = `${totalsize} bytes (totalsize)`
      const message = 'blob-size and the totalsize of the FDT disagree'
      context.faults.add(place, 'BLOB_SIZE', {
        pa,
        length: 8,
        severity: 'warning',
        message,
        expected,
        found: `${size} bytes`,
      })
    }
    const strings = compatiblesOf(fdt.root)
    const candidates = (component?.versions ?? []).filter((version) =>
      strings.some((text) => satisfies(version.contract, text)),
    )
    const version = leastMisfit(candidates, fdt, context.target)
    if (!version) {
      if (component) this.#blobUnknown(context, component, pa, place, `compatible '${strings.join("', '")}'`)
      return { ...undeclaredNode(fdt.root, { pa }), segment: key, length: fdt.bytes.length }
    }
    const record = decodeFdtNode(context, version.root as FdtNodeType, fdt.root, { pa }, key, place)
    return { ...record, pa, length: fdt.bytes.length, version: version.id }
  }

  #decodeStructBlob(
    context: WalkContext,
    component: Component,
    pa: PhysAddr,
    size: number | bigint | undefined,
    place: Place,
    key: string,
  ): Node | undefined {
    let found = 'nothing readable'
    for (const version of component.versions) {
      const { place: where, root } = version
      if (where.kind !== 'field' || root.kind !== 'struct') continue
      const length = layoutOf(root, context.target).size
      const read = readBytes(context.memory, pa, length)
      if ('unreadable' in read) {
        context.faults.addUnreadable(place, length, read.unreadable)
        return undefined
      }
      const value = (decodeStruct(root, read.bytes, context.target) as Record<string, unknown>)[where.field]
      const contract = value instanceof Uint8Array ? decodeText(value) : (value as number)
      found = `${where.field} ${typeof contract === 'string' ? `'${contract}'` : contract}`
      if (!versionsFor(component, contract).includes(version)) continue
      if (size !== undefined && BigInt(size) < BigInt(length)) {
        const message = `the blob is too small for ${version.id}`
        context.faults.add(place, 'BLOB_SIZE', {
          pa,
          length,
          message,
          expected: `${length} bytes`,
          found: `${size} bytes`,
        })
        return undefined
      }
      const record = decodeRecord(context, root, { pa, bytes: read.bytes }, key, place)
      return { ...record, version: version.id }
    }
    this.#blobUnknown(context, component, pa, place, found)
    return undefined
  }

  #blobUnknown(context: WalkContext, component: Component, pa: PhysAddr, place: Place, found: string): void {
    context.faults.add(place, 'COMPATIBLE_UNKNOWN', {
      pa,
      length: 8,
      message: `${component.name}: the blob at ${hex(pa)} says ${found}`,
      expected: component.versions.map((version) => version.id).join(', '),
      found,
    })
  }
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

function leastMisfit(
  versions: readonly ComponentVersion[],
  fdt: Fdt,
  target: Target,
): ComponentVersion | undefined {
  let best: ComponentVersion | undefined
  let least = Number.POSITIVE_INFINITY
  for (const version of versions) {
    const distance =
      version.root.kind === 'fdt-node' && fdt.root ? misfit(version.root, fdt.root, target) : least
    if (distance <= least) {
      least = distance
      best = version
    }
  }
  return best
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

function bootRecord(boot: KhoData): RecordNode {
  const children: Node[] = Object.entries(boot).map(([segment, value]) => ({
    kind: 'fact',
    segment,
    pa: phys(0),
    length: 0,
    value,
    show: segment.endsWith('addr') ? 'hex' : 'bytes',
    doc: 'From the boot entry.',
  }))
  return {
    kind: 'record',
    segment: 'boot',
    pa: phys(0),
    length: 0,
    type: undefined,
    doc: 'Boot entry.',
    children,
  }
}

/** Scratch areas that are known without their array (debugfs prints them as text). */
function scratchFacts(ranges: readonly PhysRange[]): ListNode {
  const items = ranges.map((range, index): RecordNode => {
    const fact = (segment: string, value: bigint, show: 'hex' | 'bytes'): Node => ({
      kind: 'fact',
      segment,
      pa: range.start,
      length: 0,
      value,
      show,
      doc: '',
    })
    const children = [fact('addr', range.start, 'hex'), fact('size', range.end - range.start, 'bytes')]
    return {
      kind: 'record',
      segment: { index },
      pa: range.start,
      length: 0,
      type: khoScratch,
      doc: khoScratch.doc,
      children,
    }
  })
  return { kind: 'list', segment: 'scratch', pa: phys(0), length: 0, doc: khoScratch.doc, items }
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
