/** Faults of the root FDT: its header and structure, its properties, the nodes of the subsystems. */
import type { NamedFault } from './named-fault.ts'

export const khoFaults: readonly NamedFault[] = [
  {
    name: 'root-compatible-unknown',
    doc: 'The root FDT is compatible with a version that no kernel knows.',
    class: 'field',
    rule: 'KHO_COMPATIBLE',
    apply: (site) => site.set('kho.compatible', 'kho-v9'),
  },
]
