/** The validator's verdict as plain JSON values, in the number forms of `kho-inspect dump --json`. */
import type { Hop } from '../abi/fault.ts'
import { hex } from '../abi/memory.ts'
import type { Json } from './render-json.ts'
import type { ShownFindings } from './render-verdict.ts'
import type { Finding, PartOutcome, Verdict } from './verdict.ts'

/** Change when a key of them changes. */
const VALIDATE_SCHEMA = 'kho-inspect/validate@1'
const MATRIX_SCHEMA = 'kho-inspect/validate-matrix@1'

export function verdictToJson(verdict: Verdict, { findings, ignored }: ShownFindings): Json {
  return {
    schema: VALIDATE_SCHEMA,
    ...judged(verdict),
    console: [...verdict.console],
    components: componentsToJson(verdict.parts),
    findings: findings.map(findingToJson),
    omitted: Object.fromEntries(verdict.omitted),
    ignored,
  }
}

export function matrixToJson(verdicts: readonly Verdict[]): Json {
  return {
    schema: MATRIX_SCHEMA,
    kernels: verdicts.map((verdict) => ({
      ...judged(verdict),
      components: componentsToJson(verdict.parts),
      rules: [...new Set(verdict.findings.map(({ rule }) => rule))],
    })),
  }
}

/** For which kernel, and what it does. */
function judged({ kernel, outcome }: Verdict): { [key: string]: Json } {
  return {
    target: kernel.name,
    target_release: kernel.release.name,
    target_versions: { ...kernel.versions },
    outcome,
  }
}

function componentsToJson(parts: readonly PartOutcome[]): Json {
  return Object.fromEntries(parts.map(({ part, outcome }) => [part, { outcome }]))
}

function findingToJson(finding: Finding): Json {
  const { position } = finding
  return {
    rule: finding.rule,
    severity: finding.severity,
    kind: finding.kind,
    outcome: finding.outcome,
    path: finding.path,
    phys: hex(finding.pa),
    length: finding.length,
    ...(position && { image_file: position.file }),
    image_offset: position?.offset ?? null,
    via: finding.via.map(hopToJson),
    expected: finding.expected ?? null,
    found: finding.found ?? null,
    message: finding.message,
    why: finding.why,
    source: finding.source,
    console: [...finding.log],
  }
}

function hopToJson({ path, pa, target }: Hop): Json {
  return { path, phys: hex(pa), target: hex(target) }
}
