/** Numbers that may depend on the page size: one number, or one for each page size. */
import type { PageSize, Target } from '../abi/layout.ts'
import { PAGE_SIZES } from '../abi/layout.ts'

export type PerPage = number | Readonly<Record<`${PageSize}`, number>>

/** Evaluates for every page size and folds equal results into one number. */
export function perPage(evaluate: (target: Target) => number): PerPage {
  const values = PAGE_SIZES.map((pageSize) => evaluate({ pageSize }))
  if (new Set(values).size === 1) return values[0] as number
  return Object.fromEntries(PAGE_SIZES.map((pageSize, index) => [pageSize, values[index]])) as PerPage
}

/** The value for one page size. */
export function forPage(value: PerPage, pageSize: PageSize): number {
  return typeof value === 'number' ? value : value[pageSize]
}

/** `48`, or `255 / 1023 / 4095` for 4K, 16K and 64K pages. */
export function formatPerPage(value: PerPage, print: (number: number) => string = String): string {
  if (typeof value === 'number') return print(value)
  return PAGE_SIZES.map((pageSize) => print(value[pageSize])).join(' / ')
}

/** `4K`, `16K`, `64K`. */
export function formatPageSize(pageSize: PageSize): string {
  return `${pageSize / 1024}K`
}
