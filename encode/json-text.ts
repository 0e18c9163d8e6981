/** JSON laid out for people: what fits stands on one line. */
import type { Json } from './json-codec.ts'

const LINE_LENGTH = 100

/** Two spaces of indent; an object or list stands on one line if it fits. */
export function printJson(json: Json, indent = ''): string {
  if (typeof json !== 'object' || json === null) return JSON.stringify(json)
  const inner = `${indent}  `
  const isList = Array.isArray(json)
  const parts = isList
    ? json.map((element: Json) => printJson(element, inner))
    : Object.entries(json).map(([key, value]) => `${JSON.stringify(key)}: ${printJson(value, inner)}`)
  const [open, close] = isList ? ['[', ']'] : ['{', '}']
  if (parts.length === 0) return open + close
  const line = isList ? `[${parts.join(', ')}]` : `{ ${parts.join(', ')} }`
  if (indent.length + line.length <= LINE_LENGTH && !line.includes('\n')) return line
  return `${open}\n${parts.map((part) => inner + part).join(',\n')}\n${indent}${close}`
}
