/**
 * The memory that a handover owns: what is preserved, the zeros in it too, and what describes it. Other
 * RAM is free: nothing of it reaches the next kernel, so that images leave it out.
 */
import type { PhysRange } from '../abi/memory.ts'
import { phys } from '../abi/memory.ts'
import { trimmed, type WritableMemory } from './image-pieces.ts'
import { mergeRanges } from './memory.ts'
import { neighbourRuns, type UnitTable, unitBytes, unitRun } from './units.ts'
import type { WrittenHandover } from './write-handover.ts'

/** A view in which RAM that the handover does not own counts as left out by the dumper. */
export function heldMemory({ memory, preserved }: WrittenHandover): WritableMemory {
  const units = preserved.flatMap((table) => [...unitRanges(table, memory.pageSize)])
  return trimmed(memory, mergeRanges([...memory.extents(), ...units]))
}

function* unitRanges(
  table: UnitTable,
  pageSize: WrittenHandover['memory']['pageSize'],
): Generator<PhysRange> {
  for (let index = 0; index < table.length; index++) {
    for (const { start, order, count } of neighbourRuns(unitRun(table, index), pageSize)) {
      yield { start: phys(start), end: start + BigInt(unitBytes(order, pageSize)) * BigInt(count) }
    }
  }
}
