/**
 * What a kernel function answers: a value, or the error that it returns. A refusal is an ordinary answer
 * here; exceptions are for what ends the kernel (crash.ts) or a task (blocked.ts) and for defects of this
 * project.
 */
import { ERRNO, type Errno } from '../abi/errno.ts'

/** A negative return value of a kernel function. */
export class Failure {
  /** As the kernel prints it with `%d`. */
  readonly number: number

  /** A number where the kernel passes on what is no errno: libfdt's codes. */
  constructor(cause: Errno | number) {
    this.number = typeof cause === 'number' ? cause : -ERRNO[cause]
  }

  /** Name of the error; the number where it has none here; `blocks` for what never comes back. */
  get errno(): Errno | number | 'blocks' {
    const name = Object.entries(ERRNO).find(([, number]) => number === -this.number)?.[0]
    return (name as Errno | undefined) ?? this.number
  }
}

export type Answer<T = void> = T | Failure

export function failed<T>(answer: Answer<T>): answer is Failure {
  return answer instanceof Failure
}
