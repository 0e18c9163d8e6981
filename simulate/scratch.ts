/**
 * Scratch areas: memory that a kernel keeps free of what it preserves, for the next one to boot in. A
 * cold boot reserves them, later kernels inherit them.
 *
 * Source: kernel/liveupdate/kexec_handover.c: kho_reserve_scratch().
 */
import { khoScratch } from '../abi/boot.ts'
import type { ScratchSizes } from '../abi/early-parameters.ts'
import { layoutOf } from '../abi/layout.ts'
import { lowMemoryEnd, machines, scratchRules } from '../abi/machine.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { encodeStruct } from '../encode/write.ts'
import { decodeStruct } from '../inspect/record.ts'
import type { KernelBase } from './context.ts'
import type { EarlyMemory, EarlyRequest } from './early-memory.ts'

export interface ScratchArea {
  readonly addr: bigint
  readonly size: bigint
}

/** Reserves the areas in their order; undefined, after saying why, if one has no room. */
export function reserveScratch(
  kernel: KernelBase,
  early: EarlyMemory,
  sizes: ScratchSizes,
): readonly ScratchArea[] | undefined {
  const nodes = [...new Set(kernel.ram.ranges.map(({ node }) => node))].sort((a, b) => a - b)
  const areas: ScratchArea[] = []
  for (const request of requests(kernel, early, nodes, sizes)) {
    const addr = early.allocate(request)
    if (addr === undefined) {
      sayWhich(kernel, areas.length, nodes)
      kernel.say('KHO_SCRATCH_FAILED')
      return undefined
    }
    areas.push({ addr, size: request.bytes })
  }
  return areas
}

function sayWhich(kernel: KernelBase, index: number, nodes: readonly number[]): void {
  const node = nodes[index - 2]
  if (node !== undefined) kernel.log.sayIfKnown('KHO_SCRATCH_NODE', node)
  else kernel.log.sayIfKnown(index === 0 ? 'KHO_SCRATCH_LOW' : 'KHO_SCRATCH_GLOBAL')
}

/** One area in low memory, one for any use, one for each node; each is sized when those before it stand. */
function* requests(
  { arch, target, ram, spec }: KernelBase,
  early: EarlyMemory,
  nodes: readonly number[],
  sizes: ScratchSizes,
): Generator<EarlyRequest> {
  const { align, roundsSizes } = scratchRules(spec.khoVersion, target.pageSize)
  const up = (bytes: bigint): bigint => BigInt.asUintN(64, ((bytes + align - 1n) / align) * align)
  const limit = lowMemoryEnd(arch, ram.ranges[0]?.start ?? machines[arch].ramStart)
  const low = { align, ...(limit === undefined ? {} : { limit }) }
  if (!('scale' in sizes)) {
    const round = roundsSizes ? up : (bytes: bigint): bigint => bytes
    yield { ...low, bytes: round(sizes.lowmem) }
    yield { align, bytes: round(sizes.global) }
    for (const node of nodes) yield { align, node, bytes: up(sizes.pernode) }
    return
  }
  const scaled = (bytes: bigint): bigint => (bytes * sizes.scale) / 100n
  const taken = scaled(early.reservedKernSize(low))
  const lowmem = roundsSizes ? taken : up(taken)
  const global = BigInt.asUintN(64, scaled(early.reservedKernSize()) - lowmem)
  yield { ...low, bytes: up(lowmem) }
  yield { align, bytes: up(global) }
  const hasNuma = nodes.some((node) => node !== 0)
  for (const node of nodes) yield { align, node, bytes: up(scaled(takenOn(early, node, hasNuma))) }
}

/**
 * What the kernel took on a node: the two areas before it are of none; where all RAM is in node 0 the
 * kernel is taken for one without CONFIG_NUMA, to which everything is of node 0, these areas included.
 */
function takenOn(early: EarlyMemory, node: number, hasNuma: boolean): bigint {
  return early.reservedKernSize(hasNuma ? { node } : {})
}

/** Bytes of struct page for each page: what the early kernel takes most of its memory for. */
const STRUCT_PAGE_SHARE = 64n

/** What the early kernel keeps for itself at the top of each range: its struct pages. */
export function earlyAllocations(
  ranges: KernelBase['ram']['ranges'],
  pageSize: number,
): readonly (ScratchArea & { readonly node: number })[] {
  const size = BigInt(pageSize)
  return ranges.map(({ start, end, node }) => {
    const bytes = ((end - start) / STRUCT_PAGE_SHARE / size) * size
    return { addr: end - bytes, size: bytes, node }
  })
}

/** Bytes of the array of areas. */
export function scratchArrayBytes({ target }: Pick<KernelBase, 'target'>, count: number): number {
  return layoutOf(khoScratch, target).size * count
}

export function encodeScratch(
  { target }: Pick<KernelBase, 'target'>,
  areas: readonly ScratchArea[],
): Uint8Array {
  const parts = areas.map((area) => encodeStruct(khoScratch, area, target))
  return Uint8Array.from(parts.flatMap((part) => [...part]))
}

export function decodeScratch(kernel: KernelBase, array: PhysAddr, bytes: number): readonly ScratchArea[] {
  const { size } = layoutOf(khoScratch, kernel.target)
  return Array.from({ length: Math.floor(bytes / size) }, (_, at) =>
    decodeStruct(khoScratch, kernel.ram.read(phys(array + BigInt(at * size)), size), kernel.target),
  )
}
