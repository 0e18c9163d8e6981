/**
 * The kernel's names for the strings and numbers of the ABI: which macro of which file defines what.
 *
 * A macro keeps its meaning while its value moves on: KHO_FDT_COMPATIBLE has been "kho-v1" and
 * "kho-v4". The values themselves are in the declarations. Sources: include/linux/kho/abi/*.h of Linux
 * 6.19 to 7.3, kernel/kexec_handover.c, kernel/liveupdate/, mm/memblock.c and lib/test_kho.c.
 */
import type { ComponentName } from './registry.ts'

export interface KernelSymbol {
  readonly name: string
  /** File that defines it in the newest release that has it. */
  readonly header: string
  readonly component: ComponentName
  readonly is: 'contract' | 'subtree' | 'node' | 'property'
  /** Node that holds the version string or property, or that is named; a struct's field by tag and name. */
  readonly at: string
}

const handover = 'include/linux/kho/abi/kexec_handover.h'
const oldHandover = 'kernel/liveupdate/kexec_handover.c'
const metadata = 'include/linux/kho/abi/kexec_metadata.h'
const luo = 'include/linux/kho/abi/luo.h'
const memblock = 'include/linux/kho/abi/memblock.h'
const memfd = 'include/linux/kho/abi/memfd.h'
const test = 'lib/test_kho.c'

function symbol(
  name: string,
  is: KernelSymbol['is'],
  component: ComponentName,
  at: string,
  header: string,
): KernelSymbol {
  return { name, is, component, at, header }
}

export const kernelSymbols: readonly KernelSymbol[] = [
  symbol('KHO_FDT_COMPATIBLE', 'contract', 'kho', '/', handover),
  symbol('KHO_FDT_MEMORY_MAP_PROP_NAME', 'property', 'kho', '/:preserved-memory-map', handover),
  symbol('KHO_SUB_TREE_PROP_NAME', 'property', 'kho', '/*:preserved-data', handover),
  symbol('KHO_SUB_TREE_SIZE_PROP_NAME', 'property', 'kho', '/*:blob-size', handover),
  symbol('PROP_PRESERVED_MEMORY_MAP', 'property', 'kho', '/:preserved-memory-map', oldHandover),
  symbol('KHO_FDT_SUB_TREE_PROP_NAME', 'property', 'kho', '/*:fdt', handover),
  symbol('PROP_SUB_FDT', 'property', 'kho', '/*:fdt', oldHandover),
  symbol('KHO_METADATA_NODE_NAME', 'subtree', 'kexec-metadata', '', metadata),
  symbol('KHO_KEXEC_METADATA_VERSION', 'contract', 'kexec-metadata', 'kho_kexec_metadata.version', metadata),
  symbol('MEMBLOCK_KHO_FDT', 'subtree', 'memblock', '', memblock),
  symbol('MEMBLOCK_KHO_NODE_COMPATIBLE', 'contract', 'memblock', '/', memblock),
  symbol('RESERVE_MEM_KHO_NODE_COMPATIBLE', 'contract', 'memblock', '/*', memblock),
  symbol('LUO_FDT_KHO_ENTRY_NAME', 'subtree', 'luo', '', luo),
  symbol('LUO_KHO_ENTRY_NAME', 'subtree', 'luo', '', luo),
  symbol('LUO_FDT_COMPATIBLE', 'contract', 'luo', '/', luo),
  symbol('LUO_ABI_COMPATIBLE', 'contract', 'luo', 'luo_ser.compatible', luo),
  symbol('LUO_FDT_LIVEUPDATE_NUM', 'property', 'luo', '/:liveupdate-number', luo),
  symbol('LUO_FDT_ABI_HEADER', 'property', 'luo', '/:luo-abi-header', luo),
  symbol('LUO_FDT_SESSION_NODE_NAME', 'node', 'luo', '/luo-session', luo),
  symbol('LUO_FDT_SESSION_COMPATIBLE', 'contract', 'luo', '/luo-session', luo),
  symbol('LUO_FDT_SESSION_HEADER', 'property', 'luo', '/luo-session:luo-session-header', luo),
  symbol('LUO_FDT_FLB_NODE_NAME', 'node', 'luo', '/luo-flb', luo),
  symbol('LUO_FDT_FLB_COMPATIBLE', 'contract', 'luo', '/luo-flb', luo),
  symbol('LUO_FDT_FLB_HEADER', 'property', 'luo', '/luo-flb:luo-flb-header', luo),
  symbol('MEMFD_LUO_FH_COMPATIBLE', 'contract', 'memfd', 'luo_file_ser.compatible', memfd),
  symbol('KHO_TEST_FDT', 'subtree', 'kho-test', '', test),
  symbol('KHO_TEST_COMPAT', 'contract', 'kho-test', '/', test),
]

export function symbolByName(name: string): KernelSymbol | undefined {
  return kernelSymbols.find((known) => known.name === name)
}

/** The macro for a place of a component, in the newest header that has one. */
export function symbolAt(component: string, at: string, is: KernelSymbol['is']): KernelSymbol | undefined {
  return kernelSymbols.find((known) => known.component === component && known.at === at && known.is === is)
}
