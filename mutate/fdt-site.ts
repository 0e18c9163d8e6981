/** Changes to an FDT's own structure that keep every byte where it is, so that nothing else moves. */
import { FDT_TAG_ALIGN, FdtTag, fdtHeader, fdtProperty } from '../abi/fdt.ts'
import { fieldOf, type Target } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { Fdt, FdtNode, FdtProperty } from '../inspect/fdt.ts'
import type { PlacedFdt } from '../inspect/subtree.ts'
import { type Change, together } from './change.ts'
import type { Patch } from './patch.ts'

/** The container's layouts do not depend on the page size. */
const ANY: Target = { pageSize: 4096 }
const LENGTH_AT = fieldOf(fdtProperty, 'len', ANY).offset

export class FdtSite {
  readonly pa: PhysAddr
  readonly fdt: Fdt

  constructor({ pa, fdt }: PlacedFdt) {
    this.pa = pa
    this.fdt = fdt
  }

  get root(): FdtNode {
    return this.fdt.root as FdtNode
  }

  /** Puts a word into the header. */
  header(field: keyof (typeof fdtHeader)['fields'], value: number): Change {
    return this.#word(fieldOf(fdtHeader, field, ANY).offset, value)
  }

  /** The node at a path of names (`data`, `trace`); the root for none. */
  node(...names: readonly string[]): FdtNode | undefined {
    let node: FdtNode | undefined = this.root
    for (const name of names) node = node?.children.find((one) => one.name === name)
    return node
  }

  /** Makes a property disappear. */
  drop(node: FdtNode | undefined, name: string): Change {
    const property = propertyOf(node, name)
    return property ? this.#nops(property.offset, endOf(property)) : noProperty(name)
  }

  /** Makes a node and all in it disappear. */
  dropNode(node: FdtNode | undefined): Change {
    return node ? this.#nops(node.offset, node.end) : { unfit: 'there is no such node' }
  }

  /** Cuts a property's value; what is cut off becomes padding. */
  shorten(node: FdtNode | undefined, name: string, length: number): Change {
    const property = propertyOf(node, name)
    if (!property) return noProperty(name)
    const kept = property.valueOffset + Math.ceil(length / FDT_TAG_ALIGN) * FDT_TAG_ALIGN
    const cut = this.#nops(kept, endOf(property))
    return [...this.#word(property.offset + LENGTH_AT, length), ...cut]
  }

  /** Replaces a property's value by one that takes as much room. */
  replace(node: FdtNode | undefined, name: string, value: Uint8Array): Change {
    const property = propertyOf(node, name)
    if (!property) return noProperty(name)
    if (value.length !== property.value.length) return { unfit: `${name} has another length in this FDT` }
    return [{ pa: this.#at(property.valueOffset), bytes: value }]
  }

  /** Replaces a text by one that takes as much room, its NUL counted. */
  replaceText(node: FdtNode | undefined, name: string, text: string): Change {
    return this.replace(node, name, new TextEncoder().encode(`${text}\0`))
  }

  /** Gives a node another name that takes no more room; what is left over becomes padding. */
  rename(node: FdtNode | undefined, name: string): Change {
    const room = (length: number): number => Math.ceil((length + 1) / FDT_TAG_ALIGN) * FDT_TAG_ALIGN
    const own = room(name.length)
    if (!node || room(node.nameBytes.length) < own)
      return { unfit: `there is no node with room for the name ${name}` }
    const bytes = new Uint8Array(own)
    bytes.set(new TextEncoder().encode(name))
    const rest = this.#nops(node.nameOffset + own, node.nameOffset + room(node.nameBytes.length))
    return [{ pa: this.#at(node.nameOffset), bytes }, ...rest]
  }

  /** The bytes of a node with another name of the same length and other values of the same lengths. */
  copyOf(node: FdtNode, name: string, values: Readonly<Record<string, Uint8Array>>): Uint8Array {
    const copy = this.fdt.bytes.slice(node.offset, node.end)
    copy.set(new TextEncoder().encode(name), node.nameOffset - node.offset)
    for (const [property, value] of Object.entries(values)) {
      const at = propertyOf(node, property)?.valueOffset
      if (at !== undefined) copy.set(value, at - node.offset)
    }
    return copy
  }

  /** Puts nodes behind one that is there, into the room that its unit of preserved memory leaves. */
  insertBehind(node: FdtNode, nodes: Uint8Array, room: number): Change {
    const { header, bytes } = this.fdt
    const { off_dt_struct, size_dt_struct, off_dt_strings, size_dt_strings } = header
    const used = off_dt_strings + size_dt_strings
    if (off_dt_strings < off_dt_struct) return { unfit: 'its strings stand before its nodes' }
    if (used + nodes.length > room) return { unfit: 'there is no room for more nodes' }
    return together(
      [{ pa: this.#at(node.end), bytes: concat([nodes, bytes.subarray(node.end, used)]) }],
      this.header('totalsize', Math.max(header.totalsize, used + nodes.length)),
      this.header('size_dt_struct', size_dt_struct + nodes.length),
      this.header('off_dt_strings', off_dt_strings + nodes.length),
    )
  }

  /** Puts a token over the one at an offset of the blob. */
  token(offset: number, tag: number): Change {
    return this.#word(offset, tag)
  }

  #nops(from: number, to: number): readonly Patch[] {
    const bytes = new Uint8Array(Math.max(0, to - from))
    const view = new DataView(bytes.buffer)
    for (let at = 0; at + FDT_TAG_ALIGN <= bytes.length; at += FDT_TAG_ALIGN) view.setUint32(at, FdtTag.NOP)
    return [{ pa: this.#at(from), bytes }]
  }

  #word(offset: number, value: number): readonly Patch[] {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setUint32(0, value)
    return [{ pa: this.#at(offset), bytes }]
  }

  #at(offset: number): PhysAddr {
    return phys(this.pa + BigInt(offset))
  }
}

export function propertyOf(node: FdtNode | undefined, name: string): FdtProperty | undefined {
  return node?.properties.find((one) => one.name === name)
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** Offset behind a property, its padding counted. */
function endOf({ valueOffset, value }: FdtProperty): number {
  return valueOffset + Math.ceil(value.length / FDT_TAG_ALIGN) * FDT_TAG_ALIGN
}

function noProperty(name: string): Change {
  return { unfit: `there is no property ${name}` }
}
