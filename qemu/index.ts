/** Public surface: capturing handovers from real kernels, and booting real kernels on handover images. */
export { type BootOptions, bootOnImage } from './boot.ts'
export { type Captured, type CaptureOptions, captureHandover } from './capture.ts'
export { type ArchiveFile, cpioArchive } from './cpio.ts'
export {
  type Difference,
  differences,
  type Expectation,
  type ExpectedFile,
  type ExpectedRegion,
  type ExpectedSession,
  expectationOf,
} from './expectation.ts'
export type { Ending, RunLimits } from './machine.ts'
export { outcomeOf } from './outcome.ts'
export {
  type Complaint,
  type FileReport,
  type KernelReport,
  type RegionReport,
  type RunReport,
  readConsole,
  type SessionReport,
} from './report.ts'
export { reportToJson } from './report-json.ts'
export { WordSum, wordSum } from './word-sum.ts'
