/**
 * Integer constant expressions of C, as the ABI headers use them for array lengths, limits and enum
 * values. Names, macros and sizes of types come from a scope, so that one expression can be evaluated
 * for several page sizes.
 *
 * Arithmetic is exact instead of 64-bit wide; nothing in these headers relies on the difference.
 */
import type { Token } from './c-tokens.ts'
import { tokenText } from './c-tokens.ts'

/** Where names come from. Each gives undefined for what it does not know. */
export interface Scope {
  /** The tokens that a constant or object-like macro stands for, or its value. */
  constant(name: string): readonly Token[] | bigint | undefined
  /** Parameters and body of a function-like macro. */
  macro(name: string): { readonly parameters: readonly string[]; readonly body: readonly Token[] } | undefined
  /** A function of one number that no macro text could compute here. */
  intrinsic(name: string): ((value: bigint) => bigint | undefined) | undefined
  /** Bytes of a type, given by the tokens between the parentheses of `sizeof`. */
  sizeOf(type: readonly Token[]): bigint | undefined
}

/** A value, or why there is none. */
export type Evaluated = { readonly value: bigint } | { readonly unknown: string }

/** Macros, parentheses and operators inside each other. */
const MAX_DEPTH = 64
/** Tokens looked at for one expression, those of macros counted at each use. */
const MAX_STEPS = 100_000
const MAX_SHIFT = 1024n
const MAX_BITS = 4096

/** What an evaluation has cost so far, shared by the expressions nested in it. */
interface Effort {
  depth: number
  steps: number
}

/** Evaluates tokens as one expression. Never throws; what would take too long is unknown. */
export function evaluate(
  tokens: readonly Token[],
  scope: Scope,
  effort: Effort = { depth: 0, steps: 0 },
): Evaluated {
  const parser = new Parser(tokens, scope, effort)
  const value = parser.conditional()
  if (parser.problem !== undefined) return { unknown: parser.problem }
  if (!parser.atEnd) return { unknown: `${tokenText(tokens)}: cannot be evaluated` }
  return { value }
}

type Binary = (a: bigint, b: bigint) => bigint | undefined

const truth = (condition: boolean): bigint => (condition ? 1n : 0n)

/** Binary operators by precedence, loosest first. */
const LEVELS: readonly Readonly<Record<string, Binary>>[] = [
  { '||': (a, b) => truth(a !== 0n || b !== 0n) },
  { '&&': (a, b) => truth(a !== 0n && b !== 0n) },
  { '|': (a, b) => a | b },
  { '^': (a, b) => a ^ b },
  { '&': (a, b) => a & b },
  { '==': (a, b) => truth(a === b), '!=': (a, b) => truth(a !== b) },
  {
    '<': (a, b) => truth(a < b),
    '>': (a, b) => truth(a > b),
    '<=': (a, b) => truth(a <= b),
    '>=': (a, b) => truth(a >= b),
  },
  {
    '<<': (a, b) => (b < 0n || b > MAX_SHIFT ? undefined : a << b),
    '>>': (a, b) => (b < 0n || b > MAX_SHIFT ? undefined : a >> b),
  },
  { '+': (a, b) => a + b, '-': (a, b) => a - b },
  {
    '*': (a, b) => (a.toString(2).length + b.toString(2).length > MAX_BITS ? undefined : a * b),
    '/': (a, b) => (b === 0n ? undefined : a / b),
    '%': (a, b) => (b === 0n ? undefined : a % b),
  },
]

class Parser {
  problem: string | undefined
  readonly #tokens: readonly Token[]
  readonly #scope: Scope
  readonly #effort: Effort
  #at = 0

  constructor(tokens: readonly Token[], scope: Scope, effort: Effort) {
    this.#tokens = tokens
    this.#scope = scope
    this.#effort = effort
    effort.steps += tokens.length
    if (effort.steps > MAX_STEPS) this.problem = 'it takes too long to evaluate'
  }

  get atEnd(): boolean {
    return this.#at >= this.#tokens.length
  }

  conditional(): bigint {
    return this.#deeper(() => this.#choice())
  }

  #choice(): bigint {
    const condition = this.#binary(0)
    if (!this.#accept('?')) return condition
    const whenTrue = this.conditional()
    this.#expect(':')
    const whenFalse = this.conditional()
    return condition === 0n ? whenFalse : whenTrue
  }

  #binary(level: number): bigint {
    const operators = LEVELS[level]
    if (!operators) return this.#unary()
    let value = this.#binary(level + 1)
    for (let operator = this.#operator(operators); operator; operator = this.#operator(operators)) {
      const result = operator(value, this.#binary(level + 1))
      value = result ?? this.#fail('impossible division, shift or product')
    }
    return value
  }

  #operator(operators: Readonly<Record<string, Binary>>): Binary | undefined {
    const token = this.#tokens[this.#at]
    if (this.problem !== undefined || token?.kind !== 'punctuation') return undefined
    const operator = Object.hasOwn(operators, token.text) ? operators[token.text] : undefined
    if (operator) this.#at += 1
    return operator
  }

  #unary(): bigint {
    return this.#deeper(() => this.#signed())
  }

  #signed(): bigint {
    if (this.#accept('-')) return -this.#unary()
    if (this.#accept('+')) return this.#unary()
    if (this.#accept('~')) return ~this.#unary()
    if (this.#accept('!')) return truth(this.#unary() === 0n)
    return this.#primary()
  }

  #primary(): bigint {
    const token = this.#tokens[this.#at]
    this.#at += 1
    if (token?.kind === 'number') return this.#number(token.text)
    if (token?.kind === 'word') return token.text === 'sizeof' ? this.#sizeof() : this.#name(token.text)
    if (token?.text === '(' && token.kind === 'punctuation') return this.#parenthesis()
    return this.#fail(token ? `unexpected '${token.text}'` : 'it ends too early')
  }

  #number(text: string): bigint {
    const digits = /^(0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*$/.exec(text)?.[1]
    if (digits === undefined) return this.#fail(`'${text}' is no integer`)
    if (/^0[0-7]+$/.test(digits)) return BigInt(`0o${digits.slice(1)}`)
    return /^0[0-9]/.test(digits) ? this.#fail(`'${text}' is no integer`) : BigInt(digits)
  }

  /** A nested expression, or a cast: its type is taken off, it changes no value here. */
  #parenthesis(): bigint {
    const close = this.#closing(this.#at - 1)
    if (close === undefined) return this.#fail("missing ')'")
    const inner = this.#tokens.slice(this.#at, close)
    if (this.#scope.sizeOf(inner) !== undefined && this.#startsOperand(close + 1)) {
      this.#at = close + 1
      return this.#unary()
    }
    const value = this.conditional()
    this.#expect(')')
    return value
  }

  /** Keeps recursion within bounds. */
  #deeper(read: () => bigint): bigint {
    if (this.problem !== undefined) return 0n
    if (this.#effort.depth >= MAX_DEPTH) return this.#fail('it is nested too deep')
    this.#effort.depth += 1
    const value = read()
    this.#effort.depth -= 1
    return value
  }

  #startsOperand(at: number): boolean {
    const token = this.#tokens[at]
    return token !== undefined && (token.kind === 'number' || token.kind === 'word' || token.text === '(')
  }

  #sizeof(): bigint {
    const open = this.#at
    const close = this.#accept('(') ? this.#closing(open) : undefined
    if (close === undefined) return this.#fail("sizeof without '('")
    const operand = this.#tokens.slice(open + 1, close)
    this.#at = close + 1
    return this.#scope.sizeOf(operand) ?? this.#fail(`the size of ${tokenText(operand)} is not known`)
  }

  #name(name: string): bigint {
    if (this.#tokens[this.#at]?.text === '(') {
      const intrinsic = this.#scope.intrinsic(name)
      if (intrinsic) return intrinsic(this.#signed()) ?? this.#fail(`${name} of this value is not defined`)
      const macro = this.#scope.macro(name)
      if (macro) return this.#call(name, macro)
    }
    const constant = this.#scope.constant(name)
    if (constant === undefined) return this.#fail(`${name} is not known`)
    return typeof constant === 'bigint' ? constant : this.#nested(constant)
  }

  #call(name: string, macro: NonNullable<ReturnType<Scope['macro']>>): bigint {
    const close = this.#closing(this.#at)
    if (close === undefined) return this.#fail("missing ')'")
    const given = splitArguments(this.#tokens.slice(this.#at + 1, close))
    this.#at = close + 1
    if (given.length !== macro.parameters.length)
      return this.#fail(`${name} takes ${macro.parameters.length} arguments`)
    const body = substitute(macro.body, macro.parameters, given)
    return body ? this.#nested(body) : this.#fail(`${name} cannot be expanded`)
  }

  #nested(tokens: readonly Token[]): bigint {
    const result = evaluate(tokens, this.#scope, this.#effort)
    return 'value' in result ? result.value : this.#fail(result.unknown)
  }

  /** Index of the parenthesis that closes the one at `open`. */
  #closing(open: number): number | undefined {
    let depth = 0
    for (let index = open; index < this.#tokens.length; index += 1) {
      const { text, kind } = this.#tokens[index] as Token
      if (kind !== 'punctuation') continue
      if (text === '(') depth += 1
      if (text === ')') depth -= 1
      if (depth === 0) return index
    }
    return undefined
  }

  #accept(text: string): boolean {
    const token = this.#tokens[this.#at]
    const same = token?.kind === 'punctuation' && token.text === text
    if (same) this.#at += 1
    return same
  }

  #expect(text: string): void {
    if (!this.#accept(text)) this.#fail(`missing '${text}'`)
  }

  #fail(problem: string): bigint {
    this.problem ??= problem
    return 0n
  }
}

/** Arguments of a macro call, at the commas outside parentheses. */
export function splitArguments(tokens: readonly Token[]): readonly (readonly Token[])[] {
  const split: Token[][] = [[]]
  let depth = 0
  for (const token of tokens) {
    if (token.kind === 'punctuation' && token.text === ',' && depth === 0) {
      split.push([])
      continue
    }
    if (token.kind === 'punctuation' && token.text === '(') depth += 1
    if (token.kind === 'punctuation' && token.text === ')') depth -= 1
    ;(split.at(-1) as Token[]).push(token)
  }
  return split
}

/** Tokens that an expansion may grow to. */
const MAX_EXPANSION = 10_000

/** A macro's body with arguments for parameters; undefined where it pastes, or grows beyond reason. */
export function substitute(
  body: readonly Token[],
  parameters: readonly string[],
  given: readonly (readonly Token[])[],
): readonly Token[] | undefined {
  const expanded: Token[] = []
  for (const token of body) {
    if (token.kind === 'punctuation' && (token.text === '#' || token.text === '##')) return undefined
    const index = token.kind === 'word' ? parameters.indexOf(token.text) : -1
    if (index < 0) expanded.push(token)
    else expanded.push(...(given[index] ?? []))
    if (expanded.length > MAX_EXPANSION) return undefined
  }
  return expanded
}
