/** What a machine writes to its serial line, as lines of bounded number and length. */

/** Lines beyond these are passed on, but not kept. */
const MAX_LINES = 100_000
/** A line is broken here. */
const MAX_LINE_CHARACTERS = 4096
/** printk.time */
const TIME_STAMP = /^\[ *\d+\.\d{6}\] /

export class ConsoleLog {
  /** Without time stamps and line ends. */
  readonly lines: string[] = []
  readonly #onLine: (line: string) => void
  readonly #decoder = new TextDecoder()
  #open = ''

  constructor(onLine: (line: string) => void = () => {}) {
    this.#onLine = onLine
  }

  write(bytes: Uint8Array): void {
    this.#open += this.#decoder.decode(bytes, { stream: true })
    for (let end = this.#lineEnd(); end !== undefined; end = this.#lineEnd()) {
      const line = this.#open.slice(0, end)
      this.#open = this.#open.slice(this.#open[end] === '\n' ? end + 1 : end)
      this.#add(line)
    }
  }

  /** The last line may lack its end. */
  end(): void {
    if (this.#open !== '') this.#add(this.#open)
    this.#open = ''
  }

  #lineEnd(): number | undefined {
    const end = this.#open.indexOf('\n')
    if (end >= 0 && end <= MAX_LINE_CHARACTERS) return end
    return this.#open.length > MAX_LINE_CHARACTERS ? MAX_LINE_CHARACTERS : undefined
  }

  #add(text: string): void {
    const line = text.replace(/\r+$/, '').replace(TIME_STAMP, '')
    if (this.lines.length < MAX_LINES) this.lines.push(line)
    this.#onLine(line)
  }
}
