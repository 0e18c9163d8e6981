/**
 * The outgoing root FDT in its page: written in one go when the map is finalized (6.16 to 6.18), or made at
 * boot and edited in place.
 *
 * Source: kernel/liveupdate/kexec_handover.c: kho_out_fdt_setup(), kho_add_subtree(),
 * kho_remove_subtree(), kho_update_memory_map(); kernel/kexec_handover.c (6.17.8): kho_finalize().
 */

import { invariant } from '../abi/fault.ts'
import { FDT_ERR, fdtHeader } from '../abi/fdt.ts'
import { fieldOf } from '../abi/layout.ts'
import type { PhysAddr } from '../abi/memory.ts'
import { u64le } from '../abi/schema.ts'
import { buildFdt, FdtEditor } from '../encode/fdt.ts'
import type { FdtTree } from '../encode/handover.ts'
import { textBytes } from '../encode/text.ts'
import { encodeInt } from '../encode/write.ts'
import { type Answer, Failure } from './answer.ts'
import type { KernelBase } from './context.ts'
import { WildAccess } from './crash.ts'

const word = u64le('A property of 8 bytes.')

export class KhoRoot {
  readonly #kernel: KernelBase
  /** Nodes of a tree that is being written in one go. */
  #children: FdtTree[] = []
  page: PhysAddr | undefined

  constructor(kernel: KernelBase) {
    this.#kernel = kernel
  }

  /** A tree without subtrees; for a sequential one the start of its making. */
  begin(map: bigint): void {
    this.#children = []
    this.#write(map)
  }

  /** fdt_begin_node(), fdt_property(), fdt_end_node(): what does not fit is libfdt's code. */
  append(name: string, pa: PhysAddr): Answer {
    const { addressProperty } = this.#kernel.spec.form
    const properties = [{ name: addressProperty, value: encodeInt(word, pa) }]
    this.#children.push({ name, properties, children: [] })
    if (!this.#build(0n)) return new Failure(FDT_ERR.NOSPACE)
  }

  /** fdt_finish() with the address of the map filled in. */
  finish(map: bigint): Answer {
    if (!this.#write(map)) return new Failure(FDT_ERR.NOSPACE)
  }

  /** kho_add_subtree() */
  add(name: string, pa: PhysAddr, size: number): Answer {
    const { form, traits } = this.#kernel.spec
    const fdt = this.#editor()
    const node = fdt.addSubnode(name)
    if (node < 0) {
      fdt.pack()
      return new Failure(node === FDT_ERR.EXISTS ? 'EEXIST' : 'ENOMEM')
    }
    let code = fdt.addProperty(node, form.addressProperty, encodeInt(word, pa))
    if (code === 0 && form.sizeProperty !== undefined) {
      code = fdt.addProperty(node, form.sizeProperty, encodeInt(word, BigInt(size)))
    }
    if (code !== 0 && !traits.keepsEmptyNode) fdt.deleteNode(node)
    fdt.pack()
    if (code !== 0) return new Failure(traits.keepsEmptyNode ? code : 'ENOMEM')
  }

  /** kho_remove_subtree(): the first node whose address is that of the blob. */
  remove(pa: PhysAddr): void {
    const fdt = this.#editor()
    const wanted = encodeInt(word, pa)
    const node = fdt.children().find((offset) => {
      const value = fdt.property(offset, this.#kernel.spec.form.addressProperty)
      return value?.length === wanted.length && value.every((byte, at) => byte === wanted[at])
    })
    if (node !== undefined) fdt.deleteNode(node)
    fdt.pack()
  }

  /** kho_update_memory_map(): only the value changes. */
  setMap(map: bigint): void {
    this.#editor().setRootValue(this.#kernel.spec.form.mapProperty, encodeInt(word, map))
  }

  /**
   * fdt_open_into(). 6.19 and 7.0 come here after kho_init() has failed: their LUO does not ask whether KHO
   * is on, and what it preserves needs no root.
   */
  #editor(): FdtEditor {
    const { offset } = fieldOf(fdtHeader, 'totalsize', this.#kernel.target)
    if (this.page === undefined) throw new WildAccess('kho_out.fdt is NULL', { to: 'null', offset })
    return new FdtEditor(this.#kernel.ram.page(this.page))
  }

  #write(map: bigint): boolean {
    const built = this.#build(map)
    invariant(this.page !== undefined, 'there is a page for the root FDT')
    if (built) this.#kernel.ram.write(this.page, built.buffer)
    return built !== undefined
  }

  #build(map: bigint): ReturnType<typeof buildFdt> {
    const { compatible, mapProperty } = this.#kernel.spec.form
    const properties = [
      { name: 'compatible', value: textBytes(`${compatible}\0`) },
      { name: mapProperty, value: encodeInt(word, map) },
    ]
    const tree = { name: '', properties, children: this.#children }
    return buildFdt(tree, 'sequential', this.#kernel.target.pageSize)
  }
}
