/** What the lint of kernel headers finds: the rule, how bad it is, where, and a sentence. */
export type LintRule =
  | 'UNKNOWN_VERSION'
  | 'UNKNOWN_NAME'
  | 'UNKNOWN_STRUCT'
  | 'UNKNOWN_CONSTANT'
  | 'STRUCT_DIFFERS'
  | 'LIMIT_DIFFERS'
  | 'COMMENT_VERSION'
  | 'COMMENT_MEMBER'
  | 'ASSERTION'
  | 'UNPARSED'
  | 'STRUCT_CHANGED'
  | 'NAME_CHANGED'
  | 'LIMIT_CHANGED'
  | 'ANNOUNCED'

export interface Finding {
  readonly rule: LintRule
  /** Errors and warnings make the lint fail; a note only tells. */
  readonly severity: 'error' | 'warning' | 'note'
  readonly file: string
  readonly line: number
  readonly message: string
}

/** In the order of files and lines. */
export function sortFindings(findings: readonly Finding[]): readonly Finding[] {
  return [...findings].sort((a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1))
}
