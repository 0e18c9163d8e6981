/** What became of a handover, by what the kernel said and what the guest got back. */
import { type Outcome, worst } from '../abi/check.ts'
import type { Difference } from './expectation.ts'
import type { KernelReport } from './report.ts'

/** Contents or sizes other than those that were left: the kernel noticed nothing. */
const SILENT = /\.(size|sum)$/

/**
 * The worst that happened. An error that the guest was told of counts as a loss, and what the kernel says it
 * refused is lost even where nobody expected it.
 */
export function outcomeOf(report: KernelReport, differences: readonly Difference[]): Outcome {
  return worst([cameBack(report, differences), ...report.complaints.map(({ outcome }) => outcome)])
}

function cameBack(report: KernelReport, differences: readonly Difference[]): Outcome {
  if (report.oopses.length > 0) return 'corrupts'
  if (report.panic !== undefined) return 'panics'
  if (!report.handover) return 'no-handover'
  if (report.device !== undefined && report.device !== 0) return 'device-fails'
  if (differences.some(({ path }) => SILENT.test(path))) return 'corrupts'
  return differences.length > 0 ? 'loses' : 'takes-over'
}
