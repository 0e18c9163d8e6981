/**
 * What ends a simulated kernel. Thrown inside of it and caught at its boundary (kernel.ts): from then on
 * the kernel has only its log.
 */
import type { PhysAddr } from '../abi/memory.ts'

/** panic(): the kernel gives up on purpose. */
export class KernelPanic extends Error {}

/** A state that the kernel does not survive. */
export class KernelOops extends Error {}

/** Where a pointer leads that nothing is mapped for: through the linear map, to a struct page, near NULL. */
export type WildPlace =
  | { readonly to: 'memory'; readonly pa: PhysAddr }
  | { readonly to: 'struct-page'; readonly frame: bigint }
  | { readonly to: 'null'; readonly offset: number }

/** A wild pointer is followed. */
export class WildAccess extends KernelOops {
  readonly place: WildPlace
  readonly isWrite: boolean

  constructor(message: string, place: WildPlace, isWrite = false) {
    super(message)
    this.place = place
    this.isWrite = isWrite
  }
}

export function isCrash(error: unknown): error is KernelPanic | KernelOops {
  return error instanceof KernelPanic || error instanceof KernelOops
}
