/** kexec-metadata as kho_in_kexec_metadata() reads it (kernel/liveupdate/kexec_handover.c of Linux 7.1 and later). */
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { phys } from '../abi/memory.ts'
import { componentByName, versionById } from '../abi/registry.ts'
import type { IntType, StructType } from '../abi/schema.ts'
import { ROOT, within } from './faults.ts'
import type { Incoming } from './incoming.ts'
import { type Blob, retrieveSubtree } from './incoming-subtree.ts'
import { decodeText } from './text.ts'

interface MetadataValue {
  readonly version: number
  readonly previous_release: Uint8Array
  readonly kexec_count: number
}

/** What the kernel wants to see before it looks at the version. */
const VERSION_BYTES = 4n

export function readMetadata(incoming: Incoming): void {
  const { subject } = incoming
  const version = versionById(subject.speaks('kexec-metadata') ?? '')
  if (version?.root.kind !== 'struct') return
  const blob = findMetadata(incoming, version.root)
  if (!blob) return
  const { place, pa } = blob
  const { size } = layoutOf(version.root, subject.target)
  if (reportSize(incoming, blob, VERSION_BYTES)) return
  const bytes = blob.bytes ?? incoming.bytes(pa, size, place)
  if (!bytes) return
  const value = incoming.decode<MetadataValue>(version.root, bytes)
  const at = (field: string) =>
    phys(pa + BigInt(fieldOf(version.root as never, field, subject.target).offset))
  const { only = 0 } = version.root.fields.version as IntType
  if (value.version !== only) {
    const told = {
      message: 'the metadata are of another version',
      expected: String(only),
      found: String(value.version),
    }
    const details = { pa: at('version'), length: 4, ...told, log: [value.version, only] }
    incoming.report('METADATA_VERSION', within(place, 'version'), details)
    return
  }
  if (reportSize(incoming, blob, BigInt(size))) return
  const { previous_release: release } = value
  incoming.metadata = {
    release: decodeText(release.subarray(0, release.length - 1)),
    count: value.kexec_count,
  }
  if (!value.previous_release.includes(0)) {
    const message = 'the release has no end; the kernel takes its first bytes'
    const details = {
      pa: at('previous_release'),
      length: value.previous_release.length,
      message,
      expected: 'a NUL',
    }
    incoming.report('METADATA_RELEASE', within(place, 'previous_release'), details)
  }
  if (value.kexec_count === 0) {
    const message = 'no handover is counted, not even this one'
    const details = { pa: at('kexec_count'), length: 4, message, expected: 'at least 1', found: '0' }
    incoming.report('METADATA_COUNT', within(place, 'kexec_count'), details)
  }
}

interface Metadata extends Pick<Blob, 'pa' | 'size' | 'sizePa' | 'place'> {
  /** Where they do not lie in the image's memory. */
  readonly bytes?: Uint8Array
}

/** The metadata that the root FDT leads to; where the image holds that only in part, those that debugfs gives. */
function findMetadata(incoming: Incoming, type: StructType): Metadata | undefined {
  const { subject } = incoming
  const blob = retrieveSubtree(incoming, 'kexec-metadata')
  if (typeof blob === 'object') {
    const claimed = { rule: 'METADATA_PRESERVED', what: type.name, restore: 'read', pages: 1 } as const
    incoming.claimUnit(blob.place, claimed, blob.pa, blob.pointer.pa)
    return blob
  }
  const { key } = componentByName('kexec-metadata')
  const loose = subject.root ? undefined : subject.handover.looseBlobs.get(key)
  if (!loose) return undefined
  const bytes = new Uint8Array(layoutOf(type, subject.target).size)
  bytes.set(loose.subarray(0, bytes.length))
  return { pa: phys(0), sizePa: phys(0), size: BigInt(loose.length), place: within(ROOT, key), bytes }
}

/** Whether the blob is too small for what the kernel is about to read. */
function reportSize(incoming: Incoming, { size, sizePa, place }: Metadata, least: bigint): boolean {
  if (size === undefined || size >= least) return false
  const told = {
    message: 'the metadata are too small',
    expected: `at least ${least} bytes`,
    found: `${size} bytes`,
  }
  const isHead = least === VERSION_BYTES
  incoming.report('METADATA_SIZE', place, {
    pa: sizePa,
    length: 8,
    ...told,
    ...(isHead ? { further: [['METADATA_HEAD', size] as const] } : { log: [1, size, least] }),
  })
  return true
}
