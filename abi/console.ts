/**
 * What live-update kernels say on their console besides the refusals, whose texts stand with the checks
 * (check.ts, `message`), and the prefixes of all of them. What LUO says stands in console-luo.ts.
 *
 * Sources: kernel/kexec_handover.c (6.17.8); kernel/liveupdate/, mm/memblock.c, mm/memfd_luo.c,
 * lib/test_kho.c, lib/tests/liveupdate.c and init/main.c (6.19.11, 7.1.13, 7.3.4); consoles of these kernels.
 */
import { appliesTo, type Check } from './check.ts'
import { luoLines, memfdLines } from './console-luo.ts'
import { checks } from './consumer.ts'
import type { ConsoleLine } from './printk.ts'

export {
  type ConsoleLine,
  DEFAULT_RATELIMIT_BURST,
  type FormatArgument,
  formatMessage,
  formatPattern,
} from './printk.ts'

const kho = { by: 'kho_populate()', since: 'linux-6.16' } as const
const scratch = { by: 'kho_reserve_scratch()', level: 'err', since: 'linux-7.1' } as const
const debugfs = { by: 'kho_in_debugfs_init()', level: 'warn' } as const

const khoLines: readonly ConsoleLine[] = [
  {
    id: 'EARLY_PARAMETER',
    by: 'do_early_param()',
    level: 'warn',
    format: "Malformed early option '%s'",
    since: 'linux-6.16',
  },
  {
    ...kho,
    id: 'KHO_FOUND',
    level: 'info',
    format: 'found kexec handover data. Will skip init for some devices',
    until: 'linux-6.18',
  },
  { ...kho, id: 'KHO_FOUND', level: 'info', format: 'found kexec handover data.', since: 'linux-6.19' },
  {
    ...kho,
    id: 'KHO_NO_REVIVAL',
    level: 'warn',
    format: 'disabling KHO revival: %d',
    until: 'linux-6.19',
  },
  { ...kho, id: 'KHO_NO_REVIVAL', level: 'warn', format: 'disabling KHO revival', since: 'linux-7.0' },
  { ...kho, id: 'KHO_SCRATCH_MARK', level: 'debug', format: 'Marked 0x%pa+0x%pa as scratch' },
  {
    id: 'KHO_SCRATCH_SIZES',
    by: 'kho_parse_scratch_size()',
    level: 'notice',
    format: 'scratch areas: lowmem: %lluMiB global: %lluMiB pernode: %lldMiB',
    since: 'linux-6.16',
  },
  {
    id: 'KHO_SCRATCH_SCALE',
    by: 'kho_parse_scratch_size()',
    level: 'notice',
    format: 'scratch scale is %d%%',
    since: 'linux-6.16',
  },
  { ...scratch, id: 'KHO_SCRATCH_ARRAY', format: 'Failed to reserve scratch array' },
  { ...scratch, id: 'KHO_SCRATCH_LOW', format: 'Failed to reserve lowmem scratch buffer' },
  { ...scratch, id: 'KHO_SCRATCH_GLOBAL', format: 'Failed to reserve global scratch buffer' },
  { ...scratch, id: 'KHO_SCRATCH_NODE', format: 'Failed to reserve nid %d scratch buffer' },
  {
    ...scratch,
    id: 'KHO_SCRATCH_FAILED',
    level: 'warn',
    format: 'Failed to reserve scratch area, disabling kexec handover',
    since: 'linux-6.16',
  },
  {
    id: 'KHO_EXTEND_FAILED',
    by: 'kho_extend_scratch()',
    level: 'err',
    format: 'Failed to extend scratch: %pe',
    since: 'linux-7.3',
  },
  {
    id: 'KHO_FDT_FOLIO',
    by: 'kho_memory_init()',
    level: 'warn',
    format: 'failed to restore folio for KHO fdt',
    since: 'linux-6.16',
    until: 'linux-6.18',
  },
  {
    id: 'KHO_MAP_TREE',
    by: 'kho_mem_retrieve()',
    level: 'err',
    format: 'failed to get preserved KHO memory tree',
    since: 'kho-v2',
    until: 'linux-7.2',
  },
  {
    id: 'KHO_FINALIZE_FAILED',
    by: 'kho_finalize()',
    level: 'err',
    format: 'Failed to convert KHO state tree: %d',
    since: 'linux-6.16',
    until: 'linux-6.18',
  },
  {
    id: 'KHO_ABORT_FAILED',
    by: 'kho_abort()',
    level: 'err',
    format: 'Failed to abort KHO finalization: %d',
    since: 'linux-6.16',
    until: 'linux-6.18',
  },
  {
    id: 'KHO_KDUMP',
    by: 'kho_memory_init()',
    level: 'info',
    format: 'disabled in the kdump kernel',
    since: 'linux-7.3',
  },
  {
    ...debugfs,
    id: 'KHO_DEBUGFS_ADDRESS',
    format: "node `%s`'s prop `fdt` has invalid length: %d",
    since: 'linux-6.16',
    until: 'linux-6.18',
  },
  {
    ...debugfs,
    id: 'KHO_DEBUGFS_ADDRESS',
    format: 'node %s prop fdt has invalid length: %d',
    since: 'linux-6.19',
    until: 'linux-7.0',
  },
  {
    ...debugfs,
    id: 'KHO_DEBUGFS_ADDRESS',
    format: 'node %s prop preserved-data has invalid length: %d',
    since: 'kho-v2',
  },
  {
    ...debugfs,
    id: 'KHO_DEBUGFS_SIZE',
    format: 'node %s missing or invalid blob-size property',
    since: 'linux-7.1',
  },
  {
    id: 'METADATA_FOUND',
    by: 'kho_in_kexec_metadata()',
    level: 'info',
    format: 'exec from: %s (count %u)',
    since: 'kho-v2',
  },
  {
    id: 'METADATA_HEAD',
    by: 'kho_in_kexec_metadata()',
    level: 'warn',
    outcome: 'loses',
    format: 'kexec-metadata blob too small (%zu bytes)',
    since: 'kho-v2',
  },
  {
    id: 'METADATA_FAILED',
    by: 'kho_kexec_metadata_init()',
    level: 'warn',
    format: 'failed to initialize kexec-metadata subtree: %d',
    since: 'kho-v2',
  },
]

const reserveMem = { by: 'reserve_mem()', level: 'err', since: 'linux-7.1' } as const

const memblockLines: readonly ConsoleLine[] = [
  {
    id: 'RESERVE_MEM_REVIVED',
    by: 'reserve_mem_kho_revive()',
    level: 'info',
    format: "Revived memory reservation '%s' from KHO",
    since: 'linux-6.16',
  },
  {
    id: 'MEMBLOCK_FAILED',
    by: 'prepare_kho_fdt()',
    level: 'err',
    format: 'failed to prepare memblock FDT for KHO: %d',
    since: 'linux-6.16',
  },
  { ...reserveMem, id: 'RESERVE_MEM_FULL', format: 'reserve_mem: no more room for reserved memory' },
  { ...reserveMem, id: 'RESERVE_MEM_USED', format: 'reserve_mem: name "%s" was already used' },
  { ...reserveMem, id: 'RESERVE_MEM_ALLOCATION', format: 'reserve_mem: memblock allocation failed' },
  { ...reserveMem, id: 'RESERVE_MEM_MALFORMED', format: 'reserve_mem: empty or malformed parameter' },
]

const khoTest = { by: 'kho_test_init()', since: 'linux-6.17' } as const
const flbTest = { level: 'info', since: 'linux-7.0' } as const

const testLines: readonly ConsoleLine[] = [
  { ...khoTest, id: 'KHO_TEST_SUCCEEDED', level: 'info', format: 'KHO restore succeeded' },
  {
    ...khoTest,
    id: 'KHO_TEST_FAILED',
    level: 'err',
    format: 'KHO restore failed',
    since: 'linux-6.18',
  },
  {
    ...khoTest,
    id: 'KHO_TEST_SUBTREE',
    level: 'warn',
    outcome: 'loses',
    format: 'failed to retrieve %s FDT: %d',
  },
  {
    ...flbTest,
    id: 'FLB_TEST_PRESERVE',
    by: 'test_flb_preserve()',
    format: '%s: preserve was triggered',
  },
  {
    ...flbTest,
    id: 'FLB_TEST_UNPRESERVE',
    by: 'test_flb_unpreserve()',
    format: '%s: unpreserve was triggered',
  },
  {
    ...flbTest,
    id: 'FLB_TEST_FOUND',
    by: 'test_flb_retrieve()',
    format: '%s: found flb data from the previous boot',
  },
  {
    ...flbTest,
    id: 'FLB_TEST_WRONG',
    by: 'test_flb_retrieve()',
    level: 'err',
    outcome: 'loses',
    format: '%s: ERROR - incorrect data handle: %llx, expected %llx',
  },
  { ...flbTest, id: 'FLB_TEST_FINISH', by: 'test_flb_finish()', format: '%s: finish was triggered' },
  {
    ...flbTest,
    id: 'FLB_TEST_OBJECT',
    by: 'test_flb_finish()',
    level: 'err',
    format: '%s: ERROR - finish called with invalid object',
  },
  {
    ...flbTest,
    id: 'FLB_TEST_INCOMING',
    by: 'test_flb_init()',
    level: 'err',
    format: 'liveupdate_flb_get_incoming for %s failed: %pe',
  },
  {
    ...flbTest,
    id: 'FLB_TEST_REGISTER',
    by: 'test_flb_register()',
    level: 'err',
    format: 'Failed to register %s %pe',
  },
  {
    ...flbTest,
    id: 'FLB_TEST_REGISTERED',
    by: 'test_flb_register()',
    format: 'Registered %d FLBs with file handler: [%s]',
  },
]

/**
 * WARN_ON() with source file and function; the real line goes on with line number, offsets and stack. A
 * wild pointer kills the boot, later the process that follows it: in the lab's guests init. Of what an oops
 * says, the line on its cause and that of die() with number and processor state; that of x86_64 goes on
 * with what the build has.
 */
const crashLines: readonly ConsoleLine[] = [
  { id: 'WARNING', by: 'printk()', level: 'warn', format: 'WARNING: %s at %s', since: 'linux-6.16' },
  { id: 'BUG', by: 'die()', level: 'emerg', format: 'BUG: %s', since: 'linux-6.16' },
  {
    id: 'PANIC_IDLE',
    by: 'do_exit()',
    level: 'emerg',
    format: 'Attempted to kill the idle task!',
    since: 'linux-6.16',
  },
  {
    id: 'PANIC_INIT',
    by: 'do_exit()',
    level: 'emerg',
    format: 'Attempted to kill init! exitcode=0x%s',
    since: 'linux-6.16',
  },
  {
    id: 'OOPS_X86',
    by: 'show_fault_oops()',
    level: 'emerg',
    format: 'BUG: unable to handle page fault for address: %px',
    since: 'linux-6.16',
  },
  {
    id: 'OOPS_NULL',
    by: 'show_fault_oops()',
    level: 'emerg',
    format: 'BUG: kernel NULL pointer dereference, address: %px',
    since: 'linux-6.16',
  },
  {
    id: 'OOPS_ARM64',
    by: 'die_kernel_fault()',
    level: 'emerg',
    format: 'Unable to handle kernel %s at virtual address %016lx',
    since: 'linux-6.16',
  },
  {
    id: 'OOPS_DIE',
    by: '__die()',
    level: 'emerg',
    format: 'Internal error: %s: %016lx [#%d]  SMP',
    since: 'linux-6.16',
  },
  {
    id: 'OOPS_DIE_X86',
    by: '__die_header()',
    level: 'emerg',
    format: 'Oops: %s: %04lx [#%d] SMP',
    since: 'linux-6.16',
  },
  { id: 'OOPS_BUG', by: 'report_bug()', level: 'emerg', format: 'kernel BUG at %s!', since: 'linux-6.16' },
  {
    id: 'PANIC_ROOT',
    by: 'mount_root_generic()',
    level: 'emerg',
    format: 'Kernel panic - not syncing: VFS: Unable to mount root fs on %s',
    since: 'linux-6.16',
  },
  {
    id: 'PANIC_NO_INIT',
    by: 'kernel_init()',
    level: 'emerg',
    format: 'Kernel panic - not syncing: No working init found. %s',
    since: 'linux-6.16',
  },
  {
    id: 'PANIC',
    by: 'panic()',
    level: 'emerg',
    format: 'Kernel panic - not syncing: %s',
    since: 'linux-6.16',
  },
  {
    id: 'PANIC_END',
    by: 'panic()',
    level: 'emerg',
    format: '---[ end Kernel panic - not syncing: %s ]---',
    since: 'linux-6.16',
  },
]

export const consoleLines: readonly ConsoleLine[] = [
  ...khoLines,
  ...memblockLines,
  ...luoLines,
  ...memfdLines,
  ...testLines,
  ...crashLines,
]

/** What pr_fmt() of the source file puts in front, by the start of the function's name. */
const PREFIXES: readonly (readonly [function_: string, prefix: string])[] = [
  ['kho_block', 'luo: '],
  ['kho_test', 'test_kho: '],
  ['kho_', 'KHO: '],
  ['luo_', 'luo: '],
  ['memfd_luo', 'memfd_luo: '],
  ['test_flb', 'liveupdate test: '],
  ['liveupdate_early_init', 'Kernel panic - not syncing: '],
  ['do_exit', 'Kernel panic - not syncing: '],
]

/** What stands before a message on the console; mm/memblock.c has no prefix. */
export function messagePrefix(by: string): string {
  return PREFIXES.find(([start]) => by.startsWith(start))?.[1] ?? ''
}

/** A line by its id, as a release says it; undefined if it does not. */
export function consoleLine(id: string, release: string): ConsoleLine | undefined {
  return consoleLines.find((line) => line.id === id && appliesTo(line, release))
}

/** The check of that name that a release makes at a place (any, if left out). */
export function checkOf(id: string, release: string, at?: string): Check | undefined {
  return checks.find(
    (check) => check.id === id && appliesTo(check, release) && (at === undefined || check.at === at),
  )
}
