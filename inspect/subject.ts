/**
 * What is judged: a decoded handover, the kernel that is to take it over, and what both need to be
 * looked at from: the decoder's faults, the preserved units, and everything that refers to memory.
 */
import type { Target } from '../abi/layout.ts'
import { type PhysAddr, type PhysicalMemory, type PhysRange, phys } from '../abi/memory.ts'
import { type ComponentName, releaseIndex } from '../abi/registry.ts'
import { scratchRanges } from './boot-entry.ts'
import type { ClaimGroup } from './claim.ts'
import type { Handover } from './decode.ts'
import { FaultPool } from './fault-pool.ts'
import type { PreservedMap } from './map.ts'
import type { TargetKernel } from './target-kernel.ts'
import { child, type ListNode, type Node, type RecordNode } from './tree.ts'
import { UnitIndex } from './unit-index.ts'

/** Tells what one part of a handover refers to. */
export type ClaimProvider = (subject: Subject) => Iterable<ClaimGroup>

export class Subject {
  readonly handover: Handover
  readonly kernel: TargetKernel
  readonly faults: FaultPool
  /** The next kernel's command line, where it is known. */
  readonly commandLine: string | undefined
  readonly scratch: readonly PhysRange[]
  readonly #providers: readonly ClaimProvider[]
  #claims: readonly ClaimGroup[] | undefined
  #units: UnitIndex | undefined

  constructor(
    handover: Handover,
    kernel: TargetKernel,
    commandLine: string | undefined,
    providers: readonly ClaimProvider[],
  ) {
    this.handover = handover
    this.kernel = kernel
    this.commandLine = commandLine
    this.faults = new FaultPool(handover.faults)
    const scratch = child(handover.tree, 'scratch')
    this.scratch = scratch?.kind === 'list' ? scratchRanges(scratch as ListNode) : []
    this.#providers = providers
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

  /** Whether the kernel is of a release or a later one. */
  isSince(release: string): boolean {
    return releaseIndex(this.release) >= releaseIndex(release)
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

  /** The map of preserved memory, where there is one. */
  get map(): PreservedMap | undefined {
    const node = this.node('preserved')
    return node?.kind === 'preserved' ? node.map : undefined
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

  pfn(pa: bigint): number {
    return Number(pa / BigInt(this.target.pageSize))
  }

  address(pfn: number): PhysAddr {
    return phys(BigInt(pfn) * BigInt(this.target.pageSize))
  }
}
