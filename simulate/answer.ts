/**
 * What a kernel function answers: a value, or the error that it returns. A refusal is an ordinary answer
 * here; exceptions are for what ends the kernel (crash.ts) and for defects of this project.
 */
import { ERRNO, type Errno } from '../abi/errno.ts'

/** A negative return value of a kernel function. */
export class Failure {
  readonly errno: Errno

  constructor(errno: Errno) {
    this.errno = errno
  }

  /** As the kernel prints it with `%d`. */
  get number(): number {
    return -ERRNO[this.errno]
  }
}

export type Answer<T = void> = T | Failure

export function failed<T>(answer: Answer<T>): answer is Failure {
  return answer instanceof Failure
}
