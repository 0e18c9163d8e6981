/**
 * What is judged: a decoded handover, the kernel that is to take it over, and what both need to be
 * looked at from: the decoder's faults, the preserved units, and everything that refers to memory.
 */
import type { Fault, FaultCode } from '../abi/fault.ts'
import { type KernelTraits, kernelTraits } from '../abi/kernel-traits.ts'
import type { Target } from '../abi/layout.ts'
import { type PhysAddr, type PhysicalMemory, type PhysRange, phys } from '../abi/memory.ts'
import type { ComponentName } from '../abi/registry.ts'
import { scratchRanges } from './boot-entry.ts'
import type { ClaimGroup } from './claim.ts'
import { ClaimList } from './claim-list.ts'
import type { Handover } from './decode.ts'
import { FaultPool, isWithin } from './fault-pool.ts'
import { FaultList, ROOT } from './faults.ts'
import { KernelFdt } from './kernel-fdt.ts'
import { KnownMemory } from './known-memory.ts'
import type { PreservedMap } from './map.ts'
import { walkMap } from './map-walk.ts'
import type { TargetKernel } from './target-kernel.ts'
import { child, type ListNode, type Node, numberAt, type RecordNode } from './tree.ts'
import { UnitIndex } from './unit-index.ts'

/** Tells what one part of a handover refers to. */
export type ClaimProvider = (subject: Subject) => Iterable<ClaimGroup>

export class Subject {
  /** As the kernel reads it. */
  readonly handover: Handover
  /** As the old kernel wrote it, by what speaks for it. */
  readonly written: Handover
  readonly kernel: TargetKernel
  /** What the kernel's code does that its formats do not say. */
  readonly traits: KernelTraits
  readonly faults: FaultPool
  /** The next kernel's command line, where it is known. */
  readonly commandLine: string | undefined
  readonly scratch: readonly PhysRange[]
  readonly #providers: readonly ClaimProvider[]
  #claims: readonly ClaimGroup[] | undefined
  #claimed: ClaimList | undefined
  #units: UnitIndex | undefined
  #kernelWalk: WalkedByKernel | undefined
  #known: KnownMemory | undefined

  constructor(
    handover: Handover,
    written: Handover,
    kernel: TargetKernel,
    commandLine: string | undefined,
    providers: readonly ClaimProvider[],
  ) {
    this.handover = handover
    this.written = written
    this.kernel = kernel
    this.traits = kernelTraits(kernel.release.name)
    this.commandLine = commandLine
    this.faults = new FaultPool(handover.faults)
    const scratch = child(handover.tree, 'scratch')
    this.scratch = scratch?.kind === 'list' ? scratchRanges(scratch as ListNode) : []
    this.#providers = providers
  }

  /** fdt_check_header() for the root FDT; undefined where the image does not hold it. */
  get headerError(): number | undefined {
    const placed = this.handover.fdts.find(({ path }) => path === 'kho')
    return placed && new KernelFdt(placed.fdt.bytes, placed.pa).checkHeader(this.traits.alignsFdtBlocks)
  }

  /** The root FDT as the kernel sees it; undefined where the image does not hold all of its blocks. */
  get root(): KernelFdt | undefined {
    const placed = this.handover.fdts.find(({ path }) => path === 'kho')
    if (!placed) return undefined
    const { bytes, header, stringsCut } = placed.fdt
    const isThere = !stringsCut && header.off_dt_struct + header.size_dt_struct <= bytes.length
    return isThere || bytes.length >= header.totalsize ? new KernelFdt(bytes, placed.pa) : undefined
  }

  get memory(): PhysicalMemory {
    return this.handover.memory
  }

  /** Page size. */
  get target(): Target {
    return this.handover.target
  }

  /** Name of the release whose readers judge. */
  get release(): string {
    return this.kernel.release.name
  }

  /** Id of the version that the kernel speaks. */
  speaks(component: ComponentName): string | undefined {
    return this.kernel.versions[component]
  }

  /** A component's record in the tree (`kho`, `luo`, `memblock`); undefined where it is none. */
  record(key: string): RecordNode | undefined {
    const node = this.node(key)
    return node?.kind === 'record' ? node : undefined
  }

  node(key: string): Node | undefined {
    return child(this.handover.tree, key)
  }

  /** The map of preserved memory as the kernel walks it, where there is one. */
  get map(): PreservedMap | undefined {
    return this.#walked.map
  }

  /** What the kernel comes to where it follows pointers that the decoder does not. */
  get followedFaults(): readonly Fault[] {
    return this.#walked.faults
  }

  get #walked(): WalkedByKernel {
    this.#kernelWalk ??= walkAsKernel(this.handover)
    return this.#kernelWalk
  }

  /** Where there is RAM, as far as anything tells. */
  get known(): KnownMemory {
    this.#known ??= new KnownMemory([...this.memory.ranges, ...this.scratch], this.target.pageSize)
    return this.#known
  }

  /** The units of the map, to be looked up. */
  get units(): UnitIndex {
    this.#units ??= new UnitIndex(this.map)
    return this.#units
  }

  /** Everything in the handover that refers to memory. */
  get claims(): readonly ClaimGroup[] {
    this.#claims ??= this.#providers.flatMap((provider) => [...provider(this)])
    return this.#claims
  }

  /** The same by address. */
  get claimed(): ClaimList {
    this.#claimed ??= new ClaimList(this.claims, this.units)
    return this.#claimed
  }

  pfn(pa: bigint): number {
    return Number(pa / BigInt(this.target.pageSize))
  }

  address(pfn: number): PhysAddr {
    return phys(BigInt(pfn) * BigInt(this.target.pageSize))
  }
}

/** Faults behind which the decoder does not follow the map, and the kernel does. */
const FOLLOWED: readonly FaultCode[] = ['REACHED_TWICE', 'ADDRESS_MISALIGNED', 'CHAIN_CYCLE']

interface WalkedByKernel {
  readonly map: PreservedMap | undefined
  readonly faults: readonly Fault[]
}

/** The map as the decoder walked it; where it refused to follow a pointer, as a kernel that does not look. */
function walkAsKernel({ tree, faults, memory, target }: Handover): WalkedByKernel {
  const node = child(tree, 'preserved')
  if (node?.kind !== 'preserved') return { map: undefined, faults: [] }
  const { map } = node
  const stored = numberAt(child(tree, 'kho'), 'memory_map')
  const differs = faults.some(({ code, path }) => FOLLOWED.includes(code) && isWithin(path, 'kho.memory_map'))
  if (!differs || stored === undefined) return { map, faults: [] }
  const list = new FaultList(memory)
  const context = { memory, target, faults: list, isTrusting: true }
  return { map: walkMap(context, map.edge, BigInt(stored), ROOT, node.pa), faults: list.list() }
}
