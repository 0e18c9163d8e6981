/** What is wrong with steps that shows before they run: names that nothing opens, parts that do not go together. */
import type { Path } from '../abi/fault.ts'
import { releaseFor } from '../abi/registry.ts'
import { describe, nearest } from './scenario-shape.ts'
import { LIVEUPDATE_DEVICE, type ScenarioStep } from './scenario-steps.ts'
import type { ScenarioReport } from './scenario-text.ts'
import { textLabel } from './text.ts'
import { canonicalName, fileName, namePattern, type TimelineStep } from './timeline-step.ts'

/** Steps that are run in all; above, the timeline is a mistake. */
const MAX_STEPS = 1 << 20

export interface StepContext {
  /** Names of the regions of reserve_mem. */
  readonly regions: readonly string[]
  /** Version strings of the drivers that are not modelled. */
  readonly handlers: readonly string[]
  /** Names of the FLBs that the scenario declares. */
  readonly flbs: readonly string[]
  readonly simulated: readonly string[]
  readonly report: ScenarioReport
}

export function checkSteps(steps: readonly TimelineStep[], context: StepContext): void {
  if (stepsToRun(steps) > MAX_STEPS) context.report.wrong(['steps'], `more than ${MAX_STEPS} steps in all`)
  const names = new OpenNames()
  checkEach(steps, names, context)
}

function stepsToRun(steps: readonly TimelineStep[]): number {
  return steps.reduce(
    (sum, { step, group }) => sum + (step.repeat ?? 1) * (1 + (group ? stepsToRun(group) : 0)),
    0,
  )
}

function checkEach(steps: readonly TimelineStep[], names: OpenNames, context: StepContext): void {
  for (const { step, path, group } of steps) {
    checkParts(step, path, context)
    checkReleases(step, path, context)
    checkDrivers(step, path, context)
    checkNames(step, path, names, context)
    names.open(step)
    if (group) {
      // A repetition may use what the one before it opened.
      if ((step.repeat ?? 1) > 1) for (const inner of group) names.open(inner.step)
      checkEach(group, names, context)
    }
  }
}

/** Names that are open so far, as far as that shows without running anything. */
class OpenNames {
  readonly #texts: string[] = []
  readonly #patterns: RegExp[] = []

  open(step: ScenarioStep): void {
    for (const name of namesOpened(step)) {
      this.#texts.push(name)
      this.#patterns.push(namePattern(canonicalName(name)))
    }
  }

  knows(name: string): boolean {
    const shown = canonicalName(name)
    const sample = shown.replaceAll(/\{(n|outer)[^}]*\}/g, '0')
    return (
      this.#texts.includes(name) ||
      this.#patterns.some((pattern) => pattern.test(shown) || pattern.test(sample))
    )
  }

  nearest(name: string): string | undefined {
    return nearest(name, this.#texts)
  }
}

function namesOpened(step: ScenarioStep): readonly string[] {
  const { open, create_session, retrieve_session, preserve, retrieve, memfd, ioctl } = step
  const session = create_session ?? retrieve_session
  if (open) return [open.as ?? open.path ?? LIVEUPDATE_DEVICE]
  if (session) return [session.as ?? textLabel(session.name)]
  if (memfd) return [memfd.name]
  if (ioctl?.as !== undefined) return [ioctl.as]
  const file = retrieve ?? (preserve?.memfd || preserve?.opaque ? preserve : undefined)
  if (!file) return []
  if (file.as !== undefined) return [file.as]
  const token = (step.repeat ?? 1) > 1 ? '{n}' : file.token
  return [typeof token === 'bigint' ? fileName(file.session, token) : `${file.session}/${token}`]
}

function checkNames(
  step: ScenarioStep,
  path: Path,
  names: OpenNames,
  { regions, report }: StepContext,
): void {
  for (const [at, name] of namesUsed(step)) {
    if (names.knows(name)) continue
    const near = names.nearest(name)
    const hint = near === undefined ? 'expected a name that an earlier step opens' : `did you mean ${near}?`
    report.wrong([...path, ...at], `nothing called ${describe(name)} is open here; ${hint}`)
  }
  for (const verb of ['write', 'verify'] as const) {
    const region = step[verb]?.region
    if (region === undefined || regions.includes(region)) continue
    const known = regions.length > 0 ? `expected one of ${regions.join(', ')}` : 'reserve_mem declares none'
    report.wrong([...path, verb, 'region'], `no region ${describe(region)}; ${known}`)
  }
}

function namesUsed(step: ScenarioStep): readonly (readonly [Path, string])[] {
  const used: [Path, string | undefined][] = [
    [['close'], step.close],
    [['preserve', 'session'], step.preserve?.session],
    [['preserve', 'file'], step.preserve?.file],
    [['retrieve', 'session'], step.retrieve?.session],
    [['finish'], step.finish?.session],
    [['get_name'], step.get_name?.session],
    [['ioctl', 'on'], step.ioctl?.on],
    [['write', 'file'], step.write?.file],
    [['truncate', 'file'], step.truncate?.file],
    [['fallocate', 'file'], step.fallocate?.file],
    [['seal', 'file'], step.seal?.file],
    [['seek', 'file'], step.seek?.file],
    [['verify'], step.verify?.file],
    [['verify', 'same_as'], step.verify?.same_as],
  ]
  for (const [index, { files = [] }] of (step.prepare ?? []).entries()) {
    for (const [at, { file }] of files.entries())
      used.push([['prepare', { index }, 'files', { index: at }, 'file'], file])
  }
  return used.filter((pair): pair is [Path, string] => pair[1] !== undefined)
}

/** Parts of a step that do not go together. */
function checkParts(step: ScenarioStep, path: Path, { report }: StepContext): void {
  const { verify, fail, corrupt, preserve, check } = step
  if (verify?.region !== undefined) {
    for (const key of ['position', 'seals', 'mode', 'same_as'] as const) {
      if (verify[key] !== undefined)
        report.wrong([...path, 'verify', key], 'a region has none; expected content')
    }
  }
  if (verify?.mode !== undefined && !/^[0-7]{1,7}$/.test(verify.mode)) {
    report.wrong([...path, 'verify', 'mode'], `expected octal digits, found ${describe(verify.mode)}`)
  }
  if (preserve?.fd !== undefined && !/^-?\d{1,9}$/.test(preserve.fd)) {
    report.wrong([...path, 'preserve', 'fd'], `expected a number, found ${describe(preserve.fd)}`)
  }
  if (corrupt && (corrupt.value === undefined) === (corrupt.bytes === undefined)) {
    report.wrong([...path, 'corrupt'], 'expected exactly one of value, bytes')
  }
  if (check && Object.keys(check).length === 0)
    report.wrong([...path, 'check'], 'expected something to check')
  if (fail) checkFail(fail, [...path, 'fail'], report)
}

/** Drivers and FLBs by names that no file and no declaration has would never be met. */
function checkDrivers({ fail, flb, kexec }: ScenarioStep, path: Path, context: StepContext): void {
  const { handlers, flbs, report } = context
  const check = (at: Path, name: string | undefined, known: readonly string[], what: string): void => {
    if (name === undefined || known.includes(name)) return
    const near = nearest(name, known)
    const others = known.length > 0 ? `expected one of ${known.join(', ')}` : 'the scenario has none'
    report.wrong(
      [...path, ...at],
      `no ${what} ${describe(name)}; ${near === undefined ? others : `did you mean ${near}?`}`,
    )
  }
  check(['fail', 'handler'], fail?.handler, handlers, 'driver')
  check(['fail', 'flb'], fail?.flb, flbs, 'FLB')
  check(['flb', 'name'], flb?.name, flbs, 'FLB')
  for (const [index, name] of (kexec?.without ?? []).entries()) {
    check(['kexec', 'without', { index }], name, handlers, 'driver')
  }
}

function checkFail(fail: NonNullable<ScenarioStep['fail']>, path: Path, report: ScenarioReport): void {
  if (fail.allocation !== undefined) {
    for (const key of ['callback', 'call', 'with'] as const) {
      if (fail[key] !== undefined)
        report.wrong([...path, key], 'goes with handler or flb; an allocation just fails')
    }
  } else if (fail.callback === undefined) {
    report.wrong(path, 'callback is missing; expected the one that fails')
  } else if (fail.flb !== undefined && !isFlbCallback(fail.callback)) {
    report.wrong([...path, 'callback'], `an FLB has none of that name; expected preserve or retrieve`)
  }
}

function isFlbCallback(callback: string): boolean {
  return callback === 'preserve' || callback === 'retrieve'
}

function checkReleases(step: ScenarioStep, path: Path, { simulated, report }: StepContext): void {
  for (const key of ['since', 'until'] as const) {
    const name = step.only?.[key]
    if (name === undefined || releaseFor(name)) continue
    report.wrong([...path, 'only', key], `unknown release ${describe(name)}`)
  }
  const said: [Path, string | undefined][] = [
    [['kexec', 'to'], step.kexec?.to],
    [['boot', 'release'], step.boot?.release],
  ]
  for (const [at, name] of said) {
    const release = name === undefined ? undefined : releaseFor(name)
    if (name === undefined || (release && simulated.includes(release.name))) continue
    const near = nearest(name, simulated)
    const hint = near === undefined ? `expected one of ${simulated.join(', ')}` : `did you mean ${near}?`
    const what = release ? `${release.name} is not simulated` : `unknown release ${describe(name)}`
    report.wrong([...path, ...at], `${what}; ${hint}`)
  }
}
