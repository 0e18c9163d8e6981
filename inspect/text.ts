/**
 * Text out of physical memory: names are any bytes up to the first NUL. Decoded losslessly enough for
 * people and JSON (contract/DUMP.md), and made harmless before it reaches a terminal.
 */
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The bytes before the first NUL. */
export function beforeNul(bytes: Uint8Array): Uint8Array {
  const nul = bytes.indexOf(0)
  return nul < 0 ? bytes : bytes.subarray(0, nul)
}

/** Text up to the first NUL as UTF-8; each byte that is not part of valid UTF-8 becomes `\xNN`. */
export function decodeText(bytes: Uint8Array): string {
  const content = beforeNul(bytes)
  const whole = tryUtf8(content)
  if (whole !== undefined) return whole
  let text = ''
  for (let at = 0; at < content.length; ) {
    const length = sequenceLength(content[at] as number)
    const character = length > 0 ? tryUtf8(content.subarray(at, at + length)) : undefined
    if (character === undefined) {
      text += `\\x${(content[at] as number).toString(16).padStart(2, '0')}`
      at += 1
    } else {
      text += character
      at += length
    }
  }
  return text
}

function tryUtf8(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes)
  } catch {
    return undefined
  }
}

function sequenceLength(lead: number): number {
  if (lead < 0x80) return 1
  if (lead >= 0xc2 && lead < 0xe0) return 2
  if (lead >= 0xe0 && lead < 0xf0) return 3
  return lead >= 0xf0 && lead < 0xf5 ? 4 : 0
}

/** Controls (C0, C1, DEL), invisible format characters and those that reorder text, line separators. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/** Whether a terminal shows the text as it is. */
export function isPrintable(text: string): boolean {
  return text.search(UNPRINTABLE) < 0
}

/** Replaces what a terminal must not get; `escaped` is given one character at a time. */
export function escapeUnprintable(text: string, escaped: (character: string) => string): string {
  return text.replace(UNPRINTABLE, escaped)
}

/** Text safe for a terminal: control and invisible characters as `\xNN` or `\u{N}`. */
export function printable(text: string): string {
  return escapeUnprintable(text, (character) => {
    const code = character.codePointAt(0) as number
    return code <= 0xff ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`
  })
}

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']

/** A size for people: `10000 B`, `1 MiB`, `3.2 GiB`. Exact up to 10,239 bytes, then three digits. */
export function formatBytes(bytes: number | bigint): string {
  const value = Number(bytes)
  if (value < 10240) return value % 1024 === 0 && value > 0 ? `${value / 1024} KiB` : `${value} B`
  const power = Math.min(UNITS.length, Math.floor(Math.log2(value) / 10))
  const scaled = value / 1024 ** power
  return `${scaled >= 100 ? Math.round(scaled) : Number(scaled.toPrecision(3))} ${UNITS[power - 1]}`
}

const grouping = new Intl.NumberFormat('en')

/** A count for people: `16,777,216`. */
export function formatCount(count: number | bigint): string {
  return grouping.format(count)
}
