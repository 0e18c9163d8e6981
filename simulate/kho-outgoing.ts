/**
 * The outgoing side of KHO: the map of what is preserved and the root FDT, live in memory or written when
 * finalize is asked for.
 *
 * Source: kernel/kexec_handover.c (6.17.8), kernel/liveupdate/kexec_handover.c and
 * kexec_handover_debugfs.c (6.19.11, 7.1.13, 7.3.4): kho_init(), kho_finalize(), kho_abort(),
 * kho_out_finalize_set().
 */
import { FDT_ERR } from '../abi/fdt.ts'
import type { PhysAddr } from '../abi/memory.ts'
import { type Answer, Failure, failed } from './answer.ts'
import { ChunkMap } from './chunk-map.ts'
import type { KernelBase } from './context.ts'
import type { KhoApi } from './core.ts'
import { KernelOops } from './crash.ts'
import { type PreviousKernel, readMetadata, writeMetadata } from './kho-metadata.ts'
import { KhoRoot } from './kho-root.ts'
import type { PreservedMap } from './preserved-map.ts'
import { RadixMap } from './radix-map.ts'
import { type PageCheck, Slab } from './slab.ts'

/** A subsystem that adds its part when the map is finalized (6.16 to 6.18); a failure aborts. */
export type FinalizeNotifier = () => Answer

export class KhoOutgoing {
  readonly #kernel: KernelBase
  readonly #kho: KhoApi
  readonly #root: KhoRoot
  readonly #notifiers: FinalizeNotifier[] = []
  #map: PreservedMap | undefined
  #chunks: ChunkMap | undefined
  #isFinalizing = false
  /** kho_out.finalized */
  finalized = false
  /** What kexec-metadata says of the kernel before. */
  previous: PreviousKernel | undefined
  /** Where this kernel says the same of itself. */
  metadata: PhysAddr | undefined

  constructor(kernel: KernelBase, kho: KhoApi, check: PageCheck) {
    this.#kernel = kernel
    this.#kho = kho
    this.#root = new KhoRoot(kernel)
    const { ram, target, pages, spec } = kernel
    if (spec.form.map.kind !== 'chunks') return
    this.#chunks = new ChunkMap({ ram, target, edge: spec.form.map }, new Slab(ram, pages, check))
    this.#map = this.#chunks
  }

  /** kho_out.fdt */
  get rootFdt(): PhysAddr | undefined {
    return this.#root.page
  }

  get map(): PreservedMap | undefined {
    return this.#map
  }

  /** Nothing more can be preserved. */
  get isLocked(): boolean {
    return this.finalized && this.#kernel.spec.traits.locksAtFinalize
  }

  /** kho_init(); a failure has undone what was done. */
  init(): Answer {
    return this.#kernel.spec.traits.buildsAtFinalize ? this.#initPage() : this.#initLive()
  }

  #initPage(): Answer {
    const page = this.#kernel.pages.alloc(0)
    if (failed(page)) return page
    this.#root.page = page
  }

  #initLive(): Answer {
    const { target, spec, pages, ram } = this.#kernel
    if (spec.form.map.kind === 'radix') {
      const store = { ram, target, edge: spec.form.map }
      const map = RadixMap.create(store, pages, spec.traits.checksKeyWidth)
      if (failed(map)) return map
      this.#map = map
    }
    const page = this.#kho.allocPreserve(target.pageSize)
    if (failed(page)) return this.#undo(page)
    this.#root.page = page
    this.#root.begin(this.#map?.root ?? 0n)
    if (!spec.metadata) return
    if (this.#kho.isKhoBoot) this.previous = readMetadata(this.#kernel, this.#kho)
    const metadata = writeMetadata(this.#kernel, this.#kho, this.previous?.count ?? 0)
    if (!failed(metadata)) {
      this.metadata = metadata
      return
    }
    const failure = metadata
    this.#kernel.say('METADATA_FAILED', failure.number)
    this.#kho.unpreserveFree(page)
    return this.#undo(failure)
  }

  #undo(failure: Failure): Failure {
    this.#root.page = undefined
    if (this.#map instanceof RadixMap) {
      if (this.#kernel.spec.traits.destroysTree) this.#map.destroy()
      else this.#kernel.pages.put(this.#map.root)
      this.#map = undefined
    }
    return failure
  }

  preserve(frame: number, order: number): Answer {
    if (this.isLocked) return new Failure('EBUSY')
    if (this.#map) return this.#map.preserve(frame, order)
    const { log, spec } = this.#kernel
    log.warnOnce(spec.source, spec.traits.destroysTree ? 'kho_radix_add_key' : 'kho_radix_add_page')
    return new Failure('EINVAL')
  }

  /** False where it was not known: that is a WARN_ON() for a node of a tree, a WARN_ON_ONCE() for the rest. */
  unpreserve(frame: number, order: number): boolean {
    const missing = this.#map ? this.#map.unpreserve(frame, order) : 'root'
    if (missing === undefined) return true
    const { log, spec } = this.#kernel
    if (!spec.traits.warnsOfUnknown) throw new KernelOops('__kho_unpreserve() never ends')
    const function_ = this.#unpreserveFunction()
    if (missing === 'node') log.warn(spec.source, function_)
    else log.warnOnce(spec.source, function_, missing)
    return false
  }

  #unpreserveFunction(): string {
    const { form, traits } = this.#kernel.spec
    if (form.map.kind === 'chunks')
      return traits.endsAtUnknown ? '__kho_unpreserve' : '__kho_unpreserve_order'
    return traits.destroysTree ? 'kho_radix_del_key' : 'kho_radix_del_page'
  }

  addSubtree(name: string, pa: PhysAddr, size: number): Answer {
    if (!this.#kernel.spec.traits.buildsAtFinalize) return this.#root.add(name, pa, size)
    // fdt_begin_node() outside of the making of a tree.
    return this.#isFinalizing ? this.#root.append(name, pa) : new Failure(FDT_ERR.BADSTATE)
  }

  removeSubtree(pa: PhysAddr): void {
    if (!this.#kernel.spec.traits.buildsAtFinalize) this.#root.remove(pa)
  }

  /** register_kho_notifier() */
  register(notifier: FinalizeNotifier): void {
    this.#notifiers.push(notifier)
  }

  /** debugfs kho/out/finalize, read. */
  readFinalize(): Answer<string> {
    if (!this.#hasFile) return new Failure('ENOENT')
    return this.finalized ? '1' : '0'
  }

  /** The same, written. */
  writeFinalize(text: string): Answer {
    if (!this.#hasFile) return new Failure('ENOENT')
    if (!/^\s*[+-]?(0x[0-9a-f]+|\d+)\s*$/i.test(text)) return new Failure('EINVAL')
    const wanted = Number(text) !== 0
    if (!this.#kernel.spec.traits.togglesFinalize) return wanted ? this.finalize() : new Failure('EINVAL')
    if (wanted === this.finalized) return new Failure(wanted ? 'EEXIST' : 'ENOENT')
    const failure = wanted ? this.finalize() : this.#abort()
    if (!failed(failure)) this.finalized = wanted
    return failure
  }

  get #hasFile(): boolean {
    return this.#kho.enabled && this.#kernel.config.debugfs && this.#kernel.spec.traits.hasFinalize
  }

  /** kho_finalize() */
  finalize(): Answer {
    if (!this.#kho.enabled || !this.#chunks) return new Failure('EOPNOTSUPP')
    if (this.#kernel.spec.traits.buildsAtFinalize) return this.#convert(this.#chunks)
    const map = this.#chunks.serialize()
    if (failed(map)) return map
    this.#root.setMap(map ?? 0n)
    this.finalized = true
  }

  /** 6.16 to 6.18: everything at once, and on failure all is forgotten. */
  #convert(chunks: ChunkMap): Answer {
    this.#root.begin(0n)
    this.#isFinalizing = true
    const failure = this.#collect(chunks)
    this.#isFinalizing = false
    if (!failed(failure)) return
    this.#kernel.say('KHO_FINALIZE_FAILED', failure.number)
    this.#abort()
    return failure
  }

  #collect(chunks: ChunkMap): Answer {
    const root = this.#root.page
    const failure = root === undefined ? new Failure('ENOMEM') : this.#kho.preserveFolio(root)
    if (failed(failure)) return failure
    for (const notifier of this.#notifiers) {
      const answer = notifier()
      if (failed(answer)) return answer
    }
    const map = chunks.serialize()
    if (failed(map)) return map
    return this.#root.finish(map ?? 0n)
  }

  /** kho_abort(): the map is forgotten, units that were preserved long before included. */
  #abort(): Answer {
    this.#chunks?.destroy()
  }
}
