/**
 * The part of binary-parser 2.3 that record.ts uses. The package's own types are not found under
 * `module: nodenext`, because its exports map names no types for the ES module.
 */
declare module 'binary-parser' {
  /** Method that reads one number, also the name of an array's element type. */
  export type WordReader = `${'u' | ''}int8` | `${'u' | ''}int${16 | 32 | 64}${'le' | 'be'}`

  export interface Parser extends Record<WordReader, (name: string) => Parser> {}

  export class Parser {
    buffer(name: string, options: { length: number }): this
    nest(name: string, options: { type: Parser }): this
    array(name: string, options: { type: Parser | WordReader; length: number }): this
    /** Skips bytes. */
    seek(length: number): this
    sizeOf(): number
    parse(bytes: Uint8Array): unknown
  }
}
