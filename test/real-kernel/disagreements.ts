/**
 * Faults after which a real kernel did something else than the validator predicts, and why that is no
 * mistake of either.
 *
 * `chance`: the kernel uses memory that nothing keeps for it, so that what is predicted can happen and need
 * not. `image`: only an image can lack something; a machine has it. `kernel`: the kernel does what nobody
 * meant.
 */
import type { Outcome } from '../../abi/check.ts'

export interface Disagreement {
  readonly kind: 'chance' | 'image' | 'kernel'
  readonly why: string
  /** Of `chance`: what a Linux 7.3.4 with pages of 4K did in each of five runs on 2026-11-21. */
  readonly measured?: Outcome
}

const chance = (measured: Outcome, why: string): Disagreement => ({ kind: 'chance', measured, why })

const NOT_REUSED = 'nothing was put there before it was read'
const REUSED = 'something was put there before it was read'
const NOT_RESTORABLE = 'what was put there is no record that can be restored'
const FAILS_EARLIER = 'the memory that the first one gave back was not reused before the second one failed'

export const DISAGREEMENTS: Readonly<Record<string, Disagreement>> = {
  'map-in-scratch': chance('takes-over', NOT_REUSED),
  'root-in-scratch': chance('takes-over', NOT_REUSED),
  'map-pointer-misaligned': chance('corrupts', 'what stands behind the address is no page of the map'),
  'root-not-preserved': chance('takes-over', NOT_REUSED),
  'subtree-not-preserved': chance('takes-over', NOT_REUSED),
  'reserve-mem-not-preserved': chance('takes-over', NOT_REUSED),
  'metadata-not-preserved': chance('takes-over', NOT_REUSED),
  'luo-not-preserved': chance('takes-over', NOT_REUSED),
  'sessions-not-preserved': chance('corrupts', REUSED),
  'files-not-preserved': chance('corrupts', REUSED),
  'flbs-not-preserved': chance('corrupts', REUSED),
  'memfd-not-preserved': chance('loses', NOT_RESTORABLE),
  'folio-clean': chance('takes-over', 'no memory was short, so that nothing was written out or dropped'),
  'session-files-shared': chance('loses', FAILS_EARLIER),
  'memfd-shared': chance('loses', FAILS_EARLIER),
  'reserve-mem-in-file': chance('takes-over', 'nobody writes to the page that two own'),
  'scratch-array-untold': { kind: 'image', why: 'the image does not tell; a kernel is always told' },
  'metadata-release-without-end': {
    kind: 'kernel',
    why: 'it prints the release up to the next zero byte, into the counter behind it',
  },
}
