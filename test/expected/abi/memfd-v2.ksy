meta:
  id: "memfd_v2"
  title: "memfd-v2: A preserved memfd with its seals."
  endian: "le"
  bit-endian: "le"
doc: "Version memfd-v2 of memfd; include/linux/kho/abi/memfd.h."
params:
  - id: "page_size"
    type: "u4"
    doc: "PAGE_SIZE of the kernel."
seq:
  - id: "memfd_luo_ser"
    type: "memfd_luo_ser"
types:
  memfd_luo_ser:
    doc: "A preserved memfd with its seals."
    seq:
      - id: "pos"
        type: "u8"
        doc: "File position (f_pos)."
      - id: "size"
        type: "u8"
        doc: "File size (i_size)."
      - id: "seals"
        type: "u4"
        doc: "Seals in force; a bit outside MEMFD_LUO_ALL_SEALS is refused. 0x1 SEAL, 0x2 SHRINK, 0x4 GROW, 0x8 WRITE, 0x10 FUTURE_WRITE, 0x20 EXEC."
      - id: "flags"
        type: "u4"
        doc: "None defined; not looked at."
      - id: "nr_folios"
        type: "u8"
        doc: "Entries of `folios`."
      - id: "folios"
        type: "kho_vmalloc"
        doc: "Descriptor of preserved vmalloc memory. -> vmalloc area of struct memfd_luo_folio_ser, 511 / 2047 / 8191 pages per chunk"
  kho_vmalloc:
    doc: "Descriptor of preserved vmalloc memory."
    seq:
      - id: "first"
        type: "u8"
        doc: "First chunk, 0 if there is no memory."
      - id: "total_pages"
        type: "u4"
        doc: "Base pages of the area, not entries."
      - id: "flags"
        type: "u2"
        doc: "How the area was allocated. 0x1 ALLOC, 0x2 HUGE_VMAP."
      - id: "order"
        type: "u2"
        doc: "Order of each group of pages."
  kho_vmalloc_chunk:
    doc: "A page of addresses; one preserved page itself."
    seq:
      - id: "hdr"
        type: "kho_vmalloc_hdr"
        doc: "Head of a chunk page."
      - id: "phys"
        type: "u8"
        repeat: "expr"
        repeat-expr: "(_root.page_size - 8) / 8"
        doc: "Pages of the area, in order. 511 / 2047 / 8191 elements."
  kho_vmalloc_hdr:
    doc: "Head of a chunk page."
    seq:
      - id: "next"
        type: "u8"
        doc: "Next chunk, 0 at the end."
  memfd_luo_folio_ser:
    doc: "One folio of a preserved memfd."
    seq:
      - id: "pfn_low"
        type: "b32"
      - id: "pfn_high"
        type: "b20"
      - id: "flags"
        type: "b12"
        doc: "State of the folio. 0x1 DIRTY, 0x2 UPTODATE."
      - id: "index"
        type: "u8"
        doc: "Page offset of the folio within the file."
    instances:
      pfn:
        value: "pfn_high * 4294967296 + pfn_low"
        doc: "Frame number of the folio's first page; 0 is a hole."
