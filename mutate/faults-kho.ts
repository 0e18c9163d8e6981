/** Faults of the root FDT: its header and structure, its properties, the nodes of the subsystems. */
import { isUnfit } from './change.ts'
import type { NamedFault } from './named-fault.ts'

export const khoFaults: readonly NamedFault[] = [
  {
    name: 'root-size-zero',
    doc: 'The next kernel is told that the root FDT has no bytes.',
    class: 'boot',
    rule: 'KHO_FDT_MAPPED',
    apply: () => [{ boot: { fdt_size: 0n } }],
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
    name: 'root-compatible-unknown',
    doc: 'The root FDT is compatible with a version that no kernel knows.',
    class: 'field',
    rule: 'KHO_COMPATIBLE',
    apply: (site) => site.set('kho.compatible', 'kho-v9'),
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
  {
    name: 'map-address-zero',
    doc: 'The root FDT says that the map of preserved memory is at address 0.',
    class: 'field',
    rule: 'KHO_MAP_ADDRESS',
    apply: (site) => site.set('kho.memory_map', 0n),
  },
  {
    name: 'root-end-missing',
    doc: 'The structure block of the root FDT has no FDT_END.',
    class: 'fdt',
    rule: 'KHO_FDT_FORM',
    apply: (site) => {
      const fdt = site.fdt('kho')
      return isUnfit(fdt) ? fdt : fdt.header('size_dt_struct', fdt.fdt.header.size_dt_struct - 4)
    },
  },
  {
    name: 'subtree-duplicate',
    doc: 'Two nodes of the root FDT have the name of one subsystem; the kernel finds the first.',
    class: 'fdt',
    rule: 'KHO_FDT_DUPLICATE',
    follows: ['KHO_UNIT_UNCLAIMED'],
    apply: (site) => {
      const fdt = site.fdt('kho')
      if (isUnfit(fdt)) return fdt
      const names = fdt.root.children.map(({ name }) => name)
      if (names.indexOf('memblock') > names.indexOf('kho_test'))
        return { unfit: 'memblock does not stand before kho_test' }
      return fdt.rename(fdt.node('kho_test'), 'memblock')
    },
  },
]
