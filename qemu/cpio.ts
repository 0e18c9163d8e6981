/**
 * Archives for initramfs in the format "newc". Several may follow each other, compressed ones too, each at
 * a multiple of four bytes.
 *
 * Source: Documentation/driver-api/early-userspace/buffer-format.rst.
 */

export interface ArchiveFile {
  readonly path: string
  readonly bytes: Uint8Array
  readonly executable?: boolean
}

const MAGIC = '070701'
const TRAILER = 'TRAILER!!!'
const REGULAR = 0o100644
const EXECUTABLE = 0o100755
const ALIGN = 4

export function cpioArchive(files: readonly ArchiveFile[]): Uint8Array {
  const entries = files.map(({ path, bytes, executable }) =>
    encodeEntry(path, executable ? EXECUTABLE : REGULAR, bytes),
  )
  return Buffer.concat([...entries.flat(), ...encodeEntry(TRAILER, 0, new Uint8Array())])
}

/** An initramfs with more files in it. */
export function withFiles(initramfs: Uint8Array, files: readonly ArchiveFile[]): Uint8Array {
  return Buffer.concat([padded(initramfs), cpioArchive(files)])
}

/** Thirteen numbers of eight hex digits, name and contents. */
function encodeEntry(path: string, mode: number, bytes: Uint8Array): Uint8Array[] {
  const name = Buffer.from(`${path}\0`)
  const [inode, links] = [0, 1]
  const numbers = [inode, mode, 0, 0, links, 0, bytes.length, 0, 0, 0, 0, name.length, 0]
  const head = MAGIC + numbers.map((number) => number.toString(16).padStart(8, '0')).join('')
  return [padded(Buffer.concat([Buffer.from(head), name])), padded(bytes)]
}

function padded(bytes: Uint8Array): Uint8Array {
  const rest = (ALIGN - (bytes.length % ALIGN)) % ALIGN
  return rest === 0 ? bytes : Buffer.concat([bytes, new Uint8Array(rest)])
}
