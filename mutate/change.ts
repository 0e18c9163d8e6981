/** A change to an image: patches, or why the image has no such thing to be changed. */
import type { Patch } from './patch.ts'

export interface Unfit {
  readonly unfit: string
}

export type Change = readonly Patch[] | Unfit

export function isUnfit(change: object): change is Unfit {
  return 'unfit' in change
}

/** Several changes at once; the first that does not fit says why. */
export function together(...changes: readonly Change[]): Change {
  const patches: Patch[] = []
  for (const change of changes) {
    if (isUnfit(change)) return change
    patches.push(...change)
  }
  return patches
}
