/**
 * Parser for the subset of C in which the ABI headers of the kernel (include/linux/kho/abi/*.h) are
 * written: macros, enumerations, structs with their attributes, assertions, comments.
 *
 * What it does not understand is listed with its line, never passed over. Function prototypes and bodies
 * are no data and left out. Conditions (`#ifdef CONFIG_…`) do not choose: everything is read, and says
 * under which condition it stands.
 */
import { isPunctuation, parseBody, type StructBody, splitAt } from './c-member.ts'
import { type Comment, type Token, tokenize, tokenText } from './c-tokens.ts'

export interface KernelHeader {
  readonly path: string
  readonly defines: readonly Define[]
  readonly structs: readonly StructDeclaration[]
  readonly enumerators: readonly Enumerator[]
  readonly typedefs: readonly Typedef[]
  readonly asserts: readonly Assertion[]
  /** Paths between the brackets or quotes. */
  readonly includes: readonly string[]
  readonly comments: readonly Comment[]
  readonly unparsed: readonly Unparsed[]
}

interface Placed {
  readonly line: number
  /** `#if` lines around it, the include guard left out. */
  readonly condition?: string
  /** Text of the comment right above it. */
  readonly comment?: string
}

export interface Define extends Placed {
  readonly name: string
  /** Of a function-like macro. */
  readonly parameters?: readonly string[]
  readonly body: readonly Token[]
}

export interface Enumerator extends Placed {
  readonly name: string
  /** Its expression; without one it is `after` plus one. */
  readonly value?: readonly Token[]
  /** The enumerator before it. */
  readonly after?: string
}

export interface Typedef extends Placed {
  readonly name: string
  readonly type: readonly Token[]
}

export interface Assertion extends Placed {
  /** The expression that must not be 0. */
  readonly claim: readonly Token[]
}

export interface Unparsed {
  readonly line: number
  readonly text: string
  readonly why: string
}

export interface StructDeclaration extends Placed {
  readonly tag: string
  readonly body: StructBody
}

/** Parses a header. Any text gives a result. */
export function parseHeader(path: string, source: string): KernelHeader {
  const { tokens, comments } = tokenize(source)
  const parser = new HeaderParser(tokens, comments)
  parser.run()
  const { defines, structs, enumerators, typedefs, asserts, includes, unparsed } = parser
  return { path, defines, structs, enumerators, typedefs, asserts, includes, comments, unparsed }
}

const TYPE_HEADS: ReadonlySet<string> = new Set(['struct', 'union', 'enum', 'typedef'])
const ASSERTIONS: ReadonlySet<string> = new Set(['static_assert', '_Static_assert'])
/** Lines of a construct that is quoted in a message. */
const QUOTED = 80

class HeaderParser {
  readonly defines: Define[] = []
  readonly structs: StructDeclaration[] = []
  readonly enumerators: Enumerator[] = []
  readonly typedefs: Typedef[] = []
  readonly asserts: Assertion[] = []
  readonly includes: string[] = []
  readonly unparsed: Unparsed[] = []
  readonly #tokens: readonly Token[]
  readonly #comments: readonly Comment[]
  /** Open `#if` lines; undefined stands for the include guard. */
  readonly #conditions: (string | undefined)[] = []
  #at = 0

  constructor(tokens: readonly Token[], comments: readonly Comment[]) {
    this.#tokens = tokens
    this.#comments = comments
  }

  run(): void {
    while (this.#at < this.#tokens.length) {
      const token = this.#tokens[this.#at] as Token
      if (token.kind === 'directive') {
        this.#at += 1
        this.#directive(token)
      } else this.#statement(token)
    }
  }

  #directive(token: Token): void {
    const rest = token.rest ?? []
    switch (token.text) {
      case 'define':
        this.#define(token, rest)
        return
      case 'include':
        this.includes.push(tokenText(rest).replace(/[<>"\s]/g, ''))
        return
      case 'ifdef':
      case 'ifndef':
      case 'if':
        this.#open(token, rest)
        return
      case 'elif':
      case 'else':
        this.#conditions.push(alternative(this.#conditions.pop(), tokenText(rest)))
        return
      case 'endif':
        this.#conditions.pop()
        return
      case 'undef':
      case 'pragma':
        this.#refuse(token.line, `#${token.text} ${tokenText(rest)}`, 'changes what comes after it')
        return
      default:
        if (token.text !== '') this.#refuse(token.line, `#${token.text}`, 'unknown directive')
    }
  }

  /** `#ifndef NAME` followed by `#define NAME` is the include guard, not a condition. */
  #open(token: Token, rest: readonly Token[]): void {
    const next = this.#tokens[this.#at]
    const guard = token.text === 'ifndef' && next?.text === 'define' && next.rest?.[0]?.text === rest[0]?.text
    const negated = token.text === 'ifndef' ? 'not ' : ''
    this.#conditions.push(guard ? undefined : `${negated}${tokenText(rest)}`)
  }

  #define(token: Token, rest: readonly Token[]): void {
    const [name, open] = rest
    if (name?.kind !== 'word') {
      this.#refuse(token.line, `#define ${tokenText(rest)}`, 'a macro without a name')
      return
    }
    const functionLike = open?.kind === 'punctuation' && open.text === '(' && open.glued
    const close = functionLike
      ? rest.findIndex(({ text, kind }) => text === ')' && kind === 'punctuation')
      : 0
    const parameters = rest.slice(2, close).filter(({ kind }) => kind === 'word')
    this.defines.push({
      name: name.text,
      ...(functionLike ? { parameters: parameters.map(({ text }) => text) } : {}),
      body: rest.slice(close + 1),
      ...this.#place(token),
    })
  }

  #statement(first: Token): void {
    const start = this.#at
    const statement = this.#takeStatement()
    const words = statement.filter(({ kind }) => kind !== 'directive')
    const place = this.#place(first)
    if (words.length === 0) return
    if (ASSERTIONS.has(first.text)) {
      this.asserts.push({ claim: firstArgument(words), ...place })
    } else if (first.text === 'typedef') this.#typedef(words, place)
    else if (first.text === 'enum' && words.some(isOpenBrace)) this.#enum(words, place)
    else if ((first.text === 'struct' || first.text === 'union') && words.some(isOpenBrace)) {
      this.#struct(this.#tokens.slice(start, this.#at), place)
    } else if (!isForward(words) && !isFunction(words)) {
      this.#refuse(
        first.line,
        tokenText(words),
        'is neither a struct, an enumeration, an assertion nor a function',
      )
    }
  }

  /** Tokens up to the semicolon that ends a statement, or the brace that ends a function. */
  #takeStatement(): readonly Token[] {
    const start = this.#at
    let depth = 0
    while (this.#at < this.#tokens.length) {
      const token = this.#tokens[this.#at] as Token
      if (token.kind === 'directive' && depth === 0) break
      this.#at += 1
      if (token.kind !== 'punctuation') continue
      if (token.text === '{' || token.text === '(') depth += 1
      if (token.text === '}' || token.text === ')') depth -= 1
      const ends = token.text === ';' || (token.text === '}' && this.#endsFunction(start))
      if (depth <= 0 && ends) break
    }
    return this.#tokens.slice(start, this.#at)
  }

  /** A closing brace ends a statement if what it closes is a function's body. */
  #endsFunction(start: number): boolean {
    const head = this.#tokens.slice(start, this.#at)
    const brace = head.findIndex(isOpenBrace)
    return isPunctuation(head[brace - 1], ')') && !TYPE_HEADS.has(head[0]?.text ?? '')
  }

  #typedef(words: readonly Token[], place: Placed): void {
    const name = words.findLast(({ kind }) => kind === 'word')
    const type = words.slice(1, words.indexOf(name as Token))
    if (!name || words.some(isOpenBrace) || type.length === 0 || isFunction(words)) {
      this.#refuse(place.line, tokenText(words), 'this form of typedef is not understood')
    } else this.typedefs.push({ name: name.text, type, ...place })
  }

  #enum(words: readonly Token[], place: Placed): void {
    const open = words.findIndex(isOpenBrace)
    const close = words.findLastIndex(({ text }) => text === '}')
    let after: string | undefined
    for (const entry of splitAt(words.slice(open + 1, close), ',')) {
      const [name, equals, ...value] = entry
      if (!name) continue
      const plain = equals === undefined
      if (name.kind !== 'word' || (!plain && equals.text !== '=')) {
        this.#refuse(name.line, tokenText(entry), 'is no enumerator')
        continue
      }
      this.enumerators.push({
        name: name.text,
        ...(plain ? {} : { value }),
        ...(after === undefined ? {} : { after }),
        line: name.line,
        ...(place.condition === undefined ? {} : { condition: place.condition }),
      })
      after = name.text
    }
  }

  #struct(tokens: readonly Token[], place: Placed): void {
    const parsed = parseBody(tokens.slice(0, -1))
    if (parsed && parsed.tag !== '') this.structs.push({ tag: parsed.tag, body: parsed.body, ...place })
    else this.#refuse(place.line, tokenText(tokens), 'this form of struct is not understood')
  }

  #refuse(line: number, text: string, why: string): void {
    this.unparsed.push({ line, text: text.length > QUOTED ? `${text.slice(0, QUOTED)}…` : text, why })
  }

  #place(token: Token): Placed {
    const conditions = this.#conditions.filter((condition) => condition !== undefined)
    const above = this.#comments.find(({ endLine }) => endLine === token.line - 1)
    return {
      line: token.line,
      ...(conditions.length > 0 ? { condition: conditions.join(' and ') } : {}),
      ...(above ? { comment: above.text } : {}),
    }
  }
}

function alternative(condition: string | undefined, other: string): string {
  const none = condition === undefined ? 'otherwise' : `not (${condition})`
  return other === '' ? none : `${none} and ${other}`
}

function isOpenBrace(token: Token): boolean {
  return isPunctuation(token, '{')
}

/** `struct name;` */
function isForward(words: readonly Token[]): boolean {
  return (
    words.length === 3 &&
    (words[0]?.text === 'struct' || words[0]?.text === 'union') &&
    words[2]?.text === ';'
  )
}

/** Something with a parenthesis behind a name: a prototype or a function. */
function isFunction(words: readonly Token[]): boolean {
  const open = words.findIndex(({ kind, text }) => kind === 'punctuation' && text === '(')
  return (
    open > 1 &&
    words[open - 1]?.kind === 'word' &&
    words.slice(0, open).every(({ kind, text }) => kind === 'word' || text === '*')
  )
}

/** Tokens of the first argument of a call. */
function firstArgument(words: readonly Token[]): readonly Token[] {
  const open = words.findIndex(({ text }) => text === '(')
  const close = words.findLastIndex(({ text }) => text === ')')
  return splitAt(words.slice(open + 1, close), ',')[0] ?? []
}
