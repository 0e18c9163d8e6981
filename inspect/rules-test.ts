/**
 * The state of the KHO test module: kho_test_restore() checks it, restores its folios and compares their
 * sum.
 */
import { hex, type PhysAddr } from '../abi/memory.ts'
import { componentByName } from '../abi/registry.ts'
import type { ClaimGroup } from './claim.ts'
import { type Rule, refuses, silent, type Violation } from './rule.ts'
import type { Subject } from './subject.ts'
import { type FolioList, folioList, folioSums } from './test-folios.ts'
import { child, numberAt } from './tree.ts'
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
      for (const violation of unmetViolations(subject, 'KHO_TEST_PRESERVED'))
        yield { ...violation, hides: DATA }
    },
  }),
  refuses({
    ...behind,
    id: 'KHO_TEST_SUM',
    requires: [...properties.map(({ id }) => id), 'KHO_TEST_PRESERVED'],
    check: sumViolations,
  }),
]

/** The sum that is stored is none that the folios have. */
function* sumViolations(subject: Subject): Generator<Violation> {
  const data = child(subject.record(KEY), 'data')
  const stored = child(data, 'csum')
  const found = numberAt(data, 'csum')
  const sums = data && folioSums(subject, data)
  if (!stored || found === undefined || !sums) return
  const right = [...sums]
  if (right.some(([, sum]) => sum === found)) return
  yield {
    path: `${DATA}.csum`,
    pa: stored.pa,
    length: stored.length,
    message: 'the folios have another sum',
    expected: right.map(([arch, sum]) => `${hex(sum)} on ${arch}`).join(', '),
    found: hex(found),
  }
}

/** The chunks and pages of the array of folios, and the folios themselves. */
export function* testClaims(subject: Subject): Generator<ClaimGroup> {
  const stored = child(child(subject.record(KEY), 'data'), 'folios_info')
  const common = { rule: 'KHO_TEST_PRESERVED', path: `${DATA}.folios_info`, via: [] }
  if (stored?.kind === 'record' && stored.bulk) {
    const { bulk, pa } = stored
    const pages = 2 ** bulk.descriptor.order
    yield { ...common, what: 'a chunk', restore: 'folio', ...claimed(subject, bulk.chunks, pa), pages: 1 }
    yield { ...common, what: 'a page', restore: 'pages', ...claimed(subject, bulk.groups, pa), pages }
  }
  const folios = folioList(stored)
  if (folios) yield* folioClaims(subject, folios, common)
}

type Claimed = Pick<ClaimGroup, 'pfns' | 'pointer'>

function claimed({ target }: Subject, addresses: Iterable<bigint>, pointer: PhysAddr): Claimed {
  const pfns = Float64Array.from([...addresses], (pa) => Number(pa / BigInt(target.pageSize)))
  return { pfns, pointer: () => pointer }
}

/** One group of folios for each order, as a word holds address and order. */
function* folioClaims(
  { target }: Subject,
  { words, addressOf }: FolioList,
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
      pointer: (i) => addressOf(indexes[i] as number),
    }
  }
}
