/**
 * Layout of structs that were parsed from headers, by C's rules for x86_64 and arm64 (LP64, little
 * endian, GCC's bit fields), for one page size.
 *
 * What cannot be laid out gives the reason: a type that no header of the tree declares, a macro that is
 * not known, a condition between the members.
 */
import type { PageSize } from '../abi/layout.ts'
import { type Evaluated, evaluate, type Scope, splitArguments, substitute } from './c-expression.ts'
import {
  type Declarator,
  isPunctuation,
  isUnknown,
  parseMember,
  type StructBody,
  splitAt,
  type TypeReference,
  type Unknown,
} from './c-member.ts'
import { type Token, tokenText } from './c-tokens.ts'
import {
  ENUM_TYPE,
  foreignMacros,
  intrinsics,
  type Macro,
  pageConstant,
  plainType,
  type SizedType,
  type TypeSize,
  WORD_TYPE,
} from './c-types.ts'
import type { Enumerator, KernelHeader, StructDeclaration, Typedef } from './kernel-header.ts'
import type { MeasuredMember, MeasuredStruct } from './measured-struct.ts'

/** One declarator, before it has a place. */
interface Field extends SizedType {
  readonly name: string
  readonly bits?: number
  readonly packed: boolean
  readonly count?: number
  /** Members of an anonymous struct or union. */
  readonly inner?: readonly MeasuredMember[]
}

interface LaidOut extends TypeSize {
  readonly members: readonly MeasuredMember[]
}

const MAX_NESTING = 16
const MAX_MEMBERS = 4096
/** Characters of a text with what it names put in. */
const MAX_TEXT = 10_000
/** No struct's size comes near. */
const MAX_BYTES = 2 ** 32

/** Everything that the headers of a tree define, seen with one page size. */
export class Definitions implements Scope {
  readonly #pageSize: PageSize
  readonly #defines = new Map<string, Macro>()
  readonly #enumerators = new Map<string, Enumerator>()
  readonly #structs = new Map<string, StructDeclaration>()
  readonly #typedefs = new Map<string, Typedef>()
  readonly #laidOut = new Map<string, LaidOut | Unknown>()
  readonly #texts = new Map<string, string>()
  #nesting = 0

  /**
   * What `headers` define counts first, then the macros that are known here, then what the headers that
   * they include define. Among several the first one counts.
   */
  constructor(headers: readonly KernelHeader[], included: readonly KernelHeader[], pageSize: PageSize) {
    this.#pageSize = pageSize
    for (const header of [...headers, ...included].toReversed()) {
      for (const one of header.enumerators.toReversed()) this.#enumerators.set(one.name, one)
      for (const one of header.structs.toReversed()) this.#structs.set(one.tag, one)
      for (const one of header.typedefs.toReversed()) this.#typedefs.set(one.name, one)
    }
    for (const define of included.flatMap(({ defines }) => defines).toReversed())
      this.#defines.set(define.name, define)
    for (const [name, macro] of foreignMacros) this.#defines.set(name, macro)
    for (const define of headers.flatMap(({ defines }) => defines).toReversed())
      this.#defines.set(define.name, define)
  }

  constant(name: string): readonly Token[] | bigint | undefined {
    const page = pageConstant(name, this.#pageSize)
    if (page !== undefined) return page
    const define = this.#defines.get(name)
    if (define && !define.parameters) return define.body
    const enumerator = this.#enumerators.get(name)
    if (!enumerator) return undefined
    if (enumerator.value) return enumerator.value
    return this.#following(enumerator.after)
  }

  /** An enumerator without a value: one more than the one before it. */
  #following(after: string | undefined): bigint | undefined {
    let steps = 0n
    for (let name = after; name !== undefined; steps += 1n) {
      const before = this.#enumerators.get(name)
      if (!before) return undefined
      if (before.value) {
        const value = this.evaluate(before.value)
        return 'value' in value ? value.value + steps + 1n : undefined
      }
      name = before.after
    }
    return steps
  }

  macro(name: string): { parameters: readonly string[]; body: readonly Token[] } | undefined {
    const define = this.#defines.get(name)
    return define?.parameters && { parameters: define.parameters, body: define.body }
  }

  intrinsic(name: string): ((value: bigint) => bigint | undefined) | undefined {
    return intrinsics.get(name)
  }

  /** Bytes of a type, of a string, or of a macro that is a string. */
  sizeOf(type: readonly Token[]): bigint | undefined {
    const [first, second] = type
    if (first?.kind === 'string') return BigInt(new TextEncoder().encode(first.text).length + 1)
    const define = first?.kind === 'word' && second === undefined ? this.#defines.get(first.text) : undefined
    if (define?.body[0]?.kind === 'string') return this.sizeOf(define.body.slice(0, 1))
    const member = parseMember(type)
    if (isUnknown(member) || member.declarators.some(({ name }) => name !== '')) return pointerSize(type)
    const size = this.#typeOf(member.type)
    return isUnknown(size) ? undefined : BigInt(size.size)
  }

  /** Value of a macro or enumerator. */
  valueOf(name: string): Evaluated {
    return this.evaluate([{ kind: 'word', text: name, line: 0, glued: false }])
  }

  evaluate(tokens: readonly Token[]): Evaluated {
    return evaluate(tokens, this)
  }

  /** Tokens as text, each constant in them by its value, or by its own text where it has none. */
  textOf(tokens: readonly Token[]): string {
    const written = tokens.map((token) => (token.kind === 'word' ? this.#constantText(token) : token))
    const text = tokenText(written)
    return text.length > MAX_TEXT ? tokenText(tokens) : text
  }

  #constantText(token: Token): Token {
    const known = this.#texts.get(token.text)
    if (known !== undefined) return { ...token, text: known }
    // A macro may name itself.
    this.#texts.set(token.text, token.text)
    const text = this.#deeper(() => this.#valueText(token.text))
    if (typeof text === 'string') this.#texts.set(token.text, text)
    return typeof text === 'string' ? { ...token, text } : token
  }

  #valueText(name: string): string {
    const value = this.valueOf(name)
    if ('value' in value) return String(value.value)
    const constant = this.constant(name)
    if (constant !== undefined && typeof constant !== 'bigint') return this.textOf(constant)
    let first = this.#enumerators.get(name)
    let steps = 0
    for (; first?.after !== undefined && !first.value; steps += 1) first = this.#enumerators.get(first.after)
    return first?.value && steps > 0 ? `${this.textOf(first.value)} + ${steps}` : name
  }

  /** Layout of a struct by its tag. */
  layoutOf(tag: string): MeasuredStruct | Unknown {
    const laidOut = this.#layoutOfTag(tag)
    return isUnknown(laidOut) ? laidOut : { name: tag, size: laidOut.size, members: laidOut.members }
  }

  #layoutOfTag(tag: string): LaidOut | Unknown {
    const known = this.#laidOut.get(tag)
    if (known) return known
    const declaration = this.#structs.get(tag)
    if (!declaration) return { unknown: `struct ${tag} is not declared here` }
    this.#laidOut.set(tag, { unknown: `struct ${tag} contains itself` })
    const laidOut = this.#layOut(declaration.body)
    this.#laidOut.set(tag, laidOut)
    return laidOut
  }

  #layOut(body: StructBody): LaidOut | Unknown {
    const packed = hasAttribute(body.attributes, 'packed')
    const aligned = this.#aligned(body.attributes)
    if (isUnknown(aligned)) return aligned
    const fields = this.#deeper(() => body.members.flatMap((member) => this.#fieldsOf(member, packed)))
    if (isUnknown(fields)) return fields
    const problem = fields.find((field) => isUnknown(field))
    if (problem && isUnknown(problem)) return problem
    if (fields.length > MAX_MEMBERS) return { unknown: 'too many members' }
    return placeFields(fields as Field[], body.kind, Math.max(1, aligned.align))
  }

  #deeper<T>(work: () => T): T | Unknown {
    if (this.#nesting >= MAX_NESTING) return { unknown: 'nested too deep' }
    this.#nesting += 1
    const result = work()
    this.#nesting -= 1
    return result
  }

  /** The fields that one member declares, its macros expanded. */
  #fieldsOf(member: readonly Token[], packed: boolean): readonly (Field | Unknown)[] {
    const [first, second] = member
    const macro = first?.kind === 'word' && isPunctuation(second, '(') ? this.macro(first.text) : undefined
    if (macro) {
      const expanded = this.#deeper(() => expand(member, macro))
      if (!expanded || isUnknown(expanded)) return [{ unknown: `${tokenText(member)}: cannot be expanded` }]
      const members = splitAt(expanded, ';').filter((tokens) => tokens.length > 0)
      const fields = this.#deeper(() => members.flatMap((tokens) => this.#fieldsOf(tokens, packed)))
      return isUnknown(fields) ? [fields] : fields
    }
    if (first?.kind === 'word' && isPunctuation(second, '(') && !isPunctuation(member[2], '*')) {
      return [{ unknown: `${tokenText(member)}: no macro of that name is known here` }]
    }
    const parsed = parseMember(member)
    if (isUnknown(parsed)) return [parsed]
    // A pointer needs no layout of what it points to, and may point to what it is part of.
    const onlyPointers = parsed.declarators.every(({ pointer }) => pointer)
    const pointer = { ...WORD_TYPE, type: `${typeText(parsed.type)} *` }
    const type = onlyPointers ? pointer : this.#typeOf(parsed.type)
    if (isUnknown(type)) return [type]
    const aligned = this.#aligned(parsed.attributes)
    if (isUnknown(aligned)) return [aligned]
    const tight = packed || hasAttribute(parsed.attributes, 'packed')
    return parsed.declarators.map((declarator) => {
      const field = this.#field(declarator.pointer ? pointer : type, declarator, tight)
      if (isUnknown(field)) return field
      return { ...field, align: Math.max(tight ? 1 : field.align, aligned.align) }
    })
  }

  #field(
    { size, align, type, inner }: SizedType & { inner?: readonly MeasuredMember[] },
    declarator: Declarator,
    packed: boolean,
  ): Field | Unknown {
    const { name, width, dimensions } = declarator
    const whole = { name, size, align, type, packed }
    if (width) {
      const bits = this.evaluate(width)
      if ('unknown' in bits) return bits
      if (bits.value < 0n || bits.value > BigInt(8 * size))
        return { unknown: `${name}: ${bits.value} bits do not fit` }
      return { ...whole, bits: Number(bits.value) }
    }
    if (name === '') return inner ? { ...whole, inner } : { unknown: 'a member without a name' }
    if (dimensions.length === 0) return whole
    const counts = dimensions.map((expression) =>
      expression.length === 0 ? { value: 0n } : this.evaluate(expression),
    )
    const problem = counts.find((count) => 'unknown' in count)
    if (problem && 'unknown' in problem) return problem
    const count = counts.reduce((product, one) => product * Number('value' in one ? one.value : 0n), 1)
    if (!(count >= 0 && size * count < MAX_BYTES))
      return { unknown: `${name}: an array of ${count} elements` }
    return { ...whole, size: size * count, count }
  }

  #typeOf(type: TypeReference): (SizedType & { inner?: readonly MeasuredMember[] }) | Unknown {
    switch (type.kind) {
      case 'inline': {
        const laidOut = this.#layOut(type.body)
        if (isUnknown(laidOut)) return laidOut
        const { size, align, members } = laidOut
        return { size, align, type: inlineText(type.body.kind, members), inner: members }
      }
      case 'tagged': {
        const size = type.of === 'enum' ? ENUM_TYPE : this.#layoutOfTag(type.tag)
        return isUnknown(size) ? size : { size: size.size, align: size.align, type: typeText(type) }
      }
      case 'plain':
        return plainType(type.words.map(({ text }) => text)) ?? this.#typedefOf(type.words)
    }
  }

  #typedefOf(words: readonly Token[]): SizedType | Unknown {
    const unknown = { unknown: `the type ${tokenText(words)} is not known here` }
    const typedef = words.length === 1 ? this.#typedefs.get((words[0] as Token).text) : undefined
    const member = typedef ? parseMember(typedef.type) : unknown
    return isUnknown(member) ? unknown : this.#deeper(() => this.#typeOf(member.type))
  }

  /** What `__aligned(n)` or `__attribute__((aligned(n)))` asks for; 0 if nothing. */
  #aligned(attributes: readonly Token[]): { readonly align: number } | Unknown {
    const at = attributes.findIndex(({ text }) => isAttributeName(text, 'aligned'))
    if (at < 0) return { align: 0 }
    const close = attributes.findIndex((token, index) => index > at && isPunctuation(token, ')'))
    const value = this.evaluate(attributes.slice(at + 2, close))
    if ('unknown' in value) return value
    const align = Number(value.value)
    return Number.isInteger(Math.log2(align)) && align <= MAX_BYTES
      ? { align }
      : { unknown: `aligned(${align})` }
  }
}

/** A type by its name. */
function typeText(type: TypeReference): string {
  switch (type.kind) {
    case 'inline':
      return type.body.kind
    case 'tagged':
      return `${type.of} ${type.tag}`
    case 'plain':
      return tokenText(type.words)
  }
}

/** A type without a name, by its members. */
function inlineText(kind: string, members: readonly MeasuredMember[]): string {
  const texts = members.map(({ name, type, count, bits, bitField }) => {
    const length = bitField ? `:${bits}` : count === undefined ? '' : `[${count}]`
    return `${type} ${name}${length};`
  })
  return `${kind} { ${texts.join(' ')} }`
}

/** `sizeof(struct x *)` and the like. */
function pointerSize(type: readonly Token[]): bigint | undefined {
  const star = type.findIndex((token) => isPunctuation(token, '*'))
  const words = star > 0 && type.slice(0, star).every(({ kind }) => kind === 'word')
  return words && type.slice(star).every((token) => isPunctuation(token, '*'))
    ? BigInt(WORD_TYPE.size)
    : undefined
}

function isAttributeName(text: string, name: string): boolean {
  return text === name || text === `__${name}` || text === `__${name}__`
}

function hasAttribute(attributes: readonly Token[], name: string): boolean {
  return attributes.some(({ text }) => isAttributeName(text, name))
}

/** A member that is a macro call, with the macro's body in its place. */
function expand(
  call: readonly Token[],
  { parameters, body }: { parameters: readonly string[]; body: readonly Token[] },
): readonly Token[] | undefined {
  const close = call.findLastIndex((token) => isPunctuation(token, ')'))
  const given = splitArguments(call.slice(2, close))
  const expanded =
    close >= 0 && given.length === parameters.length ? substitute(body, parameters, given) : undefined
  return expanded && [...expanded, ...call.slice(close + 1)]
}

/** Gives fields their places: one after the other, or all at the start of a union. */
function placeFields(fields: readonly Field[], kind: 'struct' | 'union', minimumAlign: number): LaidOut {
  const members: MeasuredMember[] = []
  let endBit = 0
  let size = 0
  let align = minimumAlign
  for (const field of fields) {
    const start = kind === 'union' ? 0 : endBit
    const bitOffset = placeOf(field, start)
    const bits = field.bits ?? 8 * field.size
    const bitField = field.bits !== undefined
    if (field.inner) {
      for (const member of field.inner) members.push({ ...member, bitOffset: member.bitOffset + bitOffset })
    } else if (field.name !== '') {
      const count = field.count === undefined ? {} : { count: field.count }
      members.push({ name: field.name, bitOffset, bits, bitField, type: field.type, ...count })
    }
    // An unnamed bit field does not raise the alignment of the whole.
    if (!bitField || field.name !== '') align = Math.max(align, field.align)
    endBit = bitOffset + bits
    size = Math.max(size, Math.ceil(endBit / 8))
  }
  return { size: Math.ceil(size / align) * align, align, members }
}

/** The first bit of a field that may begin at `start`; a bit field may not cross its type's boundary unless packed. */
function placeOf({ bits, size, align, packed }: Field, start: number): number {
  const alignedTo = (unit: number): number => Math.ceil(start / unit) * unit
  if (bits === undefined) return alignedTo(8 * align)
  if (bits === 0) return alignedTo(8 * size)
  const crosses = Math.floor(start / (8 * size)) !== Math.floor((start + bits - 1) / (8 * size))
  return !packed && crosses ? alignedTo(8 * size) : start
}
