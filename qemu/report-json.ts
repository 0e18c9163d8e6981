/** Reports of runs as JSON, for `kho-inspect boot` and `capture`. */
import { hex } from '../abi/memory.ts'
import type { Json } from '../inspect/render-json.ts'
import { decodeText } from '../inspect/text.ts'
import type { Difference } from './expectation.ts'
import { outcomeOf } from './outcome.ts'
import type { FileReport, RegionReport, RunReport, SessionReport } from './report.ts'

export const BOOT_SCHEMA = 'kho-inspect/boot@1'
export const CAPTURE_SCHEMA = 'kho-inspect/capture@1'

const MAX_EXACT = BigInt(Number.MAX_SAFE_INTEGER)

export function reportToJson(
  report: RunReport,
  differences: readonly Difference[],
): { readonly [key: string]: Json } {
  return {
    kernel: report.kernel ?? null,
    ending: report.ending,
    outcome: outcomeOf(report, differences),
    handover: report.handover,
    refused: report.complaints.map(({ id, line }) => ({ id, line })),
    warnings: report.warnings,
    oopses: report.oopses,
    panic: report.panic ?? null,
    no_root: report.noRoot,
    liveupdate_number: numberToJson(report.liveupdateNumber),
    previous_release: report.previousRelease ?? null,
    reserve_mem: report.regions,
    region_contents: report.regionContents.map(regionToJson),
    flbs: report.flbs,
    kho_test: report.khoTest ?? null,
    device_errno: report.device ?? null,
    sessions: report.sessions.map(sessionToJson),
    differences: differences.map(({ path, expected, found }) => ({ path, expected, found })),
    guest: { done: report.done, failed: report.failed ?? null },
  }
}

function sessionToJson({ name, errno, files, finish }: SessionReport): Json {
  return {
    name: decodeText(Buffer.from(name, 'hex')),
    name_hex: name,
    errno,
    files: files.map(fileToJson),
    ...(finish !== undefined && { finish_errno: finish }),
  }
}

function regionToJson({ name, address, errno, size, sum }: RegionReport): Json {
  return {
    name,
    address: hex(address),
    errno,
    ...(size !== undefined && { size: numberToJson(size) }),
    ...(sum !== undefined && { sum: sumToJson(sum) }),
  }
}

function fileToJson({ token, errno, size, pos, seals, sum }: FileReport): Json {
  return {
    token: `0x${token.toString(16)}`,
    errno,
    ...(size !== undefined && { size: numberToJson(size) }),
    ...(pos !== undefined && { pos: numberToJson(pos) }),
    ...(seals !== undefined && { seals }),
    ...(sum !== undefined && { sum: sumToJson(sum) }),
  }
}

function sumToJson(sum: bigint): Json {
  return sum.toString(16).padStart(16, '0')
}

/** Exact, as `dump` prints numbers: in hex where a JSON number would not be. */
function numberToJson(value: bigint | undefined): Json {
  if (value === undefined) return null
  return value >= -MAX_EXACT && value <= MAX_EXACT ? Number(value) : hex(value)
}
