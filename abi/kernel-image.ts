/**
 * Kernel images as far as one looks for the kernel proper in them, or has to place them: the x86 boot
 * protocol's setup header and the compressions of its payload, the header of an arm64 Image.
 *
 * Sources: Documentation/arch/x86/boot.rst; arch/x86/boot/header.S; scripts/Makefile.lib (the size that
 * follows the compressed payload); Documentation/arch/arm64/booting.rst.
 */
import { bytes, packed, text, u8, u16le, u32le, u64le } from './schema.ts'

/** Where the setup header begins in a bzImage. */
export const SETUP_HEADER_OFFSET = 0x1f1
export const SETUP_HEADER_MAGIC = 'HdrS'
/** First protocol version with the payload's place: 2.08. */
export const SETUP_PAYLOAD_VERSION = 0x0208
export const SECTOR_BYTES = 512
/** Sectors of setup code where setup_sects is 0. */
export const SETUP_DEFAULT_SECTORS = 4

export const setupHeader = packed(
  'setup_header',
  { doc: 'Header of an x86 kernel image.', source: 'arch/x86/include/uapi/asm/bootparam.h' },
  {
    setup_sects: u8('Sectors of setup code after the boot sector.'),
    skipped: bytes(16, 'Not needed here.'),
    header: text(4, '"HdrS".'),
    version: u16le('Boot protocol, high byte major.'),
    skipped2: bytes(64, 'Not needed here.'),
    payload_offset: u32le('Bytes from the protected-mode code to the payload.'),
    payload_length: u32le('Bytes of the payload, for all but gzip the appended size counted.'),
  },
)

/** Bytes of the uncompressed size that the build appends to every payload but gzip's own. */
export const APPENDED_SIZE_BYTES = 4

/** First bytes of what a payload may be. */
export const payloadFormats: readonly { readonly name: string; readonly magic: readonly number[] }[] = [
  { name: 'ELF', magic: [0x7f, 0x45, 0x4c, 0x46] },
  { name: 'gzip', magic: [0x1f, 0x8b] },
  { name: 'zstd', magic: [0x28, 0xb5, 0x2f, 0xfd] },
  { name: 'xz', magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] },
  { name: 'lz4', magic: [0x02, 0x21, 0x4c, 0x18] },
  { name: 'lzma', magic: [0x5d, 0x00, 0x00] },
  { name: 'bzip2', magic: [0x42, 0x5a, 0x68] },
  { name: 'lzo', magic: [0x89, 0x4c, 0x5a, 0x4f] },
]

/** "ARM\x64" in the file. */
export const ARM64_IMAGE_MAGIC = 0x644d5241
/** An Image goes to a multiple of this, plus `text_offset`. */
export const ARM64_IMAGE_ALIGN = 2 * 1024 * 1024

export const arm64ImageHeader = packed(
  'arm64_image_header',
  { doc: 'Header of an uncompressed arm64 kernel.', source: 'arch/arm64/include/asm/image.h' },
  {
    code: bytes(8, 'Jump over the header.'),
    text_offset: u64le('Bytes from a multiple of 2 MiB to where the image belongs.'),
    image_size: u64le('Bytes that the kernel takes, those that are zero at its start too.'),
    flags: u64le('Byte order, page size, placement.'),
    reserved: bytes(24, 'Zero.'),
    magic: u32le('"ARM\\x64".', { show: 'hex' }),
    pe_offset: u32le('Where the PE header lies, for EFI.'),
  },
)
