/**
 * Image containers: the headers of the files in which physical memory is kept. ELF core, LiME,
 * kdump-compressed (makedumpfile, QEMU), makedumpfile's flattened form.
 *
 * Only the 64-bit little-endian forms are declared, since KHO exists on no other machine; the reader
 * tells the others apart to name them. Sources: include/uapi/linux/elf.h; makedumpfile diskdump_mod.h
 * and makedumpfile.h; QEMU include/sysemu/dump.h; LiME src/lime.h; AVML src/image.rs.
 */
import type { Target } from './layout.ts'
import { array, bytes, packed, struct, text, u8, u16le, u32le, u64be, u64le } from './schema.ts'

/** Container headers do not depend on the page size; this is for the functions that ask for one. */
export const CONTAINER_TARGET: Target = { pageSize: 4096 }

const elfSource = 'include/uapi/linux/elf.h'

/** 0x7f 'E' 'L' 'F' */
export const ELF_MAGIC = Uint8Array.of(0x7f, 0x45, 0x4c, 0x46)
export const ELFCLASS64 = 2
export const ELFDATA2LSB = 1
export const EV_CURRENT = 1
export const ET_CORE = 4
/** Names of e_type, for messages. */
export const elfTypes: readonly string[] = ['none', 'relocatable', 'executable', 'shared object', 'core']
export const EM_X86_64 = 62
export const EM_AARCH64 = 183
export const PT_LOAD = 1
export const PT_NOTE = 4
/** e_phnum where the count stands in sh_info of section header 0. */
export const PN_XNUM = 0xffff
/** p_flags: readable. */
export const PF_R = 4
/** p_paddr of a /proc/kcore segment whose physical address is unknown: (elf_addr_t)-1. */
export const KCORE_NO_PADDR = 0xffff_ffff_ffff_ffffn

export const elf64Ehdr = struct(
  'elf64_hdr',
  { doc: 'Head of an ELF file.', source: elfSource },
  {
    ei_magic: bytes(4, 'Magic.'),
    ei_class: u8('2 is 64-bit.'),
    ei_data: u8('1 is little-endian.'),
    ei_version: u8('1.'),
    ei_osabi: u8('Not used.'),
    ei_pad: bytes(8, 'Not used.'),
    e_type: u16le('4 is a core file.'),
    e_machine: u16le('62 is x86_64, 183 is aarch64.'),
    e_version: u32le('1.'),
    e_entry: u64le('Not used in a core file.'),
    e_phoff: u64le('File offset of the program headers.'),
    e_shoff: u64le('File offset of the section headers, 0 if there are none.'),
    e_flags: u32le('Not used.'),
    e_ehsize: u16le('Bytes of this header.'),
    e_phentsize: u16le('Bytes of a program header.'),
    e_phnum: u16le('Program headers; 0xffff: the number is in section header 0.'),
    e_shentsize: u16le('Bytes of a section header.'),
    e_shnum: u16le('Section headers.'),
    e_shstrndx: u16le('Index of the section names.'),
  },
)

export const elf64Phdr = struct(
  'elf64_phdr',
  { doc: 'One segment of the file.', source: elfSource },
  {
    p_type: u32le('1 is memory, 4 is notes.'),
    p_flags: u32le('Access.'),
    p_offset: u64le('File offset of the bytes.'),
    p_vaddr: u64le('Virtual address, 0 where the dumper knows none.', { show: 'hex' }),
    p_paddr: u64le('Physical address.', { show: 'hex' }),
    p_filesz: u64le('Bytes in the file; the rest up to p_memsz was left out.'),
    p_memsz: u64le('Bytes of memory.'),
    p_align: u64le('Not used.'),
  },
)

export const elf64Shdr = struct(
  'elf64_shdr',
  { doc: 'Section header; of a core file only number 0 is read, for its sh_info.', source: elfSource },
  {
    sh_name: u32le('Not used.'),
    sh_type: u32le('Kind of section; 0 in number 0.'),
    sh_flags: u64le('Not used.'),
    sh_addr: u64le('Not used.'),
    sh_offset: u64le('Not used.'),
    sh_size: u64le('Number of section headers, where e_shnum is 0.'),
    sh_link: u32le('The section of strings that belongs to a table of symbols.'),
    sh_info: u32le('Number of program headers, where e_phnum is 0xffff.'),
    sh_addralign: u64le('Not used.'),
    sh_entsize: u64le('Not used.'),
  },
)

/** sh_type of a table of symbols. */
export const SHT_SYMTAB = 2

export const elf64Sym = struct(
  'elf64_sym',
  { doc: 'Symbol; of a vmlinux those are looked up that mark addresses.', source: elfSource },
  {
    st_name: u32le('Offset of the name in the linked section of strings.'),
    st_info: u8('Not used.'),
    st_other: u8('Not used.'),
    st_shndx: u16le('Not used.'),
    st_value: u64le('Address.', { show: 'hex' }),
    st_size: u64le('Not used.'),
  },
)

export const elf64Nhdr = struct(
  'elf64_note',
  { doc: 'Head of a note; name and descriptor follow, each padded to 4 bytes.', source: elfSource },
  {
    n_namesz: u32le('Bytes of the name, its NUL counted.'),
    n_descsz: u32le('Bytes of the descriptor.'),
    n_type: u32le('Kind of note, by owner.'),
  },
)

/** Alignment of names and descriptors in note segments of core files, 64-bit ones too. */
export const NOTE_ALIGN = 4

const limeSource = 'LiME src/lime.h'

/** LIME_MAGIC, "EMiL" in the file. */
export const LIME_MAGIC = 0x4c694d45
export const LIME_VERSION = 1
/** AVML's own form, version 2: Snappy frames behind the same header. "AVML" in the file. */
export const AVML_MAGIC = 0x4c4d5641

export const limeHeader = packed(
  'lime_mem_range_header',
  { doc: 'Head of one range of memory, whose bytes follow.', source: limeSource },
  {
    magic: u32le('"EMiL".', { show: 'hex' }),
    version: u32le('1.'),
    s_addr: u64le('First physical address.', { show: 'hex' }),
    e_addr: u64le('Last physical address, inclusive.', { show: 'hex' }),
    reserved: bytes(8, 'Zero.'),
  },
)

const kdumpSource = 'makedumpfile diskdump_mod.h'

export const KDUMP_SIGNATURE = 'KDUMP   '
export const DISKDUMP_SIGNATURE = 'DISKDUMP'
/** Version from which on the 64-bit members of the sub header count. */
export const KDUMP_VERSION_64 = 6
/** Version from which on `split`, and from which on the note section, is there. */
export const KDUMP_VERSION_SPLIT = 2
export const KDUMP_VERSION_NOTES = 4
/** Blocks of the main header. */
export const DISKDUMP_HEADER_BLOCKS = 1
/** `new_utsname` members have room for 64 bytes and a NUL. */
const UTS_LENGTH = 65

const newUtsname = struct(
  'new_utsname',
  { doc: 'What uname(2) says of the dumped kernel.', source: 'include/uapi/linux/utsname.h' },
  {
    sysname: text(UTS_LENGTH, 'Linux.'),
    nodename: text(UTS_LENGTH, 'Host.'),
    release: text(UTS_LENGTH, 'Kernel release.'),
    version: text(UTS_LENGTH, 'Kernel version.'),
    machine: text(UTS_LENGTH, 'Architecture.'),
    domainname: text(UTS_LENGTH, 'NIS domain.'),
  },
)

export const diskDumpHeader = struct(
  'disk_dump_header',
  { doc: 'Main header of a kdump-compressed file.', source: kdumpSource },
  {
    signature: bytes(8, '"KDUMP   " or "DISKDUMP".'),
    header_version: u32le('6 is current.'),
    utsname: newUtsname,
    timestamp: array(u64le('Seconds, microseconds.'), 2, 'Time of the dump.'),
    status: u32le('Compression of the pages, incompleteness; see dumpFlags.'),
    block_size: u32le('Page size of the dumped machine; unit of all block counts.', { show: 'bytes' }),
    sub_hdr_size: u32le('Blocks of the sub header.'),
    bitmap_blocks: u32le('Blocks of both bitmaps.'),
    max_mapnr: u32le('Number of page frames; from version 6 on in the sub header.'),
    total_ram_blocks: u32le('Not used.'),
    device_blocks: u32le('Not used.'),
    written_blocks: u32le('Not used.'),
    current_cpu: u32le('CPU that wrote the dump.'),
    nr_cpus: u32le('CPUs of the machine.'),
  },
)

export const kdumpSubHeader = struct(
  'kdump_sub_header',
  { doc: 'Sub header of a kdump-compressed file.', source: kdumpSource },
  {
    phys_base: u64le('Where the kernel was loaded.', { show: 'hex' }),
    dump_level: u32le('Kinds of pages left out.'),
    split: u32le('1 if the dump is spread over several files.'),
    start_pfn: u64le('First frame of this part; from version 6 on start_pfn_64.'),
    end_pfn: u64le('End of this part, exclusive; from version 6 on end_pfn_64.'),
    offset_vmcoreinfo: u64le('File offset of VMCOREINFO.'),
    size_vmcoreinfo: u64le('Bytes of it.'),
    offset_note: u64le('File offset of the ELF notes.'),
    size_note: u64le('Bytes of them.'),
    offset_eraseinfo: u64le('File offset of the list of erased data.'),
    size_eraseinfo: u64le('Bytes of it.'),
    start_pfn_64: u64le('First frame of this part.'),
    end_pfn_64: u64le('End of this part, exclusive.'),
    max_mapnr_64: u64le('Number of page frames.'),
  },
)

/** DUMP_DH_*: compression of one page, or (in the header's status) of the file. */
export const dumpFlags = {
  ZLIB: 0x01,
  LZO: 0x02,
  SNAPPY: 0x04,
  INCOMPLETE: 0x08,
  EXCLUDED_VMEMMAP: 0x10,
  ZSTD: 0x20,
} as const

/** Descriptor of one dumped page; they stand in the order of the set bits of the second bitmap. */
export const kdumpPageDesc = struct(
  'page_desc',
  { doc: 'Where the data of one page is.', source: kdumpSource },
  {
    offset: u64le('File offset of the data; 0 where an incomplete dump does not hold the page.'),
    size: u32le('Bytes of the data.'),
    flags: u32le('Compression.', { flags: dumpFlags }),
    page_flags: u64le('Not used.'),
  },
)

const flatSource = 'makedumpfile makedumpfile.h'

export const FLAT_SIGNATURE = 'makedumpfile'
export const FLAT_TYPE = 1n
export const FLAT_VERSION = 1n
/** Bytes before the first record, most of them zero (MAX_SIZE_MDF_HEADER). */
export const FLAT_HEADER_BYTES = 4096
/** Offset and size of the record that ends the file: -1. */
export const FLAT_END = 0xffff_ffff_ffff_ffffn

/** Flattened files are big-endian on every machine. */
export const flatHeader = packed(
  'makedumpfile_header',
  { doc: 'Head of a flattened file, a dump written to a pipe.', source: flatSource },
  {
    signature: text(16, '"makedumpfile".'),
    type: u64be('1.'),
    version: u64be('1.'),
  },
)

export const flatRecord = packed(
  'makedumpfile_data_header',
  { doc: 'Head of a piece of the file, whose bytes follow.', source: flatSource },
  {
    offset: u64be('Offset of the piece in the rearranged file; -1 ends the list.'),
    buf_size: u64be('Bytes of the piece.'),
  },
)

/** Most segments or ranges of an image; a count above is refused. */
export const MAX_SEGMENTS = 1 << 18
/** Most of them where any two overlap. */
export const MAX_OVERLAPPING_SEGMENTS = 1 << 14
/** Most bytes of notes that a reader takes. */
export const MAX_NOTE_BYTES = 16 * 1024 * 1024
/** Most page frames of a kdump-compressed file: 256 TiB of 4K pages. */
export const MAX_DUMP_FRAMES = 2 ** 36
