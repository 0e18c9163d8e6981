/**
 * The incoming side of KHO: what a booting kernel does with what the old one left, by the bytes and with
 * the checks of its own release.
 *
 * Source: kernel/liveupdate/kexec_handover.c: kho_populate(), kho_memory_init(), kho_restore_page(),
 * kho_retrieve_subtree().
 */
import { EARLY_MEMREMAP_MAX, type khoData } from '../abi/boot.ts'
import { FDT_ERR } from '../abi/fdt.ts'
import { sectionSize } from '../abi/kho-map.ts'
import { pageShift } from '../abi/layout.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import type { Infer } from '../abi/schema.ts'
import { FrameRanges } from '../encode/frame-ranges.ts'
import { type Answer, Failure, failed } from './answer.ts'
import { walkChunks } from './chunk-map.ts'
import type { KernelBase } from './context.ts'
import type { Subtree } from './core.ts'
import { WildAccess } from './crash.ts'
import type { EarlyMemory } from './early-memory.ts'
import {
  checkCompatible,
  checkHeader,
  type FdtNode,
  fdtAt,
  getProperty,
  getWord,
  nodeName,
  subnode,
  subnodes,
} from './libfdt.ts'
import { walkRadix } from './radix-map.ts'
import { decodeScratch, type ScratchArea } from './scratch.ts'
import { splitFrames, type UnitVisitor } from './units.ts'

export type KhoData = Infer<typeof khoData>

/** KHO_SCRATCH_EXT_BLKSHIFT */
const EXTENSION_BITS = 30n

export class KhoIncoming {
  readonly #kernel: KernelBase
  readonly #early: EarlyMemory
  /** kho_in.fdt_phys; undefined where there is no KHO boot, or no more. */
  fdt: PhysAddr | undefined
  /** The areas, and their array, once the handover is accepted. */
  scratch: readonly ScratchArea[] | undefined
  /** Frames that the map keeps from being free, for the account. */
  readonly preserved = new FrameRanges()

  constructor(kernel: KernelBase, early: EarlyMemory) {
    this.#kernel = kernel
    this.#early = early
  }

  /** kho_populate() */
  populate(boot: KhoData): void {
    const { log } = this.#kernel
    const failure = this.#accept(boot)
    if (!failed(failure)) log.say('KHO_FOUND')
    else if (log.hasArguments('KHO_NO_REVIVAL')) log.say('KHO_NO_REVIVAL', failure.number)
    else log.say('KHO_NO_REVIVAL')
  }

  #accept(boot: KhoData): Answer {
    const { log, ram, spec } = this.#kernel
    const { fdt_addr: fdt, scratch_addr, scratch_size } = boot
    if (boot.fdt_size > BigInt(EARLY_MEMREMAP_MAX)) return log.refuse('KHO_FDT_MAPPED', fdt)
    const readable = ram.contains(phys(fdt), this.#kernel.target.pageSize)
    const code = readable ? checkHeader(ram, phys(fdt), spec.traits.alignsFdtBlocks) : FDT_ERR.BADMAGIC
    if (code !== 0) return log.refuse('KHO_FDT_HEADER', fdt, code)
    const root = fdtAt(ram, phys(fdt))
    const wrong = checkCompatible(root, spec.form.compatible)
    if (wrong !== 0) return log.refuse('KHO_COMPATIBLE', fdt, spec.form.compatible, wrong)
    if (spec.traits.demandsMap && this.#mapAddress(root) === undefined) return new Failure('ENOENT')
    if (scratch_size > BigInt(EARLY_MEMREMAP_MAX)) {
      return log.refuse('KHO_SCRATCH_MAPPED', scratch_addr, scratch_size)
    }
    this.scratch = decodeScratch(this.#kernel, phys(scratch_addr), Number(scratch_size))
    for (const { addr, size } of this.scratch) this.#early.markScratch(addr, size)
    this.#early.reserve(scratch_addr, scratch_size)
    this.#early.scratchOnly = true
    this.fdt = phys(fdt)
  }

  /** Address of the map; says so if the property is not there, and nothing if it is 0. */
  #mapAddress(root: FdtNode, id = 'KHO_MAP_PROPERTY'): PhysAddr | undefined {
    const address = getWord(root, this.#kernel.spec.form.mapProperty)
    if (address === undefined) this.#kernel.say(id)
    return address ? phys(address) : undefined
  }

  /** kho_memory_init_early(): free blocks become scratch memory before struct pages are set up. */
  extendScratch(): void {
    const { ram, target, spec } = this.#kernel
    const root = this.fdt === undefined ? undefined : fdtAt(ram, this.fdt)
    const map = root && this.#mapAddress(root)
    if (!spec.traits.extendsScratch || !map || spec.form.map.kind !== 'radix') return
    const busy = new Set<bigint>()
    const shift = BigInt(pageShift(target.pageSize))
    const mark = (start: bigint, end: bigint): void => {
      const last = ram.ranges.at(-1)?.end ?? 0n
      for (
        let block = start >> EXTENSION_BITS;
        block << EXTENSION_BITS < (end < last ? end : last);
        block++
      ) {
        busy.add(block)
      }
    }
    const store = { ram, target, edge: spec.form.map }
    walkRadix(store, map, {
      unit: (frame, order) => {
        const start = BigInt(frame) << shift
        mark(start, start + (1n << (shift + BigInt(Math.max(0, order)))))
      },
      node: (pa) => mark(pa, pa + BigInt(target.pageSize)),
    })
    for (const { start, end } of ram.ranges) {
      for (let block = start >> EXTENSION_BITS; block << EXTENSION_BITS < end; block++) {
        if (!busy.has(block)) this.#early.markScratch(block << EXTENSION_BITS, 1n << EXTENSION_BITS)
      }
    }
  }

  /** kho_memory_init(): reserves what is preserved. */
  retrieveMap(): void {
    const { ram, target, spec, say } = this.#kernel
    if (this.fdt === undefined) return
    const root = fdtAt(ram, this.fdt)
    const map = root && this.#mapAddress(root, spec.traits.looksTwice ? 'KHO_MAP_TREE' : 'KHO_MAP_PROPERTY')
    const visit = this.#reserver()
    const { map: edge } = spec.form
    if (map === undefined) {
      if (edge.kind === 'radix') this.fdt = undefined
    } else if (edge.kind === 'radix') walkRadix({ ram, target, edge }, map, { unit: visit })
    else walkChunks({ ram, target, edge }, map, visit)
    if (!spec.traits.restoresRootFdt || this.fdt === undefined) return
    if (this.restorePage(this.fdt, 'folio') === undefined) say('KHO_FDT_FOLIO')
  }

  /** kho_preserved_memory_reserve(), deserialize_bitmap() */
  #reserver(): UnitVisitor {
    const { pages, ram, target, spec } = this.#kernel
    const shift = pageShift(target.pageSize)
    const last = Number((ram.ranges.at(-1)?.end ?? 0n) / BigInt(target.pageSize))
    return (frame, order) => {
      const isExact = !spec.traits.narrowUnits || order + shift < 31
      const nrPages = isExact ? 2 ** Math.max(0, order) : this.#wrapped(order)
      this.#checkStructPage(frame)
      const end = Math.min(frame + nrPages, Math.max(last, frame + 1))
      this.#early.reserveFrames(frame, end)
      this.preserved.add(frame, end)
      pages.markPreserved(frame, order)
    }
  }

  /** `1 << (order + PAGE_SHIFT)` in an int, sign-extended: from bit 31 on the rest of memory, then nothing. */
  #wrapped(order: number): number {
    const { target, ram } = this.#kernel
    const shift = (order + pageShift(target.pageSize)) & 31
    if (shift === 31) return Number((ram.ranges.at(-1)?.end ?? 0n) / BigInt(target.pageSize))
    return Math.max(1, 2 ** shift / target.pageSize)
  }

  /** page->private is written: without a struct page that is a wild pointer. */
  #checkStructPage(frame: number): void {
    const { ram, target } = this.#kernel
    const pa = BigInt(frame) * BigInt(target.pageSize)
    const bytes = sectionSize(target.pageSize)
    const start = pa - (pa % bytes)
    if (ram.ranges.some((range) => range.start < start + bytes && start < range.end)) return
    throw new WildAccess(`no struct page for ${hex(pa)}`, { to: 'struct-page', frame: BigInt(frame) }, true)
  }

  /** kho_restore_page() */
  restorePage(pa: PhysAddr, as: 'folio' | 'pages'): number | undefined {
    const { ram, pages, spec, log } = this.#kernel
    const { checksMagic, limitsOrder } = spec.traits
    if (!ram.contains(pa, 1)) return undefined
    const found = pages.preservedOrder(pa)
    const order = checksMagic ? found : (found ?? 0)
    if (order === undefined || (limitsOrder && order > pages.maxOrder)) {
      if (checksMagic) log.warnOnce(spec.source, 'kho_restore_page')
      return undefined
    }
    pages.adopt(pa, order, as)
    return order
  }

  /** kho_restore_pages() */
  restorePages(pa: PhysAddr, nrPages: number): PhysAddr | undefined {
    const { pageSize } = this.#kernel.target
    const first = Math.floor(Number(pa) / pageSize)
    for (const [frame] of splitFrames(first, first + nrPages)) {
      if (this.restorePage(phys(frame * pageSize), 'pages') === undefined) return undefined
    }
    return pa
  }

  /** kho_retrieve_subtree() */
  retrieveSubtree(name: string): Answer<Subtree> {
    const { ram, spec, log } = this.#kernel
    const { addressProperty, sizeProperty } = spec.form
    const root = this.fdt === undefined ? undefined : fdtAt(ram, this.fdt)
    const node = root && subnode(root, name)
    if (!node) return new Failure('ENOENT')
    const pa = getWord(node, addressProperty)
    if (pa === undefined) return new Failure('EINVAL')
    if (sizeProperty === undefined) return { pa: ram.physToVirt(pa), size: undefined }
    const size = getWord(node, sizeProperty)
    return size === undefined
      ? log.refuse('KHO_BLOB_SIZE', name)
      : { pa: ram.physToVirt(pa), size: Number(size) }
  }

  /** kho_in_debugfs_init(): complains of subtrees that cannot be shown. */
  exposeInDebugfs(): void {
    const { ram, spec, say } = this.#kernel
    const { addressProperty, sizeProperty } = spec.form
    const root = this.fdt === undefined ? undefined : fdtAt(ram, this.fdt)
    for (const node of root ? subnodes(root) : []) {
      const address = getProperty(node, addressProperty)
      if (!address) continue
      if (address.length !== 8) say('KHO_DEBUGFS_ADDRESS', nodeName(node), address.length)
      else if (sizeProperty !== undefined && getWord(node, sizeProperty) === undefined) {
        say('KHO_DEBUGFS_SIZE', nodeName(node))
      }
    }
  }
}
