/** The lines that a booting kernel logs about a handover, in its order. */
import type { Check } from '../abi/check.ts'
import type { LogArgument } from './rule.ts'
import type { Subject } from './subject.ts'
import type { Finding } from './verdict.ts'

/** What a subsystem's lines begin with, by the function that logs. */
function prefixOf({ by, component }: Check): string {
  if (by.startsWith('memfd_luo')) return 'memfd_luo: '
  if (by.startsWith('luo_') || by.startsWith('kho_block')) return 'luo: '
  return component === 'memblock' ? '' : 'KHO: '
}

/** The line of a check, its conversions filled in; none where it logs nothing. */
export function logLine(check: Check, values: readonly LogArgument[]): readonly string[] {
  return check.message === undefined ? [] : [prefixOf(check) + formatLog(check.message, values)]
}

const CONVERSION = /%(?:\.\*)?(?:pa|pe|(?:ll|l|z)?[duxs])/g

function formatLog(format: string, values: readonly LogArgument[]): string {
  let next = 0
  return format.replace(CONVERSION, (conversion) => {
    const value = values[next++] ?? ''
    if (conversion === '%pa') return `0x${BigInt(value).toString(16).padStart(16, '0')}`
    return conversion.endsWith('x') ? BigInt(value).toString(16) : String(value)
  })
}

export function expectedConsole(_subject: Subject, reached: readonly Finding[]): readonly string[] {
  return reached.flatMap(({ log }) => log)
}
