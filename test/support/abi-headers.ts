/**
 * ABI headers as a kernel tree of the 7.3 kind would have them, written for these tests: the constructs
 * of the real ones in other words. A test changes what it is about.
 */
const DIRECTORY = 'include/linux/kho/abi'

const handover = `#ifndef _TEST_KEXEC_HANDOVER_H
#define _TEST_KEXEC_HANDOVER_H

#include <linux/types.h>
#include <asm/page.h>

/**
 * DOC: handover
 *
 * Change KHO_FDT_COMPATIBLE whenever one of these changes. A root looks so:
 *     compatible = "kho-v4";
 */

/* Version of the root. */
#define KHO_FDT_COMPATIBLE "kho-v4"
#define KHO_FDT_MEMORY_MAP_PROP_NAME "preserved-memory-map"
#define KHO_SUB_TREE_PROP_NAME "preserved-data"
#define KHO_SUB_TREE_SIZE_PROP_NAME "blob-size"

#define DECLARE_KHOSER_PTR(name, type)	\\
	union {				\\
		u64 phys;		\\
		type ptr;		\\
	} name

/* Not for layouts: its body is no expression. */
#define KHOSER_LOAD_PTR(src) ({ typeof(src) s = src; s.phys ? phys_to_virt(s.phys) : NULL; })

struct kho_vmalloc_hdr {
	DECLARE_KHOSER_PTR(next, struct kho_vmalloc_chunk *);
};

#define KHO_VMALLOC_SIZE				\\
	((PAGE_SIZE - sizeof(struct kho_vmalloc_hdr)) /	\\
	 sizeof(u64))

struct kho_vmalloc_chunk {
	struct kho_vmalloc_hdr hdr;
	u64 phys[KHO_VMALLOC_SIZE];
};

static_assert(sizeof(struct kho_vmalloc_chunk) == PAGE_SIZE);

struct kho_vmalloc {
	DECLARE_KHOSER_PTR(first, struct kho_vmalloc_chunk *);
	unsigned int total_pages;
	unsigned short flags;
	unsigned short order;
};

enum kho_radix_consts {
	KHO_RADIX_KEY_WIDTH = 64 - PAGE_SHIFT + 1,
	KHO_TABLE_SIZE_LOG2 = const_ilog2(PAGE_SIZE / sizeof(phys_addr_t)),
	KHO_BITMAP_SIZE_LOG2 = PAGE_SHIFT + const_ilog2(BITS_PER_BYTE),
	KHO_TREE_MAX_DEPTH =
		DIV_ROUND_UP(KHO_RADIX_KEY_WIDTH - KHO_BITMAP_SIZE_LOG2, KHO_TABLE_SIZE_LOG2) + 1,
};

struct kho_radix_node {
	u64 table[1 << KHO_TABLE_SIZE_LOG2];
};

struct kho_radix_leaf {
	DECLARE_BITMAP(bitmap, 1 << KHO_BITMAP_SIZE_LOG2);
};

#endif
`

const block = `/**
 * DOC: blocks. Guarded by KHO_FDT_COMPATIBLE.
 */
#ifndef _TEST_BLOCK_H
#define _TEST_BLOCK_H
#define KHO_BLOCK_SIZE PAGE_SIZE
/**
 * struct kho_block_header_ser - Head of a block.
 * @next: The next one.
 * @count: Entries.
 */
struct kho_block_header_ser {
	u64 next;
	u64 count;
} __packed;
#endif
`

const metadata = `#ifndef _TEST_METADATA_H
#define _TEST_METADATA_H
#define KHO_KEXEC_METADATA_VERSION 1
struct kho_kexec_metadata {
	u32 version;
	char previous_release[__NEW_UTS_LEN + 1];
	u32 kexec_count;
} __packed;
#define KHO_METADATA_NODE_NAME "kexec-metadata"
#endif
`

const luo = `#ifndef _TEST_LUO_H
#define _TEST_LUO_H
#include <linux/kho/abi/block.h>
#include <uapi/linux/liveupdate.h>
#define LUO_KHO_ENTRY_NAME "LUO"
#define LUO_ABI_COMPATIBLE "luo-v5"
#define LUO_ABI_COMPAT_LEN ALIGN(sizeof(LUO_ABI_COMPATIBLE), 8)

struct luo_ser {
	char compatible[LUO_ABI_COMPAT_LEN];
	u64 liveupdate_num;
	u64 sessions_pa;
	u64 flbs_pa;
} __packed;

#define LIVEUPDATE_HNDL_COMPAT_LENGTH 48

/**
 * struct luo_file_ser - A file.
 * @compatible: Its handler.
 * @data: The handler's.
 * @token: The user's.
 *
 * Goes with \`LUO_ABI_COMPATIBLE\`.
 */
struct luo_file_ser {
	char compatible[LIVEUPDATE_HNDL_COMPAT_LENGTH];
	u64 data;
	u64 token;
} __packed;

struct luo_file_set_ser {
	u64 files;
	u64 count;
} __packed;

struct luo_session_ser {
	char name[LIVEUPDATE_SESSION_NAME_LENGTH];
	struct luo_file_set_ser file_set_ser;
} __packed;

#ifdef CONFIG_LIVEUPDATE_TEST
#define LIVEUPDATE_TEST_FLB_COMPATIBLE(i) "liveupdate-test-flb-v" #i
#endif
#endif
`

const memblock = `#define MEMBLOCK_KHO_FDT "memblock"
#define MEMBLOCK_KHO_NODE_COMPATIBLE "memblock-v1"
#define RESERVE_MEM_KHO_NODE_COMPATIBLE "reserve-mem-v1"
`

const memfd = `#include <linux/kho/abi/kexec_handover.h>
#define MEMFD_LUO_FOLIO_DIRTY BIT(0)
#define MEMFD_LUO_FOLIO_UPTODATE BIT(1)
struct memfd_luo_folio_ser {
	u64 pfn:52;
	u64 flags:12;
	u64 index;
} __packed;
#define MEMFD_LUO_ALL_SEALS (F_SEAL_SEAL | \\
			     F_SEAL_SHRINK | \\
			     F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC)
struct memfd_luo_ser {
	u64 pos;
	u64 size;
	u32 seals;
	u32 flags;
	u64 nr_folios;
	struct kho_vmalloc folios;
} __packed;
#define MEMFD_LUO_FH_COMPATIBLE "memfd-v2"
`

/** A header of a tree, by its name. */
export type HeaderName = 'kexec_handover' | 'block' | 'kexec_metadata' | 'luo' | 'memblock' | 'memfd'

const headers: Readonly<Record<HeaderName, string>> = {
  kexec_handover: handover,
  block,
  kexec_metadata: metadata,
  luo,
  memblock,
  memfd,
}

export type Edit = readonly [header: HeaderName, from: string, to: string]

/** The files of a tree with edits applied; an edit that finds nothing to replace is a mistake of the test. */
export function abiHeaders(...edits: readonly Edit[]): Record<string, string> {
  const edited: Record<string, string> = { ...headers }
  for (const [header, from, to] of edits) {
    const text = edited[header] as string
    if (!text.includes(from)) throw new Error(`${header}.h does not hold '${from}'`)
    edited[header] = text.replaceAll(from, to)
  }
  const files = Object.entries(edited).map(([name, text]) => [`${DIRECTORY}/${name}.h`, text] as const)
  return {
    ...Object.fromEntries(files),
    'include/uapi/linux/liveupdate.h': '#define LIVEUPDATE_SESSION_NAME_LENGTH 64\n',
    'include/linux/types.h':
      'typedef u64 phys_addr_t;\nstruct list_head { struct list_head *next, *prev; };\n',
  }
}
