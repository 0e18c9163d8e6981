/** Thrown where a task of the simulated machine waits for a lock that is never given up again. */
export class Blocked extends Error {
  constructor(lock: string) {
    super(`blocks for ever on ${lock}`)
  }
}
