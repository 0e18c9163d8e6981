/**
 * memfds as memfd_luo_retrieve() brings them back (mm/memfd_luo.c of Linux 6.19.11, 7.1.13 and 7.3.4),
 * and what of their contents a reader then finds (mm/shmem.c).
 */
import { formatPath } from '../abi/fault.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { memfdSeals, SEALS_WITH_EXEC } from '../abi/memfd.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName, formatContract, versionById } from '../abi/registry.ts'
import type { StructType, VmallocEdge } from '../abi/schema.ts'
import { behind, type Place, within } from './faults.ts'
import type { Incoming, Pointer, Remark } from './incoming.ts'
import { FolioReader } from './incoming-folios.ts'
import { readVmalloc } from './incoming-vmalloc.ts'
import { readLeading } from './read.ts'
import type { VmallocDescriptor } from './vmalloc.ts'

/** A file for which the kernel has a handler. */
export interface IncomingFile {
  readonly place: Place
  readonly compatible: string
  readonly data: bigint
  readonly pointer: Pointer
  /** The first of its session with that token; no other is ever found. */
  readonly isReachable: boolean
}

interface MemfdValue {
  readonly pos: bigint
  readonly size: bigint
  /** Since memfd-v2. */
  readonly seals?: number
  readonly flags?: number
  readonly nr_folios: bigint
  readonly folios: VmallocDescriptor
}

const COMPONENT = componentByName('memfd')
const ALL_SEALS = Object.values(memfdSeals).reduce((all, seal) => all | seal, 0)

/** Retrieves every file that the kernel's memfd handler knows, in the order of sessions and files. */
export function retrieveMemfds(incoming: Incoming, files: readonly IncomingFile[]): void {
  const version = versionById(incoming.subject.speaks('memfd') ?? '')
  if (version?.root.kind !== 'struct') return
  const handler = formatContract(version.contract)
  const records = new Map<number, string>()
  for (const file of files) {
    if (file.compatible !== handler) continue
    incoming.advance()
    const pfn = incoming.subject.pfn(file.data)
    const before = records.get(pfn)
    if (before !== undefined) reportShared(incoming, file, before)
    else new Retrieval(incoming, version.root, file).run()
    records.set(pfn, before ?? formatPath(file.place.path))
  }
}

/** The first retrieval gives the record's page back; the second reads what is there by then. */
function reportShared(incoming: Incoming, { place, pointer, data }: IncomingFile, before: string): void {
  const message = `the record of ${before}, which is given back once it is retrieved`
  const details = { pa: pointer.pa, length: 8, message, expected: 'a record of its own', found: hex(data) }
  incoming.report('MEMFD_SHARED', within(behind(place, pointer, data), COMPONENT.key), {
    ...details,
    affects: [before],
  })
}

class Retrieval {
  readonly #incoming: Incoming
  readonly #type: StructType
  readonly #file: IncomingFile
  readonly #place: Place

  constructor(incoming: Incoming, type: StructType, file: IncomingFile) {
    this.#incoming = incoming
    this.#type = type
    this.#file = file
    this.#place = within(behind(file.place, file.pointer, file.data), COMPONENT.key)
  }

  run(): void {
    const { data, pointer } = this.#file
    const claimed = { rule: 'MEMFD_PRESERVED', what: this.#type.name, restore: 'folio', pages: 1 } as const
    this.#incoming.claimUnit(this.#place, claimed, data, pointer.pa)
    this.#checkAlignment()
    const record = this.#incoming.struct<MemfdValue>(this.#type, data, this.#place)
    if (!record) return
    if (this.#checkSeals(record)) {
      this.#reportUnread(record)
      this.#restore(record)
    }
    this.#incoming.restore(this.#incoming.subject.pfn(data))
  }

  /** The record is read at whatever address is told; all zeros, as of an empty file, are so from the next byte on, too. */
  #checkAlignment(): void {
    const { data, pointer } = this.#file
    const { target, memory } = this.#incoming.subject
    const page = data - (data % BigInt(target.pageSize))
    if (data === page) return
    const { size } = layoutOf(this.#type, target)
    const [told, whole] = [data, page].map((pa) => readLeading(memory, phys(pa), size).join())
    this.#incoming.report('LUO_ADDRESS_ALIGNED', this.#place, {
      pa: pointer.pa,
      length: 8,
      stage: 'retrieve',
      message: 'the record of a memfd does not start at a page',
      expected: `a multiple of ${target.pageSize}`,
      found: hex(data),
      ...(told !== '' && told === whole && { outcome: 'takes-over', severity: 'warning' }),
    })
  }

  #at(field: string): PhysAddr {
    return phys(this.#file.data + BigInt(fieldOf(this.#type, field, this.#incoming.subject.target).offset))
  }

  #report(
    rule: string,
    field: string,
    remark: Pick<Remark, 'message' | 'expected' | 'found' | 'outcome' | 'severity'>,
  ): void {
    const { size } = fieldOf(this.#type, field, this.#incoming.subject.target)
    this.#incoming.report(rule, within(this.#place, field), { pa: this.#at(field), length: size, ...remark })
  }

  /** False where the kernel refuses, which it does before it looks at anything else. */
  #checkSeals({ seals = 0 }: MemfdValue): boolean {
    if ((seals & ~ALL_SEALS) !== 0) {
      const message = 'seals that the kernel does not know'
      this.#report('MEMFD_SEALS', 'seals', {
        message,
        expected: `bits of ${hex(ALL_SEALS)}`,
        found: hex(seals >>> 0),
      })
      return false
    }
    const added = (seals & memfdSeals.EXEC) !== 0 && (seals & SEALS_WITH_EXEC) !== SEALS_WITH_EXEC
    if (added) {
      const message = 'with F_SEAL_EXEC the kernel adds the seals against writing and resizing'
      const expected = `${hex(seals | SEALS_WITH_EXEC)}, or no F_SEAL_EXEC`
      this.#report('MEMFD_SEAL_EXEC', 'seals', { message, expected, found: hex(seals) })
    }
    return true
  }

  /** Fields that are taken as they are, or not looked at. */
  #reportUnread({ pos, size, flags = 0 }: MemfdValue): void {
    if (flags !== 0) {
      const message = 'the kernel does not look at flags'
      this.#report('MEMFD_FLAGS', 'flags', { message, expected: '0x0', found: hex(flags) })
    }
    if (BigInt.asIntN(64, pos) < 0n) {
      const message = 'the kernel refuses a negative position, and leaves it at 0'
      this.#report('MEMFD_POSITION', 'pos', {
        message,
        expected: 'at most 2^63 - 1',
        found: String(BigInt.asIntN(64, pos)),
      })
    }
    if (BigInt.asIntN(64, size) < 0n) {
      const message = 'the size is negative: nothing of the file can be read'
      this.#report('MEMFD_SIZE', 'size', {
        message,
        expected: 'at most 2^63 - 1',
        found: String(BigInt.asIntN(64, size)),
      })
    }
  }

  #restore({ size, nr_folios: count, folios: descriptor }: MemfdValue): void {
    const edge = this.#edge()
    const place = within(this.#place, 'folios')
    const reader = new FolioReader(this.#incoming, edge, { place, sizeAt: this.#at('size'), size })
    if (count === 0n) {
      if (descriptor.total_pages !== 0 || descriptor.first !== 0n) {
        const message = 'there is an array of folios, and none is counted'
        // Of an empty file the array is never looked at; of another one the size tells what is missing.
        this.#report('MEMFD_UNCOUNTED', 'nr_folios', {
          message,
          expected: 'the number of folios',
          found: '0',
          ...(size === 0n && { outcome: 'takes-over', severity: 'warning' }),
        })
      }
      reader.finish()
      return
    }
    const pa = this.#at('folios')
    const area = readVmalloc(this.#incoming, {
      edge,
      descriptor,
      pa,
      place,
      preserved: { chunks: 'MEMFD_CHUNK', groups: 'MEMFD_FOLIOS' },
    })
    if (!area) return
    const capacity = Math.floor(area.bytes / reader.elementSize)
    if (count > BigInt(capacity)) {
      const message = 'more folios are counted than the array holds; the kernel reads on behind it'
      this.#report('MEMFD_COUNT', 'nr_folios', {
        message,
        expected: `at most ${capacity}`,
        found: String(count),
      })
    }
    reader.read(area, Math.min(capacity, Number(count)), capacity)
  }

  #edge(): VmallocEdge {
    const { folios } = this.#type.fields
    return (folios as StructType).to as VmallocEdge
  }
}
