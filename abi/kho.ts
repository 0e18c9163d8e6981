/**
 * The KHO root FDT: version string, map of preserved memory, one node per subsystem.
 *
 * Sources: kernel/kexec_handover.c (6.16 to 6.18), include/linux/kho/abi/kexec_handover.h (7.0 and later).
 */
import { chunks512, chunksPage, radixKeyWidth, radixOrder0Position } from './kho-map.ts'
import type { Edge, FdtNodeType, FdtStyle, PropertyType } from './schema.ts'
import { compatible, fdtNode, pointer, u64le } from './schema.ts'

const abiHeader = 'include/linux/kho/abi/kexec_handover.h'
/** Before there was a header. */
const sourceV1 = 'kernel/kexec_handover.c'

function root(
  version: string,
  style: FdtStyle,
  map: Edge,
  subtree: Readonly<Record<string, PropertyType>>,
  source: string,
): FdtNodeType {
  return fdtNode({
    doc: 'Root of a handover.',
    source,
    style,
    properties: {
      compatible: compatible(version),
      'preserved-memory-map': pointer(map, 'Map of preserved memory.', { key: 'memory_map' }),
    },
    each: {
      as: 'subtrees',
      node: fdtNode({ doc: 'What one subsystem left.', source, properties: subtree }),
    },
  })
}

/** The blob is an FDT and says its own length. */
const fdtBlob = {
  fdt: pointer({ kind: 'blob' }, "Address of the subsystem's FDT.", { key: 'phys' }),
}

const preservedData = {
  'preserved-data': pointer({ kind: 'blob' }, "Address of the subsystem's FDT.", { key: 'phys' }),
}

/** From kho-v3 on a blob need not be an FDT. */
const sizedBlob = {
  'preserved-data': pointer({ kind: 'blob', size: 'blob-size' }, "Address of the subsystem's blob.", {
    key: 'phys',
  }),
  'blob-size': u64le('Bytes of the blob.', { key: 'size', show: 'bytes' }),
}

/** Linux 6.16 to 6.17.8. */
export const khoV1Bitmap512 = root('kho-v1', 'sequential', chunks512, fdtBlob, sourceV1)
/**
 * Linux 6.17.9 to 7.0: another bitmap size under the same string. 6.17.9 and 6.18 still write their root
 * FDT sequentially.
 */
export const khoV1BitmapPage = root('kho-v1', 'edited', chunksPage, fdtBlob, sourceV1)
/** Commit 3f2ad90060f6, never released. */
export const khoV2 = root('kho-v2', 'edited', radixOrder0Position, preservedData, abiHeader)
/** Linux 7.1-rc1 to -rc5: one level less at 16K pages under the same string. */
export const khoV3Rc = root('kho-v3', 'edited', radixOrder0Position, sizedBlob, abiHeader)
/** Linux 7.1. */
export const khoV3 = root('kho-v3', 'edited', radixKeyWidth, sizedBlob, abiHeader)
/** Linux 7.2 and later (commit 0349ff288705): KHO blocks enter the contract, these bytes are the same. */
export const khoV4 = root('kho-v4', 'edited', radixKeyWidth, sizedBlob, abiHeader)

/** How the root's compatible string of every version begins. */
export const KHO_COMPATIBLE_PREFIX = 'kho-v'
/** What it looks like; what a scan for handovers accepts. */
export const KHO_COMPATIBLE = new RegExp(`^${KHO_COMPATIBLE_PREFIX}[0-9]+$`)
