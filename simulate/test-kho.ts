/**
 * The kernel's KHO test module: leaves folios with contents and their checksum on the first boot, and
 * takes them back and compares on the next.
 *
 * Source: lib/test_kho.c (6.17.8, 6.19.11, 7.1.13, 7.3.4).
 */
import { csumPartial, sumOfWords } from '../abi/csum.ts'
import { invariant } from '../abi/fault.ts'
import { khoVmalloc } from '../abi/kho-vmalloc.ts'
import { layoutOf, orderOf, pageShift } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName } from '../abi/registry.ts'
import { type FdtNodeType, u32le, u64le } from '../abi/schema.ts'
import { buildFdt } from '../encode/fdt.ts'
import { textBytes } from '../encode/text.ts'
import { encodeInt, encodeStruct } from '../encode/write.ts'
import { decodeStruct } from '../inspect/record.ts'
import { type Answer, type Failure, failed } from './answer.ts'
import type { KernelBase } from './context.ts'
import type { Kho } from './kho.ts'
import { checkCompatible, type FdtValue, fdtAt, getProperty, subnode } from './libfdt.ts'
import { compatibleOf } from './release.ts'

const SUBTREE = componentByName('kho-test').subtree as string
const DATA = 'data'
const word32 = u32le('')
const word64 = u64le('')

export class KhoTest {
  readonly #kernel: KernelBase
  readonly #kho: Kho
  #random: number

  constructor(kernel: KernelBase, kho: Kho, seed: number) {
    this.#kernel = kernel
    this.#kho = kho
    this.#random = seed >>> 0 || 1
  }

  /** kho_test_init() */
  init(): void {
    const { spec, config, say, log } = this.#kernel
    const root = spec.khoTest?.root
    if (!config.testKho || root?.kind !== 'fdt-node') return
    if (spec.traits.testNeedsKho && !this.#kho.enabled) return
    const blob = this.#kho.retrieveSubtree(SUBTREE)
    if (!failed(blob)) {
      if (this.#restore(root, blob.pa)) say('KHO_TEST_SUCCEEDED')
      else log.sayIfKnown('KHO_TEST_FAILED')
    } else if (blob.errno !== 'ENOENT') say('KHO_TEST_SUBTREE', SUBTREE, blob.number)
    else this.#save(root)
  }

  /** kho_test_restore() */
  #restore(root: FdtNodeType, pa: PhysAddr): boolean {
    const { ram } = this.#kernel
    const fdt = fdtAt(ram, pa)
    const magic = getProperty(fdt, 'magic')
    if (checkCompatible(fdt, compatibleOf(root)) !== 0 || magic?.length !== 4) return false
    if (u32At(magic.bytes) !== magicOf(root)) return false
    const data = subnode(fdt, DATA)
    const [count, csum, info] = ['nr_folios', 'csum', 'folios_info'].map(
      (name) => data && getProperty(data, name),
    )
    if (count?.length !== 4 || csum?.length !== 4 || !info) return false
    const folios = this.#foliosInfo(root, info, u32At(count.bytes))
    return folios !== undefined && this.#check(folios, u32At(csum.bytes))
  }

  /** Address and order of each folio; undefined where the property has another length, or is no array. */
  #foliosInfo(root: FdtNodeType, info: FdtValue, count: number): readonly bigint[] | undefined {
    if (isInline(root)) return info.length === 8 * count ? wordsOf(info.bytes, count) : undefined
    const { ram, target } = this.#kernel
    if (info.length !== layoutOf(khoVmalloc, target).size) return undefined
    const area = this.#kho.restoreVmalloc(decodeStruct(khoVmalloc, info.bytes, target))
    if (!area) return undefined
    const bytes = target.pageSize * 2 ** area.order
    const words = area.pages.flatMap((group) => wordsOf(ram.read(group, bytes), bytes / 8))
    this.#kho.freeVmalloc(area)
    // Beyond the area the kernel would read unmapped memory.
    return words.length < count ? undefined : words.slice(0, count)
  }

  #check(folios: readonly bigint[], wanted: number): boolean {
    const { ram, pages, target, arch } = this.#kernel
    const mask = BigInt(target.pageSize - 1)
    let sum = 0
    for (const folio of folios) {
      const pa = phys(folio & ~mask)
      const order = Number(folio & mask)
      if (this.#kho.restoreFolio(pa) === undefined || pages.orderOf(pa) !== order) break
      sum = csumPartial(arch, sumOfWords(ram.read(pa, target.pageSize * 2 ** order)), sum)
      pages.put(pa)
    }
    return sum === wanted
  }

  /** kho_test_save(); a failure is not logged. */
  #save(root: FdtNodeType): Answer {
    const generated = this.#generate()
    if (failed(generated)) return generated
    const { folios, csum } = generated
    const { pages, target, spec } = this.#kernel
    const fdtSize = folios.length * 8 + target.pageSize
    const fdt = pages.alloc(orderOf(fdtSize, target.pageSize))
    if (failed(fdt)) return fdt
    if (!spec.traits.buildsAtFinalize) {
      const failure = this.#kho.preserveFolio(fdt)
      if (failed(failure)) return this.#free([fdt], failure)
    }
    const info = isInline(root) ? this.#preserveInline(folios) : this.#preserveListed(folios)
    if (failed(info)) return this.#free([fdt], info)
    const totalsize = this.#writeFdt(root, fdt, fdtSize, folios.length, csum, info)
    if (!spec.traits.buildsAtFinalize) return this.#kho.addSubtree(SUBTREE, fdt, totalsize)
    this.#kho.outgoing.register(() => {
      const preserved = this.#kho.preserveFolio(fdt)
      return failed(preserved) ? preserved : this.#kho.addSubtree(SUBTREE, fdt, totalsize)
    })
  }

  /** kho_test_generate_data(): folios of random orders, filled at random. */
  #generate(): Answer<{ readonly folios: readonly bigint[]; readonly csum: number }> {
    const { pages, target, ram, arch } = this.#kernel
    const limit = target.pageSize * 2 ** pages.maxOrder * 2
    const folios: bigint[] = []
    let csum = 0
    for (let done = 0; done < limit; ) {
      let order = this.#next() % (pages.maxOrder + 1)
      if (done + target.pageSize * 2 ** order > limit) {
        order = Math.max(0, orderOf(limit - done, target.pageSize) - 1)
      }
      const folio = pages.alloc(order)
      if (failed(folio)) {
        for (const info of folios) pages.put(this.#headOf(info))
        return folio
      }
      const bytes = this.#randomBytes(target.pageSize * 2 ** order)
      ram.write(folio, bytes)
      csum = csumPartial(arch, sumOfWords(bytes), csum)
      folios.push(folio | BigInt(order))
      done += bytes.length
    }
    return { folios, csum }
  }

  #preserveInline(folios: readonly bigint[]): Answer<Uint8Array> {
    for (const info of folios) {
      const failure = this.#kho.preserveFolio(this.#headOf(info))
      if (failed(failure)) return failure
    }
    return encodeWords(folios)
  }

  #preserveListed(folios: readonly bigint[]): Answer<Uint8Array> {
    const { target, ram } = this.#kernel
    const area = this.#kho.allocVmalloc(folios.length * 8)
    if (failed(area)) return area
    const value = this.#kho.preserveVmalloc(area)
    if (failed(value)) {
      this.#kho.freeVmalloc(area)
      return value
    }
    const words = encodeWords(folios)
    area.pages.forEach((page, at) => {
      ram.write(page, words.subarray(at * target.pageSize, (at + 1) * target.pageSize))
    })
    for (const info of folios) {
      const failure = this.#kho.preserveFolio(this.#headOf(info))
      if (failed(failure)) {
        this.#kho.unpreserveVmalloc(value)
        this.#kho.freeVmalloc(area)
        return failure
      }
    }
    return encodeStruct(khoVmalloc, value, target)
  }

  #writeFdt(
    root: FdtNodeType,
    pa: PhysAddr,
    size: number,
    count: number,
    csum: number,
    info: Uint8Array,
  ): number {
    const built = buildFdt(
      {
        name: '',
        properties: [
          { name: 'compatible', value: textBytes(`${compatibleOf(root)}\0`) },
          { name: 'magic', value: encodeInt(word32, magicOf(root)) },
        ],
        children: [
          {
            name: DATA,
            properties: [
              { name: 'nr_folios', value: encodeInt(word32, count) },
              { name: 'folios_info', value: info },
              { name: 'csum', value: encodeInt(word32, csum) },
            ],
            children: [],
          },
        ],
      },
      'sequential',
      size,
    )
    invariant(built, 'the test FDT fits the folio that was made for it')
    this.#kernel.ram.write(pa, built.buffer)
    return built.totalsize
  }

  #free(heads: readonly PhysAddr[], failure: Failure): Failure {
    for (const head of heads) this.#kernel.pages.put(head)
    return failure
  }

  #headOf(info: bigint): PhysAddr {
    const shift = BigInt(pageShift(this.#kernel.target.pageSize))
    return phys((info >> shift) << shift)
  }

  #randomBytes(length: number): Uint8Array {
    const words = new Uint32Array(length / 4)
    let random = this.#random
    for (let at = 0; at < words.length; at++) {
      random = xorshift32(random)
      words[at] = random
    }
    this.#random = random
    return new Uint8Array(words.buffer)
  }

  #next(): number {
    this.#random = xorshift32(this.#random)
    return this.#random
  }
}

/** The same seed gives the same kernel. */
function xorshift32(before: number): number {
  let x = before
  x ^= x << 13
  x ^= x >>> 17
  x ^= x << 5
  return x >>> 0
}

function isInline(root: FdtNodeType): boolean {
  return root.children?.[DATA]?.properties.folios_info?.kind === 'inline-array'
}

function magicOf(root: FdtNodeType): number {
  const { magic } = root.properties
  invariant(magic?.kind === 'int' && magic.only !== undefined, 'kho_test has a magic number')
  return magic.only
}

function u32At(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)
}

function wordsOf(bytes: Uint8Array, count: number): readonly bigint[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  return Array.from({ length: count }, (_, at) => view.getBigUint64(at * 8, true))
}

function encodeWords(words: readonly bigint[]): Uint8Array {
  const out = new Uint8Array(words.length * 8)
  words.forEach((value, at) => {
    out.set(encodeInt(word64, value), at * 8)
  })
  return out
}
