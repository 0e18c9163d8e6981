/** Random changes to the metadata of a handover: bits, bytes, words and pointers, where something was decoded. */
import { phys } from '../../abi/memory.ts'
import type { Handover } from '../../inspect/decode.ts'
import { regionsIn } from '../../inspect/regions.ts'
import { childrenOf, type Node } from '../../inspect/tree.ts'
import type { Patch } from '../../mutate/patch.ts'
import type { Random } from '../../mutate/random.ts'
import { littleEndian } from '../../mutate/site.ts'

interface Span {
  readonly pa: bigint
  readonly length: number
}

/** Where damage is done: decoded regions, each as often as any other, and single fields. */
export interface DamageTargets {
  readonly handover: Handover
  readonly regions: readonly Span[]
  readonly fields: readonly Span[]
}

export function damageTargets(handover: Handover): DamageTargets {
  const regions = regionsIn(handover, 0n, 1n << 64n).map(({ pa, length }) => ({ pa, length }))
  const fields: Span[] = []
  const visit = (node: Node): void => {
    if (node.kind === 'value') fields.push({ pa: node.pa, length: node.length })
    for (const inner of childrenOf(node)) visit(inner)
  }
  visit(handover.tree)
  return { handover, regions, fields }
}

/** One to three changes. */
export function randomDamage(targets: DamageTargets, random: Random): readonly Patch[] {
  return Array.from({ length: 1 + random.below(3) }, () => oneChange(targets, random))
}

function oneChange({ handover, regions, fields }: DamageTargets, random: Random): Patch {
  const span = random.pick(random.below(2) === 0 ? fields : regions) as Span
  const pa = span.pa + BigInt(random.below(span.length))
  const old = new Uint8Array(8)
  handover.memory.read(phys(pa), old)
  const kinds: readonly (() => Patch)[] = [
    () => ({ pa: phys(pa), bytes: Uint8Array.of((old[0] as number) ^ (1 << random.below(8))) }),
    () => ({ pa: phys(pa), bytes: Uint8Array.of(random.below(256)) }),
    () => wordAt(span, littleEndian(interestingWord(regions, random), 8)),
    () => wordAt(span, littleEndian(random.word(), 1 + random.below(8))),
  ]
  return (random.pick(kinds) as () => Patch)()
}

/** A word at the start of a field, or somewhere in a region, never beyond its end. */
function wordAt({ pa, length }: Span, bytes: Uint8Array): Patch {
  return { pa: phys(pa), bytes: bytes.subarray(0, length) }
}

const WORDS = [0n, 1n, 0x1000n, 1n << 31n, 1n << 32n, 1n << 63n, (1n << 64n) - 4096n, (1n << 64n) - 1n]

/** A boundary, or an address at which something else is. */
function interestingWord(regions: readonly Span[], random: Random): bigint {
  const boundary = random.pick(WORDS) as bigint
  return random.below(2) === 0 ? boundary : (random.pick(regions) as Span).pa
}
