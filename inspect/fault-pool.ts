/** The decoder's faults as the rules take them. */
import type { Fault, FaultCode } from '../abi/fault.ts'

/** The decoder's faults; each is turned into a finding by the first rule that takes it. */
export class FaultPool {
  readonly #faults: Set<Fault>

  constructor(faults: readonly Fault[]) {
    this.#faults = new Set(faults)
  }

  /** Takes the faults of a code (or several) whose path starts with one of `under`; each is given out once. */
  take(codes: FaultCode | readonly FaultCode[], ...under: readonly string[]): readonly Fault[] {
    return this.takeIf(
      (fault) =>
        codes.includes(fault.code) &&
        (under.length === 0 || under.some((path) => isWithin(fault.path, path))),
    )
  }

  takeIf(wanted: (fault: Fault) => boolean): readonly Fault[] {
    const taken = [...this.#faults].filter(wanted)
    for (const fault of taken) this.#faults.delete(fault)
    return taken
  }
}

/** Whether a printed path is another one or lies below it. */
export function isWithin(path: string, outer: string): boolean {
  if (outer === '' || path === outer) return true
  return path.startsWith(outer) && (path[outer.length] === '.' || path[outer.length] === '[')
}

/** A printed path and all that it lies below. */
export function pathsAround(path: string): readonly string[] {
  return [...path.matchAll(/$|[.[]/g)].map(({ index }) => path.slice(0, index))
}
