/** The folios of the KHO test module: where its list says that they are, and which sum their memory has. */
import { csumPartial, sumOfWords } from '../abi/csum.ts'
import { ARCHITECTURES, type Architecture, machines } from '../abi/machine.ts'
import { type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import { MAX_SUMMED_BYTES } from './budget.ts'
import { readBytes } from './read.ts'
import type { Subject } from './subject.ts'
import { child, type Node, numberAt } from './tree.ts'

/** The list of folios, as far as the image holds it. */
export interface FolioList {
  /** Address of each folio, with its order in the low bits. */
  readonly words: BigUint64Array
  /** Where a word is stored. */
  readonly addressOf: (index: number) => PhysAddr
}

/** The list by its node: an array in the property itself, or in vmalloc memory behind a descriptor. */
export function folioList(stored: Node | undefined): FolioList | undefined {
  if (stored?.kind === 'value' && stored.value instanceof Uint8Array) {
    const { buffer, byteOffset, length } = stored.value
    const view = new DataView(buffer, byteOffset, length)
    const words = BigUint64Array.from({ length: Math.floor(length / 8) }, (_, i) =>
      view.getBigUint64(i * 8, true),
    )
    return { words, addressOf: (i) => phys(stored.pa + BigInt(i * 8)) }
  }
  if (stored?.kind !== 'record' || !stored.bulk) return undefined
  const { bulk } = stored
  const words = BigUint64Array.from(bulk.values(), ({ value }) => BigInt(value as bigint))
  return { words, addressOf: (i) => bulk.addressOf(i) }
}

type Sums = ReadonlyMap<Architecture, number>

/** By the node of the test's data: all releases find the same memory behind it. */
const known = new WeakMap<Node, Sums | 'unknown'>()

/**
 * The sum that the module comes to, on every architecture that has pages of this size: not every image says
 * which one it is of. Undefined where the image does not hold all that is added up.
 */
export function folioSums(subject: Subject, data: Node): Sums | undefined {
  const sums = known.get(data) ?? addUp(subject, data) ?? 'unknown'
  known.set(data, sums)
  return sums === 'unknown' ? undefined : sums
}

function addUp({ memory, target }: Subject, data: Node): Sums | undefined {
  const words = folioList(child(data, 'folios_info'))?.words
  if (!words || numberAt(data, 'nr_folios') !== words.length) return undefined
  const { pageSize } = target
  const mask = BigInt(pageSize - 1)
  const architectures = ARCHITECTURES.filter((arch) => machines[arch].pageSizes.includes(pageSize))
  const sums = new Map(architectures.map((arch) => [arch, 0]))
  const taken = new Set<bigint>()
  let summed = 0
  for (const word of words) {
    const pa = phys(word & ~mask)
    // The second time it cannot be restored, and the module stops.
    if (taken.has(pa)) break
    taken.add(pa)
    const length = pageSize * 2 ** Number(word & mask)
    summed += length
    const folio = summed > MAX_SUMMED_BYTES ? undefined : sumOfFolio(memory, pa, length)
    if (folio === undefined) return undefined
    for (const [arch, sum] of sums) sums.set(arch, csumPartial(arch, folio, sum))
  }
  return sums
}

const PIECE_BYTES = 1 << 20

/** The sum of a folio's words; undefined where the image does not hold all of them. */
function sumOfFolio(memory: PhysicalMemory, pa: PhysAddr, length: number): number | undefined {
  let sum = 0
  for (let at = 0; at < length; at += PIECE_BYTES) {
    const read = readBytes(memory, phys(pa + BigInt(at)), Math.min(PIECE_BYTES, length - at))
    if ('unreadable' in read) return undefined
    sum = sumOfWords(read.bytes, sum)
  }
  return sum
}
