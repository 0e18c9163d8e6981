/** A change to an image: bytes of memory, fields of the boot entry, or why there is nothing to be changed. */
import type { KhoData } from '../inspect/boot-entry.ts'
import type { Patch } from './patch.ts'

/** What the next kernel is told of the handover; it stands in a note of the image, not in its memory. */
export interface BootEdit {
  readonly boot: Partial<KhoData>
}

export type Edit = Patch | BootEdit

export interface Unfit {
  readonly unfit: string
}

export type Change = readonly Edit[] | Unfit

export function isUnfit(change: object): change is Unfit {
  return 'unfit' in change
}

/** Several changes at once; the first that does not fit says why. */
export function together(...changes: readonly Change[]): Change {
  const edits: Edit[] = []
  for (const change of changes) {
    if (isUnfit(change)) return change
    edits.push(...change)
  }
  return edits
}

/** The bytes among the edits. */
export function patchesOf(edits: readonly Edit[]): readonly Patch[] {
  return edits.filter((edit) => 'bytes' in edit)
}

/** The boot entry with the edits. */
export function editedBoot(boot: KhoData, edits: readonly Edit[]): KhoData {
  return Object.assign({}, boot, ...edits.map((edit) => ('boot' in edit ? edit.boot : {})))
}
