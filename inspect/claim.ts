/**
 * Claims: which memory a handover refers to, and how the next kernel will take it back. A page that is
 * referred to must be preserved, with the order under which it will be restored.
 */
import type { Hop } from '../abi/fault.ts'
import type { PhysAddr } from '../abi/memory.ts'

/**
 * `folio`: kho_restore_folio() or kho_restore_free() at the head of a unit. `pages`: kho_restore_pages(),
 * which splits a run as kho_preserve_pages() does. `read`: only looked at, never given back.
 */
export type Restore = 'folio' | 'pages' | 'read'

/** Memory of one kind that one owner refers to. */
export interface ClaimGroup {
  /** Id of the rule that judges whether it is preserved. */
  readonly rule: string
  /** Path of the owner, and what this is to it: `block 0 of sessions`. */
  readonly path: string
  readonly what: string
  /** Hops to the structure that holds the pointers. */
  readonly via: readonly Hop[]
  readonly restore: Restore
  /** First frame of each unit or run. */
  readonly pfns: Float64Array
  /** Pages of each; undefined where the unit may have any order (memfd folios take the one that it has). */
  readonly pages: number | undefined
  /** Where the pointer to number `index` is stored. */
  readonly pointer: (index: number) => PhysAddr
  /** Position within the stage, as in `Violation`. */
  readonly step?: number
}
