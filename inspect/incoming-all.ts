/** Everything that the next kernel reads of a handover beside the map and test modules, in its order, once for each subject. */
import { Incoming } from './incoming.ts'
import { readLuo } from './incoming-luo.ts'
import { readMemblock } from './incoming-memblock.ts'
import { readMetadata } from './incoming-metadata.ts'
import type { Rule } from './rule.ts'
import type { ClaimProvider, Subject } from './subject.ts'

const known = new WeakMap<Subject, Incoming>()

/** What the kernel finds. */
export function incomingOf(subject: Subject): Incoming {
  const before = known.get(subject)
  if (before) return before
  const incoming = new Incoming(subject)
  known.set(subject, incoming)
  readMemblock(incoming)
  readLuo(incoming)
  readMetadata(incoming)
  return incoming
}

/** A rule's check by what was found on the way. */
export function met(id: string): Rule['check'] {
  return (subject) => incomingOf(subject).violations(id)
}

/** All memory that the handover refers to beside the map. */
export const incomingClaims: ClaimProvider = (subject) => incomingOf(subject).claims
