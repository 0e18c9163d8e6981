/**
 * Colour as an injected dependency: renderers name what a piece of text is, the terminal edge decides
 * how that looks. Without a terminal every function returns its text unchanged.
 */
export interface Paint {
  readonly key: (text: string) => string
  readonly number: (text: string) => string
  readonly address: (text: string) => string
  readonly text: (text: string) => string
  readonly title: (text: string) => string
  readonly dim: (text: string) => string
  readonly good: (text: string) => string
  readonly warn: (text: string) => string
  readonly fault: (text: string) => string
  /** One of a few distinguishable tints, for neighbouring fields in hex dumps. */
  readonly tint: (index: number, text: string) => string
}

const same = (text: string): string => text

export const noPaint: Paint = {
  key: same,
  number: same,
  address: same,
  text: same,
  title: same,
  dim: same,
  good: same,
  warn: same,
  fault: same,
  tint: (_index, text) => text,
}
