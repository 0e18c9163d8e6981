/**
 * What the live update orchestrator and the file handler of memfd say on the console besides refusals.
 *
 * Sources: kernel/liveupdate/luo_*.c, mm/memfd_luo.c of Linux 6.19.11, 7.1.13 and 7.3.4.
 */
import type { ConsoleLine } from './printk.ts'

export const luoLines: readonly ConsoleLine[] = [
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

export const memfdLines: readonly ConsoleLine[] = [
  { ...memfd, id: 'MEMFD_PIN', by: 'memfd_luo_preserve_folios()', format: 'failed to pin folios: %d' },
  {
    ...memfd,
    id: 'MEMFD_DISCARD',
    by: 'memfd_luo_discard_folios()',
    level: 'warn',
    format: 'Unable to restore folio at physical address: %llx',
    isRateLimited: true,
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
