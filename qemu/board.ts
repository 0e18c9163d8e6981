/**
 * The two machines of QEMU that the project runs: how they are started, what their console is called, and
 * where their debugger keeps what a capture wants.
 *
 * Sources: QEMU hw/arm/virt.c, hw/i386/pc_q35.c, gdb-xml/; arch/x86/entry/calling.h and AAPCS64 for the
 * registers of a call's first four arguments.
 */
import { type Architecture, machines } from '../abi/machine.ts'

export interface Board {
  readonly program: string
  /** Debian's package with the program. */
  readonly package: string
  readonly machine: string
  /** Parameters that let a kernel speak, from its first line on. */
  readonly console: string
  readonly ramStart: bigint
  /** Numbers of 64-bit registers in the debugger's order: the program counter, and arguments one to four. */
  readonly registers: { readonly pc: number; readonly args: readonly [number, number, number, number] }
  /** Bytes of the instruction that a breakpoint stands for. */
  readonly breakpointKind: number
}

export const boards: Readonly<Record<Architecture, Board>> = {
  x86_64: {
    program: 'qemu-system-x86_64',
    package: 'qemu-system-x86',
    machine: 'q35',
    console: 'console=ttyS0 earlyprintk=ttyS0',
    ramStart: machines.x86_64.ramStart,
    registers: { pc: 16, args: [5, 4, 3, 2] },
    breakpointKind: 1,
  },
  arm64: {
    program: 'qemu-system-aarch64',
    package: 'qemu-system-arm',
    machine: 'virt',
    console: 'console=ttyAMA0 earlycon',
    ramStart: machines.arm64.ramStart,
    registers: { pc: 32, args: [0, 1, 2, 3] },
    breakpointKind: 4,
  },
}

/** What every machine is started with: emulated, deaf and mute but for its serial line, no network. */
export function boardArguments(
  { machine }: Board,
  memoryMiB: number,
  machineOptions = '',
): readonly string[] {
  return [
    ...['-machine', `${machine}${machineOptions}`, '-accel', 'tcg', '-cpu', 'max'],
    ...['-m', `${memoryMiB}M`, '-display', 'none', '-nodefaults', '-nic', 'none', '-no-reboot'],
  ]
}
