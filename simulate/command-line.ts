/**
 * Switches and early parameters of the kernel's command line.
 *
 * Sources: lib/kstrtox.c: kstrtobool(); init/main.c: do_early_param().
 */
import type { Parameter } from '../abi/command-line.ts'
import type { KernelBase } from './context.ts'

/** kstrtobool(); undefined where it is neither. */
export function parseBool(text: string): boolean | undefined {
  if (/^(e|y|t|1|on)/i.test(text)) return true
  if (/^(d|n|f|0|of)/i.test(text)) return false
  return undefined
}

/** The last value of a switch, or what holds without it. */
export function switchOf(parameters: readonly Parameter[], name: string, otherwise: boolean): boolean {
  const values = parameters.filter((parameter) => parameter.name === name)
  return values.reduce((value, parameter) => parseBool(parameter.value ?? '') ?? value, otherwise)
}

/** The function of an early_param(): false where it answers an error. */
export type EarlyParameter = (value: string | undefined) => boolean

/** That of a switch. */
export const takesBool: EarlyParameter = (value) => parseBool(value ?? '') !== undefined

/** parse_early_param(): every parameter in its order, to those who know it. */
export function parseEarly(
  { parameters, say }: Pick<KernelBase, 'parameters' | 'say'>,
  known: ReadonlyMap<string, EarlyParameter>,
): void {
  for (const { name, spelling, value } of parameters) {
    if (known.get(name)?.(value) === false) say('EARLY_PARAMETER', spelling)
  }
}
