/**
 * `reserve_mem=SIZE:ALIGN:NAME`: regions that keep their place and contents across kexec.
 *
 * Source: mm/memblock.c: reserve_mem(), reserve_mem_kho_revive(), prepare_kho_fdt(),
 * reserved_mem_preserve(); 6.17.8: reserve_mem_kho_finalize().
 */
import { parseReserveMem } from '../abi/command-line.ts'
import { memblockV1, RESERVE_MEM_MAX_ENTRIES, reserveMemV1 } from '../abi/memblock.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName } from '../abi/registry.ts'
import { u64le } from '../abi/schema.ts'
import { buildFdt } from '../encode/fdt.ts'
import type { FdtTree } from '../encode/handover.ts'
import { textBytes } from '../encode/text.ts'
import { encodeInt } from '../encode/write.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { KernelBase } from './context.ts'
import type { EarlyMemory } from './early-memory.ts'
import type { Kho } from './kho.ts'
import { checkCompatible, type FdtNode, fdtAt, findSubnode, getWord } from './libfdt.ts'
import { compatibleOf } from './release.ts'

export interface ReservedRegion {
  readonly name: string
  readonly start: PhysAddr
  readonly size: bigint
  /** Taken over from the old kernel. */
  readonly revived: boolean
}

const SUBTREE = componentByName('memblock').subtree as string
const [COMPATIBLE, START, SIZE] = Object.keys(reserveMemV1.properties) as [string, string, string]
const word = u64le('A property of 8 bytes.')

export class ReserveMem {
  readonly regions: ReservedRegion[] = []
  readonly #kernel: KernelBase
  readonly #kho: Kho
  readonly #early: EarlyMemory
  /** The page of the FDT for the next kernel. */
  #fdt: PhysAddr | undefined

  constructor(kernel: KernelBase, kho: Kho, early: EarlyMemory) {
    this.#kernel = kernel
    this.#kho = kho
    this.#early = early
  }

  /** Parses one parameter; a failure is only logged. */
  reserve(text: string): Answer {
    const { log } = this.#kernel
    if (this.regions.length >= RESERVE_MEM_MAX_ENTRIES) {
      log.sayIfKnown('RESERVE_MEM_FULL')
      return new Failure('EBUSY')
    }
    const request = parseReserveMem(text)
    if (!request) {
      log.sayIfKnown('RESERVE_MEM_MALFORMED')
      return new Failure('EINVAL')
    }
    const { name, size, align } = request
    if (this.regions.some((region) => region.name === name)) {
      log.sayIfKnown('RESERVE_MEM_USED', name)
      return new Failure('EBUSY')
    }
    const revived = this.#revive(name, size, align)
    const start = revived ?? this.#early.allocate({ bytes: size, align })
    if (start === undefined) {
      log.sayIfKnown('RESERVE_MEM_ALLOCATION')
      return new Failure('ENOMEM')
    }
    this.regions.push({ name, start, size, revived: revived !== undefined })
  }

  /** reserve_mem_kho_revive() */
  #revive(name: string, size: bigint, align: bigint): PhysAddr | undefined {
    const { say } = this.#kernel
    const root = this.#incomingFdt()
    if (!root) return undefined
    const node = findSubnode(root, name)
    if (typeof node === 'number') return void say('RESERVE_MEM_NODE', SUBTREE, name, node)
    const contract = compatibleOf(reserveMemV1)
    const wrong = checkCompatible(node, contract)
    if (wrong !== 0) return void say('RESERVE_MEM_COMPATIBLE', name, contract, wrong)
    const [start, found] = [getWord(node, START), getWord(node, SIZE)]
    if (start === undefined || found === undefined) return undefined
    if ((start & (align - 1n)) !== 0n) return void say('RESERVE_MEM_ALIGNMENT', name, align, start)
    if (found !== size) return void say('RESERVE_MEM_SAME_SIZE', name, found, size)
    say('RESERVE_MEM_REVIVED', name)
    return phys(start)
  }

  /** reserve_mem_kho_retrieve_fdt() */
  #incomingFdt(): FdtNode | undefined {
    const { say, ram } = this.#kernel
    const blob = this.#kho.retrieveSubtree(SUBTREE)
    if (failed(blob)) {
      if (blob.errno !== 'ENOENT') say('MEMBLOCK_SUBTREE', SUBTREE, blob.number)
      return undefined
    }
    const root = fdtAt(ram, blob.pa)
    const contract = compatibleOf(memblockV1)
    const wrong = checkCompatible(root, contract)
    if (wrong === 0) return root
    return void say('MEMBLOCK_COMPATIBLE', SUBTREE, contract, wrong)
  }

  /** reserve_mem_init() (late_initcall) */
  init(): void {
    if (!this.#kho.enabled || this.regions.length === 0) return
    const failure = this.#kernel.spec.traits.buildsAtFinalize ? this.#prepare() : this.#hand()
    if (failed(failure)) this.#kernel.say('MEMBLOCK_FAILED', failure.number)
  }

  /** 6.16 to 6.18: the FDT is made now, and preserved with everything else at finalize. */
  #prepare(): Answer {
    const page = this.#kernel.pages.alloc(0)
    // Of an allocation that fails the old kernels say nothing.
    if (failed(page)) return
    this.#writeFdt(page)
    this.#fdt = page
    this.#kho.outgoing.register(() => this.#finalize(page))
  }

  /** Every step is made; the error is what OR makes of their codes. */
  #finalize(page: PhysAddr): Answer {
    const kho = this.#kho
    const steps = this.regions.map(({ start, size }) => this.#preserve(start, size))
    const answers = [
      ...steps,
      kho.preserveFolio(page),
      kho.addSubtree(SUBTREE, page, this.#kernel.target.pageSize),
    ]
    const code = answers.reduce((sum, answer) => (failed(answer) ? sum | answer.number : sum), 0)
    if (code !== 0) return new Failure(code)
  }

  /** 6.19 and later: prepare_kho_fdt() */
  #hand(): Answer {
    const { pages } = this.#kernel
    const kho = this.#kho
    const page = pages.alloc(0)
    if (failed(page)) return page
    const giveUp = (failure: Failure, preserved: boolean): Failure => {
      if (preserved) kho.unpreservePages(page, 1)
      pages.put(page)
      return failure
    }
    const first = kho.preservePages(page, 1)
    if (failed(first)) return giveUp(first, false)
    const totalsize = this.#writeFdt(page)
    const added = kho.addSubtree(SUBTREE, page, totalsize)
    if (failed(added)) return giveUp(added, true)
    const failure = this.#preserveAll()
    if (failed(failure)) {
      kho.removeSubtree(page)
      return giveUp(failure, true)
    }
    this.#fdt = page
  }

  #preserveAll(): Answer {
    const done: ReservedRegion[] = []
    for (const region of this.regions) {
      const failure = this.#preserve(region.start, region.size)
      if (failed(failure)) {
        for (const { start, size } of done)
          this.#kho.unpreservePages(this.#pageOf(start), this.#pagesIn(size))
        return failure
      }
      done.push(region)
    }
  }

  /** A size that is no multiple of a page loses its tail without a word, where it is not refused. */
  #preserve(start: PhysAddr, size: bigint): Answer {
    if (!this.#kernel.spec.traits.preservesPages) return this.#kho.preservePhys(start, size)
    return this.#kho.preservePages(this.#pageOf(start), this.#pagesIn(size))
  }

  #pageOf(start: PhysAddr): PhysAddr {
    return phys(start - (start % BigInt(this.#kernel.target.pageSize)))
  }

  #pagesIn(size: bigint): number {
    return Number(size / BigInt(this.#kernel.target.pageSize))
  }

  /** The page of the FDT, if it was made. */
  get fdt(): PhysAddr | undefined {
    return this.#fdt
  }

  #writeFdt(page: PhysAddr): number {
    const { ram, target } = this.#kernel
    const text = (value: string): Uint8Array => textBytes(`${value}\0`)
    const children = this.regions.map(({ name, start, size }): FdtTree => {
      const properties = [
        { name: COMPATIBLE, value: text(compatibleOf(reserveMemV1)) },
        { name: START, value: encodeInt(word, start) },
        { name: SIZE, value: encodeInt(word, size) },
      ]
      return { name, properties, children: [] }
    })
    const properties = [{ name: COMPATIBLE, value: text(compatibleOf(memblockV1)) }]
    const built = buildFdt({ name: '', properties, children }, 'sequential', target.pageSize)
    if (!built) return 0
    ram.write(page, built.buffer)
    return built.totalsize
  }
}
