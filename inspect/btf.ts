/**
 * Reader of BTF: which structs and constants a kernel was built with, and how their members lie.
 *
 * The whole blob is checked when it is opened: bounds of every record and name, ids of types, and that
 * no type contains itself. A lookup can then neither fail nor run long. Nothing here knows the kernel's
 * version or page size.
 */
import {
  BTF_MAGIC,
  BTF_MAX_TYPE,
  BTF_VERSION,
  BtfKind,
  btfArray,
  btfEnum,
  btfEnum64,
  btfHeader,
  btfMember,
  btfParam,
  btfType,
  btfVarSecinfo,
  btfWord,
} from '../abi/btf.ts'
import { CONTAINER_TARGET } from '../abi/container.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { hex } from '../abi/memory.ts'
import type { StructType } from '../abi/schema.ts'
import type { MeasuredMember, MeasuredStruct } from './measured-struct.ts'
import { decodeStruct } from './record.ts'
import { decodeText } from './text.ts'

/** What is wrong with a blob: one sentence with the place. */
export interface BtfProblem {
  readonly problem: string
}

const POINTER_BYTES = 8
/** Members that are listed of one struct, those of anonymous ones inside it counted. */
const MAX_MEMBERS = 4096
/** Levels of typedefs, arrays and structs inside each other; real kernels stay below 64. */
const MAX_DEPTH = 512

const sizeOfRecord = (record: StructType): number => layoutOf(record, CONTAINER_TARGET).size
const at = (record: StructType, field: string): number => fieldOf(record, field, CONTAINER_TARGET).offset

const HEADER_BYTES = sizeOfRecord(btfHeader)
const TYPE_BYTES = sizeOfRecord(btfType)
const INFO_AT = at(btfType, 'vlen')
const REFERENCE_AT = at(btfType, 'size_or_type')

/** Bytes that follow a type record: fixed, or for each of its `vlen` entries. */
const TAIL: Readonly<Record<number, { readonly fixed: number; readonly each: number }>> = {
  [BtfKind.INT]: { fixed: sizeOfRecord(btfWord), each: 0 },
  [BtfKind.PTR]: { fixed: 0, each: 0 },
  [BtfKind.ARRAY]: { fixed: sizeOfRecord(btfArray), each: 0 },
  [BtfKind.STRUCT]: { fixed: 0, each: sizeOfRecord(btfMember) },
  [BtfKind.UNION]: { fixed: 0, each: sizeOfRecord(btfMember) },
  [BtfKind.ENUM]: { fixed: 0, each: sizeOfRecord(btfEnum) },
  [BtfKind.FWD]: { fixed: 0, each: 0 },
  [BtfKind.TYPEDEF]: { fixed: 0, each: 0 },
  [BtfKind.VOLATILE]: { fixed: 0, each: 0 },
  [BtfKind.CONST]: { fixed: 0, each: 0 },
  [BtfKind.RESTRICT]: { fixed: 0, each: 0 },
  [BtfKind.FUNC]: { fixed: 0, each: 0 },
  [BtfKind.FUNC_PROTO]: { fixed: 0, each: sizeOfRecord(btfParam) },
  [BtfKind.VAR]: { fixed: sizeOfRecord(btfWord), each: 0 },
  [BtfKind.DATASEC]: { fixed: 0, each: sizeOfRecord(btfVarSecinfo) },
  [BtfKind.FLOAT]: { fixed: 0, each: 0 },
  [BtfKind.DECL_TAG]: { fixed: sizeOfRecord(btfWord), each: 0 },
  [BtfKind.TYPE_TAG]: { fixed: 0, each: 0 },
  [BtfKind.ENUM64]: { fixed: 0, each: sizeOfRecord(btfEnum64) },
}

/** Kinds that only stand for another type. */
const MODIFIERS: ReadonlySet<number> = new Set([
  BtfKind.TYPEDEF,
  BtfKind.VOLATILE,
  BtfKind.CONST,
  BtfKind.RESTRICT,
  BtfKind.TYPE_TAG,
])

/** A checked blob. Ids count from 1; 0 is `void`. */
export class Btf {
  readonly #view: DataView
  readonly #names: Uint8Array
  /** Offset of each type's record by id. */
  readonly #offsets: Uint32Array

  constructor(view: DataView, names: Uint8Array, offsets: Uint32Array) {
    this.#view = view
    this.#names = names
    this.#offsets = offsets
  }

  /** Number of types, `void` left out. */
  get typeCount(): number {
    return this.#offsets.length - 1
  }

  /** BTF_KIND_*; 0 for `void`. */
  kind(id: number): number {
    return id === 0 ? 0 : (this.#info(id) >>> 24) & 0x1f
  }

  /** Members, values or parameters of a type. */
  length(id: number): number {
    return this.#info(id) & 0xffff
  }

  /** Bytes of a sized type, or the id that it refers to. */
  reference(id: number): number {
    return this.#word(id, REFERENCE_AT)
  }

  name(id: number): string {
    return this.nameAt(this.#word(id, 0))
  }

  nameAt(offset: number): string {
    return decodeText(this.#names.subarray(offset))
  }

  /** Word of the record that follows a type's head: entry `index` of entries of `record`'s size. */
  tail(id: number, record: StructType, index: number, field: string): number {
    const start = TYPE_BYTES + index * sizeOfRecord(record)
    return this.#word(id, start + at(record, field))
  }

  /** Whether a struct's member offsets hold sizes of bit fields, too. */
  hasBitSizes(id: number): boolean {
    return this.#info(id) >>> 31 === 1
  }

  /** The type behind typedefs and qualifiers; 0 is `void`. */
  resolve(id: number): number {
    let current = id
    while (current !== 0 && MODIFIERS.has(this.kind(current))) current = this.reference(current)
    return current
  }

  /** Ids whose value is part of a value of `id`, so that none may lead back. */
  parts(id: number): readonly number[] {
    const kind = this.kind(id)
    if (MODIFIERS.has(kind)) return [this.reference(id)]
    if (kind === BtfKind.ARRAY) return [this.tail(id, btfArray, 0, 'type')]
    if (kind !== BtfKind.STRUCT && kind !== BtfKind.UNION) return []
    return Array.from({ length: this.length(id) }, (_, index) => this.tail(id, btfMember, index, 'type'))
  }

  #info(id: number): number {
    return this.#word(id, INFO_AT)
  }

  #word(id: number, offset: number): number {
    return this.#view.getUint32((this.#offsets[id] as number) + offset, true)
  }
}

export function isBtfProblem(value: Btf | BtfProblem): value is BtfProblem {
  return 'problem' in value
}

/** Opens a BTF blob. Malformed ones give the first thing that is wrong, with its place; never throws. */
export function openBtf(blob: Uint8Array): Btf | BtfProblem {
  const sections = readHeader(blob)
  if ('problem' in sections) return sections
  const { types, names } = sections
  const view = new DataView(types.buffer, types.byteOffset, types.length)
  const offsets = indexTypes(view)
  if ('problem' in offsets) return offsets
  const btf = new Btf(view, names, offsets)
  return checkReferences(btf, view, offsets, names.length) ?? checkContainment(btf) ?? btf
}

/** Magic of a blob as its first two bytes, or why they are not. */
function readHeader(blob: Uint8Array): BtfProblem | { types: Uint8Array; names: Uint8Array } {
  const magic = (blob[0] ?? 0) | ((blob[1] ?? 0) << 8)
  const swapped = ((magic & 0xff) << 8) | (magic >>> 8)
  if (swapped === BTF_MAGIC) {
    return { problem: 'BTF is big-endian; KHO exists on little-endian machines only' }
  }
  if (magic !== BTF_MAGIC) return { problem: `BTF magic ${hex(BTF_MAGIC)} expected, found ${hex(magic)}` }
  if (blob.length < HEADER_BYTES) {
    return { problem: `BTF header is cut off: ${blob.length} of ${HEADER_BYTES} bytes` }
  }
  const header = decodeStruct(btfHeader, blob.subarray(0, HEADER_BYTES), CONTAINER_TARGET)
  if (header.version !== BTF_VERSION) {
    return { problem: `BTF version ${BTF_VERSION} expected, found ${header.version}` }
  }
  if (header.hdr_len < HEADER_BYTES || header.hdr_len > blob.length) {
    return { problem: `BTF header length ${header.hdr_len} is impossible in ${blob.length} bytes` }
  }
  const section = (what: string, offset: number, length: number): Uint8Array | BtfProblem => {
    const start = header.hdr_len + offset
    if (start + length <= blob.length) return blob.subarray(start, start + length)
    return {
      problem: `BTF ${what} end at offset ${start + length}, the blob has ${blob.length} bytes: it is cut off`,
    }
  }
  const types = section('types', header.type_off, header.type_len)
  if ('problem' in types) return types
  const names = section('names', header.str_off, header.str_len)
  if ('problem' in names) return names
  if (names.length === 0 || names[0] !== 0 || names.at(-1) !== 0) {
    return { problem: 'BTF names must begin and end with a NUL' }
  }
  return { types, names }
}

/** Finds where each type's record begins. */
function indexTypes(view: DataView): Uint32Array | BtfProblem {
  const offsets: number[] = [0]
  let offset = 0
  while (offset < view.byteLength) {
    const id = offsets.length
    if (id > BTF_MAX_TYPE) return { problem: `BTF holds more than ${BTF_MAX_TYPE} types` }
    if (offset + TYPE_BYTES > view.byteLength) return cutOff(id, offset)
    const info = view.getUint32(offset + INFO_AT, true)
    const kind = (info >>> 24) & 0x1f
    const tail = TAIL[kind]
    if (!tail) return { problem: `BTF type ${id} at offset ${hex(offset)} is of unknown kind ${kind}` }
    offsets.push(offset)
    offset += TYPE_BYTES + tail.fixed + tail.each * (info & 0xffff)
    if (offset > view.byteLength) return cutOff(id, offsets.at(-1) as number)
  }
  return Uint32Array.from(offsets)
}

function cutOff(id: number, offset: number): BtfProblem {
  return { problem: `BTF type ${id} at offset ${hex(offset)} reaches beyond the end of the types` }
}

/** Every id and name that a lookup may follow must exist. */
function checkReferences(
  btf: Btf,
  view: DataView,
  offsets: Uint32Array,
  nameBytes: number,
): BtfProblem | undefined {
  for (let id = 1; id <= btf.typeCount; id += 1) {
    const kind = btf.kind(id)
    const start = offsets[id] as number
    const names = [view.getUint32(start, true)]
    const ids = refersToType(kind) ? [btf.reference(id)] : []
    for (let index = 0; index < btf.length(id); index += 1) {
      if (kind === BtfKind.STRUCT || kind === BtfKind.UNION) {
        names.push(btf.tail(id, btfMember, index, 'name_off'))
        ids.push(btf.tail(id, btfMember, index, 'type'))
      } else if (kind === BtfKind.ENUM) names.push(btf.tail(id, btfEnum, index, 'name_off'))
      else if (kind === BtfKind.ENUM64) names.push(btf.tail(id, btfEnum64, index, 'name_off'))
      else break
    }
    if (kind === BtfKind.ARRAY) ids.push(btf.tail(id, btfArray, 0, 'type'))
    const place = `BTF type ${id} at offset ${hex(start)}`
    const badName = names.find((offset) => offset >= nameBytes)
    if (badName !== undefined) {
      return { problem: `${place} has its name at ${hex(badName)}, beyond the ${nameBytes} bytes of names` }
    }
    const badId = ids.find((reference) => reference > btf.typeCount)
    if (badId !== undefined) {
      return {
        problem: `${place} refers to type ${badId} of ${btf.typeCount}; a module's BTF needs the kernel's`,
      }
    }
  }
  return undefined
}

function refersToType(kind: number): boolean {
  return MODIFIERS.has(kind) || kind === BtfKind.PTR || kind === BtfKind.FUNC || kind === BtfKind.VAR
}

/**
 * No type may be part of itself, nor lie deeper in others than any real one, so that following types is
 * cheap from here on. Each is visited once, with an own stack instead of the call stack.
 */
function checkContainment(btf: Btf): BtfProblem | undefined {
  const IN_PROGRESS = 0xffff
  /** Levels of types below, itself counted; 0 is not visited yet. */
  const depths = new Uint16Array(btf.typeCount + 1)
  for (let root = 1; root <= btf.typeCount; root += 1) {
    const stack: { id: number; pending: readonly number[]; next: number }[] = []
    const enter = (id: number): void => {
      depths[id] = IN_PROGRESS
      stack.push({ id, pending: btf.parts(id), next: 0 })
    }
    if (depths[root] === 0) enter(root)
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const part = top.pending[top.next]
      top.next += 1
      if (part === undefined) {
        const depth = 1 + top.pending.reduce((most, id) => Math.max(most, depths[id] as number), 0)
        if (depth > MAX_DEPTH) return { problem: `${typeText(btf, top.id)} holds types ${depth} levels deep` }
        depths[top.id] = depth
        stack.pop()
      } else if (part !== 0 && depths[part] === IN_PROGRESS) {
        return { problem: `${typeText(btf, part)} contains itself` }
      } else if (part !== 0 && depths[part] === 0) enter(part)
    }
  }
  return undefined
}

function typeText(btf: Btf, id: number): string {
  const name = btf.name(id)
  return `BTF type ${id}${name === '' ? '' : ` (${name})`}`
}

/** All structs and unions of the names asked for, several where a name is used twice; by name. */
export function findStructs(
  btf: Btf,
  names: ReadonlySet<string>,
): ReadonlyMap<string, readonly MeasuredStruct[]> {
  const found = new Map<string, MeasuredStruct[]>()
  for (let id = 1; id <= btf.typeCount; id += 1) {
    if (btf.kind(id) !== BtfKind.STRUCT) continue
    const name = btf.name(id)
    if (!names.has(name)) continue
    const struct = { name, size: btf.reference(id), members: membersOf(btf, id) }
    found.set(name, [...(found.get(name) ?? []), struct])
  }
  return found
}

/** Values of the enumeration constants asked for. */
export function findConstants(btf: Btf, names: ReadonlySet<string>): ReadonlyMap<string, number> {
  const found = new Map<string, number>()
  for (let id = 1; id <= btf.typeCount; id += 1) {
    if (btf.kind(id) !== BtfKind.ENUM) continue
    for (let index = 0; index < btf.length(id); index += 1) {
      const name = btf.nameAt(btf.tail(id, btfEnum, index, 'name_off'))
      if (names.has(name)) found.set(name, btf.tail(id, btfEnum, index, 'val') | 0)
    }
  }
  return found
}

/** Members in order; those of anonymous structs and unions stand in their place. */
function membersOf(btf: Btf, id: number): readonly MeasuredMember[] {
  const members: MeasuredMember[] = []
  let visits = 0
  const list = (struct: number, base: number): void => {
    for (let index = 0; index < btf.length(struct) && visits < MAX_MEMBERS; index += 1) {
      visits += 1
      const name = btf.nameAt(btf.tail(struct, btfMember, index, 'name_off'))
      const place = btf.tail(struct, btfMember, index, 'bit_offset')
      const [offset, bitfield] = btf.hasBitSizes(struct) ? [place & 0xff_ffff, place >>> 24] : [place, 0]
      const bitOffset = base + offset
      const type = btf.resolve(btf.tail(struct, btfMember, index, 'type'))
      const kind = btf.kind(type)
      if (name === '' && (kind === BtfKind.STRUCT || kind === BtfKind.UNION)) list(type, bitOffset)
      else if (bitfield > 0) members.push({ name, bitOffset, bits: bitfield, bitField: true })
      else
        members.push({
          name,
          bitOffset,
          bits: 8 * byteSize(btf, type),
          bitField: false,
          ...countOf(btf, type),
        })
    }
  }
  list(id, 0)
  return members
}

function countOf(btf: Btf, type: number): { count?: number } {
  return btf.kind(type) === BtfKind.ARRAY ? { count: elementCount(btf, type) } : {}
}

/** Elements of an array, those of its element arrays multiplied in. */
function elementCount(btf: Btf, array: number): number {
  let count = 1
  for (let type = array; btf.kind(type) === BtfKind.ARRAY; type = elementType(btf, type)) {
    count *= btf.tail(type, btfArray, 0, 'nelems')
  }
  return count
}

function elementType(btf: Btf, array: number): number {
  return btf.resolve(btf.tail(array, btfArray, 0, 'type'))
}

/** Bytes of a value; 0 for what has none, such as a function or a flexible array. */
function byteSize(btf: Btf, type: number): number {
  switch (btf.kind(type)) {
    case BtfKind.INT:
    case BtfKind.STRUCT:
    case BtfKind.UNION:
    case BtfKind.ENUM:
    case BtfKind.ENUM64:
    case BtfKind.FLOAT:
      return btf.reference(type)
    case BtfKind.PTR:
      return POINTER_BYTES
    case BtfKind.ARRAY: {
      let element = type
      while (btf.kind(element) === BtfKind.ARRAY) element = elementType(btf, element)
      return elementCount(btf, type) * byteSize(btf, element)
    }
    default:
      return 0
  }
}
