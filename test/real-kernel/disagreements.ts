/**
 * Faults after which a real kernel did something else than the validator predicts, and why that is no
 * mistake of either.
 *
 * `chance`: the kernel uses memory that nothing keeps for it, so that what is predicted can happen and need
 * not. `image`: only an image can lack something; a machine has it. `kernel`: the kernel does what nobody
 * meant. `unchecked`: the validator does not look at it.
 */
export interface Disagreement {
  readonly kind: 'chance' | 'image' | 'kernel' | 'unchecked'
  readonly why: string
}

const notReused: Disagreement = { kind: 'chance', why: 'nothing was put there before it was read' }
const failsEarlier: Disagreement = {
  kind: 'chance',
  why: 'the memory that the first one gave back was not reused before the second one failed',
}

export const DISAGREEMENTS: Readonly<Record<string, Disagreement>> = {
  'map-in-scratch': notReused,
  'root-in-scratch': notReused,
  'map-pointer-misaligned': notReused,
  'root-not-preserved': notReused,
  'subtree-not-preserved': notReused,
  'reserve-mem-not-preserved': notReused,
  'metadata-not-preserved': notReused,
  'luo-not-preserved': notReused,
  'sessions-not-preserved': notReused,
  'files-not-preserved': notReused,
  'flbs-not-preserved': notReused,
  'memfd-not-preserved': { kind: 'chance', why: 'what was put there is no record that can be restored' },
  'folio-clean': { kind: 'chance', why: 'no memory was short, so that nothing was written out or dropped' },
  'session-files-shared': failsEarlier,
  'memfd-shared': failsEarlier,
  'reserve-mem-in-file': { kind: 'chance', why: 'nobody writes to the page that two own' },
  'scratch-array-untold': { kind: 'image', why: 'the image does not tell; a kernel is always told' },
  'page-claimed-twice': {
    kind: 'unchecked',
    why: 'the page is part of what lib/test_kho.c sums up, which the validator does not do',
  },
  'metadata-release-without-end': {
    kind: 'kernel',
    why: 'it prints the release up to the next zero byte, into the counter behind it',
  },
}
