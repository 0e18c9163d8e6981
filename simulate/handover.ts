/**
 * What one kernel leaves for the next: the machine's memory, and struct kho_data if KHO takes part. As an
 * image it is like any other: memory that the handover does not own is left out.
 *
 * Source: kernel/liveupdate/kexec_handover.c: kho_fill_kimage(), kho_locate_mem_hole().
 */
import { KHO_SCRATCH_ARRAY_ALIGN } from '../abi/boot.ts'
import type { Architecture } from '../abi/machine.ts'
import { type FilePosition, type PhysAddr, type PhysRange, type Presence, phys } from '../abi/memory.ts'
import { FrameRanges, FrameSpans } from '../encode/frame-ranges.ts'
import { trimmed, type WritableMemory } from '../encode/image-pieces.ts'
import { type Answer, Failure } from './answer.ts'
import { walkChunks } from './chunk-map.ts'
import type { KernelBase } from './context.ts'
import { isCrash } from './crash.ts'
import type { Kho } from './kho.ts'
import type { KhoData } from './kho-incoming.ts'
import { walkRadix } from './radix-map.ts'
import type { MachineRam } from './ram.ts'
import { encodeScratch, type ScratchArea, scratchArrayBytes } from './scratch.ts'
import type { UnitVisitor } from './units.ts'

export interface Handover {
  readonly arch: Architecture
  /** Release of the kernel that left. */
  readonly release: string
  /** Memory as it was left; every kernel that takes over gets a fork of it. */
  readonly ram: MachineRam
  /** Undefined where the kexec image carries no KHO data. */
  readonly boot: KhoData | undefined
  readonly scratch: readonly ScratchArea[]
  /** Preserved units, the pages of their map and the scratch array, sorted and merged. */
  readonly held: FrameSpans
}

/** kexec_file_load(): what the image to be booted is told of KHO, decided when it is loaded. */
export interface KexecImage {
  readonly fdt: PhysAddr | undefined
  readonly scratchArray: PhysAddr
  /** KEXEC_PRESERVE_CONTEXT: whatever it is, it comes back, and nothing is handed over. */
  readonly preservesContext: boolean
}

const NO_KHO: KexecImage = { fdt: undefined, scratchArray: phys(0), preservesContext: false }
export const CONTEXT_IMAGE: KexecImage = { ...NO_KHO, preservesContext: true }
/** -EADDRNOTAVAIL: no scratch area has room. */
const NO_ROOM = -99

export function loadImage(kernel: KernelBase, kho: Kho): Answer<KexecImage> {
  if (!kho.enabled) return NO_KHO
  const bytes = BigInt(scratchArrayBytes(kernel, kho.scratch.length))
  const align = BigInt(KHO_SCRATCH_ARRAY_ALIGN)
  for (const { addr, size } of kho.scratch) {
    const start = ((addr + size - bytes) / align) * align
    if (size < bytes || start < addr) continue
    const carries = kho.outgoing.finalized || !kernel.spec.traits.buildsAtFinalize
    return carries ? { ...NO_KHO, fdt: kho.outgoing.rootFdt, scratchArray: phys(start) } : NO_KHO
  }
  return new Failure(NO_ROOM)
}

/** The moment of the jump: the segments are in place, the old kernel is gone. */
export function handOver(kernel: KernelBase, kho: Kho, image: KexecImage): Handover {
  const { arch, release, ram, target } = kernel
  const array = encodeScratch(kernel, kho.scratch)
  if (image.fdt === undefined) {
    return { arch, release, ram: ram.fork(), boot: undefined, scratch: [], held: FrameSpans.of([]) }
  }
  ram.write(image.scratchArray, array)
  const boot = {
    fdt_addr: image.fdt,
    fdt_size: BigInt(target.pageSize),
    scratch_addr: image.scratchArray,
    scratch_size: BigInt(array.length),
  }
  const held = heldFrames(kernel, kho, image)
  return { arch, release, ram: ram.fork(), boot, scratch: kho.scratch, held }
}

function heldFrames(kernel: KernelBase, kho: Kho, image: KexecImage): FrameSpans {
  const { target } = kernel
  const frames = new FrameRanges()
  const page = (pa: bigint): void => {
    const frame = Number(pa / BigInt(target.pageSize))
    frames.add(frame, frame + 1)
  }
  const { map } = kho.outgoing
  try {
    if (map?.root !== undefined) {
      walkMap(kernel, map.root, (frame, order) => frames.add(frame, frame + 2 ** order))
    }
    for (const pa of map?.ownPages() ?? []) page(pa)
  } catch (error) {
    // A map that was damaged on purpose; the kernel that leaves does not look at it.
    if (!isCrash(error)) throw error
  }
  page(image.scratchArray)
  if (image.fdt !== undefined) page(image.fdt)
  return frames.merged()
}

/** The units of a map as the kernel's own release reads it. */
export function walkMap({ ram, target, spec }: KernelBase, root: PhysAddr, visit: UnitVisitor): void {
  const { map: edge } = spec.form
  if (edge.kind === 'radix') walkRadix({ ram, target, edge }, root, { unit: visit })
  else walkChunks({ ram, target, edge }, root, visit)
}

/** The handover as an image: whatever the next kernel may look at. */
export function handoverImage({ ram, held }: Handover): WritableMemory & Extents {
  const memory = new RamImage(ram)
  return { ...trimmed(memory, ram.rangesOf(held)), extents: () => memory.extents() }
}

interface Extents {
  extents(): readonly PhysRange[]
}

/** Simulated memory as readers of images see it. */
class RamImage implements WritableMemory {
  readonly #ram: MachineRam
  readonly #extents: readonly PhysRange[]

  constructor(ram: MachineRam) {
    this.#ram = ram
    this.#extents = ram.extents()
  }

  get ranges(): readonly PhysRange[] {
    return this.#ram.ranges
  }

  extents(): readonly PhysRange[] {
    return this.#extents
  }

  read(pa: PhysAddr, out: Uint8Array): number {
    const { state, until } = this.presence(pa)
    if (state !== 'present') return 0
    const length = until - pa < BigInt(out.length) ? Number(until - pa) : out.length
    out.set(this.#ram.read(pa, length))
    return length
  }

  presence(pa: PhysAddr): { readonly state: Presence; readonly until: bigint } {
    const range = this.ranges.find(({ end }) => end > pa)
    if (!range) return { state: 'hole', until: 1n << 64n }
    return range.start <= pa ? { state: 'present', until: range.end } : { state: 'hole', until: range.start }
  }

  filePosition(): FilePosition | undefined {
    return undefined
  }
}
