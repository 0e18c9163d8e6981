/**
 * shmem: regular files of tmpfs and memfds, with size, seals and page cache. Contents stand in simulated
 * memory; a hole takes none.
 *
 * Not modelled: mappings by userspace, swap, quotas, splitting of large folios (what is cut off one is
 * zeroed and stays). Source: mm/shmem.c and mm/memfd.c, whose functions are the same in Linux 6.19.11,
 * 7.1.13 and 7.3.4 but for what the mount says of them.
 */
import { MAX_FILE_SIZE, memoryOrders } from '../abi/machine.ts'
import { memfdSeals, SEALS_WITH_EXEC } from '../abi/memfd.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { fallocateFlags, S_IFREG } from '../abi/shmem.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { Pages } from './core.ts'
import { FolioState, PageCache } from './page-cache.ts'
import type { Store } from './stored.ts'

/** What the mount option `huge=` says about large folios. */
export type Huge = 'never' | 'within_size' | 'always'

const EXEC_BITS = 0o111
const ALL_SEALS = Object.values(memfdSeals).reduce((all, seal) => all | seal, 0)
const { SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, EXEC } = memfdSeals

/** One mount of tmpfs, or the kernel's own of memfds. */
export interface ShmemMount extends Store {
  readonly pages: Pages
  readonly huge: Huge
  /** memfd_add_seals(): the exec seal pulls in the others before pins are looked for. */
  readonly sealsExecFirst: boolean
  /** A write is tried in pieces of the largest folio there can be, whatever the mount allows. */
  readonly writesLargeFolios: boolean
}

/** How a folio is asked for: SGP_WRITE, SGP_CACHE, SGP_FALLOC. */
type Purpose = 'write' | 'cache' | 'falloc'

export class ShmemInode {
  readonly #mount: ShmemMount
  readonly cache = new PageCache()
  readonly number: number
  mode: number
  /** i_nlink: a memfd has none. */
  links: number
  /** i_size */
  size = 0n
  seals: number = SEAL
  /** SHMEM_F_MAPPING_FROZEN */
  frozen = false
  #openFiles = 0

  constructor(mount: ShmemMount, number: number, permissions: number, links: number) {
    this.#mount = mount
    this.number = number
    this.mode = S_IFREG | permissions
    this.links = links
  }

  /** i_blocks: 512 bytes each. */
  get blocks(): bigint {
    let pages = 0
    for (let slot = 0; slot < this.cache.length; slot++) pages += this.cache.nrPages(slot)
    return (BigInt(pages) * BigInt(this.#pageSize)) / 512n
  }

  opened(): void {
    this.#openFiles++
  }

  closed(): void {
    this.#openFiles--
    this.#evictUnused()
  }

  unlinked(): void {
    this.links--
    this.#evictUnused()
  }

  /** shmem_freeze(): one flag, however many asked for it. */
  freeze(frozen: boolean): void {
    this.frozen = frozen
  }

  /** shmem_setattr() with ATTR_SIZE */
  setSize(size: bigint): Answer {
    if (size > MAX_FILE_SIZE) return new Failure('EFBIG')
    const old = this.size
    if ((size < old && this.#isSealed(SHRINK)) || (size > old && this.#isSealed(GROW))) {
      return new Failure('EPERM')
    }
    if (size !== old && this.frozen) return new Failure('EPERM')
    this.size = size
    if (size <= old) this.#truncate(size, undefined)
  }

  /** shmem_fallocate() */
  fallocate(mode: number, offset: bigint, length: bigint): Answer {
    if (this.frozen) return new Failure('EPERM')
    const end = offset + length
    if ((mode & fallocateFlags.PUNCH_HOLE) !== 0) {
      if (this.#isSealed(WRITE | FUTURE_WRITE)) return new Failure('EPERM')
      this.#truncate(offset, end)
      return
    }
    if (this.#isSealed(GROW) && end > this.size) return new Failure('EPERM')
    const answer = this.#allocateRange(this.#indexOf(offset), this.#indexUp(end), end)
    if (failed(answer)) return answer
    if ((mode & fallocateFlags.KEEP_SIZE) === 0 && end > this.size) this.size = end
  }

  /** generic_perform_write(): as much as can be written, or the error if nothing can. */
  write(position: bigint, bytes: Uint8Array): Answer<number> {
    const { huge, writesLargeFolios } = this.#mount
    const isLarge = writesLargeFolios || huge !== 'never'
    const chunkSize = this.#pageSize * (isLarge ? 2 ** this.#largestOrder : 1)
    let done = 0
    while (done < bytes.length) {
      const at = position + BigInt(done)
      const room = chunkSize - Number(at % BigInt(chunkSize))
      const answer = this.#writeChunk(at, bytes.subarray(done, done + room))
      if (failed(answer)) return done > 0 ? done : answer
      done += answer
    }
    return done
  }

  /** Bytes up to the end of the file; holes, and folios that nobody wrote, are zero. */
  read(position: bigint, length: number): Uint8Array {
    const left = this.size > position ? this.size - position : 0n
    const out = new Uint8Array(left < BigInt(length) ? Number(left) : length)
    const { cache } = this
    for (let slot = cache.slotFrom(this.#indexOf(position)); slot < cache.length; slot++) {
      const start = BigInt(cache.index(slot)) * BigInt(this.#pageSize)
      if (start >= position + BigInt(out.length)) break
      if (!cache.is(slot, FolioState.UPTODATE)) continue
      const from = start > position ? 0n : position - start
      const to = Number(start + from - position)
      const bytes = Math.min(out.length - to, this.#bytesOf(slot) - Number(from))
      out.set(this.#mount.ram.read(phys(this.headOf(slot) + from), bytes), to)
    }
    return out
  }

  /** mapping_seek_hole_data(): the next byte with (or without) data at or behind `offset`. */
  seek(offset: bigint, data: boolean): Answer<bigint> {
    if (offset < 0n || offset >= this.size) return new Failure('ENXIO')
    const { cache } = this
    let at = offset
    for (let slot = cache.slotFrom(this.#indexOf(at)); slot < cache.length; slot++) {
      const start = BigInt(cache.index(slot)) * BigInt(this.#pageSize)
      if (!cache.is(slot, FolioState.UPTODATE)) continue
      if (start > at && !data) return at
      if (start > at) at = start
      if (at >= this.size) break
      if (data) return at
      at = start + BigInt(this.#bytesOf(slot))
    }
    if (data) return new Failure('ENXIO')
    return at < this.size ? at : this.size
  }

  /** memfd_add_seals() behind the checks of the file; writers in flight are seen by their pins. */
  addSeals(wanted: number): Answer {
    if ((wanted & ~ALL_SEALS) !== 0) return new Failure('EINVAL')
    if (this.#isSealed(SEAL)) return new Failure('EPERM')
    const implied = (wanted & EXEC) !== 0 && (this.mode & EXEC_BITS) !== 0
    const all = implied ? wanted | SEALS_WITH_EXEC : wanted
    const waits = this.#mount.sealsExecFirst ? all : wanted
    if ((waits & WRITE) !== 0 && !this.#isSealed(WRITE) && this.#hasPins()) return new Failure('EBUSY')
    this.seals |= all
  }

  /**
   * memfd_pin_folios() from the start of the file, at most `most` folios: holes are filled. Gives the slots'
   * number; what was pinned is released on an error, what was filled stays.
   */
  pinFolios(most: number): Answer<number> {
    if (most === 0) return new Failure('EINVAL')
    const { cache } = this
    const end = this.#indexUp(this.size)
    let pinned = 0
    for (let index = 0; index < end && pinned < most; pinned++) {
      const slot = this.#obtain(index, 'cache', 0n)
      if (failed(slot)) {
        for (let done = 0; done < pinned; done++) this.#pin(done, -1)
        return slot
      }
      this.#pin(slot, 1)
      index = cache.end(slot)
    }
    return pinned
  }

  /** unpin_folio() by place and frame; the page cache may hold another folio there by now. */
  unpin(index: number, head: PhysAddr): void {
    const slot = this.cache.find(index)
    if (slot !== undefined && this.headOf(slot) === head) this.#pin(slot, -1)
    else this.#mount.pages.put(head)
  }

  unpinAll(count: number): void {
    for (let slot = 0; slot < count; slot++) this.#pin(slot, -1)
  }

  /** Address of the folio in a slot. */
  headOf(slot: number): PhysAddr {
    return phys(BigInt(this.cache.pfn(slot)) * BigInt(this.#pageSize))
  }

  /** What preserve() makes of each folio: dirty, and zeroed if nobody wrote it. */
  settle(slot: number): void {
    if (!this.cache.is(slot, FolioState.UPTODATE)) this.#zero(slot)
    this.cache.mark(slot, FolioState.DIRTY | FolioState.UPTODATE)
  }

  /** shmem_add_to_page_cache() of a restored folio, which takes over its reference. */
  adopt(index: number, head: PhysAddr, order: number, state: number): Answer {
    const slot = this.cache.insert(index, order, Number(head / BigInt(this.#pageSize)))
    if (slot === undefined) return new Failure('EEXIST')
    this.cache.mark(slot, state)
  }

  get #pageSize(): number {
    return this.#mount.target.pageSize
  }

  get #largestOrder(): number {
    return memoryOrders[this.#mount.target.pageSize].pageCache
  }

  #isSealed(seals: number): boolean {
    return (this.seals & seals) !== 0
  }

  #indexOf(offset: bigint): number {
    return Number(offset / BigInt(this.#pageSize))
  }

  #indexUp(offset: bigint): number {
    return this.#indexOf(offset + BigInt(this.#pageSize) - 1n)
  }

  #bytesOf(slot: number): number {
    return this.cache.nrPages(slot) * this.#pageSize
  }

  #pin(slot: number, by: 1 | -1): void {
    this.cache.pin(slot, by)
    if (by === 1) this.#mount.pages.get(this.headOf(slot))
    else this.#mount.pages.put(this.headOf(slot))
  }

  #hasPins(): boolean {
    for (let slot = 0; slot < this.cache.length; slot++) if (this.cache.isPinned(slot)) return true
    return false
  }

  #zero(slot: number): void {
    this.#mount.ram.clear(this.headOf(slot), this.#bytesOf(slot))
  }

  /** shmem_write_begin(), shmem_write_end() */
  #writeChunk(position: bigint, bytes: Uint8Array): Answer<number> {
    const end = position + BigInt(bytes.length)
    if (this.#isSealed(WRITE | FUTURE_WRITE)) return new Failure('EPERM')
    if ((this.#isSealed(GROW) || this.frozen) && end > this.size) return new Failure('EPERM')
    const slot = this.#obtain(this.#indexOf(position), 'write', end)
    if (failed(slot)) return slot
    const offset = Number(position - BigInt(this.cache.index(slot)) * BigInt(this.#pageSize))
    const part = bytes.subarray(0, this.#bytesOf(slot) - offset)
    if (!this.cache.is(slot, FolioState.UPTODATE)) this.#zero(slot)
    this.#mount.ram.write(phys(this.headOf(slot) + BigInt(offset)), part)
    this.cache.mark(slot, FolioState.DIRTY | FolioState.UPTODATE)
    const reached = position + BigInt(part.length)
    if (reached > this.size) this.size = reached
    return part.length
  }

  /** shmem_get_folio(): the folio that holds a page, made if it is not there. */
  #obtain(index: number, purpose: Purpose, writeEnd: bigint): Answer<number> {
    const found = this.cache.find(index)
    if (found !== undefined) {
      if (purpose !== 'write' && !this.cache.is(found, FolioState.UPTODATE)) {
        this.#zero(found)
        this.cache.mark(found, FolioState.UPTODATE)
      }
      return found
    }
    const slot = this.#allocate(index, writeEnd)
    if (!failed(slot) && purpose === 'cache') this.cache.mark(slot, FolioState.UPTODATE)
    return slot
  }

  /** shmem_alloc_and_add_folio(): the largest order that is allowed, free in the file and to be had. */
  #allocate(index: number, writeEnd: bigint): Answer<number> {
    const { pages } = this.#mount
    for (let order = this.#allowedOrder(index, writeEnd); ; order = order === 2 ? 0 : order - 1) {
      const aligned = index - (index % 2 ** order)
      if (order > 0 && !this.cache.fits(aligned, order)) continue
      const head = pages.alloc(order)
      if (!failed(head)) {
        const slot = this.cache.insert(aligned, order, Number(head / BigInt(this.#pageSize)))
        return slot as number
      }
      if (order === 0) return head
    }
  }

  /** shmem_huge_global_enabled(): large folios start at order 2. */
  #allowedOrder(index: number, writeEnd: bigint): number {
    const { huge } = this.#mount
    if (huge === 'never') return 0
    if (huge === 'always') return this.#largestOrder
    const pages = this.#indexUp(writeEnd > this.size ? writeEnd : this.size)
    let order = this.#largestOrder
    while (order > 1 && (Math.floor(index / 2 ** order) + 1) * 2 ** order > pages) order--
    return order > 1 ? order : 0
  }

  #allocateRange(start: number, end: number, writeEnd: bigint): Answer {
    const { cache } = this
    for (let index = start; index < end; ) {
      const slot = this.#obtain(index, 'falloc', writeEnd)
      if (failed(slot)) {
        this.#dropUnwritten(start, index)
        return slot
      }
      cache.mark(slot, FolioState.DIRTY)
      index = cache.end(slot)
    }
  }

  /** shmem_undo_range() after a failed fallocate(). */
  #dropUnwritten(start: number, end: number): void {
    for (let slot = this.cache.slotFrom(end) - 1; slot >= 0 && this.cache.index(slot) >= start; slot--) {
      if (!this.cache.is(slot, FolioState.UPTODATE)) this.#drop(slot, slot + 1)
    }
  }

  /** shmem_truncate_range(): whole folios go, parts of folios are zeroed. `end` undefined: all behind. */
  #truncate(start: bigint, end: bigint | undefined): void {
    const { cache } = this
    const first = cache.slotFrom(this.#indexOf(start))
    const last = end === undefined ? cache.length : this.#slotStartingFrom(this.#indexUp(end))
    if (first >= last) return
    const page = BigInt(this.#pageSize)
    const cutsFirst = BigInt(cache.index(first)) * page < start
    const cutsLast = end !== undefined && BigInt(cache.end(last - 1)) * page > end
    if (cutsFirst) this.#zeroPart(first, start, end)
    if (cutsLast) this.#zeroPart(last - 1, start, end)
    const from = cutsFirst ? first + 1 : first
    const to = cutsLast ? last - 1 : last
    if (from < to) this.#drop(from, to)
  }

  #slotStartingFrom(index: number): number {
    const slot = this.cache.slotFrom(index)
    return slot < this.cache.length && this.cache.index(slot) < index ? slot + 1 : slot
  }

  /** Zeroes what lies in a folio of the bytes from `start` to `end`. */
  #zeroPart(slot: number, start: bigint, end: bigint | undefined): void {
    const base = BigInt(this.cache.index(slot)) * BigInt(this.#pageSize)
    const from = start > base ? Number(start - base) : 0
    const bytes = this.#bytesOf(slot)
    const to = end === undefined || end - base > BigInt(bytes) ? bytes : Number(end - base)
    this.#mount.ram.write(phys(this.headOf(slot) + BigInt(from)), new Uint8Array(Math.max(0, to - from)))
  }

  /** The page cache lets go of folios; those that somebody else holds live on. */
  #drop(from: number, to: number): void {
    for (let slot = from; slot < to; slot++) this.#mount.pages.put(this.headOf(slot))
    this.cache.remove(from, to)
  }

  /** shmem_evict_inode() */
  #evictUnused(): void {
    if (this.#openFiles === 0 && this.links === 0) this.#drop(0, this.cache.length)
  }
}
