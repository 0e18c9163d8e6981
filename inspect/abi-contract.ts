/**
 * Contracts against each other: whether a reader that demands one takes what a writer of the other states.
 *
 * A list states several versions at once, as a device tree's `compatible` may, and a reader with a list
 * takes any of them; the other shapes are taken as a whole. A reader without a contract takes anything.
 */
import type { Contract } from '../abi/registry.ts'

/** Whether a reader with contract `reader` takes what a writer with contract `writer` left. */
export function accepts(reader: Contract, writer: Contract): boolean {
  if (reader.kind === 'none') return true
  if (reader.kind === 'integer' || writer.kind === 'integer') {
    if (reader.kind !== 'integer' || writer.kind !== 'integer') return false
    return reader.name === writer.name && reader.value === writer.value
  }
  return statements(writer).some((stated) => statements(reader).includes(stated))
}

/** The texts that a contract states or takes. */
function statements(contract: Contract): readonly string[] {
  switch (contract.kind) {
    case 'string':
      return [contract.value]
    case 'composite':
      return [contract.parts.join(';')]
    case 'list':
      return contract.values
    default:
      return []
  }
}
