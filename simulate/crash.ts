/**
 * What ends a simulated kernel. Thrown inside of it and caught at its boundary (kernel.ts): from then on
 * the kernel has only its log.
 */
import type { PhysAddr } from '../abi/memory.ts'

/** panic(): the kernel gives up on purpose. */
export class KernelPanic extends Error {}

/** A wild pointer to `pa`; without one another state that the kernel does not survive. */
export class KernelOops extends Error {
  readonly pa: PhysAddr | undefined

  constructor(message: string, pa?: PhysAddr) {
    super(message)
    this.pa = pa
  }
}

export function isCrash(error: unknown): error is KernelPanic | KernelOops {
  return error instanceof KernelPanic || error instanceof KernelOops
}
