/** What must never reach a terminal out of an image: controls, and characters that hide or reorder text. */
const HARMFUL = /[^\n\P{Cc}]|\p{Cf}|\p{Zl}|\p{Zp}/gu

/** The harmful characters of a text, each once, as `U+1b`; lines may end. */
export function harmfulCharacters(text: string): readonly string[] {
  return [...new Set(text.match(HARMFUL))].map((character) => `U+${character.codePointAt(0)?.toString(16)}`)
}
