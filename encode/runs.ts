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
  /** By position of the field. */
  readonly #starts: BigUint64Array[]
  readonly #steps: Float64Array[]
  /** Values of the last record, by position of the field. */
  readonly #last: bigint[]

  constructor(fields: readonly Field[], runs: readonly Run<Field>[] = []) {
    this.fields = fields
    this.#starts = fields.map(() => new BigUint64Array(FIRST_CAPACITY))
    this.#steps = fields.map(() => new Float64Array(FIRST_CAPACITY))
    this.#last = fields.map(() => 0n)
    for (const run of runs) this.push(run)
  }

  count(run: number): number {
    return this.#counts[run] ?? 0
  }

  /** At most 255; memory has room for 52. */
  order(run: number): number {
    return this.#orders[run] ?? 0
  }

  start(field: Field, run: number): bigint {
    return this.#starts[this.fields.indexOf(field)]?.[run] ?? 0n
  }

  step(field: Field, run: number): number {
    return this.#steps[this.fields.indexOf(field)]?.[run] ?? 0
  }

  /** The value of a field in the last record of a run. */
  end(field: Field, run: number): bigint {
    return this.start(field, run) + BigInt(this.count(run) - 1) * BigInt(this.step(field, run))
  }

  push({ count, order, start, step }: Run<Field>): void {
    invariant(Number.isSafeInteger(count) && count > 0, `a run of ${count} records`)
    this.#open(count, order)
    for (const [at, field] of this.fields.entries()) {
      const column = this.#steps[at] as Float64Array
      column[this.length - 1] = step[field]
      ;(this.#starts[at] as BigUint64Array)[this.length - 1] = start[field]
      this.#last[at] = start[field] + BigInt(count - 1) * BigInt(step[field])
    }
  }

  /**
   * Adds one record: to the last run where it goes on in every field, else as a run of its own. The second
   * record of a run sets its step; if the third does not follow, those two begin a run instead.
   */
  append(order: number, record: Readonly<Record<Field, bigint>>): void {
    const run = this.length - 1
    if (run >= 0 && this.#orders[run] === order) {
      if (this.#continues(run, record)) {
        this.#counts[run] = this.count(run) + 1
        this.total++
        for (let at = 0; at < this.fields.length; at++) this.#last[at] = record[this.fields[at] as Field]
        return
      }
      if (this.count(run) === 2) {
        this.#counts[run] = 1
        this.total--
        this.#open(1, order)
        for (let at = 0; at < this.fields.length; at++) this.#begin(at, this.#last[at] ?? 0n)
        this.append(order, record)
        return
      }
    }
    this.#open(1, order)
    for (let at = 0; at < this.fields.length; at++) this.#begin(at, record[this.fields[at] as Field])
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

  /** Whether a record is the next of the last run. A run of one record has no step yet and takes any. */
  #continues(run: number, record: Readonly<Record<Field, bigint>>): boolean {
    const first = this.count(run) === 1
    for (let at = 0; at < this.fields.length; at++) {
      const step = record[this.fields[at] as Field] - (this.#last[at] ?? 0n)
      if (first ? step > MAX_STEP || step < -MAX_STEP : Number(step) !== this.#steps[at]?.[run]) return false
    }
    for (let at = 0; first && at < this.fields.length; at++) {
      const step = record[this.fields[at] as Field] - (this.#last[at] ?? 0n)
      ;(this.#steps[at] as Float64Array)[run] = Number(step)
    }
    return true
  }

  /** Opens a run; its fields are still to be set. */
  #open(count: number, order: number): void {
    if (this.length === this.#counts.length) this.#grow()
    this.#counts[this.length] = count
    this.#orders[this.length] = order
    this.length++
    this.total += count
  }

  /** Sets a field of the last run, of one record. */
  #begin(at: number, value: bigint): void {
    ;(this.#starts[at] as BigUint64Array)[this.length - 1] = value
    ;(this.#steps[at] as Float64Array)[this.length - 1] = 0
    this.#last[at] = value
  }

  #fieldsOf<V>(value: (field: Field) => V): Record<Field, V> {
    return Object.fromEntries(this.fields.map((field) => [field, value(field)])) as Record<Field, V>
  }

  #grow(): void {
    const capacity = this.#counts.length * 2
    this.#counts = resized(new Float64Array(capacity), this.#counts)
    this.#orders = resized(new Uint8Array(capacity), this.#orders)
    for (let at = 0; at < this.fields.length; at++) {
      this.#starts[at] = resized(new BigUint64Array(capacity), this.#starts[at] as BigUint64Array)
      this.#steps[at] = resized(new Float64Array(capacity), this.#steps[at] as Float64Array)
    }
  }
}

const MAX_STEP = BigInt(Number.MAX_SAFE_INTEGER)

function resized<A extends { set(from: A): void }>(larger: A, from: A): A {
  larger.set(from)
  return larger
}
