/** The table of rules, in the order in which findings are listed, and everything that claims memory. */
import { incomingClaims } from './incoming-all.ts'
import type { Rule } from './rule.ts'
import { khoRules } from './rules-kho.ts'
import { luoRules } from './rules-luo.ts'
import { mapRules } from './rules-map.ts'
import { memblockRules, metadataRules } from './rules-memblock.ts'
import { memfdRules } from './rules-memfd.ts'
import { restRules } from './rules-rest.ts'
import { scratchRules } from './rules-scratch.ts'
import { subtreeClaims, subtreeRules } from './rules-subtree.ts'
import { testClaims, testRules } from './rules-test.ts'
import { unitRules } from './rules-units.ts'
import type { ClaimProvider } from './subject.ts'

export const rules: readonly Rule[] = [
  ...khoRules,
  ...scratchRules,
  ...mapRules,
  ...unitRules,
  ...subtreeRules,
  ...memblockRules,
  ...luoRules,
  ...memfdRules,
  ...metadataRules,
  ...testRules,
  ...restRules,
]

export const claimProviders: readonly ClaimProvider[] = [subtreeClaims, incomingClaims, testClaims]
