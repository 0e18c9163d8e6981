/**
 * The boot entry and the scratch areas as parts of the tree: from struct kho_data and the array that it
 * points to, or from what debugfs prints.
 */
import { EARLY_MEMREMAP_MAX, khoData, khoScratch } from '../abi/boot.ts'
import { layoutOf } from '../abi/layout.ts'
import { type PhysRange, phys } from '../abi/memory.ts'
import type { Infer } from '../abi/schema.ts'
import type { WalkContext } from './chain.ts'
import { decodeRecord } from './component.ts'
import { behind, ROOT, within } from './faults.ts'
import { readBytes } from './read.ts'
import { type ListNode, type Node, numberAt, type RecordNode } from './tree.ts'

export type KhoData = Infer<typeof khoData>

/** The boot entry as a record of facts: it comes from a note or the command line, not from memory. */
export function bootRecord(boot: KhoData): RecordNode {
  const children: Node[] = Object.entries(khoData.fields).map(([segment, type]) => ({
    kind: 'fact',
    segment,
    pa: phys(0),
    length: 0,
    value: boot[segment as keyof KhoData],
    show: type.show,
    doc: type.doc,
  }))
  return {
    kind: 'record',
    segment: 'boot',
    pa: phys(0),
    length: 0,
    type: undefined,
    doc: khoData.doc,
    children,
  }
}

/** Reads the array of scratch areas; undefined, with a fault, where the image does not hold it. */
export function decodeScratch(context: WalkContext, boot: KhoData): ListNode | undefined {
  const pointer = { path: ['boot', 'scratch_addr'], pa: phys(0) }
  const place = behind(within(ROOT, 'scratch'), pointer, boot.scratch_addr)
  const { size } = layoutOf(khoScratch, context.target)
  const limit = BigInt(EARLY_MEMREMAP_MAX)
  const claimed = Number(boot.scratch_size > limit ? limit : boot.scratch_size)
  const length = claimed - (claimed % size)
  const pa = phys(boot.scratch_addr)
  const read = readBytes(context.memory, pa, length)
  if ('unreadable' in read) {
    context.faults.addUnreadable(place, length, read.unreadable)
    return undefined
  }
  const items = Array.from({ length: length / size }, (_, index) => {
    const bytes = read.bytes.subarray(index * size, (index + 1) * size)
    const element = { pa: phys(pa + BigInt(index * size)), bytes }
    return decodeRecord(context, khoScratch, element, { index }, within(place, { index }))
  })
  return { kind: 'list', segment: 'scratch', pa, length, doc: khoScratch.doc, items }
}

/** Scratch areas that are known without their array: debugfs prints them as text. */
export function scratchFacts(ranges: readonly PhysRange[]): ListNode {
  const items = ranges.map((range, index): RecordNode => {
    const values = { addr: range.start as bigint, size: range.end - range.start }
    const children: Node[] = Object.entries(khoScratch.fields).map(([segment, type]) => ({
      kind: 'fact',
      segment,
      pa: range.start,
      length: 0,
      value: values[segment as keyof typeof values],
      show: type.show,
      doc: type.doc,
    }))
    return {
      kind: 'record',
      segment: { index },
      pa: range.start,
      length: 0,
      type: khoScratch,
      doc: khoScratch.doc,
      children,
    }
  })
  return { kind: 'list', segment: 'scratch', pa: phys(0), length: 0, doc: khoScratch.doc, items }
}

/** The areas of a scratch list as ranges of memory. */
export function scratchRanges(list: ListNode): readonly PhysRange[] {
  return list.items.map((item) => {
    const start = phys(numberAt(item, 'addr') ?? 0n)
    return { start, end: start + BigInt(numberAt(item, 'size') ?? 0n) }
  })
}
