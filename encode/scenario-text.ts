/**
 * A scenario's text: YAML 1.2, of which JSON is a part, as plain values, and where in the text each
 * value stands. Integers are exact: bigint, never a double.
 */
import type { Document, LineCounter, Node, Pair, YAMLParseError, YAMLWarning } from 'yaml'
import { formatPath, type Path } from '../abi/fault.ts'

/** What is wrong with a scenario, where, and what would be right. */
export interface ScenarioProblem {
  /** Both count from 1. */
  readonly line: number
  readonly column: number
  /** `sessions[1].files[0].memfd.size`; empty for the text as a whole. */
  readonly path: string
  readonly message: string
  /** The version that is asked for has no such thing at all; in another one the scenario may be right. */
  readonly absent: boolean
}

/** Maps are Map, integers bigint. */
export interface ScenarioText {
  readonly value: unknown
  /** Where a value or a key stands; that of the nearest value around it if there is none. */
  readonly placeOf: (path: Path, what: 'key' | 'value') => { readonly line: number; readonly column: number }
}

/** A text longer than this is not written by hand. */
const MAX_TEXT = 64 * 1024 * 1024
/** No verb of a step is longer. */
const MAX_WORD = 40
/** Nobody indents a step further. */
const MAX_INDENT = 200
/** Aliases may repeat this many nodes in all. */
const MAX_ALIASED = 100_000

export async function parseScenarioText(
  text: string,
): Promise<{ readonly text: ScenarioText } | { readonly problems: readonly ScenarioProblem[] }> {
  if (text.length > MAX_TEXT) {
    return { problems: [syntaxProblem({ line: 1, column: 1 }, `more than ${MAX_TEXT} characters`)] }
  }
  const yaml = await import('yaml')
  const lines = new yaml.LineCounter()
  try {
    const document = yaml.parseDocument(text, { intAsBigInt: true, lineCounter: lines, prettyErrors: false })
    const wrong = [...document.errors, ...document.warnings]
    if (wrong.length > 0) {
      const problems = wrong.map((error) =>
        syntaxProblem(placeAt(lines, error.pos[0]), messageOf(error, text)),
      )
      return { problems }
    }
    const value = document.toJS({ mapAsMap: true, maxAliasCount: MAX_ALIASED })
    const finder = new NodeFinder(yaml, document)
    return {
      text: { value, placeOf: (path, what) => placeAt(lines, finder.offsetOf(path, what)) },
    }
  } catch (error) {
    // Nesting deeper than the stack and bombs of aliases end up here.
    return { problems: [syntaxProblem({ line: 1, column: 1 }, (error as Error).message)] }
  }
}

/** In the terms of a scenario where the library speaks of its own functions, and with what is easily forgotten. */
function messageOf({ code, message, pos }: YAMLParseError | YAMLWarning, text: string): string {
  if (code === 'MULTIPLE_DOCS') return 'expected one document, found a second one'
  const word = code === 'MULTILINE_IMPLICIT_KEY' ? loneWord(text, pos[0]) : undefined
  return word === undefined ? message : `${message}; a key with others below it needs a colon: '- ${word}:'`
}

/** A word that is all there is on its line, as an item of a list. */
function loneWord(text: string, offset: number): string | undefined {
  const isItem = /(?:^|\n)[ -]*- +$/.test(text.slice(Math.max(0, offset - MAX_INDENT), offset))
  return isItem ? /^\w+(?=\r?\n)/.exec(text.slice(offset, offset + MAX_WORD))?.[0] : undefined
}

function placeAt(lines: LineCounter, offset: number): { readonly line: number; readonly column: number } {
  const { line, col } = lines.linePos(offset)
  return { line: Math.max(1, line), column: Math.max(1, col) }
}

function syntaxProblem(
  place: { readonly line: number; readonly column: number },
  message: string,
): ScenarioProblem {
  return { ...place, path: '', message, absent: false }
}

class NodeFinder {
  readonly #yaml: typeof import('yaml')
  readonly #document: Document

  constructor(yaml: typeof import('yaml'), document: Document) {
    this.#yaml = yaml
    this.#document = document
  }

  offsetOf(path: Path, what: 'key' | 'value'): number {
    let node: unknown = this.#document.contents
    let offset = this.#start(node) ?? 0
    for (const [depth, segment] of path.entries()) {
      const isLast = depth === path.length - 1
      const resolved = this.#yaml.isAlias(node) ? node.resolve(this.#document) : node
      if (typeof segment === 'string') {
        const pair = this.#pair(resolved, segment)
        if (!pair) return offset
        node = isLast && what === 'key' ? pair.key : (pair.value ?? pair.key)
      } else {
        if (!this.#yaml.isSeq(resolved)) return offset
        node = resolved.items[segment.index]
      }
      offset = this.#start(node) ?? offset
    }
    return offset
  }

  #pair(node: unknown, key: string): Pair | undefined {
    if (!this.#yaml.isMap(node)) return undefined
    return node.items.find((pair) => String((pair.key as { value?: unknown } | null)?.value) === key)
  }

  #start(node: unknown): number | undefined {
    return this.#yaml.isNode(node) ? (node as Node).range?.[0] : undefined
  }
}

/** Collects what is wrong while a scenario is read, by path; places are looked up at the end. */
export class ScenarioReport {
  readonly #found: { path: Path; what: 'key' | 'value'; message: string; absent: boolean }[] = []

  get empty(): boolean {
    return this.#found.length === 0
  }

  /** A value is wrong, or one below it is missing. */
  wrong(path: Path, message: string): undefined {
    this.#found.push({ path, what: 'value', message, absent: false })
  }

  wrongKey(path: Path, message: string): undefined {
    this.#found.push({ path, what: 'key', message, absent: false })
  }

  /** The version that the scenario is for does not have what it asks for. */
  absent(path: Path, message: string): undefined {
    this.#found.push({ path, what: 'key', message, absent: true })
  }

  /** In the order of the text. */
  problems({ placeOf }: ScenarioText): readonly ScenarioProblem[] {
    const placed = this.#found.map(({ path, what, message, absent }) => ({
      ...placeOf(path, what),
      path: formatPath(path),
      message,
      absent,
    }))
    return placed.sort((a, b) => a.line - b.line || a.column - b.column)
  }
}

/** One line: `scenario.yaml:12:9: sessions[1].name: …`. */
export function formatScenarioProblem(
  file: string,
  { line, column, path, message }: ScenarioProblem,
): string {
  return `${file}:${line}:${column}: ${path === '' ? '' : `${path}: `}${message}`
}
