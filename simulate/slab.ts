/**
 * Memory for the map of kho-v1: 6.17.8 takes its bitmaps from kmalloc(), several to a page, later kernels
 * whole pages. What is freed keeps its contents, as in the kernel.
 */
import { type PhysAddr, phys } from '../abi/memory.ts'
import { type Answer, type Failure, failed } from './answer.ts'
import type { MapMemory } from './chunk-map.ts'
import type { Pages } from './core.ts'
import type { MachineRam } from './ram.ts'

/** Why a page may not be part of the map, for the kernel's function that asked for it. */
export type PageCheck = (page: PhysAddr, by: string) => Failure | undefined

export class Slab implements MapMemory {
  readonly #ram: MachineRam
  readonly #pages: Pages
  readonly #check: PageCheck
  /** Free objects by their size, and objects in use by the page that holds them. */
  readonly #free = new Map<number, PhysAddr[]>()
  readonly #used = new Map<bigint, number>()

  constructor(ram: MachineRam, pages: Pages, check: PageCheck) {
    this.#ram = ram
    this.#pages = pages
    this.#check = check
  }

  allocate(bytes: number, by: string): Answer<PhysAddr> {
    return bytes < this.#pages.pageSize ? this.#allocateObject(bytes) : this.#allocatePage(by)
  }

  #allocatePage(by: string): Answer<PhysAddr> {
    const page = this.#pages.alloc(0)
    if (failed(page)) return page
    const refusal = this.#check(page, by)
    if (refusal) this.#pages.put(page)
    return refusal ?? page
  }

  /** Kernels with objects of less than a page check nothing. */
  #allocateObject(bytes: number): Answer<PhysAddr> {
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
