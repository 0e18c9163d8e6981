/**
 * Switches of the kernel's command line.
 *
 * Source: lib/kstrtox.c: kstrtobool().
 */
import type { Parameter } from '../abi/command-line.ts'

/** kstrtobool(); undefined where it is neither. */
export function parseBool(text: string): boolean | undefined {
  if (/^(y|t|1|on)/i.test(text)) return true
  if (/^(n|f|0|of)/i.test(text)) return false
  return undefined
}

/** The last value of a switch, or what holds without it. */
export function switchOf(parameters: readonly Parameter[], name: string, otherwise: boolean): boolean {
  const values = parameters.filter((parameter) => parameter.name === name)
  return values.reduce((value, parameter) => parseBool(parameter.value ?? '') ?? value, otherwise)
}
