/**
 * The boot entry and the scratch areas as parts of the tree: from struct kho_data and the array that it
 * points to, or from what debugfs prints.
 */
import { EARLY_MEMREMAP_MAX, khoData, khoScratch } from '../abi/boot.ts'
import type { FaultCode, Severity } from '../abi/fault.ts'
import { layoutOf } from '../abi/layout.ts'
import { type PhysRange, phys } from '../abi/memory.ts'
import type { Infer } from '../abi/schema.ts'
import { elementsIn, type WalkContext } from './chain.ts'
import { decodeRecord } from './component.ts'
import { behind, ROOT, within } from './faults.ts'
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

/** Where the array of scratch areas lies, and its length in bytes. */
export type ScratchArray = Pick<KhoData, 'scratch_addr' | 'scratch_size'>

/**
 * Reads the array of scratch areas as far as the image holds it. An array longer than the kernel maps is
 * a fault, a length that is no whole number of areas (which the kernel rounds down) a warning.
 */
export function decodeScratch(context: WalkContext, array: ScratchArray): ListNode | undefined {
  const pointer = { path: ['boot', 'scratch_addr'], pa: phys(0) }
  const place = behind(within(ROOT, 'scratch'), pointer, array.scratch_addr)
  const { size } = layoutOf(khoScratch, context.target)
  const claimed = array.scratch_size
  const limit = BigInt(EARLY_MEMREMAP_MAX)
  const fault = (code: FaultCode, severity: Severity, message: string, expected: string): void => {
    const found = `${claimed} bytes`
    const details = { pa: phys(array.scratch_addr), length: 0, severity, message, expected, found }
    context.faults.add(within(ROOT, 'boot', 'scratch_size'), code, details)
  }
  if (claimed > limit) {
    fault('COUNT_RANGE', 'error', 'the kernel cannot map the scratch array', `at most ${limit} bytes`)
    return undefined
  }
  if (claimed % BigInt(size) !== 0n) {
    fault('VALUE_UNEXPECTED', 'warning', 'the scratch array ends inside an area', `a multiple of ${size}`)
  }
  const pa = phys(array.scratch_addr)
  const count = Math.floor(Number(claimed) / size)
  const elements = elementsIn(context, khoScratch, pa, { from: 0, count }, place)
  if (elements.length === 0 && count > 0) return undefined
  const items = elements.map((element, index) =>
    decodeRecord(context, khoScratch, element, { index }, within(place, { index })),
  )
  return { kind: 'list', segment: 'scratch', pa, length: items.length * size, doc: khoScratch.doc, items }
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
