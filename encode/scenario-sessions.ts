/**
 * Sessions and FLBs of a scenario as those of a document: repeated ones written out, names, tokens and
 * numbers held against what the version's lists take.
 */
import { formatPath, type Path } from '../abi/fault.ts'
import { LIVEUPDATE_TEST_FLBS } from '../abi/liveupdate-test.ts'
import { hex, MAX_PHYS } from '../abi/memory.ts'
import type { Flb, Session, SessionFile, Text } from './handover.ts'
import type { ContentContext } from './scenario-content.ts'
import type { Copies } from './scenario-file-schema.ts'
import { FileBuilder } from './scenario-files.ts'
import {
  type ListLimits,
  listOf,
  releasesThatHave,
  type ScenarioMachine,
  textLimit,
} from './scenario-machine.ts'
import type { Scenario, ScenarioFile, ScenarioFlb, ScenarioSession } from './scenario-schema.ts'
import { textBytes, textLabel } from './text.ts'

/** Files and sessions that are written out one by one; above, the scenario is a mistake. */
const MAX_ENTRIES = 1 << 22

export interface BuiltSessions {
  readonly sessions: readonly Session[]
  /** Where each session, and each of its files, stands in the scenario. */
  readonly origins: readonly SessionOrigin[]
}

export interface SessionOrigin {
  readonly path: Path
  readonly files: readonly Path[]
}

export class SessionBuilder {
  readonly #machine: ScenarioMachine
  readonly #context: ContentContext
  readonly #files: FileBuilder
  readonly #fileLimits: ListLimits | undefined
  readonly #sessions: Session[] = []
  readonly #origins: SessionOrigin[] = []
  readonly #names = new Map<string, Path>()
  #entries = 0

  constructor(machine: ScenarioMachine, context: ContentContext) {
    this.#machine = machine
    this.#context = context
    this.#files = new FileBuilder(machine, context)
    this.#fileLimits = listOf(machine, 'luo', 'files')
  }

  build(sessions: readonly ScenarioSession[]): BuiltSessions {
    const limits = listOf(this.#machine, 'luo', 'sessions')
    for (const [index, session] of sessions.entries()) {
      const path = ['sessions', { index }]
      if (!limits) {
        const those = releasesThatHave((versions) => versions.luo !== undefined)
        this.#context.report.absent(path, `${this.#machine.label} has no sessions; expected one of ${those}`)
        break
      }
      if (!this.#addCopies(session, limits, path)) break
    }
    return { sessions: this.#sessions, origins: this.#origins }
  }

  #addCopies(session: ScenarioSession, limits: ListLimits, path: Path): boolean {
    const copies = this.#copies(session.repeat, this.#sessions.length, limits, 'sessions', path)
    for (let copy = 0; copy < copies; copy++) {
      const name = numbered(session.name, copy)
      if (!this.#checkName(name, limits, copies, path)) return false
      const files = this.#sessionFiles(session, BigInt(copy), path)
      if (!files) return false
      this.#sessions.push({ name, ...(files.files.length > 0 && { files: { entries: files.files } }) })
      this.#origins.push({ path, files: files.paths })
    }
    return copies > 0
  }

  /** How many copies of an entry there are; 0 after what is wrong with their number was reported. */
  #copies(
    repeat: Copies | undefined,
    before: number,
    limits: ListLimits,
    things: string,
    path: Path,
  ): number {
    const { report } = this.#context
    const at = repeat === undefined ? path : [...path, 'repeat']
    if (typeof repeat === 'object' && limits.parts === 1 && (repeat.full > 1 || repeat.plus > 0)) {
      report.absent(at, `${this.#machine.label} keeps ${things} in one array; expected at most full`)
      return 0
    }
    const copies =
      typeof repeat === 'object' ? repeat.full * limits.perPart + repeat.plus : Number(repeat ?? 1n)
    const most = limits.perPart * limits.parts
    if (before + copies > most) {
      report.wrong(
        at,
        `${before + copies} ${things}; ${this.#machine.label} holds at most ${most} (${limits.said})`,
      )
      return 0
    }
    this.#entries += copies
    if (this.#entries <= MAX_ENTRIES) return copies
    report.wrong(at, `more than ${MAX_ENTRIES} sessions and files in all`)
    return 0
  }

  #checkName(name: Text, { element }: ListLimits, copies: number, path: Path): boolean {
    const { report } = this.#context
    const at = [...path, 'name']
    if (!checkText(name, textLimit(element, 'name'), 'the name of a session', at, this.#context)) return false
    const key = Buffer.from(textBytes(name)).toString('latin1')
    const other = this.#names.get(key)
    this.#names.set(key, path)
    if (!other) return true
    const hint = copies > 1 ? '; {n} in the name gives each copy its own' : ''
    report.wrong(
      at,
      `${formatPath(other)} has the name ${JSON.stringify(textLabel(name))}, too; expected another one${hint}`,
    )
    return false
  }

  #sessionFiles(
    session: ScenarioSession,
    sessionCopy: bigint,
    path: Path,
  ): { readonly files: readonly SessionFile[]; readonly paths: readonly Path[] } | undefined {
    const limits = this.#fileLimits
    const files: SessionFile[] = []
    const paths: Path[] = []
    const tokens = new Map<bigint, Path>()
    for (const [index, file] of (session.files ?? []).entries()) {
      const at = [...path, 'files', { index }]
      if (!limits) return this.#context.report.absent(at, `${this.#machine.label} has sessions without files`)
      const copies = this.#copies(file.repeat, files.length, limits, 'files in a session', at)
      if (copies === 0) return undefined
      for (let copy = 0n; copy < copies; copy++) {
        const token = file.token + copy
        if (!this.#checkFile(file, token, tokens, limits, at)) return undefined
        const built = this.#files.build(file, token, sessionCopy + copy, at)
        if (!built) return undefined
        files.push(built)
        paths.push(at)
      }
    }
    return { files, paths }
  }

  #checkFile(
    file: ScenarioFile,
    token: bigint,
    tokens: Map<bigint, Path>,
    { element }: ListLimits,
    path: Path,
  ): boolean {
    const { report } = this.#context
    const other = tokens.get(token)
    tokens.set(token, path)
    if (token > MAX_PHYS) {
      report.wrong([...path, 'repeat'], `tokens up to ${hex(token)}; expected at most 64 bits`)
      return false
    }
    if (other) {
      report.wrong(
        [...path, 'token'],
        `${formatPath(other)} has the token ${hex(token)}, too; expected another one`,
      )
      return false
    }
    if (!file.opaque) return true
    const at = [...path, 'opaque', 'compatible']
    const limit = textLimit(element, 'compatible')
    if (!checkText(file.opaque.compatible, limit, 'a version string', at, this.#context)) return false
    if (file.opaque.compatible !== this.#files.handlerVersion) return true
    report.wrong(at, `${file.opaque.compatible} is known here; expected memfd instead of opaque`)
    return false
  }
}

/** A text as the kernel keeps it: some bytes, none of them NUL, and a NUL behind. */
export function checkText(
  text: Text,
  limit: number,
  what: string,
  path: Path,
  { report }: Pick<ContentContext, 'report'>,
): boolean {
  const bytes = textBytes(text)
  if (bytes.length === 0 || bytes.length > limit) {
    report.wrong(path, `${what} has ${bytes.length} bytes; expected 1 to ${limit}`)
    return false
  }
  if (!bytes.includes(0)) return true
  report.wrong(path, `${what} ends at NUL; expected none in it`)
  return false
}

/** Puts the number of a copy into its name. */
function numbered(name: Text, copy: number): Text {
  if (typeof name !== 'string') return name
  return name.replaceAll(/\{n(?::0(\d{1,2}))?\}/g, (_, width = '0') =>
    String(copy).padStart(Number(width), '0'),
  )
}

/** FLBs with one reference for each file of their handlers. */
export function flbsOf(
  scenario: Scenario,
  machine: ScenarioMachine,
  sessions: readonly Session[],
  context: Pick<ContentContext, 'report'>,
): readonly Flb[] | undefined {
  const { report } = context
  const limits = listOf(machine, 'luo', 'flbs')
  const test = scenario.liveupdate_test ? LIVEUPDATE_TEST_FLBS : []
  if (!limits) {
    const path = scenario.flbs ? ['flbs'] : ['liveupdate_test']
    if ((scenario.flbs ?? test).length > 0) {
      report.absent(path, `${machine.label} has no FLBs; Linux 7.0 and later do`)
    }
    return undefined
  }
  const files = sessions.flatMap((session) => session.files?.entries ?? [])
  const flbs: Flb[] = []
  const names = new Set<string>()
  for (const [index, flb] of [...(scenario.flbs ?? []), ...test].entries()) {
    const isTest = index >= (scenario.flbs ?? []).length
    const path: Path = isTest ? ['liveupdate_test'] : ['flbs', { index }]
    const built = flbOf(flb, files, limits, path, context)
    const name = textLabel(flb.name)
    if (names.has(name))
      report.wrong(
        isTest ? path : [...path, 'name'],
        `${JSON.stringify(name)} is there twice; expected another one`,
      )
    names.add(name)
    // The test FLBs are registered, but not handed over, while there are no files.
    if (built && !(isTest && built.count === 0n)) flbs.push(built)
  }
  if (flbs.length > limits.perPart) {
    report.wrong(
      ['flbs'],
      `${flbs.length} FLBs; ${machine.label} holds at most ${limits.perPart} (${limits.said})`,
    )
  }
  return flbs
}

function flbOf(
  flb: ScenarioFlb,
  files: readonly SessionFile[],
  { element }: ListLimits,
  path: Path,
  context: Pick<ContentContext, 'report'>,
): Flb | undefined {
  if (!checkText(flb.name, textLimit(element, 'name'), 'the name of an FLB', [...path, 'name'], context))
    return undefined
  const sharing = files.filter(({ compatible }) => flb.handlers?.includes(textLabel(compatible)) ?? true)
  const count = flb.count ?? BigInt(sharing.length)
  if (count === 0n && path[0] === 'flbs') {
    const found = flb.count === undefined ? 'no file of its handlers refers to it' : 'its count is 0'
    return context.report.wrong(path, `${found}; the kernel hands over only FLBs that are in use`)
  }
  return { name: flb.name, data: flb.data, count }
}
