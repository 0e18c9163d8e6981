/**
 * The kernel's command line: parameters in their order, and the numbers in them.
 *
 * Sources: lib/cmdline.c: memparse(); lib/kstrtox.c: kstrtobool().
 */

export interface Parameter {
  readonly name: string
  readonly value: string
}

export function parseCommandLine(text: string): readonly Parameter[] {
  return text
    .split(/\s+/)
    .filter((word) => word !== '')
    .map((word) => {
      const at = word.indexOf('=')
      return at < 0 ? { name: word, value: '' } : { name: word.slice(0, at), value: word.slice(at + 1) }
    })
}

/** kstrtobool(); undefined where it is neither. */
export function parseBool(text: string): boolean | undefined {
  if (/^(y|t|1|on)/i.test(text)) return true
  if (/^(n|f|0|of)/i.test(text)) return false
  return undefined
}

/** The last value of a switch, or what holds without it. */
export function switchOf(parameters: readonly Parameter[], name: string, otherwise: boolean): boolean {
  const values = parameters.filter((parameter) => parameter.name === name)
  return values.reduce((value, parameter) => parseBool(parameter.value) ?? value, otherwise)
}

const SUFFIXES = 'kmgtpe'

/** memparse(): a number in base 8, 10 or 16 with a suffix, and what follows; no digits give 0 and all the text. */
export function memparse(text: string): { readonly value: bigint; readonly rest: string } {
  const [digits = ''] = /^(0[xX][0-9a-fA-F]+|[0-9]+)/.exec(text) ?? []
  if (digits === '') return { value: 0n, rest: text }
  const isOctal = /^0[0-7]+$/.test(digits)
  const value = BigInt(isOctal ? `0o${digits.slice(1)}` : digits)
  const power = SUFFIXES.indexOf(text.charAt(digits.length).toLowerCase() || ' ') + 1
  const used = digits.length + (power > 0 ? 1 : 0)
  return { value: BigInt.asUintN(64, value << BigInt(10 * power)), rest: text.slice(used) }
}
