/**
 * Runs in JSON: `{ "pfn": "0x17f0", "index": 0, "count": 3 }`. A field's step has the field's name and
 * `_step`; left out, it is that of neighbours in memory and file. A record that does not say where its
 * memory is gets it from the allocator.
 */
import type { PageSize, Target } from '../abi/layout.ts'
import type { IntType, Measure, Show, StructType } from '../abi/schema.ts'
import { elementFields } from './elements.ts'
import {
  type Codec,
  count,
  list,
  type Member,
  object,
  optional,
  order as orderCodec,
  required,
  u64,
} from './json-codec.ts'
import { type Run, RunTable, UNPLACED } from './runs.ts'
import { type UnitTable, unitBytes } from './units.ts'

type Fields = Readonly<Record<string, number | bigint>>

interface RunField {
  readonly name: string
  readonly show: Show
  readonly measures: Measure | undefined
}

/** The records of a vmalloc list. */
export function recordRuns(element: StructType | IntType, target: Target): Codec<RunTable<string>> {
  const fields: RunField[] = elementFields(element, target).map(({ name, type }) => ({
    name,
    show: type.show,
    measures: type.measures,
  }))
  return runsOf(fields, target.pageSize)
}

/** Preserved units. */
export function unitRuns(pageSize: PageSize): Codec<UnitTable> {
  return runsOf([{ name: 'start', show: 'hex', measures: undefined }], pageSize, unitBytes)
}

function runsOf<F extends string>(
  fields: readonly RunField[],
  pageSize: PageSize,
  unitStep?: (order: number, pageSize: PageSize) => number,
): Codec<RunTable<F>> {
  const members: Record<string, Member> = {}
  for (const { name, show, measures } of fields) {
    members[name] = placesMemory(measures) ? optional(u64(show)) : required(u64(show))
  }
  members.order = optional(orderCodec)
  members.count = optional(count(1))
  for (const { name } of fields) members[`${name}_step`] = optional(count(-Number.MAX_SAFE_INTEGER))
  const usualStep = ({ measures }: RunField, order: number): number => {
    if (unitStep) return unitStep(order, pageSize)
    if (measures === undefined) return 0
    return 2 ** order * (measures === 'address-order' ? pageSize : 1)
  }
  const runs = list(object<Fields>(() => members))
  return {
    parse(json, path, problems) {
      const before = problems.length
      const parsed = runs.parse(json, path, problems)
      if (!parsed || problems.length > before) return undefined
      return new RunTable(
        fields.map(({ name }) => name as F),
        parsed.map((run) => parsedRun(run, fields, usualStep)),
      )
    },
    print: (table) => runs.print([...table].map((run) => printedRun(run, fields, usualStep))),
  }
}

function placesMemory(measures: Measure | undefined): boolean {
  return measures === 'frame' || measures === 'address-order'
}

function parsedRun(
  run: Fields,
  fields: readonly RunField[],
  usualStep: (field: RunField, order: number) => number,
): Run {
  const order = Number(run.order ?? 0)
  const start: Record<string, bigint> = {}
  const step: Record<string, number> = {}
  for (const field of fields) {
    start[field.name] = BigInt(run[field.name] ?? UNPLACED)
    step[field.name] = Number(run[`${field.name}_step`] ?? usualStep(field, order))
  }
  return { count: Number(run.count ?? 1), order, start, step }
}

/** Leaves out what parsing would put there again. */
function printedRun(
  run: Run,
  fields: readonly RunField[],
  usualStep: (field: RunField, order: number) => number,
): Fields {
  const json: Record<string, number | bigint> = {}
  for (const field of fields) {
    const start = run.start[field.name] ?? 0n
    if (start !== UNPLACED || !placesMemory(field.measures)) json[field.name] = start
  }
  if (run.order !== 0) json.order = run.order
  if (run.count === 1) return json
  json.count = run.count
  for (const field of fields) {
    const step = run.step[field.name] ?? 0
    if (step !== usualStep(field, run.order)) json[`${field.name}_step`] = step
  }
  return json
}
