/**
 * What the subsystems of a simulated kernel have in common: its memory, its pages, its log, and KHO's
 * functions as the rest of the kernel calls them.
 */
import type { LogLevel } from '../abi/check.ts'
import type { PageSize } from '../abi/layout.ts'
import type { PhysAddr } from '../abi/memory.ts'
import type { Answer } from './answer.ts'

/** Physical memory with write access; all state that outlives a kexec stands here in the real format. */
export interface Ram {
  /**
   * Copies bytes out. Outside RAM the kernel follows a wild pointer: throws WildAccess. `first`: offset of
   * what the kernel touches first, 0 if left out.
   */
  read(pa: PhysAddr, length: number, first?: number): Uint8Array
  write(pa: PhysAddr, bytes: Uint8Array): void
  /** Zeroes whole pages without taking room for them. */
  clear(pa: PhysAddr, length: number): void
  contains(pa: PhysAddr, length: number): boolean
  /** phys_to_virt(): the kernel's pointer to an address that is stored somewhere, as the address that it leads to. */
  physToVirt(pa: bigint): PhysAddr
}

/** The page allocator: folios of 2^order pages, with reference counts. */
export interface Pages {
  readonly pageSize: PageSize
  /** A zeroed folio with one reference, naturally aligned, never in a scratch area. */
  alloc(order: number): Answer<PhysAddr>
  get(head: PhysAddr): void
  /** Drops a reference; the last one frees the folio. */
  put(head: PhysAddr): void
  /** kmalloc() of a small object, which takes no page here: an error where it is to fail. */
  allocObject(): Answer
  /** Order of the folio that starts at an address; undefined where none starts. */
  orderOf(pa: PhysAddr): number | undefined
}

/** Memory of vmalloc(): groups of 2^order pages in the order of their mapping. */
export interface VmallocArea {
  readonly pages: readonly PhysAddr[]
  readonly order: number
  /** VM_ALLOC, VM_ALLOW_HUGE_VMAP as the kernel's own bits in the descriptor. */
  readonly flags: number
  readonly nrPages: number
}

/** struct kho_vmalloc as it goes into a record. */
export interface KhoVmallocValue {
  readonly first: bigint
  readonly total_pages: number
  readonly flags: number
  readonly order: number
}

export interface Subtree {
  readonly pa: PhysAddr
  /** blob-size; undefined before kho-v3. */
  readonly size: number | undefined
}

/** kernel/liveupdate/kexec_handover.c as other subsystems see it. */
export interface KhoApi {
  /** kho_is_enabled(): `kho=` is on and the outgoing side works. */
  readonly enabled: boolean
  /** is_kho_boot(): this kernel took over from another. */
  readonly isKhoBoot: boolean
  preserveFolio(head: PhysAddr): Answer
  unpreserveFolio(head: PhysAddr): void
  preservePages(pa: PhysAddr, nrPages: number): Answer
  unpreservePages(pa: PhysAddr, nrPages: number): void
  preserveVmalloc(area: VmallocArea): Answer<KhoVmallocValue>
  unpreserveVmalloc(value: KhoVmallocValue): void
  /** The folio's head with one reference, or undefined (the kernel returns NULL and warns). */
  restoreFolio(pa: PhysAddr): PhysAddr | undefined
  restorePages(pa: PhysAddr, nrPages: number): PhysAddr | undefined
  restoreVmalloc(value: KhoVmallocValue): VmallocArea | undefined
  /** vfree() of an area that was allocated or restored. */
  freeVmalloc(area: VmallocArea): void
  /** vmalloc() in groups of 2^order pages, 0 if left out. */
  allocVmalloc(bytes: number, order?: number): Answer<VmallocArea>
  allocPreserve(bytes: number): Answer<PhysAddr>
  unpreserveFree(pa: PhysAddr): void
  restoreFree(pa: PhysAddr): void
  addSubtree(name: string, pa: PhysAddr, size: number): Answer
  removeSubtree(pa: PhysAddr): void
  retrieveSubtree(name: string): Answer<Subtree>
  /** kho_finalize() as LUO's reboot calls it in 6.19 and 7.0; undefined where the map is live. */
  readonly finalize: (() => Answer) | undefined
}

/** One line of the kernel's log without time stamp: prefix and message. */
export interface LogLine {
  readonly level: LogLevel
  readonly text: string
}

/**
 * A subsystem in the order of boot and reboot. kernel.ts calls the parts in this order: `early`
 * (early_initcall), KHO's outgoing side (fs_initcall), test modules, `late` (late_initcall of kernel/),
 * the memblock FDT, `lateMm` (late_initcall of mm/: file handlers), and at kexec `reboot`
 * (kernel_kexec(): liveupdate_reboot()), whose Failure ends the reboot.
 */
export interface Subsystem {
  /** Its early_param()s that are switches. */
  readonly switches?: readonly string[]
  early?(): void
  late?(): void
  lateMm?(): void
  /** `preservesContext`: what is jumped to comes back. */
  reboot?(preservesContext: boolean): Answer
}
