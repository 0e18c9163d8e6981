/**
 * Long lists as runs in typed-array columns: frames of a file, preserved units, pages of an area.
 *
 * A run stands for `count` records; record i of it has, in each field, start + i * step. One contiguous
 * file of 16 million pages is one run, and the worst case costs some tens of bytes a record.
 */
import { invariant } from '../abi/fault.ts'

/** In a field that says where a record's memory is: the allocator shall place the run's units. */
export const UNPLACED = 0xffff_ffff_ffff_ffffn

/** One run as a plain value, for those who write a document by hand or print one. */
export interface Run<Field extends string = string> {
  /** Records, at least 1. */
  readonly count: number
  /** Each record stands for a unit of 2^order pages. */
  readonly order: number
  readonly start: Readonly<Record<Field, bigint>>
  /** Added from one record to the next, in each field; exact up to 2^53. */
  readonly step: Readonly<Record<Field, number>>
}

interface Column {
  start: BigUint64Array
  step: Float64Array
}

const FIRST_CAPACITY = 4

/** A list of runs that only grows. */
export class RunTable<Field extends string = string> {
  readonly fields: readonly Field[]
  /** Number of runs. */
  length = 0
  /** Number of records of all runs. */
  total = 0
  #counts = new Float64Array(FIRST_CAPACITY)
  #orders = new Uint8Array(FIRST_CAPACITY)
  readonly #columns: Record<Field, Column>

  constructor(fields: readonly Field[], runs: readonly Run<Field>[] = []) {
    this.fields = fields
    this.#columns = Object.fromEntries(
      fields.map((field) => [
        field,
        { start: new BigUint64Array(FIRST_CAPACITY), step: new Float64Array(FIRST_CAPACITY) },
      ]),
    ) as Record<Field, Column>
    for (const run of runs) this.push(run)
  }

  count(run: number): number {
    return this.#counts[run] ?? 0
  }

  order(run: number): number {
    return this.#orders[run] ?? 0
  }

  start(field: Field, run: number): bigint {
    return this.#columns[field].start[run] ?? 0n
  }

  step(field: Field, run: number): number {
    return this.#columns[field].step[run] ?? 0
  }

  /** The value of a field in the last record of a run. */
  end(field: Field, run: number): bigint {
    return this.start(field, run) + BigInt(this.count(run) - 1) * BigInt(this.step(field, run))
  }

  push(run: Run<Field>): void {
    invariant(Number.isSafeInteger(run.count) && run.count > 0, `a run of ${run.count} records`)
    if (this.length === this.#counts.length) this.#grow()
    this.#counts[this.length] = run.count
    this.#orders[this.length] = run.order
    for (const field of this.fields) {
      this.#columns[field].start[this.length] = run.start[field]
      this.#columns[field].step[this.length] = run.step[field]
    }
    this.length++
    this.total += run.count
  }

  /**
   * Adds one record: to the last run where it goes on in every field, else as a run of its own. The second
   * record of a run sets its step; if the third does not follow, those two begin a run instead.
   */
  append(order: number, record: Readonly<Record<Field, bigint>>): void {
    const last = this.length - 1
    if (last >= 0 && this.#orders[last] === order) {
      if (this.#continues(last, record)) {
        this.#counts[last] = this.count(last) + 1
        this.total++
        return
      }
      if (this.count(last) === 2) {
        const second = this.#fieldsOf((field) => this.end(field, last))
        this.#counts[last] = 1
        this.total--
        this.push({ count: 1, order, start: second, step: this.#fieldsOf(() => 0) })
        this.append(order, record)
        return
      }
    }
    this.push({ count: 1, order, start: record, step: this.#fieldsOf(() => 0) })
  }

  /** A run as a plain value. */
  run(index: number): Run<Field> {
    return {
      count: this.count(index),
      order: this.order(index),
      start: this.#fieldsOf((field) => this.start(field, index)),
      step: this.#fieldsOf((field) => this.step(field, index)),
    }
  }

  *[Symbol.iterator](): Generator<Run<Field>> {
    for (let index = 0; index < this.length; index++) yield this.run(index)
  }

  /** A run of one record has no step yet: the second record sets it. */
  #continues(run: number, record: Readonly<Record<Field, bigint>>): boolean {
    const steps = this.fields.map((field) => record[field] - this.end(field, run))
    if (steps.some((step) => step > MAX_STEP || step < -MAX_STEP)) return false
    if (this.count(run) > 1) {
      return this.fields.every((field, at) => Number(steps[at]) === this.step(field, run))
    }
    for (const [at, field] of this.fields.entries()) this.#columns[field].step[run] = Number(steps[at])
    return true
  }

  #fieldsOf<V>(value: (field: Field) => V): Record<Field, V> {
    return Object.fromEntries(this.fields.map((field) => [field, value(field)])) as Record<Field, V>
  }

  #grow(): void {
    const capacity = this.#counts.length * 2
    this.#counts = resized(new Float64Array(capacity), this.#counts)
    this.#orders = resized(new Uint8Array(capacity), this.#orders)
    for (const field of this.fields) {
      const column = this.#columns[field]
      column.start = resized(new BigUint64Array(capacity), column.start)
      column.step = resized(new Float64Array(capacity), column.step)
    }
  }
}

const MAX_STEP = BigInt(Number.MAX_SAFE_INTEGER)

function resized<A extends { set(from: A): void }>(larger: A, from: A): A {
  larger.set(from)
  return larger
}
