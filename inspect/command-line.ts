/** The reserve_mem parameters of the next kernel's command line, as reserve_mem() (mm/memblock.c) goes through them. */
import { parseCommandLine, parseReserveMem, type ReserveMem } from '../abi/command-line.ts'
import type { FormatArgument } from '../abi/console.ts'
import { RESERVE_MEM_MAX_ENTRIES } from '../abi/memblock.ts'

/** One parameter: the region that it asks for, and the line of its refusal where it is not looked for. */
export interface ReserveMemRequest {
  readonly region: ReserveMem | undefined
  readonly refusal?: { readonly id: string; readonly values: readonly FormatArgument[] }
}

/** In the order of the command line; each region that is not refused is taken to get its memory. */
export function reserveMemRequests(commandLine: string): readonly ReserveMemRequest[] {
  const names = new Set<string>()
  return parseCommandLine(commandLine).flatMap(({ name: parameter, value }): readonly ReserveMemRequest[] => {
    if (parameter !== 'reserve_mem' || value === undefined) return []
    const region = parseReserveMem(value)
    const refusedAs = (id: string, ...values: readonly FormatArgument[]) => [
      { region, refusal: { id, values } },
    ]
    if (names.size >= RESERVE_MEM_MAX_ENTRIES) return refusedAs('RESERVE_MEM_FULL')
    if (!region) return refusedAs('RESERVE_MEM_MALFORMED')
    if (names.has(region.name)) return refusedAs('RESERVE_MEM_USED', region.name)
    names.add(region.name)
    return [{ region }]
  })
}
