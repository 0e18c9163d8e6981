/** The ABI as a Markdown reference: releases, who takes over from whom, every version with every byte. */
import { behaviours } from '../abi/behaviour.ts'
import type { Check } from '../abi/check.ts'
import { checks } from '../abi/consumer.ts'
import { compareReleases } from './abi-compare.ts'
import type { AbiDocument, PartDescription, VersionDescription } from './abi-document.ts'
import { wire } from './abi-parts.ts'
import { carriers, contractText, definedIn, memberRow } from './abi-show.ts'
import type { Verdict } from './abi-verdict.ts'
import { formatPageSize, formatPerPage } from './per-page.ts'
import { code, markdownTable, type Row } from './table.ts'

/** The reference for everything that is declared. */
export function exportMarkdown(document: AbiDocument): string {
  return `${[
    '# The ABI of Linux live-update handovers',
    'Every version of every component that KHO and LUO hand over, as this project declares it. Written by `kho-inspect abi export --format markdown`; do not edit.',
    'Numbers are little-endian unless a type says otherwise. Where three numbers stand, they are for 4K, 16K and 64K pages.',
    '## Releases',
    releasesTable(document),
    '## Who takes over from whom',
    'Row: the kernel that hands over. Column: the kernel that takes over, built with KHO and LUO, with the same page size. The test module is left out.',
    takeoverTable(document),
    ...Object.keys(document.components).flatMap((name) => componentSection(document, name)),
    '## Behaviour',
    'What changed without a change of the bytes.',
    markdownTable(
      ['since', 'component', 'side', 'what'],
      behaviours.map(({ since, component, side, doc }): Row => [since, component, side, doc]),
    ),
  ].join('\n\n')}\n`
}

function releasesTable({ components, releases }: AbiDocument): string {
  const names = Object.keys(components).filter((name) =>
    releases.some(({ versions }) => versions[name] !== undefined),
  )
  const rows = releases.map(
    ({ name, covers, unreleased, versions }): Row => [
      code(name),
      unreleased ? `${covers}, no release` : covers,
      ...names.map((component) =>
        versions[component] === undefined ? '-' : code(versions[component] as string),
      ),
    ],
  )
  return markdownTable(['release', 'covers', ...names], rows)
}

function takeoverTable(document: AbiDocument): string {
  const { releases } = document
  const rows = releases.map(
    (before): Row => [
      code(before.name),
      ...releases.map((after) => cell(compareReleases(document, before, after).forward)),
    ],
  )
  return markdownTable(['', ...releases.map(({ name }) => name.replace('linux-', ''))], rows)
}

function cell({ verdict, outcome, pageSizes }: Verdict): string {
  const at = pageSizes.length === 3 ? '' : ` at ${pageSizes.map(formatPageSize).join(', ')}`
  const text = `${outcome ?? verdict}${at}`
  return verdict === 'silent' ? `**${text}**, silently` : text
}

function componentSection(document: AbiDocument, name: string): readonly string[] {
  const component = document.components[name]
  if (!component) return []
  const versions = component.versions.flatMap((id) => document.versions[id] ?? [])
  const subtree =
    component.subtree === undefined ? '' : ` Subtree ${code(component.subtree)} of the root FDT.`
  const made = checks.filter((check) => check.component === name)
  return [
    `## ${name}`,
    `${component.doc}${subtree}${component.testOnly ? ' Left by a test module only.' : ''}`,
    markdownTable(
      ['version', 'says so by', 'releases', 'defined in'],
      versions.map(
        (version): Row => [code(version.id), contractText(version), carriers(version), definedIn(version)],
      ),
    ),
    ...versions.flatMap((version, index) => versionSection(version, versions.slice(0, index))),
    ...(made.length > 0 ? [`### Checks of ${name}'s readers`, checksTable(made)] : []),
  ]
}

function versionSection(
  version: VersionDescription,
  earlier: readonly VersionDescription[],
): readonly string[] {
  const limits = Object.entries(version.limits).map(
    ([name, { value, doc }]): Row => [code(name), formatPerPage(value), doc],
  )
  return [
    `### ${version.id}`,
    ...Object.entries(version.parts).flatMap(([key, part]) => partSection(key, part, earlier)),
    ...(limits.length > 0 ? [markdownTable(['limit', 'value', 'of'], limits)] : []),
  ]
}

/** A part in full where it is new or changed, else a reference to the last version that is shown in full. */
function partSection(
  key: string,
  part: PartDescription,
  earlier: readonly VersionDescription[],
): readonly string[] {
  const title = part.kind === 'struct' ? code(`struct ${key}`) : `node ${code(key)}`
  const same = earlier.find(({ parts }) => parts[key] !== undefined && wire(parts[key]) === wire(part))
  if (same) return [`${title}: as in ${same.id}.`]
  const size = part.size === undefined ? '' : `, ${formatPerPage(part.size)} bytes`
  const packed = part.packed ? ' `__packed`' : ''
  const head = `${title}${packed}${size}. ${part.doc}`
  if (part.members.length === 0) return [head]
  return [head, part.kind === 'struct' ? fieldsTable(part) : propertiesTable(part)]
}

function fieldsTable({ members }: PartDescription): string {
  const rows = members.map(memberRow).map(([offset, size, bits, type, name, meaning]): Row => {
    return [offset, size, bits, code(type), code(name), meaning]
  })
  return markdownTable(['offset', 'size', 'bits', 'type', 'field', 'meaning'], rows)
}

function propertiesTable({ members }: PartDescription): string {
  const rows = members.map(memberRow).map(([, size, , type, name, meaning]): Row => {
    return [size, code(type), code(name), meaning]
  })
  return markdownTable(['length', 'type', 'property', 'meaning'], rows)
}

function checksTable(made: readonly Check[]): string {
  const rows = made.map(
    ({ at, doc, since, until, message, errno, outcome, by }): Row => [
      at === '' ? 'subtree' : code(at),
      doc,
      until === since ? since : `${since} to ${until ?? 'now'}`,
      [errno === undefined ? '' : `-${errno}`, message === undefined ? '' : code(message)]
        .filter(Boolean)
        .join(' '),
      outcome,
      code(by),
    ],
  )
  return markdownTable(['at', 'what must hold', 'releases', 'else', 'outcome', 'checked by'], rows)
}
