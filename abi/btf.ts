/**
 * BTF, the kernel's own description of its types: header and type records.
 *
 * Each record is a btf_type, followed by what its kind asks for. Only the little-endian form is declared.
 * Sources: include/uapi/linux/btf.h, Documentation/bpf/btf.rst.
 */
import { bitfields, s32le, struct, u8, u16le, u32le } from './schema.ts'

const source = 'include/uapi/linux/btf.h'

/** BTF_MAGIC */
export const BTF_MAGIC = 0xeb9f
export const BTF_VERSION = 1
/** Section of an ELF file that holds it. */
export const BTF_SECTION = '.BTF'
/** BTF_MAX_TYPE: ids end here, and the kernel takes no more. */
export const BTF_MAX_TYPE = 0x000f_ffff

/** BTF_KIND_* */
export const BtfKind = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
} as const

export const btfHeader = struct(
  'btf_header',
  { doc: 'Head of a BTF blob; a newer one may be longer.', source },
  {
    magic: u16le('0xeb9f.', { show: 'hex' }),
    version: u8('1.'),
    flags: u8('None defined.'),
    hdr_len: u32le('Bytes of this header; the offsets count from its end.'),
    type_off: u32le('Offset in bytes of the type records.'),
    type_len: u32le('Bytes of the type records.'),
    str_off: u32le('Offset in bytes of the names.'),
    str_len: u32le('Bytes of the names.'),
  },
)

export const btfType = struct(
  'btf_type',
  { doc: 'Head of a type record.', source },
  {
    name_off: u32le('Offset in bytes of the name.'),
    ...bitfields(u32le('Kind and count.'), {
      vlen: [0, 16, 'Members, values or parameters that follow.'],
      kind: [24, 5, 'BTF_KIND_*.'],
      kind_flag: [31, 1, 'Of structs: member offsets hold sizes of bit fields, too.'],
    }),
    size_or_type: u32le('Bytes of the type, or id of the type that it refers to.'),
  },
)

export const btfMember = struct(
  'btf_member',
  { doc: 'Member of a struct or union.', source },
  {
    name_off: u32le('Offset in bytes of the name; 0 for an anonymous struct or union.'),
    type: u32le("Id of the member's type."),
    ...bitfields(u32le('Place.'), {
      bit_offset: [0, 24, 'Bits from the start of the struct; with kind_flag unset all 32 bits.'],
      bitfield_size: [24, 8, 'Bits of a bit field, else 0; with kind_flag set.'],
    }),
  },
)

export const btfArray = struct(
  'btf_array',
  { doc: 'What an array is made of.', source },
  {
    type: u32le('Id of the type of an element.'),
    index_type: u32le('Id of the type of an index.'),
    nelems: u32le('Elements.'),
  },
)

export const btfEnum = struct(
  'btf_enum',
  { doc: 'Value of an enumeration of 32 bits.', source },
  { name_off: u32le('Offset in bytes of the name.'), val: s32le('Value.') },
)

export const btfEnum64 = struct(
  'btf_enum64',
  { doc: 'Value of an enumeration of 64 bits.', source },
  {
    name_off: u32le('Offset in bytes of the name.'),
    val_lo32: u32le('Low half of the value.'),
    val_hi32: u32le('High half of the value.'),
  },
)

export const btfParam = struct(
  'btf_param',
  { doc: 'Parameter of a function.', source },
  { name_off: u32le('Offset in bytes of the name.'), type: u32le("Id of the parameter's type.") },
)

export const btfVarSecinfo = struct(
  'btf_var_secinfo',
  { doc: 'Variable of a section.', source },
  {
    type: u32le("Id of the variable's record."),
    offset: u32le('Bytes from the start of the section.'),
    size: u32le('Bytes of the variable.'),
  },
)

export const btfWord = struct(
  'btf_word',
  { doc: 'The one word that follows integers, variables and declaration tags.', source },
  { value: u32le('Encoding, linkage or index of a component.') },
)
