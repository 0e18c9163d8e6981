/**
 * The schema language: one declaration of a struct, node or link, from which layout, types, decoder,
 * encoder, documentation and comparison all come.
 *
 * A schema is plain data. Byte order is part of a field's type, the page size enters only through
 * `Target` (see layout.ts). Pointers are fields that carry an `Edge`: what they lead to, so that every
 * reader of a schema sees the same graph.
 */

/** How a number is printed: addresses, frame numbers, tokens and handles in hex, the rest in decimal. */
export type Show = 'dec' | 'hex' | 'bytes'
export type ByteOrder = 'le' | 'be'

/**
 * What a number says about memory: the number of a page frame, a place in a file counted in pages, or an
 * address with the order of its unit in the low bits.
 */
export type Measure = 'frame' | 'page-index' | 'address-order'

/**
 * `$value` in the types below carries the type of a decoded value; it is never there at run time.
 */

/** Named bits of a flags word, lowest first, by mask. */
export type Flags = Readonly<Record<string, number>>

interface Described {
  /** One phrase, for the tree, the reports and the reference. */
  readonly doc: string
}

export interface IntType<V extends number | bigint = number | bigint> extends Described {
  readonly kind: 'int'
  readonly bytes: 1 | 2 | 4 | 8
  readonly order: ByteOrder
  readonly signed: boolean
  readonly show: Show
  /** The C type, as in the header. */
  readonly ctype: string
  /** Key in the decoded tree where it is not the kernel's own name. */
  readonly key?: string
  readonly flags?: Flags
  /** The only value this version of the format allows. */
  readonly only?: number
  /** What the kernel writes where no state asks for another value. */
  readonly default?: number
  readonly measures?: Measure
  /** What the stored address leads to; several where only evidence in the image can tell. */
  readonly to?: Edge
  readonly $value?: V
}

/** Part of an integer word. Fields of one word are declared together by `bitfields`. */
export interface BitsType<V extends number | bigint = number | bigint> extends Described {
  readonly kind: 'bits'
  readonly word: IntType<V>
  readonly shift: number
  readonly width: number
  readonly show: Show
  readonly flags?: Flags
  readonly measures?: Measure
  readonly $value?: V
}

/** `char[n]`: text up to the first NUL, any bytes. */
export interface TextType extends Described {
  readonly kind: 'text'
  readonly bytes: number
  readonly $value?: Uint8Array
}

/** Uninterpreted bytes of a fixed length. */
export interface BytesType extends Described {
  readonly kind: 'bytes'
  readonly bytes: number
  readonly $value?: Uint8Array
}

/** `u64[]` of bits, bit 0 lowest. `'page'`: fills a page. */
export interface BitmapType extends Described {
  readonly kind: 'bitmap'
  readonly bytes: number | 'page'
  readonly $value?: Uint8Array
}

/** Elements side by side. `'page'`: as many as fit between here and the end of the page. */
export interface ArrayType<E extends IntType | StructType = IntType | StructType> extends Described {
  readonly kind: 'array'
  readonly element: E
  readonly count: number | 'page'
  readonly $value?: Infer<E>[]
}

export type FieldType = IntType | BitsType | TextType | BytesType | BitmapType | ArrayType | StructType
export type Fields = Readonly<Record<string, FieldType>>

export interface StructType<F extends Fields = Fields> extends Described {
  readonly kind: 'struct'
  /** The kernel's struct tag. */
  readonly name: string
  /** `__packed`: no padding, alignment 1. Otherwise C's natural rules. */
  readonly packed: boolean
  /** Header file or function that defines it. */
  readonly source: string
  readonly fields: F
  /** For descriptors that are embedded by value and lead to more memory, such as kho_vmalloc. */
  readonly to?: Edge
  /** The kernel writes these bytes without a struct of its own; the tag is this project's. */
  readonly ours?: true
  readonly $value?: { -readonly [K in keyof F]: Infer<F[K]> }
}

/** The value of a decoded schema: bigint for 64-bit words, number up to 32 bits, bytes for text. */
export type Infer<T> = T extends { readonly $value?: infer V } ? NonNullable<V> : never

/**
 * What an address leads to. `as` names the result in the decoded tree; it hangs on the nearest record
 * that stands for an object (a component or an element of a list).
 */
export type Edge =
  | ObjectEdge
  | ArrayEdge
  | BlocksEdge
  | VmallocEdge
  | ChunksEdge
  | RadixEdge
  | HandlerEdge
  | BlobEdge
  | RegionEdge

/** One struct, in preserved memory of its own: one unit of 2^order pages. */
export interface ObjectEdge {
  readonly kind: 'object'
  readonly as: string
  readonly type: StructType
  readonly order: number
}

/**
 * An array in one preserved unit of 2^order pages, behind `header` if there is one.
 * `count` names the field that says how many elements are valid: in the header, else beside the pointer.
 */
export interface ArrayEdge {
  readonly kind: 'array'
  readonly as: string
  readonly header?: StructType
  readonly element: StructType
  readonly count: string
  readonly order: number
  /** Field that names an element in paths. */
  readonly naturalKey: string
}

/** A chain of KHO blocks, each one preserved page: header {next, count}, then elements. */
export interface BlocksEdge {
  readonly kind: 'blocks'
  readonly as: string
  readonly header: StructType
  readonly element: StructType
  /** Field beside the pointer that repeats the total, where there is one. */
  readonly total?: string
  readonly maxBlocks: number
  readonly naturalKey: string
}

/** An array in vmalloc memory, described by an embedded kho_vmalloc and a chain of chunk pages. */
export interface VmallocEdge {
  readonly kind: 'vmalloc'
  /** One element's name: gives `first_folio`, `last_folio`, `folio_list`. */
  readonly item: string
  readonly chunk: StructType
  readonly element: StructType | IntType
  /** Field beside the descriptor that counts the elements. */
  readonly count: string
}

/** kho-v1's map of preserved memory: a chain of chunks of bitmaps. */
export interface ChunksEdge {
  readonly kind: 'chunks'
  readonly chunk: StructType
  readonly bitmap: StructType
}

/** kho-v2's and later map of preserved memory: a radix tree over (order, frame number) keys. */
export interface RadixEdge {
  readonly kind: 'radix'
  readonly node: StructType
  readonly leaf: StructType
  /** Bits of a key that the levels must cover: 64 - PAGE_SHIFT, plus one in the corrected form. */
  readonly keyBits: 'order-0-position' | 'key-width'
}

/** An opaque handle whose meaning the handler named by the field `by` defines. */
export interface HandlerEdge {
  readonly kind: 'handler'
  readonly by: string
}

/** A subsystem's blob; its component is found by the name of the node that holds the pointer. */
export interface BlobEdge {
  readonly kind: 'blob'
  /** Property with the blob's length in bytes; without it the blob is an FDT and says its own. */
  readonly size?: string
}

/** Memory without a structure known to the kernel's core; `size` names the field with its length in bytes. */
export interface RegionEdge {
  readonly kind: 'region'
  readonly size: string
}

/** A property of an FDT node: `text` is a NUL-terminated string of any length, `cells` big-endian pairs. */
export type PropertyType =
  | IntType
  | StructType
  | { readonly kind: 'compatible'; readonly value: string; readonly doc: string }
  | { readonly kind: 'inline-array'; readonly element: IntType; readonly count: string; readonly doc: string }

/** How the kernel puts an FDT together; decides the order of nodes, properties and names, and the offsets. */
export type FdtStyle =
  /** fdt_create(), fdt_begin_node(), fdt_property() … fdt_finish(). */
  | 'sequential'
  /** That for the root and its properties, then fdt_add_subnode() and fdt_setprop() for each child. */
  | 'edited'

export interface FdtNodeType extends Described {
  readonly kind: 'fdt-node'
  readonly source: string
  readonly properties: Readonly<Record<string, PropertyType>>
  /** Children with a fixed name. */
  readonly children?: Readonly<Record<string, FdtNodeType>>
  /** Children with names of their own, shown as the list `as`. */
  readonly each?: { readonly as: string; readonly node: FdtNodeType }
  /** Of a root node; sequential if not said. */
  readonly style?: FdtStyle
  /** Of a root node: bytes of the buffer beyond one page, for each unit of the property `count`. */
  readonly slack?: { readonly count: string; readonly bytes: number }
}

interface IntOptions {
  readonly show?: Show
  readonly key?: string
  readonly flags?: Flags
  readonly only?: number
  readonly default?: number
  readonly measures?: Measure
  readonly to?: Edge
  readonly ctype?: string
}

function int<V extends number | bigint>(
  bytes: 1 | 2 | 4 | 8,
  order: ByteOrder,
  signed: boolean,
  ctype: string,
) {
  return (doc: string, options: IntOptions = {}): IntType<V> => ({
    kind: 'int',
    bytes,
    order,
    signed,
    doc,
    ctype,
    show: options.to ? 'hex' : 'dec',
    ...options,
  })
}

export const u8 = int<number>(1, 'le', false, 'u8')
export const u16le = int<number>(2, 'le', false, 'u16')
export const u32le = int<number>(4, 'le', false, 'u32')
export const s32le = int<number>(4, 'le', true, 's32')
export const u64le = int<bigint>(8, 'le', false, 'u64')
export const u16be = int<number>(2, 'be', false, '__be16')
export const u32be = int<number>(4, 'be', false, '__be32')
export const u64be = int<bigint>(8, 'be', false, '__be64')

/** A physical address without a declared target (an end of chain, an address for information). */
export function pa64le(doc: string, options: IntOptions = {}): IntType<bigint> {
  return u64le(doc, { show: 'hex', ctype: 'phys_addr_t', ...options })
}

/** A physical address and what it leads to. */
export function pointer(to: Edge, doc: string, options: Omit<IntOptions, 'to'> = {}): IntType<bigint> {
  return pa64le(doc, { ...options, to })
}

export function text(bytes: number, doc: string): TextType {
  return { kind: 'text', bytes, doc }
}

export function bytes(length: number, doc: string): BytesType {
  return { kind: 'bytes', bytes: length, doc }
}

export function bitmap(length: number | 'page', doc: string): BitmapType {
  return { kind: 'bitmap', bytes: length, doc }
}

export function array<E extends IntType | StructType>(
  element: E,
  count: number | 'page',
  doc: string,
): ArrayType<E> {
  return { kind: 'array', element, count, doc }
}

type BitfieldSpec = readonly [
  shift: number,
  width: number,
  doc: string,
  options?: { readonly show?: Show; readonly flags?: Flags; readonly measures?: Measure },
]

/** Splits one word into named bit fields; `[shift, width, doc]`, bit 0 lowest. */
export function bitfields<V extends number | bigint, S extends Readonly<Record<string, BitfieldSpec>>>(
  word: IntType<V>,
  specs: S,
): { readonly [K in keyof S]: BitsType<V> } {
  const fields: Record<string, BitsType<V>> = {}
  for (const [name, [shift, width, doc, options]] of Object.entries(specs)) {
    fields[name] = { kind: 'bits', word, shift, width, doc, show: 'dec', ...options }
  }
  return fields as { readonly [K in keyof S]: BitsType<V> }
}

interface StructOptions {
  readonly doc: string
  readonly source: string
  readonly to?: Edge
  readonly ours?: true
}

/** A C struct with natural alignment. */
export function struct<const F extends Fields>(
  name: string,
  options: StructOptions,
  fields: F,
): StructType<F> {
  return { kind: 'struct', name, packed: false, ...options, fields }
}

/** A C struct marked `__packed`. */
export function packed<const F extends Fields>(
  name: string,
  options: StructOptions,
  fields: F,
): StructType<F> {
  return { kind: 'struct', name, packed: true, ...options, fields }
}

/** The `compatible` property of an FDT node, which may also be a string list that holds the value. */
export function compatible(value: string): PropertyType {
  return { kind: 'compatible', value, doc: 'Version string; the reader accepts exactly this one.' }
}

export function inlineArray(element: IntType, count: string, doc: string): PropertyType {
  return { kind: 'inline-array', element, count, doc }
}

export function fdtNode(node: Omit<FdtNodeType, 'kind'>): FdtNodeType {
  return { kind: 'fdt-node', ...node }
}
