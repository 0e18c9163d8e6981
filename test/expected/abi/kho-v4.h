/* Binary layout of kho-v4, written by `kho-inspect abi export`. */

#ifndef KHO_INSPECT_KHO_V4_H
#define KHO_INSPECT_KHO_V4_H

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

/* kho-v4: Root of a handover. */
/* node /: compatible (string), preserved-memory-map (phys_addr_t) */
/* node /<name>: preserved-data (phys_addr_t), blob-size (u64) */
#define KHO_FDT_COMPATIBLE "kho-v4"
#define KHO_FDT_MEMORY_MAP_PROP_NAME "preserved-memory-map"
#define KHO_SUB_TREE_PROP_NAME "preserved-data"
#define KHO_SUB_TREE_SIZE_PROP_NAME "blob-size"
#define KHO_VMALLOC_FLAGS_ALLOC 0x1
#define KHO_VMALLOC_FLAGS_HUGE_VMAP 0x2
#if KHO_PAGE_SIZE == 4096
#define KHO_ORDER_0_LOG2 52
#define KHO_RADIX_KEY_WIDTH 53
#define KHO_TABLE_SIZE_LOG2 9
#define KHO_BITMAP_SIZE_LOG2 15
#define KHO_TREE_MAX_DEPTH 6
#elif KHO_PAGE_SIZE == 16384
#define KHO_ORDER_0_LOG2 50
#define KHO_RADIX_KEY_WIDTH 51
#define KHO_TABLE_SIZE_LOG2 11
#define KHO_BITMAP_SIZE_LOG2 17
#define KHO_TREE_MAX_DEPTH 5
#elif KHO_PAGE_SIZE == 65536
#define KHO_ORDER_0_LOG2 48
#define KHO_RADIX_KEY_WIDTH 49
#define KHO_TABLE_SIZE_LOG2 13
#define KHO_BITMAP_SIZE_LOG2 19
#define KHO_TREE_MAX_DEPTH 4
#else
#error "KHO_PAGE_SIZE must be 4096, 16384, 65536"
#endif

/* Inner node of the radix tree, one page; not preserved itself. */
struct kho_radix_node {
	u64 table[(KHO_PAGE_SIZE - 0) / 8]; /* Children by index. */
};

/* Leaf of the radix tree, one page of key bits; not preserved itself. */
struct kho_radix_leaf {
	u64 bitmap[(KHO_PAGE_SIZE - 0) / 8]; /* Bit b: the key (table bits of the path, b) is preserved. */
};

/* Descriptor of preserved vmalloc memory. */
struct kho_vmalloc {
	phys_addr_t first; /* First chunk, 0 if there is no memory. */
	unsigned int total_pages; /* Base pages of the area, not entries. */
	unsigned short flags; /* How the area was allocated. */
	unsigned short order; /* Order of each group of pages. */
};

/* Head of a chunk page. */
struct kho_vmalloc_hdr {
	phys_addr_t next; /* Next chunk, 0 at the end. */
};

/* A page of addresses; one preserved page itself. */
struct kho_vmalloc_chunk {
	struct kho_vmalloc_hdr hdr; /* Head of a chunk page. */
	phys_addr_t phys[(KHO_PAGE_SIZE - 8) / 8]; /* Pages of the area, in order. */
};

/* Head of a block of entries. */
struct kho_block_header_ser {
	u64 next; /* Next block, 0 at the end. */
	u64 count; /* Entries in this block, at least 1. */
} __attribute__((packed));

_Static_assert(offsetof(struct kho_radix_node, table) == 0, "offsetof(struct kho_radix_node, table) == 0");

_Static_assert(offsetof(struct kho_radix_leaf, bitmap) == 0, "offsetof(struct kho_radix_leaf, bitmap) == 0");

_Static_assert(sizeof(struct kho_vmalloc) == 16, "sizeof(struct kho_vmalloc) == 16");
_Static_assert(offsetof(struct kho_vmalloc, first) == 0, "offsetof(struct kho_vmalloc, first) == 0");
_Static_assert(sizeof(((struct kho_vmalloc *)0)->first) == 8, "sizeof(((struct kho_vmalloc *)0)->first) == 8");
_Static_assert(offsetof(struct kho_vmalloc, total_pages) == 8, "offsetof(struct kho_vmalloc, total_pages) == 8");
_Static_assert(sizeof(((struct kho_vmalloc *)0)->total_pages) == 4, "sizeof(((struct kho_vmalloc *)0)->total_pages) == 4");
_Static_assert(offsetof(struct kho_vmalloc, flags) == 12, "offsetof(struct kho_vmalloc, flags) == 12");
_Static_assert(sizeof(((struct kho_vmalloc *)0)->flags) == 2, "sizeof(((struct kho_vmalloc *)0)->flags) == 2");
_Static_assert(offsetof(struct kho_vmalloc, order) == 14, "offsetof(struct kho_vmalloc, order) == 14");
_Static_assert(sizeof(((struct kho_vmalloc *)0)->order) == 2, "sizeof(((struct kho_vmalloc *)0)->order) == 2");

_Static_assert(sizeof(struct kho_vmalloc_hdr) == 8, "sizeof(struct kho_vmalloc_hdr) == 8");
_Static_assert(offsetof(struct kho_vmalloc_hdr, next) == 0, "offsetof(struct kho_vmalloc_hdr, next) == 0");
_Static_assert(sizeof(((struct kho_vmalloc_hdr *)0)->next) == 8, "sizeof(((struct kho_vmalloc_hdr *)0)->next) == 8");

_Static_assert(offsetof(struct kho_vmalloc_chunk, hdr) == 0, "offsetof(struct kho_vmalloc_chunk, hdr) == 0");
_Static_assert(sizeof(((struct kho_vmalloc_chunk *)0)->hdr) == 8, "sizeof(((struct kho_vmalloc_chunk *)0)->hdr) == 8");
_Static_assert(offsetof(struct kho_vmalloc_chunk, phys) == 8, "offsetof(struct kho_vmalloc_chunk, phys) == 8");

_Static_assert(sizeof(struct kho_block_header_ser) == 16, "sizeof(struct kho_block_header_ser) == 16");
_Static_assert(offsetof(struct kho_block_header_ser, next) == 0, "offsetof(struct kho_block_header_ser, next) == 0");
_Static_assert(sizeof(((struct kho_block_header_ser *)0)->next) == 8, "sizeof(((struct kho_block_header_ser *)0)->next) == 8");
_Static_assert(offsetof(struct kho_block_header_ser, count) == 8, "offsetof(struct kho_block_header_ser, count) == 8");
_Static_assert(sizeof(((struct kho_block_header_ser *)0)->count) == 8, "sizeof(((struct kho_block_header_ser *)0)->count) == 8");

#if KHO_PAGE_SIZE == 4096
_Static_assert(sizeof(struct kho_radix_node) == 4096, "sizeof(struct kho_radix_node) == 4096");
_Static_assert(sizeof(((struct kho_radix_node *)0)->table) == 4096, "sizeof(((struct kho_radix_node *)0)->table) == 4096");
_Static_assert(sizeof(struct kho_radix_leaf) == 4096, "sizeof(struct kho_radix_leaf) == 4096");
_Static_assert(sizeof(((struct kho_radix_leaf *)0)->bitmap) == 4096, "sizeof(((struct kho_radix_leaf *)0)->bitmap) == 4096");
_Static_assert(sizeof(struct kho_vmalloc_chunk) == 4096, "sizeof(struct kho_vmalloc_chunk) == 4096");
_Static_assert(sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 4088, "sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 4088");
#elif KHO_PAGE_SIZE == 16384
_Static_assert(sizeof(struct kho_radix_node) == 16384, "sizeof(struct kho_radix_node) == 16384");
_Static_assert(sizeof(((struct kho_radix_node *)0)->table) == 16384, "sizeof(((struct kho_radix_node *)0)->table) == 16384");
_Static_assert(sizeof(struct kho_radix_leaf) == 16384, "sizeof(struct kho_radix_leaf) == 16384");
_Static_assert(sizeof(((struct kho_radix_leaf *)0)->bitmap) == 16384, "sizeof(((struct kho_radix_leaf *)0)->bitmap) == 16384");
_Static_assert(sizeof(struct kho_vmalloc_chunk) == 16384, "sizeof(struct kho_vmalloc_chunk) == 16384");
_Static_assert(sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 16376, "sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 16376");
#elif KHO_PAGE_SIZE == 65536
_Static_assert(sizeof(struct kho_radix_node) == 65536, "sizeof(struct kho_radix_node) == 65536");
_Static_assert(sizeof(((struct kho_radix_node *)0)->table) == 65536, "sizeof(((struct kho_radix_node *)0)->table) == 65536");
_Static_assert(sizeof(struct kho_radix_leaf) == 65536, "sizeof(struct kho_radix_leaf) == 65536");
_Static_assert(sizeof(((struct kho_radix_leaf *)0)->bitmap) == 65536, "sizeof(((struct kho_radix_leaf *)0)->bitmap) == 65536");
_Static_assert(sizeof(struct kho_vmalloc_chunk) == 65536, "sizeof(struct kho_vmalloc_chunk) == 65536");
_Static_assert(sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 65528, "sizeof(((struct kho_vmalloc_chunk *)0)->phys) == 65528");
#else
#error "KHO_PAGE_SIZE must be 4096, 16384, 65536"
#endif

#endif /* KHO_INSPECT_KHO_V4_H */
