/** The bytes of a decoded memfd, laid out by its folio records. */
import { type PhysicalMemory, phys } from '../../abi/memory.ts'
import { child, type Node, numberAt } from '../../inspect/tree.ts'

/** At most the first `limit` bytes of a file; what no folio holds is zeros. */
export function memfdBytes(memory: PhysicalMemory, file: Node, pageSize: number, limit: number): Uint8Array {
  const memfd = child(file, 'memfd')
  const size = Math.min(Number(numberAt(memfd, 'size') ?? 0), limit)
  const bytes = new Uint8Array(size)
  const folios = child(memfd, 'folios')
  const bulk = folios?.kind === 'record' ? folios.bulk : undefined
  let previous: { readonly pfn: number; readonly index: number } | undefined
  const fill = (until: number): void => {
    if (!previous || previous.pfn === 0) return
    const start = previous.index * pageSize
    const end = Math.min(size, until * pageSize)
    if (start < end) memory.read(phys(BigInt(previous.pfn) * BigInt(pageSize)), bytes.subarray(start, end))
  }
  for (const value of bulk?.values() ?? []) {
    const record = { pfn: Number(value.pfn), index: Number(value.index) }
    fill(record.index)
    previous = record
    if (record.index * pageSize >= size) break
  }
  fill(Number.POSITIVE_INFINITY)
  return bytes
}
