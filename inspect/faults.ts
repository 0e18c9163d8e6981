/**
 * Collecting faults while decoding: where a decoder stands (path and pointers followed), and a list
 * that cannot grow without bound on a hostile image.
 */
import type { Fault, FaultCode, Hop, Path, PathSegment, Severity } from '../abi/fault.ts'
import { formatPath } from '../abi/fault.ts'
import type { PhysAddr, PhysicalMemory } from '../abi/memory.ts'
import { phys } from '../abi/memory.ts'
import type { Unreadable } from './read.ts'

/** Where in the decoded tree something hangs, and the pointers that led there. */
export interface Place {
  readonly path: Path
  readonly via: readonly Hop[]
}

export const ROOT: Place = { path: [], via: [] }

export function within(place: Place, ...segments: PathSegment[]): Place {
  return { path: [...place.path, ...segments], via: place.via }
}

/** The place behind a pointer: the path of what it leads to, with the pointer as last hop. */
export function behind(place: Place, pointer: { path: Path; pa: PhysAddr }, target: bigint): Place {
  const hop: Hop = { path: formatPath(pointer.path), pa: pointer.pa, target: phys(target) }
  return { path: place.path, via: [...place.via, hop] }
}

export interface FaultDetails {
  readonly pa: PhysAddr
  readonly length: number
  readonly message: string
  readonly expected?: string
  readonly found?: string
  readonly severity?: Severity
}

/** Faults kept per code; further ones are only counted. */
const KEPT_PER_CODE = 1000

export class FaultList {
  readonly #memory: PhysicalMemory
  readonly #faults: Fault[] = []
  readonly #counts = new Map<FaultCode, number>()

  constructor(memory: PhysicalMemory) {
    this.#memory = memory
  }

  add(place: Place, code: FaultCode, details: FaultDetails): void {
    const count = (this.#counts.get(code) ?? 0) + 1
    this.#counts.set(code, count)
    if (count > KEPT_PER_CODE) return
    const file = this.#memory.filePosition(details.pa)
    this.#faults.push({
      severity: 'error',
      ...details,
      code,
      path: formatPath(place.path),
      via: place.via,
      ...(file && { file }),
    })
  }

  /** Memory that the image does not hold: a warning, as the handover itself may be sound. */
  addUnreadable(place: Place, length: number, unreadable: Unreadable): void {
    const missing = unreadable.code === 'MEMORY_EXCLUDED' || unreadable.code === 'MEMORY_HOLE'
    this.add(place, unreadable.code, { ...unreadable, length, severity: missing ? 'warning' : 'error' })
  }

  get size(): number {
    return this.#faults.length
  }

  /** All faults kept, in the order found, and one more per code of which some were dropped. */
  list(): readonly Fault[] {
    const dropped: Fault[] = []
    for (const [code, count] of this.#counts) {
      if (count <= KEPT_PER_CODE) continue
      const message = `${count - KEPT_PER_CODE} more faults of this kind are not listed`
      dropped.push({ code, severity: 'note', path: '', pa: phys(0), length: 0, message, via: [] })
    }
    return [...this.#faults, ...dropped]
  }
}
