/**
 * The state of the KHO test module: kho_test_restore() checks it, restores its folios and compares their
 * sum, which needs their contents and is not done here.
 */
import { type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName } from '../abi/registry.ts'
import type { ClaimGroup } from './claim.ts'
import { type Rule, refuses, silent, type Violation } from './rule.ts'
import type { Subject } from './subject.ts'
import { child } from './tree.ts'
import { unmetViolations, violationOf } from './violations.ts'

const { key: KEY } = componentByName('kho-test')
const DATA = `${KEY}.data`
const behind = { stage: 'initcalls', requires: ['KHO_SUBTREE_ADDRESS', 'KHO_BLOB_SIZE'] } as const

/** The decoder's faults in some fields. */
function* faultsAt({ faults }: Subject, ...paths: readonly string[]): Generator<Violation> {
  const taken = faults.takeIf(({ path, severity }) => severity === 'error' && paths.includes(path))
  for (const fault of taken) yield violationOf(fault)
}

const properties = ['nr_folios', 'csum', 'folios_info'].map((name) =>
  refuses({
    ...behind,
    id: `KHO_TEST_${name.toUpperCase()}`,
    requires: ['KHO_TEST_COMPATIBLE', 'KHO_TEST_MAGIC'],
    check: (subject) => faultsAt(subject, `${DATA}.${name}`, ...(name === 'nr_folios' ? [DATA] : [])),
  }),
)

export const testRules: readonly Rule[] = [
  refuses({
    ...behind,
    id: 'KHO_TEST_COMPATIBLE',
    check: (subject) => faultsAt(subject, KEY, `${KEY}.compatible`),
  }),
  refuses({
    ...behind,
    id: 'KHO_TEST_MAGIC',
    requires: ['KHO_TEST_COMPATIBLE'],
    check: (subject) => faultsAt(subject, `${KEY}.magic`),
  }),
  ...properties,
  silent({
    id: 'KHO_TEST_PRESERVED',
    component: 'kho-test',
    since: 'linux-6.17',
    requires: ['KHO_TEST_FOLIOS_INFO', 'KHO_MAP_FORM'],
    why: 'The module stops at the first folio that it cannot restore or that has another order; its sum is then wrong.',
    source: 'kho_test_restore_data()',
    outcome: 'loses',
    stage: 'initcalls',
    check: function* (subject) {
      yield* unmetViolations(subject, 'KHO_TEST_PRESERVED')
    },
  }),
]

/** The chunks and pages of the array of folios, and the folios themselves. */
export function* testClaims(subject: Subject): Generator<ClaimGroup> {
  const stored = child(child(subject.record(KEY), 'data'), 'folios_info')
  const common = { rule: 'KHO_TEST_PRESERVED', path: `${DATA}.folios_info`, via: [] }
  if (stored?.kind === 'value' && stored.value instanceof Uint8Array) {
    const { buffer, byteOffset, length } = stored.value
    const view = new DataView(buffer, byteOffset, length)
    const words = Array.from({ length: Math.floor(length / 8) }, (_, i) => view.getBigUint64(i * 8, true))
    yield* folioClaims(subject, words, (i) => phys(stored.pa + BigInt(i * 8)), common)
  }
  if (stored?.kind !== 'record' || !stored.bulk) return
  const { bulk, pa } = stored
  const pages = 2 ** bulk.descriptor.order
  yield { ...common, what: 'a chunk', restore: 'folio', ...claimed(subject, bulk.chunks, pa), pages: 1 }
  yield { ...common, what: 'a page', restore: 'pages', ...claimed(subject, bulk.groups, pa), pages }
  const words = Array.from(bulk.values(), ({ value }) => BigInt(value as bigint))
  yield* folioClaims(subject, words, (i) => bulk.addressOf(i), common)
}

type Claimed = Pick<ClaimGroup, 'pfns' | 'pointer'>

function claimed({ target }: Subject, addresses: Iterable<bigint>, pointer: PhysAddr): Claimed {
  const pfns = Float64Array.from([...addresses], (pa) => Number(pa / BigInt(target.pageSize)))
  return { pfns, pointer: () => pointer }
}

/** One group of folios for each order, as a word holds address and order. */
function* folioClaims(
  { target }: Subject,
  words: readonly bigint[],
  pointer: (index: number) => PhysAddr,
  common: Pick<ClaimGroup, 'rule' | 'path' | 'via'>,
): Generator<ClaimGroup> {
  const byOrder = new Map<number, { pfns: number[]; indexes: number[] }>()
  const mask = BigInt(target.pageSize - 1)
  for (const [index, word] of words.entries()) {
    const order = Number(word & mask)
    const group = byOrder.get(order) ?? { pfns: [], indexes: [] }
    byOrder.set(order, group)
    group.pfns.push(Number(word / BigInt(target.pageSize)))
    group.indexes.push(index)
  }
  for (const [order, { pfns, indexes }] of byOrder) {
    yield {
      ...common,
      what: `a folio of order ${order}`,
      restore: 'folio',
      pfns: Float64Array.from(pfns),
      pages: 2 ** order,
      pointer: (i) => pointer(indexes[i] as number),
    }
  }
}
