/** Calls that never come back: an exception inside of the kernel, an answer to who made the call. */
import { type Answer, Failure } from './answer.ts'

/** Thrown where a task of the simulated machine waits for a lock that is never given up again. */
class Deadlock extends Error {}

/** What is answered to a call that never comes back. */
export class Blocked extends Failure {
  readonly because: string

  constructor(because: string) {
    super(Number.NaN)
    this.because = because
  }

  override get errno(): 'blocks' {
    return 'blocks'
  }
}

export function waitForEver(lock: string): never {
  throw new Deadlock(`blocks for ever on ${lock}`)
}

/** Makes a call that may wait for ever. */
export function unlessBlocked<T>(call: () => Answer<T>): Answer<T> {
  try {
    return call()
  } catch (error) {
    if (error instanceof Deadlock) return new Blocked(error.message)
    throw error
  }
}
