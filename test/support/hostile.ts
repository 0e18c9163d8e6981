/** Handovers made to cost as much as they can, written by hand into memory that costs nothing. */
import type { PhysAddr, PhysicalMemory } from '../../abi/memory.ts'
import { phys } from '../../abi/memory.ts'
import { buildFdt } from '../../encode/fdt.ts'
import { decodeHandover, type Handover } from '../../inspect/decode.ts'
import { noPaint } from '../../inspect/paint.ts'
import { handoverToJson, jsonText } from '../../inspect/render-json.ts'
import { renderText } from '../../inspect/render-text.ts'
import { GeneratedMemory, wordPage } from './generated.ts'
import { nothing, PatchedMemory } from './patched.ts'

const ROOT = 0x1_0000n
const LUO = 0x8_0000n
/** Where generated memory starts, above all that is written. */
const GENERATED = 0x100_0000_0000

export interface Hostile {
  readonly memory: PatchedMemory
  readonly root: PhysAddr
}

const word = (value: bigint): Uint8Array => new Uint8Array(new BigUint64Array([value]).buffer)
const text = (value: string): Uint8Array => new TextEncoder().encode(`${value}\0`)

interface Subtree {
  readonly name: string
  readonly pa: bigint
  readonly size: bigint
}

function withRoot(
  below: PhysicalMemory,
  compatible: string,
  subtrees: readonly Subtree[],
  map: bigint,
): Hostile {
  const memory = new PatchedMemory(below)
  const properties = [
    { name: 'compatible', value: text(compatible) },
    { name: 'preserved-memory-map', value: word(map) },
  ]
  const children = subtrees.map(({ name, pa, size }) => {
    const sized = [
      { name: 'preserved-data', value: word(pa) },
      { name: 'blob-size', value: word(size) },
    ]
    return { name, properties: sized, children: [] }
  })
  const fdt = buildFdt({ name: '', properties, children }, 'sequential', 1 << 18)
  memory.write(ROOT, fdt?.buffer.subarray(0, fdt.totalsize) ?? new Uint8Array())
  return { memory, root: phys(ROOT) }
}

/** luo_ser of luo-v5, which leads to the first block of sessions. */
function withLuo(below: PhysicalMemory, sessions: bigint): Hostile {
  const hostile = withRoot(below, 'kho-v4', [{ name: 'LUO', pa: LUO, size: 32n }], 0n)
  hostile.memory.write(LUO, text('luo-v5'))
  hostile.memory.writeU64(LUO + 16n, sessions)
  return hostile
}

/** Page `number` of a chain of full blocks, each followed by the next page. */
function blockPage(
  next: number,
  size: number,
  write: (index: number, entry: Uint8Array) => void,
): Uint8Array {
  const count = Math.floor((4096 - 16) / size)
  const page = wordPage((put) => {
    put(0, next)
    put(1, count)
  })
  for (let index = 0; index < count; index++)
    write(index, page.subarray(16 + index * size, 16 + (index + 1) * size))
  return page
}

const put = (entry: Uint8Array, offset: number, value: number): void =>
  new DataView(entry.buffer, entry.byteOffset).setBigUint64(offset, BigInt(value), true)

const address = (page: number): number => GENERATED + page * 4096

/** As many blocks of sessions as are asked for; `files` gives each session a chain. */
export function manySessions(blocks: number, files: (session: number) => number): Hostile {
  const below = new GeneratedMemory(BigInt(GENERATED), (block) =>
    blockPage(block + 1 < blocks ? address(block + 1) : 0, 80, (index, entry) => {
      entry.set(text(`s${block}-${index}`))
      const chain = files(block * 51 + index)
      if (chain === 0) return
      put(entry, 64, chain)
      put(entry, 72, 63)
    }),
  )
  return withLuo(below, BigInt(GENERATED))
}

/** Sessions that share one chain of one block of files that share one record. */
export function sharedFiles(blocks: number): Hostile {
  const hostile = manySessions(blocks, () => 0x20_0000)
  const block = blockPage(0, 64, (index, entry) => {
    entry.set(text('memfd-v2'))
    put(entry, 48, 0x30_0000)
    put(entry, 56, index)
  })
  hostile.memory.write(0x20_0000n, block)
  hostile.memory.write(0x30_0000n, new Uint8Array(4096))
  return hostile
}

/** A chain of blocks without end, of sessions whose chains of files have no end. */
export function endlessFiles(): Hostile {
  const below = new GeneratedMemory(BigInt(GENERATED), (number) =>
    number % 2 === 0
      ? blockPage(address(number + 2), 80, (index, entry) => {
          entry.set(text(`s${number}-${index}`))
          put(entry, 64, address(1 + 2 * (number * 51 + index) * 10_000))
        })
      : blockPage(address(number + 2), 64, (index, entry) => {
          entry.set(text('opaque'))
          put(entry, 56, index)
        }),
  )
  return withLuo(below, BigInt(GENERATED))
}

/** A radix tree in which every page is a node or leaf full of addresses of further pages. */
export function endlessTree(): Hostile {
  const below = new GeneratedMemory(BigInt(GENERATED), (number) =>
    wordPage((putWord) => {
      for (let i = 0; i < 512; i++) putWord(i, address(((number * 512 + 1) % 2 ** 36) + i))
    }),
  )
  return withRoot(below, 'kho-v4', [], BigInt(GENERATED))
}

/** A radix tree in which every entry of every node leads to one of a few pages. */
export function knottedTree(): Hostile {
  const below = new GeneratedMemory(BigInt(GENERATED), (number) =>
    wordPage((putWord) => {
      for (let i = 0; i < 512; i++) putWord(i, address((number + i) % 7))
    }),
  )
  return withRoot(below, 'kho-v4', [], BigInt(GENERATED))
}

/** A chain of chunks without end, whose bitmaps overlap each other in one page. */
export function endlessChunks(): Hostile {
  const bits = new Uint8Array(4096).fill(0x55)
  const below = new GeneratedMemory(BigInt(GENERATED), (number) =>
    number >= 2 ** 30
      ? bits
      : wordPage((putWord) => {
          putWord(0, address(number + 1))
          putWord(1, 255 * 2 ** 32)
          for (let i = 0; i < 255; i++) {
            putWord(2 + 2 * i, ((number * 255 + i) * 2 ** 24) % 2 ** 52)
            putWord(3 + 2 * i, address(2 ** 30) + (number * 255 + i) * 8)
          }
        }),
  )
  return withRoot(below, 'kho-v1', [], BigInt(GENERATED))
}

/** Files whose folio arrays, each with a chunk of its own, all list the same 511 pages. */
export function sharedPages(blocks: number): Hostile {
  const CHUNKS = 2 ** 28
  const PAGES = 2 ** 29
  const RECORDS = 511 * 256
  const page = (number: number): Uint8Array => {
    if (number >= PAGES)
      return wordPage((putWord) => {
        for (let i = 0; i < 512; i++) putWord(i, i % 2 === 0 ? i + 7 : i * 3)
      })
    if (number >= CHUNKS)
      return wordPage((putWord) => {
        for (let i = 1; i < 512; i++) putWord(i, address(PAGES + i))
      })
    if (number % 2 === 1)
      return wordPage((putWord) => {
        putWord(1, RECORDS * 4096)
        putWord(3, RECORDS)
        putWord(4, address(CHUNKS + number))
        putWord(5, 511 + 2 ** 32)
      })
    return blockPage(0, 64, (index, entry) => {
      entry.set(text('memfd-v2'))
      put(entry, 48, address((number / 2) * 126 + 2 * index + 1))
      put(entry, 56, index)
    })
  }
  const below = new GeneratedMemory(BigInt(GENERATED), page)
  const hostile = withLuo(below, 0x20_0000n)
  for (let block = 0; block < blocks; block++) {
    const next = block + 1 < blocks ? 0x20_0000 + (block + 1) * 4096 : 0
    const bytes = blockPage(next, 80, (index, entry) => {
      entry.set(text(`s${block}-${index}`))
      put(entry, 64, address(2 * (block * 51 + index)))
      put(entry, 72, 63)
    })
    hostile.memory.write(BigInt(0x20_0000 + block * 4096), bytes)
  }
  return hostile
}

/** An FDT of that many bytes: nodes as small as they get, or properties that share one name. */
export function tinyNodes(length: number, kind: 'nodes' | 'properties'): Uint8Array {
  const bytes = Buffer.alloc(length)
  const strings = length - 16
  const header = [0xd00dfeed, length, 56, strings, 40, 17, 16, 0, 16, strings - 56]
  for (const [i, value] of header.entries()) bytes.writeUInt32BE(value, i * 4)
  bytes.write('name', strings)
  let at = 56
  const token = (...words: readonly number[]): void => {
    for (const value of words) {
      bytes.writeUInt32BE(value, at)
      at += 4
    }
  }
  token(1, 0)
  while (at < strings - 24) {
    if (kind === 'nodes') token(1, 0x61000000, 2)
    else token(3, 0, 0)
  }
  token(2, 9)
  return new Uint8Array(bytes)
}

/** Subtrees with an FDT each, which repeat in memory. */
export function manyFdts(count: number, fdt: Uint8Array): Hostile {
  const pages = fdt.length / 4096
  const below = new GeneratedMemory(BigInt(GENERATED), (number) => {
    const start = (number % pages) * 4096
    return fdt.subarray(start, start + 4096)
  })
  const subtrees = Array.from({ length: count }, (_, i) => ({
    name: `x${i}`,
    pa: BigInt(address(i * pages)),
    size: BigInt(fdt.length),
  }))
  return withRoot(below, 'kho-v4', subtrees, 0n)
}

/** One blob of LUO, unknown subsystem or whatever its name says, written into otherwise empty memory. */
export function oneBlob(name: string, blob: Uint8Array): Hostile {
  const pa = 0x100_0000n
  const hostile = withRoot(nothing, 'kho-v4', [{ name, pa, size: BigInt(blob.length) }], 0n)
  hostile.memory.write(pa, blob)
  return hostile
}

export interface Cost {
  readonly handover: Handover
  /** Of processor time, for decoding and printing as text and JSON. */
  readonly seconds: number
  /** Of resident memory, more than before. */
  readonly mebibytes: number
  readonly codes: readonly string[]
}

/** Decodes and prints a handover, and says what that cost. */
export function costOf({ memory, root }: Hostile): Cost {
  const resident = process.memoryUsage().rss
  const before = process.cpuUsage()
  const handover = decodeHandover(memory, root)
  renderText(handover, { paint: noPaint, extents: false })
  for (const _piece of jsonText(handoverToJson(handover, { folios: false })));
  const { user, system } = process.cpuUsage(before)
  const mebibytes = Math.max(0, process.memoryUsage().rss - resident) / 2 ** 20
  const codes = [...new Set(handover.faults.map(({ code }) => code))].sort()
  return { handover, seconds: (user + system) / 1e6, mebibytes, codes }
}
