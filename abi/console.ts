/**
 * What live-update kernels say on their console besides the refusals, whose texts stand with the checks
 * (check.ts, `message`); the prefixes of all of them; and the part of printk()'s formats that they use.
 *
 * Sources: kernel/kexec_handover.c (6.17.8); kernel/liveupdate/, mm/memblock.c, mm/memfd_luo.c,
 * lib/test_kho.c and lib/tests/liveupdate.c (6.19.11, 7.1.13, 7.3.4); consoles of these kernels.
 */
import { appliesTo, type Check, type LogLevel, type Span } from './check.ts'
import { checks } from './consumer.ts'
import { invariant } from './fault.ts'
import { hex64 } from './memory.ts'

export interface ConsoleLine extends Span {
  /** Stable; a line whose text changed between releases has one entry for each. */
  readonly id: string
  /** The kernel function that says it; the prefix follows from it. */
  readonly by: string
  readonly level: LogLevel
  /** The kernel's format string, without prefix and line feed. */
  readonly format: string
}

const kho = { by: 'kho_populate()', since: 'linux-6.16' } as const
const scratch = { by: 'kho_reserve_scratch()', level: 'err', since: 'linux-7.1' } as const
const debugfs = { by: 'kho_in_debugfs_init()', level: 'warn' } as const

const khoLines: readonly ConsoleLine[] = [
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

const luoLines: readonly ConsoleLine[] = [
  {
    id: 'LUO_NO_KHO',
    by: 'luo_early_startup()',
    level: 'warn',
    format: 'Disabling liveupdate because KHO is disabled',
    since: 'linux-6.19',
  },
  {
    id: 'LUO_RETRIEVED',
    by: 'luo_early_startup()',
    level: 'info',
    format: 'Retrieved live update data, liveupdate number: %lld',
    since: 'linux-6.19',
  },
  {
    id: 'LUO_PANIC',
    by: 'liveupdate_early_init()',
    level: 'emerg',
    format: 'The incoming tree failed to initialize properly [%pe], disabling live update',
    since: 'linux-6.19',
  },
  ...(
    ['failed to allocate/preserve FDT memory', 'failed to allocate/preserve LUO state memory'] as const
  ).map((format, index): ConsoleLine => ({ ...setup(index), id: 'LUO_SETUP_ALLOCATION', format })),
  ...(['failed to prepare LUO FDT: %d', 'failed to prepare LUO state: %d'] as const).map(
    (format, index): ConsoleLine => ({ ...setup(index), id: 'LUO_SETUP_FAILED', format }),
  ),
  {
    id: 'LUO_FINALIZE_FAILED',
    by: 'luo_reboot()',
    level: 'err',
    format: 'kho_finalize failed %d',
    since: 'linux-6.19',
    until: 'linux-7.0',
  },
  {
    id: 'LUO_SESSION_RELEASE',
    by: 'luo_session_release()',
    level: 'warn',
    format: 'Unable to finish session [%s] on release',
    since: 'linux-6.19',
  },
  {
    id: 'LUO_PRESERVE_RESPONSE',
    by: 'luo_session_preserve_fd()',
    level: 'warn',
    format: 'The file was successfully preserved, but response to user failed',
    since: 'linux-6.19',
  },
  {
    id: 'LUO_SESSION_ALLOCATION',
    by: 'luo_session_deserialize()',
    level: 'warn',
    format: 'Failed to allocate session [%s] during deserialization %pe',
    since: 'linux-6.19',
    until: 'linux-6.19',
  },
  {
    id: 'LUO_SESSION_ALLOCATION',
    by: 'luo_session_deserialize()',
    level: 'warn',
    format: 'Failed to allocate session [%.*s] during deserialization %pe',
    since: 'linux-7.0',
  },
  {
    id: 'LUO_SESSION_FILES',
    by: 'luo_session_deserialize()',
    level: 'warn',
    format: 'Failed to deserialize files for session [%s] %pe',
    since: 'linux-7.0',
  },
  {
    id: 'LUO_FREEZE_FAILED',
    by: 'luo_file_freeze()',
    level: 'warn',
    format: 'Freeze failed for token[%#0llx] handler[%s] err[%pe]',
    since: 'linux-6.19',
  },
  {
    id: 'LUO_HANDLER_REGISTERED',
    by: 'luo_register_file_handler()',
    level: 'err',
    format: "File handler registration failed: Compatible string '%s' already registered.",
    since: 'linux-6.19',
  },
  {
    id: 'LUO_FLB_UNREGISTERED',
    by: 'luo_flb_unregister()',
    level: 'warn',
    format: "Failed to unregister FLB '%s': not found in file handler '%s'",
    since: 'linux-7.0',
  },
]

/** luo_fdt_setup(), from 7.2 on luo_state_setup(). */
function setup(index: number): Omit<ConsoleLine, 'id' | 'format'> {
  return index === 0
    ? { by: 'luo_fdt_setup()', level: 'err', since: 'linux-6.19', until: 'linux-7.1' }
    : { by: 'luo_state_setup()', level: 'err', since: 'linux-7.2' }
}

const memfd = { by: 'memfd_luo_retrieve_folios()', level: 'err', since: 'linux-6.19' } as const

const memfdLines: readonly ConsoleLine[] = [
  { ...memfd, id: 'MEMFD_PIN', by: 'memfd_luo_preserve_folios()', format: 'failed to pin folios: %d' },
  {
    ...memfd,
    id: 'MEMFD_DISCARD',
    by: 'memfd_luo_discard_folios()',
    level: 'warn',
    format: 'Unable to restore folio at physical address: %llx',
  },
  { ...memfd, id: 'MEMFD_CHARGE', format: 'shmem: failed to charge folio index %ld: %d' },
  {
    ...memfd,
    id: 'MEMFD_ACCOUNT',
    format: 'shmem: failed to account folio index %ld: %d',
    until: 'linux-7.0',
  },
  {
    ...memfd,
    id: 'MEMFD_ACCOUNT',
    format: 'shmem: failed to account folio index %ld(%ld pages): %d',
    since: 'kho-v2',
  },
  { ...memfd, id: 'MEMFD_FILE', by: 'memfd_luo_retrieve()', format: 'failed to setup file: %pe' },
  {
    ...memfd,
    id: 'MEMFD_ADD_SEALS',
    by: 'memfd_luo_retrieve()',
    format: 'failed to add seals: %pe',
    since: 'kho-v2',
  },
  {
    ...memfd,
    id: 'MEMFD_REGISTER',
    by: 'memfd_luo_init()',
    format: 'Could not register luo filesystem handler: %pe',
  },
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
  { ...khoTest, id: 'KHO_TEST_SUBTREE', level: 'warn', format: 'failed to retrieve %s FDT: %d' },
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
 * wild pointer kills the boot, later the process that follows it: in the lab's guests init.
 */
const crashLines: readonly ConsoleLine[] = [
  { id: 'WARNING', by: 'printk()', level: 'warn', format: 'WARNING: %s at %s', since: 'linux-6.16' },
  {
    id: 'OOPS_X86_64',
    by: 'die()',
    level: 'emerg',
    format: 'BUG: unable to handle page fault for address: %s',
    since: 'linux-6.16',
  },
  {
    id: 'OOPS_ARM64',
    by: 'die()',
    level: 'emerg',
    format: 'Unable to handle kernel paging request at virtual address %s',
    since: 'linux-6.16',
  },
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
    format: 'BUG: unable to handle page fault for address: %s',
    since: 'linux-6.16',
  },
  {
    id: 'OOPS_NULL',
    by: 'show_fault_oops()',
    level: 'emerg',
    format: 'BUG: kernel NULL pointer dereference, address: %s',
    since: 'linux-6.16',
  },
  { id: 'OOPS_DIE', by: 'die()', level: 'emerg', format: 'Internal error: %s', since: 'linux-6.16' },
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

export type FormatArgument = string | number | bigint

const CONVERSION = /%(?:%|([#0]*)(\.\*)?(?:ll|l|z)?(pe|pa|[sdiuxc]))/g

/**
 * printk() for the conversions that occur here. A `%.*s` takes length and text. `%pe` takes the negative
 * error number and prints it as it is; with CONFIG_SYMBOLIC_ERRNAME the kernel prints `-ENOENT`: pass that
 * text instead. `%pa` takes the address itself.
 */
export function formatMessage(format: string, ...args: readonly FormatArgument[]): string {
  let next = 0
  const take = (): FormatArgument => {
    const argument = args[next++]
    invariant(argument !== undefined, `too few arguments for "${format}"`)
    return argument
  }
  const text = format.replace(CONVERSION, (all: string, flags: string, precision: string, kind: string) => {
    if (all === '%%') return '%'
    const length = precision ? Number(take()) : undefined
    return formatOne(all, flags, kind, take()).slice(0, length)
  })
  invariant(next === args.length, `too many arguments for "${format}"`)
  return text
}

/** What lines of a format look like: a pattern for the whole message, with a group for each conversion. */
export function formatPattern(format: string): RegExp {
  let pattern = ''
  let from = 0
  for (const { 0: all, 3: kind, index } of format.matchAll(CONVERSION)) {
    const group = kind === undefined ? '%' : /[diu]/.test(kind) ? '(-?\\d+)' : '(.*?)'
    pattern += escaped(format.slice(from, index)) + group
    from = index + all.length
  }
  return new RegExp(`^${pattern}${escaped(format.slice(from))}$`)
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

function formatOne(all: string, flags: string, kind: string, argument: FormatArgument): string {
  if (kind === 's' || kind === 'c' || typeof argument === 'string') return String(argument)
  const wide = /l|z/.test(all) ? 64 : 32
  switch (kind) {
    case 'd':
    case 'i':
      return String(BigInt.asIntN(wide, BigInt(argument)))
    case 'u':
      return String(BigInt.asUintN(wide, BigInt(argument)))
    case 'x':
      return (
        (flags.includes('#') && argument ? '0x' : '') + BigInt.asUintN(wide, BigInt(argument)).toString(16)
      )
    case 'pa':
      return hex64(BigInt(argument))
    default:
      return String(argument)
  }
}
