/**
 * reserve_mem regions as reserve_mem_kho_revive() takes them over, one for each parameter of the next
 * kernel's command line (mm/memblock.c of Linux 6.17.8 and 7.3.4). Where that is not known, each region
 * is asked for as it is.
 */
import type { ReserveMem } from '../abi/command-line.ts'
import { ERRNO } from '../abi/errno.ts'
import { RESERVE_MEM_MAX_ENTRIES, RESERVE_MEM_NAME_SIZE, SMP_CACHE_BYTES } from '../abi/memblock.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName, formatContract, versionById } from '../abi/registry.ts'
import type { FdtNodeType } from '../abi/schema.ts'
import { type ReserveMemRequest, reserveMemRequests } from './command-line.ts'
import { type Place, within } from './faults.ts'
import type { Incoming, Remark } from './incoming.ts'
import {
  type Blob,
  type BlobFdt,
  blobFdt,
  compatibleOf,
  retrieveSubtree,
  subtreePlace,
} from './incoming-subtree.ts'
import { KernelFdt } from './kernel-fdt.ts'

const COMPONENT = componentByName('memblock')
const NAME = COMPONENT.subtree as string

export function readMemblock(incoming: Incoming): void {
  const { subject } = incoming
  const version = versionById(subject.speaks('memblock') ?? '')
  if (version?.root.kind !== 'fdt-node') return
  const blob = retrieveSubtree(incoming, 'memblock')
  if (blob === 'missing') {
    eachRequest(incoming, reserveMemRequests(subject.commandLine ?? ''), () => {})
    return
  }
  if (blob === 'broken') {
    reportBroken(incoming)
    return
  }
  const { place, pa, pointer } = blob
  incoming.claimUnit(
    place,
    { rule: 'MEMBLOCK_PRESERVED', what: 'FDT', restore: 'read', pages: 1 },
    pa,
    pointer.pa,
  )
  const found = blobFdt(incoming, blob)
  if (!found && incoming.mayBePreserved(pa)) return
  const read = found ?? { fdt: new KernelFdt(new Uint8Array(0), pa), base: pa }
  new Revival(incoming, read, version.root, blob).run(formatContract(version.contract))
}

function reportBroken(incoming: Incoming): void {
  const message = 'the node of the regions does not tell where they are'
  const details = { pa: incoming.subject.handover.fdt ?? phys(0), length: 4, message }
  refuseAll(incoming, 'MEMBLOCK_SUBTREE', subtreePlace('memblock'), details, [NAME, -ERRNO.EINVAL])
}

/** What holds for all regions is said once for each that is asked for. */
function refuseAll(
  incoming: Incoming,
  id: string,
  place: Place,
  remark: Remark,
  values: readonly (string | number | bigint)[],
): void {
  incoming.report(id, place, { ...remark, log: values, affects: [COMPONENT.key] })
  const { commandLine } = incoming.subject
  if (commandLine === undefined) incoming.regionLines.push({ kind: 'check', id, values })
  else
    eachRequest(incoming, reserveMemRequests(commandLine), () => {
      incoming.regionLines.push({ kind: 'check', id, values })
    })
}

/** The regions that the kernel looks for; of a parameter that it refuses, its line. */
function eachRequest(
  { regionLines }: Incoming,
  requests: readonly ReserveMemRequest[],
  look: (region: ReserveMem) => void,
): void {
  for (const { region, refusal } of requests) {
    if (refusal) regionLines.push({ kind: 'line', ...refusal })
    else if (region) look(region)
  }
}

/** A region of the image. */
interface Region {
  readonly name: string
  readonly node: number
  readonly place: Place
}

interface Extent {
  readonly start: bigint
  readonly size: bigint
  readonly startPa: PhysAddr
  readonly sizePa: PhysAddr
}

class Revival {
  readonly #incoming: Incoming
  readonly #found: BlobFdt
  readonly #type: FdtNodeType
  readonly #place: Place
  readonly #revived: { readonly region: Region; readonly extent: Extent }[] = []

  constructor(incoming: Incoming, found: BlobFdt, type: FdtNodeType, blob: Blob) {
    this.#incoming = incoming
    this.#found = found
    this.#type = type
    this.#place = blob.place
  }

  run(contract: string): void {
    const { fdt } = this.#found
    const error = fdt.checkCompatible(0, contract)
    if (error !== 0) {
      const details = { ...compatibleOf(this.#found, 0, contract), message: 'the FDT is of another version' }
      const place = within(this.#place, 'compatible')
      refuseAll(this.#incoming, 'MEMBLOCK_COMPATIBLE', place, details, [NAME, contract, error])
      return
    }
    const regions = this.#regions()
    const { commandLine } = this.#incoming.subject
    const asked = commandLine === undefined ? undefined : reserveMemRequests(commandLine)
    this.#reportNames(regions, asked)
    if (asked) eachRequest(this.#incoming, asked, (wanted) => this.#revive(wanted.name, regions, wanted))
    else
      for (const { name } of regions.slice(0, RESERVE_MEM_MAX_ENTRIES)) this.#revive(name, regions, undefined)
    this.#reportOverlaps()
  }

  /** The nodes of the FDT, as libfdt comes to them. */
  #regions(): readonly Region[] {
    const { fdt } = this.#found
    const named = [...fdt.subnodes(0)].flatMap((node) => {
      const name = node < 0 ? undefined : fdt.nodeName(node)
      return name === undefined ? [] : { name, node }
    })
    return named.map(({ name, node }, index) => {
      const isAlone = named.filter((other) => other.name === name).length === 1
      const segment = isAlone ? { index, key: name } : { index }
      return { name, node, place: within(this.#place, this.#type.each?.as ?? '', segment) }
    })
  }

  /** Names that no parameter can have, regions that none asks for, and more than there is room for. */
  #reportNames(regions: readonly Region[], requests: readonly ReserveMemRequest[] | undefined): void {
    const asked = requests?.flatMap(({ region }) => region ?? [])
    const inTime = requests?.filter(({ refusal }) => refusal?.id !== 'RESERVE_MEM_FULL')
    for (const [index, { name, node, place }] of regions.entries()) {
      const where = {
        pa: phys(this.#found.base + BigInt(node)),
        length: name.length,
        found: JSON.stringify(name),
      }
      const isFirst = regions.findIndex((region) => region.name === name) === index
      if (name === '' || name.length >= RESERVE_MEM_NAME_SIZE || !isFirst) {
        const message = isFirst
          ? 'no parameter can have this name'
          : 'a region in front of it has the same name'
        const expected = `1 to ${RESERVE_MEM_NAME_SIZE - 1} bytes, each name once`
        this.#incoming.report('RESERVE_MEM_NAME', place, { ...where, message, expected })
      } else if (asked && !asked.some((wanted) => wanted.name === name)) {
        const expected = asked.map((wanted) => wanted.name).join(', ') || 'no region'
        const message = 'the command line does not ask for this region'
        this.#incoming.report('RESERVE_MEM_NOT_ASKED', place, { ...where, message, expected })
      } else if (
        inTime ? !inTime.some(({ region }) => region?.name === name) : index >= RESERVE_MEM_MAX_ENTRIES
      ) {
        const message = `the kernel has room for ${RESERVE_MEM_MAX_ENTRIES} regions`
        const expected = `at most ${RESERVE_MEM_MAX_ENTRIES} regions`
        this.#incoming.report('RESERVE_MEM_FULL', place, {
          ...where,
          message,
          expected,
          found: `region ${index + 1}`,
        })
      }
    }
  }

  /** reserve_mem_kho_revive() */
  #revive(name: string, regions: readonly Region[], wanted: ReserveMem | undefined): void {
    this.#incoming.advance()
    const found = this.#found.fdt.subnode(0, name)
    const region = regions.find((candidate) => candidate.node === found)
    if (!region) {
      const message = 'the command line asks for a region that the handover does not have'
      const place = within(this.#place, this.#type.each?.as ?? '', { index: regions.length, key: name })
      const details = { pa: this.#found.base, length: 4, message, expected: name, found: 'no such node' }
      this.#refuse('RESERVE_MEM_NODE', place, details, [NAME, name, found])
      return
    }
    const { node, place } = region
    for (const [property, declared] of Object.entries(this.#type.each?.node.properties ?? {})) {
      if (declared.kind !== 'compatible') continue
      const error = this.#found.fdt.checkCompatible(node, declared.value)
      if (error === 0) continue
      const details = {
        ...compatibleOf(this.#found, node, declared.value),
        message: 'the region is of another version',
      }
      this.#refuse('RESERVE_MEM_COMPATIBLE', within(place, property), details, [name, declared.value, error])
      return
    }
    const extent = this.#extent(region)
    if (!extent || !this.#fits(region, extent, wanted)) return
    this.#incoming.regionLines.push({ kind: 'line', id: 'RESERVE_MEM_REVIVED', values: [name] })
    this.#revived.push({ region, extent })
    this.#claim(region, extent)
  }

  #refuse(id: string, place: Place, remark: Remark, values?: readonly (string | number | bigint)[]): void {
    this.#incoming.report(id, place, { ...remark, ...(values && { log: values }) })
    if (values) this.#incoming.regionLines.push({ kind: 'check', id, values })
  }

  /** `start` and `size`; undefined, without a word of the kernel, where one is missing or has another length. */
  #extent({ node, place }: Region): Extent | undefined {
    const { fdt, base } = this.#found
    const words: Record<string, { value: bigint; pa: PhysAddr }> = {}
    for (const field of ['start', 'size'] as const) {
      const property = fdt.property(node, field)
      const value = fdt.word64(node, field)
      if (typeof property === 'number' || value === undefined) {
        const found = typeof property === 'number' ? 'it is not there' : `${property.value.length} bytes`
        const pa = typeof property === 'number' ? base : phys(base + BigInt(property.offset))
        const details = {
          pa,
          length: 4,
          message: `${field} is missing or has another length`,
          expected: '8 bytes',
          found,
        }
        this.#refuse(`RESERVE_MEM_${field.toUpperCase()}`, within(place, field), details)
        return undefined
      }
      words[field] = { value, pa: phys(base + BigInt(property.offset)) }
    }
    const [start, size] = [words.start, words.size] as [
      { value: bigint; pa: PhysAddr },
      { value: bigint; pa: PhysAddr },
    ]
    return { start: start.value, size: size.value, startPa: start.pa, sizePa: size.pa }
  }

  /** Alignment and size against what the parameter asks for. */
  #fits(
    { name, place }: Region,
    { start, size, startPa, sizePa }: Extent,
    wanted: ReserveMem | undefined,
  ): boolean {
    const align = wanted?.align ?? SMP_CACHE_BYTES
    if ((start & (align - 1n)) !== 0n) {
      const message = 'the region does not have the alignment that is asked for'
      const details = {
        pa: startPa,
        length: 8,
        message,
        expected: `a multiple of ${hex(align)}`,
        found: hex(start),
      }
      this.#refuse('RESERVE_MEM_ALIGNMENT', within(place, 'start'), details, [name, align, start])
      return false
    }
    if (wanted ? size === wanted.size : size !== 0n) return true
    const message = 'the region does not have the size that is asked for'
    const expected = wanted ? hex(wanted.size) : 'more than 0'
    const details = { pa: sizePa, length: 8, message, expected, found: hex(size) }
    this.#refuse('RESERVE_MEM_SAME_SIZE', within(place, 'size'), details, [name, size, wanted?.size ?? 0n])
    return false
  }

  /** The range is put into a table, and nothing asks whether it is preserved. */
  #claim({ place }: Region, { start, size, startPa, sizePa }: Extent): void {
    const { subject } = this.#incoming
    const page = BigInt(subject.target.pageSize)
    const pages = Number(size / page)
    const claimed = { rule: 'RESERVE_MEM_PRESERVED', what: 'region', restore: 'read', pages } as const
    if (pages > 0) this.#incoming.claimUnit(place, claimed, start, startPa)
    const end = start + size
    const last = subject.pfn(end - 1n)
    const isTail = last >= subject.pfn(start) + pages
    if (!isTail || !subject.traits.preservesPages || this.#incoming.mayBePreserved(end - 1n)) return
    this.#incoming.report('RESERVE_MEM_TAIL', within(place, 'size'), {
      pa: sizePa,
      length: 8,
      message: 'the last part of the region is no whole page, and not preserved',
      expected: `a multiple of ${page}, or its last page preserved`,
      found: `${size} bytes at ${hex(start)}`,
    })
  }

  #reportOverlaps(): void {
    const sorted = this.#revived.toSorted((a, b) => (a.extent.start < b.extent.start ? -1 : 1))
    for (const [i, { region, extent }] of sorted.entries()) {
      const previous = sorted[i - 1]
      if (!previous || previous.extent.start + previous.extent.size <= extent.start) continue
      this.#incoming.report('RESERVE_MEM_OVERLAP', within(region.place, 'start'), {
        pa: extent.startPa,
        length: 8,
        message: `the region reaches into '${previous.region.name}'`,
        expected: 'memory of its own',
        found: `${hex(extent.start)}, ${extent.size} bytes`,
      })
    }
  }
}
