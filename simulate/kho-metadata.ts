/**
 * kexec-metadata: each kernel reads who handed over and how often that has happened, and says so to the
 * next one. Nothing of it is ever fatal for the incoming side.
 *
 * Source: kernel/liveupdate/kexec_handover.c: kho_in_kexec_metadata(), kho_out_kexec_metadata().
 */
import { KHO_KEXEC_METADATA_VERSION, khoKexecMetadata } from '../abi/kexec-metadata.ts'
import { fieldOf, layoutOf, sizeOf } from '../abi/layout.ts'
import type { PhysAddr } from '../abi/memory.ts'
import { componentByName } from '../abi/registry.ts'
import { encodeStruct } from '../encode/write.ts'
import { decodeStruct } from '../inspect/record.ts'
import { beforeNul, decodeText } from '../inspect/text.ts'
import { type Answer, failed } from './answer.ts'
import type { KernelBase } from './context.ts'
import type { KhoApi } from './core.ts'

export interface PreviousKernel {
  readonly release: string
  readonly count: number
}

export const METADATA_NODE = componentByName('kexec-metadata').subtree as string

/** What the old kernel says of itself; undefined where it says nothing that can be understood. */
export function readMetadata(kernel: KernelBase, kho: KhoApi): PreviousKernel | undefined {
  const { ram, target, say } = kernel
  const blob = kho.retrieveSubtree(METADATA_NODE)
  if (failed(blob)) return undefined
  const { size } = layoutOf(khoKexecMetadata, target)
  const { type: version } = fieldOf(khoKexecMetadata, 'version', target)
  const length = blob.size ?? size
  if (length < sizeOf(version, target)) {
    say('METADATA_HEAD', length)
    return undefined
  }
  const metadata = decodeStruct(khoKexecMetadata, ram.read(blob.pa, size), target)
  if (metadata.version !== KHO_KEXEC_METADATA_VERSION) {
    say('METADATA_VERSION', metadata.version, KHO_KEXEC_METADATA_VERSION)
    return undefined
  }
  if (length < size) {
    say('METADATA_SIZE', metadata.version, length, size)
    return undefined
  }
  const text = metadata.previous_release.subarray(0, metadata.previous_release.length - 1)
  const release = decodeText(beforeNul(text))
  say('METADATA_FOUND', release, metadata.kexec_count)
  return { release, count: metadata.kexec_count }
}

/** Leaves this kernel's name and the count for the next one. */
export function writeMetadata(kernel: KernelBase, kho: KhoApi, count: number): Answer<PhysAddr> {
  const { size } = layoutOf(khoKexecMetadata, kernel.target)
  const pa = kho.allocPreserve(size)
  if (failed(pa)) return pa
  const value = {
    version: KHO_KEXEC_METADATA_VERSION,
    previous_release: kernel.version,
    kexec_count: (count + 1) >>> 0,
  }
  kernel.ram.write(pa, encodeStruct(khoKexecMetadata, value, kernel.target))
  const added = kho.addSubtree(METADATA_NODE, pa, size)
  if (!failed(added)) return pa
  kho.unpreserveFree(pa)
  return added
}
