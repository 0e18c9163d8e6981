/**
 * What ends a simulated kernel. Thrown inside of it and caught at its boundary (kernel.ts): from then on
 * the kernel has only its log.
 */
import type { Architecture } from '../abi/machine.ts'
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

/** What a NULL pointer leads to: `offset` bytes from address zero. */
export class NullDereference extends KernelOops {
  readonly offset: number

  constructor(message: string, offset: number) {
    super(message)
    this.offset = offset
  }
}

export function isCrash(error: unknown): error is KernelPanic | KernelOops {
  return error instanceof KernelPanic || error instanceof KernelOops
}

/** The signal that the process dies of: x86's page_fault_oops() sends SIGKILL, every die() SIGSEGV. */
export function exitCode(arch: Architecture, oops: KernelOops): string {
  const isFault = oops.pa !== undefined || oops instanceof NullDereference
  return arch === 'x86_64' && isFault ? '00000009' : '0000000b'
}
