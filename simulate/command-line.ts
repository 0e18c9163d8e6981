/** What a kernel takes from its command line at an early stage. */
import type { Parameter } from '../abi/command-line.ts'
import { EARLY, parseBool, parseScratchSizes, type ScratchSizes } from '../abi/early-parameters.ts'

/** The last value of a switch, or what holds without it. */
export function switchOf(parameters: readonly Parameter[], name: string, otherwise: boolean): boolean {
  const values = parameters.filter((parameter) => parameter.name === name)
  return values.reduce((value, parameter) => parseBool(parameter.value ?? '') ?? value, otherwise)
}

const DEFAULT_SIZES: ScratchSizes = { scale: 200n }

/** The last `kho_scratch=` that can be understood. */
export function scratchSizes(parameters: readonly Parameter[], release: string): ScratchSizes {
  const sizes = parameters.filter(({ name }) => name === EARLY.scratch)
  return sizes.reduce((last, { value = '' }) => parseScratchSizes(value, release) ?? last, DEFAULT_SIZES)
}
