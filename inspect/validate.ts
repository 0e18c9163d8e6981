/**
 * The engine of the validator: runs the rules that hold for a kernel over a decoded handover, and draws
 * the verdict from what they find.
 */
import { appliesTo } from '../abi/check.ts'
import { checkOf } from '../abi/console.ts'
import type { Severity } from '../abi/fault.ts'
import { componentByName, type Release, releaseFor, releases } from '../abi/registry.ts'
import { expectedConsole, linesOf } from './boot-log.ts'
import { type DecodeOptions, decodeHandover, type Handover } from './decode.ts'
import { isWithin } from './fault-pool.ts'
import type { Rule, Violation } from './rule.ts'
import { claimProviders, rules } from './rules.ts'
import { Subject } from './subject.ts'
import { kernelOfRelease, type TargetKernel, withHandlers } from './target-kernel.ts'
import { decodeText } from './text.ts'
import { child, childrenOf, type Node } from './tree.ts'
import {
  type Finding,
  overallOutcome,
  partOutcomes,
  reachedFindings,
  stageRank,
  type Verdict,
} from './verdict.ts'

export interface ValidateOptions {
  /** The release that the handover says it comes from, where it is not told. */
  readonly kernel?: TargetKernel
  /** Further file handlers that are registered in it. */
  readonly handlers?: readonly string[]
  /** The next kernel's command line. */
  readonly commandLine?: string
  /** What the handover was decoded with; a kernel may read the same bytes otherwise. */
  readonly decode?: DecodeOptions
}

/** Judges a handover. */
export function validate(handover: Handover, options: ValidateOptions = {}): Verdict {
  const kernel = withHandlers(options.kernel ?? ownKernel(handover), options.handlers ?? [])
  const seen = asReadBy(kernel, handover, options.decode)
  const subject = new Subject(seen, handover, kernel, options.commandLine, claimProviders)
  const judged = new Judgement(subject)
  judged.judge()
  const reached = reachedFindings(judged.findings, subject.release)
  return {
    kernel,
    outcome: overallOutcome(reached),
    parts: partOutcomes(seen, reached),
    findings: judged.findings,
    omitted: judged.omitted,
    console: expectedConsole(subject, reached),
  }
}

/** The verdict of every known release. */
export function validateForAll(
  handover: Handover,
  options: Omit<ValidateOptions, 'kernel'> = {},
): readonly Verdict[] {
  return releases.map((release) => validate(handover, { ...options, kernel: kernelOfRelease(release) }))
}

/** The kernel that a handover comes from: what its metadata say, else the newest release that speaks as it does. */
export function ownKernel(handover: Handover): TargetKernel {
  const told = releaseFor(toldRelease(handover) ?? '')
  if (told && (!handover.version || told.versions.kho === handover.version.id)) return kernelOfRelease(told)
  const spoken = versionsIn(handover.tree)
  const speaks = (release: Release): number =>
    spoken.filter((id) => Object.values(release.versions).includes(id)).length
  const most = Math.max(...releases.map(speaks))
  return kernelOfRelease(releases.findLast((release) => speaks(release) === most) as Release)
}

/** `previous_release` of the metadata, without what distributions append. */
function toldRelease({ tree }: Handover): string | undefined {
  const field = child(child(tree, componentByName('kexec-metadata').key), 'previous_release')
  if (field?.kind !== 'value' || !(field.value instanceof Uint8Array)) return undefined
  return /^\d+\.\d+(\.\d+)?/.exec(decodeText(field.value))?.[0]
}

/** Ids of the versions that a tree was decoded by. */
function versionsIn(node: Node): string[] {
  const own = node.kind === 'record' && node.version !== undefined ? [node.version] : []
  return [...own, ...childrenOf(node).flatMap(versionsIn)]
}

/** The handover as the kernel reads it: under the same string it may have another form of the map. */
function asReadBy(kernel: TargetKernel, handover: Handover, decode: DecodeOptions = {}): Handover {
  const { versions } = componentByName('kho')
  const spoken = versions.find(({ id }) => id === kernel.versions.kho)
  const { version, fdt, memory, target } = handover
  if (!spoken || !version || spoken === version || fdt === undefined) return handover
  if (JSON.stringify(spoken.contract) !== JSON.stringify(version.contract)) return handover
  return decodeHandover(memory, fdt, { ...decode, pageSize: target.pageSize, abi: spoken.id })
}

/** Findings of one rule that are kept; further ones are counted. */
const KEPT_PER_RULE = 100

class Judgement {
  readonly findings: Finding[] = []
  readonly omitted = new Map<string, number>()
  readonly #subject: Subject
  /** Places at which a rule failed, by its id. */
  readonly #failed = new Map<string, string[]>()
  readonly #counts = new Map<string, number>()

  constructor(subject: Subject) {
    this.#subject = subject
  }

  judge(): void {
    const { release } = this.#subject
    const applying = inOrder(rules.filter((rule) => holdsFor(rule, release)))
    const isEarly = ({ stage }: Rule): boolean => stage === 'populate'
    for (const rule of applying.filter(isEarly)) this.#run(rule)
    if (this.findings.some(({ outcome }) => outcome === 'no-handover')) return
    for (const rule of applying.filter((rule) => !isEarly(rule))) this.#run(rule)
    this.findings.sort((a, b) => stageRank(a.stage, release) - stageRank(b.stage, release))
  }

  #run(rule: Rule): void {
    for (const violation of rule.check(this.#subject)) {
      if (this.#isHidden(rule, violation.path) || (rule.isRest && this.#isTold(violation))) continue
      const failed = this.#failed.get(rule.id) ?? []
      if (failed.length < KEPT_PER_RULE) failed.push(violation.hides ?? violation.path)
      this.#failed.set(rule.id, failed)
      const count = (this.#counts.get(rule.id) ?? 0) + 1
      this.#counts.set(rule.id, count)
      if (count > KEPT_PER_RULE) this.omitted.set(rule.id, count - KEPT_PER_RULE)
      else this.findings.push(this.#finding(rule, violation))
    }
  }

  /** Whether what a rule requires failed above the place, there and in what that requires. */
  #isHidden(rule: Rule, path: string): boolean {
    return requiredBy(rule).some((id) => this.#failed.get(id)?.some((place) => isWithin(path, place)))
  }

  /** Whether another finding speaks of the same place, of what holds it or of something in it. */
  #isTold({ path, pa }: Violation): boolean {
    return this.findings.some(
      (finding) =>
        finding.severity !== 'note' &&
        (finding.pa === pa || isWithin(path, finding.path) || isWithin(finding.path, path)),
    )
  }

  #finding(rule: Rule, violation: Violation): Finding {
    const { memory, release } = this.#subject
    const {
      path,
      pa,
      length,
      message,
      expected,
      found,
      via = [],
      affects = [],
      step = 0,
      at,
      log,
    } = violation
    const check = rule.kind === 'refuses' ? checkOf(rule.id, release, at) : undefined
    const position = memory.filePosition(pa)
    const severity: Severity = violation.severity ?? rule.severity
    return {
      rule: rule.id,
      component: rule.component,
      severity,
      kind: rule.kind,
      path,
      pa,
      length,
      ...(position && { position }),
      via,
      ...(expected !== undefined && { expected }),
      ...(found !== undefined && { found }),
      message,
      source: check?.by ?? rule.source,
      why: check?.doc ?? rule.why,
      outcome: violation.outcome ?? check?.outcome ?? rule.outcome,
      stage: violation.stage ?? rule.stage,
      step,
      affects,
      ...(check?.errno !== undefined && { errno: check.errno }),
      ends: violation.ends ?? false,
      log: linesOf(check, log, violation.further ?? [], release),
    }
  }
}

/** Whether a rule holds for a release; one of a kernel's check does where the release makes the check. */
export function holdsFor(rule: Rule, release: string): boolean {
  return rule.kind === 'refuses' ? checkOf(rule.id, release) !== undefined : appliesTo(rule, release)
}

const byId = new Map(rules.map((rule) => [rule.id, rule]))
const closures = new Map<Rule, readonly string[]>()

/** Ids of everything that a rule requires, directly or by way of others. */
function requiredBy(rule: Rule): readonly string[] {
  const known = closures.get(rule)
  if (known) return known
  const ids = new Set<string>()
  const add = ({ requires }: Rule): void => {
    for (const id of requires) {
      if (ids.has(id)) continue
      ids.add(id)
      const required = byId.get(id)
      if (required) add(required)
    }
  }
  add(rule)
  const list = [...ids]
  closures.set(rule, list)
  return list
}

/** Required rules before those that require them, otherwise as in the table. */
function inOrder(applying: readonly Rule[]): readonly Rule[] {
  const ordered = new Set<Rule>()
  const add = (rule: Rule): void => {
    if (ordered.has(rule)) return
    for (const id of requiredBy(rule)) {
      const required = byId.get(id)
      if (required && applying.includes(required)) add(required)
    }
    ordered.add(rule)
  }
  applying.forEach(add)
  return [...ordered]
}
