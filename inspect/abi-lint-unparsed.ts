/**
 * What of a tree's ABI headers is not understood, so that nothing else can judge it: constructs outside
 * the subset of C, structs that cannot be laid out, constants and assertions that cannot be evaluated,
 * and what is there twice, of which only one can be looked at.
 */
import { PAGE_SIZES } from '../abi/layout.ts'
import { isUnknown } from './c-member.ts'
import type { KernelHeader } from './kernel-header.ts'
import type { Finding } from './lint-finding.ts'
import { type ParsedTree, stringValue } from './source-tree.ts'

interface Problem {
  readonly line: number
  readonly message: string
}

/** Everything that is not understood in the headers of a tree. */
export function unparsedFindings(tree: ParsedTree): readonly Finding[] {
  return tree.headers.flatMap((header) =>
    [
      ...refused(header),
      ...twice(header),
      ...withoutLayout(header, tree),
      ...withoutValue(header, tree),
      ...undecided(header, tree),
    ].map(({ line, message }): Finding => {
      return { rule: 'UNPARSED', severity: 'warning', file: header.path, line, message }
    }),
  )
}

function refused({ unparsed }: KernelHeader): readonly Problem[] {
  return unparsed.map(({ line, text, why }) => ({ line, message: `${text}: ${why}` }))
}

function twice({ structs, defines }: KernelHeader): readonly Problem[] {
  const named = [...structs.map(({ tag, ...place }) => ({ name: `struct ${tag}`, ...place })), ...defines]
  return named
    .filter(({ name }, index) => named.findIndex((first) => first.name === name) < index)
    .map(({ name, line, condition }) => {
      const under = condition === undefined ? '' : ` under ${condition}`
      return { line, message: `${name} is defined again${under}: only one of them is looked at` }
    })
}

function withoutLayout({ structs }: KernelHeader, tree: ParsedTree): readonly Problem[] {
  return structs.flatMap(({ tag, line }): readonly Problem[] => {
    const layouts = PAGE_SIZES.map((pageSize) => tree.definitions(pageSize).layoutOf(tag))
    const unknown = layouts.find((layout) => isUnknown(layout))
    return unknown && isUnknown(unknown)
      ? [{ line, message: `struct ${tag} cannot be laid out: ${unknown.unknown}` }]
      : []
  })
}

/** Object-like macros and enumerators that are neither a number nor a string. */
function withoutValue(header: KernelHeader, tree: ParsedTree): readonly Problem[] {
  return constantsOf(header).flatMap(({ name, line }): readonly Problem[] => {
    const values = PAGE_SIZES.map((pageSize) => tree.definitions(pageSize).valueOf(name))
    const unknown = values.find((value) => 'unknown' in value)
    return unknown && 'unknown' in unknown
      ? [{ line, message: `${name} cannot be evaluated: ${unknown.unknown}` }]
      : []
  })
}

/** Names that stand for a value, strings left out. */
export function constantsOf({
  defines,
  enumerators,
}: KernelHeader): readonly { readonly name: string; readonly line: number }[] {
  const macros = defines.filter(
    (define) =>
      define.parameters === undefined && define.body.length > 0 && stringValue(define) === undefined,
  )
  return [...macros, ...enumerators]
}

function undecided({ asserts }: KernelHeader, tree: ParsedTree): readonly Problem[] {
  return asserts.flatMap(({ claim, line }): readonly Problem[] => {
    const results = PAGE_SIZES.map((pageSize) => tree.definitions(pageSize).evaluate(claim))
    if (results.some((result) => 'value' in result && result.value === 0n)) return []
    const unknown = results.find((result) => 'unknown' in result)
    return unknown && 'unknown' in unknown
      ? [{ line, message: `an assertion cannot be evaluated: ${unknown.unknown}` }]
      : []
  })
}
