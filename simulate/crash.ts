/**
 * What ends a simulated kernel. Thrown inside of it and caught at its boundary (kernel.ts): from then on
 * the kernel has only its log.
 */

/** panic(): the kernel gives up on purpose. */
export class KernelPanic extends Error {}

/** A wild pointer, or a state of pages that the allocator does not survive. */
export class KernelOops extends Error {}

export function isCrash(error: unknown): error is KernelPanic | KernelOops {
  return error instanceof KernelPanic || error instanceof KernelOops
}
