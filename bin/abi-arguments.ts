/** What `kho-inspect abi` was asked for. */
import type { PageSize } from '../abi/layout.ts'

export interface AbiArguments {
  readonly names: readonly string[]
  readonly json: boolean
  readonly markdown: boolean
  readonly pageSize: PageSize | undefined
  readonly against: string | undefined
  readonly btf: string | undefined
  readonly git: string | undefined
  readonly format: ExportFormat | undefined
  readonly output: string | undefined
}

export const EXPORT_FORMATS = ['c', 'ksy', 'json', 'markdown'] as const
export type ExportFormat = (typeof EXPORT_FORMATS)[number]
