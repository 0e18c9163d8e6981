/** A named fault: how a right image becomes a wrong one, and what the validator must then say. */
import type { Span } from '../abi/check.ts'
import type { Change } from './change.ts'
import type { Random } from './random.ts'
import type { Site } from './site.ts'

/** What is changed: a field of the decoded tree, the map of preserved memory, an FDT's own structure, the boot entry. */
export type FaultClass = 'field' | 'map' | 'fdt' | 'boot'

export interface NamedFault {
  readonly name: string
  /** One sentence: what is wrong in the image that comes out. */
  readonly doc: string
  readonly class: FaultClass
  /** Id of the rule that no longer holds. */
  readonly rule: string
  /** Ids of further rules that cannot hold either. */
  readonly follows?: readonly string[]
  /** The releases that read the image as told, where the rule's own are more. */
  readonly span?: Span
  readonly apply: (site: Site, random: Random) => Change
}
