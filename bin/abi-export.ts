/** `kho-inspect abi export` and `freeze`: the declared ABI for other tools, and for later comparison. */
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import {
  type AbiDocument,
  describeAbi,
  stableJson,
  type VersionDescription,
} from '../inspect/abi-document.ts'
import { exportC } from '../inspect/abi-export-c.ts'
import { exportKsy } from '../inspect/abi-export-ksy.ts'
import { exportMarkdown } from '../inspect/abi-export-markdown.ts'
import { releaseNamed, versionsNamed } from '../inspect/abi-names.ts'
import { conflictingStructs } from '../inspect/abi-parts.ts'
import { type AbiArguments, EXPORT_FORMATS } from './abi-arguments.ts'
import { unknownName } from './abi-show.ts'
import { UsageError } from './command.ts'
import { complain } from './image-arguments.ts'
import { ExitCode, type Terminal } from './terminal.ts'

export function exportAbi(args: AbiArguments, terminal: Terminal): number {
  const document = describeAbi()
  const [name] = args.names
  switch (args.format) {
    case 'markdown':
      if (name !== undefined)
        throw new UsageError('the Markdown reference is of everything; it takes no name')
      return write(exportMarkdown(document), args.output, terminal)
    case 'json':
      return write(
        stableJson(name === undefined ? document : narrowed(document, name)),
        args.output,
        terminal,
      )
    case 'c':
      return write(exportC(needed(name), exportable(document, needed(name))), args.output, terminal)
    case 'ksy':
      return write(exportKsy(single(document, needed(name))), args.output, terminal)
    case undefined:
      throw new UsageError(`--format: expected ${EXPORT_FORMATS.join(', ')}`)
  }
}

export function freezeAbi({ output }: AbiArguments, terminal: Terminal): number {
  return write(stableJson(describeAbi()), output, terminal)
}

function needed(name: string | undefined): string {
  if (name === undefined)
    throw new UsageError('expected a version or release to export, such as kho-v4 or linux-7.3')
  return name
}

/** Versions that a name stands for: of a release all, else exactly one. */
function exportable(document: AbiDocument, name: string): readonly VersionDescription[] {
  const release = versionsNamed(document, name).length > 0 ? undefined : releaseNamed(document, name)
  if (!release) return [single(document, name)]
  const versions = Object.values(release.versions).flatMap((id) => document.versions[id] ?? [])
  const conflicts = conflictingStructs(versions)
  if (conflicts.length === 0) return versions
  throw new UsageError(
    `${release.name} has ${conflicts.join(', ')} in two forms; export its versions one by one`,
  )
}

function single(document: AbiDocument, name: string): VersionDescription {
  const found = versionsNamed(document, name)
  const [version, ...others] = found
  if (!version) throw unknownName(document, name)
  if (others.length === 0) return version
  throw new UsageError(`'${name}' may be ${found.map(({ id }) => id).join(', ')}; name one`)
}

/** A document with the versions of one name only. */
function narrowed(document: AbiDocument, name: string): AbiDocument {
  const release = releaseNamed(document, name)
  const named = versionsNamed(document, name)
  const versions = named.length > 0 ? named : release ? exportable(document, name) : []
  if (versions.length === 0) throw unknownName(document, name)
  return { ...document, versions: Object.fromEntries(versions.map((version) => [version.id, version])) }
}

/** Writes to stdout, or to a file that appears only when it is whole. */
function write(text: string, output: string | undefined, terminal: Terminal): number {
  if (output === undefined || output === '-') {
    terminal.out(text)
    return ExitCode.OK
  }
  const temporary = `${output}.part`
  try {
    writeFileSync(temporary, text)
    renameSync(temporary, output)
    return ExitCode.OK
  } catch (error) {
    rmSync(temporary, { force: true })
    complain(terminal, `${output}: cannot be written: ${(error as NodeJS.ErrnoException).code}`)
    return ExitCode.UNREADABLE
  }
}
