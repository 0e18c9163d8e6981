/**
 * A copy of debugfs `kho`, or of `kho/in` or `kho/out`, as an image: the root FDT, the subsystems' blobs
 * and the scratch areas, but no memory. Where the root FDT says that a blob lies, `placeBlob` puts it.
 *
 * Source: kernel/liveupdate/kexec_handover_debugfs.c (up to 6.18 in kernel/kexec_handover.c). The kernel
 * gives `fdt` the size that the tree had when the file was made, so it may be cut.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { type PhysAddr, parseAddress } from '../abi/memory.ts'
import { arrangeExtents, type OpenedMemory, SegmentMemory } from './image-segments.ts'
import { BytesSource, isProblem, type Problem, systemError } from './image-source.ts'

/** One direction of debugfs kho: what came in from the kernel before, or what goes out to the next. */
export interface DebugfsTree {
  readonly direction: 'in' | 'out'
  /** Root FDT as read, possibly cut; empty where the kernel had none yet. */
  readonly fdt: Uint8Array
  /** Files of `sub_fdts`, by name: FDTs and packed structs. */
  readonly blobs: ReadonlyMap<string, Uint8Array>
  readonly scratch: readonly { readonly addr: bigint; readonly size: bigint }[]
  /** Puts bytes into the image's memory; where something lies already, that stays. */
  readonly placeBlob: (pa: PhysAddr, bytes: Uint8Array) => void
}

/** The kernel's own blobs take one page, kho_test's some more. */
const MAX_BLOB_BYTES = 4 * 1024 * 1024
const MAX_BLOBS = 1024
const MAX_TEXT_BYTES = 64 * 1024

const ROOT_FDT = 'fdt'
const SUB_FDTS = 'sub_fdts'

export interface OpenedDebugfs extends OpenedMemory {
  readonly trees: readonly DebugfsTree[]
}

export function openDebugfs(directory: string): OpenedDebugfs | Problem {
  const places = findTrees(directory)
  if (places.length === 0) {
    const expected = `a copy of debugfs kho, kho/in or kho/out (with the files ${ROOT_FDT} and ${SUB_FDTS}/)`
    const found = isFile(directory) ? 'is a file; expected' : 'is a directory; expected an image file, or'
    return { problem: `${directory}: ${found} ${expected}` }
  }
  const memory = new SegmentMemory([])
  const warnings: string[] = []
  const trees: DebugfsTree[] = []
  for (const { path, direction } of places) {
    const tree = readTree(path, direction, memory, warnings)
    if (isProblem(tree)) return tree
    trees.push(tree)
  }
  return { memory, notes: [], warnings, trees }
}

/** The directory may be `in`, `out`, `kho` above them, or what holds `kho`. What goes out comes first. */
function findTrees(directory: string): { path: string; direction: 'in' | 'out' }[] {
  if (isFile(`${directory}/${ROOT_FDT}`)) {
    const isOut =
      basename(directory) === 'out' || (basename(directory) !== 'in' && isFile(`${directory}/scratch_phys`))
    return [{ path: directory, direction: isOut ? 'out' : 'in' }]
  }
  for (const above of [directory, `${directory}/kho`]) {
    const trees = (['out', 'in'] as const)
      .map((direction) => ({ path: `${above}/${direction}`, direction }))
      .filter(({ path }) => isFile(`${path}/${ROOT_FDT}`))
    if (trees.length > 0) return trees
  }
  return []
}

function readTree(
  path: string,
  direction: 'in' | 'out',
  memory: SegmentMemory,
  warnings: string[],
): DebugfsTree | Problem {
  const files = new Map<Uint8Array, string>()
  const fdt = readBounded(`${path}/${ROOT_FDT}`, MAX_BLOB_BYTES)
  if (isProblem(fdt)) return fdt
  files.set(fdt, `${path}/${ROOT_FDT}`)
  const blobs = new Map<string, Uint8Array>()
  for (const name of namesIn(`${path}/${SUB_FDTS}`)) {
    const file = `${path}/${SUB_FDTS}/${name}`
    if (blobs.size >= MAX_BLOBS) {
      warnings.push(`${path}/${SUB_FDTS}: only the first ${MAX_BLOBS} files are read`)
      break
    }
    const blob = readBounded(file, MAX_BLOB_BYTES)
    if (isProblem(blob)) {
      warnings.push(blob.problem)
      continue
    }
    blobs.set(name, blob)
    files.set(blob, file)
  }
  const placeBlob = (pa: PhysAddr, bytes: Uint8Array): void => {
    const source = new BytesSource(files.get(bytes), bytes)
    const extent = { start: pa, end: pa + BigInt(bytes.length), source, offset: 0 }
    const sorted = arrangeExtents([...memory.extents, extent])
    if (sorted) memory.replaceExtents(sorted.arranged)
  }
  return { direction, fdt, blobs, scratch: readScratch(path, warnings), placeBlob }
}

/** `scratch_phys` and `scratch_len`: one number a line, in the order of the areas. */
function readScratch(path: string, warnings: string[]): { addr: bigint; size: bigint }[] {
  const [addresses, sizes] = ['scratch_phys', 'scratch_len'].map((name) => {
    const file = `${path}/${name}`
    if (!isFile(file)) return []
    const content = readBounded(file, MAX_TEXT_BYTES)
    if (isProblem(content)) {
      warnings.push(content.problem)
      return []
    }
    const lines = new TextDecoder()
      .decode(content)
      .split('\n')
      .filter((line) => line.trim() !== '')
    return lines.map((line) => {
      const value = parseAddress(line.trim())
      if (value === undefined)
        warnings.push(`${file}: expected an address a line, found ${JSON.stringify(line.slice(0, 40))}`)
      return value
    })
  }) as [(bigint | undefined)[], (bigint | undefined)[]]
  if (addresses.length !== sizes.length) {
    warnings.push(`${path}: scratch_phys has ${addresses.length} lines, scratch_len ${sizes.length}`)
  }
  return addresses.flatMap((addr, index) => {
    const size = sizes[index]
    return addr !== undefined && size !== undefined ? [{ addr, size }] : []
  })
}

function readBounded(file: string, limit: number): Uint8Array | Problem {
  try {
    const stat = statSync(file)
    if (!stat.isFile()) return { problem: `${file}: is no regular file` }
    if (stat.size > limit) return { problem: `${file}: has ${stat.size} bytes; expected at most ${limit}` }
    const content = readFileSync(file)
    return new Uint8Array(content.buffer, content.byteOffset, content.length)
  } catch (error) {
    return { problem: `${file}: cannot be read: ${systemError(error)}` }
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort()
  } catch {
    return []
  }
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile()
  } catch {
    return false
  }
}
