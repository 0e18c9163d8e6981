/**
 * A Kaitai Struct specification (.ksy) out of the declarations: one type for each struct of a version.
 *
 * Physical addresses stay numbers, since a stream of bytes has no physical memory to follow them in. Bit
 * fields above 32 bits are read in two halves, because Kaitai's JavaScript runtime reads no wider ones.
 * JavaScript parsers made of it round 64-bit values above 2^53; that is Kaitai's choice.
 */
import { PAGE_SIZES } from '../abi/layout.ts'
import { formatContract } from '../abi/registry.ts'
import type { MemberDescription, PartDescription, VersionDescription } from './abi-document.ts'
import { meaning } from './abi-show.ts'
import { forPage } from './per-page.ts'

/** A specification as YAML. A version whose root is a device tree node gives types without a sequence. */
export function exportKsy(version: VersionDescription): string {
  const structs = Object.entries(version.parts).filter(([, { kind }]) => kind === 'struct')
  const paged = structs.some(([, { size }]) => typeof size !== 'number')
  const root = version.parts[version.root]
  return yaml({
    meta: {
      id: ksyId(version.id),
      title: `${version.id}: ${root?.doc ?? ''}`,
      endian: 'le',
      'bit-endian': 'le',
    },
    doc: `Version ${formatContract(version.contract)} of ${version.component}; ${root?.source ?? ''}.`,
    ...(paged ? { params: [{ id: 'page_size', type: 'u4', doc: 'PAGE_SIZE of the kernel.' }] } : {}),
    ...(root?.kind === 'struct' ? { seq: [{ id: version.root, type: version.root }] } : {}),
    types: Object.fromEntries(structs.map(([tag, part]) => [tag, structType(part)])),
  })
}

/** Identifiers are lower case letters, digits and underscores. */
export function ksyId(id: string): string {
  return id.toLowerCase().replace(/[^a-z0-9]+/g, '_')
}

interface KsyType {
  readonly doc: string
  readonly seq: readonly Yaml[]
  readonly instances?: Yaml
}

function structType(part: PartDescription): KsyType {
  const seq: Yaml[] = []
  const instances: Record<string, Yaml> = {}
  let at = 0
  for (const [index, member] of part.members.entries()) {
    const offset = firstPage(member.offset)
    if (offset > at) seq.push({ size: offset - at, doc: 'Padding.' })
    if (member.bits) {
      const { attributes, instance } = bitFields(member, part.members[index - 1])
      seq.push(...attributes)
      if (instance) instances[member.name] = instance
    } else seq.push(attribute(member))
    at = Math.max(at, offset + firstPage(member.size))
  }
  const size = firstPage(part.size)
  if (size > at) seq.push({ size: size - at, doc: 'Padding.' })
  return { doc: part.doc, seq, ...(Object.keys(instances).length > 0 ? { instances } : {}) }
}

/** The value at 4K pages: offsets never depend on the page size, only what fills a page does. */
function firstPage(value: MemberDescription['size']): number {
  return forPage(value ?? 0, PAGE_SIZES[0] as (typeof PAGE_SIZES)[number])
}

function attribute(member: MemberDescription): Yaml {
  const { name, encoding, size = 0, count, offset, part } = member
  const doc = meaning(member)
  if (encoding === 'text') return { id: name, type: 'strz', size: size as number, encoding: 'UTF-8', doc }
  if (encoding === 'bytes') return { id: name, size: size as number, doc }
  if (encoding === 'bitmap')
    return { id: name, size: typeof size === 'number' ? size : '_root.page_size', doc }
  if (encoding === 'struct') return { id: name, type: part as string, doc }
  if (count === undefined) return { id: name, type: integerType(encoding), doc }
  const elementBytes = firstPage(size) / firstPage(count)
  const repeat =
    typeof count === 'number' ? count : `(_root.page_size - ${firstPage(offset)}) / ${elementBytes}`
  const type = part ?? integerType(encoding.replace('array of ', ''))
  return { id: name, type, repeat: 'expr', 'repeat-expr': repeat, doc }
}

/** `le64` is u8 under `endian: le`, `be32` is u4be, `sle32` is s4. */
function integerType(encoding: string): string {
  const parsed = /^(s?)(le|be)(\d+)$/.exec(encoding)
  if (!parsed) return encoding === 's8' ? 's1' : 'u1'
  const [, sign, order, bits] = parsed
  return `${sign === 's' ? 's' : 'u'}${Number(bits) / 8}${order === 'be' ? 'be' : ''}`
}

const WIDEST_BITS = 32

/** Fields of one word follow each other; what lies between them is skipped. */
function bitFields(
  member: MemberDescription,
  before: MemberDescription | undefined,
): { readonly attributes: readonly Yaml[]; readonly instance?: Yaml } {
  const { shift, width } = member.bits ?? { shift: 0, width: 0 }
  const sameWord = before?.bits !== undefined && before.offset === member.offset
  const end = sameWord && before?.bits ? before.bits.shift + before.bits.width : 0
  const gap = shift > end ? [{ id: `unused_${end}`, type: `b${shift - end}` }] : []
  const doc = meaning(member)
  if (width <= WIDEST_BITS) return { attributes: [...gap, { id: member.name, type: `b${width}`, doc }] }
  const [low, high] = [`${member.name}_low`, `${member.name}_high`]
  return {
    attributes: [...gap, { id: low, type: `b${WIDEST_BITS}` }, { id: high, type: `b${width - WIDEST_BITS}` }],
    instance: { value: `${high} * ${2 ** WIDEST_BITS} + ${low}`, doc },
  }
}

type Yaml = string | number | readonly Yaml[] | { readonly [key: string]: Yaml | undefined } | KsyType

/** YAML of plain data: block style, strings as JSON, which YAML reads alike. */
function yaml(value: Yaml, indent = ''): string {
  if (typeof value === 'number') return String(value)
  if (typeof value === 'string') return JSON.stringify(value)
  const inner = `${indent}  `
  if (Array.isArray(value)) {
    return value.map((item: Yaml) => `\n${indent}- ${yaml(item, inner).trimStart()}`).join('')
  }
  const entries = Object.entries(value).filter(([, item]) => item !== undefined)
  if (entries.length === 0) return ' {}'
  const lines = entries.map(([key, item]: [string, Yaml]) => {
    const text = yaml(item, inner)
    const ownLine = typeof item === 'object' && !Array.isArray(item) && text !== ' {}'
    return `${indent}${key}:${ownLine ? '\n' : typeof item === 'object' ? '' : ' '}${text}`
  })
  return indent === '' ? `${lines.join('\n')}\n` : lines.join('\n')
}
