/**
 * Writer of BTF blobs for tests, by the kernel's documentation: types are appended and get ids from 1 on.
 * Independent of the reader and of the declarations.
 */
export class BtfBuilder {
  readonly #types: number[] = []
  #names = '\0'
  #nextId = 1

  /** Offset of a name; the empty one is 0. */
  name(text: string): number {
    if (text === '') return 0
    const offset = this.#names.length
    this.#names += `${text}\0`
    return offset
  }

  type(
    name: string,
    kind: number,
    vlen: number,
    reference: number,
    tail: readonly number[] = [],
    kindFlag = 0,
  ): number {
    this.#types.push(this.name(name), ((kindFlag << 31) | (kind << 24) | vlen) >>> 0, reference, ...tail)
    const id = this.#nextId
    this.#nextId += 1
    return id
  }

  int(name: string, bytes: number): number {
    return this.type(name, 1, 0, bytes, [bytes * 8])
  }

  array(element: number, count: number): number {
    return this.type('', 3, 0, 0, [element, element, count])
  }

  typedef(name: string, type: number): number {
    return this.type(name, 8, 0, type)
  }

  struct(
    name: string,
    bytes: number,
    members: readonly (readonly [name: string, type: number, bitOffset: number, bits?: number])[],
    kind = 4,
  ): number {
    const flagged = members.some(([, , , bits]) => bits !== undefined)
    const tail = members.flatMap(([member, type, offset, bits = 0]) => [
      this.name(member),
      type,
      flagged ? (bits << 24) | offset : offset,
    ])
    return this.type(name, kind, members.length, bytes, tail, flagged ? 1 : 0)
  }

  build(): Uint8Array {
    const names = Buffer.from(this.#names, 'latin1')
    const types = Buffer.alloc(this.#types.length * 4)
    for (const [index, word] of this.#types.entries()) types.writeUInt32LE(word >>> 0, index * 4)
    const header = Buffer.alloc(24)
    header.writeUInt16LE(0xeb9f, 0)
    header[2] = 1
    for (const [index, word] of [24, 0, types.length, types.length, names.length].entries()) {
      header.writeUInt32LE(word, 4 + index * 4)
    }
    return new Uint8Array(Buffer.concat([header, types, names]))
  }
}
