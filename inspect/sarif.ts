/**
 * Findings as a SARIF 2.1.0 log, for code scanning and other CI. A result's place is the byte range in
 * the image's file where that stores memory as it is, the physical address, and the path in the decoded
 * tree; the pointers that led there are related locations.
 */
import type { Hop } from '../abi/fault.ts'
import { hex, type PhysAddr } from '../abi/memory.ts'
import type { Json } from './render-json.ts'
import type { Rule } from './rule.ts'
import { releasesText } from './rules-text.ts'
import type { Finding, Verdict } from './verdict.ts'

const SARIF_VERSION = '2.1.0'
const SARIF_SCHEMA = 'https://json.schemastore.org/sarif-2.1.0.json'
/** Changes when what makes two findings the same does. */
const FINGERPRINT = 'kho-inspect/v1'

export interface SarifOptions {
  /** Of this program. */
  readonly version: string
  /** The image as the user named it. */
  readonly file: string
  readonly rules: readonly Rule[]
}

export function sarifLog(
  verdict: Verdict,
  findings: readonly Finding[],
  { version, file, rules }: SarifOptions,
): Json {
  const indexes = new Map(rules.map(({ id }, index) => [id, index]))
  const driver = { name: 'kho-inspect', version, rules: rules.map(ruleToSarif) }
  const run = {
    tool: { driver },
    columnKind: 'utf16CodeUnits',
    artifacts: [{ location: { uri: fileUri(file) }, roles: ['analysisTarget'] }],
    results: findings.map((finding) => resultOf(finding, file, indexes.get(finding.rule) ?? -1)),
    properties: { target: verdict.kernel.name, outcome: verdict.outcome, console: [...verdict.console] },
  }
  return { $schema: SARIF_SCHEMA, version: SARIF_VERSION, runs: [run] }
}

function ruleToSarif(rule: Rule): Json {
  const { id, why, severity, source, kind, component, outcome } = rule
  const help = `${why} ${source}. Holds for ${releasesText(rule)}; a handover that fails it: ${outcome}.`
  return {
    id,
    shortDescription: { text: why },
    help: { text: help },
    defaultConfiguration: { level: severity },
    properties: { kind, component, outcome, releases: releasesText(rule) },
  }
}

function resultOf(finding: Finding, file: string, ruleIndex: number): Json {
  const { rule, severity, kind, path, pa, length, position, via, expected, found, message, outcome } = finding
  const related = via.map((hop, id) => relatedLocation(hop, file, id))
  return {
    ruleId: rule,
    ruleIndex,
    level: severity,
    message: { text: message },
    locations: [
      {
        physicalLocation: {
          artifactLocation: { uri: fileUri(position?.file ?? file), index: 0 },
          ...(position && { region: { byteOffset: position.offset, byteLength: length } }),
          ...addressOf(pa),
        },
        logicalLocations: [{ fullyQualifiedName: path }],
      },
    ],
    ...(related.length > 0 && { relatedLocations: related }),
    fingerprints: { [FINGERPRINT]: `${rule} ${path}` },
    properties: {
      kind,
      outcome,
      phys: hex(pa),
      ...(expected !== undefined && { expected }),
      ...(found !== undefined && { found }),
    },
  }
}

function relatedLocation({ path, pa, target }: Hop, file: string, id: number): Json {
  return {
    id,
    physicalLocation: { artifactLocation: { uri: fileUri(file), index: 0 }, ...addressOf(pa) },
    logicalLocations: [{ fullyQualifiedName: path }],
    message: { text: `points to ${hex(target)}` },
  }
}

/** SARIF's addresses are JSON numbers; larger ones stand in the properties only. */
function addressOf(pa: PhysAddr): { [key: string]: Json } {
  return pa <= BigInt(Number.MAX_SAFE_INTEGER) ? { address: { absoluteAddress: Number(pa) } } : {}
}

/** A relative or absolute path as a reference of RFC 3986. */
function fileUri(path: string): string {
  const encoded = path.split('/').map(encodeURIComponent).join('/')
  return path.startsWith('/') ? `file://${encoded}` : encoded
}
