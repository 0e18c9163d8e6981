/** A reader of valid FDTs for tests of the encoder; shares no code with the project. */
export interface ReadNode {
  readonly name: string
  readonly properties: { readonly name: string; readonly value: Uint8Array }[]
  readonly children: ReadNode[]
}

export interface ReadFdt {
  readonly totalsize: number
  readonly reserveOffset: number
  readonly structOffset: number
  readonly tree: ReadNode
}

export function readFdt(bytes: Uint8Array): ReadFdt {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const word = (at: number): number => view.getUint32(at)
  const textAt = (at: number): string => new TextDecoder().decode(bytes.subarray(at, bytes.indexOf(0, at)))
  if (word(0) !== 0xd00dfeed) throw new Error('no FDT')
  const open: ReadNode[] = [{ name: '(top)', properties: [], children: [] }]
  for (let at = word(8); word(at) !== 9; ) {
    const tag = word(at)
    const node = open.at(-1) as ReadNode
    at += 4
    if (tag === 1) {
      const name = textAt(at)
      const child: ReadNode = { name, properties: [], children: [] }
      node.children.push(child)
      open.push(child)
      at += (bytes.indexOf(0, at) - at + 4) & ~3
    } else if (tag === 2) {
      open.pop()
    } else if (tag === 3) {
      const length = word(at)
      node.properties.push({
        name: textAt(word(12) + word(at + 4)),
        value: bytes.slice(at + 8, at + 8 + length),
      })
      at += 8 + ((length + 3) & ~3)
    } else throw new Error(`tag ${tag}`)
  }
  return {
    totalsize: word(4),
    reserveOffset: word(16),
    structOffset: word(8),
    tree: open[0]?.children[0] as ReadNode,
  }
}
