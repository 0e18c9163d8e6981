/**
 * Boot entry: how the new kernel is told where the handover lies. x86 passes struct kho_data through
 * setup_data, arm64 (generic device tree code) two properties of /chosen.
 *
 * Sources: arch/x86/include/uapi/asm/setup_data.h; drivers/of/kexec.c: kho_add_chosen();
 * include/linux/kexec_handover.h: struct kho_scratch.
 */
import type { Edge } from './schema.ts'
import { fdtNode, pa64le, packed, pointer, struct, u32le, u64be, u64le } from './schema.ts'

/** setup_data.type of KHO (SETUP_KEXEC_KHO). */
export const SETUP_KEXEC_KHO = 10

/** Owner name and type of the ELF note that carries struct kho_data in image files (not in the kernel). */
export const KHO_NOTE_NAME = 'KHO'
export const KHO_NOTE_TYPE = 1

/**
 * What a kernel enters with a handover's boot entry, as four arguments: addresses and lengths of the root FDT
 * and of the scratch array. A kernel that is handed nothing never comes there.
 */
export const KHO_ENTRY_FUNCTION = 'kho_populate'

/** early_memremap() maps at most this many bytes, so neither FDT nor scratch array may be longer. */
export const EARLY_MEMREMAP_MAX = 256 * 1024

/** Alignment in bytes of the scratch array, a kexec segment: kho_fill_kimage(). */
export const KHO_SCRATCH_ARRAY_ALIGN = 64 * 1024

export const setupData = struct(
  'setup_data',
  {
    doc: 'Node of the x86 boot data list; the payload follows.',
    source: 'arch/x86/include/uapi/asm/setup_data.h',
  },
  {
    next: pa64le('Next node of the list, 0 at its end.', { ctype: 'u64' }),
    type: u32le('Kind of payload; 10 is SETUP_KEXEC_KHO.'),
    len: u32le('Bytes of payload; 32 for KHO, not compared by the kernel.'),
  },
)

export const khoScratch = struct(
  'kho_scratch',
  {
    doc: 'One scratch area: memory that the old kernel keeps free for the new one to boot in.',
    source: 'include/linux/kexec_handover.h',
  },
  {
    addr: pa64le('Start of the area.', { to: { kind: 'region', size: 'size' } }),
    size: u64le('Bytes of the area.', { show: 'bytes', ctype: 'phys_addr_t' }),
  },
)

/** The array of scratch areas; its length in bytes stands beside the pointer, element 0 is low memory. */
export const scratchAreas: Edge = { kind: 'region', size: 'scratch_size' }

export const khoData = packed(
  'kho_data',
  {
    doc: 'Payload of SETUP_KEXEC_KHO, and the descriptor of a KHO note.',
    source: 'arch/x86/include/uapi/asm/setup_data.h',
  },
  {
    fdt_addr: pa64le('Root FDT.', { ctype: 'u64' }),
    fdt_size: u64le("PAGE_SIZE of the old kernel, not the FDT's totalsize."),
    scratch_addr: pointer(scratchAreas, 'Array of struct kho_scratch.', { ctype: 'u64' }),
    scratch_size: u64le('Bytes of that array, 16 per area.'),
  },
)

export const addressRange = packed(
  'fdt_addrrange',
  {
    doc: 'One <address size> entry in big-endian cells (#address-cells and #size-cells 2).',
    source: 'scripts/dtc/libfdt/fdt_addresses.c: fdt_appendprop_addrrange()',
    ours: true,
  },
  {
    address: u64be('Physical address.', { show: 'hex' }),
    size: u64be('Bytes.'),
  },
)

/** The node /chosen of the system device tree, as far as KHO is concerned. */
export const chosenNode = fdtNode({
  doc: 'KHO properties of /chosen; each must hold exactly one entry, or KHO is skipped in silence.',
  source: 'drivers/of/kexec.c: kho_add_chosen(), drivers/of/fdt.c: early_init_dt_check_kho()',
  properties: {
    'linux,kho-fdt': addressRange,
    'linux,kho-scratch': addressRange,
  },
})
