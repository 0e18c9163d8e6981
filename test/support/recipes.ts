/**
 * Recipes of corruption: a base image, the changes to it, and what the decoder must say and keep.
 *
 * A place is an address or a path of the decoded base, followed by steps: `+8` and `-8` move, `->` goes
 * where the 64-bit word there points. A place with `find` is where these bytes stand in the node.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { Severity } from '../../abi/fault.ts'
import type { Handover } from '../../inspect/decode.ts'
import { findNode } from '../../inspect/tree.ts'
import { ROOT } from './images.ts'
import type { PatchedMemory } from './patched.ts'

/** One change: bytes in hex, text, a number, or pages taken out. */
export interface Change {
  readonly at: string
  readonly find?: string
  readonly bytes?: string
  /** A number, `0x…` where it is large; `&place` for the place's address, `*place` for the word that stands there. */
  readonly u64?: number | string
  /** How often the word is repeated. */
  readonly times?: number
  readonly u32?: number
  readonly u16?: number
  readonly be32?: number
  readonly text?: string
  /** Length in bytes; the pages that hold them are no longer in the image. */
  readonly remove?: number
}

export interface Cause {
  readonly code: string
  readonly path: string
  /** How often, if not once. */
  readonly times?: number
}

export interface Recipe {
  readonly title: string
  readonly bases: readonly string[]
  readonly patch: readonly Change[]
  /** Every fault of severity error, and every warning, by code and path. */
  readonly expect: readonly Cause[]
  readonly warns?: readonly Cause[]
  /** Notes, where they are what the recipe is about. */
  readonly notes?: readonly Cause[]
  /** Paths that stay in the tree, and paths that are left out. */
  readonly keeps?: readonly string[]
  readonly loses?: readonly string[]
  /** Of the boot entry, where there is to be one. */
  readonly scratch?: { readonly addr: string; readonly size: string }
}

export interface RecipeFile {
  /** What is wrong, and why it matters. */
  readonly why: string
  readonly recipes: readonly Recipe[]
}

const DIRECTORY = `${ROOT}fixtures/corrupt/`

/** All recipes by the name of their cause. */
export function readRecipes(): readonly { readonly cause: string; readonly file: RecipeFile }[] {
  return readdirSync(DIRECTORY)
    .filter((name) => name.endsWith('.json'))
    .map((name) => ({
      cause: name.slice(0, -'.json'.length),
      file: JSON.parse(readFileSync(`${DIRECTORY}${name}`, 'utf8')),
    }))
}

/** Makes the changes of a recipe, in their order. `base` is the decoded handover before any of them. */
export function applyChanges(memory: PatchedMemory, base: Handover, changes: readonly Change[]): void {
  for (const change of changes) {
    const pa = change.find === undefined ? placeOf(memory, base, change.at) : found(memory, base, change)
    if (change.u64 !== undefined) writeWords(memory, pa, wordOf(memory, base, change.u64), change.times)
    else if (change.remove === undefined) memory.write(pa, bytesOf(change))
    else memory.remove(pa, change.remove)
  }
}

function placeOf(memory: PatchedMemory, base: Handover, text: string): bigint {
  const [start = '', ...steps] = text.split(' ')
  let pa = start.startsWith('0x') ? BigInt(start) : nodeOf(base, start).pa
  for (const step of steps) pa = step === '->' ? memory.u64(pa) : BigInt.asUintN(64, pa + BigInt(step))
  return pa
}

function nodeOf(base: Handover, path: string) {
  const found = findNode(base.tree, path)
  if ('problem' in found) throw new Error(found.problem)
  return found.node
}

function found(memory: PatchedMemory, base: Handover, { at, find = '' }: Change): bigint {
  const { pa, length } = nodeOf(base, at)
  const bytes = Buffer.alloc(length)
  memory.read(pa, bytes)
  const offset = bytes.indexOf(find, 0, 'latin1')
  if (offset < 0) throw new Error(`${at} does not hold '${find}'`)
  return pa + BigInt(offset)
}

function wordOf(memory: PatchedMemory, base: Handover, word: number | string): bigint {
  if (typeof word === 'number') return BigInt(word)
  if (word.startsWith('&')) return placeOf(memory, base, word.slice(1))
  return word.startsWith('*') ? memory.u64(placeOf(memory, base, word.slice(1))) : BigInt(word)
}

function writeWords(memory: PatchedMemory, pa: bigint, word: bigint, times = 1): void {
  for (let i = 0; i < times; i++) memory.writeU64(pa + BigInt(i * 8), word)
}

function bytesOf({ bytes, u32, u16, be32, text }: Change): Uint8Array {
  if (bytes !== undefined) return Uint8Array.from(Buffer.from(bytes, 'hex'))
  if (text !== undefined) return Uint8Array.from(Buffer.from(text, 'utf8'))
  const word = Buffer.alloc(u16 === undefined ? 4 : 2)
  if (u32 !== undefined) word.writeUInt32LE(u32)
  else if (u16 !== undefined) word.writeUInt16LE(u16)
  else word.writeUInt32BE(be32 ?? 0)
  return Uint8Array.from(word)
}

/** Faults of one severity as `CODE path`, sorted. */
export function causesOf(handover: Handover, severity: Severity): readonly string[] {
  return handover.faults
    .filter((fault) => fault.severity === severity)
    .map(({ code, path }) => `${code} ${path}`)
    .sort()
}

/** The causes of a recipe in the same form. */
export function expectedCauses(causes: readonly Cause[] = []): readonly string[] {
  return causes
    .flatMap(({ code, path, times = 1 }) => Array.from({ length: times }, () => `${code} ${path}`))
    .sort()
}
