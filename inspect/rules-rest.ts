/** What the decoder found and no other rule speaks of: memory that the image lacks, and everything else. */
import { note, type Rule, silent } from './rule.ts'
import { violationOf } from './violations.ts'

export const restRules: readonly Rule[] = [
  silent({
    id: 'POINTER_INTO_NOTHING',
    component: 'kho',
    since: 'linux-6.16',
    why: 'Pointers are followed as they are; where they lead, the image has no memory.',
    source: 'phys_to_virt()',
    outcome: 'corrupts',
    stage: 'retrieve',
    requires: ['KHO_MAP_ADDRESS'],
    isRest: true,
    check: function* ({ faults }) {
      for (const fault of faults.take(['MEMORY_HOLE', 'ADDRESS_OVERFLOW'])) yield violationOf(fault)
    },
  }),
  silent({
    id: 'FORMAT',
    component: 'kho',
    since: 'linux-6.16',
    why: 'The handover contradicts its format in a place that no reader looks at.',
    source: 'none',
    outcome: 'takes-over',
    stage: 'retrieve',
    requires: ['KHO_MAP_ADDRESS'],
    isRest: true,
    check: function* ({ faults }) {
      for (const fault of faults.takeIf(({ severity }) => severity === 'error')) yield violationOf(fault)
    },
  }),
  silent({
    id: 'FORMAT_ODD',
    component: 'kho',
    severity: 'warning',
    since: 'linux-6.16',
    why: 'The handover is not as the kernel writes it, in a place that no reader looks at.',
    source: 'none',
    outcome: 'takes-over',
    stage: 'retrieve',
    requires: ['KHO_MAP_ADDRESS'],
    isRest: true,
    check: function* ({ faults }) {
      const isOdd = ({ severity, code }: { severity: string; code: string }): boolean =>
        severity === 'warning' && !['MEMORY_EXCLUDED', 'FDT_TRUNCATED'].includes(code)
      for (const fault of faults.takeIf(isOdd)) yield violationOf(fault)
    },
  }),
  note({
    id: 'NOT_IN_IMAGE',
    component: 'kho',
    since: 'linux-6.16',
    why: 'The image does not hold it, so nothing can be said of it.',
    source: 'none',
    stage: 'retrieve',
    check: function* ({ faults }) {
      for (const fault of faults.takeIf(() => true)) yield violationOf(fault)
    },
  }),
]
