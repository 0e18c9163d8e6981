/**
 * Memory for the map of kho-v1: 6.17.8 takes its bitmaps from kmalloc(), several to a page, later kernels
 * whole pages. What is freed keeps its contents, as in the kernel.
 */
import { type PhysAddr, phys } from '../abi/memory.ts'
import { type Answer, failed } from './answer.ts'
import type { MapMemory } from './chunk-map.ts'
import type { Pages } from './core.ts'
import type { MachineRam } from './ram.ts'

export class Slab implements MapMemory {
  readonly #ram: MachineRam
  readonly #pages: Pages
  /** Free objects by their size, and objects in use by the page that holds them. */
  readonly #free = new Map<number, PhysAddr[]>()
  readonly #used = new Map<bigint, number>()

  constructor(ram: MachineRam, pages: Pages) {
    this.#ram = ram
    this.#pages = pages
  }

  allocate(bytes: number): Answer<PhysAddr> {
    if (bytes >= this.#pages.pageSize) return this.#pages.alloc(0)
    const free = this.#free.get(bytes) ?? []
    this.#free.set(bytes, free)
    if (free.length === 0) {
      const page = this.#pages.alloc(0)
      if (failed(page)) return page
      for (let at = this.#pages.pageSize - bytes; at >= 0; at -= bytes) free.push(phys(page + BigInt(at)))
      this.#used.set(page, 0)
    }
    const object = free.pop() as PhysAddr
    this.#count(object, 1)
    this.#ram.write(object, new Uint8Array(bytes))
    return object
  }

  free(pa: PhysAddr, bytes: number): void {
    if (bytes >= this.#pages.pageSize) {
      this.#pages.put(pa)
      return
    }
    const free = this.#free.get(bytes) ?? []
    free.push(pa)
    if (this.#count(pa, -1) > 0) return
    const page = this.#pageOf(pa)
    this.#free.set(
      bytes,
      free.filter((object) => this.#pageOf(object) !== page),
    )
    this.#used.delete(page)
    this.#pages.put(page)
  }

  #count(object: PhysAddr, change: 1 | -1): number {
    const page = this.#pageOf(object)
    const used = (this.#used.get(page) ?? 0) + change
    this.#used.set(page, used)
    return used
  }

  #pageOf(pa: PhysAddr): PhysAddr {
    return phys(pa - (pa % BigInt(this.#pages.pageSize)))
  }
}
