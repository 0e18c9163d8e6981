/**
 * File-lifecycle-bound objects as luo_flb_retrieve_one() finds them: by name, in an array of which only
 * the count is asked.
 *
 * Mirrors kernel/liveupdate/luo_flb.c of Linux 7.1.13 and 7.3.4, lib/tests/liveupdate.c.
 */
import { fieldOf } from '../abi/layout.ts'
import { LIVEUPDATE_TEST_FLBS } from '../abi/liveupdate-test.ts'
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { versionById } from '../abi/registry.ts'
import type { ArrayEdge } from '../abi/schema.ts'
import { behind, type Place, within } from './faults.ts'
import type { Incoming } from './incoming.ts'
import { type Entries, type Entry, type Overrun, readArray, type SetPointer } from './incoming-entries.ts'
import type { IncomingSessions } from './incoming-session.ts'
import { decodeText } from './text.ts'

interface FlbValue {
  readonly name: Uint8Array
  readonly data: bigint
  readonly count: bigint
}

export function readFlbs(
  incoming: Incoming,
  set: SetPointer | undefined,
  luo: Place,
  sessions: IncomingSessions,
): void {
  if (set?.edge.kind !== 'array') return
  const { edge, target, pointer } = set
  const list = within(luo, edge.as)
  incoming.advance()
  const version = versionById(incoming.subject.speaks('luo') ?? '')
  if (target === 0n && version?.root.kind === 'struct') {
    const message = 'there is no page of FLBs; the old kernel always leaves one'
    incoming.report('LUO_FLBS_NULL', list, {
      pa: pointer.pa,
      length: 8,
      message,
      expected: 'an address',
      found: '0x0',
    })
    return
  }
  const found = readArray(incoming, edge, target, 0n, list, pointer, 'LUO_FLBS_PRESERVED')
  if (found.overrun) reportOverrun(incoming, edge, found, found.overrun)
  reportPages(incoming, edge, target, behind(list, pointer, target))
  const names = new Map<string, number>()
  for (const [index, entry] of found.entries.entries()) {
    const value = incoming.decode<FlbValue>(edge.element, entry.bytes)
    new FlbReader(
      incoming,
      edge,
      entry,
      value,
      placeOf(found.place, edge, found.entries, index, incoming),
    ).run(names, sessions)
  }
}

/**
 * A count beyond the page harms nothing while every look-up ends before its end. The test's FLBs are looked
 * for in the boot, any other as soon as its user asks; a look-up that finds nothing goes on as far as is counted.
 */
function reportOverrun(incoming: Incoming, edge: ArrayEdge, found: Entries, overrun: Overrun): void {
  const { entries, place } = found
  const values = entries.map((entry) => incoming.decode<FlbValue>(edge.element, entry.bytes))
  const names = values.map(({ name }) => (name.includes(0) ? decodeText(name) : undefined))
  const isNamed = (name: string | undefined, index: number): boolean =>
    (name !== undefined && name !== '') || isEmptySlot(entries[index] as Entry)
  const isFound = LIVEUPDATE_TEST_FLBS.every(({ name }) => names.includes(name)) && names.every(isNamed)
  const isInMemory = incoming.subject.known.mayHold(overrun.end - 1n)
  const outcome = isFound ? 'takes-over' : isInMemory ? 'loses' : 'corrupts'
  incoming.report('LUO_FLB_COUNT', place, { ...overrun.remark, outcome })
}

/** What a count leaves room for where the array is full of nothing. */
function isEmptySlot({ bytes }: Entry): boolean {
  return bytes.every((byte) => byte === 0)
}

function placeOf(
  list: Place,
  edge: ArrayEdge,
  entries: readonly Entry[],
  index: number,
  incoming: Incoming,
): Place {
  const nameOf = (entry: Entry): string =>
    decodeText(incoming.decode<FlbValue>(edge.element, entry.bytes).name)
  const key = nameOf(entries[index] as Entry)
  const isAlone = entries.filter((entry) => nameOf(entry) === key).length === 1
  return within(list, isAlone ? { index, key } : { index })
}

/** `pgcnt`, which no kernel reads. */
function reportPages(incoming: Incoming, edge: ArrayEdge, target: bigint, place: Place): void {
  const { header } = edge
  const field = header?.fields.pgcnt
  if (!header || field?.kind !== 'int') return
  const head = incoming.struct<Record<string, bigint>>(header, target, place)
  if (!head || head.pgcnt === BigInt(field.default ?? 1)) return
  const { offset } = fieldOf(header, 'pgcnt', incoming.subject.target)
  incoming.report('LUO_FLB_PGCNT', place, {
    pa: phys(target + BigInt(offset)),
    length: 8,
    message: 'the number of pages is not what every kernel writes',
    expected: String(field.default ?? 1),
    found: String(head.pgcnt),
  })
}

class FlbReader {
  readonly #incoming: Incoming
  readonly #edge: ArrayEdge
  readonly #entry: Entry
  readonly #value: FlbValue
  readonly #place: Place

  constructor(incoming: Incoming, edge: ArrayEdge, entry: Entry, value: FlbValue, place: Place) {
    this.#incoming = incoming
    this.#edge = edge
    this.#entry = entry
    this.#value = value
    this.#place = place
  }

  run(names: Map<string, number>, sessions: IncomingSessions): void {
    if (!this.#checkName(names)) return
    this.#checkTestData()
    if (sessions.known) this.#checkReferences(sessions.files)
  }

  #at(field: string): PhysAddr {
    const { offset } = fieldOf(this.#edge.element, field, this.#incoming.subject.target)
    return phys(this.#entry.pa + BigInt(offset))
  }

  /** strcmp() with the name of the one that is looked for; the first match counts. */
  #checkName(names: Map<string, number>): boolean {
    const { name } = this.#value
    const text = decodeText(name)
    const where = { pa: this.#at('name'), length: name.length, found: JSON.stringify(text) }
    if (!name.includes(0) || text === '') {
      const message = text === '' ? 'the FLB has no name' : 'the name has no end, and is never found'
      const told = { ...where, message, expected: 'a name and a NUL' }
      this.#incoming.report('LUO_FLB_NAME', this.#place, {
        ...told,
        ...(isEmptySlot(this.#entry) && { outcome: 'takes-over', severity: 'warning' }),
      })
      return false
    }
    const before = names.get(text)
    if (before === undefined) names.set(text, names.size)
    else {
      const message = `FLB ${before} has the same name, and is the one that is found`
      this.#incoming.report('LUO_FLB_NAME_TWICE', this.#place, {
        ...where,
        message,
        expected: 'a name of its own',
      })
    }
    return before === undefined
  }

  /** The FLBs of CONFIG_LIVEUPDATE_TEST know their own data. */
  #checkTestData(): void {
    const { name, data } = this.#value
    const known = LIVEUPDATE_TEST_FLBS.find((flb) => flb.name === decodeText(name))
    if (!known || known.data === data) return
    const message = "the test's FLB takes back nothing but its own number"
    const told = { message, expected: hex(known.data), found: hex(data) }
    this.#incoming.report('LUO_FLB_DATA', this.#place, { pa: this.#at('data'), length: 8, ...told })
  }

  /**
   * One reference for each preserved file of the handlers that it is linked to; users in the kernel may hold
   * some of their own, but none those of the test.
   */
  #checkReferences(files: number): void {
    const { count, name } = this.#value
    const isTest = LIVEUPDATE_TEST_FLBS.some((flb) => flb.name === decodeText(name))
    const mayHaveMore = this.#incoming.subject.traits.countsFlbUsers && files > 0 && !isTest
    if (isTest ? count === BigInt(files) : count > 0n && (count <= BigInt(files) || mayHaveMore)) return
    const isAbandoned = files === 0 && count > 0n
    const message = isAbandoned
      ? 'files held this FLB, and the sessions have none'
      : 'the references are not those of the files'
    this.#incoming.report('LUO_FLB_REFERENCES', this.#place, {
      pa: this.#at('count'),
      length: 8,
      message,
      expected: isTest ? String(files) : `1 to ${files}`,
      found: String(count),
      ...(isAbandoned && { outcome: 'loses', affects: ['luo'] }),
      ...(!isAbandoned && !isTest && count > BigInt(files) && { severity: 'note' }),
    })
  }
}
