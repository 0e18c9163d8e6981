/**
 * The map of preserved memory, outgoing: what KHO's primitives do to it, whatever its form.
 */
import type { PhysAddr } from '../abi/memory.ts'
import type { Answer } from './answer.ts'

/** What there may be none of on the way to a unit's bit. */
export type MissingPart = 'root' | 'node' | 'order' | 'bitmap'

export interface PreservedMap {
  preserve(frame: number, order: number): Answer
  /** What is missing where there is nothing to clear the bit in. */
  unpreserve(frame: number, order: number): MissingPart | undefined
  /** Address that goes into the root FDT, once there is one. */
  readonly root: PhysAddr | undefined
  /** Frees what the map takes, units and all. */
  destroy(): void
  /** Pages that the map takes, none of them preserved. */
  ownPages(): Iterable<PhysAddr>
}
