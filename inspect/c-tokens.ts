/**
 * Tokens of C source: words, numbers, strings, punctuation, with the preprocessor's lines as tokens of
 * their own and the comments beside them, since comments of the ABI headers make promises, too.
 *
 * Not a preprocessor: nothing is expanded or left out here.
 */
export interface Token {
  readonly kind: 'word' | 'number' | 'string' | 'char' | 'punctuation' | 'directive'
  /** As in the source; of a string what it says, of a directive its name. */
  readonly text: string
  readonly line: number
  /** Nothing stands between it and the token before. */
  readonly glued: boolean
  /** What follows a directive's name on its line. */
  readonly rest?: readonly Token[]
}

export interface Comment {
  /** Without the marks, lines kept. */
  readonly text: string
  readonly line: number
  readonly endLine: number
}

export interface Tokens {
  readonly tokens: readonly Token[]
  readonly comments: readonly Comment[]
}

const PUNCTUATION =
  /(?:\.\.\.|<<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||##|[+\-*/%&|^]=|[[\](){}.&*+\-~!/%<>^|?:;=,#\\@$`])/y
const WORD = /[A-Za-z_][A-Za-z0-9_]*/y
const NUMBER = /(?:0[xX][0-9a-fA-F]+|[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?)[A-Za-z]*/y
const STRING = /"((?:[^"\\\n]|\\.)*)"/y
const CHAR = /'(?:[^'\\\n]|\\.)+'/y
const SPACE = /[ \t\r\f\v]+/y
const BLOCK_COMMENT = /\/\*([\s\S]*?)(?:\*\/|$)/y
const SPLICE = /\\\r?\n/y
const LINE_COMMENT = /\/\/([^\n]*)/y

/** Splits source into tokens. Any text gives some; what is no C is a token of one character. */
export function tokenize(source: string): Tokens {
  const reader = new Reader(source)
  const tokens: Token[] = []
  while (!reader.atEnd) {
    const token = reader.next()
    if (token) tokens.push(token)
  }
  return { tokens, comments: reader.comments }
}

class Reader {
  readonly comments: Comment[] = []
  readonly #source: string
  #at = 0
  #line = 1
  /** Nothing but space since the line began: `#` opens a directive. */
  #lineStart = true
  /** Where the last token ended. */
  #lastEnd = -1

  constructor(source: string) {
    this.#source = source
  }

  get atEnd(): boolean {
    return this.#at >= this.#source.length
  }

  /** The next token; undefined for space, comments and line ends. */
  next(): Token | undefined {
    const line = this.#line
    if (this.#skip()) return undefined
    const opensDirective = this.#lineStart && this.#source[this.#at] === '#'
    this.#lineStart = false
    if (opensDirective) return this.#directive(line)
    return this.#token(line)
  }

  /** Space, spliced lines and comments; whether there was any. */
  #skip(): boolean {
    if (this.#take(SPACE) !== undefined || this.#takeSplice()) return true
    if (this.#source[this.#at] === '\n') {
      this.#advance('\n')
      this.#lineStart = true
      return true
    }
    const line = this.#line
    const comment = this.#take(BLOCK_COMMENT, 1) ?? this.#take(LINE_COMMENT, 1)
    if (comment === undefined) return false
    this.comments.push({ text: comment, line, endLine: this.#line })
    return true
  }

  #directive(line: number): Token {
    this.#advance('#')
    const rest: Token[] = []
    while (!this.atEnd && this.#source[this.#at] !== '\n') {
      const at = this.#line
      if (this.#take(SPACE) !== undefined || this.#takeSplice()) continue
      if (this.#skip()) continue
      rest.push(this.#token(at))
    }
    const [name, ...operands] = rest
    return { kind: 'directive', text: name?.text ?? '', line, glued: false, rest: operands }
  }

  #token(line: number): Token {
    const glued = this.#at === this.#lastEnd
    const [kind, text] = this.#read()
    this.#lastEnd = this.#at
    return { kind, text, line, glued }
  }

  #read(): readonly [Token['kind'], string] {
    const word = this.#take(WORD)
    if (word !== undefined) return ['word', word]
    const number = this.#take(NUMBER)
    if (number !== undefined) return ['number', number]
    const string = this.#take(STRING, 1)
    if (string !== undefined) return ['string', string]
    const char = this.#take(CHAR)
    if (char !== undefined) return ['char', char]
    const punctuation = this.#take(PUNCTUATION)
    if (punctuation !== undefined) return ['punctuation', punctuation]
    const character = String.fromCodePoint(this.#source.codePointAt(this.#at) as number)
    this.#advance(character)
    return ['punctuation', character]
  }

  #takeSplice(): boolean {
    return this.#take(SPLICE) !== undefined
  }

  /** Matches at the current place; the group asked for, or all of the match. */
  #take(pattern: RegExp, group = 0): string | undefined {
    pattern.lastIndex = this.#at
    const match = pattern.exec(this.#source)
    if (!match) return undefined
    this.#advance(match[0])
    return match[group] ?? ''
  }

  #advance(text: string): void {
    this.#at += text.length
    for (const character of text) if (character === '\n') this.#line += 1
  }
}

/** The source text of tokens, near enough for a message. */
export function tokenText(tokens: readonly Token[]): string {
  return tokens
    .map((token) => {
      if (token.kind === 'string') return `"${token.text}"`
      return token.kind === 'directive' ? `#${token.text}` : token.text
    })
    .join(' ')
    .replace(/ ?([[\](;,)]) ?/g, '$1')
    .replace(/,/g, ', ')
}
