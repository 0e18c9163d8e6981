/**
 * Faults after which a real kernel did something else than the validator predicts, and why both are right.
 *
 * `chance`: the kernel uses memory that nothing keeps for it, so that what is predicted can happen and need
 * not. `image`: only an image can lack memory; a machine has it. `kernel`: what the kernel did is its defect.
 */
export interface Disagreement {
  readonly kind: 'chance' | 'image' | 'kernel'
  readonly why: string
}

export const DISAGREEMENTS: Readonly<Record<string, Disagreement>> = {}
