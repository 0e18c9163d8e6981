/** Faults of the root FDT: its header and structure, its properties, the nodes of the subsystems. */
import { isUnfit } from './change.ts'
import type { NamedFault } from './named-fault.ts'

export const khoFaults: readonly NamedFault[] = [
  {
    name: 'root-compatible-unknown',
    doc: 'The root FDT is compatible with a version that no kernel knows.',
    class: 'field',
    rule: 'KHO_COMPATIBLE',
    apply: (site) => site.set('kho.compatible', 'kho-v9'),
  },
  {
    name: 'root-magic-wrong',
    doc: 'The root FDT has lost its magic number.',
    class: 'fdt',
    rule: 'KHO_FDT_HEADER',
    apply: (site) => {
      const fdt = site.fdt('kho')
      return isUnfit(fdt) ? fdt : fdt.header('magic', 0xd00dfeee)
    },
  },
  {
    name: 'map-address-zero',
    doc: 'The root FDT says that the map of preserved memory is at address 0.',
    class: 'field',
    rule: 'KHO_MAP_ADDRESS',
    apply: (site) => site.set('kho.memory_map', 0n),
  },
  {
    name: 'map-property-missing',
    doc: 'The root FDT does not say where the map of preserved memory is.',
    class: 'fdt',
    rule: 'KHO_MAP_PROPERTY',
    apply: (site) => {
      const fdt = site.fdt('kho')
      return isUnfit(fdt) ? fdt : fdt.drop(fdt.root, 'preserved-memory-map')
    },
  },
]
