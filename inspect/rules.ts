/** The table of rules, in the order in which findings are listed, and everything that claims memory. */
import type { Rule } from './rule.ts'
import { khoRules } from './rules-kho.ts'
import type { ClaimProvider } from './subject.ts'

export const rules: readonly Rule[] = [...khoRules]

export const claimProviders: readonly ClaimProvider[] = []
