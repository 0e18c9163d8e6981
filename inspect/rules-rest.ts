/** What the decoder found and no other rule speaks of: memory that the image lacks, and everything else. */
import type { Fault } from '../abi/fault.ts'
import { note, type Rule, silent } from './rule.ts'
import { violationOf } from './violations.ts'

const rest = {
  component: 'kho',
  since: 'linux-6.16',
  stage: 'retrieve',
  requires: ['KHO_MAP_ADDRESS'],
  isRest: true,
} as const

/** What is missing from the image, or what it leaves open, speaks neither for nor against the handover. */
const isOpen = ({ severity, code }: Fault): boolean =>
  severity === 'note' || (severity === 'warning' && code !== 'VALUE_UNEXPECTED' && code !== 'BLOB_SIZE')

export const restRules: readonly Rule[] = [
  silent({
    ...rest,
    id: 'POINTER_INTO_NOTHING',
    why: 'Pointers are followed as they are; where this one leads, the image has no memory.',
    source: 'phys_to_virt()',
    outcome: 'corrupts',
    check: function* ({ handover, faults }) {
      if (handover.fdt === undefined) return
      for (const fault of faults.take(['MEMORY_HOLE', 'ADDRESS_OVERFLOW'])) yield violationOf(fault)
    },
  }),
  silent({
    ...rest,
    id: 'FORMAT',
    why: 'The handover contradicts its format in a place that no reader known here looks at.',
    source: 'kho_retrieve_subtree()',
    outcome: 'takes-over',
    check: function* ({ faults }) {
      for (const fault of faults.takeIf((fault) => !isOpen(fault)))
        yield { ...violationOf(fault), severity: fault.severity }
    },
  }),
  note({
    ...rest,
    id: 'NOT_IN_IMAGE',
    why: 'The image does not hold it or does not tell it, so nothing can be said of it.',
    source: 'kho_populate()',
    check: function* ({ faults }) {
      for (const fault of faults.takeIf(() => true)) yield violationOf(fault)
    },
  }),
]
