/**
 * The early parameters of KHO and of live update: what they take, and what the kernel says of them.
 *
 * Sources: init/main.c: do_early_param(); lib/kstrtox.c: kstrtobool(); kernel/liveupdate/kexec_handover.c:
 * kho_parse_enable(), kho_parse_scratch_size(); luo_core.c: early_liveupdate_param().
 */
import { appliesTo } from './check.ts'
import { memparse, type Parameter } from './command-line.ts'
import { traitSpan } from './kernel-traits.ts'
import type { FormatArgument } from './printk.ts'

/** kstrtobool(); undefined where it is neither. */
export function parseBool(text: string): boolean | undefined {
  if (/^(e|y|t|1|on)/i.test(text)) return true
  if (/^(d|n|f|0|of)/i.test(text)) return false
  return undefined
}

/** What kho_scratch= asks for: bytes, or percent of what the early kernel took. */
export type ScratchSizes =
  | { readonly lowmem: bigint; readonly global: bigint; readonly pernode: bigint }
  | { readonly scale: bigint }

/** kho_parse_scratch_size(); undefined where it answers an error. */
export function parseScratchSizes(text: string, release: string): ScratchSizes | undefined {
  const [, percent] = /^([0-9]{1,10})%$/.exec(text) ?? []
  if (percent !== undefined) return BigInt(percent) < 1n << 32n ? { scale: BigInt(percent) } : undefined
  const isStrict = appliesTo(traitSpan('strictScratchSizes'), release)
  const sizes: bigint[] = []
  let rest = text
  for (let at = 0; at < 3; at++) {
    if (at > 0 && !rest.startsWith(',')) return undefined
    const before = at > 0 ? rest.slice(1) : rest
    const parsed = memparse(before)
    if (parsed.rest === before || (!isStrict && parsed.value === 0n)) return undefined
    sizes.push(parsed.value)
    rest = parsed.rest
  }
  const [lowmem = 0n, global = 0n, pernode = 0n] = sizes
  if (isStrict && (rest !== '' || lowmem + global + pernode === 0n)) return undefined
  return { lowmem, global, pernode }
}

/** Names of the parameters; those of a release without live update are the first two. */
export const EARLY = { kho: 'kho', scratch: 'kho_scratch', liveupdate: 'liveupdate' } as const

/** A line of console.ts by its id, and what its conversions are filled with. */
export type EarlyLine = readonly [id: string, ...values: FormatArgument[]]

/** parse_early_param(): what the kernel says of each parameter that it knows; `switches` take a kstrtobool(). */
export function earlyLines(
  parameters: readonly Parameter[],
  switches: readonly string[],
  release: string,
): readonly EarlyLine[] {
  return parameters.flatMap(({ name, spelling, value = '' }): readonly EarlyLine[] => {
    const malformed: EarlyLine = ['EARLY_PARAMETER', spelling]
    if (switches.includes(name)) return parseBool(value) === undefined ? [malformed] : []
    if (name !== EARLY.scratch) return []
    const sizes = parseScratchSizes(value, release)
    return [sizes ? scratchLine(sizes) : malformed]
  })
}

function scratchLine(sizes: ScratchSizes): EarlyLine {
  if ('scale' in sizes) return ['KHO_SCRATCH_SCALE', sizes.scale]
  return ['KHO_SCRATCH_SIZES', sizes.lowmem >> 20n, sizes.global >> 20n, sizes.pernode >> 20n]
}
