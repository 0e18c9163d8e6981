/** The parameters of a kernel's command line that a handover is held against. */
import { SMP_CACHE_BYTES } from '../abi/memblock.ts'

/** `reserve_mem=size:align:name` */
export interface ReserveMem {
  readonly name: string
  readonly size: bigint
  readonly align: bigint
}

/** In the order of the command line; what the kernel calls malformed is left out. */
export function reserveMemOf(commandLine: string): readonly ReserveMem[] {
  return [...commandLine.matchAll(/(?:^|\s)reserve_mem=([^\s:]+):([^\s:]+):(\S+)/g)].flatMap(
    ([, size, align, name]) => {
      const bytes = memparse(size as string)
      const boundary = memparse(align as string)
      if (!bytes || boundary === undefined) return []
      const least = boundary < SMP_CACHE_BYTES ? SMP_CACHE_BYTES : boundary
      return [{ name: name as string, size: bytes, align: least }]
    },
  )
}

const UNITS = 'kmgtpe'

/** memparse() (lib/cmdline.c): a number in C's notation, K to E behind it. */
function memparse(text: string): bigint | undefined {
  const match = /^(0[xX][0-9a-fA-F]+|[0-9]+)([kKmMgGtTpPeE])?$/.exec(text)
  if (!match) return undefined
  const [, digits = '', unit] = match
  const value = BigInt(/^0[0-9]/.test(digits) ? `0o${digits.slice(1)}` : digits)
  return unit ? value << BigInt(10 * (UNITS.indexOf(unit.toLowerCase()) + 1)) : value
}
