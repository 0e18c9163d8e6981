/** Text in lines of a given width. */

/** Breaks text between words; a word that is longer than a line stands alone in one. */
export function linesOf(text: string, width: number): readonly string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}

/** Breaks text into lines behind an indent. */
export function paragraph(text: string, indent: string, width: number): readonly string[] {
  return linesOf(text, width - indent.length).map((line) => `${indent}${line}`)
}
