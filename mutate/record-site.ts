/** Changes to what is stored in bulk or beside the tree's fields: records of arrays, headers of lists. */
import { fieldOf } from '../abi/layout.ts'
import { child, type Node, type RecordNode } from '../inspect/tree.ts'
import type { VmallocArray } from '../inspect/vmalloc.ts'
import type { Change } from './change.ts'
import type { Site } from './site.ts'

/** A memfd whose folios are all at hand. */
export interface MemfdSite {
  readonly record: RecordNode
  readonly folios: VmallocArray
}

/** memfds with at least so many folios. */
export function memfds(site: Site, folios: number): readonly MemfdSite[] {
  return site.records('luo.sessions[*].files[*].memfd').flatMap((record) => {
    const list = record.children.find(({ segment }) => segment === 'folios')
    const bulk = list?.kind === 'record' ? list.bulk : undefined
    return bulk && bulk.available >= folios ? [{ record, folios: bulk }] : []
  })
}

/** A stored field of a record. */
export function fieldIn({ children }: RecordNode, name: string): Node | undefined {
  return children.find(({ segment }) => segment === name)
}

/** Puts a number into a field, or a bit field, of an element of an array in vmalloc memory. */
export function setElement(
  site: Site,
  { folios }: MemfdSite,
  index: number,
  name: string,
  value: bigint,
): Change {
  const { element } = folios
  if (element.kind !== 'struct') return { unfit: 'its elements have no fields' }
  const { type, offset } = fieldOf(element, name, site.target)
  const pa = folios.addressOf(index) + BigInt(offset)
  const word = site.wordAt(pa)
  if (word === undefined) return { unfit: 'the image does not hold this record' }
  if (type.kind !== 'bits') return site.word(pa, value)
  const mask = ((1n << BigInt(type.width)) - 1n) << BigInt(type.shift)
  return site.word(pa, (word & ~mask) | ((value << BigInt(type.shift)) & mask))
}

/** Places of the pages of a list: its blocks, or the one unit that holds it. */
export function pagesOfList(node: Node | undefined): readonly bigint[] {
  if (node?.kind !== 'list' || !node.storage) return []
  return node.storage.kind === 'unit' ? [node.storage.pa] : node.storage.blocks.map(({ pa }) => pa)
}

/** Puts a number into the header of a page of a list: `next`, `count`. */
export function setHeader(
  site: Site,
  node: Node | undefined,
  page: number,
  name: string,
  change: (old: bigint) => bigint,
): Change {
  const pa = pagesOfList(node).at(page)
  const header = node?.kind === 'list' ? node.storage?.header : undefined
  if (pa === undefined || !header || !(name in header.fields))
    return { unfit: `this handover has no such list with ${name}` }
  const at = pa + BigInt(fieldOf(header, name, site.target).offset)
  const old = site.wordAt(at)
  return old === undefined ? { unfit: 'the image does not hold this page' } : site.word(at, change(old))
}

/** Where a word of the test module's list of folios stands, and what it says: that of the first page, if not of any order. */
export function testFolio(site: Site): { readonly pa: bigint; readonly word: bigint } | undefined {
  const [data] = site.nodes('kho_test.data')
  const list = child(data, 'folios_info')
  const start = list?.kind === 'record' ? list.bulk?.groups[0] : list?.pa
  const count = site.number('kho_test.data.nr_folios') ?? 0n
  for (let i = 0n; start !== undefined && i < count; i++) {
    const found = site.wordAt(start + i * 8n)
    if (found !== undefined && found % site.pageSize === 0n) return { pa: start + i * 8n, word: found }
  }
  return undefined
}
