/* Binary layout of memfd-v2, written by `kho-inspect abi export`. */

#ifndef KHO_INSPECT_MEMFD_V2_H
#define KHO_INSPECT_MEMFD_V2_H

#ifdef __KERNEL__
#include <linux/stddef.h>
#include <linux/types.h>
#elif !defined(KHO_INSPECT_TYPES)
#define KHO_INSPECT_TYPES
#include <stddef.h>
#include <stdint.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;
typedef uint16_t __be16;
typedef uint32_t __be32;
typedef uint64_t __be64;
typedef uint32_t __u32;
typedef int32_t __s32;
typedef uint32_t __wsum;
typedef uint64_t phys_addr_t;
#endif

#ifndef KHO_PAGE_SIZE
#define KHO_PAGE_SIZE 4096
#endif

/* memfd-v2: A preserved memfd with its seals. */
#define MEMFD_LUO_FH_COMPATIBLE "memfd-v2"
#define MEMFD_LUO_SER_SEALS_SEAL 0x1
#define MEMFD_LUO_SER_SEALS_SHRINK 0x2
#define MEMFD_LUO_SER_SEALS_GROW 0x4
#define MEMFD_LUO_SER_SEALS_WRITE 0x8
#define MEMFD_LUO_SER_SEALS_FUTURE_WRITE 0x10
#define MEMFD_LUO_SER_SEALS_EXEC 0x20
#define KHO_VMALLOC_FLAGS_ALLOC 0x1
#define KHO_VMALLOC_FLAGS_HUGE_VMAP 0x2
#define MEMFD_LUO_FOLIO_SER_FLAGS_DIRTY 0x1
#define MEMFD_LUO_FOLIO_SER_FLAGS_UPTODATE 0x2
#if KHO_PAGE_SIZE == 4096
#define KHO_VMALLOC_SIZE 511
#elif KHO_PAGE_SIZE == 16384
#define KHO_VMALLOC_SIZE 2047
#elif KHO_PAGE_SIZE == 65536
#define KHO_VMALLOC_SIZE 8191
#else
#error "KHO_PAGE_SIZE must be 4096, 16384, 65536"
#endif

/* Descriptor of preserved vmalloc memory. */
struct kho_vmalloc {
	phys_addr_t first; /* First chunk, 0 if there is no memory. */
	unsigned int total_pages; /* Base pages of the area, not entries. */
	unsigned short flags; /* How the area was allocated. */
	unsigned short order; /* Order of each group of pages. */
};

/* A preserved memfd with its seals. */
struct memfd_luo_ser {
	u64 pos; /* File position (f_pos). */
	u64 size; /* File size (i_size). */
	u32 seals; /* Seals in force; a bit outside MEMFD_LUO_ALL_SEALS is refused. */
	u32 flags; /* None defined; not looked at. */
	u64 nr_folios; /* Entries of `folios`. */
	struct kho_vmalloc folios; /* Descriptor of preserved vmalloc memory. */
} __attribute__((packed));

/* Head of a chunk page. */
struct kho_vmalloc_hdr {
	phys_addr_t next; /* Next chunk, 0 at the end. */
};

/* A page of addresses; one preserved page itself. */
struct kho_vmalloc_chunk {
	struct kho_vmalloc_hdr hdr; /* Head of a chunk page. */
	phys_addr_t phys[(KHO_PAGE_SIZE - 8) / 8]; /* Pages of the area, in order. */
};

/* One folio of a preserved memfd. */
struct memfd_luo_folio_ser {
	u64 pfn:52; /* Frame number of the folio's first page; 0 is a hole. */
	u64 flags:12; /* State of the folio. */
	u64 index; /* Page offset of the folio within the file. */
} __attribute__((packed));

_Static_assert(sizeof(struct kho_vmalloc) == 16, "sizeof(struct kho_vmalloc) == 16");
_Static_assert(offsetof(struct kho_vmalloc, first) == 0, "offsetof(struct kho_vmalloc, first) == 0");
_Static_assert(sizeof(((struct kho_vmalloc *)0)->first) == 8, "sizeof(((struct kho_vmalloc *)0)->first) == 8");
_Static_assert(offsetof(struct kho_vmalloc, total_pages) == 8, "offsetof(struct kho_vmalloc, total_pages) == 8");
_Static_assert(sizeof(((struct kho_vmalloc *)0)->total_pages) == 4, "sizeof(((struct kho_vmalloc *)0)->total_pages) == 4");
_Static_assert(offsetof(struct kho_vmalloc, flags) == 12, "offsetof(struct kho_vmalloc, flags) == 12");
_Static_assert(sizeof(((struct kho_vmalloc *)0)->flags) == 2, "sizeof(((struct kho_vmalloc *)0)->flags) == 2");
_Static_assert(offsetof(struct kho_vmalloc, order) == 14, "offsetof(struct kho_vmalloc, order) == 14");
_Static_assert(sizeof(((struct kho_vmalloc *)0)->order) == 2, "sizeof(((struct kho_vmalloc *)0)->order) == 2");

_Static_assert(sizeof(struct memfd_luo_ser) == 48, "sizeof(struct memfd_luo_ser) == 48");
_Static_assert(offsetof(struct memfd_luo_ser, pos) == 0, "offsetof(struct memfd_luo_ser, pos) == 0");
_Static_assert(sizeof(((struct memfd_luo_ser *)0)->pos) == 8, "sizeof(((struct memfd_luo_ser *)0)->pos) == 8");
_Static_assert(offsetof(struct memfd_luo_ser, size) == 8, "offsetof(struct memfd_luo_ser, size) == 8");
_Static_assert(sizeof(((struct memfd_luo_ser *)0)->size) == 8, "sizeof(((struct memfd_luo_ser *)0)->size) == 8");
_Static_assert(offsetof(struct memfd_luo_ser, seals) == 16, "offsetof(struct memfd_luo_ser, seals) == 16");
_Static_assert(sizeof(((struct memfd_luo_ser *)0)->seals) == 4, "sizeof(((struct memfd_luo_ser *)0)->seals) == 4");
_Static_assert(offsetof(struct memfd_luo_ser, flags) == 20, "offsetof(struct memfd_luo_ser, flags) == 20");
_Static_assert(sizeof(((struct memfd_luo_ser *)0)->flags) == 4, "sizeof(((struct memfd_luo_ser *)0)->flags) == 4");
_Static_assert(offsetof(struct memfd_luo_ser, nr_folios) == 24, "offsetof(struct memfd_luo_ser, nr_folios) == 24");
_Static_assert(sizeof(((struct memfd_luo_ser *)0)->nr_folios) == 8, "sizeof(((struct memfd_luo_ser *)0)->nr_folios) == 8");
_Static_assert(offsetof(struct memfd_luo_ser, folios) == 32, "offsetof(struct memfd_luo_ser, folios) == 32");
_Static_assert(sizeof(((struct memfd_luo_ser *)0)->folios) == 16, "sizeof(((struct memfd_luo_ser *)0)->folios) == 16");

_Static_assert(sizeof(struct kho_vmalloc_hdr) == 8, "sizeof(struct kho_vmalloc_hdr) == 8");
_Static_assert(offsetof(struct kho_vmalloc_hdr, next) == 0, "offsetof(struct kho_vmalloc_hdr, next) == 0");
_Static_assert(sizeof(((struct kho_vmalloc_hdr *)0)->next) == 8, "sizeof(((struct kho_vmalloc_hdr *)0)->next) == 8");

_Static_assert(offsetof(struct kho_vmalloc_chunk, hdr) == 0, "offsetof(struct kho_vmalloc_chunk, hdr) == 0");
_Static_assert(sizeof(((struct kho_vmalloc_chunk *)0)->hdr) == 8, "sizeof(((struct kho_vmalloc_chunk *)0)->hdr) == 8");
_Static_assert(offsetof(struct kho_vmalloc_chunk, phys) == 8, "offsetof(struct kho_vmalloc_chunk, phys) == 8");

_Static_assert(sizeof(struct memfd_luo_folio_ser) == 16, "sizeof(struct memfd_luo_folio_ser) == 16");
_Static_assert(offsetof(struct memfd_luo_folio_ser, index) == 8, "offsetof(struct memfd_luo_folio_ser, index) == 8");
_Static_assert(sizeof(((struct memfd_luo_folio_ser *)0)->index) == 8, "sizeof(((struct memfd_luo_folio_ser *)0)->index) == 8");

#if KHO_PAGE_SIZE == 4096
_Static_assert(sizeof(struct kho_vmalloc_chunk) == 4096, "sizeof(struct kho_vmalloc_chunk) == 4096");
_Static_assert(sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 4088, "sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 4088");
#elif KHO_PAGE_SIZE == 16384
_Static_assert(sizeof(struct kho_vmalloc_chunk) == 16384, "sizeof(struct kho_vmalloc_chunk) == 16384");
_Static_assert(sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 16376, "sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 16376");
#elif KHO_PAGE_SIZE == 65536
_Static_assert(sizeof(struct kho_vmalloc_chunk) == 65536, "sizeof(struct kho_vmalloc_chunk) == 65536");
_Static_assert(sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 65528, "sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 65528");
#else
#error "KHO_PAGE_SIZE must be 4096, 16384, 65536"
#endif

#endif /* KHO_INSPECT_MEMFD_V2_H */
