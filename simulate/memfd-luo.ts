/**
 * The file handler of memfds: preserves size, position, contents and (memfd-v2) seals, and makes a new
 * memfd of them in the next kernel.
 *
 * Source: mm/memfd_luo.c (Linux 6.19.11; 7.1.13 and 7.3.4, which are the same).
 */

import { invariant } from '../abi/fault.ts'
import type { KernelTraits } from '../abi/kernel-traits.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { MAX_FILE_SIZE, MAX_MEMFD_PAGES } from '../abi/machine.ts'
import { memfdFolio, memfdFolioFlags, memfdSeals } from '../abi/memfd.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName, releases } from '../abi/registry.ts'
import type { StructType } from '../abi/schema.ts'
import { encodeStruct, viewOf } from '../encode/write.ts'
import { columnOf } from '../inspect/columns.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { KhoVmallocValue, VmallocArea } from './core.ts'
import { KernelOops } from './crash.ts'
import type { File } from './file.ts'
import type { LuoContext } from './luo-context.ts'
import type { FileArguments, FileHandler } from './luo-file.ts'
import type { ShmemInode } from './shmem.ts'
import { fieldAddress, readStored, writeFields } from './stored.ts'

const MEMFD_LUO_ALL_SEALS = Object.values(memfdSeals).reduce((all, seal) => all | seal, 0)
/** kvmalloc() gives no more than INT_MAX bytes; memfd_luo_preserve_folios() wants a pointer for each page. */
const MAX_POINTERS = Math.floor(0x7fff_ffff / 8)
const { DIRTY, UPTODATE } = memfdFolioFlags

interface MemfdSer {
  readonly pos: bigint
  readonly size: bigint
  readonly seals?: number
  readonly nr_folios: bigint
  readonly folios: KhoVmallocValue
}

/** The handler as a release registers it; undefined where it has none. `create` is memfd_alloc_file(). */
export function memfdHandler(
  context: LuoContext,
  traits: KernelTraits,
  create: (flags: { readonly sealing: boolean }) => File,
): FileHandler | undefined {
  const id = releases.find(({ name }) => name === context.release)?.versions.memfd
  const version = componentByName('memfd').versions.find((candidate) => candidate.id === id)
  if (!version) return undefined
  const { root, contract } = version
  invariant(root.kind === 'struct' && contract.kind === 'string', 'memfd has a struct and a version string')
  const memfd = new MemfdLuo(context, traits, root, create)
  return {
    compatible: contract.value,
    ops: {
      can_preserve: ({ inode }) => inode !== undefined && inode.links === 0,
      preserve: (args) => memfd.preserve(args, inodeOf(args)),
      unpreserve: (args) => memfd.unpreserve(args, inodeOf(args)),
      freeze: (args) => memfd.freeze(args),
      retrieve: (args) => memfd.retrieve(args),
      finish: (args) => memfd.finish(args),
      get_id: (file) => file.inode ?? file,
    },
  }
}

function inodeOf({ file }: FileArguments): ShmemInode {
  invariant(file?.inode, 'can_preserve() saw that the file is of shmem')
  return file.inode
}

class MemfdLuo {
  readonly #context: LuoContext
  readonly #traits: KernelTraits
  readonly #struct: StructType
  readonly #create: (flags: { readonly sealing: boolean }) => File
  readonly #records: FolioRecords

  constructor(
    context: LuoContext,
    traits: KernelTraits,
    struct: StructType,
    create: (flags: { readonly sealing: boolean }) => File,
  ) {
    this.#context = context
    this.#traits = traits
    this.#struct = struct
    this.#create = create
    this.#records = new FolioRecords(context)
  }

  /** memfd_luo_preserve(): the file is frozen until unpreserve(), or at once not if this fails. */
  preserve(args: FileArguments, inode: ShmemInode): Answer {
    inode.freeze(true)
    const answer = this.#preserveInode(args, inode)
    if (failed(answer)) inode.freeze(false)
    return answer
  }

  #preserveInode(args: FileArguments, inode: ShmemInode): Answer {
    const { kho, target } = this.#context
    const ser = kho.allocPreserve(layoutOf(this.#struct, target).size)
    if (failed(ser)) return ser
    const area = this.#fill(ser, args.file as File, inode)
    if (failed(area)) {
      kho.unpreserveFree(ser)
      return area
    }
    args.private_data = area
    args.serialized_data = ser
  }

  #fill(ser: PhysAddr, file: File, inode: ShmemInode): Answer<VmallocArea | undefined> {
    const nrPages = (inode.size + BigInt(this.#context.target.pageSize) - 1n) / BigInt(this.#pageSize)
    if (this.#keepsSeals) {
      if ((inode.seals & ~MEMFD_LUO_ALL_SEALS) !== 0) return new Failure('EOPNOTSUPP')
      if (nrPages > MAX_MEMFD_PAGES) return new Failure('EFBIG')
      writeFields(this.#context, this.#struct, ser, { seals: inode.seals })
    }
    writeFields(this.#context, this.#struct, ser, { pos: file.position, size: inode.size })
    if (inode.size === 0n) return undefined
    const preserved = this.#preserveFolios(ser, inode, Number(BigInt.asUintN(32, nrPages)))
    if (failed(preserved)) return preserved
    writeFields(this.#context, this.#struct, ser, { nr_folios: preserved.count })
    return preserved.area
  }

  /** memfd_luo_preserve_folios() */
  #preserveFolios(
    ser: PhysAddr,
    inode: ShmemInode,
    most: number,
  ): Answer<{ readonly area: VmallocArea; readonly count: number }> {
    if (most > MAX_POINTERS) {
      this.#context.warn('mm/slub.c', '__kvmalloc_node_noprof')
      return new Failure('ENOMEM')
    }
    const count = inode.pinFolios(most)
    if (failed(count)) {
      this.#context.say('MEMFD_PIN', count.number)
      return count
    }
    const area = this.#context.kho.allocVmalloc(count * this.#records.size)
    const answer = failed(area) ? area : this.#preserveInto(ser, area, inode, count)
    if (failed(answer) || failed(area)) {
      inode.unpinAll(count)
      return answer as Failure
    }
    return { area, count }
  }

  #preserveInto(ser: PhysAddr, area: VmallocArea, inode: ShmemInode, count: number): Answer {
    const { kho } = this.#context
    const writer = this.#records.writer(area)
    let done = 0
    let answer: Answer<unknown>
    for (; done < count; done++) {
      answer = kho.preserveFolio(inode.headOf(done))
      if (failed(answer)) break
      inode.settle(done)
      writer.append(inode.cache.pfn(done), DIRTY | UPTODATE, inode.cache.index(done))
    }
    writer.flush()
    if (!failed(answer)) answer = kho.preserveVmalloc(area)
    if (!failed(answer)) {
      this.#writeDescriptor(ser, answer as KhoVmallocValue)
      return
    }
    while (done > 0) kho.unpreserveFolio(inode.headOf(--done))
    kho.freeVmalloc(area)
    return answer
  }

  /** memfd_luo_unpreserve() */
  unpreserve(args: FileArguments, inode: ShmemInode): void {
    if (this.#lacksData(args, 'memfd_luo_unpreserve')) return
    inode.freeze(false)
    const { kho } = this.#context
    const ser = phys(args.serialized_data)
    const { folios, nr_folios } = this.#read(ser)
    if (nr_folios > 0n) {
      const area = args.private_data as VmallocArea
      kho.unpreserveVmalloc(folios)
      for (const { pfn, index } of this.#records.read(area, nr_folios)) {
        if (pfn === 0) continue
        const head = this.#addressOf(pfn)
        kho.unpreserveFolio(head)
        inode.unpin(index, head)
      }
      kho.freeVmalloc(area)
    }
    kho.unpreserveFree(ser)
  }

  /** memfd_luo_freeze(): the position may have changed since. */
  freeze(args: FileArguments): Answer {
    if (this.#lacksData(args, 'memfd_luo_freeze')) return new Failure('EINVAL')
    const pos = (args.file as File).position
    writeFields(this.#context, this.#struct, phys(args.serialized_data), { pos })
  }

  /** memfd_luo_retrieve() */
  retrieve(args: FileArguments): Answer {
    const ser = this.#context.ram.physToVirt(args.serialized_data)
    const answer = this.#retrieveFile(this.#read(ser, this.#keepsSeals ? 'seals' : 'pos'))
    this.#context.kho.restoreFree(ser)
    if (failed(answer)) return answer
    args.file = answer
  }

  #retrieveFile(memfd: MemfdSer): Answer<File> {
    const seals = memfd.seals ?? 0
    if ((seals & ~MEMFD_LUO_ALL_SEALS) !== 0) return new Failure('EOPNOTSUPP')
    const file = this.#create({ sealing: this.#keepsSeals })
    const answer = this.#restoreInto(file, memfd, seals)
    if (!failed(answer)) return file
    file.put()
    return answer
  }

  #restoreInto(file: File, { pos, size, nr_folios, folios }: MemfdSer, seals: number): Answer {
    const inode = file.inode as ShmemInode
    if (this.#keepsSeals) {
      const sealed = inode.addSeals(seals)
      if (failed(sealed)) {
        this.#context.say('MEMFD_ADD_SEALS', sealed.number)
        return sealed
      }
    }
    if (pos <= MAX_FILE_SIZE) file.position = pos
    inode.size = BigInt.asIntN(64, size)
    if (nr_folios === 0n) return
    const area = this.#context.kho.restoreVmalloc(folios)
    if (!area) return new Failure('EINVAL')
    const answer = this.#retrieveFolios(inode, area, nr_folios)
    this.#context.kho.freeVmalloc(area)
    return answer
  }

  /** memfd_luo_retrieve_folios(): what is in the file stays there if a later folio is not to be had. */
  #retrieveFolios(inode: ShmemInode, area: VmallocArea, count: bigint): Answer {
    let failure: Failure | undefined
    let record = -1
    let done = 0
    for (const { pfn, flags, index } of this.#records.read(area, count)) {
      record++
      if (failure) {
        this.#dropFolio(pfn)
        continue
      }
      if (pfn === 0) continue
      const answer = this.#retrieveFolio(inode, record, pfn, flags, index)
      if (failed(answer)) failure = answer
      else done++
    }
    const isLost = failure?.errno === 'EIO'
    return isLost && done > 0 && !this.#traits.failsForLaterFolio ? undefined : failure
  }

  #retrieveFolio(inode: ShmemInode, record: number, pfn: number, flags: number, index: number): Answer {
    const { kho, pages } = this.#context
    const pa = this.#addressOf(pfn)
    const head = kho.restoreFolio(pa)
    if (head === undefined) {
      this.#context.say('MEMFD_FOLIO', pa)
      return new Failure('EIO')
    }
    const answer = inode.adopt(index, head, pages.orderOf(head) ?? 0, flags)
    if (!failed(answer)) return
    this.#context.say('MEMFD_INDEX', record, answer.number)
    pages.put(head)
    return answer
  }

  /** A folio behind one that failed; 6.19 takes the frame number for the address. */
  #dropFolio(pfn: number): void {
    if (pfn === 0 && this.#traits.freesRest) return
    const head = this.#context.kho.restoreFolio(this.#traits.freesRest ? this.#addressOf(pfn) : phys(pfn))
    if (head !== undefined) this.#context.pages.put(head)
  }

  /** memfd_luo_finish(): only files that nobody retrieved leave anything to do. */
  finish(args: FileArguments): void {
    if (args.retrieve_status !== 0) return
    const { kho } = this.#context
    const ser = this.#context.ram.physToVirt(args.serialized_data)
    const { nr_folios, folios } = this.#read(ser, 'nr_folios')
    const area = nr_folios > 0n ? kho.restoreVmalloc(folios) : undefined
    if (area) {
      this.#discard(area, nr_folios)
      kho.freeVmalloc(area)
    }
    kho.restoreFree(ser)
  }

  /** memfd_luo_discard_folios() */
  #discard(area: VmallocArea, count: bigint): void {
    for (const { pfn } of this.#records.read(area, count)) {
      if (pfn === 0) continue
      const pa = this.#addressOf(pfn)
      const head = this.#context.kho.restoreFolio(pa)
      if (head === undefined) this.#context.say('MEMFD_DISCARD', pa)
      else this.#context.pages.put(head)
    }
  }

  get #pageSize(): number {
    return this.#context.target.pageSize
  }

  get #keepsSeals(): boolean {
    return 'seals' in this.#struct.fields
  }

  #lacksData({ serialized_data }: FileArguments, function_: string): boolean {
    if (serialized_data === 0n) this.#context.warn('mm/memfd_luo.c', function_)
    return serialized_data === 0n
  }

  #addressOf(pfn: number): PhysAddr {
    return phys(BigInt(pfn) * BigInt(this.#pageSize))
  }

  #read(ser: PhysAddr, first?: string): MemfdSer {
    return readStored(this.#context, this.#struct, ser, first) as unknown as MemfdSer
  }

  #writeDescriptor(ser: PhysAddr, value: KhoVmallocValue): void {
    const { type } = fieldOf(this.#struct, 'folios', this.#context.target)
    invariant(type.kind === 'struct', 'the descriptor is embedded')
    const at = fieldAddress(this.#context, this.#struct, 'folios', ser)
    this.#context.ram.write(at, encodeStruct(type, { ...value }, this.#context.target))
  }
}

interface FolioRecord {
  readonly pfn: number
  readonly flags: number
  readonly index: number
}

/** memfd_luo_folio_ser in vmalloc memory, a page of them at a time. */
class FolioRecords {
  readonly #context: LuoContext
  readonly size: number

  constructor(context: LuoContext) {
    this.#context = context
    this.size = layoutOf(memfdFolio, context.target).size
  }

  /** The area is as long as its descriptor says; more records lie behind it, where nothing is mapped. */
  *read(area: VmallocArea, count: bigint): Generator<FolioRecord> {
    const { target } = this.#context
    const pfn = columnOf(memfdFolio, 'pfn', target)
    const flags = columnOf(memfdFolio, 'flags', target)
    const index = columnOf(memfdFolio, 'index', target)
    let left = count
    for (const bytes of this.#groups(area)) {
      const view = viewOf(bytes)
      for (let at = 0; at < bytes.length && left > 0n; at += this.size, left--) {
        yield { pfn: pfn(view, at), flags: flags(view, at), index: index(view, at) }
      }
      if (left === 0n) return
    }
    if (left === 0n) return
    throw new KernelOops(`${left} records behind the end of vmalloc memory`)
  }

  writer(area: VmallocArea): FolioWriter {
    return new FolioWriter(this.#context, area)
  }

  /** An order that does not go with the pages there are maps nothing. */
  *#groups({ pages, order, nrPages }: VmallocArea): Generator<Uint8Array> {
    const { ram, target } = this.#context
    if (pages.length * 2 ** order > nrPages) throw new KernelOops('nothing is mapped in vmalloc memory')
    for (const page of pages) yield ram.read(page, target.pageSize * 2 ** order)
  }
}

const WORD = 2 ** 32

/** Fills vmalloc memory with records, page by page. */
class FolioWriter {
  readonly #context: LuoContext
  readonly #groups: VmallocArea
  readonly #size: number
  readonly #flagsShift: number
  readonly #indexAt: number
  readonly #buffer: Uint8Array
  readonly #view: DataView
  #group = 0
  #at = 0

  constructor(context: LuoContext, area: VmallocArea) {
    const { target } = context
    this.#context = context
    this.#groups = area
    this.#size = layoutOf(memfdFolio, target).size
    this.#flagsShift = memfdFolio.fields.flags.shift - 32
    this.#indexAt = fieldOf(memfdFolio, 'index', target).offset
    this.#buffer = new Uint8Array(target.pageSize * 2 ** area.order)
    this.#view = viewOf(this.#buffer)
  }

  append(pfn: number, flags: number, index: number): void {
    this.#put(this.#at, pfn, flags * 2 ** this.#flagsShift)
    this.#put(this.#at + this.#indexAt, index, 0)
    this.#at += this.#size
    if (this.#at === this.#buffer.length) this.flush()
  }

  /** Writes what was appended since the last page. */
  flush(): void {
    const page = this.#groups.pages[this.#group]
    if (page === undefined || this.#at === 0) return
    this.#context.ram.write(page, this.#buffer.subarray(0, this.#at))
    this.#group++
    this.#at = 0
  }

  #put(at: number, value: number, high: number): void {
    this.#view.setUint32(at, value % WORD, true)
    this.#view.setUint32(at + 4, Math.floor(value / WORD) + high, true)
  }
}
