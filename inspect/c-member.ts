/**
 * Members of C structs, from their tokens: type, declarators, attributes. What they mean in bytes is
 * not known here.
 */
import { splitArguments } from './c-expression.ts'
import { type Token, tokenText } from './c-tokens.ts'
import { isQualifier, isTypeWord } from './c-types.ts'

export interface StructBody {
  readonly kind: 'struct' | 'union'
  /** Tokens of each member, without the semicolon. */
  readonly members: readonly (readonly Token[])[]
  /** Tokens of its attributes: `__packed`, `__aligned(8)`. */
  readonly attributes: readonly Token[]
}

export type TypeReference =
  | { readonly kind: 'plain'; readonly words: readonly Token[] }
  | { readonly kind: 'tagged'; readonly of: 'struct' | 'union' | 'enum'; readonly tag: string }
  | { readonly kind: 'inline'; readonly body: StructBody }

export interface Declarator {
  /** Empty for an anonymous struct or union, and for padding. */
  readonly name: string
  readonly pointer: boolean
  /** Expressions between brackets; an empty one is a flexible array. */
  readonly dimensions: readonly (readonly Token[])[]
  /** Expression of a bit field's width. */
  readonly width?: readonly Token[]
}

export interface Member {
  readonly type: TypeReference
  readonly declarators: readonly Declarator[]
  readonly attributes: readonly Token[]
}

export interface Unknown {
  readonly unknown: string
}

export function isUnknown<T extends object>(value: T | Unknown): value is Unknown {
  return 'unknown' in value
}

export function isPunctuation(token: Token | undefined, text: string): boolean {
  return token?.kind === 'punctuation' && token.text === text
}

const ATTRIBUTES: ReadonlySet<string> = new Set([
  '__packed',
  '__attribute__',
  '__aligned',
  '__counted_by',
  '__counted_by_le',
  '__counted_by_be',
])

/** Splits at a separator outside all brackets. */
export function splitAt(tokens: readonly Token[], separator: string): readonly (readonly Token[])[] {
  const split: Token[][] = [[]]
  let depth = 0
  for (const token of tokens) {
    if (depth === 0 && isPunctuation(token, separator)) split.push([])
    else (split.at(-1) as Token[]).push(token)
    if (token.kind !== 'punctuation') continue
    if (/^[([{]$/.test(token.text)) depth += 1
    if (/^[)\]}]$/.test(token.text)) depth -= 1
  }
  return split
}

/** Takes attributes out of tokens, with what stands in their parentheses. */
export function takeAttributes(tokens: readonly Token[]): {
  readonly rest: readonly Token[]
  readonly attributes: readonly Token[]
} {
  const rest: Token[] = []
  const attributes: Token[] = []
  let depth = 0
  let braces = 0
  for (const [index, token] of tokens.entries()) {
    if (isPunctuation(token, '{')) braces += 1
    if (isPunctuation(token, '}')) braces -= 1
    const begins = depth === 0 && braces === 0 && token.kind === 'word' && ATTRIBUTES.has(token.text)
    const continues =
      depth > 0 || (isPunctuation(token, '(') && attributes.at(-1) === tokens[index - 1] && index > 0)
    if (!begins && !continues) {
      rest.push(token)
      continue
    }
    attributes.push(token)
    if (isPunctuation(token, '(')) depth += 1
    if (isPunctuation(token, ')')) depth -= 1
  }
  return { rest, attributes }
}

/** `struct tag { … } attributes`, as tokens; undefined without a body. */
export function parseBody(
  tokens: readonly Token[],
): { readonly tag: string; readonly body: StructBody } | undefined {
  const open = tokens.findIndex((token) => isPunctuation(token, '{'))
  const close = tokens.findLastIndex((token) => isPunctuation(token, '}'))
  if (open < 0 || close < open) return undefined
  const head = takeAttributes(tokens.slice(1, open))
  const after = takeAttributes(tokens.slice(close + 1))
  if (head.rest.length > 1 || after.rest.length > 0) return undefined
  return {
    tag: head.rest[0]?.text ?? '',
    body: {
      kind: tokens[0]?.text === 'union' ? 'union' : 'struct',
      members: splitAt(tokens.slice(open + 1, close), ';').filter((member) => member.length > 0),
      attributes: [...head.attributes, ...after.attributes],
    },
  }
}

/** Parses one member; macros must have been expanded before. */
export function parseMember(tokens: readonly Token[]): Member | Unknown {
  const directive = tokens.find(({ kind }) => kind === 'directive')
  if (directive) return { unknown: `#${directive.text} between members` }
  const { rest, attributes } = takeAttributes(tokens)
  const taken = takeType(rest)
  if (!taken) return { unknown: `${tokenText(tokens)}: its type is not understood` }
  const declarators = taken.after.length === 0 ? [NAMELESS] : splitArguments(taken.after).map(parseDeclarator)
  const bad = declarators.find(isUnknown)
  if (bad) return bad
  return { type: taken.type, declarators: declarators as Declarator[], attributes }
}

const NAMELESS: Declarator = { name: '', pointer: false, dimensions: [] }

/** The type at the head of a member, and what follows it. */
function takeType(
  tokens: readonly Token[],
): { readonly type: TypeReference; readonly after: readonly Token[] } | undefined {
  const start = tokens.findIndex((token) => !isQualifier(token))
  const [first, second] = tokens.slice(Math.max(0, start))
  if (start < 0 || first?.kind !== 'word') return undefined
  if (first.text === 'struct' || first.text === 'union' || first.text === 'enum') {
    const close = closingBrace(tokens, start)
    if (close !== undefined) {
      const parsed = first.text === 'enum' ? undefined : parseBody(tokens.slice(start, close + 1))
      return parsed && { type: { kind: 'inline', body: parsed.body }, after: tokens.slice(close + 1) }
    }
    if (second?.kind !== 'word') return undefined
    return { type: { kind: 'tagged', of: first.text, tag: second.text }, after: tokens.slice(start + 2) }
  }
  let end = start + 1
  while (isTypeWord(first) && tokens[end] && isTypeWord(tokens[end] as Token)) end += 1
  return { type: { kind: 'plain', words: tokens.slice(start, end) }, after: tokens.slice(end) }
}

/** Index of the brace that closes a body which begins within the next two tokens. */
function closingBrace(tokens: readonly Token[], start: number): number | undefined {
  const open = tokens.findIndex((token, index) => index > start && isPunctuation(token, '{'))
  if (open < 0 || open > start + 2) return undefined
  let depth = 0
  for (let index = open; index < tokens.length; index += 1) {
    if (isPunctuation(tokens[index], '{')) depth += 1
    if (isPunctuation(tokens[index], '}')) depth -= 1
    if (depth === 0) return index
  }
  return undefined
}

/** `*name`, `name[4][]`, `name : 12`, `: 4`, `(*name)(int)`. */
function parseDeclarator(tokens: readonly Token[]): Declarator | Unknown {
  const bad = { unknown: `${tokenText(tokens)}: this declarator is not understood` }
  const name = tokens.find(({ kind, text }) => kind === 'word' && text !== 'const')
  const colon = tokens.findIndex((token) => isPunctuation(token, ':'))
  if (colon >= 0) {
    if (colon > 1 || (colon === 1 && tokens[0] !== name)) return bad
    return { ...NAMELESS, name: colon === 0 ? '' : (name as Token).text, width: tokens.slice(colon + 1) }
  }
  if (!name) return bad
  const pointer = tokens.slice(0, tokens.indexOf(name)).some((token) => isPunctuation(token, '*'))
  const behind = tokens.slice(tokens.indexOf(name) + 1)
  if (isPunctuation(tokens[0], '(')) {
    return pointer && isPunctuation(behind[0], ')') ? { ...NAMELESS, name: name.text, pointer } : bad
  }
  const dimensions = parseDimensions(behind)
  return dimensions ? { name: name.text, pointer, dimensions } : bad
}

/** `[a][b]`, and nothing else. */
function parseDimensions(tokens: readonly Token[]): readonly (readonly Token[])[] | undefined {
  const dimensions: (readonly Token[])[] = []
  for (let at = 0; at < tokens.length; ) {
    const close = tokens.findIndex((token, index) => index > at && isPunctuation(token, ']'))
    if (!isPunctuation(tokens[at], '[') || close < 0) return undefined
    dimensions.push(tokens.slice(at + 1, close))
    at = close + 1
  }
  return dimensions
}
