/** `kho-inspect abi list`, `releases`, `show` and `diff`. */
import { readFileSync } from 'node:fs'
import type { PageSize } from '../abi/layout.ts'
import { PAGE_SIZES } from '../abi/layout.ts'
import {
  type Comparison,
  compareDocuments,
  compareReleases,
  compareVersions,
} from '../inspect/abi-compare.ts'
import { comparisonMarkdown, renderComparison } from '../inspect/abi-diff-text.ts'
import { type AbiDocument, describeAbi, type VersionDescription } from '../inspect/abi-document.ts'
import {
  releaseNamed,
  similarNames,
  versionOf,
  versionsNamed,
  versionsWithStruct,
} from '../inspect/abi-names.ts'
import {
  checksOf,
  renderList,
  renderReleases,
  renderStruct,
  renderVersion,
  structForms,
} from '../inspect/abi-show.ts'
import { isStoredProblem, parseStored } from '../inspect/abi-stored.ts'
import { printable } from '../inspect/text.ts'
import type { AbiArguments } from './abi-arguments.ts'
import { UsageError } from './command.ts'
import { complain } from './image-arguments.ts'
import { ExitCode, type Terminal } from './terminal.ts'

/** Prints a document as JSON. */
export function printJson(value: unknown, terminal: Terminal): void {
  terminal.out(`${JSON.stringify(value, undefined, 2)}\n`)
}

export function listAbi({ json }: AbiArguments, terminal: Terminal): number {
  const { components, versions } = describeAbi()
  if (!json) terminal.out(renderList({ ...describeAbi() }, terminal.paint))
  else {
    const summaries = Object.values(versions).map(({ parts, limits, ...rest }) => ({
      ...rest,
      source: parts[rest.root]?.source,
      parts: Object.keys(parts),
      limits: Object.fromEntries(Object.entries(limits).map(([name, { value }]) => [name, value])),
    }))
    printJson({ schema: 'kho-inspect/abi-list@1', components, versions: summaries }, terminal)
  }
  return ExitCode.OK
}

export function listReleases({ json }: AbiArguments, terminal: Terminal): number {
  const document = describeAbi()
  if (json) printJson({ schema: 'kho-inspect/abi-releases@1', releases: document.releases }, terminal)
  else terminal.out(renderReleases(document, terminal.paint))
  return ExitCode.OK
}

export function showAbi({ names, json, pageSize = 4096 }: AbiArguments, terminal: Terminal): number {
  const document = describeAbi()
  const shown = names.map((name) => lookUp(document, name))
  if (json) {
    const versions = shown.flatMap(({ versions: found }) =>
      found.map((version) => ({ ...version, checks: checksOf(version) })),
    )
    const structs = shown.flatMap(({ struct, holders }) =>
      struct === undefined ? [] : [{ name: struct, forms: structForms(struct, holders) }],
    )
    printJson({ schema: 'kho-inspect/abi-show@1', versions, structs }, terminal)
    return ExitCode.OK
  }
  const texts = shown.flatMap(({ versions, struct, holders }) =>
    struct === undefined
      ? versions.map((version) => renderVersion(version, pageSize, terminal.paint))
      : [renderStruct(struct, holders, pageSize, terminal.paint)],
  )
  terminal.out(texts.join('\n'))
  return ExitCode.OK
}

interface LookedUp {
  readonly versions: readonly VersionDescription[]
  readonly struct?: string
  /** Versions that have the struct. */
  readonly holders: readonly VersionDescription[]
}

/** What a name stands for: versions, all versions of a release, or a struct. */
function lookUp(document: AbiDocument, name: string): LookedUp {
  const versions = versionsNamed(document, name)
  if (versions.length > 0) return { versions, holders: [] }
  const release = releaseNamed(document, name)
  if (release) {
    const spoken = Object.values(release.versions).flatMap((id) => document.versions[id] ?? [])
    return { versions: spoken, holders: [] }
  }
  const tag = name.replace(/^struct /, '')
  const holders = versionsWithStruct(document, tag)
  if (holders.length > 0) return { versions: [], struct: tag, holders }
  throw unknownName(document, name)
}

export function unknownName(document: AbiDocument, name: string): UsageError {
  const near = similarNames(document, name)
  const rest = near.length > 0 ? `known are ${near.join(', ')}` : 'see kho-inspect abi list'
  return new UsageError(`'${printable(name)}' is no version, release or struct; ${rest}`)
}

/** One version of that name; of several forms the newest, which is then said. */
export function oneVersion(
  document: AbiDocument,
  name: string,
  terminal: Terminal,
): VersionDescription | undefined {
  const found = versionsNamed(document, name)
  const newest = found.at(-1)
  if (found.length > 1 && newest) {
    const ids = found.map(({ id }) => id).join(', ')
    terminal.err(`kho-inspect: note: '${printable(name)}' may be ${ids}; taking ${newest.id}`)
  }
  return newest
}

export function diffAbi(args: AbiArguments, terminal: Terminal): number {
  const comparison =
    args.against === undefined ? compareNamed(args, terminal) : compareStored(args, args.against, terminal)
  if (comparison === undefined) return ExitCode.UNREADABLE
  if (args.json && args.markdown) throw new UsageError('--json and --markdown exclude each other')
  if (args.json) printJson({ schema: 'kho-inspect/abi-diff@1', ...comparison }, terminal)
  else
    terminal.out(
      args.markdown ? comparisonMarkdown(comparison) : renderComparison(comparison, terminal.paint),
    )
  return diffExitCode(comparison)
}

/** By the direction asked for: whether the second takes over from the first. What nobody judged yet is no yes. */
function diffExitCode({ forward }: Comparison): number {
  if (forward.verdict === 'silent') return ExitCode.SILENT_BREAK
  const open = forward.verdict === 'incompatible' || forward.verdict === 'review'
  return open ? ExitCode.FINDINGS : ExitCode.OK
}

function compareNamed({ names, pageSize }: AbiArguments, terminal: Terminal): Comparison {
  const [before, after] = names
  if (before === undefined || after === undefined) {
    throw new UsageError('expected kho-inspect abi diff A B, or abi diff --against FILE')
  }
  const document = describeAbi()
  const pageSizes: readonly PageSize[] = pageSize === undefined ? PAGE_SIZES : [pageSize]
  const releases = [before, after].map((name) => releaseNamed(document, name))
  const bothVersions = [before, after].every((name) => versionsNamed(document, name).length > 0)
  if (releases[0] && releases[1] && !bothVersions) {
    return compareReleases(document, releases[0], releases[1], pageSizes)
  }
  const versions = [before, after].map(
    (name) => oneVersion(document, name, terminal) ?? refuseName(document, name),
  )
  const [older, newer] = versions as [VersionDescription, VersionDescription]
  if (older.component !== newer.component) {
    throw new UsageError(
      `${older.id} is a version of ${older.component}, ${newer.id} of ${newer.component}: nothing to compare`,
    )
  }
  if (older.contract.kind === 'none' && older.id !== newer.id) {
    throw new UsageError(`${older.id} and ${newer.id} are different things, not versions of one`)
  }
  return compareVersions(older, newer, pageSizes)
}

function refuseName(document: AbiDocument, name: string): never {
  if (releaseNamed(document, name))
    throw new UsageError(`${name} is a release; compare it with another release`)
  throw unknownName(document, name)
}

/** A stored ABI with today's, all of it or one version. */
function compareStored(
  { names, pageSize }: AbiArguments,
  file: string,
  terminal: Terminal,
): Comparison | undefined {
  if (names.length > 1) throw new UsageError('--against takes at most one version to compare')
  const stored = readStored(file, terminal)
  if (!stored) return undefined
  const today = describeAbi()
  const [name] = names
  if (name === undefined) return compareDocuments(stored, today, file)
  const [older, newer] = [stored, today].map((document) => versionOf(document, name))
  if (!older) throw new UsageError(`${printable(file)} holds no version '${printable(name)}'`)
  if (!newer) throw unknownName(today, name)
  const compared = compareVersions(older, newer, pageSize === undefined ? PAGE_SIZES : [pageSize])
  return { ...compared, before: `${name} in ${file}`, after: `${name} today` }
}

function readStored(file: string, terminal: Terminal): AbiDocument | undefined {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    complain(terminal, `${file}: cannot be read: ${(error as NodeJS.ErrnoException).code}`)
    return undefined
  }
  const stored = parseStored(text)
  if (!isStoredProblem(stored)) return stored
  complain(terminal, `${file}: ${stored.problem}; expected what kho-inspect abi freeze writes`)
  return undefined
}
