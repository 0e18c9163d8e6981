/**
 * The last words of a kernel that oopses.
 *
 * Sources: arch/arm64/mm/fault.c: die_kernel_fault(), arch/arm64/kernel/traps.c: __die();
 * arch/x86/mm/fault.c: page_fault_oops(), arch/x86/kernel/traps.c: exc_general_protection(),
 * arch/x86/kernel/dumpstack.c: __die_header(); kernel/exit.c: do_exit().
 */
import {
  type AddressSpace,
  faultSyndrome,
  isCanonical,
  linearAddress,
  mappedRanges,
  STRUCT_PAGE_PRIVATE,
  structPageAddress,
  translationLevel,
} from '../abi/address-space.ts'
import { hex } from '../abi/memory.ts'
import type { KernelBase } from './context.ts'
import { type KernelOops, WildAccess, type WildPlace } from './crash.ts'

type Dying = Pick<KernelBase, 'arch' | 'ram' | 'say'>

/** Each kernel dies of its first oops. */
const FIRST = 1
/** X86_PF_WRITE */
const PF_WRITE = 2

/** Exit codes of a process that is killed: SIGSEGV by die(), SIGKILL by x86's page_fault_oops(). */
const SIGSEGV = '0000000b'
const SIGKILL = '00000009'

/** An oops kills who ran into it: the boot itself, later the process that made the call. */
export function sayOops(kernel: Dying, oops: KernelOops, isBooted: boolean): void {
  const exitCode = oops instanceof WildAccess ? sayFault(kernel, oops) : SIGSEGV
  if (!(oops instanceof WildAccess)) kernel.say('BUG', oops.message)
  if (isBooted) kernel.say('PANIC_INIT', exitCode)
  else kernel.say('PANIC_IDLE')
}

/** Answers what the process dies of. */
function sayFault({ arch, ram, say }: Dying, { place, isWrite }: WildAccess): string {
  const { space } = ram
  const address = addressOf(space, place)
  const isNull = address < BigInt(space.pageSize)
  if (arch === 'arm64') {
    const level = translationLevel(space.pageSize, address, mappedRanges(space, ram.ranges))
    say('OOPS_ARM64', isNull ? 'NULL pointer dereference' : 'paging request', address)
    say('OOPS_DIE', 'Oops', faultSyndrome(level, isWrite), FIRST)
    return SIGSEGV
  }
  if (!isCanonical(address)) {
    const text = `general protection fault, probably for non-canonical address ${hex(address)}`
    say('OOPS_DIE_X86', text, 0, FIRST)
    return SIGSEGV
  }
  say(isNull ? 'OOPS_NULL' : 'OOPS_X86', address)
  say('OOPS_DIE_X86', 'Oops', isWrite ? PF_WRITE : 0, FIRST)
  return SIGKILL
}

function addressOf(space: AddressSpace, place: WildPlace): bigint {
  if (place.to === 'memory') return linearAddress(space, place.pa)
  if (place.to === 'null') return BigInt(place.offset)
  // Of a page that is taken over page->private is what is touched first.
  return structPageAddress(space, place.frame, STRUCT_PAGE_PRIVATE)
}
