/**
 * kexec-metadata: which kernel handed over, and how often that has happened.
 *
 * Source: include/linux/kho/abi/kexec_metadata.h: struct kho_kexec_metadata. Linux 7.1 and later.
 */
import { packed, text, u32le } from './schema.ts'

/** KHO_KEXEC_METADATA_VERSION */
export const KHO_KEXEC_METADATA_VERSION = 1

export const khoKexecMetadata = packed(
  'kho_kexec_metadata',
  { doc: 'Left by each kernel for the next one.', source: 'include/linux/kho/abi/kexec_metadata.h' },
  {
    version: u32le('Version of this struct.', { only: KHO_KEXEC_METADATA_VERSION }),
    previous_release: text(65, 'utsname release of the kernel that handed over.'),
    kexec_count: u32le('Handovers since the last cold boot, this one counted; at offset 69, unaligned.'),
  },
)
