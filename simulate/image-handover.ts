/**
 * An image as something to take over: what a real kernel, the encoder or a simulated one left, whole or
 * trimmed to what the handover reaches.
 *
 * What the image does not say is chosen so that it is not in the way of the handover: RAM reaches from the
 * image's first to its last range or preserved unit, in whole sections, and scratch areas lie where nothing
 * is preserved.
 */
import type { PageSize } from '../abi/layout.ts'
import { type Architecture, scratchRules } from '../abi/machine.ts'
import { type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import { FrameRanges, type FrameSpans } from '../encode/frame-ranges.ts'
import { walkChunks } from './chunk-map.ts'
import { isCrash } from './crash.ts'
import { EarlyMemory } from './early-memory.ts'
import type { Handover } from './handover.ts'
import type { KhoData } from './kho-incoming.ts'
import { fdtAt, getWord } from './libfdt.ts'
import type { ColdMachine } from './machine.ts'
import { walkRadix } from './radix-map.ts'
import { MachineRam } from './ram.ts'
import type { SimulatedRelease } from './release.ts'
import { encodeScratch, type ScratchArea } from './scratch.ts'
import type { UnitVisitor } from './units.ts'

export interface ImageSource {
  readonly memory: PhysicalMemory
  readonly arch: Architecture
  readonly pageSize?: PageSize
  /** Root FDT. */
  readonly fdt: PhysAddr
  /** The kernel that left it, for how its map is read where RAM is not given. */
  readonly spec: SimulatedRelease
  /** RAM of the machine; with it a pointer that leads elsewhere is a wild one. */
  readonly ram?: ColdMachine['ram']
  /** The boot entry: where the array of scratch areas lies. */
  readonly boot?: KhoData
  /** The areas themselves, where the image does not hold their array. */
  readonly scratch?: readonly ScratchArea[]
}

/** SECTION_SIZE_BITS */
const SECTION = 1n << 27n
/** Units that a damaged map places beyond this do not make RAM. */
const HIGHEST_RAM = 1n << 46n
/** Each chosen scratch area has this share of RAM. */
const SCRATCH_SHARE = 32n

export function imageHandover(source: ImageSource): Handover {
  const { memory, arch, pageSize = 4096, fdt, spec } = source
  const held = heldFrames(source, pageSize)
  const nodes = source.ram ?? [extentOf(held, pageSize, source.scratch ?? [])]
  const ranges = nodes.map(({ start, end, ...rest }) => {
    const node = 'node' in rest && typeof rest.node === 'number' ? rest.node : 0
    return { start: phys(start), end, node }
  })
  const ram = new MachineRam(arch, pageSize, ranges, memory)
  const { boot, scratch } = source.boot
    ? { boot: source.boot, scratch: source.scratch ?? [] }
    : placeScratch(ram, spec, fdt, held, source.scratch)
  return { arch, release: spec.name, ram, boot, scratch, held }
}

/** What the image holds, and what its map preserves: read on a machine that is all RAM, as far as it can be. */
function heldFrames({ memory, arch, fdt, spec }: ImageSource, pageSize: PageSize): FrameSpans {
  const ram = new MachineRam(arch, pageSize, [{ start: phys(0), end: HIGHEST_RAM, node: 0 }], memory)
  const frames = new FrameRanges()
  const size = BigInt(pageSize)
  for (const { start, end } of memory.ranges) {
    frames.add(Number(start / size), Number((end + size - 1n) / size))
  }
  const limit = Number(HIGHEST_RAM) / pageSize
  const visit: UnitVisitor = (frame, order) => {
    const end = frame + 2 ** Math.max(0, order)
    if (end <= limit) frames.add(frame, end)
  }
  try {
    const map = getWord(fdtAt(ram, fdt), spec.form.mapProperty)
    const { map: edge } = spec.form
    const store = { ram, target: { pageSize } }
    if (map && edge.kind === 'radix') walkRadix({ ...store, edge }, phys(map), { unit: visit })
    else if (map && edge.kind === 'chunks') walkChunks({ ...store, edge }, phys(map), visit)
  } catch (error) {
    if (!isCrash(error)) throw error
  }
  return frames.merged()
}

/** From the first to the last of it, in whole sections. */
function extentOf(
  held: FrameSpans,
  pageSize: PageSize,
  scratch: readonly ScratchArea[],
): { readonly start: bigint; readonly end: bigint } {
  let [start, end] = [HIGHEST_RAM, 0n]
  const include = (from: bigint, to: bigint): void => {
    if (from < start) start = from
    if (to > end) end = to
  }
  if (held.length > 0) {
    include(BigInt(held.start(0) * pageSize), BigInt(held.end(held.length - 1) * pageSize))
  }
  for (const { addr, size } of scratch) include(addr, addr + size)
  return { start: (start / SECTION) * SECTION, end: ((end + SECTION - 1n) / SECTION) * SECTION }
}

/** Writes an array of areas where the old kernel would have: at the top of the first. */
function placeScratch(
  ram: MachineRam,
  spec: SimulatedRelease,
  fdt: PhysAddr,
  held: FrameSpans,
  given: readonly ScratchArea[] | undefined,
): { readonly boot: KhoData; readonly scratch: readonly ScratchArea[] } {
  const scratch = given ?? chooseScratch(ram, spec, held)
  const array = encodeScratch({ target: { pageSize: ram.pageSize } }, scratch)
  const [first] = scratch
  const top = first ? first.addr + first.size - BigInt(ram.pageSize) : 0n
  if (first) ram.write(phys(top), array)
  const [fdt_size, scratch_size] = [BigInt(ram.pageSize), BigInt(array.length)]
  return { boot: { fdt_addr: fdt, fdt_size, scratch_addr: top, scratch_size }, scratch }
}

function chooseScratch(ram: MachineRam, spec: SimulatedRelease, held: FrameSpans): readonly ScratchArea[] {
  const { align } = scratchRules(spec.khoVersion, ram.pageSize)
  const early = new EarlyMemory(ram)
  for (const { start, end } of held) early.reserveFrames(start, end)
  const total = ram.ranges.reduce((sum, { start, end }) => sum + end - start, 0n)
  const bytes = ((total / SCRATCH_SHARE + align - 1n) / align) * align
  const nodes = new Set(ram.ranges.map(({ node }) => node))
  const areas = Array.from({ length: nodes.size + 2 }, () => early.allocate({ bytes, align }))
  return areas.flatMap((addr) => (addr === undefined ? [] : [{ addr, size: bytes }]))
}
