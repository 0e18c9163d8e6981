/** What a kernel's BTF says about the declared structs, as a table for people. */
import type { PageSize } from '../abi/layout.ts'
import { PAGE_SIZES } from '../abi/layout.ts'
import type { ConstantCheck, StructCheck, VersionCheck } from './abi-check.ts'
import type { Paint } from './paint.ts'
import { formatPageSize } from './per-page.ts'
import { alignedTable, type Column, type Row } from './table.ts'
import { printable } from './text.ts'

export interface CheckReport {
  /** The file, and where in it the BTF was. */
  readonly file: string
  readonly found: string
  readonly types: number
  readonly structs: readonly StructCheck[]
  readonly constants: readonly ConstantCheck[]
  readonly versions: readonly VersionCheck[]
  /** Page sizes for which everything that matches does. */
  readonly pageSizes: readonly PageSize[]
}

/** Structs that are there and do not match any declared form. */
function differingStructs({ structs }: CheckReport): readonly StructCheck[] {
  return structs.filter(({ status }) => status === 'differs')
}

/** Constants with a value that no declared version gives them. */
function differingConstants({ constants }: CheckReport): readonly ConstantCheck[] {
  return constants.filter(({ versions }) => versions.length === 0)
}

/** A struct or constant that differs, or structs that match for different page sizes only. */
export function hasFindings(report: CheckReport): boolean {
  const differing = differingStructs(report).length + differingConstants(report).length
  return differing > 0 || report.pageSizes.length === 0
}

const COLUMNS: readonly Column[] = [
  { title: 'struct', paint: 'key' },
  { title: '' },
  { title: 'declared as' },
]

/** Text for a terminal: what matches, what differs, what is absent, and which versions that makes. */
export function renderCheck(report: CheckReport, paint: Paint): string {
  const { file, found, types, structs, constants, versions } = report
  const rows = structs.filter(({ status }) => status !== 'absent').flatMap(structRows)
  const absent = structs.filter(({ status }) => status === 'absent').map(({ name }) => name)
  const blocks = [`${paint.title(printable(file))}: ${found}, ${types} types`]
  if (rows.length > 0) blocks.push(alignedTable(COLUMNS, rows, { paint, indent: '' }))
  if (constants.length > 0)
    blocks.push(alignedTable(CONSTANT_COLUMNS, constants.map(constantRow), { paint, indent: '' }))
  if (absent.length > 0) {
    blocks.push(`absent (older or newer than this kernel, or its CONFIG is off): ${absent.join(', ')}`)
  }
  const spoken = versions.filter(({ status }) => status === 'matches').map(({ version }) => version)
  if (spoken.length > 0) blocks.push(`all structs there and matching: ${spoken.join(', ')}`)
  blocks.push(verdict(report, paint))
  return `${blocks.join('\n\n')}\n`
}

const CONSTANT_COLUMNS: readonly Column[] = [
  { title: 'constant', paint: 'key' },
  { title: 'value', align: 'right', paint: 'number' },
  { title: 'declared by' },
]

function structRows({ name, status, versions, pageSizes, nearest }: StructCheck): readonly Row[] {
  if (status === 'matches') return [[name, 'matches', `${versions.join(', ')}${atPages(pageSizes)}`]]
  const differences = nearest?.differences ?? []
  return differences.map(
    ({ where, expected, found }, index): Row => [
      index === 0 ? name : '',
      index === 0 ? 'DIFFERS' : '',
      `${where}: expected ${expected} (${nearest?.versions.join(', ')}), found ${found}`,
    ],
  )
}

function constantRow({ name, value, versions, pageSizes }: ConstantCheck): Row {
  const text = versions.length === 0 ? 'no version' : `${versions.join(', ')}${atPages(pageSizes)}`
  return [name, String(value), text]
}

function atPages(pageSizes: readonly PageSize[]): string {
  return pageSizes.length === PAGE_SIZES.length ? '' : ` at ${pageSizes.map(formatPageSize).join(', ')} pages`
}

function verdict(report: CheckReport, paint: Paint): string {
  const differing = differingStructs(report)
  const present = report.structs.filter(({ status }) => status !== 'absent')
  if (differing.length > 0) {
    const names = differing.map(({ name }) => name).join(', ')
    return paint.fault(`${differing.length} of ${present.length} structs match no declared version: ${names}`)
  }
  const constants = differingConstants(report).map(({ name }) => name)
  if (constants.length > 0) {
    return paint.fault(`no declared version gives these values: ${constants.join(', ')}`)
  }
  if (report.pageSizes.length === 0)
    return paint.fault('the structs match, but not all for the same page size')
  if (present.length === 0) return paint.warn('no declared struct is there')
  return paint.good(`all ${present.length} structs that are there match`)
}
