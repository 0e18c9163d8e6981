/** Faults for which the validator predicts something else than the real kernel did, and why that is right. */
export const DISAGREEMENTS: Readonly<Record<string, string>> = {}
