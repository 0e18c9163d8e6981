/**
 * The map of preserved memory, outgoing: what KHO's primitives do to it, whatever its form.
 */
import type { PhysAddr } from '../abi/memory.ts'
import type { Answer } from './answer.ts'

export interface PreservedMap {
  preserve(frame: number, order: number): Answer
  /** False where there is nothing to clear the bit in: the kernel warns. */
  unpreserve(frame: number, order: number): boolean
  /** Address that goes into the root FDT, once there is one. */
  readonly root: PhysAddr | undefined
  /** Frees what the map takes, units and all. */
  destroy(): void
  /** Pages that the map takes, none of them preserved. */
  ownPages(): Iterable<PhysAddr>
}
